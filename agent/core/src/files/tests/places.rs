//! Names, folders, moves and clashes.

use super::world::{World, path};
use crate::files::LogEvent;

fn world_with(paths: &[(&str, &str)]) -> World {
    let mut world = World::new(2);
    for (at, text) in paths {
        world.replicas[0].write(at, text);
    }
    world.settle();
    world.assert_equal();
    world
}

/// A rename keeps the file: an edit made meanwhile under the old name is there under the new one.
#[test]
fn a_rename_meets_an_edit() {
    let mut world = world_with(&[("a.md", "one\ntwo\n"), ("b.md", "b\n")]);
    world.replicas[0].rename("a.md", "c.md");
    world.replicas[1].edit("a.md", "two", "TWO");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].paths(), ["b.md", "c.md"]);
    assert_eq!(world.replicas[0].text("c.md"), "one\nTWO\n");
}

/// A folder of many files moves with one operation, and files made inside meanwhile follow.
#[test]
fn a_folder_moves_whole() {
    let names: Vec<String> = (0..30).map(|n| format!("docs/sub/{n}.md")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let mut world = world_with(&files);
    world.collect();
    let sent = world.sent.len();
    world.replicas[0].rename("docs", "texts");
    world.replicas[0].scan();
    world.collect();
    assert_eq!(world.sent.len(), sent + 1);
    assert_eq!(world.sent[sent].1.documents.len(), 1, "one change of one bucket");
    world.replicas[1].write("docs/sub/new.md", "new\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("texts/sub/new.md"), "new\n");
    assert!(world.replicas[0].paths().iter().all(|at| at.starts_with("texts")), "{:?}", world.replicas[0].paths());
}

/// A person puts a file into a folder that is just being made there, and that others have moved away meanwhile: it comes to
/// rest somewhere, the same everywhere, and nothing is left to be done.
#[test]
fn a_file_put_into_a_folder_that_is_being_made() {
    let mut world = World::new(2);
    world.replicas[0].write("x/y/f.md", "one\n");
    world.replicas[0].scan();
    world.deliver_all(1);
    assert!(world.replicas[1].act(), "x is made, and x/y about to be");
    world.replicas[0].rename("x/y", "z");
    world.replicas[0].scan();
    world.deliver_all(1);
    world.replicas[1].write("x/y/new.md", "two\n");
    let seen = ["x/y", "x/y/new.md"].map(|at| world.replicas[1].look(&path(at))).into();
    world.replicas[1].call(|files, now, held, tx| files.handle_seen(now, seen, held, tx));
    world.settle();
    world.assert_equal();
    let texts: Vec<String> = world.replicas[1].paths().into_iter().filter(|at| at.ends_with(".md")).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.contains(&"z/f.md".to_owned()), "{texts:?}");
}

/// Two different files made apart at one path are both kept, under the same names everywhere; and that clash name is
/// not taken for a rename.
#[test]
fn one_path_two_files() {
    let mut world = World::new(2);
    world.replicas[0].write("a.md", "mine\n");
    world.replicas[1].write("a.md", "yours\n");
    world.settle();
    world.assert_equal();
    let paths = world.replicas[0].paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    let copy = paths.iter().find(|at| *at != "a.md").unwrap().clone();
    assert!(copy.starts_with("a (2, from ") && copy.ends_with(").md"), "{copy}");
    assert!(world.replicas.iter().any(|one| one.log.iter().any(|what| matches!(what, LogEvent::Clash { .. }))));
    // Renaming the other one frees the name.
    world.replicas[0].rename("a.md", "b.md");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].paths(), ["a.md", "b.md"]);
}

/// The same files on two machines that join for the first time meet: nothing is doubled.
#[test]
fn identical_imports_meet() {
    let mut world = World::new(2);
    for replica in &mut world.replicas {
        for n in 0..50 {
            replica.write(&format!("dir{}/{n}.md", n % 5), format!("text {n}\n"));
        }
        replica.scan();
    }
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].files.figures().files, 50);
    assert_eq!(world.replicas[0].paths().len(), 55);
}

/// Two people rename two files to one name: both are there.
#[test]
fn renames_to_one_name_keep_both() {
    let mut world = world_with(&[("a.md", "a\n"), ("b.md", "b\n")]);
    world.replicas[0].rename("a.md", "c.md");
    world.replicas[1].rename("b.md", "c.md");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].paths().len(), 2);
}

/// Files that swap names, and a ring of three, end where they belong.
#[test]
fn names_swap() {
    let mut world = world_with(&[("a", "1\n"), ("b", "2\n"), ("c", "3\n")]);
    world.replicas[0].rename("a", "t");
    world.replicas[0].rename("b", "a");
    world.replicas[0].rename("c", "b");
    world.replicas[0].rename("t", "c");
    world.settle();
    world.assert_equal();
    assert_eq!((world.replicas[1].text("a"), world.replicas[1].text("c")), ("2\n".into(), "1\n".into()));
}

/// A folder that belongs in another one, which is to take its place: it makes way first, as nothing moves into itself.
#[test]
fn a_folder_goes_into_the_one_that_takes_its_place() {
    let mut world = world_with(&[("a/x.md", "x\n"), ("b/y.md", "y\n")]);
    world.replicas[0].rename("a", "t");
    world.replicas[0].rename("b", "a");
    world.replicas[0].rename("t", "a/inner");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].paths(), ["a", "a/inner", "a/inner/x.md", "a/y.md"]);
}

