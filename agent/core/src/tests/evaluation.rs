//! Membership is a function of the set: of nothing else.

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::world::{World, at, author};
use crate::id::OpId;
use crate::identity::LocalIdentity;
use crate::membership::{InsertError, Inserted, OpSet, Role, evaluate, evaluate_at};
use crate::op::ops;
use crate::op::{Cut, OpBody, OpSigner, SignedOp};

/// A workspace whose members act concurrently: random ops at random heads, many of them not lawful.
fn history(seed: u8, steps: usize) -> (World, Vec<SignedOp>) {
    let mut world = World::found(seed);
    let founder = world.founder.clone();
    let (admin, _) = world.join(&founder, Role::Admin, "Bob");
    let (second, _) = world.join(&founder, Role::Admin, "Cid");
    let (writer, _) = world.join(&admin, Role::Writer, "Dee");
    let people = [founder, admin, second, writer];
    let mut places: Vec<OpId> = world.set.heads();
    for _ in 0..steps {
        let pick = |rng: &mut ChaCha20Rng, len: usize| (rng.next_u32() as usize) % len;
        let who = &people[pick(&mut world.rng, 4)];
        let whom = &people[pick(&mut world.rng, 4)];
        let place = places[pick(&mut world.rng, places.len())];
        let parents = if world.rng.next_u32().is_multiple_of(4) { world.set.heads() } else { vec![place] };
        let by = at(&world.set, who, parents.clone());
        let state = evaluate_at(&world.set, &parents).unwrap();
        let parent = world.epoch.clone();
        let op = match world.rng.next_u32() % 7 {
            0 => ops::remove(&by, &state, whom.root_public.sign, Cut::default(), &[&parent], &mut world.rng).unwrap().0,
            1 => {
                let devices = vec![whom.device.id()];
                ops::revoke(&by, &state, devices, Cut::default(), &[&parent], &mut world.rng).unwrap().0
            }
            2 => {
                let role = [Role::Reader, Role::Writer, Role::Admin, Role::Owner][pick(&mut world.rng, 4)];
                let root = whom.root_public.sign;
                ops::role(&by, &state, root, role, Cut::default(), &[&parent], &mut world.rng).unwrap().0
            }
            3 => ops::leave(&by),
            4 => ops::epoch(&by, &state, &[&parent], &mut world.rng).unwrap().0,
            5 => {
                let secret = crate::invite::InviteSecret::generate(&mut world.rng);
                ops::invite(&by, &secret, Role::Writer, 9, 1, false)
            }
            _ => match state.invites.keys().next() {
                Some(invite) => ops::uninvite(&by, *invite),
                None => continue,
            },
        };
        if !world.set.contains(&op.id()) {
            places.push(world.add(op));
        }
    }
    let ops = world.set.ops().cloned().collect();
    (world, ops)
}

fn shuffled(ops: &[SignedOp], seed: u64) -> Vec<SignedOp> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = ChaCha20Rng::from_seed(bytes);
    let mut ops = ops.to_vec();
    for at in (1..ops.len()).rev() {
        ops.swap(at, (rng.next_u64() as usize) % (at + 1));
    }
    ops
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever order ops arrive in, the members are the same; and so is the state at any heads.
    #[test]
    fn the_order_of_arrival_does_not_matter(seed in 0u8..200, order: u64) {
        let (world, ops) = history(seed, 24);
        let mut other = OpSet::new(world.set.genesis().clone());
        for op in shuffled(&ops, order) {
            prop_assert!(other.insert(op).is_ok());
        }
        prop_assert_eq!(other.parked(), 0);
        prop_assert_eq!(evaluate(&other), evaluate(&world.set));
        for op in &ops {
            prop_assert_eq!(evaluate_at(&other, &[op.id()]), evaluate_at(&world.set, &[op.id()]));
            prop_assert_eq!(other.is_authorised(&op.id()), world.set.is_authorised(&op.id()));
        }
    }

    /// A set that was delivered in part answers for that part as one that never had the rest; an owner is always left.
    #[test]
    fn partial_delivery_answers_for_its_part(seed in 0u8..200, keep in 0usize..24, order: u64) {
        let (world, ops) = history(seed, 24);
        let kept = ops[..ops.len() - keep.min(ops.len())].to_vec();
        let mut part = OpSet::new(world.set.genesis().clone());
        for op in shuffled(&kept, order) {
            prop_assert!(part.insert(op).is_ok());
        }
        let heads = part.heads();
        prop_assert_eq!(Some(evaluate(&part)), evaluate_at(&world.set, &heads));
        for id in kept.iter().map(SignedOp::id) {
            let state = evaluate_at(&part, &[id]).unwrap();
            prop_assert!(state.members.values().any(|member| member.role == Role::Owner));
            // Whoever is active belongs, and no epoch that counts reaches anybody else where it stands.
            prop_assert!(state.active_devices().all(|(_, device)| state.members.contains_key(&device.root)));
        }
    }
}

