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
use super::output::{Output, Rank};
use super::receive::op_key;
use super::{Phase, Workspace};
use crate::epoch::{Epoch, RoomKey};
use crate::hash::h;
use crate::id::{DeviceId, OpId};
use crate::identity::LocalIdentity;
use crate::invite::{InviteSecret, KnockKeys};
use crate::invite_link::{InviteLink, LINK_OPS_MAX, LINK_URLS_MAX};
use crate::knock::{self, Answer, AnswerError, AnswerOpener, Knock, KnockError, Refusal, ReplyKey};
use crate::membership::{Lawful, OpSet, Role, evaluate};
use crate::op::{OpSigner, SignedOp, ops};
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
    reply: ReplyKey,
    opener: AnswerOpener,
    next_mono: u64,
    tries: u32,
}

impl Joining {
    pub(super) fn new(link: InviteLink, identity: &LocalIdentity, now: Timestamp, rng: &mut ChaCha20Rng) -> Self {
        let reply = ReplyKey::generate(rng);
        let mut kems = vec![identity.device.kem_secret().clone()];
        kems.extend(identity.root.as_ref().map(|root| root.kem_secret().clone()));
        let opener = AnswerOpener::new(link.clone(), reply.clone(), identity.device.id(), kems);
        Self { link, reply, opener, next_mono: now.after_ms(KNOCK_AGAIN_MS), tries: 0 }
    }
    pub(super) fn room(&self) -> RoomKey {
        self.link.keys().knock.room
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
        open.into_iter().take(max).map(|(id, invite)| (*id, KnockKeys::new(&self.id, &invite.knock).room)).collect()
    }