/// Two folders moved into one another apart make a cycle; both stay, with what is in them.
#[test]
fn a_cycle_of_folders_loses_nothing() {
    let mut world = world_with(&[("a/x.md", "x\n"), ("b/y.md", "y\n")]);
    world.replicas[0].rename("a", "b/a");
    world.replicas[1].rename("b", "a/b");
    world.settle();
    world.assert_equal();
    let paths = world.replicas[0].paths();
    assert!(paths.iter().any(|at| at.ends_with("x.md")) && paths.iter().any(|at| at.ends_with("y.md")), "{paths:?}");
}

/// A file and a folder made apart at one path: the folder has the name, the file stands beside it.
#[test]
fn a_file_against_a_folder() {
    let mut world = World::new(2);
    world.replicas[0].write("a", "file\n");
    world.replicas[1].write("a/b", "inside\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a/b"), "inside\n");
    assert_eq!(world.replicas[0].paths().len(), 3);
}

/// A file turned into a folder of the same name, by one person.
#[test]
fn a_file_becomes_a_folder() {
    let mut world = world_with(&[("a", "file\n"), ("z", "z\n")]);
    world.replicas[0].remove("a");
    world.replicas[0].write("a/b", "inside\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].paths(), ["a", "a/b", "z"]);
}

/// Empty folders made on purpose travel; removed ones go; a folder removed while another wrote into it stays.
#[test]
fn folders_come_and_go() {
    let mut world = world_with(&[("keep/x.md", "x\n"), ("z", "z\n")]);
    world.replicas[0].folder.insert(super::world::path("empty"), super::world::Node::Folder);
    world.settle();
    world.assert_equal();
    assert!(world.replicas[1].paths().contains(&"empty".to_owned()));
    world.replicas[1].remove("empty");
    world.settle();
    world.assert_equal();
    assert!(!world.replicas[0].paths().contains(&"empty".to_owned()));
    world.replicas[0].remove("keep");
    world.replicas[1].write("keep/new.md", "new\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].paths(), ["keep", "keep/new.md", "z"]);
}

/// On a file system that folds letter case, names that differ only so get clash names; elsewhere both stay.
#[test]
fn letter_case_clashes_where_it_must() {
    let mut world = World::new(2);
    world.replicas[1].files.set_folding(true);
    world.replicas[0].write("Note.md", "one\n");
    world.replicas[0].write("note.md", "two\n");
    world.settle();
    assert_eq!(world.replicas[0].paths(), ["Note.md", "note.md"]);
    let folded: Vec<String> = world.replicas[1].paths();
    assert_eq!(folded.len(), 2);
    assert!(folded.iter().any(|at| at.contains("(2, from ")), "{folded:?}");
}

/// In a large tree what others did waits a moment for its place, and no longer: it is written when the moment is over,
/// after a restart in between too, and a file that a person makes at that very path meanwhile stands beside it.
#[test]
fn what_waits_for_its_place_in_a_large_tree() {
    let mut world = World::new(2);
    for n in 0..1_100 {
        world.replicas[0].write(&format!("{}/{n}.md", n / 100), format!("{n}\n"));
    }
    world.settle();
    for (n, restart) in [(0, false), (1, true)] {
        world.replicas[0].write(&format!("a{n}.md"), "theirs\n");
        world.replicas[0].write(&format!("b{n}.md"), "theirs\n");
        world.replicas[0].scan();
        world.deliver_all(1);
        let waiting = &mut world.replicas[1];
        assert!(waiting.acts.is_empty() && !waiting.files.settled(), "it waits");
        if restart {
            waiting.restart();
        }
        waiting.write(&format!("b{n}.md"), "mine\n");
        assert!(waiting.files.poll_timeout().unwrap() <= waiting.now.mono_ms + 50);
        waiting.wait();
        waiting.run();
        assert_eq!(waiting.text(&format!("a{n}.md")), "theirs\n");
        world.settle();
        world.assert_equal();
        let all: Vec<String> =
            world.replicas[0].paths().into_iter().filter(|at| at.starts_with(&format!("b{n}"))).collect();
        let mut texts: Vec<String> = all.iter().map(|at| world.replicas[0].text(at)).collect();
        texts.sort();
        assert_eq!(texts, ["mine\n", "theirs\n"], "{all:?}");
    }
}

/// A text that was moved, and saved by a program that writes a new file, is the same file: it keeps what others wrote into it
/// meanwhile. One that has little of it, or of which there are two, is not.
#[test]
fn a_text_moved_and_saved_is_the_same() {
    let body: String = (0..20).map(|n| format!("line {n} of a note that is long enough\n")).collect();
    let mut world = World::new(2);
    world.replicas[0].write("a.md", &body);
    world.replicas[0].write("twin.md", "another note altogether, which has nothing to do with the first one\n");
    world.settle();
    world.replicas[1].edit("a.md", "line 3 of", "line 3, edited by the other, of");
    world.replicas[0].remove("a.md");
    world.replicas[0].write("moved/b.md", body.replace("line 15 of", "line 15, edited here, of"));
    world.replicas[0].remove("twin.md");
    world.replicas[0]
        .write("other.md", "what is here is quite something else, and no longer than the note before it\n");
    world.settle();
    world.assert_equal();
    let text = world.replicas[1].text("moved/b.md");
    assert!(text.contains("edited by the other") && text.contains("edited here"), "{text}");
    assert_eq!(world.replicas[0].paths(), ["moved", "moved/b.md", "other.md"]);
    assert!(world.replicas[0].log.contains(&LogEvent::Moved { from: path("a.md"), to: path("moved/b.md") }));
    assert!(world.replicas[0].log.contains(&LogEvent::Deleted(path("twin.md"))));
}
