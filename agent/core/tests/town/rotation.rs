//! Keys that are changed for their age or use, and devices that were away meanwhile.

use super::*;

const DAY: u64 = 24 * 3_600_000;

impl Town {
    /// The epochs a host holds.
    fn epochs(&self, host: usize) -> usize {
        weft_agent_core::store::Read::scan(&self.hosts[host].store, Table::Epochs, &[], None, 1_000).len()
    }

    /// Lets the epoch that a host seals under look as if so many envelopes had been sealed under it.
    fn wear(&mut self, host: usize, envelopes: u64) {
        let mut store = self.hosts[host].store.clone();
        let usage = weft_agent_core::store::Read::get(&store, Table::Meta, b"usage").unwrap();
        let row = [&usage[..24], &envelopes.to_be_bytes()].concat();
        let write =
            weft_agent_core::store::Write { table: Table::Meta, key: b"usage".to_vec(), value: Some(row.into()) };
        store.apply(&[write]);
        let watermark = self.hosts[host].watermark;
        self.restart_from(host, store, watermark);
    }

    /// Lets days go by in which everybody's computer is off, then a few minutes in which those of `back` are there.
    fn days(&mut self, days: u64, back: &[usize]) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].online {
                self.disconnect(host);
            }
        }
        self.run(days * DAY);
        for host in back {
            self.connect(*host);
        }
        self.run(150_000);
    }

    fn rooms_of(&self, host: usize) -> usize {
        self.rooms.values().filter(|members| members.contains(&host)).count()
    }
}

/// After a week there is one new key, not one a member; whatever is written meanwhile arrives.
#[test]
fn a_week_makes_one_new_key() {
    let (mut town, hosts) = Town::team(4);
    for week in 0..3 {
        town.write(hosts[week], "log.md", &format!("week {week}\n"));
        town.days(6, &hosts);
        assert_eq!(town.epochs(hosts[0]), week + 1);
        // In the middle of a day on which they work.
        town.days(1, &hosts);
        for host in &hosts {
            assert_eq!(town.epochs(*host), week + 2, "host {host} in week {week}");
            assert_eq!(town.text(*host, "log.md"), format!("week {week}\n"));
        }
    }
    for host in hosts {
        let status = town.status(host);
        assert!(status.settled && status.rejected.is_empty(), "{status:#?}");
    }
}

/// Whoever is alone makes no keys: nobody would get them, and it could not know of others'.
#[test]
fn nobody_rotates_alone() {
    let (mut town, hosts) = Town::team(2);
    town.days(30, &hosts[..1]);
    assert_eq!(town.epochs(hosts[0]), 1);
    town.connect(hosts[1]);
    town.run(150_000);
    assert_eq!((town.epochs(hosts[0]), town.epochs(hosts[1])), (2, 2));
}

/// Ten thousand envelopes make a new key; who sealed the last one makes it at once, and the others make none of their own.
#[test]
fn ten_thousand_envelopes_make_one_new_key() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    for host in [a, b, c] {
        town.wear(host, 9_990);
    }
    town.run(20_000);
    assert_eq!(town.epochs(a), 1);
    for round in 0..12 {
        town.write(b, "log.md", &format!("round {round}\n"));
        town.run(3_000);
    }
    town.run(5_000);
    for host in [a, b, c] {
        assert_eq!(town.epochs(host), 2, "host {host}");
        assert_eq!(town.text(host, "log.md"), "round 11\n");
    }
    town.run(200_000);
    assert_eq!(town.epochs(c), 2);
}

