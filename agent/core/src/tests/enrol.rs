//! Further devices of members: what is asked at doors, what is answered, and what is refused.

use proptest::prelude::*;

use super::world::{World, author};
use crate::enrol::{
    DoorKeys, EnrolError, EnrolOpener, Pass, Refusal, Way, make_enrol_answer, make_refusal, open_refusal, open_request,
    pairing_words, seal_request,
};
use crate::epoch::Epoch;
use crate::id::OpId;
use crate::identity::{DeviceCert, DeviceKeys, LocalIdentity};
use crate::key_packet::wrap_slot;
use crate::knock::ReplyKey;
use crate::membership::Role;
use crate::op::{OpBody, OpSigner, SignedOp, WrappedSlot, ops};
use crate::secret::Secret;

struct Scene {
    world: World,
    pass: Pass,
    door: DoorKeys,
    phone: DeviceKeys,
    reply: ReplyKey,
}

fn scene(way: Way) -> Scene {
    let mut world = World::found(60);
    let founder = world.founder.clone();
    world.join(&founder, Role::Writer, "Bob");
    let pass = Pass {
        way,
        workspace: world.workspace(),
        secret: world.epoch.door(),
        op_heads: world.set.heads(),
        root: founder.root_public.sign,
        urls: Vec::new(),
        name: "notes".into(),
    };
    let phone = DeviceKeys::from_seed(&Secret::new([6; 32]));
    let reply = ReplyKey::generate(&mut world.rng);
    Scene { door: pass.door(), world, pass, phone, reply }
}

impl Scene {
    /// The op by which `who`'s words introduce a device.
    fn op(&self, who: &LocalIdentity, device: &DeviceKeys) -> SignedOp {
        let root = who.root.as_ref().unwrap();
        let cert = DeviceCert::by_root(root, device.public());
        let body = OpBody::Device { cert, label: "phone".into() };
        SignedOp::make(&self.pass.workspace, &self.pass.op_heads, OpSigner::Root(root), 1, body)
    }
    fn ask(&mut self, device: &DeviceKeys, op: Option<&SignedOp>) -> Vec<u8> {
        let op = op.map(|op| op.bytes().clone());
        let (id, rng) = (self.pass.workspace, &mut self.world.rng);
        let sealed = seal_request(&id, &self.door, device, "phone", op.as_ref(), &self.reply, rng);
        sealed.unwrap().bytes().to_vec()
    }
    fn slot(&mut self, epoch: &Epoch, device: &DeviceKeys) -> WrappedSlot {
        let slot = wrap_slot(epoch, &device.public().kem, Role::Owner, &mut self.world.rng).unwrap();
        WrappedSlot { epoch: epoch.id(), slot }
    }
    fn answer(&mut self, slot: WrappedSlot) -> Vec<Vec<u8>> {
        let (set, rng) = (&self.world.set, &mut self.world.rng);
        let parts = make_enrol_answer(set, &self.door, slot, &self.reply.public(), rng).unwrap();
        parts.into_iter().map(|part| part.bytes().to_vec()).collect()
    }
    fn opened(&self, pass: Pass, parts: &[Vec<u8>]) -> Result<bool, EnrolError> {
        let mut opener = EnrolOpener::new(pass, self.reply.clone(), self.phone.clone());
        parts.iter().rev().map(|part| opener.push(part)).last().unwrap().map(|answer| answer.is_some())
    }
}

/// A request opens at its door, whole; with an op that introduces another device, that no root signed, or that a device
/// signed, and without the device's own key, it does not.
#[test]
fn who_asks_is_who_it_says() {
    let mut scene = scene(Way::Words);
    let founder = scene.world.founder.clone();
    let (phone, other) = (scene.phone.clone(), DeviceKeys::from_seed(&Secret::new([7; 32])));
    let op = scene.op(&founder, &phone);
    let workspace = scene.pass.workspace;
    for op in [Some(&op), None] {
        let asked = scene.ask(&phone, op);
        let request = open_request(&workspace, &scene.door, &asked).unwrap();
        assert_eq!((request.device, request.label.as_str(), request.op.as_ref()), (phone.public(), "phone", op));
        assert_eq!(request.reply_key, scene.reply.public());
        let elsewhere = DoorKeys::new(&workspace, &Secret::new([1; 32]));
        assert!(open_request(&workspace, &elsewhere, &asked).is_none());
        for at in (0..asked.len()).step_by(3) {
            let mut changed = asked.clone();
            changed[at] ^= 1;
            assert!(open_request(&workspace, &scene.door, &changed).is_none(), "{at}");
        }
    }
    let by_device = author(&scene.world.set, &founder);
    let cert = DeviceCert::by_root(founder.root.as_ref().unwrap(), phone.public());
    let by_device = by_device.sign(OpBody::Device { cert, label: "phone".into() });
    let mut forged = op.bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = SignedOp::parse(&workspace, &forged).unwrap();
    let leave = SignedOp::make(
        &workspace,
        &scene.pass.op_heads,
        OpSigner::Root(founder.root.as_ref().unwrap()),
        1,
        OpBody::Leave,
    );
    for wrong in [scene.op(&founder, &other), by_device, forged, leave] {
        let asked = scene.ask(&phone, Some(&wrong));
        assert!(open_request(&workspace, &scene.door, &asked).is_none(), "{wrong:?}");
    }
}

