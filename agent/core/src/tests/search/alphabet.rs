//! What people may do to each other's membership in a search: letters, and the ops they stand for.
//!
//! Left out, because they move nobody's power: epochs, moved cuts, forks, attestations (acceptance has its own tests), and
//! endorsements of what needs nobody's vote. Recipients of an epoch are always the right ones: others are refused where they
//! stand.

use crate::epoch::{BackLink, Commitments};
use crate::hash;
use crate::id::{ChainId, DeviceId, Link, OpId};
use crate::identity::{DeviceCert, DeviceKeys, LocalIdentity};
use crate::knock::Admission;
use crate::membership::{Membership, Role, evaluate_at};
use crate::op::{ChainPoint, Cut, EpochGrant, OpBody, Policy, SignedOp, Signer};
use crate::secret::Secret;

use super::super::script::Cast;
use super::super::world::HOUR;

/// The number of the person with the link.
pub(in super::super) const GUEST: u8 = 3;

/// With which key somebody does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Key {
    /// The device a person came with.
    First(u8),
    /// The one that device certified.
    Second(u8),
    /// The words.
    Words(u8),
    Recovery,
}

impl Key {
    /// Whose it is.
    pub(in super::super) fn person(self) -> Option<u8> {
        match self {
            Self::First(who) | Self::Second(who) | Self::Words(who) => Some(who),
            Self::Recovery => None,
        }
    }
}

/// What is done. Places are positions in the history; `None` is what the base holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Act {
    Remove(u8),
    Role(u8, Role),
    Leave,
    RevokeFirst(u8),
    RevokeSecond(u8),
    /// One's second device, certified by the first.
    AddSecond,
    /// One's first device, by the words.
    AddFirst,
    Invite(Role),
    Uninvite(Option<u8>),
    Welcome(u8, Option<u8>),
    Endorse(u8),
    /// Newcomers need an admin.
    Approval,
}

/// Who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Letter {
    pub(in super::super) by: Key,
    pub(in super::super) act: Act,
}

impl Letter {
    /// The same with people renamed.
    pub(super) fn renamed(self, name: impl Fn(u8) -> u8) -> Self {
        let by = match self.by {
            Key::First(who) => Key::First(name(who)),
            Key::Second(who) => Key::Second(name(who)),
            Key::Words(who) => Key::Words(name(who)),
            Key::Recovery => Key::Recovery,
        };
        let act = match self.act {
            Act::Remove(whom) => Act::Remove(name(whom)),
            Act::Role(whom, role) => Act::Role(name(whom), role),
            Act::RevokeFirst(whom) => Act::RevokeFirst(name(whom)),
            Act::RevokeSecond(whom) => Act::RevokeSecond(name(whom)),
            Act::Welcome(whom, invite) => Act::Welcome(name(whom), invite),
            other @ (Act::Leave
            | Act::AddSecond
            | Act::AddFirst
            | Act::Invite(_)
            | Act::Uninvite(_)
            | Act::Endorse(_)
            | Act::Approval) => other,
        };
        Self { by, act }
    }
    /// Whose membership or devices it is about, but for newcomers.
    pub(super) fn target(self) -> Option<u8> {
        match self.act {
            Act::Remove(whom) | Act::Role(whom, _) | Act::RevokeFirst(whom) | Act::RevokeSecond(whom) => Some(whom),
            Act::Leave | Act::AddFirst => self.by.person(),
            Act::AddSecond | Act::Invite(_) | Act::Uninvite(_) | Act::Welcome(..) | Act::Endorse(_) | Act::Approval => {
                None
            }
        }
    }
}

/// Which letters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Alphabet {
    /// Removals, roles, goings, by devices. Always there.
    pub(in super::super) roles: &'static [Role],
    /// Invites, welcomes of the guest and of those who are or were here, withdrawals; what the guest does then.
    pub(in super::super) guests: bool,
    /// Revocations, second devices and what those do, the words.
    pub(in super::super) devices: bool,
    /// What the recovery key does.
    pub(in super::super) recovery: bool,
    /// The setting that newcomers need an admin.
    pub(in super::super) policy: bool,
}

impl Alphabet {
    /// Everything that moves power.
    pub(in super::super) const WHOLE: Self = Self {
        roles: &[Role::Reader, Role::Writer, Role::Admin, Role::Owner],
        guests: true,
        devices: true,
        recovery: true,
        policy: true,
    };
    /// Who is a member, at which role, by devices of people who are there.
    pub(in super::super) const PEOPLE: Self = Self {
        roles: &[Role::Reader, Role::Admin, Role::Owner],
        guests: false,
        devices: false,
        recovery: false,
        policy: false,
    };

