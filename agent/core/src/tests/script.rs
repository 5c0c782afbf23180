//! People who do things to each other's membership, at heads of their choice: what model checks play through.

use std::sync::Mutex;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::world::{HOUR, World};
use crate::hash;
use crate::id::{ChainId, DeviceId, Link, OpId};
use crate::identity::{DeviceCert, DeviceKeys, LocalIdentity};
use crate::knock::{Admission, ReplyKey};
use crate::membership::{Defence, Role, evaluate_at};
use crate::op::ops::{self, Author};
use crate::op::{ChainPoint, Cut, OpSigner, Policy, SignedOp};
use crate::secret::Secret;

/// What a step does; a step that cannot be made where it stands does nothing.
pub(super) const KINDS: u8 = 16;

/// One thing somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Who: the number of a person.
    pub(super) who: u8,
    /// With which key: device, root, recovery.
    pub(super) key: u8,
    /// What.
    pub(super) kind: u8,
    /// To whom.
    pub(super) whom: u8,
    /// To which role.
    pub(super) role: u8,
    /// Where: bits of the places that stand there already.
    pub(super) places: u32,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    (0u8..4, 0u8..12, 0u8..KINDS, 0u8..5, 0u8..5, any::<u32>()).prop_map(|(who, key, kind, whom, role, places)| Step {
        who,
        key,
        kind,
        whom,
        role,
        places,
    })
}

/// The attack fails, and succeeds as soon as its defence is taken out.
pub(super) fn stopped_by(defence: Defence, attack: impl Fn(&mut Cast) -> bool) {
    let mut cast = Cast::ranks();
    assert!(!attack(&mut cast), "the attack works");
    let mut cast = Cast::ranks();
    cast.world.set.lacks = Some(defence);
    assert!(attack(&mut cast), "it is not {defence:?} that stops the attack");
}

/// A workspace with people of given roles, and a guest who has a link.
#[derive(Clone)]
pub(super) struct Cast {
    pub(super) world: World,
    pub(super) people: Vec<LocalIdentity>,
    pub(super) guest: LocalIdentity,
    pub(super) admission: Admission,
    pub(super) invite: OpId,
    pub(super) recovery: SigningKey,
    /// Where steps may stand: the base, and each op since.
    pub(super) places: Vec<OpId>,
}

const ROLES: [Role; 5] = [Role::Keeper, Role::Reader, Role::Writer, Role::Admin, Role::Owner];

impl Cast {
    pub(super) fn new(seed: u8, roles: &[Role]) -> Self {
        let recovery = SigningKey::from_bytes(&[0x77; 32]);
        let mut world = World::found_with(seed, Some(recovery.verifying_key().to_bytes()));
        let founder = world.founder.clone();
        let mut people = vec![founder.clone()];
        for (number, role) in roles.iter().enumerate() {
            let by = if number == 0 { &founder } else { &people[number - 1] };
            let by =
                if world.state().role_of(&by.device.id()) >= Some(Role::Admin) { by.clone() } else { founder.clone() };
            let below = ROLES[(*role as usize).min(world.state().role_of(&by.device.id()).unwrap() as usize - 1)];
            let (who, _) = world.join(&by, below, &format!("Person {number}"));
            people.push(who);
        }
        // Owners are named by the recovery key here: naming one takes several once there are several.
        for (who, role) in people.iter().skip(1).zip(roles) {
            let state = world.state();
            let root = who.root_public.sign;
            if state.members[&root].role < *role {
                let (workspace, parents) = (world.workspace(), world.set.heads());
                let by = Author { workspace, parents, signer: OpSigner::Recovery(&recovery), wall_ms: 1 };
                let (op, _) = ops::role(&by, &state, root, *role, Cut::default(), &[], &mut world.rng).unwrap();
                world.add(op);
            }
        }
        let (link, invite) = world.invite(&founder, Role::Writer);
        let guest = LocalIdentity::generate(&mut world.rng, "Guest", "phone");
        let reply = ReplyKey::generate(&mut world.rng);
        let admission = world.knock(&link, &guest, &reply).admission;
        let places = world.set.heads();
        assert_eq!(places.len(), 1);
        Self { world, people, guest, admission, invite, recovery, places }
    }

