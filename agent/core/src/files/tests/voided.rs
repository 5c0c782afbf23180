//! Documents built anew while something is under way in the folder.

use std::collections::BTreeSet;

use super::world::{Replica, World};
use crate::content::Content;
use crate::files::is_of_versions;

/// What somebody does, and it does not count in the end.
const DEEDS: [fn(&mut Replica); 7] = [
    |one| one.remove("d/a.md"),
    |one| one.remove("d"),
    |one| one.rename("d/a.md", "e/b.md"),
    |one| one.rename("d", "f"),
    |one| one.edit("d/a.md", "two", "TWO"),
    |one| one.write("new/c.md", "somebody's\n"),
    |one| one.make_executable("d/a.md"),
];

/// When the shell looks at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    BeforeItIsDone,
    BeforeItIsHeardOf,
    Afterwards,
}

/// What was under way for the sake of something that does not count is undone, and never taken for what a person did:
/// whenever its outcome comes and the shell looks, the folder is as before, and nothing is published.
#[test]
fn what_is_under_way_is_no_persons_deed() {
    for (number, deed) in DEEDS.iter().enumerate() {
        for looks in [Looks::BeforeItIsDone, Looks::BeforeItIsHeardOf, Looks::Afterwards] {
            for steps in 0..4 {
                let mut world = World::new(2);
                world.replicas[0].write("d/a.md", "one\ntwo\n");
                world.replicas[0].write("d/sub/b.md", "another\n");
                world.replicas[0].write("stays.md", "stays\n");
                world.settle();
                world.collect();
                let counts = world.said();
                let before = world.replicas[1].picture();
                deed(&mut world.replicas[0]);
                world.replicas[0].scan();
                world.replicas[0].run();
                world.deliver_all(1);
                let one = &mut world.replicas[1];
                for _ in 0..steps {
                    one.act();
                }
                one.rebuild(&counts, &[]);
                if looks == Looks::BeforeItIsDone {
                    one.scan();
                }
                let mut unheard = Vec::new();
                while let Some(done) = one.act_unheard() {
                    unheard.push(done);
                }
                if looks == Looks::BeforeItIsHeardOf {
                    one.scan();
                }
                for done in unheard {
                    one.hear(done);
                }
                one.scan();
                one.run();
                one.scan();
                one.run();
                let told = format!("deed {number}, {looks:?}, after {steps} steps");
                assert_eq!(one.picture(), before, "{told}");
                assert!(one.published.is_empty(), "{told}: {:?}", one.published);
                assert!(one.halts.is_empty() && one.files.settled(), "{told}");
            }
        }
    }
}

/// An edit made here keeps a file that others deleted without having seen it, also when it is entered again because something
/// else in the file does not count: that is taken out, and the edit stays.
#[test]
fn an_edit_keeps_a_deleted_file_without_what_does_not_count() {
    for edited_before in [false, true] {
        let mut world = World::new(3);
        world.replicas[0].write("a.md", "one\ntwo\nthree\n");
        world.settle();
        if edited_before {
            world.replicas[1].edit("a.md", "two", "TWO");
            world.settle();
        }
        // It is edited by one, deleted by another, and a third adds what does not count.
        world.replicas[1].edit("a.md", "three\n", "three\nmine\n");
        world.replicas[1].scan();
        let mine: Vec<_> = world.replicas[1].published.iter().cloned().collect();
        world.replicas[2].edit("a.md", "one\n", "forged\none\n");
        world.replicas[2].scan();
        world.replicas[0].remove("a.md");
        world.replicas[0].scan();
        world.replicas[0].run();
        let deleted: Vec<_> = world.replicas[0].published.iter().cloned().collect();
        let mut counts = world.said();
        counts.extend(deleted.into_iter().map(|content| (world.replicas[0].identity.chain, content)));
        let forged = world.take_back(2);
        world.deliver_all(1);
        world.give(1, &forged);
        let one = &mut world.replicas[1];
        assert!(one.text("a.md").contains("forged") && one.text("a.md").contains("mine"));
        one.rebuild(&counts, &mine);
        one.scan();
        one.run();
        let two = if edited_before { "TWO" } else { "two" };
        assert_eq!(one.text("a.md"), format!("one\n{two}\nthree\nmine\n"));
        // Others come to have the same.
        let again = world.take_back(1);
        world.give(0, &again);
        assert_eq!(world.replicas[0].text("a.md"), world.replicas[1].text("a.md"));
    }
}