    /// The letters that name no place.
    pub(super) fn fixed(&self) -> Vec<Letter> {
        let mut letters = Vec::new();
        let mut add = |by, act| letters.push(Letter { by, act });
        for who in 0..3 {
            let by = Key::First(who);
            for whom in (0..3).filter(|whom| *whom != who) {
                add(by, Act::Remove(whom));
                self.roles.iter().for_each(|role| add(by, Act::Role(whom, *role)));
                if self.guests {
                    add(by, Act::Welcome(whom, None));
                }
                if self.devices {
                    add(by, Act::RevokeFirst(whom));
                    add(by, Act::RevokeSecond(whom));
                    add(Key::Second(who), Act::Remove(whom));
                }
            }
            add(by, Act::Role(who, Role::Reader));
            add(by, Act::Leave);
            if self.guests {
                add(by, Act::Invite(Role::Writer));
                add(by, Act::Uninvite(None));
                add(by, Act::Welcome(GUEST, None));
                add(by, Act::Remove(GUEST));
                add(by, Act::Role(GUEST, Role::Admin));
                add(Key::First(GUEST), Act::Remove(who));
                add(Key::First(GUEST), Act::Role(who, Role::Reader));
                add(Key::First(GUEST), Act::Welcome(who, None));
            }
            if self.devices {
                add(by, Act::AddSecond);
                add(by, Act::RevokeSecond(who));
                add(Key::Second(who), Act::RevokeFirst(who));
                add(Key::Words(who), Act::RevokeFirst(who));
                add(Key::Words(who), Act::RevokeSecond(who));
                add(Key::Words(who), Act::AddFirst);
            }
            if self.policy {
                add(by, Act::Approval);
            }
            if self.recovery {
                add(Key::Recovery, Act::Remove(who));
                add(Key::Recovery, Act::RevokeFirst(who));
                add(Key::Recovery, Act::Role(who, Role::Owner));
                add(Key::Recovery, Act::Role(who, Role::Reader));
            }
        }
        letters
    }

    /// The letters about what stands at a place.
    pub(super) fn about(&self, place: u8, what: Letter, needs_votes: bool) -> Vec<Letter> {
        let mut letters = Vec::new();
        for who in 0..3 {
            let by = Key::First(who);
            if needs_votes {
                letters.push(Letter { by, act: Act::Endorse(place) });
            }
            if matches!(what.act, Act::Invite(_)) {
                letters.push(Letter { by, act: Act::Uninvite(Some(place)) });
                let anybody = (0..=GUEST).filter(|whom| *whom != who);
                letters.extend(anybody.map(|whom| Letter { by, act: Act::Welcome(whom, Some(place)) }));
            }
        }
        letters
    }
}

/// What letters are made of: the people of a cast, and their further devices.
pub(super) struct Props {
    pub(super) people: Vec<LocalIdentity>,
    seconds: Vec<DeviceCert>,
    second_keys: Vec<DeviceKeys>,
    invite: OpId,
    old: BackLink,
    recovery: [u8; 32],
}

impl Props {
    pub(super) fn of(cast: &Cast) -> Self {
        let mut people = cast.people.clone();
        people.push(cast.guest.clone());
        let second =
            |who: &LocalIdentity| DeviceKeys::from_seed(&Secret::new(hash::h("second", &[&who.root_public.sign.0])));
        let second_keys: Vec<DeviceKeys> = people.iter().map(second).collect();
        let certify = |(who, keys): (&LocalIdentity, &DeviceKeys)| {
            DeviceCert::by_device(&who.device, who.root_public, keys.public())
        };
        let seconds = people.iter().zip(&second_keys).map(certify).collect();
        let old = BackLink { parent: cast.world.epoch.id(), access: [0; 72], content: [0; 72] };
        let recovery = cast.recovery.verifying_key().to_bytes();
        Self { people, seconds, second_keys, invite: cast.invite, old, recovery }
    }

    pub(super) fn first(&self, who: u8) -> DeviceId {
        self.people[usize::from(who)].device.id()
    }
    pub(super) fn second(&self, who: u8) -> DeviceId {
        self.second_keys[usize::from(who)].id()
    }
    /// The envelope that cuts leave somebody.
    pub(super) fn kept(&self, who: u8) -> ChainPoint {
        let chain = ChainId { device: self.first(who), incarnation: 1 };
        ChainPoint { chain, seq: 1, link: Link([who + 1; 32]) }
    }

    fn grant(&self, id: &OpId, state: &Membership, stays: impl Fn(&DeviceId) -> bool) -> EpochGrant {
        let recipients = state.active_devices().map(|(id, _)| *id).filter(|id| stays(id)).collect();
        EpochGrant { commitments: Commitments { access: id.0, content: [0; 32] }, parents: vec![self.old], recipients }
    }

