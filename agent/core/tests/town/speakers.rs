//! Who says a message: nobody is taken for somebody else whose words they say again.

use weft_agent_core::envelope::{Draft, Kind, seal, spoken_by};
use weft_agent_core::epoch::Epoch;
use weft_agent_core::frontier::{Frontier, Tip};
use weft_agent_core::id::{ChainId, Link};
use weft_agent_core::membership::OpSet;
use weft_agent_core::message::{Message, Statement};
use weft_agent_core::setup::Weakness;
use weft_agent_core::store::Read;

use super::*;

/// A message as somebody with these keys says it in a room where they have this name, under an epoch.
pub(super) fn said(
    town: &Town,
    who: &LocalIdentity,
    name: PeerId,
    under: &Epoch,
    set: &OpSet,
    message: &Message,
    rng: &mut ChaCha20Rng,
) -> Bytes {
    let body = message.to_body();
    let draft = Draft {
        kind: Kind::from_byte(message.kind()),
        epoch: under,
        chain: ChainId { device: who.device.id(), incarnation: 1 },
        seq: 0,
        prev: spoken_by(name),
        op_heads: set.heads(),
        body: &body,
        leaf_changes: &[],
    };
    seal(draft, &town.hosts[0].machine.id(), &who.device, rng).unwrap().sealed.into_bytes()
}

/// Cid says again what Ben, who is away, said: Ada neither takes Ben to be there nor waits for what he said he holds. Said by
/// Ben himself it is believed. With the check off Cid passes for Ben.
#[test]
fn what_somebody_else_said_is_theirs_alone() {
    for (by_ben, weakness) in [(true, None), (false, None), (false, Some(Weakness::NoSpeaker))] {
        let (mut town, hosts) = Town::team(3);
        let [a, b, c] = hosts[..] else { panic!("three") };
        weakness.into_iter().for_each(|weakness| town.hosts[a].machine.weaken(weakness));
        town.run(10_000);
        town.disconnect(b);
        town.run(10_000);
        assert!(town.status(a).settled);
        let row = town.hosts[a].store.scan(Table::Epochs, &[], None, 10)[0].1.clone();
        let epoch = Epoch::from_bytes(&town.hosts[a].machine.id(), &row).unwrap();
        let (ben, set) = (identity(b as u8 + 2), town.op_set(a));
        let mut frontier = Frontier::default();
        let chain = ChainId { device: ben.device.id(), incarnation: 1 };
        frontier.advance(chain, Tip { seq: 1_000, link: Link([9; 32]) });
        let statement = Statement { epoch: epoch.id(), digest: frontier.digest(), frontier: Some(frontier), lacks: 0 };
        let beacon = Message::Beacon { statement, lan: Vec::new(), relays: Vec::new() };
        let mut rng = ChaCha20Rng::from_seed([45; 32]);
        let payload = said(&town, &ben, peer_id(b), &epoch, &set, &beacon, &mut rng);
        let from = peer_id(if by_ben { b } else { c });
        town.frame(a, ServerFrame::Deliver { room: epoch.room().id, from, payload });
        town.run(100);
        let status = town.status(a);
        let seen = status.peers.iter().any(|peer| peer.device == ben.device.id() && peer.connected);
        let believed = by_ben || weakness.is_some();
        assert_eq!((seen, status.settled, status.frontier_gap > 0), (believed, !believed, believed));
        assert_eq!(status.rejected.contains_key("somebody else's message said again"), !believed);
    }
}