/// Words that people compare differ for another device and at another door.
#[test]
fn pairing_words_say_which_device_at_which_door() {
    let scene = scene(Way::Device);
    let words = pairing_words(&scene.door, &scene.phone.public());
    assert_eq!(words.split(' ').count(), 4);
    assert_ne!(words, pairing_words(&scene.door, &DeviceKeys::from_seed(&Secret::new([7; 32])).public()));
    let other = DoorKeys::new(&scene.pass.workspace, &Secret::new([1; 32]));
    assert_ne!(words, pairing_words(&other, &scene.phone.public()));
}

/// A device begins from an answer only if it is active in it as a device of the pass' member, in the pass' workspace, in a
/// history that holds what the pass names, and with a key that is what its epoch's op commits to.
#[test]
fn an_answer_is_what_the_pass_promised() {
    let mut scene = scene(Way::Words);
    let (founder, phone, epoch) = (scene.world.founder.clone(), scene.phone.clone(), scene.world.epoch.clone());
    let slot = scene.slot(&epoch, &phone);
    let early = scene.answer(slot.clone());
    let pass = scene.pass.clone();
    assert_eq!(scene.opened(pass.clone(), &early), Err(EnrolError::NotWelcome));
    let op = scene.op(&founder, &phone);
    scene.world.add(op);
    let parts = scene.answer(slot.clone());
    assert_eq!(scene.opened(pass.clone(), &parts), Ok(true));

    let mut other = pass.clone();
    other.op_heads.push(OpId([9; 32]));
    assert_eq!(scene.opened(other, &parts), Err(EnrolError::OtherHistory));
    let mut other = pass.clone();
    other.root.0[0] ^= 1;
    assert_eq!(scene.opened(other, &parts), Err(EnrolError::NotWelcome));
    let mut other = pass.clone();
    other.secret = Secret::new([1; 32]);
    assert_eq!(scene.opened(other, &parts), Err(EnrolError::NotForUs));
    let strange = Epoch::generate(&pass.workspace, &mut scene.world.rng);
    let unknown = scene.slot(&strange, &phone);
    let anothers = scene.slot(&epoch, &DeviceKeys::from_seed(&Secret::new([7; 32])));
    let mixed = WrappedSlot { epoch: epoch.id(), slot: unknown.slot };
    for slot in [unknown, anothers, mixed] {
        let parts = scene.answer(slot);
        assert_eq!(scene.opened(pass.clone(), &parts), Err(EnrolError::NoEpoch));
    }
    // Revoked since: the same answer with one more op lets nobody in.
    let state = scene.world.state();
    let by = author(&scene.world.set, &founder);
    let cut = crate::op::Cut::default();
    let (op, _) = ops::revoke(&by, &state, vec![phone.id()], cut, &[&epoch], &mut scene.world.rng).unwrap();
    scene.world.add(op);
    let parts = scene.answer(slot);
    assert_eq!(scene.opened(pass, &parts), Err(EnrolError::NotWelcome));
}

/// A refusal opens for the device it is for only, and says why.
#[test]
fn a_refusal_says_why() {
    let mut scene = scene(Way::Words);
    let workspace = scene.pass.workspace;
    for refusal in [Refusal::NotAMember, Refusal::TooOld, Refusal::Declined] {
        let sealed =
            make_refusal(&workspace, &scene.door, &scene.reply.public(), refusal, &mut scene.world.rng).unwrap();
        assert_eq!(open_refusal(&workspace, &scene.door, &scene.reply, sealed.bytes()), Some(refusal));
        let other = ReplyKey::generate(&mut scene.world.rng);
        assert_eq!(open_refusal(&workspace, &scene.door, &other, sealed.bytes()), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Nothing that arrives at a door, or is pasted as a pass, panics or is taken for what it is not.
    #[test]
    fn nothing_strange_opens(bytes in prop::collection::vec(any::<u8>(), 0..1024), text in "\\PC{0,200}") {
        let scene = scene(Way::Device);
        let mut direct = bytes.clone();
        if let Some(start) = direct.get_mut(..3) {
            start.copy_from_slice(&[0, 1, 2]);
        }
        for bytes in [&bytes, &direct] {
            prop_assert!(open_request(&scene.pass.workspace, &scene.door, bytes).is_none());
            let mut opener = EnrolOpener::new(scene.pass.clone(), scene.reply.clone(), scene.phone.clone());
            prop_assert_eq!(opener.push(bytes).err(), Some(EnrolError::NotForUs));
        }
        prop_assert!(Pass::parse(&text).is_err());
        prop_assert!(Pass::parse(&["weft-pass:AQ", &text].concat()).is_err());
    }
}
