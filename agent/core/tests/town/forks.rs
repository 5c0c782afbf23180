//! A device whose Weft data was copied, watermark and all, so that both copies signed for the same places; and what
//! becomes of it once the islands meet.

use super::*;

/// ada and ben on one island, cleo and a copy of ben on another; nobody sees the other island.
struct Islands {
    town: Town,
    ada: usize,
    ben: usize,
    cleo: usize,
    dora: usize,
    copy: usize,
}

const BEGUN: &str = "one\ntwo\nthree\nfour\nfive\n";

impl Islands {
    fn new() -> Self {
        let (mut town, people) = Town::team(4);
        let [ada, ben, cleo, dora] = people[..] else { panic!("four") };
        town.write(ada, "notes.md", BEGUN);
        town.run(5_000);
        for host in people {
            town.disconnect(host);
        }
        town.run(1_000);
        let mut islands = Self { town, ada, ben, cleo, dora, copy: 0 };
        islands.copy = islands.copied(ben);
        islands
    }

    /// A copy of what Ben has on this host: store, folder, watermark, keys.
    fn copied(&mut self, from: usize) -> usize {
        let town = &mut self.town;
        let (store, folder) = (town.hosts[from].store.clone(), town.hosts[from].folder.clone());
        let watermark = town.hosts[from].watermark;
        let seed = [90 + town.hosts.len() as u8; 32];
        let setup = Setup { identity: identity(self.ben as u8 + 2), seed, watermark };
        let copy = town.add(Workspace::open(setup, town.now, &store).unwrap());
        town.disconnect(copy);
        let host = &mut town.hosts[copy];
        host.inputs.clear();
        (host.store, host.folder, host.watermark) = (store, folder, watermark);
        copy
    }

    fn edit(&mut self, host: usize, old: &str, new: &str) {
        let text = self.town.text(host, "notes.md");
        assert!(text.contains(old), "{text:?}");
        self.town.write(host, "notes.md", &text.replace(old, new));
        self.town.run(3_000);
    }

    /// These two are online together, and alone.
    fn together(&mut self, hosts: [usize; 2], then: impl FnOnce(&mut Self)) {
        for host in hosts {
            self.town.connect(host);
        }
        self.town.run(5_000);
        then(self);
        self.town.run(3_000);
        for host in hosts {
            self.town.disconnect(host);
        }
        self.town.run(1_000);
    }

    /// Everybody but the copies meets; what all then have.
    fn meet(&mut self) -> String {
        let all = [self.ada, self.ben, self.cleo, self.dora];
        for host in all {
            self.town.connect(host);
        }
        self.town.run(90_000);
        self.same(&all)
    }

    /// What these hosts have in common: frontier, and text.
    fn same(&mut self, hosts: &[usize]) -> String {
        let text = self.town.text(hosts[0], "notes.md");
        for host in hosts {
            let status = self.town.status(*host);
            let frontier = self.town.hosts[*host].machine.frontier().clone();
            assert_eq!(frontier, *self.town.hosts[hosts[0]].machine.frontier(), "host {host}");
            assert_eq!(self.town.text(*host, "notes.md"), text, "host {host}: {status:#?}");
            assert!(status.settled, "host {host}: {status:#?}");
        }
        text
    }

    fn branches(&self, host: usize) -> usize {
        self.town.hosts[host].machine.frontier().iter().filter(|(chain, _)| chain.is_branch()).count()
    }
}

/// What others went on with stays, the other branch goes from everybody's folder, both are held by everybody, and the
/// device goes on.
#[test]
fn the_branch_that_somebody_built_on_stays() {
    let mut islands = Islands::new();
    let (ada, ben, cleo, copy) = (islands.ada, islands.ben, islands.cleo, islands.copy);
    islands.together([ada, ben], |here| {
        here.edit(ben, "two", "two by Ben");
        here.edit(ada, "two by Ben", "two by Ben and Ada");
    });
    islands.together([cleo, copy], |here| here.edit(copy, "four", "four by the copy"));
    assert_eq!(islands.town.text(cleo, "notes.md"), BEGUN.replace("four", "four by the copy"));
    let met = islands.meet();
    assert_eq!(met, BEGUN.replace("two", "two by Ben and Ada"));
    assert_eq!(islands.branches(ada), 2);
    for host in [ada, cleo] {
        let told = islands.town.problems(host);
        assert!(told.contains("signed two different envelopes for one place"), "{told}");
    }
    assert!(islands.town.problems(ben).contains("was copied"), "{}", islands.town.problems(ben));
    islands.edit(ben, "five", "five, and on");
    islands.town.run(10_000);
    assert_eq!(
        islands.same(&[ada, ben, cleo]),
        BEGUN.replace("two", "two by Ben and Ada").replace("five", "five, and on")
    );
}