/// A device that was away for ten keys finds the others in the lobby, gets the newest key, reads all that was written
/// under those between, and says what it wrote; also when two that were away meet each other first.
#[test]
fn a_device_that_was_away_for_ten_keys_catches_up() {
    for together in [false, true] {
        let (mut town, hosts) = Town::team(4);
        let [a, b, c, d] = hosts[..] else { panic!("four") };
        let here = if together { vec![a, b] } else { vec![a, b, d] };
        let away: Vec<usize> = hosts.iter().copied().filter(|host| !here.contains(host)).collect();
        for host in &away {
            town.disconnect(*host);
        }
        town.run(100);
        town.write(c, "offline.md", "by c\n");
        for week in 0..10 {
            town.write(a, "log.md", &format!("week {week}\n"));
            town.write(b, &format!("week-{week}.md"), "by b\n");
            town.days(8, &here);
        }
        assert_eq!((town.epochs(a), town.epochs(c)), (11, 1));
        for host in &away {
            town.connect(*host);
        }
        town.run(120_000);
        for host in [a, b, c, d] {
            let status = town.status(host);
            assert_eq!(town.text(host, "log.md"), "week 9\n", "{status:#?}");
            assert_eq!(town.text(host, "week-0.md"), "by b\n");
            assert_eq!(town.text(host, "offline.md"), "by c\n");
            // Two that were away may have made one of their own before they heard of the others.
            assert_eq!(
                (town.epochs(host), town.epochs(host) <= if together { 13 } else { 11 }),
                (town.epochs(a), true)
            );
            assert!(status.settled && status.problems.is_empty(), "{status:#?}");
            assert_eq!(status.peers.iter().filter(|peer| peer.connected).count(), 3);
        }
    }
}

/// A device that was in the room of an old key with the others, and heard nothing there while they went on to newer keys
/// and left that room, finds them in the lobby: it was among them when it looked there first.
#[test]
fn who_is_left_in_an_old_room_asks_in_the_lobby() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    for week in 0..3 {
        town.write(a, "log.md", &format!("week {week}\n"));
        town.days(8, &[a, b]);
    }
    town.cut = Some(c);
    town.connect(c);
    town.run(20_000);
    for round in 0..2 {
        // Everybody's computer sleeps; nobody's connection ends.
        town.now.mono_ms += 8 * DAY;
        town.now.wall_ms += 8 * DAY;
        town.write(a, "log.md", &format!("round {round}\n"));
        town.run(150_000);
    }
    assert_eq!((town.epochs(a), town.epochs(c)), (6, 1));
    town.cut = None;
    town.run(1_300_000);
    let status = town.status(c);
    assert_eq!(town.text(c, "log.md"), "round 1\n", "{status:#?}");
    assert!(status.settled && status.problems.is_empty(), "{status:#?}");
}

/// A device that knows of a removal, and missed so many keys since that it meets the others only in the room where whoever
/// was removed may look for them: all are silent there, and yet it gets the newest key.
#[test]
fn who_knows_of_a_removal_is_not_left_with_an_old_key() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    assert_eq!(town.command(a, Command::RemoveMember(town.root(d))), Reply::Done);
    town.run(10_000);
    town.disconnect(d);
    town.disconnect(c);
    town.write(c, "offline.md", "by c\n");
    for week in 0..5 {
        town.write(a, "log.md", &format!("week {week}\n"));
        town.days(8, &[a, b]);
    }
    assert_eq!((town.epochs(a), town.epochs(c)), (7, 2));
    town.connect(c);
    town.run(120_000);
    let status = town.status(c);
    assert_eq!(town.text(c, "log.md"), "week 4\n", "{status:#?}");
    assert_eq!(town.text(b, "offline.md"), "by c\n");
    assert!(status.settled && status.problems.is_empty(), "{status:#?}");
}

/// What is listened to does not grow with the keys there were, and ends when nobody can be away any more.
#[test]
fn old_rooms_are_left() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    town.run(10_000);
    let removed = town.rooms_of(a);
    for _ in 0..5 {
        town.days(8, &[a, b]);
    }
    // Four epochs' rooms now, and still the one where the removed one may look.
    assert!(town.rooms_of(a) <= removed + 3, "{} and {removed}", town.rooms_of(a));
    for _ in 0..8 {
        town.days(8, &[a, b]);
    }
    assert_eq!(town.epochs(a), 2 + 13);
    // The present lobby, four epochs, the invite's, and the doors of the first lobby and of the removal's.
    assert!(town.rooms_of(a) <= 8, "{}", town.rooms_of(a));
    assert_eq!(town.rooms_of(a), town.rooms_of(b));
}

