//! Edits made apart come together.

use super::world::{Node, Replica, World, path};
use crate::files::LogEvent;

fn two_with(name: &str, text: &str) -> World {
    let mut world = World::new(2);
    world.replicas[0].write(name, text);
    world.settle();
    assert_eq!(world.replicas[1].text(name), text);
    world
}

/// Two people change different words of one line: both changes are there.
#[test]
fn two_edits_of_one_line_merge() {
    let mut world = two_with("a.md", "the quick brown fox\n");
    world.replicas[0].edit("a.md", "quick", "slow");
    world.replicas[1].edit("a.md", "fox", "dog");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a.md"), "the slow brown dog\n");
}

/// An edit saved while a remote one is known but not yet written keeps both: it is entered at what was on disk.
#[test]
fn an_edit_never_reverts_what_was_not_on_disk_yet() {
    let mut world = two_with("a.md", "one\ntwo\nthree\n");
    world.replicas[0].edit("a.md", "one", "ONE");
    world.replicas[0].scan();
    world.deliver_all(1);
    assert!(!world.replicas[1].acts.is_empty(), "the write is still under way");
    world.replicas[1].edit("a.md", "three", "THREE");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("a.md"), "ONE\ntwo\nTHREE\n");
}

/// Many saves on a stale base, each with remote edits in between, revert nothing and make few actors.
#[test]
fn the_base_advances_with_every_save() {
    let mut world = two_with("a.md", "start\n");
    for round in 0..20 {
        let text = world.replicas[0].text("a.md");
        world.replicas[0].write("a.md", format!("a{round}\n{text}"));
        world.replicas[0].scan();
        let text = world.replicas[1].text("a.md");
        world.replicas[1].write("a.md", format!("{text}b{round}\n"));
        world.replicas[1].scan();
        if round % 3 == 0 {
            world.deliver_all(0);
            world.deliver_all(1);
        }
        if round % 5 == 0 {
            world.replicas[0].run();
        }
    }
    world.settle();
    world.assert_equal();
    let text = world.replicas[0].text("a.md");
    for round in 0..20 {
        assert_eq!(text.matches(&format!("a{round}\n")).count(), 1, "{text}");
        assert_eq!(text.matches(&format!("b{round}\n")).count(), 1, "{text}");
    }
}

/// A buffer from before our write, saved with one more line: the write is not reverted, and the log says so.
#[test]
fn a_stale_buffer_reverts_nothing() {
    let mut world = two_with("a.md", "one\ntwo\nthree\nfour\nfive\n");
    world.replicas[0].edit("a.md", "one", "ONE");
    world.settle();
    assert_eq!(world.replicas[1].text("a.md"), "ONE\ntwo\nthree\nfour\nfive\n");
    world.replicas[1].opened = Some(true);
    world.replicas[1].write("a.md", "one\ntwo\nthree\nfour\nFIVE\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("a.md"), "ONE\ntwo\nthree\nfour\nFIVE\n");
    assert!(world.replicas[1].log.contains(&LogEvent::StaleBuffer(path("a.md"))));
}

/// Taking a remote edit back by hand, an hour later, is an edit like any other.
#[test]
fn a_late_revert_is_an_edit() {
    let mut world = two_with("a.md", "one\ntwo\n");
    world.replicas[0].edit("a.md", "one", "ONE");
    world.settle();
    world.replicas[1].now.wall_ms += 3_600_000;
    world.replicas[1].opened = Some(true);
    world.replicas[1].write("a.md", "one\ntwo\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a.md"), "one\ntwo\n");
}

/// A person's own undo back to an earlier save is an edit, at any time.
#[test]
fn an_own_undo_is_an_edit() {
    let mut world = two_with("a.md", "one\n");
    world.replicas[1].write("a.md", "two\n");
    world.settle();
    world.replicas[1].write("a.md", "one\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a.md"), "one\n");
}

/// Line ends and the byte order mark are kept through merges; mixed ends stay as they are until the first edit.
#[test]
fn line_ends_are_kept() {
    let mut world = two_with("a.txt", "\u{feff}one\r\ntwo\r\nthree\r\n");
    world.replicas[0].edit("a.txt", "one", "ONE");
    world.replicas[1].edit("a.txt", "three", "THREE");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a.txt"), "\u{feff}ONE\r\ntwo\r\nTHREE\r\n");
    let mixed = "one\r\ntwo\nthree\r\n";
    let mut world = two_with("m.txt", mixed);
    world.replicas[0].scan();
    world.settle();
    assert_eq!(world.replicas[1].text("m.txt"), mixed);
    world.replicas[1].edit("m.txt", "two", "TWO");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("m.txt"), "one\r\nTWO\r\nthree\r\n");
}

/// Two people found the same text apart, from the same version: one document, both edits.
#[test]
fn founding_apart_meets() {
    let mut world = World::new(3);
    for replica in &mut world.replicas {
        replica.write("notes/a.md", "x\ny\nz\n");
        replica.scan();
    }
    for (replica, (old, new)) in world.replicas.iter_mut().zip([("x", "X"), ("y", "Y"), ("z", "Z")]) {
        replica.edit("notes/a.md", old, new);
        replica.scan();
    }
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[2].paths(), ["notes", "notes/a.md"]);
    assert_eq!(world.replicas[2].text("notes/a.md"), "X\nY\nZ\n");
}

