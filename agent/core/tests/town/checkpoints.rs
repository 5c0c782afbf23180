//! A newcomer's folder from saved documents, before the history; and what becomes of a checkpoint that lies.

use super::*;
use weft_agent_core::store::Read;

/// So many envelopes make a checkpoint due.
const EVERY: u64 = 12;

impl Town {
    /// Makes checkpoints due soon at this host, as it must be after each start.
    fn often(&mut self, host: usize) {
        self.hosts[host].machine.checkpoint_every(EVERY);
    }

    /// Two people with a history: many edits of a text, files that nobody edited, one that went.
    fn with_history(often: bool) -> (Town, [usize; 2]) {
        let (mut town, people) = Town::team(2);
        let [ada, ben] = people[..] else { panic!("two") };
        if often {
            town.often(ada);
            town.often(ben);
        }
        for number in 0..6 {
            town.write(ada, &format!("plain-{number}.md"), &format!("as imported {number}\n"));
        }
        town.write(ada, "gone.md", "not for long\n");
        town.write(ada, "notes.md", "one\ntwo\nthree\n");
        town.run(2_000);
        town.hosts[ada].folder.remove("gone.md");
        let seen = town.look(ada, "gone.md");
        town.hosts[ada].inputs.push_back(Input::Seen(vec![seen]));
        for number in 0..12 {
            let host = people[number % 2];
            let text = format!("{}line {number}\n", town.text(host, "notes.md"));
            town.write(host, "notes.md", &text);
            town.run(1_000);
        }
        // Whoever makes one waits a while first.
        town.run(40_000);
        (town, [ada, ben])
    }

    /// The heads of every document.
    fn heads(&self, host: usize) -> BTreeMap<Vec<u8>, Vec<automerge::ChangeHash>> {
        let mut documents: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value) in self.hosts[host].store.scan(Table::Documents, &[], None, usize::MAX) {
            let name = key.split(|byte| *byte == 0).next().unwrap().to_vec();
            documents.entry(name).or_default().extend_from_slice(&value);
        }
        documents.into_iter().map(|(name, bytes)| (name, automerge::Automerge::load(&bytes).unwrap().get_heads())).collect()
    }

    /// How many checkpoints a host holds: the kind stands behind the link in the row of a held envelope.
    fn checkpoints_held(&self, host: usize) -> usize {
        let rows = self.hosts[host].store.scan(Table::Held, &[], None, usize::MAX);
        rows.iter().filter(|(_, row)| row[35] == 3).count()
    }

    /// Lets one envelope of the history in at most, so that what is shown is the checkpoint's.
    fn run_until(&mut self, host: usize, mut done: impl FnMut(&Status) -> bool) -> Status {
        for _ in 0..3_000 {
            let status = self.status(host);
            if done(&status) {
                return status;
            }
            self.run(1);
        }
        panic!("never: {:#?}", self.status(host));
    }
}

/// A newcomer gets everything from the checkpoint, proves it, and ends with the same bytes and documents as somebody who
/// got the history alone.
#[test]
fn a_newcomer_ends_as_if_there_had_been_no_checkpoint() {
    let mut ends = Vec::new();
    for often in [false, true] {
        let (mut town, [ada, _]) = Town::with_history(often);
        assert_eq!(town.checkpoints_held(ada) > 0, often);
        let link = town.invite(ada);
        let cleo = town.join(&link);
        if often {
            town.often(cleo);
        }
        let mut unverified = false;
        for _ in 0..2_000 {
            town.run(5);
            unverified |= town.status(cleo).unverified.is_some();
        }
        assert_eq!(unverified, often);
        let status = town.status(cleo);
        assert!(status.settled && status.problems.is_empty() && status.rejected.is_empty(), "{status:#?}");
        assert_eq!(town.hosts[cleo].folder, town.hosts[ada].folder);
        assert_eq!(town.heads(cleo), town.heads(ada));
        ends.push((town.hosts[cleo].folder.clone(), town.hosts[ada].folder.len()));
        // It goes on like anybody.
        let text = format!("{}by cleo\n", town.text(cleo, "notes.md"));
        town.write(cleo, "notes.md", &text);
        town.run(5_000);
        assert_eq!(town.text(ada, "notes.md"), text);
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0].1, 7);
}
