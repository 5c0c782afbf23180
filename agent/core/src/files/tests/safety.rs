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
    // What was made a moment ago counts for no mass delete.
    world.replicas.iter_mut().for_each(|replica| replica.now.mono_ms += 60_000);
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

/// A build tool makes a hundred files beside the old ones, removes the old ones and puts the new ones in their place: nothing
/// of that is a mass delete. The same number of files that were there for longer is one.
#[test]
fn what_was_there_for_a_moment_is_no_mass_delete() {
    for young in [true, false] {
        let mut world = world_of(60);
        let replica = &mut world.replicas[0];
        for n in 0..60 {
            replica.write(&format!("out.tmp/{n}.js"), format!("built {n}\n"));
        }
        replica.scan();
        if !young {
            replica.now.mono_ms += 60_000;
        }
        for n in 0..60 {
            replica.write(&format!("d{}/{n}.md", n % 4), format!("built {n}\n"));
        }
        replica.remove("out.tmp");
        replica.scan();
        replica.run();
        assert_eq!(replica.files.halted().is_none(), young);
        if young {
            world.settle();
            world.assert_equal();
            assert_eq!(world.replicas[1].text("d0/0.md"), "built 0\n");
            assert!(world.replicas[1].paths().iter().all(|at| !at.starts_with("out.tmp/")));
        }
    }
}

/// Many files that moved are told of in pieces, and taking in each piece may take long: nothing is decided while more of what
/// went is found.
#[test]
fn a_move_that_takes_long_is_no_mass_delete() {
    let mut world = world_of(60);
    let replica = &mut world.replicas[0];
    replica.rename("d0", "far/d0");
    replica.rename("d1", "far/d1");
    replica.rename("d2", "far/d2");
    let moved: Vec<_> = replica.folder.keys().filter(|at| at.as_str().starts_with("far/")).cloned().collect();
    let gone: Vec<_> = ["d0", "d1", "d2"].iter().map(|at| replica.look(&path(at))).collect();
    replica.call(|files, now, held, tx| files.handle_seen(now, gone, held, tx));
    for some in moved.chunks(8) {
        let seen = some.iter().map(|at| replica.look(at)).collect();
        replica.call(|files, now, held, tx| files.handle_seen(now, seen, held, tx));
        replica.now.mono_ms += 1_900;
        replica.call(|files, now, held, tx| files.handle_timeout(now, held, tx));
        assert!(replica.files.halted().is_none());
    }
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].files.figures().files, 60);
    assert!(world.replicas[1].paths().contains(&"far/d0/0.md".to_owned()));
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
    let seen = vec![crate::disk::Seen::new(path("d0/0.md"), crate::disk::Found::Absent)];
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
