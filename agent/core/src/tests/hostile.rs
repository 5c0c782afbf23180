//! What is not as it should be is refused, and nothing that arrives can panic.

use proptest::prelude::*;

use super::world::{World, author};
use crate::envelope::{Draft, Header, Kind, OpenError, SealError, Sealed, open_direct, open_head, open_lobby, seal};
use crate::epoch::Epoch;
use crate::id::{ChainId, ChangeHash, Link, OpId, WorkspaceId};
use crate::identity::{DeviceKeys, LocalIdentity};
use crate::invite_link::InviteLink;
use crate::key_packet::KeyPacket;
use crate::keyring::Keyring;
use crate::membership::{InsertError, OpSet};
use crate::op::{Genesis, OpError, SignedOp, ops};
use crate::secret::Secret;

fn draft<'a>(world: &'a World, body: &'a [u8]) -> Draft<'a> {
    Draft {
        kind: Kind::Content,
        epoch: &world.epoch,
        chain: ChainId { device: world.founder.device.id(), incarnation: 1 },
        seq: 3,
        prev: Link([5; 32]),
        op_heads: world.set.heads(),
        body,
        leaf_changes: &[],
    }
}

fn sealed(world: &World, body: &[u8]) -> Sealed {
    let mut rng = world.rng.clone();
    seal(draft(world, body), &world.workspace(), &world.founder.device, &mut rng).unwrap().sealed
}

fn keyring(world: &World) -> Keyring {
    let mut keyring = Keyring::new();
    keyring.insert(world.epoch.clone());
    keyring
}

fn opens(world: &World, keyring: &Keyring, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
    let head = open_head(&world.workspace(), keyring, bytes)?.verify(&world.founder.device.public())?;
    head.open_body(keyring, bytes)
}

/// Every single flipped bit of an envelope, and every shorter piece of it, is refused.
#[test]
fn every_flipped_bit_is_refused() {
    let world = World::found(30);
    let keyring = keyring(&world);
    let envelope = sealed(&world, b"body");
    let bytes = envelope.bytes();
    assert_eq!(opens(&world, &keyring, bytes).unwrap(), b"body");
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opens(&world, &keyring, &changed).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(opens(&world, &keyring, &bytes[..len]).is_err());
    }
    let mut longer = bytes.to_vec();
    longer.resize(544, 0);
    assert!(opens(&world, &keyring, &longer).is_err());
}

/// An envelope opens in its workspace and epoch only, and only as its device's.
#[test]
fn wrong_workspace_epoch_and_device_are_refused() {
    let mut world = World::found(31);
    let ring = keyring(&world);
    let envelope = sealed(&world, b"body");
    let bytes = envelope.bytes();
    let other = WorkspaceId([1; 32]);
    assert_eq!(open_head(&other, &ring, bytes).unwrap_err(), OpenError::BrokenSeal);
    let mut elsewhere = Keyring::new();
    elsewhere.insert(Epoch::generate(&world.workspace(), &mut world.rng));
    assert_eq!(open_head(&world.workspace(), &elsewhere, bytes).unwrap_err(), OpenError::UnknownEpoch);
    let stranger = DeviceKeys::generate(&mut world.rng);
    let head = open_head(&world.workspace(), &ring, bytes).unwrap();
    assert_eq!(head.verify(&stranger.public()).unwrap_err(), OpenError::BadSignature);
    // A keeper verifies, and cannot read.
    let mut secrets = world.epoch.secrets().clone();
    secrets.content = None;
    let mut keeper = Keyring::new();
    keeper.insert(Epoch::open(&world.workspace(), secrets, world.epoch.commitments()).unwrap());
    assert_eq!(opens(&world, &keeper, bytes).unwrap_err(), OpenError::NoContentKey);
    // A verified head does not open another envelope's body.
    let second = sealed(&world, b"other");
    let head = open_head(&world.workspace(), &ring, bytes).unwrap().verify(&world.founder.device.public()).unwrap();
    assert_eq!(head.open_body(&ring, second.bytes()).unwrap_err(), OpenError::Mismatch);
    let mut newer = bytes.to_vec();
    newer[0] = 9;
    assert_eq!(open_head(&world.workspace(), &ring, &newer).unwrap_err(), OpenError::Version(9));
    let long = vec![0; 512 * 1024 + 1];
    assert_eq!(open_head(&world.workspace(), &ring, &long).unwrap_err(), OpenError::TooLarge);
}