/// A removed admin who backdates: what it does concurrently with its removal does not count, what it did before does.
#[test]
fn removal_from_above_beats_what_is_concurrent() {
    let mut world = World::found(210);
    let founder = world.founder.clone();
    let (admin, _) = world.join(&founder, Role::Admin, "Bob");
    let (victim, _) = world.join(&admin, Role::Writer, "Vic");
    let before = world.set.heads();
    let state = world.state();
    let parent = world.epoch.clone();
    let by = at(&world.set, &founder, before.clone());
    let removal =
        ops::remove(&by, &state, admin.root_public.sign, Cut::default(), &[&parent], &mut world.rng).unwrap().0;
    world.add(removal);
    let by = at(&world.set, &admin, before);
    let revenge =
        ops::remove(&by, &state, victim.root_public.sign, Cut::default(), &[&parent], &mut world.rng).unwrap().0;
    let id = world.add(revenge);
    assert!(world.set.is_authorised(&id));
    let state = world.state();
    assert!(state.members.contains_key(&victim.root_public.sign));
    assert!(!state.members.contains_key(&admin.root_public.sign));
}

/// Admins cannot remove admins, writers cannot invite, nobody gives what it does not have, and outsiders are nobody.
#[test]
fn rank_is_strict() {
    let mut world = World::found(211);
    let founder = world.founder.clone();
    let (one, _) = world.join(&founder, Role::Admin, "One");
    let (two, _) = world.join(&founder, Role::Admin, "Two");
    let (writer, _) = world.join(&founder, Role::Writer, "Wim");
    let state = world.state();
    let parent = world.epoch.clone();
    let refused = |world: &mut World, op: SignedOp| {
        let id = world.add(op);
        !world.set.is_authorised(&id)
    };
    for target in [&two, &founder] {
        let by = author(&world.set, &one);
        let root = target.root_public.sign;
        let op = ops::remove(&by, &state, root, Cut::default(), &[&parent], &mut world.rng).unwrap().0;
        assert!(refused(&mut world, op));
    }
    for (who, role) in [(&writer, Role::Reader), (&one, Role::Admin), (&one, Role::Owner), (&founder, Role::Owner)] {
        let secret = crate::invite::InviteSecret::generate(&mut world.rng);
        let op = ops::invite(&author(&world.set, who), &secret, role, 9, 1, false);
        assert!(refused(&mut world, op));
    }
    for (who, whom, role) in [(&writer, &writer, Role::Owner), (&one, &writer, Role::Admin), (&two, &one, Role::Reader)]
    {
        let root = whom.root_public.sign;
        let by = author(&world.set, who);
        let op = ops::role(&by, &state, root, role, Cut::default(), &[&parent], &mut world.rng).unwrap().0;
        assert!(refused(&mut world, op));
    }
    // A new epoch must reach exactly the active devices.
    let by = author(&world.set, &founder);
    let (op, _) = ops::epoch(&by, &state, &[&parent], &mut world.rng).unwrap();
    let OpBody::Epoch(mut grant) = op.body().clone() else { panic!("an epoch op") };
    grant.recipients.pop();
    assert!(refused(&mut world, by.sign(OpBody::Epoch(grant))));
    let stranger = LocalIdentity::generate(&mut world.rng, "Zed", "phone");
    assert_eq!(world.set.insert(ops::leave(&author(&world.set, &stranger))), Err(InsertError::UnknownSigner));
    assert_eq!(*world.state().members.get(&writer.root_public.sign).map(|member| &member.role).unwrap(), Role::Writer);
}

/// Whoever was removed comes back by a welcome that knows of the removal, and by no other.
#[test]
fn a_readmission_has_the_removal_as_ancestor() {
    let mut world = World::found(212);
    let founder = world.founder.clone();
    let (bob, _) = world.join(&founder, Role::Writer, "Bob");
    let (link, _) = world.invite(&founder, Role::Reader);
    let reply = crate::knock::ReplyKey::generate(&mut world.rng);
    let admission = world.knock(&link, &bob, &reply).admission;
    let (before, state, parent) = (world.set.heads(), world.state(), world.epoch.clone());
    let by = author(&world.set, &founder);
    let op = ops::remove(&by, &state, bob.root_public.sign, Cut::default(), &[&parent], &mut world.rng).unwrap().0;
    world.add(op);
    let concurrent = at(&world.set, &founder, before);
    let invite = link.invite();
    let op = ops::welcome(&concurrent, invite, admission.clone(), Role::Reader, &parent, &mut world.rng).unwrap();
    world.add(op);
    assert!(!world.state().members.contains_key(&bob.root_public.sign));
    // Nor by the old invite: it is one the removed one came in by.
    let by = author(&world.set, &founder);
    let op = ops::welcome(&by, invite, admission, Role::Reader, &parent, &mut world.rng).unwrap();
    let id = world.add(op);
    assert!(!world.set.is_authorised(&id));
    let (link, _) = world.invite(&founder, Role::Reader);
    let admission = world.knock(&link, &bob, &reply).admission;
    let by = author(&world.set, &founder);
    let op = ops::welcome(&by, link.invite(), admission, Role::Reader, &parent, &mut world.rng).unwrap();
    world.add(op);
    assert_eq!(world.state().role_of(&bob.device.id()), Some(Role::Reader));
}

