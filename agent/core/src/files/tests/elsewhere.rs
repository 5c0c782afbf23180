//! A program has a file open that our write replaces, and goes on writing.

use bytes::Bytes;

use super::world::{Replica, WORKSPACE, World, path};
use crate::disk::{FileBytes, Found, Seen, Stat};
use crate::files::version_hash;

/// What the program made of the file that was at this path, and of what.
fn goes_on(replica: &mut Replica, at: &str, made_on: &str, now: &str) {
    let bytes = FileBytes::Here(Bytes::copy_from_slice(now.as_bytes()));
    let found = Found::File { bytes, executable: false, stat: Stat::default() };
    let seen = Seen { made_on: Some(version_hash(&WORKSPACE, made_on.as_bytes())), ..Seen::new(path(at), found) };
    replica.call(|files, now, held, tx| files.handle_seen(now, vec![seen], held, tx));
}

/// A log that is written to all the time, and what another wrote into it meanwhile: both are in it, once each.
#[test]
fn what_a_program_goes_on_writing_meets_what_others_wrote() {
    let mut world = World::new(2);
    world.replicas[0].write("app.log", "start\n");
    world.settle();
    world.replicas[1].edit("app.log", "start", "# seen by the other\nstart");
    world.settle();
    assert_eq!(world.replicas[0].text("app.log"), "# seen by the other\nstart\n");
    goes_on(&mut world.replicas[0], "app.log", "start\n", "start\none\n");
    goes_on(&mut world.replicas[0], "app.log", "start\none\n", "start\none\ntwo\n");
    world.settle();
    world.assert_equal();
    assert_eq!(world.replicas[1].text("app.log"), "# seen by the other\nstart\none\ntwo\n");
    goes_on(&mut world.replicas[0], "app.log", "start\none\ntwo\n", "start\none\ntwo\nthree\n");
    world.settle();
    assert_eq!(world.replicas[1].text("app.log"), "# seen by the other\nstart\none\ntwo\nthree\n");
}

/// Whatever became of the file meanwhile (deleted, no text any more, held something nobody remembers), what the program wrote
/// is in some file.
#[test]
fn what_a_program_goes_on_writing_is_nowhere_lost() {
    for (case, made_on) in [("deleted", "start\n"), ("no text", "start\n"), ("forgotten", "something\n")] {
        let mut world = World::new(2);
        world.replicas[0].write("app.log", "start\n");
        world.replicas[0].write("b.md", "b");
        world.settle();
        match case {
            "deleted" => world.replicas[1].remove("app.log"),
            "no text" => world.replicas[1].write("app.log", [0, 1, 2, 255]),
            _ => world.replicas[1].edit("app.log", "start", "begin"),
        }
        world.settle();
        goes_on(&mut world.replicas[0], "app.log", made_on, &format!("{made_on}and on\n"));
        world.settle();
        world.assert_equal();
        let all: String = world.replicas[1].paths().iter().map(|at| world.replicas[1].text(at)).collect();
        assert!(all.contains("and on"), "{case}: {all:?}");
    }
}