    /// Knocks in a room where somebody is.
    pub(super) fn knock(&mut self, now: Timestamp, link: LinkId, room: RoomId) {
        let Phase::Joining(joining) = &mut self.phase else { return };
        joining.tries += 1;
        let wait = (KNOCK_AGAIN_MS << joining.tries.min(5)).min(KNOCK_AGAIN_MS_MAX);
        joining.next_mono = now.after_ms(wait);
        match knock::make_knock(&joining.link, &self.identity, &joining.reply, &mut self.rng) {
            Some(sealed) => {
                let payload = sealed.into_bytes();
                self.send(link, Rank::Control, ClientFrame::Publish { room, payload });
            }
            None => self.problem("This link cannot be used: ask for a new one.".into()),
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
                Ok(Some(answer)) => self.admitted(answer, tx),
                Ok(None) => {}
                Err(error) => match knock::open_refusal(&joining.link, &joining.reply, payload) {
                    Some(refusal) => self.problem(refusal.advice().into()),
                    // Other joiners are answered in this room too.
                    None if error == AnswerError::NotForUs => {}
                    None => self.reject(&error.to_string()),
                },
            }
            return;
        }
        let Some(facts) = self.membership.invites.get(&invite) else { return };
        let keys = KnockKeys::new(&self.id, &facts.knock);
        let knock = match knock::open_knock(&self.id, invite, facts, &keys, payload) {
            Ok(knock) => knock,
            // Answers to other joiners pass here too.
            Err(KnockError::NotAKnock) => return,
            Err(error) => return self.reject(&error.to_string()),
        };
        let mine = self.membership.role_of(&self.my_device());
        if mine.is_none_or(|role| role < Role::Writer) || self.knocks.0.len() >= KNOCKS_MAX {
            return;
        }
        let joiner = device_of(&knock);
        self.knocks.0.retain(|pending| device_of(&pending.knock) != joiner);
        let issued_here = facts.issuer == self.identity.root_public.sign;
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
            Phase::Enrolling(_) | Phase::Active | Phase::Left => false,
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
                self.knock(now, link, room);
            }
        }
    }

    pub(super) fn admission_deadline(&self) -> Option<u64> {
        let joining = match &self.phase {
            Phase::Joining(joining) => Some(joining.next_mono),
            Phase::Enrolling(_) | Phase::Active | Phase::Left => None,
        };
        self.knocks.0.iter().map(|pending| pending.due_mono).chain(joining).min()
    }

    /// Welcomes a joiner, or answers again if it was welcomed before and did not hear it.
    fn answer_knock(&mut self, now: Timestamp, pending: Pending, tx: &Tx<'_>) {
        let Some(invite) = self.membership.invites.get(&pending.invite).cloned() else { return };
        let keys = KnockKeys::new(&self.id, &invite.knock);
        let joiner = device_of(&pending.knock);
        let known = self.membership.devices.get(&joiner).is_some_and(|device| device.active);
        if !known {
            let refusal = if !invite.open {
                Some(Refusal::Revoked)
            } else if invite.expires_wall_ms <= now.wall_ms {
                Some(Refusal::Expired)
            } else if invite.used >= invite.uses {
                Some(Refusal::UsedUp)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                let reply_key = &pending.knock.reply_key;
                let sealed = knock::make_refusal(&self.id, pending.invite, &keys, reply_key, refusal, &mut self.rng);
                sealed.into_iter().for_each(|sealed| self.answer_door(pending.route, sealed.into_bytes()));
                return;
            }
        }
        let Some(epoch) = self.sealing_epoch() else {
            // A new epoch is about to be minted; the joiner knocks again and gets that one.
            self.mint_soon(now);
            return;
        };
        if !known {
            let Some(epoch) = self.vault.keyring.get(&epoch).cloned() else { return };
            let Some(heads) = self.ops.as_ref().map(OpSet::heads) else { return };
            let signer = OpSigner::Device(&self.identity.device);
            let author = ops::Author { workspace: self.id, parents: heads, signer, wall_ms: now.wall_ms };
            let admission = pending.knock.admission.clone();
            let welcome = ops::welcome(&author, pending.invite, admission, invite.role, &epoch, &mut self.rng);
            let Some(welcome) = welcome else { return self.reject("unsound key in a knock") };
            self.publish_op(&welcome, tx);
            if !self.knows(&welcome.id()) {
                return;
            }
        }
        let Some(set) = self.ops.as_ref() else { return };
        let parts = knock::make_answer(set, pending.invite, &keys, &pending.knock.reply_key, &mut self.rng);
        match parts {
            Some(parts) => parts.into_iter().for_each(|sealed| self.answer_door(pending.route, sealed.into_bytes())),
            None => self.problem("The membership history is too long to be sent to a joiner.".into()),
        }
    }

    fn answer_door(&mut self, route: Route, payload: bytes::Bytes) {
        self.send(route.link, Rank::Control, ClientFrame::Send { room: route.room, to: route.peer, payload });
    }

    /// We are in: what the answer brought becomes ours. The opener has checked that it is what the link promised.
    fn admitted(&mut self, answer: Answer, tx: &Tx<'_>) {
        let Answer { ops, welcome: _, epoch } = answer;
        tx.delete(Table::Meta, JOINING);
        self.come_in(ops, epoch, tx);
        self.effects.push(Output::Admitted { name: self.name.clone() });
    }

    /// From now on this is our membership, and we are in it.
    pub(super) fn come_in(&mut self, ops: OpSet, epoch: Epoch, tx: &Tx<'_>) {
        for (order, op) in (0..).zip(ops.ops()) {
            tx.put(Table::Ops, op_key(order, &op.id()), op.bytes().clone());
        }
        tx.put(Table::Meta, GENESIS, ops.genesis().bytes().to_vec());
        // Whoever let us in may be gone before it tells the others: we can.
        self.let_in_with(ops.ops().map(SignedOp::id), tx);
        self.name = ops.genesis().workspace_name().to_owned();
        self.membership = evaluate(&ops);
        self.ops = Some(ops);
        self.phase = Phase::Active;
        self.problems.clear();
        self.keep_epoch(epoch, tx);
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
        let secret = InviteSecret::generate(&mut self.rng);
        let heads = self.ops.as_ref().map(OpSet::heads).unwrap_or_default();
        let signer = OpSigner::Device(&self.identity.device);
        let author = ops::Author { workspace: self.id, parents: heads, signer, wall_ms: now.wall_ms };
        let op = ops::invite(&author, &secret, role, expires_wall_ms, uses, false);
        if self.judge(&op) != Lawful::Yes {
            return Err(format!(
                "You are {} here and cannot invite a {}: admins and owners invite, to a role below their own.",
                role_name(mine),
                role_name(role)
            ));
        }
        self.publish_op(&op, tx);
        let mut op_heads = vec![op.id()];
        op_heads.extend(self.named_heads().into_iter().filter(|head| *head != op.id()));
        op_heads.truncate(LINK_OPS_MAX);
        let mut urls = self.relays.urls();
        urls.extend(lan.iter().cloned());
        urls.truncate(LINK_URLS_MAX);
        let (workspace, inviter, name) = (self.id, self.my_device(), self.name.clone());
        let link = InviteLink { workspace, secret, op_heads, inviter, urls, name };
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

fn device_of(knock: &Knock) -> DeviceId {
    knock.admission.cert().device().id()
}