    /// The op of a letter at these parents; the same letter there is the same op. `at`: the ops by place.
    pub(super) fn op(&self, set: &crate::membership::OpSet, letter: Letter, parents: &[OpId], at: &[OpId]) -> SignedOp {
        let mut named: Vec<OpId> = parents.to_vec();
        named.sort();
        // Places are positions on the way here; an op names what stands there.
        let about = match letter.act {
            Act::Endorse(place) | Act::Uninvite(Some(place)) | Act::Welcome(_, Some(place)) => at[usize::from(place)],
            _ => self.invite,
        };
        let letter_bytes = self.letter_bytes(letter);
        let parts: Vec<&[u8]> =
            named.iter().map(|id| id.0.as_slice()).chain([letter_bytes.as_slice(), about.0.as_slice()]).collect();
        let id = OpId(hash::h("letter", &parts));
        let state = evaluate_at(set, parents).unwrap();
        let cut = |whom: u8| Cut::new(vec![self.kept(whom)]);
        let root = |whom: u8| self.people[usize::from(whom)].root_public.sign;
        let body = match letter.act {
            Act::Remove(whom) => {
                let stays = |id: &DeviceId| state.devices.get(id).is_some_and(|device| device.root != root(whom));
                OpBody::Remove { root: root(whom), cut: cut(whom), epoch: self.grant(&id, &state, stays) }
            }
            Act::Role(whom, role) => {
                let demotes = state.members.get(&root(whom)).is_some_and(|member| role < member.role);
                let epoch = demotes.then(|| self.grant(&id, &state, |_| true));
                OpBody::Role { root: root(whom), role, cut: cut(whom), epoch }
            }
            Act::Leave => OpBody::Leave,
            Act::RevokeFirst(whom) => self.revocation(&id, &state, self.first(whom), cut(whom)),
            Act::RevokeSecond(whom) => self.revocation(&id, &state, self.second(whom), Cut::default()),
            Act::AddSecond => {
                let who = letter.by.person().unwrap_or_default();
                OpBody::Device { cert: self.seconds[usize::from(who)].clone(), label: String::new() }
            }
            Act::AddFirst => {
                let who = letter.by.person().unwrap_or_default();
                OpBody::Device { cert: self.people[usize::from(who)].cert.clone(), label: String::new() }
            }
            Act::Invite(role) => OpBody::Invite {
                sign: [0; 32],
                knock: Secret::new([0; 32]),
                role,
                expires_wall_ms: HOUR,
                uses: 5,
                approval: false,
                whom: None,
            },
            Act::Uninvite(_) => OpBody::Uninvite { invite: about },
            Act::Welcome(whom, _) => {
                let admission = Admission::unsigned(about, &self.people[usize::from(whom)]);
                OpBody::Welcome { invite: about, admission, slots: Vec::new() }
            }
            Act::Endorse(_) => OpBody::Endorse { op: about },
            Act::Approval => OpBody::Policy(Policy { approval: true, ..Policy::default() }),
        };
        let signer = match letter.by {
            Key::First(who) => Signer::Device(self.first(who)),
            Key::Second(who) => Signer::Device(self.second(who)),
            Key::Words(who) => Signer::Root(root(who)),
            Key::Recovery => Signer::Recovery(self.recovery),
        };
        SignedOp::unsigned(id, &set.workspace(), parents, signer, body)
    }

    fn revocation(&self, id: &OpId, state: &Membership, device: DeviceId, cut: Cut) -> OpBody {
        let epoch = self.grant(id, state, |other| *other != device);
        OpBody::Revoke { devices: vec![device], cut, epoch }
    }

    /// Who does what to whom, without the places.
    fn letter_bytes(&self, letter: Letter) -> [u8; 5] {
        let (key, who) = match letter.by {
            Key::First(who) => (0, who),
            Key::Second(who) => (1, who),
            Key::Words(who) => (2, who),
            Key::Recovery => (3, 0),
        };
        let (act, whom, role) = match letter.act {
            Act::Remove(whom) => (0, whom, 0),
            Act::Role(whom, role) => (1, whom, role as u8),
            Act::Leave => (2, 0, 0),
            Act::RevokeFirst(whom) => (3, whom, 0),
            Act::RevokeSecond(whom) => (4, whom, 0),
            Act::AddSecond => (5, 0, 0),
            Act::AddFirst => (6, 0, 0),
            Act::Invite(role) => (7, 0, role as u8),
            Act::Uninvite(_) => (8, 0, 0),
            Act::Welcome(whom, _) => (9, whom, 0),
            Act::Endorse(_) => (10, 0, 0),
            Act::Approval => (11, 0, 0),
        };
        [key, who, act, whom, role]
    }
}
