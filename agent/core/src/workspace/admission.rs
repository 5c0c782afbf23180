//! Letting people in: invites, knocks, welcomes, and our own knocking while we wait.
//!
//! Invariant: a device gets keys only by a welcome op that names an open invite and embeds what the joiner signed with
//! the link's key; the answer leaves only when that op is durable here. Why: whoever answers must not forget whom it let
//! in. Spec: docs/sealing.md#invites, docs/sync.md#joining.

use rand_chacha::ChaCha20Rng;
use weft_protocol::frame::ClientFrame;
use weft_protocol::id::RoomId;

use super::birth::{GENESIS, JOINING};
use super::input::LinkId;
use super::links::{Purpose, Route};
use super::outbox::OpsBody;
use super::output::{Output, Rank};
use super::{Phase, Workspace};
use crate::epoch::RoomKey;
use crate::hash::h;
use crate::id::{DeviceId, OpId};
use crate::invite::{InviteSecret, KnockKeys};
use crate::invite_link::InviteLink;
use crate::knock::{self, Answer, AnswerOpener, Knock, KnockSecret};
use crate::membership::{OpSet, Role};
use crate::op::OpBody;
use crate::store::{Table, Tx};
use crate::time::Timestamp;

/// Knocks waiting for our answer.
const KNOCKS_MAX: usize = 32;
/// The inviter answers at once, the others in slots of this, unless somebody was faster.
const SLOT_MS: u64 = 200;
/// A joiner knocks again after this, twice as long each time.
const KNOCK_AGAIN_MS: u64 = 3_000;
/// ... up to this.
const KNOCK_AGAIN_MS_MAX: u64 = 60_000;

/// What we need while we wait to be let in.
pub(super) struct Joining {
    link: InviteLink,
    secret: KnockSecret,
    opener: AnswerOpener,
    next_mono: u64,
    tries: u32,
}

impl Joining {
    pub(super) fn new(link: InviteLink, now: Timestamp, rng: &mut ChaCha20Rng) -> Self {
        let secret = KnockSecret::generate(rng);
        let opener = AnswerOpener::new(&link, &secret);
        Self { link, secret, opener, next_mono: now.after_ms(KNOCK_AGAIN_MS), tries: 0 }
    }
    pub(super) fn room(&self) -> RoomKey {
        self.link.keys().room()
    }
    pub(super) fn invite(&self) -> OpId {
        self.link.invite()
    }
}

struct Pending {
    due_mono: u64,
    route: Route,
    invite: OpId,
    knock: Knock,
}

/// Knocks that wait for our answer.
#[derive(Default)]
pub(super) struct Knocks(Vec<Pending>);

impl Workspace {
    /// The knock rooms of open invites, newest first.
    pub(super) fn knock_rooms(&self, max: usize) -> Vec<(OpId, RoomKey)> {
        let mut open: Vec<_> = self.membership.invites.iter().filter(|(_, invite)| invite.open).collect();
        open.sort_by_key(|(id, invite)| (std::cmp::Reverse(invite.expires_wall_ms), **id));
        open.into_iter()
            .take(max)
            .map(|(id, invite)| (*id, KnockKeys::from_knock(&self.id, &invite.knock).room()))
            .collect()
    }

    /// Knocks in a room where somebody is.
    pub(super) fn knock(&mut self, now: Timestamp, link: LinkId, room: RoomId, _tx: &Tx<'_>) {
        let Phase::Joining(joining) = &mut self.phase else { return };
        joining.tries += 1;
        let wait = (KNOCK_AGAIN_MS << joining.tries.min(5)).min(KNOCK_AGAIN_MS_MAX);
        joining.next_mono = now.after_ms(wait);
        match knock::make_knock(&joining.link, &self.identity, &joining.secret, &mut self.rng) {
            Ok(payload) => self.send(link, Rank::Control, ClientFrame::Publish { room, payload }),
            Err(error) => self.problem(format!("This link cannot be used: {error}")),
        }
    }

    /// Somebody came to the door we knock at.
    pub(super) fn knock_soon(&mut self, now: Timestamp) {
        if let Phase::Joining(joining) = &mut self.phase {
            joining.tries = 0;
            joining.next_mono = joining.next_mono.min(now.after_ms(50));
        }
    }

