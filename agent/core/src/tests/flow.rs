//! Everyday life: join, talk, rotate, leave.

use rand_core::Rng;

use super::world::{World, at, author};
use crate::envelope::{DirectKind, Sealed};
use crate::envelope::{Draft, Kind, open_direct, open_head, open_lobby, seal, seal_direct, seal_lobby};
use crate::id::{ChainId, Link};
use crate::identity::LocalIdentity;
use crate::key_packet::{KeyPacket, KeyPacketError, recipients};
use crate::keyring::{Keyring, Sealing};
use crate::knock::{AnswerError, AnswerOpener, ReplyKey, make_answer};
use crate::membership::{Role, evaluate};
use crate::op::ops;
use crate::op::{Cut, OpBody};
use crate::piece;

/// Whoever joins holds the same members, opens the epoch, and reads what is sealed next.
#[test]
fn a_joiner_reads_what_is_sealed_next() {
    let mut world = World::found(1);
    let founder = world.founder.clone();
    let (bob, answer) = world.join(&founder, Role::Writer, "Bob");
    assert_eq!(answer.epoch.id(), world.epoch.id());
    assert_eq!(*evaluate(&answer.ops), *world.state());
    assert_eq!(world.state().role_of(&bob.device.id()), Some(Role::Writer));
    assert_eq!(world.state().without_slot(&world.epoch.id()), vec![bob.device.id()]);
    assert_eq!(world.state().invites.values().map(|invite| invite.used).collect::<Vec<_>>(), vec![1]);

    let mut keyring = Keyring::new();
    keyring.insert(answer.epoch);
    assert_eq!(keyring.sealing(&world.state()), Sealing::Under(world.epoch.id()));
    for body in [vec![], b"hello".to_vec(), vec![7; 300_000]] {
        let draft = Draft {
            kind: Kind::Content,
            epoch: &world.epoch,
            chain: ChainId { device: founder.device.id(), incarnation: 1 },
            seq: 1,
            prev: Link([0; 32]),
            op_heads: world.set.heads(),
            body: &body,
            leaf_changes: &[],
        };
        let sealed = seal(draft, &world.workspace(), &founder.device, &mut world.rng).unwrap();
        let bytes = sealed.sealed.bytes();
        assert!(Sealed::from_received(bytes.clone()).is_some());
        let head = open_head(&world.workspace(), &keyring, bytes).unwrap();
        assert_eq!(head.link, sealed.link);
        let head = head.verify(world.state().device_public(&founder.device.id()).unwrap()).unwrap();
        assert_eq!(head.open_body(&keyring, bytes).unwrap(), body);
    }
}

/// Two admins who welcome the same person at the same time use an invite up by one, in whichever order that is heard.
#[test]
fn a_person_welcomed_twice_uses_an_invite_once() {
    let mut world = World::found(5);
    let founder = world.founder.clone();
    let (ada, _) = world.join(&founder, Role::Admin, "Ada");
    let (link, invite) = world.invite(&founder, Role::Writer);
    let who = LocalIdentity::generate(&mut world.rng, "Guest", "desk");
    let reply = ReplyKey::generate(&mut world.rng);
    let knock = world.knock(&link, &who, &reply);
    let heads = world.set.heads();
    for by in [&founder, &ada] {
        let author = at(&world.set, by, heads.clone());
        let op = ops::welcome(&author, invite, knock.admission.clone(), Role::Writer, &world.epoch, &mut world.rng);
        world.add(op.unwrap());
    }
    assert_eq!(world.state().invites[&invite].used, 1);
    assert_eq!(world.state().role_of(&who.device.id()), Some(Role::Writer));
}