    /// Four people of all ranks, made once.
    pub(super) fn usual() -> Self {
        static USUAL: Mutex<Option<Cast>> = Mutex::new(None);
        let mut usual = USUAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        usual.get_or_insert_with(|| Self::new(201, &[Role::Owner, Role::Owner, Role::Admin])).clone()
    }

    /// Owners 0 to 2, admins 3 and 4, writers 5 and 6, made once.
    pub(super) fn ranks() -> Self {
        static RANKS: Mutex<Option<Cast>> = Mutex::new(None);
        let mut ranks = RANKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let roles = [Role::Owner, Role::Owner, Role::Admin, Role::Admin, Role::Writer, Role::Writer];
        ranks.get_or_insert_with(|| Self::new(202, &roles)).clone()
    }

    /// The base that everything is done on.
    pub(super) fn base(&self) -> Vec<OpId> {
        vec![self.places[0]]
    }

    pub(super) fn root(&self, number: u8) -> crate::id::RootKey {
        self.whom(number).root_public.sign
    }

    /// Somebody's role now.
    pub(super) fn role(&self, number: u8) -> Option<Role> {
        self.world.state().members.get(&self.root(number)).map(|member| member.role)
    }

    pub(super) fn by(&self, number: u8, parents: Vec<OpId>) -> Author<'_> {
        let signer = OpSigner::Device(&self.people[number as usize].device);
        Author { workspace: self.world.workspace(), parents, signer, wall_ms: 1 }
    }

    /// Takes in what somebody did.
    pub(super) fn add(&mut self, op: SignedOp) -> OpId {
        let id = self.world.add(op);
        self.places.push(id);
        id
    }

    /// Somebody removes somebody at these heads.
    pub(super) fn remove(&mut self, who: u8, whom: u8, parents: Vec<OpId>) -> OpId {
        let op = self.removal(who, whom, parents, Cut::default());
        self.add(op)
    }
    pub(super) fn removal(&self, who: u8, whom: u8, parents: Vec<OpId>, cut: Cut) -> SignedOp {
        let state = evaluate_at(&self.world.set, &parents).unwrap();
        let mut rng = ChaCha20Rng::from_seed([who ^ (whom << 4); 32]);
        let old = [&self.world.epoch];
        ops::remove(&self.by(who, parents), &state, self.root(whom), cut, &old, &mut rng).unwrap().0
    }
    /// Somebody gives somebody a role at these heads.
    pub(super) fn promote(&mut self, who: u8, whom: u8, role: Role, parents: Vec<OpId>) -> OpId {
        let state = evaluate_at(&self.world.set, &parents).unwrap();
        let mut rng = ChaCha20Rng::from_seed([who ^ (whom << 4) ^ 0x80; 32]);
        let (root, old) = (self.root(whom), [&self.world.epoch]);
        let op = ops::role(&self.by(who, parents), &state, root, role, Cut::default(), &old, &mut rng).unwrap().0;
        self.add(op)
    }

    fn whom(&self, number: u8) -> &LocalIdentity {
        self.people.get(number as usize).unwrap_or(&self.guest)
    }

    /// The op of a step at these parents; the same step there is the same op.
    pub(super) fn op(&self, step: Step, parents: Vec<OpId>) -> Option<SignedOp> {
        let said = format!("{step:?}");
        let parts: Vec<&[u8]> = parents.iter().map(|id| id.0.as_slice()).chain([said.as_bytes()]).collect();
        let mut rng = ChaCha20Rng::from_seed(hash::h("step", &parts));
        let state = evaluate_at(&self.world.set, &parents)?;
        let who = self.people.get(step.who as usize % self.people.len())?;
        let whom = self.whom(step.whom);
        let root = whom.root_public.sign;
        let signer = match step.key {
            0 => OpSigner::Recovery(&self.recovery),
            1 | 2 => OpSigner::Root(who.root.as_ref()?),
            _ => OpSigner::Device(&who.device),
        };
        let by = Author { workspace: self.world.workspace(), parents, signer, wall_ms: 1 };
        let old = [&self.world.epoch];
        let chain = ChainId { device: whom.device.id(), incarnation: 1 };
        let cut = Cut::new(vec![ChainPoint { chain, seq: 1 + u64::from(step.role), link: Link([step.role; 32]) }]);
        let newest = || self.places.get(step.whom as usize % self.places.len().max(1)).copied();
        Some(match step.kind {
            0 | 1 => ops::remove(&by, &state, root, cut, &old, &mut rng)?.0,
            2 => ops::revoke(&by, &state, vec![whom.device.id()], cut, &old, &mut rng)?.0,
            3 | 4 => ops::role(&by, &state, root, ROLES[step.role as usize % 5], cut, &old, &mut rng)?.0,
            5 => ops::leave(&by),
            6 => ops::epoch(&by, &state, &old, &mut rng)?.0,
            7 => {
                let secret = crate::invite::InviteSecret::generate(&mut rng);
                let whom = step.whom.is_multiple_of(2).then_some(root);
                ops::invite_for(&by, &secret, ROLES[step.role as usize % 5], HOUR, 1, false, whom)
            }
            8 => ops::uninvite(&by, self.invite),
            9 => {
                let admission = self.admission.clone();
                ops::welcome(&by, self.invite, admission, Role::Writer, &self.world.epoch, &mut rng)?
            }
            10..=12 => ops::endorse(&by, newest()?),
            13 => {
                // A further device of the author's; the number tells which.
                let device = further_device(who, step.role);
                let cert = match who.root.as_ref().filter(|_| step.key < 3) {
                    Some(root) => DeviceCert::by_root(root, device.public()),
                    None => DeviceCert::by_device(&who.device, who.root_public, device.public()),
                };
                ops::device(&by, cert, "further")
            }
            14 => ops::extend_cut(&by, newest()?, cut),
            _ => {
                if step.role.is_multiple_of(2) {
                    ops::attest(&by, &format!("did:web:{}.example", step.whom), vec![step.role; 8])
                } else {
                    let relays = vec![format!("wss://relay{}.example", step.whom)];
                    ops::policy(&by, Policy { approval: false, max_offline_days: 60 + u16::from(step.role), relays })
                }
            }
        })
    }

    /// The places that a step stands at.
    pub(super) fn parents(&self, places: u32) -> Vec<OpId> {
        // Mostly where everything is known; else one to three places of any age.
        if places.is_multiple_of(3) {
            return self.world.set.heads();
        }
        let mut parents: Vec<OpId> = (0..1 + places / 3 % 3)
            .map(|nth| self.places[((places >> (4 + 8 * nth)) as usize) % self.places.len()])
            .collect();
        parents.sort();
        parents.dedup();
        parents
    }

    pub(super) fn device(&self, number: u8) -> DeviceId {
        self.whom(number).device.id()
    }

    pub(super) fn play(&mut self, steps: &[Step]) -> Vec<SignedOp> {
        let mut made = Vec::new();
        for step in steps {
            let parents = self.parents(step.places);
            let Some(op) = self.op(*step, parents) else { continue };
            let id = op.id();
            if self.world.set.contains(&id) || self.world.set.insert(op.clone()).is_err() {
                continue;
            }
            self.places.push(id);
            made.push(op);
        }
        made
    }
}

/// One of a person's further devices.
pub(super) fn further_device(who: &LocalIdentity, number: u8) -> DeviceKeys {
    DeviceKeys::from_seed(&Secret::new(hash::h("further", &[&who.root_public.sign.0, &[number]])))
}