    /// Something came in a knock room: a knock, if we are a member; an answer, if we wait for one.
    pub(super) fn at_the_door(&mut self, now: Timestamp, route: Route, invite: OpId, payload: &[u8], tx: &Tx<'_>) {
        if let Phase::Joining(joining) = &mut self.phase {
            match joining.opener.push(payload) {
                Ok(Some(answer)) => self.admitted(now, answer, tx),
                Ok(None) => {}
                Err(error) => self.reject(error.reason()),
            }
            return;
        }
        let Some(facts) = self.membership.invites.get(&invite) else { return };
        let keys = KnockKeys::from_knock(&self.id, &facts.knock);
        let knock = match knock::open_knock(&self.id, &invite, facts, &keys, payload) {
            Ok(knock) => knock,
            Err(error) => return self.reject(error.reason()),
        };
        let mine = self.membership.role_of(&self.my_device());
        if mine.is_none_or(|role| role < Role::Writer) || self.knocks.0.len() >= KNOCKS_MAX {
            return;
        }
        let joiner = knock.device();
        self.knocks.0.retain(|pending| pending.knock.device() != joiner);
        let issued_here = facts.issuer == self.my_device();
        let delay = if issued_here { 0 } else { self.door_slot(&joiner) };
        self.knocks.0.push(Pending { due_mono: now.after_ms(delay), route, invite, knock });
    }

    fn door_slot(&self, joiner: &DeviceId) -> u64 {
        let peers = self.links.connected().len() as u64 + 1;
        let hash = h("slot", &[&joiner.0, &self.my_device().0]);
        let number = hash.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        (1 + number % peers) * SLOT_MS
    }

