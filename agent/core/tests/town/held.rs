//! *Held* and *settled*: whoever says so could be lost at that moment, and the others would have everything.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_agent_core::store::Read;
use weft_agent_core::workspace::command::State;

use super::blob::noise;
use super::*;

impl Town {
    fn flush(&mut self, host: usize) -> (bool, String) {
        let until_mono_ms = self.now.mono_ms + 2_000;
        match self.command(host, Command::Flush { until_mono_ms, peers: 1 }) {
            Reply::Flushed { complete, missing, .. } => (complete, missing),
            other => panic!("{other:?}"),
        }
    }

    fn envelopes(&self, host: usize) -> BTreeSet<Vec<u8>> {
        self.hosts[host].store.scan(Table::Envelopes, &[], None, usize::MAX).into_iter().map(|(key, _)| key).collect()
    }

    /// Whether another host has every envelope of this one, and the content of every large file in its folder.
    fn could_be_lost(&self, host: usize) -> bool {
        let ours = self.envelopes(host);
        let large: Vec<&Bytes> =
            self.hosts[host].folder.values().filter(|bytes| bytes.len() > INLINE_BYTES_MAX).collect();
        (0..self.hosts.len()).filter(|other| *other != host).any(|other| {
            let folder = &self.hosts[other].folder;
            ours.is_subset(&self.envelopes(other))
                && large.iter().all(|bytes| folder.values().any(|found| found == *bytes) || self.stores(other, bytes))
        })
    }

    /// Whether the pieces of some content are stored.
    fn stores(&self, host: usize, bytes: &Bytes) -> bool {
        self.made
            .iter()
            .filter(|(content, _)| content == bytes)
            .any(|(_, manifest)| self.joined(host, manifest).is_some())
    }
}

/// A peer that has the envelope of a large file and not its pieces does not hold everything, and says how much it lacks;
/// once the pieces are there, it does.
#[test]
fn a_flush_waits_for_the_pieces_of_large_files() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    town.loses_pieces = true;
    town.write_large(a, "film.bin", noise(1, 900_000));
    town.run(10_000);
    assert_eq!(town.envelopes(a), town.envelopes(b));
    let (complete, missing) = town.flush(a);
    assert!(!complete && missing.contains("lacks 900 kB of large files"), "{missing}");
    let status = town.status(a);
    assert!(!status.settled && status.held_by == 0 && status.bytes_to_send == 900_000, "{status:#?}");
    assert_eq!((status.peers[0].lacks, status.peers[0].lacks_bytes), (0, 900_000));
    assert_eq!(town.status(b).lacks_bytes, 900_000);
    town.loses_pieces = false;
    town.run(30_000);
    assert_eq!(town.hosts[b].folder["film.bin"], noise(1, 900_000));
    assert_eq!(town.flush(a), (true, String::new()));
    for host in [a, b] {
        let status = town.status(host);
        assert!(status.settled && status.held_by == 1, "{status:#?}");
    }
}

/// What waits while syncing is paused is held by nobody, and a flush says so at once.
#[test]
fn what_waits_in_a_pause_is_held_by_nobody() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    town.write(b, "before.md", "before\n");
    town.run(10_000);
    assert_eq!(town.command(a, Command::Pause(true)), Reply::Done);
    town.run(1_000);
    assert_eq!(town.status(a).held_by, 1, "nothing waits yet");
    town.write(a, "mine.md", "not sent\n");
    town.run(1_000);
    let status = town.status(a);
    assert_eq!((status.state, status.settled, status.held_by, status.pending_send), (State::Paused, false, 0, 1));
    assert_eq!(status.peers[0].lacks, 1);
    let before = town.now.mono_ms;
    let (complete, missing) = town.flush(a);
    assert!(!complete && missing.contains("paused") && missing.contains("1 batch of edits waits"), "{missing}");
    assert!(town.now.mono_ms < before + 1_000, "at once");
    assert_eq!(town.command(a, Command::Pause(false)), Reply::Done);
    // Town hosts keep their connection: the rooms are joined again.
    town.run(10_000);
    assert_eq!(town.flush(a), (true, String::new()));
}

