//! A key's maker who gives different people different keys.

use rand_core::Rng;
use weft_agent_core::epoch::Epoch;
use weft_agent_core::id::EpochId;
use weft_agent_core::key_packet::{KeyPacket, SLOT_LEN, SLOT_MULTIPLE, recipients, wrap_slot};
use weft_agent_core::membership::{OpSet, evaluate};
use weft_agent_core::message::Message;
use weft_agent_core::op::{Genesis, OpSigner, SignedOp, ops};
use weft_agent_core::setup::Weakness;
use weft_agent_core::store::Read;
use weft_protocol::cbor::{Reader, Writer};

use super::speakers::said;
use super::*;

impl Town {
    /// What a host knows of the membership, as its rows have it.
    pub(super) fn op_set(&self, host: usize) -> OpSet {
        let store = &self.hosts[host].store;
        let mut set = OpSet::new(Genesis::parse(&store.get(Table::Meta, b"genesis").unwrap()).unwrap());
        for (_, row) in store.scan(Table::Ops, &[], None, 1_000) {
            set.insert(SignedOp::parse(&set.workspace(), &row).unwrap()).unwrap();
        }
        set
    }
}

/// A slot that opens for this key, and does not hold what the epoch is.
fn wrong_slot(town: &Town, epoch: EpochId, kem: &[u8; 32], rng: &mut ChaCha20Rng) -> [u8; SLOT_LEN] {
    use hpke::{Deserializable, Kem, OpModeS, Serializable};
    type Suite = hpke::kem::X25519HkdfSha256;
    let info = [b"weft/v1/wrap".as_slice(), &town.hosts[0].machine.id().0, &epoch.0].concat();
    let mut plain = [7; 65];
    plain[0] = Role::Writer as u8;
    let key = <Suite as Kem>::PublicKey::from_bytes(kem).unwrap();
    let (enc, sealed) = hpke::single_shot_seal_with_rng::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Suite>(
        &OpModeS::Base,
        &key,
        &info,
        &plain,
        &[],
        rng,
    )
    .unwrap();
    [enc.to_bytes().as_slice(), &sealed].concat().try_into().unwrap()
}

/// What Cid has for Ben in a packet.
#[derive(Clone, Copy, PartialEq)]
enum Given {
    Another,
    Nothing,
}

/// Ada, Ben and Cid: Cid makes a key that opens for Ada, and gives Ben something else in the same packet, or nothing. Whether
/// Ben holds the key in the end, what Ada's and Ben's status say, and what Ben reads of what is written under it.
fn equivocation(given: Given, weakness: Option<Weakness>) -> (bool, String, String, String) {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    for host in [a, b, c] {
        weakness.into_iter().for_each(|weakness| town.hosts[host].machine.weaken(weakness));
    }
    let (set, workspace, cid) = (town.op_set(a), town.hosts[a].machine.id(), identity(c as u8 + 2));
    let state = evaluate(&set);
    let row = town.hosts[c].store.scan(Table::Epochs, &[], None, 1)[0].1.clone();
    let old = Epoch::from_bytes(&workspace, &row).unwrap();
    let mut rng = ChaCha20Rng::from_seed([43; 32]);
    let signer = OpSigner::Device(&cid.device);
    let author = ops::Author { workspace, parents: set.heads(), signer, wall_ms: town.now.wall_ms };
    let (op, new) = ops::epoch(&author, &state, &[&old], &mut rng).unwrap();

    let ben = identity(b as u8 + 2);
    let bens = [ben.device.public().kem, ben.root_public.kem];
    let honest = KeyPacket::make(&new, &recipients(&state), &op, &mut rng).unwrap().to_bytes();
    let mut reader = Reader::new(&honest);
    reader.array(3, "packet").unwrap();
    reader.item::<EpochId>().unwrap();
    reader.list::<[u8; SLOT_LEN]>(100, "slots").unwrap();
    let sealed_op = reader.bytes_up_to(1 << 20, "op").unwrap();
    let mut slots: Vec<[u8; SLOT_LEN]> = recipients(&state)
        .iter()
        .filter(|(kem, _)| given == Given::Another || !bens.contains(kem))
        .map(|(kem, role)| {
            if bens.contains(kem) {
                wrong_slot(&town, new.id(), kem, &mut rng)
            } else {
                wrap_slot(&new, kem, *role, &mut rng).unwrap()
            }
        })
        .collect();
    while !slots.len().is_multiple_of(SLOT_MULTIPLE) {
        let mut filler = [0; SLOT_LEN];
        rng.fill_bytes(&mut filler);
        slots.push(filler);
    }
    let mut writer = Writer::new();
    writer.array(3).item(&new.id()).list(&slots).bytes(sealed_op);
    let packet = Bytes::from(writer.into_bytes());
    let payload = said(&town, &cid, peer_id(c), &old, &set, &Message::KeyPacket(packet), &mut rng);
    for host in [a, b] {
        let (room, payload) = (old.room().id, payload.clone());
        town.frame(host, ServerFrame::Deliver { room, from: peer_id(c), payload });
    }
    town.run(30_000);
    town.write(a, "secret.md", "under the new key\n");
    town.run(30_000);
    let held = town.hosts[b].store.get(Table::Epochs, &new.id().0).is_some();
    (held, town.problems(a), town.problems(b), town.text(b, "secret.md"))
}