/// A removal's epoch reaches everybody but the removed one; back links open the older epochs; a packet's op comes with it.
#[test]
fn a_removal_rotates() {
    let mut world = World::found(2);
    let founder = world.founder.clone();
    let (bob, _) = world.join(&founder, Role::Writer, "Bob");
    let (eve, _) = world.join(&founder, Role::Writer, "Eve");
    let state = world.state();
    let by = author(&world.set, &founder);
    let parent = world.epoch.clone();
    let (op, epoch) =
        ops::remove(&by, &state, eve.root_public.sign, Cut::default(), &[&parent], &mut world.rng).unwrap();
    let id = world.add(op.clone());
    let state = world.state();
    assert_eq!(state.role_of(&eve.device.id()), None);
    assert_eq!(state.former.get(&eve.root_public.sign), Some(&id));
    assert_eq!(state.sealing_epoch(), Some(epoch.id()));
    assert!(state.reaches_exactly_active(&epoch.id()) && state.epochs[&epoch.id()].lobby);
    // The removed one's invites are void: Eve came in by the second.
    assert_eq!(state.invites.values().filter(|invite| invite.open).count(), 1);

    let packet = KeyPacket::make(&epoch, &recipients(&state), &op, &mut world.rng).unwrap();
    let packet = KeyPacket::parse(&packet.to_bytes()).unwrap();
    let opened = packet.open(&world.workspace(), &[bob.device.kem_secret()]).unwrap();
    assert_eq!((opened.epoch.id(), opened.op.id()), (epoch.id(), id));
    let root = founder.root.as_ref().unwrap();
    assert!(packet.open(&world.workspace(), &[root.kem_secret()]).is_ok());
    let outsider = packet.open(&world.workspace(), &[eve.device.kem_secret()]).unwrap_err();
    assert_eq!(outsider, KeyPacketError::NotForUs);

    let mut keyring = Keyring::new();
    keyring.insert(opened.epoch);
    let older = keyring.open_back_links(&world.workspace(), &state);
    assert_eq!(older.iter().map(|epoch| epoch.id()).collect::<Vec<_>>(), vec![world.epoch.id()]);
    assert_eq!(older[0].secrets(), world.epoch.secrets());
}

/// After a leave nothing covers it until somebody mints an epoch over it.
#[test]
fn a_leave_asks_for_a_new_epoch() {
    let mut world = World::found(3);
    let founder = world.founder.clone();
    let (bob, _) = world.join(&founder, Role::Writer, "Bob");
    let op = ops::leave(&author(&world.set, &bob));
    world.add(op);
    let state = world.state();
    assert!(!state.members.contains_key(&bob.root_public.sign));
    assert_eq!(Keyring::new().sealing(&state), Sealing::Mint);
    let parent = world.epoch.clone();
    let by = author(&world.set, &founder);
    let (op, epoch) = ops::epoch(&by, &state, &[&parent], &mut world.rng).unwrap();
    world.add(op);
    assert_eq!(world.state().sealing_epoch(), Some(epoch.id()));
    // The last owner cannot leave.
    let op = ops::leave(&author(&world.set, &founder));
    let id = world.add(op);
    assert!(!world.set.is_authorised(&id));
    assert!(world.state().members.contains_key(&founder.root_public.sign));
}

/// An answer is accepted only whole, for this link, this device and this history; its parts come in any order.
#[test]
fn answers_are_checked_against_the_link() {
    let mut world = World::found(4);
    let founder = world.founder.clone();
    // Enough ops for several parts: invites are about 250 bytes.
    for _ in 0..900 {
        world.invite(&founder, Role::Reader);
    }
    let (link, _) = world.invite(&founder, Role::Writer);
    let who = LocalIdentity::generate(&mut world.rng, "Bob", "desk");
    let reply = ReplyKey::generate(&mut world.rng);
    let knock = world.knock(&link, &who, &reply);
    let keys = link.keys().knock;
    let kems = vec![who.device.kem_secret().clone()];
    let open = |link: &crate::invite_link::InviteLink, parts: &[Sealed]| {
        let mut opener = AnswerOpener::new(link.clone(), reply.clone(), who.device.id(), kems.clone());
        parts.iter().rev().map(|part| opener.push(part.bytes())).last().unwrap()
    };
    let early = make_answer(&world.set, link.invite(), &keys, &knock.reply_key, &mut world.rng).unwrap();
    assert!(early.len() > 1);
    assert_eq!(open(&link, &early).unwrap_err(), AnswerError::NotWelcome);
    let by = author(&world.set, &founder);
    let op = ops::welcome(&by, link.invite(), knock.admission, Role::Writer, &world.epoch, &mut world.rng).unwrap();
    world.add(op);
    let parts = make_answer(&world.set, link.invite(), &keys, &knock.reply_key, &mut world.rng).unwrap();
    assert!(parts.iter().all(|part| part.bytes().len() <= 256 * 1024));
    assert!(open(&link, &parts).unwrap().is_some());
    assert!(open(&link, &parts[1..]).unwrap().is_none());
    let mut forked = link.clone();
    forked.op_heads.push(crate::id::OpId([9; 32]));
    assert_eq!(open(&forked, &parts).unwrap_err(), AnswerError::OtherHistory);
    let mut elsewhere = link.clone();
    elsewhere.workspace.0[0] ^= 1;
    assert_eq!(open(&elsewhere, &parts).unwrap_err(), AnswerError::NotForUs);
    let mut opener = AnswerOpener::new(link, ReplyKey::generate(&mut world.rng), who.device.id(), kems);
    assert_eq!(opener.push(parts[0].bytes()).unwrap_err(), AnswerError::NotForUs);
}

