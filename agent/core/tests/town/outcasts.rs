//! What somebody who was removed can cost those who stay, from the old rooms: little, and nothing for good.

use weft_agent_core::envelope::{DirectKind, seal_direct};
use weft_agent_core::epoch::Epoch;
use weft_agent_core::frontier::{Frontier, Tip};
use weft_agent_core::id::{ChainId, Link, OpId};
use weft_agent_core::identity::DeviceCert;
use weft_agent_core::message::{Message, Statement};
use weft_agent_core::op::{OpBody, OpSigner, SignedOp, ops_to_bytes};
use weft_agent_core::store::Read;

use super::speakers::said;
use super::*;

/// A team of three, of whom the last was removed and is still in the old room with the key of then.
struct Outcast {
    town: Town,
    ada: usize,
    ben: usize,
    thief: LocalIdentity,
    name: PeerId,
    held: Epoch,
    before: Vec<OpId>,
    rng: ChaCha20Rng,
}

impl Outcast {
    fn new() -> Self {
        let (mut town, hosts) = Town::team(3);
        let [ada, ben, mallory] = hosts[..] else { panic!("three") };
        let before = town.op_set(mallory).heads();
        let workspace = town.hosts[mallory].machine.id();
        let row = town.hosts[mallory].store.scan(Table::Epochs, &[], None, 1)[0].1.clone();
        let held = Epoch::from_bytes(&workspace, &row).unwrap();
        assert_eq!(town.command(ada, Command::RemoveMember(town.root(mallory))), Reply::Done);
        town.run(10_000);
        // Her computer went, as it should; a program of hers comes back to the old room.
        let peer = Peer { peer: peer_id(mallory), device: RelayDevice([mallory as u8; 16]) };
        for host in [ada, ben] {
            town.frame(host, ServerFrame::PeerJoined { room: held.room().id, peer });
        }
        town.run(10_000);
        let thief = identity(mallory as u8 + 2);
        Self { town, ada, ben, thief, name: peer_id(mallory), held, before, rng: ChaCha20Rng::from_seed([46; 32]) }
    }

    fn op(&self, parents: &[OpId], body: OpBody) -> SignedOp {
        let workspace = self.town.hosts[self.ada].machine.id();
        SignedOp::make(&workspace, parents, OpSigner::Device(&self.thief.device), 1, body)
    }

    fn to(&mut self, host: usize, payload: Bytes) {
        let room = self.held.room().id;
        self.town.frame(host, ServerFrame::Deliver { room, from: self.name, payload });
    }

    /// Hands one member ops that nobody else hears of.
    fn notify(&mut self, host: usize, ops: &[&SignedOp]) {
        let workspace = self.town.hosts[host].machine.id();
        let kem = identity(host as u8 + 2).device.public().kem;
        let list = ops_to_bytes(ops.iter().copied());
        let sealed = seal_direct(&workspace, DirectKind::Notice, &kem, &list, &mut self.rng).unwrap();
        self.to(host, sealed.into_bytes());
        self.town.run(100);
    }

    /// States, as a device of any keys, to hold what nobody does.
    fn boast(&mut self, host: usize, as_device: &LocalIdentity, seed: u8) {
        let mut frontier = Frontier::default();
        let chain = ChainId { device: identity(seed).device.id(), incarnation: 1 };
        frontier.advance(chain, Tip { seq: 1_000, link: Link([seed; 32]) });
        let statement =
            Statement { epoch: self.held.id(), digest: frontier.digest(), frontier: Some(frontier), lacks: 0 };
        let beacon = Message::Beacon { statement, lan: Vec::new(), relays: Vec::new() };
        let set = self.town.op_set(host);
        let payload = said(&self.town, as_device, self.name, &self.held, &set, &beacon, &mut self.rng);
        self.to(host, payload);
    }
}

/// One member is handed an op before the one it stands on, at once or minutes later. What that member writes then names an op
/// that nobody else knows, and reaches them all the same.
#[test]
fn an_op_handed_over_before_its_parent_holds_nothing_up() {
    for wait in [100, 150_000] {
        let mut outcast = Outcast::new();
        let (ada, ben) = (outcast.ada, outcast.ben);
        let genesis = outcast.before[0];
        let parent = outcast.op(&outcast.before.clone(), OpBody::Endorse { op: genesis });
        let child = outcast.op(&[parent.id()], OpBody::Endorse { op: genesis });
        outcast.notify(ada, &[&child]);
        outcast.town.run(wait);
        outcast.notify(ada, &[&parent]);
        let town = &mut outcast.town;
        assert!(town.op_set(ada).contains(&child.id()), "it was taken in");
        town.write(ada, "after.md", "written right after\n");
        town.run(20_000);
        assert_eq!(town.text(ben, "after.md"), "written right after\n", "{:#?}", town.status(ben));
        assert!(town.status(ada).settled && town.status(ben).settled);
    }
}

/// Under one made-up name after another, more is promised than anybody can give, while something old is said again and again:
/// what one missed of the others meanwhile it still asks them for.
#[test]
fn promises_of_strangers_keep_nobody_from_asking_others() {
    let mut outcast = Outcast::new();
    let (ada, ben) = (outcast.ada, outcast.ben);
    let old = outcast.town.hosts[2].store.scan(Table::Envelopes, &[], None, 1)[0].1.clone();
    // What the others say is lost on the way for a while.
    let rooms = outcast.town.rooms.clone();
    outcast.town.rooms.values_mut().for_each(|hosts| hosts.retain(|host| *host != ada));
    outcast.town.write(ben, "missed.md", "written meanwhile\n");
    for round in 0..60 {
        if round == 2 {
            outcast.town.rooms = rooms.clone();
        }
        for seed in 0..5 {
            outcast.boast(ada, &identity(100 + seed), 150 + seed);
        }
        outcast.to(ada, old.clone());
        outcast.town.run(2_000);
    }
    let town = &mut outcast.town;
    assert_eq!(town.text(ada, "missed.md"), "written meanwhile\n", "{:#?}", town.status(ada));
}

/// Whoever hands over many devices of their own, and speaks as each, from one connection, is told of their removal as one.
#[test]
fn one_connection_is_told_once_whoever_it_says_it_is() {
    let mut outcast = Outcast::new();
    let (ada, thief) = (outcast.ada, identity(4));
    let root = thief.root_public;
    let devices: Vec<LocalIdentity> = (100..130).map(identity).collect();
    let mut parents = outcast.before.clone();
    for device in &devices {
        let cert = DeviceCert::by_device(&thief.device, root, device.device.public());
        let op = outcast.op(&parents, OpBody::Device { cert, label: "phone".into() });
        outcast.notify(ada, &[&op]);
        parents = vec![op.id()];
    }
    outcast.town.run(40_000);
    outcast.town.sent.clear();
    for device in &devices {
        outcast.boast(ada, device, 150);
        outcast.town.run(100);
    }
    let told = outcast.town.sent.iter().filter(|(from, to, bytes)| *from == ada && *to == 2 && *bytes > 1_000).count();
    assert!((1..=4).contains(&told), "told {told} times");
}
