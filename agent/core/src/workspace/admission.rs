//! Letting people in: invites, knocks, welcomes, and our own knocking while we wait.
//!
//! Invariant: a device gets keys only by a welcome op that names an open invite and embeds what the joiner signed with
//! the link's key; the answer leaves only when that op is durable here. Why: whoever answers must not forget whom it let
//! in. Spec: docs/sealing.md#invites, docs/sync.md#joining.

use rand_chacha::ChaCha20Rng;
use weft_protocol::frame::ClientFrame;
use weft_protocol::id::RoomId;

use super::birth::{GENESIS, JOINING};
use super::command::{InviteTerms, Knocking};
use super::input::LinkId;
use super::links::{Purpose, Route};
use super::output::{Output, Rank};
use super::receive::op_key;
use super::{Phase, Workspace};
use crate::epoch::{Epoch, RoomKey};
use crate::hash::pick;
use crate::id::{DeviceId, OpId};
use crate::identity::{LocalIdentity, fingerprint};
use crate::invite::{InviteSecret, KnockKeys};
use crate::invite_link::{InviteLink, LINK_OPS_MAX, LINK_URLS_MAX};
use crate::knock::{self, Admission, Answer, AnswerError, AnswerOpener, Knock, KnockError, Refusal, ReplyKey};
use crate::membership::{Invite, Lawful, OpSet, Role, evaluate};
use crate::op::{OpBody, OpSigner, SignedOp, ops};
use crate::store::{Table, Tx};
use crate::time::{Timestamp, doubled};

/// Knocks waiting for our answer.
const KNOCKS_MAX: usize = 32;
/// The inviter answers at once, the others in slots of this, unless somebody was faster.
const SLOT_MS: u64 = 200;
/// Of the knock rooms, so many are of invites that are void, used up or over.
const OVER_ROOMS_MAX: usize = 8;
/// A joiner knocks again after this, twice as long each time.
const KNOCK_AGAIN_MS: u64 = 3_000;
/// ... up to this.
const KNOCK_AGAIN_MS_MAX: u64 = 60_000;

/// A refusal stands against a mere "wait" for so long: of several members one may know more than the others.
const REFUSAL_STANDS_MS: u64 = 120_000;
/// Doors remembered of people who wait for an admin.
const DOORS_MAX: usize = 64;

/// What we need while we wait to be let in.
pub(super) struct Joining {
    link: InviteLink,
    reply: ReplyKey,
    opener: AnswerOpener,
    next_mono: u64,
    tries: u32,
    /// What was answered last, and when.
    heard: Option<(Word, u64)>,
}

/// An answer that does not let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Somebody who knows the invite says so.
    Said(Refusal),
    /// What came as an answer cannot be what the link promised.
    Unbelievable(AnswerError),
}

impl Joining {
    pub(super) fn new(link: InviteLink, identity: &LocalIdentity, now: Timestamp, rng: &mut ChaCha20Rng) -> Self {
        let reply = ReplyKey::generate(rng);
        let mut kems = vec![identity.device.kem_secret().clone()];
        kems.extend(identity.root.as_ref().map(|root| root.kem_secret().clone()));
        let opener = AnswerOpener::new(link.clone(), reply.clone(), identity.device.id(), kems);
        Self { link, reply, opener, next_mono: now.after_ms(KNOCK_AGAIN_MS), tries: 0, heard: None }
    }
    pub(super) fn room(&self) -> RoomKey {
        self.link.keys().knock.room
    }
    pub(super) fn invite(&self) -> OpId {
        self.link.invite()
    }

    fn hear(&mut self, now: Timestamp, word: Word) {
        let stands = |(known, at): &(Word, u64)| {
            *known != Word::Said(Refusal::Waiting) && now.mono_ms < at.saturating_add(REFUSAL_STANDS_MS)
        };
        if word != Word::Said(Refusal::Waiting) || !self.heard.as_ref().is_some_and(stands) {
            self.heard = Some((word, now.mono_ms));
        }
    }
}

/// A knock to be answered.
pub(super) struct Pending {
    due_mono: u64,
    pub(super) route: Route,
    pub(super) invite: OpId,
    pub(super) knock: Knock,
}