/// To-device and lobby messages open for their reader only.
#[test]
fn direct_and_lobby_messages() {
    let mut world = World::found(5);
    let (workspace, device) = (world.workspace(), world.founder.device.clone());
    let sealed = seal_direct(&workspace, DirectKind::Notice, &device.public().kem, b"why", &mut world.rng).unwrap();
    let opened = open_direct(&workspace, device.kem_secret(), sealed.bytes()).unwrap();
    assert_eq!(opened, (DirectKind::Notice, b"why".to_vec()));
    let lobby = world.epoch.lobby();
    let sealed = seal_lobby(&workspace, &lobby, b"ask", &mut world.rng).unwrap();
    assert_eq!(open_lobby(&workspace, &lobby, sealed.bytes()), Some(b"ask".to_vec()));
    let other = crate::epoch::Epoch::generate(&workspace, &mut world.rng).lobby();
    assert_eq!(open_lobby(&workspace, &other, sealed.bytes()), None);
    assert_ne!(lobby.room.id, world.epoch.room().id);
}

/// Content cuts where it says so: an insertion changes few pieces; pieces and manifests of both depths come back whole.
#[test]
fn blobs_round_trip() {
    let mut world = World::found(6);
    let chunker = piece::Chunker::new(&world.workspace());
    let mut content = vec![0; 3 << 20];
    world.rng.fill_bytes(&mut content);
    let pieces: Vec<Vec<u8>> = chunker.pieces(&content).map(<[u8]>::to_vec).collect();
    assert_eq!(pieces.concat(), content);
    assert!(
        pieces
            .iter()
            .rev()
            .skip(1)
            .all(|piece| { (piece::PIECE_BYTES_MIN..=piece::PIECE_BYTES_MAX).contains(&piece.len()) })
    );
    content.insert(1 << 20, 7);
    let after: Vec<Vec<u8>> = chunker.pieces(&content).map(<[u8]>::to_vec).collect();
    assert!(after.iter().filter(|piece| !pieces.contains(piece)).count() <= 2);
    for plain in [&pieces[0][..], &[], &vec![3; piece::PIECE_BYTES_MAX]] {
        let (reference, sealed) = piece::seal_piece(plain, &mut world.rng).unwrap();
        assert_eq!(piece::open_piece(&reference, sealed.bytes()).unwrap(), plain);
        assert!(sealed.bytes().len() <= piece::PIECE_SEALED_BYTES_MAX);
    }
    let mut largest = vec![0; piece::PIECE_BYTES_MAX];
    world.rng.fill_bytes(&mut largest);
    let (reference, sealed) = piece::seal_piece(&largest, &mut world.rng).unwrap();
    assert_eq!(sealed.bytes().len(), piece::PIECE_SEALED_BYTES_MAX);
    let many = vec![reference; 3000];
    let (outer, inner) = piece::make_manifest(many, &world.workspace(), &mut world.rng).unwrap();
    assert_eq!(outer.depth, 1);
    let opened: Vec<Vec<u8>> =
        inner.iter().map(|(reference, sealed)| piece::open_piece(reference, sealed.bytes()).unwrap()).collect();
    let manifest = piece::open_inner_manifest(&outer, &opened.concat()).unwrap();
    assert_eq!((manifest.len, manifest.pieces.len()), (outer.len, 3000));
}

/// All fourteen kinds parse back to what they were made of.
#[test]
fn every_kind_parses() {
    let mut world = World::found(7);
    let founder = world.founder.clone();
    let by = author(&world.set, &founder);
    let bodies = super::vectors::bodies(&mut world);
    let kinds: Vec<u64> = bodies.iter().map(OpBody::kind).collect();
    assert_eq!(kinds, (1..=14).collect::<Vec<_>>());
    let signed: Vec<_> = bodies.iter().map(|body| by.sign(body.clone())).collect();
    let list = crate::op::ops_to_bytes(signed.iter());
    assert_eq!(crate::op::ops_from_bytes(&world.workspace(), &list).unwrap(), signed);
    assert!(crate::op::ops_from_bytes(&world.workspace(), &list[1..]).is_err());
    for body in bodies {
        let op = by.sign(body.clone());
        let parsed = crate::op::SignedOp::parse(&world.workspace(), op.bytes()).unwrap();
        assert_eq!((parsed.body(), parsed.id()), (&body, op.id()));
        assert!(parsed.verify(&founder.device.public().sign).is_ok());
        // In a set they are held, whatever they do.
        assert!(world.set.insert(parsed).is_ok());
    }
}
