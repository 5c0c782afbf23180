//! What somebody wrote while they were being removed, and what others made of it.

use weft_agent_core::workspace::command::State;

use super::*;

impl Town {
    fn edit(&mut self, host: usize, path: &str, old: &str, new: &str) {
        let text = self.text(host, path).replace(old, new);
        self.write(host, path, &text);
    }

    fn rejected(&mut self, host: usize) -> BTreeMap<String, u64> {
        self.status(host).rejected
    }

    /// Three people who hold `notes.md`; the founder's computer is off from here on, so that what the second writes lies
    /// beyond the cut of their removal.
    fn cut_off() -> (Town, Vec<usize>) {
        let (mut town, people) = Town::team(3);
        town.write(people[0], "notes.md", "one\ntwo\nthree\nfour\nfive\n");
        town.run(5_000);
        town.disconnect(people[0]);
        town.run(1_000);
        (town, people)
    }

    fn remove(&mut self, by: usize, whom: usize) {
        let root = self.root(whom);
        assert_eq!(self.command(by, Command::RemoveMember(root)), Reply::Done);
    }
}

/// What nobody built on goes from everybody's folder, an edit and a new file alike; what a person made here on top of it,
/// not sent yet, stays, also where they had edited a file that goes.
#[test]
fn what_was_written_beyond_a_removal_goes_and_what_a_person_made_on_it_stays() {
    let (mut town, people) = Town::cut_off();
    let (ada, ben, cleo) = (people[0], people[1], people[2]);
    town.edit(ben, "notes.md", "two", "TWO by Ben");
    town.write(ben, "ben.md", "only Ben's\n");
    town.write(ben, "both.md", "begun by Ben\n");
    town.run(5_000);
    assert_eq!(town.text(cleo, "notes.md"), "one\nTWO by Ben\nthree\nfour\nfive\n");
    town.disconnect(cleo);
    town.disconnect(ben);
    town.run(1_000);
    town.edit(cleo, "notes.md", "four", "FOUR by Cleo");
    town.edit(cleo, "both.md", "begun by Ben\n", "begun by Ben\ngone on by Cleo\n");
    town.run(5_000);
    town.remove(ada, ben);
    town.connect(ada);
    town.connect(cleo);
    town.run(30_000);
    for host in [ada, cleo] {
        assert_eq!(town.text(host, "notes.md"), "one\ntwo\nthree\nFOUR by Cleo\nfive\n", "host {host}");
        assert!(!town.hosts[host].folder.contains_key("ben.md"), "host {host}");
        assert_eq!(town.text(host, "both.md"), "begun by Ben\ngone on by Cleo\n", "host {host}");
        assert!(town.status(host).settled, "host {host}");
    }
    assert!(town.rejected(cleo).contains_key("beyond the cut of its author's removal"), "{:?}", town.rejected(cleo));
}

/// What a writer built on who could not know of the removal stays, everywhere, with what they made of it.
#[test]
fn what_others_built_on_in_good_faith_stays() {
    let (mut town, people) = Town::cut_off();
    let (ada, ben, cleo) = (people[0], people[1], people[2]);
    town.edit(ben, "notes.md", "two", "TWO by Ben");
    town.run(5_000);
    town.edit(cleo, "notes.md", "TWO by Ben", "TWO by Ben and Cleo");
    town.run(5_000);
    town.edit(ben, "notes.md", "five", "FIVE by Ben");
    town.run(5_000);
    town.disconnect(cleo);
    town.remove(ada, ben);
    town.connect(ada);
    town.run(10_000);
    town.connect(cleo);
    town.run(30_000);
    for host in [ada, cleo] {
        assert_eq!(town.text(host, "notes.md"), "one\nTWO by Ben and Cleo\nthree\nfour\nfive\n", "host {host}");
        assert!(town.status(host).settled, "host {host}");
    }
}

/// What is void is not entered again as somebody's own after a restart, nor when the person edits the file before it is
/// written anew.
#[test]
fn a_restart_brings_nothing_void_back() {
    let (mut town, people) = Town::cut_off();
    let (ada, ben, cleo) = (people[0], people[1], people[2]);
    town.edit(ben, "notes.md", "two", "TWO by Ben");
    town.run(5_000);
    town.disconnect(cleo);
    town.remove(ada, ben);
    let (store, watermark) = (town.hosts[cleo].store.clone(), town.hosts[cleo].watermark);
    town.restart_from(cleo, store, watermark);
    town.connect(ada);
    town.connect(cleo);
    // Until the verdict is in, and the file written, its text is Ben's: the person edits it in that moment.
    for _ in 0..2_000 {
        town.run(1);
        if !town.rejected(cleo).is_empty() {
            break;
        }
    }
    town.edit(cleo, "notes.md", "one", "ONE by Cleo");
    let (store, watermark) = (town.hosts[cleo].store.clone(), town.hosts[cleo].watermark);
    town.disconnect(cleo);
    town.restart_from(cleo, store, watermark);
    town.connect(cleo);
    town.run(30_000);
    for host in [ada, cleo] {
        assert_eq!(town.text(host, "notes.md"), "ONE by Cleo\ntwo\nthree\nfour\nfive\n", "host {host}");
    }
}

