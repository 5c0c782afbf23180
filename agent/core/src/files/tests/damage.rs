//! Lost rows, and what must not follow from them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::World;
use crate::damage::Damaged;
use crate::store::{Table, Write, rows};

fn world_of(count: usize) -> World {
    let mut world = World::new(2);
    for n in 0..count {
        world.replicas[0].write(&format!("d{}/{n}.md", n % 4), format!("# {n}\n{}", "a line of text\n".repeat(12)));
    }
    world.settle();
    world.assert_equal();
    world
}

fn drop_rows(world: &mut World, table: Table, is_meant: impl Fn(&[u8]) -> bool) -> usize {
    let store = &mut world.replicas[0].store;
    let keys: Vec<Vec<u8>> = rows(store, table, &[], 64).map(|(key, _)| key).filter(|key| is_meant(key)).collect();
    let batch: Vec<Write> = keys.into_iter().map(|key| Write { table, key, value: None }).collect();
    store.apply(&batch);
    batch.len()
}

/// Whatever the documents have forgotten, nothing leaves the disk for it: silence is no reason. It is counted.
#[test]
fn silence_removes_nothing() {
    let mut world = world_of(40);
    let before = world.replicas[0].picture();
    assert!(drop_rows(&mut world, Table::Documents, |key| key.starts_with(b"tree:")) > 0);
    world.replicas[0].restart();
    world.replicas[0].run();
    assert_eq!(world.replicas[0].picture(), before);
    assert!(world.replicas[0].files.figures().unnamed > 0);
}

/// A document that lost a row in the middle, or its last one while the program ran, is damaged, and not a shorter document.
#[test]
fn a_document_with_a_gap_is_damaged() {
    for last in [false, true] {
        let mut world = world_of(1);
        for n in 0..4 {
            world.replicas[0].edit("d0/0.md", "# ", &format!("# {n} "));
            world.settle();
        }
        let texts: Vec<Vec<u8>> =
            rows(&world.replicas[0].store, Table::Documents, b"file:", 64).map(|(key, _)| key).collect();
        assert!(texts.len() > 3, "{} rows", texts.len());
        let gone = if last { texts.last().cloned() } else { texts.get(1).cloned() }.unwrap();
        world.replicas[0].files.release_memory();
        drop_rows(&mut world, Table::Documents, |key| *key == gone[..]);
        if !last {
            world.replicas[0].restart();
        }
        world.replicas[0].edit("d0/0.md", "# ", "# mine ");
        let looked = catch_unwind(AssertUnwindSafe(|| world.replicas[0].scan()));
        let payload = looked.expect_err("a damaged document is not read");
        assert_eq!(payload.downcast::<Damaged>().map(|found| found.table).ok(), Some(Table::Documents));
    }
}

/// What was known of the folder is lost: what is equal to any version there ever was is no edit, what differs is an edit of
/// the nearest one, what was not there is written, and nothing is there twice.
#[test]
fn files_are_met_again() {
    let mut world = world_of(8);
    let old = world.replicas[0].text("d1/1.md");
    for (n, file) in ["d1/1.md", "d2/2.md", "d3/3.md"].into_iter().enumerate() {
        world.replicas[1].edit(file, "# ", &format!("# new {n} "));
    }
    world.settle();
    drop_rows(&mut world, Table::Files, |key| key.len() != 25 || key[16] != b't');
    // Back on an old version; edited on an old version; gone; edited on the newest.
    world.replicas[0].write("d1/1.md", &old);
    let edited = world.replicas[0].text("d2/2.md").replace("new 1 ", "") + "mine\n";
    world.replicas[0].write("d2/2.md", edited);
    world.replicas[0].remove("d3/3.md");
    world.replicas[0].edit("d0/0.md", "# ", "# own ");
    world.replicas[0].restart();
    world.replicas[0].call(|files, now, held, tx| files.meet_again(now, held, tx));
    world.settle();
    world.assert_equal();
    let one = &world.replicas[0];
    assert!(one.paths().iter().all(|at| !at.contains(" (2")), "{:?}", one.paths());
    assert!(one.text("d1/1.md").starts_with("# new 0 1\n"));
    let merged = one.text("d2/2.md");
    assert!(merged.starts_with("# new 1 2\n") && merged.ends_with("mine\n"), "{merged}");
    assert!(one.text("d3/3.md").starts_with("# new 2 3\n"));
    assert!(one.text("d0/0.md").starts_with("# own 0\n"));
}