/// A folder that stands still holds nothing for others, and nothing in it is known to be read.
#[test]
fn a_halted_workspace_is_not_settled_and_its_folder_does_not_count() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    town.write_large(a, "film.bin", noise(2, 600_000));
    town.run(20_000);
    assert_eq!(town.flush(a), (true, String::new()));
    town.hosts[b].folder.clear();
    town.hosts[b].inputs.push_back(Input::RootLost { why: "the folder is not there".into() });
    town.run(10_000);
    let (complete, missing) = town.flush(b);
    assert!(!complete && missing.contains("halted"), "{missing}");
    assert!(!town.status(b).settled);
    // Its store may hold the pieces; else it says that it lacks them.
    let holds = town.stores(b, &noise(2, 600_000));
    assert_eq!(town.status(a).held_by, u64::from(holds));
}

#[derive(Debug, Clone)]
enum Deed {
    Small(usize, u8),
    Large(usize, u8),
    Remove(usize),
    Pause(usize, bool),
    Online(usize, bool),
    Pieces(bool),
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let host = 0..3usize;
    let deed = prop_oneof![
        3 => (host.clone(), any::<u8>()).prop_map(|(host, n)| Deed::Small(host, n)),
        4 => (host.clone(), any::<u8>()).prop_map(|(host, n)| Deed::Large(host, n)),
        1 => host.clone().prop_map(Deed::Remove),
        2 => (host.clone(), any::<bool>()).prop_map(|(host, on)| Deed::Pause(host, on)),
        2 => (host, any::<bool>()).prop_map(|(host, on)| Deed::Online(host, on)),
        2 => any::<bool>().prop_map(Deed::Pieces),
        5 => (1..6_000u64).prop_map(Deed::Wait),
    ];
    prop::collection::vec(deed, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever happened, whoever says that it is settled, that others hold everything, or that a flush is complete, could be
    /// lost at that moment: one other device has all its envelopes and all contents of its large files.
    #[test]
    fn whoever_says_settled_could_be_lost_now(deeds in deeds()) {
        let (mut town, hosts) = Town::team(3);
        for deed in deeds {
            match deed {
                Deed::Small(host, n) => town.write(host, "note.md", &format!("note {n}\n")),
                Deed::Large(host, n) => {
                    let bytes = noise(n, 270_000 + usize::from(n) * 1_000);
                    town.write_large(host, &format!("film-{}.bin", n % 3), bytes);
                }
                Deed::Remove(host) => {
                    if town.hosts[host].folder.remove("film-0.bin").is_some() {
                        let seen = town.look(host, "film-0.bin");
                        town.hosts[host].inputs.push_back(Input::Seen(vec![seen]));
                    }
                }
                Deed::Pause(host, on) => drop(town.command(host, Command::Pause(on))),
                Deed::Online(host, true) if !town.hosts[host].online => town.connect(host),
                Deed::Online(host, false) if town.hosts[host].online => town.disconnect(host),
                Deed::Online(..) => {}
                Deed::Pieces(come) => town.loses_pieces = !come,
                Deed::Wait(ms) => town.run(ms),
            }
            for host in &hosts {
                let status = town.status(*host);
                let says = status.settled || status.held_by > 0;
                prop_assert!(!says || town.could_be_lost(*host), "host {} says so: {:#?}", host, status);
            }
        }
        for host in &hosts {
            let (complete, missing) = town.flush(*host);
            prop_assert!(!complete || town.could_be_lost(*host));
            prop_assert!(complete == missing.is_empty());
        }
        // In the end, with everybody there, everything is held.
        town.loses_pieces = false;
        for host in &hosts {
            if !town.hosts[*host].online {
                town.connect(*host);
            }
            town.command(*host, Command::Pause(false));
        }
        town.run(120_000);
        for host in &hosts {
            let status = town.status(*host);
            prop_assert!(status.settled && status.held_by == 2, "host {}: {:#?}", host, status);
            prop_assert_eq!(town.flush(*host), (true, String::new()));
        }
    }
}