/// A second device counts by the root's certificate, or by an active device's; revoking takes it out.
#[test]
fn devices_come_and_go() {
    let mut world = World::found(213);
    let founder = world.founder.clone();
    let phone = crate::identity::DeviceKeys::generate(&mut world.rng);
    let cert = crate::identity::DeviceCert::by_device(&founder.device, founder.root_public, phone.public());
    let op = ops::device(&author(&world.set, &founder), cert, "phone");
    world.add(op);
    assert_eq!(world.state().role_of(&phone.id()), Some(Role::Owner));
    let (bob, _) = world.join(&founder, Role::Writer, "Bob");
    let foreign = crate::identity::DeviceCert::by_device(&bob.device, founder.root_public, bob.device.public());
    assert!(crate::identity::DeviceCert::parse(foreign.bytes()).is_err());
    let (state, parent) = (world.state(), world.epoch.clone());
    let by = author(&world.set, &founder);
    let op = ops::revoke(&by, &state, vec![phone.id()], Cut::default(), &[&parent], &mut world.rng).unwrap().0;
    world.add(op);
    assert_eq!(world.state().role_of(&phone.id()), None);
    // The words outrank every device.
    let root = founder.root.as_ref().unwrap();
    let mut by = author(&world.set, &founder);
    by.signer = OpSigner::Root(root);
    let op = ops::policy(&by, crate::op::Policy { approval: true, ..<_>::default() });
    world.add(op);
    assert!(world.state().policy.approval);
}

/// Parked ops are bounded and forged ones never get in.
#[test]
fn what_waits_is_bounded() {
    let mut world = World::found(214);
    let founder = world.founder.clone();
    for n in 0..=crate::membership::PARKED_OPS_MAX {
        let mut parent = [0; 32];
        parent[..8].copy_from_slice(&n.to_be_bytes());
        let op = ops::leave(&at(&world.set, &founder, vec![OpId(parent)]));
        let outcome = world.set.insert(op);
        let full = n == crate::membership::PARKED_OPS_MAX;
        assert_eq!(outcome, if full { Err(InsertError::Full) } else { Ok(Inserted::Parked) });
    }
    assert_eq!(world.set.missing().count(), crate::membership::PARKED_OPS_MAX);
    let mut bytes = ops::leave(&author(&world.set, &founder)).bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = SignedOp::parse(&world.workspace(), &bytes).unwrap();
    assert_eq!(world.set.insert(forged), Err(InsertError::BadSignature));
}

/// Whoever hands a workspace over, and then brings out a removal of its successor from before, takes no owner away and does
/// not come back: of removals that together leave nobody, those are set aside without which there is an owner.
#[test]
fn who_handed_over_cannot_take_the_owner_away() {
    let mut world = World::found(213);
    let founder = world.founder.clone();
    let (heir, _) = world.join(&founder, Role::Admin, "Bob");
    let before = world.set.heads();
    let (mut rng, epoch) = (ChaCha20Rng::from_seed([5; 32]), world.epoch.clone());
    let mut role = |world: &mut World, whom: &LocalIdentity, role| {
        let (state, by) = (world.state(), author(&world.set, &founder));
        let op = ops::role(&by, &state, whom.root_public.sign, role, Cut::default(), &[&epoch], &mut rng).unwrap().0;
        world.add(op)
    };
    role(&mut world, &heir, Role::Owner);
    role(&mut world, &founder, Role::Reader);
    let remove = |world: &mut World, by: &LocalIdentity, whom: &LocalIdentity, at_heads: Vec<OpId>| {
        let state = evaluate_at(&world.set, &at_heads).unwrap();
        let (by, root) = (at(&world.set, by, at_heads), whom.root_public.sign);
        let mut rng = world.rng.clone();
        let op = ops::remove(&by, &state, root, Cut::default(), &[&world.epoch], &mut rng).unwrap().0;
        world.rng = rng;
        world.add(op)
    };
    let heads = world.set.heads();
    remove(&mut world, &heir, &founder, heads);
    assert!(!world.state().members.contains_key(&founder.root_public.sign));
    let backdated = remove(&mut world, &founder, &heir, before.clone());
    assert!(world.set.is_authorised(&backdated));
    let state = world.state();
    assert_eq!(state.members[&heir.root_public.sign].role, Role::Owner);
    assert!(!state.members.contains_key(&founder.root_public.sign));
}