/// A draft that could not be opened again, or would break a rule of the chain, is not sealed.
#[test]
fn wrong_drafts_are_not_sealed() {
    let mut world = World::found(32);
    let (workspace, device) = (world.workspace(), world.founder.device.clone());
    let mut rng = world.rng.clone();
    let body = vec![0; 2 << 20];
    let other = Epoch::generate(&WorkspaceId([1; 32]), &mut world.rng);
    let good = draft(&world, b"x");
    let heads: Vec<OpId> = (0..9).map(|n| OpId([n; 32])).collect();
    for (wrong, error) in [
        (Draft { seq: 0, ..good.clone() }, SealError::Place),
        (Draft { kind: Kind::Beacon, ..good.clone() }, SealError::Place),
        (Draft { kind: Kind::Beacon, seq: 0, ..good.clone() }, SealError::Place),
        (
            Draft { chain: ChainId { incarnation: 1, device: crate::id::DeviceId([1; 16]) }, ..good.clone() },
            SealError::Place,
        ),
        (Draft { epoch: &other, ..good.clone() }, SealError::Place),
        (Draft { op_heads: vec![], ..good.clone() }, SealError::OpHeads),
        (Draft { op_heads: heads, ..good.clone() }, SealError::OpHeads),
        (Draft { body: &body, ..good.clone() }, SealError::TooLarge),
    ] {
        assert_eq!(seal(wrong, &workspace, &device, &mut rng).unwrap_err(), error);
    }
    let noise: Vec<u8> =
        (0..600_000u32).flat_map(|n| crate::hash::h("noise", &[&n.to_be_bytes()])[..1].to_vec()).collect();
    assert_eq!(seal(Draft { body: &noise, ..good }, &workspace, &device, &mut rng).unwrap_err(), SealError::TooLarge);
}

/// Links, numbers, leaves and op heads are what the author signed; a repeated random state repeats nothing but an equal message.
#[test]
fn headers_bind_and_nonces_do_not_repeat() {
    let world = World::found(33);
    let (workspace, ring) = (world.workspace(), keyring(&world));
    let head = |draft: Draft<'_>| {
        let made = seal(draft, &workspace, &world.founder.device, &mut world.rng.clone()).unwrap();
        (open_head(&workspace, &ring, made.sealed.bytes()).unwrap(), made)
    };
    let (first, made) = head(draft(&world, b"one"));
    let expected = Header { body_hash: first.header.body_hash, ..first.header.clone() };
    assert_eq!((expected.seq, expected.prev, expected.op_heads.clone()), (3, Link([5; 32]), world.set.heads()));
    assert_eq!(made.link, first.link);
    let changes = [ChangeHash([1; 32]), ChangeHash([2; 32])];
    let (second, _) = head(Draft { leaf_changes: &changes, ..draft(&world, b"one") });
    assert_eq!(second.header.leaf, world.epoch.leaf(&changes).unwrap());
    let (third, _) = head(draft(&world, b"two"));
    let (fourth, _) = head(Draft { seq: 4, ..draft(&world, b"one") });
    let (again, same) = head(draft(&world, b"one"));
    assert_eq!(same.sealed, made.sealed);
    assert_eq!(again.nonce, first.nonce);
    for other in [&second, &third, &fourth] {
        assert!(other.nonce != first.nonce && other.link != first.link);
    }
    // Half of a fork's proof holds for its device and workspace.
    let public = world.founder.device.public();
    let proof = fourth.signed_header();
    let (header, link) = crate::envelope::verify_signed_header(&workspace, &public, &proof).unwrap();
    assert_eq!((header, link), (fourth.header.clone(), fourth.link));
    for at in 0..proof.len() {
        let mut changed = proof.clone();
        changed[at] ^= 1;
        assert!(crate::envelope::verify_signed_header(&workspace, &public, &changed).is_err());
    }
}

