//! Restarts at every step, and content in any order.

use super::world::{Dice, Replica, World};
use crate::content::{Content, Item};
use crate::files::Refused;

/// A write that happened, unheard of, before a crash is recognised; an edit on top of it is entered there.
#[test]
fn a_crash_between_write_and_answer() {
    for edit_after in [false, true] {
        let mut world = World::new(2);
        world.replicas[0].write("a.md", "one\ntwo\nthree\n");
        world.settle();
        world.replicas[0].edit("a.md", "one", "ONE");
        world.replicas[0].scan();
        world.deliver_all(1);
        world.replicas[1].act_and_crash();
        if edit_after {
            world.replicas[1].edit("a.md", "three", "THREE");
        }
        world.settle();
        world.assert_equal();
        let expected = if edit_after { "ONE\ntwo\nTHREE\n" } else { "ONE\ntwo\nthree\n" };
        assert_eq!(world.replicas[0].text("a.md"), expected);
    }
}

/// Of what a crash hid, whether it happened is found out before anything else is planned: what others wrote is on the disk
/// already, and is no edit of the person here, though more of theirs has come since and is to be written next. Twice, as the
/// next crash may come before anything was looked at.
#[test]
fn a_write_that_a_crash_hid_is_looked_at_before_the_next_one() {
    for (tells, crashes) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut world = World::new(2);
        world.replicas[1].tells_unfinished = tells;
        world.replicas[0].write("a.md", "one\ntwo\nthree\nfour\n");
        world.settle();
        world.replicas[0].edit("a.md", "two\n", "two\nfirst of others\n");
        world.replicas[0].scan();
        world.deliver_all(1);
        world.replicas[1].act_and_crash();
        world.replicas[1].edit("a.md", "four", "four\nlate");
        world.replicas[0].edit("a.md", "three\n", "three\nsecond of others\n");
        world.replicas[0].scan();
        for _ in 1..crashes {
            // It plans, and may even act, but hears nothing of the folder.
            world.replicas[1].wait();
            world.replicas[1].act_and_crash();
            world.replicas[1].edit("a.md", "one", "one, later");
        }
        world.deliver_all(1);
        world.replicas[1].run();
        world.settle();
        world.assert_equal();
        let one = if crashes > 1 { "one, later" } else { "one" };
        let expected = format!("{one}\ntwo\nfirst of others\nthree\nsecond of others\nfour\nlate\n");
        assert_eq!(world.replicas[1].text("a.md"), expected, "tells {tells}, crashes {crashes}");
    }
}

/// What the shell knows of a write that a crash hid counts more than how near what is there is to either content: a person
/// may have taken out all that the write brought, or have made by chance what the write was to leave.
#[test]
fn what_the_shell_knows_of_a_hidden_write_is_no_guess() {
    let mut world = World::new(2);
    world.replicas[0].write("a.md", "one\ntwo\nthree\n");
    world.settle();
    world.replicas[0].edit("a.md", "two", "quite another line");
    world.replicas[0].scan();
    world.deliver_all(1);
    world.replicas[1].act_and_crash();
    world.replicas[1].edit("a.md", "quite another line", "2");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[0].text("a.md"), "one\n2\nthree\n");
}

/// A write that a crash prevented, and an edit of the old content: both come together.
#[test]
fn a_crash_before_the_write() {
    let mut world = World::new(2);
    world.replicas[0].write("a.md", "one\ntwo\nthree\n");
    world.settle();
    world.replicas[0].edit("a.md", "one", "ONE");
    world.replicas[0].scan();
    world.deliver_all(1);
    world.replicas[1].restart();
    world.replicas[1].edit("a.md", "three", "THREE");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("a.md"), "ONE\ntwo\nTHREE\n");
}

