//! Documents built anew while something is under way in the folder.

use super::world::{Replica, World};

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
                let counts: Vec<_> = world
                    .sent
                    .iter()
                    .map(|(from, content)| (world.replicas[*from].identity.chain, content.clone()))
                    .collect();
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