/// Knocks that wait for our answer, and where people wait for an admin's.
#[derive(Default)]
pub(super) struct Knocks {
    pending: Vec<Pending>,
    doors: std::collections::BTreeMap<DeviceId, Route>,
}

impl Knocks {
    /// Notes where somebody waits who has to be approved.
    pub(super) fn remember_door(&mut self, device: DeviceId, route: Route) {
        if self.doors.len() >= DOORS_MAX && !self.doors.contains_key(&device) {
            // Who is forgotten hears of the decision when it knocks again.
            self.doors.pop_first();
        }
        self.doors.insert(device, route);
    }
    /// Where somebody last knocked.
    pub(super) fn door_of(&self, device: &DeviceId) -> Option<Route> {
        self.doors.get(device).copied()
    }
}

impl Workspace {
    /// The knock rooms of open invites, those that end last first, and of some that let nobody in any more: who comes by
    /// one of these is told so.
    pub(super) fn knock_rooms(&self, now: Timestamp, max: usize) -> Vec<(OpId, RoomKey)> {
        let mut all: Vec<_> = self.membership.invites.iter().collect();
        all.sort_by_key(|(id, invite)| (std::cmp::Reverse(invite.expires_wall_ms), **id));
        let (open, over): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, invite)| invite.is_usable(now.wall_ms));
        let over = over.into_iter().take(OVER_ROOMS_MAX);
        let open = open.into_iter().take(max.saturating_sub(over.len()));
        open.chain(over).map(|(id, invite)| (*id, KnockKeys::new(&self.id, &invite.knock).room)).collect()
    }

    /// Knocks in a room where somebody is.
    pub(super) fn knock(&mut self, now: Timestamp, link: LinkId, room: RoomId) {
        let Phase::Joining(joining) = &mut self.phase else { return };
        joining.tries += 1;
        let wait = doubled(KNOCK_AGAIN_MS, joining.tries, KNOCK_AGAIN_MS_MAX);
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
                    Some(refusal) => joining.hear(now, Word::Said(refusal)),
                    // Other joiners are answered in this room too.
                    None if error == AnswerError::NotForUs => {}
                    None => {
                        joining.hear(now, Word::Unbelievable(error));
                        self.reject(&error.to_string());
                    }
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
        if mine.is_none_or(|role| role < Role::Writer) || self.knocks.pending.len() >= KNOCKS_MAX {
            return;
        }
        let joiner = device_of(&knock);
        self.knocks.pending.retain(|pending| device_of(&pending.knock) != joiner);
        let issued_here = facts.issuer == self.identity.root_public.sign;
        let delay = if issued_here { 0 } else { self.door_slot(&joiner) };
        self.knocks.pending.push(Pending { due_mono: now.after_ms(delay), route, invite, knock });
    }

    /// When to answer a device that wants in, unless somebody was faster: not at once.
    pub(super) fn door_slot(&self, newcomer: &DeviceId) -> u64 {
        let peers = self.links.connected().len() as u64 + 1;
        (1 + pick("slot", &[&newcomer.0, &self.my_device().0], peers)) * SLOT_MS
    }

    pub(super) fn run_admission(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.knocks.pending).into_iter().partition(|pending| pending.due_mono <= now.mono_ms);
        self.knocks.pending = later;
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
        self.knocks.pending.iter().map(|pending| pending.due_mono).chain(joining).min()
    }

    /// Welcomes a joiner, or answers again if it was welcomed before and did not hear it.
    fn answer_knock(&mut self, now: Timestamp, pending: Pending, tx: &Tx<'_>) {
        let Some(invite) = self.membership.invites.get(&pending.invite).cloned() else { return };
        let joiner = device_of(&pending.knock);
        let inside = self.has_a_key_to_begin_with(&joiner);
        if !inside {
            let mut refusal = self.refusal_for(now, pending.invite, &invite, &pending.knock.admission);
            if refusal.is_none() && (invite.approval || self.membership.policy.approval) {
                refusal = Some(self.hear_request(now, &pending, tx));
            }
            if let Some(refusal) = refusal {
                return self.say_at_door(pending.route, pending.invite, &pending.knock.reply_key, refusal);
            }
        }
        if self.sealing_epoch().is_none() {
            // A new epoch is about to be minted; the joiner knocks again and gets that one.
            self.mint_soon(now);
            return;
        }
        if !inside && let Err(refusal) = self.let_in(now, pending.invite, &pending.knock.admission, tx) {
            return self.say_at_door(pending.route, pending.invite, &pending.knock.reply_key, refusal);
        }
        self.send_answer(pending.route, pending.invite, &pending.knock.reply_key);
    }

    /// Whether a device belongs, and what let it in brought a key with it: then it is only to be told again. What its owner's
    /// words or another device let in had its key from elsewhere, and comes by a link now because it lost that.
    fn has_a_key_to_begin_with(&self, device: &DeviceId) -> bool {
        let facts = self.membership.devices.get(device).filter(|facts| facts.active);
        facts.is_some_and(|facts| {
            facts.introduced_by.iter().any(|op| {
                let op = self.ops.as_ref().and_then(|ops| ops.get(op));
                matches!(op.map(SignedOp::body), Some(OpBody::Welcome { slots, .. }) if !slots.is_empty())
            })
        })
    }

    /// Why whoever knocks is not let in, if that is so whoever decides.
    fn refusal_for(&self, now: Timestamp, id: OpId, invite: &Invite, admission: &Admission) -> Option<Refusal> {
        let cert = admission.cert();
        let (root, device) = (cert.root().sign, cert.device().id());
        if self.membership.former.get(&root).is_some_and(|end| self.is_older_than_removal(id, *end)) {
            Some(Refusal::BeforeRemoval)
        } else if !invite.open {
            Some(Refusal::Revoked)
        } else if invite.whom.is_some_and(|whom| whom != root) {
            Some(Refusal::NotForYou)
        } else if invite.expires_wall_ms <= now.wall_ms {
            Some(Refusal::Expired)
        } else if invite.used >= invite.uses {
            Some(Refusal::UsedUp)
        } else if self.membership.devices.get(&device).is_some_and(|device| device.revoked) {
            Some(Refusal::DeviceRevoked)
        } else {
            None
        }
    }

    fn is_older_than_removal(&self, invite: OpId, end: OpId) -> bool {
        self.ops.as_ref().is_some_and(|ops| {
            let removed = ops.get(&end).is_some_and(|op| matches!(op.body(), OpBody::Remove { .. }));
            removed && !ops.descends(&[invite], &[end])
        })
    }

    /// Makes whoever asks a member, or another device of the member it is already, if that counts.
    pub(super) fn let_in(
        &mut self,
        now: Timestamp,
        id: OpId,
        admission: &Admission,
        tx: &Tx<'_>,
    ) -> Result<(), Refusal> {
        let welcome = self.welcome_op(now, id, admission).ok_or(Refusal::OtherKeys)?;
        if self.judge(&welcome) != Lawful::Yes {
            return Err(Refusal::OtherKeys);
        }
        self.publish_op(&welcome, tx);
        if self.knows(&welcome.id()) { Ok(()) } else { Err(Refusal::OtherKeys) }
    }

    fn welcome_op(&mut self, now: Timestamp, id: OpId, admission: &Admission) -> Option<SignedOp> {
        let epoch = self.vault.keyring.get(&self.sealing_epoch()?).cloned()?;
        let known = self.membership.members.get(&admission.cert().root().sign).map(|member| member.role);
        let role = known.or_else(|| self.membership.invites.get(&id).map(|invite| invite.role))?;
        let parents = self.ops.as_ref().map(OpSet::heads)?;
        let signer = OpSigner::Device(&self.identity.device);
        let author = ops::Author { workspace: self.id, parents, signer, wall_ms: now.wall_ms };
        ops::welcome(&author, id, admission.clone(), role, &epoch, &mut self.rng)
    }

    /// Sends everything a member starts from.
    pub(super) fn send_answer(&mut self, route: Route, invite: OpId, reply_key: &[u8; 32]) {
        let (Some(set), Some(keys)) = (self.ops.as_ref(), self.knock_keys(&invite)) else { return };
        match knock::make_answer(set, invite, &keys, reply_key, &mut self.rng) {
            Some(parts) => parts.into_iter().for_each(|sealed| self.answer_door(route, sealed.into_bytes())),
            None => self.problem("The membership history is too long to be sent to a joiner.".into()),
        }
    }

    /// Tells a joiner why it is not let in, or not yet.
    pub(super) fn say_at_door(&mut self, route: Route, invite: OpId, reply_key: &[u8; 32], refusal: Refusal) {
        let Some(keys) = self.knock_keys(&invite) else { return };
        let sealed = knock::make_refusal(&self.id, invite, &keys, reply_key, refusal, &mut self.rng);
        sealed.into_iter().for_each(|sealed| self.answer_door(route, sealed.into_bytes()));
    }

    fn answer_door(&mut self, route: Route, payload: bytes::Bytes) {
        self.send(route.link, Rank::Control, ClientFrame::Send { room: route.room, to: route.peer, payload });
    }

    /// What a joiner has heard so far; `None` for everybody else.
    pub(super) fn knocking(&self) -> Option<Knocking> {
        let Phase::Joining(joining) = &self.phase else { return None };
        Some(match joining.heard {
            None => Knocking::Unheard,
            Some((Word::Said(Refusal::Waiting), _)) => {
                Knocking::Waiting { fingerprint: fingerprint(&self.identity.root_public.sign) }
            }
            Some((Word::Said(refusal), _)) => Knocking::Refused(refusal.advice().to_owned()),
            Some((Word::Unbelievable(error), _)) => Knocking::Refused(format!(
                "What came as an answer is not what the link promises ({error}). It was refused, and nothing of it was kept. \
                 If it stays so, ask for a new link over a channel you trust."
            )),
        })
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
        terms: &InviteTerms,
        lan: &[String],
        tx: &Tx<'_>,
    ) -> Result<(OpId, InviteLink), String> {
        let mine = self.membership.role_of(&self.my_device()).ok_or("This device is not a member any more.")?;
        // Who is a member already keeps the role it has; the link says the least, should it be looked at alone.
        let known = terms.whom.and_then(|root| self.membership.members.get(&root)).map(|member| member.role);
        let role = known.map_or(terms.role, |known| known.min(Role::Reader));
        let secret = InviteSecret::generate(&mut self.rng);
        let heads = self.ops.as_ref().map(OpSet::heads).unwrap_or_default();
        let signer = OpSigner::Device(&self.identity.device);
        let author = ops::Author { workspace: self.id, parents: heads, signer, wall_ms: now.wall_ms };
        let InviteTerms { expires_wall_ms, uses, approval, whom, .. } = *terms;
        let op = ops::invite_for(&author, &secret, role, expires_wall_ms, uses, approval, whom);
        if self.judge(&op) != Lawful::Yes {
            return Err(format!(
                "You are {} here and cannot invite {}: admins and owners invite, to a role below their own.",
                a_role(mine),
                a_role(role)
            ));
        }
        self.publish_op(&op, tx);
        let link = self.link_to(&op, secret, lan);
        tx.put(Table::Invites, op.id().0, link.to_text().as_bytes().to_vec());
        Ok((op.id(), link))
    }

    /// The link of an invite of ours: with the heads now, and where we can be found.
    fn link_to(&self, op: &SignedOp, secret: InviteSecret, lan: &[String]) -> InviteLink {
        let mut op_heads = vec![op.id()];
        op_heads.extend(self.named_heads().into_iter().filter(|head| *head != op.id()));
        op_heads.truncate(LINK_OPS_MAX);
        let mut urls = self.relays.urls();
        urls.extend(lan.iter().cloned());
        urls.truncate(LINK_URLS_MAX);
        InviteLink { workspace: self.id, secret, op_heads, inviter: self.my_device(), urls, name: self.name.clone() }
    }
}

/// "a reader", "an owner".
pub(crate) fn a_role(role: Role) -> String {
    let name = role_name(role);
    format!("{} {name}", if name.starts_with(['a', 'o']) { "an" } else { "a" })
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