/// Whoever gets a wrong key refuses it, says so, and is given the right one; the maker is named on both sides. Without the
/// complaint they would stay outside: everybody hands on the one packet that its maker made.
#[test]
fn a_wrong_slot_is_refused_and_replaced() {
    let (held, ada, ben, read) = equivocation(Given::Another, None);
    assert!(held, "{ada} {ben}");
    assert_eq!(read, "under the new key\n");
    assert!(ben.contains("member-4 (box-4) handed this device a key"), "{ben}");
    assert!(ada.contains("member-3 (box-3) says that the key that member-4 made"), "{ada}");

    let (held, _, ben, read) = equivocation(Given::Another, Some(Weakness::NoNack));
    assert!(!held && read.is_empty() && ben.contains("It was refused"), "{ben}");
}

/// Whoever was left out of a key says so as well, and is given it at once, not when the next peers meet.
#[test]
fn a_slot_that_is_missing_is_given() {
    let (held, ada, ben, read) = equivocation(Given::Nothing, None);
    assert!(held, "{ada} {ben}");
    assert_eq!(read, "under the new key\n");
    assert!(ada.contains("member-3 (box-3) says that the key that member-4 made"), "{ada}");

    let (held, _, _, read) = equivocation(Given::Nothing, Some(Weakness::NoNack));
    assert!(!held && read.is_empty());
}

/// Cid makes a key that nobody will use, says its op with the key to Ben alone, and never in an envelope: Ben says it to all,
/// so that whoever names it is understood.
#[test]
fn an_op_that_came_with_a_key_alone_is_said() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    let (before, workspace, cid) = (town.op_set(a), town.hosts[a].machine.id(), identity(c as u8 + 2));
    let epochs = |town: &Town| -> Vec<Epoch> {
        let rows = town.hosts[c].store.scan(Table::Epochs, &[], None, 10);
        rows.iter().map(|(_, row)| Epoch::from_bytes(&workspace, row).unwrap()).collect()
    };
    let old = epochs(&town);
    // A removal makes another key, which the one made on what was known before does not cover.
    assert_eq!(town.command(a, Command::RemoveMember(town.root(d))), Reply::Done);
    town.run(20_000);
    let set = town.op_set(a);
    let sealing = epochs(&town).into_iter().find(|epoch| old.iter().all(|known| known.id() != epoch.id())).unwrap();
    let mut rng = ChaCha20Rng::from_seed([44; 32]);
    let signer = OpSigner::Device(&cid.device);
    let author = ops::Author { workspace, parents: before.heads(), signer, wall_ms: town.now.wall_ms };
    let state = evaluate(&before);
    let (op, new) = ops::epoch(&author, &state, &[&old[0]], &mut rng).unwrap();
    let packet = KeyPacket::make(&new, &recipients(&state), &op, &mut rng).unwrap().to_bytes();
    let payload = said(&town, &cid, peer_id(c), &sealing, &set, &Message::KeyPacket(packet), &mut rng);
    town.frame(b, ServerFrame::Deliver { room: sealing.room().id, from: peer_id(c), payload });
    town.run(5_000);
    let knows = |town: &Town| [a, b, c].map(|host| town.op_set(host).contains(&op.id()));
    assert_eq!(knows(&town), [false, true, false]);
    assert!(!town.status(b).settled, "something is to be said");
    town.run(180_000);
    assert_eq!(knows(&town), [true; 3]);
    assert!(town.status(b).settled);
}