/// Whoever was removed can say in the old lobby what they like: of the keys they make up, a device that has been away keeps
/// a few, takes none whose op is not signed by whom it names, and still finds the real ones.
#[test]
fn made_up_keys_in_a_lobby_are_bounded() {
    use weft_agent_core::envelope::seal_lobby;
    use weft_agent_core::epoch::Epoch;
    use weft_agent_core::id::OpId;
    use weft_agent_core::key_packet::KeyPacket;
    use weft_agent_core::lobby_message::LobbyMessage;
    use weft_agent_core::op::{EpochGrant, OpBody, OpSigner, SignedOp, ops};
    use weft_protocol::cbor::to_bytes;

    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    town.disconnect(d);
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    for _ in 0..5 {
        town.days(8, &[a, b]);
    }
    for host in [a, b] {
        town.disconnect(host);
    }
    town.connect(d);
    town.run(1_000);
    let workspace = town.hosts[d].machine.id();
    let row = weft_agent_core::store::Read::scan(&town.hosts[c].store, Table::Epochs, &[], None, 1)[0].1.clone();
    let lobby = Epoch::from_bytes(&workspace, &row).unwrap().lobby();
    let (thief, stale) = (identity(c as u8 + 2), identity(d as u8 + 2));
    let mut rng = ChaCha20Rng::from_seed([42; 32]);
    for number in 0..40 {
        let epoch = Epoch::generate(&workspace, &mut rng);
        let recipients = vec![stale.device.id()];
        let grant = EpochGrant { commitments: *epoch.commitments(), parents: vec![], recipients };
        let signer = OpSigner::Device(&thief.device);
        let author = ops::Author { workspace, parents: vec![OpId([number; 32])], signer, wall_ms: 1 };
        let mut op = author.sign(OpBody::Epoch(grant));
        if number % 2 == 1 {
            let mut bytes = op.bytes().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            op = SignedOp::parse(&workspace, &bytes).unwrap();
        }
        let to = [(stale.device.public().kem, Role::Writer)];
        let packet = KeyPacket::make(&epoch, &to, &op, &mut rng).unwrap().to_bytes();
        let message = to_bytes(&LobbyMessage::Keys(packet));
        let payload = seal_lobby(&workspace, &lobby, &message, &mut rng).unwrap().into_bytes();
        town.frame(d, ServerFrame::Deliver { room: lobby.room.id, from: peer_id(c), payload });
    }
    town.run(5_000);
    assert_eq!(town.status(d).rejected.get("key packet with a forged op"), Some(&20));
    assert!(town.epochs(d) <= 1 + 8, "{}", town.epochs(d));
    assert!(town.rooms_of(d) <= 6, "{}", town.rooms_of(d));
    for host in [a, b] {
        town.connect(host);
    }
    town.write(a, "log.md", "after all\n");
    town.run(120_000);
    assert_eq!(town.text(d, "log.md"), "after all\n", "{:#?}", town.status(d));
}

/// Keys for nobody, said in a lobby that whoever was removed can still enter, tell people who meet one another nothing; who
/// meets nobody is told that it may have been removed, or that somebody was.
#[test]
fn keys_for_nobody_frighten_only_those_who_are_alone() {
    use weft_agent_core::envelope::seal_lobby;
    use weft_agent_core::epoch::Epoch;
    use weft_agent_core::key_packet::KeyPacket;
    use weft_agent_core::lobby_message::LobbyMessage;
    use weft_agent_core::op::{OpSigner, ops};
    use weft_protocol::cbor::to_bytes;
    use weft_protocol::frame::{Peer, PeerId};
    use weft_protocol::id::RelayDevice;

    for alone in [false, true] {
        let (mut town, hosts) = Town::team(3);
        let [a, b, c] = hosts[..] else { panic!("three") };
        assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
        town.run(10_000);
        town.disconnect(c);
        if alone {
            town.disconnect(b);
        }
        town.run(1_000);
        let workspace = town.hosts[c].machine.id();
        let row = weft_agent_core::store::Read::scan(&town.hosts[c].store, Table::Epochs, &[], None, 1)[0].1.clone();
        let lobby = Epoch::from_bytes(&workspace, &row).unwrap().lobby();
        let thief = identity(c as u8 + 2);
        let mut rng = ChaCha20Rng::from_seed([43; 32]);
        // More than there are in any epoch's room: so `a` asks in the lobby.
        for number in 0..4 {
            let peer = Peer { peer: PeerId([100 + number; 16]), device: RelayDevice([100 + number; 16]) };
            town.frame(a, ServerFrame::PeerJoined { room: lobby.room.id, peer });
        }
        town.run(20_000);
        let parents = town.op_set(a).heads();
        let author = ops::Author { workspace, parents, signer: OpSigner::Device(&thief.device), wall_ms: 1 };
        let state = weft_agent_core::membership::evaluate(&town.op_set(a));
        let parent = Epoch::from_bytes(&workspace, &row).unwrap();
        let (op, epoch) = ops::epoch(&author, &state, &[&parent], &mut rng).unwrap();
        let packet = KeyPacket::make(&epoch, &[], &op, &mut rng).unwrap().to_bytes();
        let message = to_bytes(&LobbyMessage::Keys(packet));
        let payload = seal_lobby(&workspace, &lobby, &message, &mut rng).unwrap().into_bytes();
        town.frame(a, ServerFrame::Deliver { room: lobby.room.id, from: PeerId([100; 16]), payload });
        town.run(1_000);
        assert_eq!(town.problems(a).contains("either it was removed, or they were"), alone, "{}", town.problems(a));
    }
}