/// The device's own part of it is never lost: if the other branch stays, or none does, what is in its folder is entered
/// again in its new life.
#[test]
fn what_the_device_wrote_itself_is_entered_again() {
    for built_on in [true, false] {
        let mut islands = Islands::new();
        let (ada, ben, cleo, copy) = (islands.ada, islands.ben, islands.cleo, islands.copy);
        islands.together([ada, ben], |here| here.edit(ben, "two", "two by Ben"));
        islands.together([cleo, copy], |here| {
            here.edit(copy, "four", "four by the copy");
            if built_on {
                here.edit(cleo, "four by the copy", "four by the copy and Cleo");
            }
        });
        let met = islands.meet();
        let four = if built_on { "four by the copy and Cleo" } else { "four" };
        assert_eq!(met, BEGUN.replace("two", "two by Ben").replace("four", four), "built on: {built_on}");
    }
}

/// Long branches: neither side holds the place where they part within what it lacks, so it is looked for; a newcomer is
/// served all branches, and a restart finds them where they were.
#[test]
fn long_branches_are_sorted_out_and_served_to_newcomers() {
    let mut islands = Islands::new();
    let (ada, ben, cleo, copy) = (islands.ada, islands.ben, islands.cleo, islands.copy);
    islands.together([ada, ben], |here| {
        for round in 0..9 {
            here.edit(ben, "two", &format!("two ({round})"));
        }
        here.edit(ada, "three", "three by Ada");
    });
    islands.together([cleo, copy], |here| {
        for round in 0..14 {
            here.edit(copy, "four", &format!("four ({round})"));
        }
        here.edit(cleo, "five", "five by Cleo");
    });
    let met = islands.meet();
    let (store, watermark) = (islands.town.hosts[cleo].store.clone(), islands.town.hosts[cleo].watermark);
    islands.town.restart_from(cleo, store, watermark);
    let link = islands.town.invite(ada);
    let newcomer = islands.town.join(&link);
    islands.town.run(60_000);
    assert_eq!(islands.same(&[ada, ben, cleo, newcomer]), met);
    assert_eq!(islands.branches(newcomer), 2);
}

/// A copy of a copy: a branch parts again. Everybody comes to hold the same three branches, and to the same text.
#[test]
fn a_branch_that_parts_again_is_sorted_out() {
    let mut islands = Islands::new();
    let (ada, ben, cleo, dora, copy) = (islands.ada, islands.ben, islands.cleo, islands.dora, islands.copy);
    islands.together([cleo, copy], |here| {
        here.edit(copy, "four", "four by the copy");
        here.edit(copy, "four", "four, again");
    });
    let second = islands.copied(copy);
    islands.together([dora, second], |here| {
        here.edit(second, "five", "five by the copy's copy");
        here.edit(dora, "five by", "five by Dora and");
    });
    islands.together([cleo, copy], |here| {
        here.edit(copy, "one", "one by the copy");
        here.edit(cleo, "one by", "one by Cleo and");
    });
    islands.together([ada, ben], |here| here.edit(ben, "two", "two by Ben"));
    let met = islands.meet();
    // The copy's branch counts up to where it parts; there one of the two stays; what Ben has himself is entered again.
    assert!(met.contains("two by Ben\n") && met.contains("four, again by the copy\n"), "{met}");
    let (one, five) = (met.contains("one by Cleo and the copy\n"), met.contains("five by Dora and the copy's copy\n"));
    assert!(one != five, "{met}");
    assert_eq!(islands.branches(ada), 4);
}

/// Ben's two copies sign twice; on one branch is a new file that Ada edits, after Ben wrote into it once more, so that nothing
/// of hers says what her text started from. The file stays, with what she wrote.
#[test]
fn a_file_that_somebody_wrote_into_stays_with_its_branch() {
    for again in [false, true] {
        let mut islands = Islands::new();
        let (ada, ben, cleo, dora, copy) = (islands.ada, islands.ben, islands.cleo, islands.dora, islands.copy);
        let text = "from Ben one\nfrom Ben two\nfrom Ben three\n";
        islands.together([ada, ben], |here| {
            here.town.write(ben, "new.md", text);
            here.town.run(3_000);
        });
        // Both write into it, apart; Ada's editor shows what was there before she heard of Ben's.
        let hers = text.replace("three", "three and Ada");
        if again {
            islands.town.write(ben, "new.md", &text.replace("one", "one and more"));
            islands.town.run(3_000);
            islands.together([ada, ben], |_| {});
            let all = islands.town.text(ada, "new.md");
            assert!(all.contains("and more"));
            islands.town.write(ada, "new.md", &hers);
        } else {
            islands.town.write(ada, "new.md", &hers);
        }
        islands.town.run(3_000);
        islands.together([ada, dora], |_| {});
        islands.together([cleo, copy], |here| here.edit(copy, "four", "four by the copy"));
        islands.meet();
        for host in [ada, ben, cleo, dora] {
            let all = if again { hers.replace("one", "one and more") } else { hers.clone() };
            assert_eq!(islands.town.text(host, "new.md"), all, "host {host}, again {again}");
        }
    }
}