/// An edit made here on what counts is entered again at just that, as if nothing had been built anew: two people who drop the
/// same line still leave what a third put in its place whole.
#[test]
fn an_edit_is_entered_again_where_it_was_made() {
    let dropped = "0f923b0d78514ed5 one Qzw7_kV000016 a6667d9392691c9d\n";
    let second = "72ea57b82167b58c two Qzw7_kV000034 6704a512f1f294a0\n";
    let third = "775ef126217bfc54  Qzw7_kV000035 89db278115398e82\n";
    let last = "8de003ffdf4c4368 \u{65e5} Qzw7_kV000017 5bab599b5bbfbb03\n";
    let unended = last.trim_end();
    let mut world = World::new(3);
    world.replicas[0].write("a.md", format!("{dropped}{last}"));
    world.settle();
    world.replicas[1].write("a.md", last);
    world.replicas[1].scan();
    let mine: Vec<_> = world.replicas[1].published.drain(..).collect();
    world.replicas[0].write("a.md", format!("{dropped}{second}{last}"));
    world.replicas[0].scan();
    world.replicas[0].write("a.md", format!("{second}{unended}"));
    world.replicas[0].scan();
    world.replicas[0].write("a.md", format!("{second}{third}{unended}"));
    world.replicas[0].scan();
    world.deliver_all(1);
    let counts = world.said();
    world.replicas[2].edit("a.md", dropped, &format!("forged\n{dropped}"));
    world.replicas[2].scan();
    let forged = world.take_back(2);
    world.give(1, &forged);
    let one = &mut world.replicas[1];
    assert!(one.text("a.md").contains("forged"));
    one.rebuild(&counts, &mine);
    one.scan();
    one.run();
    assert_eq!(one.text("a.md"), format!("{second}{third}{unended}"));
}

/// Two people write other versions of one file apart; when one's is entered again, it still stands beside the other's, also
/// where it was made on something that does not count.
#[test]
fn a_version_is_entered_again_beside_those_it_was_made_beside() {
    for on_forged in [false, true] {
        let mut world = World::new(3);
        world.replicas[0].write("b.bin", [0, 1, 2]);
        world.settle();
        world.replicas[2].make_executable("b.bin");
        world.replicas[2].scan();
        let forged = world.take_back(2);
        if on_forged {
            world.give(1, &forged);
        }
        world.replicas[1].write("b.bin", [0, 1, 1, 1]);
        world.replicas[1].scan();
        let mine: Vec<_> = world.replicas[1].published.drain(..).collect();
        world.replicas[0].write("b.bin", [0, 2, 2, 2]);
        world.replicas[0].scan();
        world.deliver_all(1);
        let counts = world.said();
        let one = &mut world.replicas[1];
        one.run();
        assert_eq!(one.folder.len(), 2);
        one.rebuild(&counts, &mine);
        one.scan();
        one.run();
        let all = one.picture();
        assert_eq!(all.len(), 2, "on forged: {on_forged}: {all:?}");
        let chain = one.identity.chain;
        let mut again = world.take_back(1);
        // The bytes of the version were published before, and stay.
        let bytes = mine.iter().flat_map(|content| &content.documents).filter(|(name, _)| is_of_versions(name));
        again.insert(0, (chain, Content { documents: bytes.cloned().collect() }));
        world.give(0, &again);
        let plain = |world: &World, of: usize| world.replicas[of].picture().values().cloned().collect::<Vec<_>>();
        assert_eq!(plain(&world, 0), plain(&world, 1));
    }
}

/// A file that somebody made and that does not count stays with what a person wrote into it here, a text or not.
#[test]
fn what_was_written_into_a_file_that_does_not_count_stays() {
    for at in ["a.md", "b.bin"] {
        let mut world = World::new(2);
        world.replicas[0].write("other.md", "other\n");
        world.settle();
        let counts = world.said();
        world.replicas[0].write(at, if at == "a.md" { "theirs\n" } else { "\u{0}theirs" });
        world.replicas[0].scan();
        world.deliver_all(1);
        let one = &mut world.replicas[1];
        one.run();
        let text = if at == "a.md" { "theirs\nmine\n" } else { "\u{0}mine" };
        one.write(at, text);
        one.scan();
        let mine: Vec<_> = one.published.drain(..).collect();
        one.rebuild(&counts, &mine);
        one.scan();
        one.run();
        assert_eq!(one.text(at), text);
    }
}