/// Whatever the order, with everything delivered twice and a restart after every delivery, the result is the same.
#[test]
fn any_order_gives_the_same() {
    let mut world = World::new(2);
    for n in 0..6 {
        world.replicas[0].write(&format!("f/{n}.md"), format!("line\nof {n}\n"));
        world.replicas[0].scan();
    }
    for n in 0..6 {
        world.replicas[0].edit(&format!("f/{n}.md"), "line", "LINE");
        world.replicas[0].scan();
        world.replicas[0].rename(&format!("f/{n}.md"), &format!("g/{n}.txt"));
        world.replicas[0].scan();
        world.replicas[0].edit(&format!("g/{n}.txt"), "of", "OF");
        world.replicas[0].scan();
    }
    world.replicas[0].run();
    world.collect();
    let expected = world.replicas[0].paths();
    for seed in 1..12 {
        let mut dice = Dice(seed * 7919);
        let mut order: Vec<usize> = (0..world.sent.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, dice.roll(at + 1));
        }
        let mut reader = Replica::new(9);
        for at in order {
            for _ in 0..2 {
                let refused = reader.receive(world.replicas[0].identity.chain, &world.sent[at].1);
                assert!(refused.is_empty(), "{refused:?}");
            }
            if dice.roll(3) == 0 {
                reader.restart();
            }
            for _ in 0..dice.roll(4) {
                reader.act();
            }
        }
        reader.scan();
        reader.run();
        assert_eq!(reader.paths(), expected);
        for at in expected.iter().filter(|at| at.contains('.')) {
            assert_eq!(reader.text(at), world.replicas[0].text(at));
        }
        assert_eq!(reader.files.figures().waiting_changes, 0);
    }
}

/// What is malformed or out of place is refused by name, and the rest of the envelope counts.
#[test]
fn refusals_block_nothing() {
    let mut world = World::new(2);
    world.replicas[0].write("a.md", "one\n");
    world.replicas[0].scan();
    world.collect();
    let mut content = world.sent[0].1.clone();
    let change = content.documents.last().unwrap().1[0].clone();
    let Item::Change(bytes) = &change else { panic!("a tree change") };
    let mut damaged = bytes.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let name = |text: &str| crate::content::DocumentName::new(text).unwrap();
    let bad = Content {
        documents: vec![
            (name("chat:1:messages"), vec![]),
            (name("tree:00:entries"), vec![Item::Change(damaged.into())]),
            (name(&format!("file:{}:text-0000000000000000", "00".repeat(16))), vec![change]),
        ],
    };
    content.documents.splice(0..0, bad.documents);
    let author = world.replicas[0].identity.chain;
    let refused = world.replicas[1].receive(author, &content);
    assert_eq!(refused.len(), 3);
    assert_eq!(refused[0].why, Refused::UnknownDocument);
    assert_eq!(refused[2].why, Refused::Unfounded);
    world.replicas[1].run();
    assert_eq!(world.replicas[1].text("a.md"), "one\n");
}

/// A person makes a file where another's is about to be written, and then comes a crash: the two stand side by side.
/// Nobody can tell whether the write happened, and a stranger taken for its edit would replace what others wrote.
#[test]
fn a_crash_before_the_write_of_a_new_file_and_a_stranger_there() {
    let mut world = World::new(2);
    world.replicas[0].write("a.md", "first\nthe body of a note that both begin alike\n");
    world.replicas[0].scan();
    world.deliver_all(1);
    world.replicas[1].write("a.md", "second\nthe body of a note that both begin alike\n");
    world.replicas[1].restart();
    world.settle();
    world.assert_equal();
    let all: Vec<String> = world.replicas[0].paths().iter().map(|at| world.replicas[0].text(at)).collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.iter().any(|text| text.contains("first")) && all.iter().any(|text| text.contains("second")), "{all:?}");
}

/// A write that found an edit there did not happen, although a crash then hides that: the edit is of the older content,
/// however near it is to what was to be written.
#[test]
fn an_edit_near_to_a_write_that_did_not_happen() {
    for heard in [false, true] {
        let mut world = World::new(2);
        world.replicas[0].write("a.md", "one\ntwo\nthree\nfour\n");
        world.settle();
        // One adds a line and takes three away; the other takes the same three away.
        world.replicas[0].write("a.md", "added\none\n");
        world.replicas[0].scan();
        world.deliver_all(1);
        world.replicas[1].write("a.md", "one\n");
        if heard {
            world.replicas[1].act();
        } else {
            world.replicas[1].act_and_crash();
        }
        world.settle();
        world.assert_equal();
        assert_eq!(world.replicas[1].text("a.md"), "added\none\n");
    }
}
