//! Deletions, and what must not become one.

use super::world::{World, path};
use crate::files::{Halt, LogEvent, Resume};

fn world_of(count: usize) -> World {
    let mut world = World::new(2);
    for n in 0..count {
        world.replicas[0].write(&format!("d{}/{n}.md", n % 4), format!("text {n}\n"));
    }
    world.settle();
    world.assert_equal();
    world
}

/// A deletion travels; a few at once are no alarm.
#[test]
fn a_deletion_travels() {
    let mut world = world_of(20);
    world.replicas[0].remove("d0/0.md");
    world.replicas[0].remove("d0/4.md");
    world.settle();
    world.assert_equal();
    assert!(world.replicas.iter().all(|one| one.halts.is_empty()));
    assert_eq!(world.replicas[1].files.figures().files, 18);
    assert!(world.replicas[1].log.contains(&LogEvent::Deleted(path("d0/0.md"))));
}

/// Deleted by one, edited by another: the edit wins on both machines, and the log says so.
#[test]
fn an_edit_beats_a_deletion() {
    let mut world = world_of(8);
    world.replicas[0].remove("d1/1.md");
    world.replicas[1].edit("d1/1.md", "text", "TEXT");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("d1/1.md"), "TEXT 1\n");
    let kept = LogEvent::KeptEdited(path("d1/1.md"));
    assert!(world.replicas.iter().any(|one| one.log.contains(&kept)));
    // Deleted again, by somebody who saw the edit: gone.
    world.replicas[0].remove("d1/1.md");
    world.settle();
    world.assert_equal();
    assert!(!world.replicas[1].paths().contains(&"d1/1.md".to_owned()));
}

/// An edit in an open editor when the remote deletion arrives is kept.
#[test]
fn an_unseen_edit_beats_a_remote_removal() {
    let mut world = world_of(8);
    world.replicas[0].remove("d1/1.md");
    world.replicas[0].scan();
    world.replicas[0].run();
    world.replicas[1].edit("d1/1.md", "text", "TEXT");
    world.deliver_all(1);
    world.replicas[1].run();
    assert_eq!(world.replicas[1].text("d1/1.md"), "TEXT 1\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("d1/1.md"), "TEXT 1\n");
}

/// Everything gone in a scan halts: nothing is published until a person answers.
#[test]
fn an_emptied_folder_halts() {
    let mut world = world_of(12);
    world.collect();
    let sent = world.sent.len();
    let before = world.replicas[0].folder.clone();
    world.replicas[0].folder.clear();
    world.replicas[0].scan();
    world.replicas[0].run();
    world.collect();
    assert_eq!(world.replicas[0].halts, [Halt::MassDelete { gone: 12, total: 12 }]);
    assert_eq!(world.sent.len(), sent, "nothing was deleted");
    // Remote edits are still taken in, but nothing is written.
    world.replicas[1].edit("d0/0.md", "text", "TEXT");
    world.replicas[1].scan();
    world.deliver_all(0);
    world.replicas[0].run();
    assert!(world.replicas[0].folder.is_empty());
    assert!(world.replicas[0].resume(Resume::Restore));
    world.replicas[0].run();
    assert_eq!(world.replicas[0].paths().len(), before.len());
    assert_eq!(world.replicas[0].text("d0/0.md"), "TEXT 0\n");
    world.settle();
    world.assert_equal();
}

/// `rm -rf` seen event by event halts as well; the answer that it was meant deletes everywhere.
#[test]
fn removal_by_events_halts() {
    let mut world = world_of(12);
    let all: Vec<_> = world.replicas[0].folder.keys().cloned().collect();
    world.replicas[0].folder.clear();
    for at in all {
        let seen = vec![world.replicas[0].look(&at)];
        world.replicas[0].call(|files, now, held, tx| files.handle_seen(now, seen, held, tx));
    }
    world.replicas[0].run();
    assert!(world.replicas[0].files.halted().is_some());
    assert!(world.replicas[0].resume(Resume::AcceptDeletes));
    assert!(!world.replicas[0].resume(Resume::AcceptDeletes), "asked only once");
    world.settle();
    assert!(world.replicas[1].folder.is_empty(), "{:?}", world.replicas[1].paths());
}

/// A quarter of a large folder may go; more than that halts.
#[test]
fn the_share_decides() {
    let mut world = world_of(100);
    for n in 0..25 {
        world.replicas[0].remove(&format!("d{}/{n}.md", n % 4));
    }
    world.replicas[0].scan();
    assert!(world.replicas[0].files.halted().is_none());
    for n in 25..60 {
        world.replicas[0].remove(&format!("d{}/{n}.md", n % 4));
    }
    world.replicas[0].scan();
    assert_eq!(world.replicas[0].files.halted(), Some(&Halt::MassDelete { gone: 35, total: 75 }));
}

/// While the root is lost nothing is believed; when it is back everything is as before.
#[test]
fn a_lost_root_deletes_nothing() {
    let mut world = world_of(8);
    let before = world.replicas[0].folder.clone();
    world.replicas[0].call(|files, now, held, tx| files.handle_root(now, Some("unmounted".into()), held, tx));
    world.replicas[0].folder.clear();
    world.replicas[0].scan();
    world.replicas[0].run();
    assert!(matches!(world.replicas[0].files.halted(), Some(Halt::Root(_))));
    world.replicas[0].folder = before;
    world.replicas[0].call(|files, now, held, tx| files.handle_root(now, None, held, tx));
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].files.figures().files, 8);
}

/// An incomplete scan proves no absence.
#[test]
fn an_incomplete_scan_deletes_nothing() {
    let mut world = world_of(8);
    let seen =
        vec![crate::disk::Seen { path: path("d0/0.md"), found: crate::disk::Found::Absent, opened_since_write: None }];
    world.replicas[0].call(|files, now, held, tx| files.handle_seen(now, seen, held, tx));
    world.replicas[0].call(|files, now, held, tx| files.handle_scanned(now, false, held, tx));
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].files.figures().files, 8);
}

/// A file made and removed between two looks never enters.
#[test]
fn short_lived_files_never_enter() {
    let mut world = world_of(4);
    let sent = world.sent.len();
    world.replicas[0].write("tmp~", "x");
    world.replicas[0].remove("tmp~");
    world.replicas[0].scan();
    world.settle();
    assert_eq!(world.sent.len(), sent);
}