/// Who is made a reader while they write keeps what they wrote in their own folder, and it is published once they may
/// write again; nobody else has it meanwhile.
#[test]
fn what_a_demoted_writer_wrote_beyond_the_cut_stays_with_them() {
    let (mut town, people) = Town::cut_off();
    let (ada, ben, cleo) = (people[0], people[1], people[2]);
    town.edit(ben, "notes.md", "two", "TWO by Ben");
    town.write(ben, "ben.md", "only Ben's\n");
    town.run(5_000);
    assert_eq!(town.text(cleo, "ben.md"), "only Ben's\n");
    let root = town.root(ben);
    assert_eq!(town.command(ada, Command::SetRole(root, Role::Reader)), Reply::Done);
    town.connect(ada);
    town.run(30_000);
    for host in [ada, cleo] {
        assert_eq!(town.text(host, "notes.md"), "one\ntwo\nthree\nfour\nfive\n", "host {host}");
        assert_eq!(town.text(host, "ben.md"), "", "host {host}");
    }
    assert_eq!(town.text(ben, "notes.md"), "one\nTWO by Ben\nthree\nfour\nfive\n");
    assert_eq!(town.text(ben, "ben.md"), "only Ben's\n");
    // What others write reaches the reader, beside what it keeps.
    town.edit(cleo, "notes.md", "five", "FIVE by Cleo");
    town.run(10_000);
    assert_eq!(town.text(ben, "notes.md"), "one\nTWO by Ben\nthree\nfour\nFIVE by Cleo\n");
    assert_eq!(town.command(ada, Command::SetRole(root, Role::Writer)), Reply::Done);
    town.run(30_000);
    for host in [ada, ben, cleo] {
        assert_eq!(town.text(host, "notes.md"), "one\nTWO by Ben\nthree\nfour\nFIVE by Cleo\n", "host {host}");
        assert_eq!(town.text(host, "ben.md"), "only Ben's\n", "host {host}");
        assert!(town.status(host).settled, "host {host}");
    }
}

/// An admin is removed while they remove somebody, and a third seals under the key that this made before they hear of it: what
/// that one wrote reaches everybody, also who was not to get the key, a newcomer among them, and after a restart.
#[test]
fn what_was_sealed_under_a_key_that_does_not_count_is_read_by_all() {
    let (mut town, people) = Town::team(4);
    let (ada, ben, cleo, dan) = (people[0], people[1], people[2], people[3]);
    let promote = Command::SetRole(town.root(ben), Role::Admin);
    assert_eq!(town.command(ada, promote), Reply::Done);
    town.write(ada, "notes.md", "one\ntwo\n");
    town.run(10_000);
    town.disconnect(ada);
    town.disconnect(dan);
    town.run(1_000);
    town.remove(ben, dan);
    town.run(10_000);
    town.edit(cleo, "notes.md", "two", "TWO by Cleo");
    town.run(10_000);
    town.disconnect(ben);
    town.disconnect(cleo);
    town.remove(ada, ben);
    town.connect(ada);
    town.connect(dan);
    town.run(10_000);
    town.connect(cleo);
    town.run(60_000);
    for host in [ada, cleo, dan] {
        assert_eq!(town.text(host, "notes.md"), "one\nTWO by Cleo\n", "host {host}");
        assert!(town.status(host).settled, "host {host}");
    }
    let link = town.invite(ada);
    town.disconnect(cleo);
    let eve = town.join(&link);
    town.connect(eve);
    town.run(60_000);
    assert_eq!(town.text(eve, "notes.md"), "one\nTWO by Cleo\n");
    assert!(town.status(eve).settled);
}

/// Ben lets Dan in while Ada removes Ben, and neither hears of the other. Nobody lets Dan in anew: Ada, who meets him where
/// those who were removed may still be, takes nothing of what he wrote, and tells him why nobody answers.
#[test]
fn whoever_was_let_in_by_somebody_removed_is_told() {
    let (mut town, people) = Town::team(6);
    let (ada, ben, cleo) = (people[0], people[1], people[2]);
    let root = town.root(ben);
    assert_eq!(town.command(ada, Command::SetRole(root, Role::Admin)), Reply::Done);
    // Others went long before: that is no reason.
    for gone in &people[3..] {
        assert_eq!(town.command(*gone, Command::Leave), Reply::Done);
        town.run(15_000);
    }
    people[3..].iter().for_each(|gone| town.disconnect(*gone));
    town.run(5_000);
    for host in [ada, cleo] {
        town.disconnect(host);
    }
    let link = town.invite(ben);
    town.run(1_000);
    let dan = town.join(&link);
    town.run(5_000);
    town.write(dan, "dan.md", "by Dan\n");
    town.run(5_000);
    assert_eq!((town.status(dan).state, town.text(ben, "dan.md").as_str()), (State::Active, "by Dan\n"));
    town.disconnect(ben);
    town.remove(ada, ben);
    town.connect(ada);
    town.connect(cleo);
    town.run(200_000);
    let told = town.status(dan);
    let why = "Letting you into 'notes' does not count: member-2 removed member-3 at the same time.";
    assert!(told.state == State::Left && told.problems.iter().any(|problem| problem.starts_with(why)), "{told:#?}");
    assert!(town.status(ada).settled && town.status(cleo).settled);
    for host in [ada, cleo] {
        assert_eq!((town.text(host, "dan.md").as_str(), town.status(host).members.len()), ("", 2));
    }
}