/// Whoever was removed hands one member a key that it says to nobody else: what that member writes right after names an op that
/// the others do not know, and still reaches them.
#[test]
fn an_op_that_one_alone_was_told_holds_nothing_up() {
    use weft_agent_core::envelope::{DirectKind, seal_direct};
    use weft_agent_core::epoch::Epoch;
    use weft_agent_core::key_packet::KeyPacket;
    use weft_agent_core::op::{OpSigner, ops};

    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    let before = town.op_set(c);
    let workspace = town.hosts[c].machine.id();
    let row = weft_agent_core::store::Read::scan(&town.hosts[c].store, Table::Epochs, &[], None, 1)[0].1.clone();
    let held = Epoch::from_bytes(&workspace, &row).unwrap();
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    town.run(10_000);
    let (thief, one) = (identity(c as u8 + 2), identity(a as u8 + 2));
    let mut rng = ChaCha20Rng::from_seed([44; 32]);
    let signer = OpSigner::Device(&thief.device);
    let author = ops::Author { workspace, parents: before.heads(), signer, wall_ms: 1 };
    let state = weft_agent_core::membership::evaluate(&before);
    let (op, epoch) = ops::epoch(&author, &state, &[&held], &mut rng).unwrap();
    let to = [(one.device.public().kem, Role::Writer)];
    let packet = KeyPacket::make(&epoch, &to, &op, &mut rng).unwrap().to_bytes();
    let slot = seal_direct(&workspace, DirectKind::Slot, &one.device.public().kem, &packet, &mut rng).unwrap();
    let (room, payload) = (held.room().id, slot.into_bytes());
    town.frame(a, ServerFrame::Deliver { room, from: peer_id(c), payload });
    town.run(100);
    assert!(town.op_set(a).contains(&op.id()), "it was taken in");
    town.write(a, "after.md", "written right after\n");
    town.run(20_000);
    assert_eq!(town.text(b, "after.md"), "written right after\n", "{:#?}", town.status(b));
    for host in [a, b] {
        assert!(town.status(host).settled, "{:#?}", town.status(host));
    }
}

/// Whoever comes back to a room of many, with an old key, has the new one from a few of them, not once from each.
#[test]
fn a_few_hand_the_key_to_whoever_comes_back() {
    const PEOPLE: usize = 30;
    let mut town = Town::new();
    let mut hosts = vec![town.found()];
    for _ in 0..PEOPLE.div_ceil(10) {
        let link = town.invite(hosts[0]);
        hosts.extend((0..10).map(|_| town.join(&link)));
    }
    town.run(30_000);
    let away = hosts[7];
    town.disconnect(away);
    town.run(1_000);
    let gone = town.root(hosts[9]);
    assert_eq!(town.command(hosts[0], Command::RemoveMember(gone)), Reply::Done);
    town.run(30_000);
    let epochs = town.epochs(hosts[1]);
    town.sent.clear();
    town.connect(away);
    town.run(30_000);
    assert_eq!(town.epochs(away), epochs);
    let packet = 3_000;
    let sent = town.sent.iter().filter(|(_, to, bytes)| *to == away && *bytes > packet);
    let givers: std::collections::BTreeSet<usize> = sent.map(|(from, ..)| *from).collect();
    assert!((1..=20).contains(&givers.len()), "{} of {PEOPLE} handed it on", givers.len());
    assert!(town.status(away).settled);
}