/// A person deletes a file while something in it is found not to count: what others wrote into it meanwhile, which they never
/// saw, keeps the file; without that it goes, with all that they saw.
#[test]
fn a_deletion_takes_what_was_seen_and_counts() {
    for edited in [false, true] {
        let mut world = World::new(4);
        world.replicas[0].write("a.md", "one\ntwo\n");
        world.settle();
        world.replicas[2].edit("a.md", "one\n", "forged\none\n");
        world.replicas[2].scan();
        let forged = world.take_back(2);
        world.give(1, &forged);
        assert!(world.replicas[1].text("a.md").contains("forged"));
        world.replicas[1].remove("a.md");
        if edited {
            world.replicas[0].edit("a.md", "two\n", "two\nunseen\n");
            world.replicas[0].scan();
            world.deliver_all(1);
        }
        let counts = world.said();
        world.replicas[1].rebuild(&counts, &[]);
        world.replicas[1].run();
        world.settle();
        for one in [0, 1, 3] {
            let left = world.replicas[one].paths().contains(&"a.md".to_owned());
            assert_eq!(left, edited, "replica {one}");
            if edited {
                assert_eq!(world.replicas[one].text("a.md"), "one\ntwo\nunseen\n");
            }
        }
    }
}

/// What a person made of a file, or in a folder, that does not count stays, also when they gave it another name: that name
/// alone makes no entry.
#[test]
fn a_new_name_for_what_does_not_count_takes_nothing_along() {
    for renamed in [false, true] {
        for folder in [false, true] {
            let mut world = World::new(2);
            world.replicas[0].write("other.md", "other\n");
            world.settle();
            let counts = world.said();
            world.replicas[0].write("x/a.md", "one\ntwo\n");
            world.replicas[0].scan();
            let forged = world.take_back(0);
            world.give(1, &forged);
            let one = &mut world.replicas[1];
            if folder {
                one.write("x/mine.md", "mine\n");
            } else {
                one.edit("x/a.md", "two", "two\nmine");
            }
            one.scan();
            let stays: Vec<_> = one.published.drain(..).collect();
            match (renamed, folder) {
                (false, _) => {}
                (true, true) => one.rename("x", "y"),
                (true, false) => one.rename("x/a.md", "x/b.md"),
            }
            one.scan();
            let leaving: Vec<_> = one.published.drain(..).collect();
            let documents = forged.iter().flat_map(|(_, content)| &content.documents).map(|(name, _)| name.clone());
            let mut documents: BTreeSet<_> = documents.collect();
            documents.extend(leaving.iter().flat_map(|content| &content.documents).map(|(name, _)| name.clone()));
            let concerned = |content: &Content| content.documents.iter().any(|(name, _)| documents.contains(name));
            let mut gone: Vec<_> = stays.into_iter().filter(concerned).collect();
            gone.extend(leaving);
            one.rebuild_these(&documents, &counts, &gone);
            one.scan();
            one.run();
            one.scan();
            one.run();
            let told = format!("renamed: {renamed}, folder: {folder}: {:?}", one.picture());
            assert!(one.files.settled() && one.halts.is_empty(), "{told}");
            let kept = one.picture().keys().any(|path| one.text(path).contains("mine"));
            assert!(kept, "{told}");
        }
    }
}

/// Somebody made a text of what was none, which does not count: what a person wrote into that text is kept beside what was
/// there before.
#[test]
fn what_was_written_into_a_version_that_does_not_count_stays() {
    for leaving_all in [true, false] {
        let mut world = World::new(2);
        world.replicas[0].write("a.md", [0, 1, 2]);
        world.settle();
        let counts = world.said();
        world.replicas[0].write("a.md", "one\ntwo\n");
        world.replicas[0].scan();
        let forged = world.take_back(0);
        world.give(1, &forged);
        let one = &mut world.replicas[1];
        one.edit("a.md", "two", "two\nmine");
        one.scan();
        let mine: Vec<_> = one.published.drain(..).collect();
        if leaving_all {
            one.rebuild(&counts, &mine);
        } else {
            let names = forged.iter().flat_map(|(_, content)| &content.documents).map(|(name, _)| name.clone());
            one.rebuild_these(&names.collect(), &counts, &[]);
        }
        one.scan();
        one.run();
        let all = one.picture();
        assert!(all.keys().any(|path| one.text(path).contains("mine")), "leaving all: {leaving_all}: {all:?}");
        assert!(one.files.settled() && one.halts.is_empty());
    }
}