/// Two binary versions made apart stand side by side on every machine; deleting one leaves the other.
#[test]
fn concurrent_versions_stand_side_by_side() {
    let mut world = two_with("a.bin", "\0one");
    world.replicas[0].write("a.bin", "\0two");
    world.replicas[1].write("a.bin", "\0three");
    world.settle();
    world.assert_equal();
    let paths = world.replicas[0].paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    let mut texts: Vec<String> = paths.iter().map(|at| world.replicas[0].text(at)).collect();
    texts.sort();
    assert_eq!(texts, ["\0three", "\0two"]);
    world.replicas[0].remove(&paths[0]);
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].paths(), ["a.bin"]);
}

/// A text replaced by binary content while another edited the text: both are kept.
#[test]
fn a_version_against_unseen_edits_keeps_both() {
    let mut world = two_with("a.md", "text\n");
    world.replicas[0].write("a.md", "\0binary");
    world.replicas[1].write("a.md", "text, edited\n");
    world.settle();
    world.assert_equal();
    let texts: Vec<String> = world.replicas[0].paths().iter().map(|at| world.replicas[0].text(at)).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.contains(&"\0binary".to_owned()) && texts.contains(&"text, edited\n".to_owned()));
}

/// Editing the copy that stands beside a file makes it a file of its own, with the edit.
#[test]
fn an_edited_copy_becomes_a_file() {
    let mut world = two_with("a.bin", "\0one");
    world.replicas[0].write("a.bin", "\0two");
    world.replicas[1].write("a.bin", "\0three");
    world.settle();
    let copy = world.replicas[0].paths().into_iter().find(|at| at != "a.bin").unwrap();
    world.replicas[1].write(&copy, "\0four");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text(&copy), "\0four");
    assert_eq!(world.replicas[0].paths().len(), 2);
}

/// Text that outgrows what is merged, or comes back below it, changes between text and versions without loss.
#[test]
fn text_outgrows_and_returns() {
    let mut world = two_with("a.md", "small\n");
    let large = "0123456789abcdef\n".repeat(20_000);
    world.replicas[0].write("a.md", &large);
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("a.md"), large);
    world.replicas[1].write("a.md", "small again\n");
    world.settle();
    world.assert_equal();
    world.replicas[0].edit("a.md", "again", "for good");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("a.md"), "small for good\n");
}

/// Links travel as links, and the execute bit travels.
#[test]
fn links_and_modes_travel() {
    let mut world = two_with("run.sh", "#!/bin/sh\n");
    world.replicas[0].folder.insert(path("link"), Node::Link("run.sh".into()));
    if let Some(Node::File { executable, .. }) = world.replicas[0].folder.get_mut(&path("run.sh")) {
        *executable = true;
    }
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].folder.get(&path("link")), Some(&Node::Link("run.sh".into())));
    world.replicas[1].folder.insert(path("link"), Node::Link("else".into()));
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].folder.get(&path("link")), Some(&Node::Link("else".into())));
}

/// Setting a bit, or moving, says nothing of a file's content: an edit that nobody told of is still looked for after a
/// crash, when only what is stored says what need not be read again.
#[test]
fn a_touch_of_ours_hides_no_edit() {
    for moves in [false, true] {
        let mut world = two_with("run.sh", "#!/bin/sh\n");
        if moves {
            world.replicas[0].rename("run.sh", "go.sh");
        } else if let Some(Node::File { executable, .. }) = world.replicas[0].folder.get_mut(&path("run.sh")) {
            *executable = true;
        }
        world.replicas[0].scan();
        world.deliver_all(1);
        let at = if moves { "go.sh" } else { "run.sh" };
        if !moves {
            world.replicas[1].edit("run.sh", "sh\n", "sh\nexit\n");
        }
        while world.replicas[1].act() {}
        assert_eq!(world.replicas[1].is_to_be_looked_at(at), !moves, "what was only moved need not be read again");
        world.settle();
        world.assert_equal();
        assert_eq!(world.replicas[0].text(at), if moves { "#!/bin/sh\n" } else { "#!/bin/sh\nexit\n" });
    }
}

/// What we wrote, seen again, is no edit: nothing is published.
#[test]
fn echoes_are_silent() {
    let mut world = two_with("a.md", "one\n");
    world.replicas[0].edit("a.md", "one", "two");
    world.settle();
    let sent = world.sent.len();
    for _ in 0..3 {
        world.settle();
    }
    assert_eq!(world.sent.len(), sent);
    let _: &Replica = &world.replicas[0];
}

/// An edit of every line, saved on a text from before others' edits of many lines: nothing of theirs is reverted, and what
/// it was made on need not be the last that its author wrote.
#[test]
fn an_edit_of_every_line_on_an_older_text_reverts_nothing() {
    let lines = |one: &str, two: &str| (0..120).map(|n| format!("{one} {n} {two} {n}\n")).collect::<String>();
    let mut world = two_with("a.md", &lines("one", "two"));
    world.replicas[1].edit("a.md", "one 7 ", "own 7 ");
    world.replicas[1].scan();
    let theirs = lines("one", "two").replace("one 3", "ONE 3");
    world.replicas[0].write("a.md", theirs);
    world.replicas[0].scan();
    world.deliver_all(1);
    assert!(!world.replicas[1].acts.is_empty(), "the write is still under way");
    world.replicas[1].write("a.md", lines("one", "TWO").replace("one 7 ", "own 7 "));
    world.settle();
    world.assert_equal();
    let expected = lines("one", "TWO").replace("one 7 ", "own 7 ").replace("one 3", "ONE 3");
    assert_eq!(world.replicas[0].text("a.md"), expected);
}