/// Ops and genesis: every changed byte is refused, at the latest by the signature; other workspaces' ops too.
#[test]
fn changed_ops_are_refused() {
    let mut world = World::found(34);
    let founder = world.founder.clone();
    let op = ops::invite(
        &author(&world.set, &founder),
        &crate::invite::InviteSecret::generate(&mut world.rng),
        crate::membership::Role::Writer,
        1,
        1,
        false,
    );
    for at in 0..op.bytes().len() {
        let mut bytes = op.bytes().to_vec();
        bytes[at] ^= 0x10;
        let refused = match SignedOp::parse(&world.workspace(), &bytes) {
            Ok(changed) => changed.verify(&founder.device.public().sign).is_err(),
            Err(_) => true,
        };
        assert!(refused, "byte {at}");
    }
    let other = World::found(35);
    assert_eq!(SignedOp::parse(&other.workspace(), op.bytes()).unwrap_err(), OpError::OtherWorkspace);
    let mut set = OpSet::new(other.set.genesis().clone());
    assert_eq!(set.insert(op.clone()), Err(InsertError::OtherWorkspace));
    let genesis = world.set.genesis().bytes().clone();
    for at in 0..genesis.len() {
        let mut bytes = genesis.to_vec();
        bytes[at] ^= 0x10;
        assert!(Genesis::parse(&bytes).is_err());
    }
    assert!(world.set.insert(op).is_ok());
}

/// Secrets do not print.
#[test]
fn debug_shows_no_secret() {
    let mut world = World::found(36);
    let founder = world.founder.clone();
    let (link, _) = world.invite(&founder, crate::membership::Role::Writer);
    let hex = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let shown = format!("{:?} {:?} {:?} {:?} {:?}", world.epoch, link, founder, world.state(), world.set.ops().last());
    let secrets = world.epoch.secrets();
    for secret in [
        &secrets.access,
        secrets.content.as_ref().unwrap(),
        founder.device.seed(),
        founder.device.kem_secret(),
        founder.root.as_ref().unwrap().entropy(),
        link.keys().knock.secret(),
        &Secret::new(*link.secret.expose()),
    ] {
        assert!(!shown.contains(&hex(&secret.expose()[..6])));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Garbage, with and without a right beginning, never panics and never opens.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..1200), class in 0u8..6, text in ".{0,80}") {
        let world = World::found(37);
        let workspace = world.workspace();
        let mut framed = bytes.clone();
        framed.resize(crate::padding::padded_len(framed.len()), 0);
        framed[..3].copy_from_slice(&[0, 1, class]);
        for bytes in [&bytes, &framed] {
            prop_assert!(open_head(&workspace, &keyring(&world), bytes).is_err());
            prop_assert!(SignedOp::parse(&workspace, bytes).is_err());
            prop_assert!(Genesis::parse(bytes).is_err());
            prop_assert!(KeyPacket::parse(bytes).is_err());
            prop_assert!(crate::knock::Admission::parse(bytes).is_err());
            prop_assert!(crate::identity::DeviceCert::parse(bytes).is_err());
            prop_assert!(LocalIdentity::from_bytes(bytes).is_err());
            prop_assert!(Epoch::from_bytes(&workspace, bytes).is_err());
            prop_assert!(open_direct(&workspace, world.founder.device.kem_secret(), bytes).is_err());
            prop_assert!(open_lobby(&workspace, &world.epoch.lobby(), bytes).is_none());
            let id = crate::piece::piece_id(bytes);
            let piece = crate::content::PieceRef { id, len: 10, key: [0; 32] };
            prop_assert!(crate::piece::open_piece(&piece, bytes).is_err());
            let _ = crate::payload::unpack(bytes, 1 << 20);
            for kind in 0..16 {
                let _ = crate::op::OpBody::from_bytes(kind, bytes);
            }
        }
        prop_assert!(InviteLink::parse(&text).is_err());
        let _ = InviteLink::parse(&format!("weft:{text}"));
    }

    /// Bodies of any size come back, and the envelope's length is a padded one.
    #[test]
    fn bodies_round_trip(body in prop::collection::vec(any::<u8>(), 0..5000), repeat in 1usize..20) {
        let world = World::found(38);
        let body = body.repeat(repeat);
        let envelope = sealed(&world, &body);
        prop_assert!(crate::padding::is_padded_len(envelope.bytes().len()));
        prop_assert_eq!(opens(&world, &keyring(&world), envelope.bytes()).unwrap(), body);
    }
}