    pub(super) fn run_admission(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.knocks.0).into_iter().partition(|pending| pending.due_mono <= now.mono_ms);
        self.knocks.0 = later;
        for pending in due {
            self.answer_knock(now, pending, tx);
        }
        let due = match &self.phase {
            Phase::Joining(joining) => joining.next_mono <= now.mono_ms,
            Phase::Active | Phase::Left => false,
        };
        if due {
            let doors: Vec<_> = self
                .links
                .0
                .iter()
                .flat_map(|(link, state)| state.rooms.iter().map(|(room, state)| (*link, *room, state)))
                .filter(|(_, _, state)| matches!(state.purpose, Purpose::Knock(_)) && !state.peers.is_empty())
                .map(|(link, room, _)| (link, room))
                .collect();
            if doors.is_empty()
                && let Phase::Joining(joining) = &mut self.phase
            {
                joining.next_mono = now.after_ms(KNOCK_AGAIN_MS_MAX);
            }
            for (link, room) in doors {
                self.knock(now, link, room, tx);
            }
        }
    }

    pub(super) fn admission_deadline(&self) -> Option<u64> {
        let joining = match &self.phase {
            Phase::Joining(joining) => Some(joining.next_mono),
            Phase::Active | Phase::Left => None,
        };
        self.knocks.0.iter().map(|pending| pending.due_mono).chain(joining).min()
    }

    /// Welcomes a joiner, or answers again if it was welcomed before and did not hear it.
    fn answer_knock(&mut self, now: Timestamp, pending: Pending, tx: &Tx<'_>) {
        let Some(invite) = self.membership.invites.get(&pending.invite) else { return };
        let joiner = pending.knock.device();
        let known = self.membership.devices.get(&joiner).is_some_and(|device| device.active);
        if !known {
            let refusal = if !invite.open {
                Some("This link was revoked. Ask for a new one.")
            } else if invite.expires_wall_ms <= now.wall_ms {
                Some("This link has expired. Ask for a new one.")
            } else if invite.used >= invite.uses {
                Some("This link was used as often as it may be. Ask for a new one.")
            } else {
                None
            };
            if let Some(refusal) = refusal {
                let payload = knock::make_refusal(&self.id, &pending.invite, &pending.knock, refusal, &mut self.rng);
                if let Ok(payload) = payload {
                    self.answer_door(pending.route, payload);
                }
                return;
            }
        }
        let Some(epoch) = self.sealing_epoch() else {
            // A new epoch is about to be minted; the joiner gets that one.
            self.mint_soon(now);
            let due_mono = now.after_ms(500);
            self.knocks.0.push(Pending { due_mono, ..pending });
            return;
        };
        if !known {
            let Some(secrets) = self.vault.keyring.get(&epoch) else { return };
            let slot = match knock::welcome_slot(secrets, &pending.knock, &mut self.rng) {
                Ok(slot) => slot,
                Err(error) => return self.reject(error.reason()),
            };
            let admission = pending.knock.admission().clone();
            let body = OpBody::Welcome { invite: pending.invite, admission, slots: vec![slot] };
            if self.issue(now, body, tx).is_none() {
                return;
            }
        }
        let Some(secrets) = self.vault.keyring.get(&epoch) else { return };
        let Some(genesis) = tx_genesis(tx) else { return };
        let ops: Vec<_> = self.ops.all().map(|op| op.bytes().clone()).collect();
        let parts =
            knock::make_answer(&self.id, &pending.invite, &pending.knock, &genesis, &ops, secrets, &mut self.rng);
        match parts {
            Ok(parts) => parts.into_iter().for_each(|payload| self.answer_door(pending.route, payload)),
            Err(error) => self.reject(error.reason()),
        }
    }

    fn answer_door(&mut self, route: Route, payload: bytes::Bytes) {
        self.send(route.link, Rank::Control, ClientFrame::Send { room: route.room, to: route.peer, payload });
    }

    /// We are in: what the answer brought becomes ours, if it is what the link promised.
    fn admitted(&mut self, now: Timestamp, answer: Answer, tx: &Tx<'_>) {
        let (genesis, ops, epoch) = match answer {
            Answer::Admitted { genesis, ops, epoch } => (genesis, ops, epoch),
            Answer::Refused(why) => return self.problem(why),
        };
        let Phase::Joining(joining) = &self.phase else { return };
        let mut set = OpSet::new(genesis.clone());
        let mut rows = Vec::new();
        for op in ops {
            for op in set.insert(op) {
                rows.push(op);
            }
        }
        let membership = set.evaluate();
        let promised = set.contains(&joining.link.invite());
        let inside = membership.devices.get(&self.my_device()).is_some_and(|device| device.active);
        if !promised || !inside {
            return self.reject("answer of another workspace than the link's");
        }
        for op in rows {
            tx.put(Table::Ops, op.id().0, op.bytes().to_vec());
        }
        tx.put(Table::Meta, GENESIS, genesis.bytes().to_vec());
        tx.delete(Table::Meta, JOINING);
        self.name = genesis.workspace_name().to_owned();
        self.ops = set;
        self.membership = membership;
        self.phase = Phase::Active;
        self.problems.clear();
        self.keep_epoch(epoch, tx);
        self.effects.push(Output::Admitted { name: self.name.clone() });
        self.membership_changed(now, tx);
    }

    /// Makes an invite; the link.
    pub(super) fn invite(
        &mut self,
        now: Timestamp,
        role: Role,
        expires_wall_ms: u64,
        uses: u32,
        lan: &[String],
        tx: &Tx<'_>,
    ) -> Result<(OpId, InviteLink), String> {
        let mine = self.membership.role_of(&self.my_device()).ok_or("This device is not a member any more.")?;
        if mine < Role::Writer || role > mine || (role == Role::Owner) {
            return Err(format!("A {} cannot invite a {}.", role_name(mine), role_name(role)));
        }
        let secret = InviteSecret::generate(&mut self.rng);
        let keys = secret.keys(&self.id);
        let body = OpBody::Invite {
            sign: keys.sign_public(),
            knock: keys.knock().clone(),
            role,
            expires_wall_ms,
            uses: u64::from(uses),
            approval: false,
        };
        let op = self.issue(now, body, tx).ok_or("The invite does not count here: ask an admin to invite.")?;
        let mut urls = self.relays.urls();
        urls.extend(lan.iter().cloned());
        urls.truncate(crate::message::ADDRESSES_MAX);
        let link = InviteLink::new(self.id, secret, op.id(), self.my_device(), urls, &self.name);
        tx.put(Table::Invites, op.id().0, link.to_text().as_bytes().to_vec());
        Ok((op.id(), link))
    }
}

/// A role as people read it.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Keeper => "keeper",
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

fn tx_genesis(tx: &Tx<'_>) -> Option<bytes::Bytes> {
    crate::store::Read::get(tx, Table::Meta, GENESIS)
}

/// Ops as an envelope's body carries them.
impl From<Vec<bytes::Bytes>> for OpsBody {
    fn from(ops: Vec<bytes::Bytes>) -> Self {
        Self(ops)
    }
}
