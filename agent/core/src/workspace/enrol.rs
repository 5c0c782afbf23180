//! Letting further devices of members in, at doors; and asking at one while we wait.
//!
//! Every member listens at the doors of the epochs that open a lobby, for devices that come by their member's words; the
//! device that made a pass for another one listens at that pass' door. Invariant: a device gets keys only when an op that
//! introduces it counts: one that its member's root signed, or one that this device signs once its person said so. The
//! answer leaves only when that op is durable here. Spec: docs/sealing.md#enrolment, docs/sync.md#enrolling.

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use weft_protocol::cbor::{self, Decoded, Reader, Wire, Writer};
use weft_protocol::frame::ClientFrame;
use weft_protocol::id::RoomId;

use super::birth::ENROLLING;
use super::command::Pairing as Shown;
use super::command::Reply;
use super::input::LinkId;
use super::links::{Purpose, Route};
use super::output::{Output, Rank};
use super::{Phase, Workspace};
use crate::enrol::{
    DoorKeys, EnrolError, EnrolOpener, EnrolRequest, Enrolled, PASS_BYTES_MAX, PASS_OPS_MAX, PASS_URLS_MAX, Pass,
    Refusal, Way, make_enrol_answer, make_refusal, open_refusal, open_request, pairing_words, seal_request,
};
use crate::epoch::RoomKey;
use crate::id::{DeviceId, EpochId, RootKey};
use crate::identity::{DeviceCert, LocalIdentity};
use crate::key_packet::wrap_slot;
use crate::knock::ReplyKey;
use crate::membership::{Lawful, OpSet, Role};
use crate::op::{OP_BYTES_MAX, OpBody, Signer, WrappedSlot};
use crate::secret::Secret;
use crate::store::{Table, Tx};
use crate::time::{Timestamp, doubled};

/// Doors listened at: those of the last removals. An older pass leads nowhere any more.
const DOORS_MAX: usize = 4;
/// Requests waiting for our answer.
const REQUESTS_MAX: usize = 16;
/// A device asks again after this, twice as long each time.
const AGAIN_MS: u64 = 3_000;
/// ... up to this.
const AGAIN_MS_MAX: u64 = 60_000;

/// What we need while we wait to be let in as a device.
pub(super) struct Enrolling {
    pass: Pass,
    /// By words: what introduces us.
    op: Option<Bytes>,
    reply: ReplyKey,
    opener: EnrolOpener,
    next_mono: u64,
    tries: u32,
}

/// [pass, op or empty], as stored.
struct Row {
    pass: String,
    op: Bytes,
}

impl Wire for Row {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).text(&self.pass).bytes(&self.op);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "enrolling")?;
        let pass = reader.text_up_to(PASS_BYTES_MAX, "pass")?.to_owned();
        Ok(Self { pass, op: Bytes::copy_from_slice(reader.bytes_up_to(OP_BYTES_MAX, "op")?) })
    }
}

impl Enrolling {
    pub(super) fn new(
        pass: Pass,
        op: Option<Bytes>,
        identity: &LocalIdentity,
        now: Timestamp,
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let reply = ReplyKey::generate(rng);
        let opener = EnrolOpener::new(pass.clone(), reply.clone(), identity.device.clone());
        Self { pass, op, reply, opener, next_mono: now.after_ms(AGAIN_MS), tries: 0 }
    }
    pub(super) fn pass(&self) -> &Pass {
        &self.pass
    }
    pub(super) fn to_row(&self) -> Vec<u8> {
        cbor::to_bytes(&Row { pass: self.pass.to_text(), op: self.op.clone().unwrap_or_default() })
    }
    /// What [`Enrolling::to_row`] wrote.
    pub(super) fn parse_row(row: &[u8]) -> Option<(Pass, Option<Bytes>)> {
        let row: Row = cbor::from_bytes(row).ok()?;
        Some((Pass::parse(&row.pass).ok()?, Some(row.op).filter(|op| !op.is_empty())))
    }
}

struct Pending {
    due_mono: u64,
    route: Route,
    door: EpochId,
    request: EnrolRequest,
    /// Its op was known when it asked: somebody let it in, and it did not hear so.
    known: bool,
}

/// A pass for another device of ours that is out, and what came of it.
struct Pairing {
    keys: DoorKeys,
    until_mono: u64,
    asks: Option<(Route, EnrolRequest)>,
    shown: Shown,
}

/// Who asks to be enrolled.
#[derive(Default)]
pub(super) struct Doors {
    pending: Vec<Pending>,
    pairing: Option<Pairing>,
}

impl Workspace {
    /// The doors to listen at.
    pub(super) fn door_rooms(&self) -> Vec<(Purpose, RoomKey)> {
        if let Phase::Enrolling(enrolling) = &self.phase {
            return vec![(Purpose::Door(None), enrolling.pass.door().room)];
        }
        let mut doors: Vec<_> = self.door_epochs().into_iter().take(DOORS_MAX).collect();
        let rooms = doors.drain(..).filter_map(|epoch| {
            let held = self.vault.keyring.get(&epoch)?;
            Some((Purpose::Door(Some(epoch)), DoorKeys::of_epoch(held).room))
        });
        let pairing = self.doors.pairing.as_ref().map(|pairing| (Purpose::Door(None), pairing.keys.room.clone()));
        rooms.chain(pairing).collect()
    }

    /// The held epochs that open a lobby, newest first.
    fn door_epochs(&self) -> Vec<EpochId> {
        let held = |id: &&EpochId| self.vault.keyring.get(id).is_some();
        let mut epochs: Vec<_> = self.membership.epochs.iter().filter(|(id, facts)| facts.lobby && held(id)).collect();
        epochs.sort_by_key(|(id, facts)| (std::cmp::Reverse(facts.depth), **id));
        epochs.into_iter().map(|(id, _)| *id).collect()
    }

    /// A pass that leads a device of this member here, by its words.
    pub(super) fn make_pass(&mut self, now: Timestamp, root: RootKey, lan: &[String], tx: &Tx<'_>) -> Reply {
        if !self.is_active() {
            return self.not_in();
        }
        if !self.membership.members.contains_key(&root) {
            return Reply::Refused("There is no such member; `weft members` lists them.".into());
        }
        let door = self.door_epochs().first().and_then(|id| Some(self.vault.keyring.get(id)?.door()));
        let Some(secret) = door else {
            return Reply::Refused(
                "This device has not got the keys that a pass is made of yet; try again later.".into(),
            );
        };
        Reply::Pass(self.pass(now, Way::Words, secret, root, lan, tx).to_text())
    }

    fn pass(&mut self, now: Timestamp, way: Way, secret: Secret, root: RootKey, lan: &[String], tx: &Tx<'_>) -> Pass {
        if self.ops.as_ref().is_some_and(|ops| ops.heads().len() > PASS_OPS_MAX) {
            // One op over them all, so that the pass names everything.
            let genesis = crate::id::OpId(self.id.0);
            self.issue(now, OpBody::Endorse { op: genesis }, tx);
        }
        let mut op_heads = self.ops.as_ref().map(OpSet::heads).unwrap_or_default();
        op_heads.truncate(PASS_OPS_MAX);
        let mut urls = self.relays.urls();
        if way == Way::Words {
            // This device may be what was lost.
            urls.extend(self.peers.values().flat_map(|peer| peer.lan.iter().cloned()));
        }
        urls.extend(lan.iter().cloned());
        urls.truncate(PASS_URLS_MAX);
        Pass { way, workspace: self.id, secret, op_heads, root, urls, name: self.name.clone() }
    }

    /// Asks at the door, in a room where somebody is.
    pub(super) fn ask_at_door(&mut self, now: Timestamp, link: LinkId, room: RoomId) {
        let Phase::Enrolling(enrolling) = &mut self.phase else { return };
        enrolling.tries += 1;
        enrolling.next_mono = now.after_ms(doubled(AGAIN_MS, enrolling.tries, AGAIN_MS_MAX));
        let (workspace, door) = (self.id, enrolling.pass.door());
        let (device, label) = (&self.identity.device, &self.identity.label);
        let (op, reply) = (enrolling.op.as_ref(), &enrolling.reply);
        match seal_request(&workspace, &door, device, label, op, reply, &mut self.rng) {
            Some(sealed) => {
                let payload = sealed.into_bytes();
                self.send(link, Rank::Control, ClientFrame::Publish { room, payload });
            }
            None => self.problem("This pass cannot be used: ask for a new one.".into()),
        }
    }

    /// Somebody came to the door we ask at.
    pub(super) fn ask_at_door_soon(&mut self, now: Timestamp) {
        if let Phase::Enrolling(enrolling) = &mut self.phase {
            enrolling.tries = 0;
            enrolling.next_mono = enrolling.next_mono.min(now.after_ms(50));
        }
    }

    /// Something came at a door: a request, if we are a member; an answer, if we wait for one.
    pub(super) fn at_a_door(
        &mut self,
        now: Timestamp,
        route: Route,
        door: Option<EpochId>,
        payload: &[u8],
        tx: &Tx<'_>,
    ) {
        if let Phase::Enrolling(enrolling) = &mut self.phase {
            match enrolling.opener.push(payload) {
                Ok(Some(enrolled)) => self.enrolled(enrolled, tx),
                Ok(None) => {}
                // Requests and answers of other devices pass here too.
                Err(EnrolError::NotForUs) => {
                    let (pass, reply) = (&enrolling.pass, &enrolling.reply);
                    if let Some(refusal) = open_refusal(&pass.workspace, &pass.door(), reply, payload) {
                        self.problem(refusal.advice().into());
                    }
                }
                Err(error) => self.reject(&error.to_string()),
            }
            return;
        }
        if !self.is_active() || self.membership.role_of(&self.my_device()).is_none_or(|role| role < Role::Reader) {
            return;
        }
        match door {
            Some(epoch) => self.asked_by_words(now, route, epoch, payload),
            None => self.asked_by_device(now, route, payload),
        }
    }

    /// A device comes by its member's words.
    fn asked_by_words(&mut self, now: Timestamp, route: Route, epoch: EpochId, payload: &[u8]) {
        let Some(keys) = self.vault.keyring.get(&epoch).map(|held| DoorKeys::of_epoch(held)) else { return };
        let Some(request) = open_request(&self.id, &keys, payload) else { return };
        let Some(op) = &request.op else { return };
        let Signer::Root(root) = op.signer() else { return };
        let (device, known) = (request.device.id(), self.knows(&op.id()));
        self.doors.pending.retain(|pending| pending.request.device.id() != device);
        if device == self.my_device() || self.doors.pending.len() >= REQUESTS_MAX {
            return;
        }
        let ours = root == self.identity.root_public.sign;
        let due_mono = now.after_ms(if ours { 0 } else { self.door_slot(&device) });
        self.doors.pending.push(Pending { due_mono, route, door: epoch, request, known });
    }

    /// Lets a device in that its member's words introduce.
    fn answer_words(&mut self, now: Timestamp, pending: &Pending, tx: &Tx<'_>) {
        let Some(keys) = self.vault.keyring.get(&pending.door).map(|held| DoorKeys::of_epoch(held)) else { return };
        let Some(op) = &pending.request.op else { return };
        let Signer::Root(root) = op.signer() else { return };
        if !self.membership.members.contains_key(&root) {
            return self.refuse(pending.route, &keys, &pending.request, Refusal::NotAMember);
        }
        if self.knows(&op.id()) {
            if !pending.known {
                // Somebody was faster.
                return;
            }
        } else {
            if !op.parents().iter().all(|parent| self.knows(parent)) {
                // Whoever made the pass knows more than we do yet.
                return;
            }
            if self.judge(op) != Lawful::Yes {
                return self.refuse(pending.route, &keys, &pending.request, Refusal::TooOld);
            }
            self.publish_op(op, tx);
        }
        if !self.is_active_device(&pending.request.device.id()) {
            return self.refuse(pending.route, &keys, &pending.request, Refusal::TooOld);
        }
        self.answer_door_with(now, pending.route, &keys, &pending.request);
    }

    fn is_active_device(&self, device: &DeviceId) -> bool {
        self.membership.devices.get(device).is_some_and(|device| device.active)
    }

    /// Sends a device that is in everything it needs to begin.
    fn answer_door_with(&mut self, now: Timestamp, route: Route, keys: &DoorKeys, request: &EnrolRequest) {
        let Some(epoch) = self.sealing_epoch().and_then(|id| self.vault.keyring.get(&id).cloned()) else {
            // A new epoch is about to be minted; the device asks again and gets that one.
            return self.mint_soon(now);
        };
        let Some(role) = self.membership.role_of(&request.device.id()) else { return };
        let Some(slot) = wrap_slot(&epoch, &request.device.kem, role, &mut self.rng) else { return };
        let slot = WrappedSlot { epoch: epoch.id(), slot };
        let Some(set) = self.ops.as_ref() else { return };
        match make_enrol_answer(set, keys, slot, &request.reply_key, &mut self.rng) {
            Some(parts) => parts.into_iter().for_each(|sealed| self.send_at_door(route, sealed.into_bytes())),
            None => self.problem("The membership history is too long to be sent to a new device.".into()),
        }
    }

    fn refuse(&mut self, route: Route, keys: &DoorKeys, request: &EnrolRequest, refusal: Refusal) {
        let sealed = make_refusal(&self.id, keys, &request.reply_key, refusal, &mut self.rng);
        if let Some(sealed) = sealed {
            self.send_at_door(route, sealed.into_bytes());
        }
    }

    fn send_at_door(&mut self, route: Route, payload: Bytes) {
        self.send(route.link, Rank::Control, ClientFrame::Send { room: route.room, to: route.peer, payload });
    }

    /// Makes a pass for another device of ours and listens for it until then; one at a time.
    pub(super) fn pair(&mut self, now: Timestamp, until_mono: u64, lan: &[String], tx: &Tx<'_>) -> Reply {
        if !self.is_active() {
            return self.not_in();
        }
        let secret = Secret::random(&mut self.rng);
        let root = self.identity.root_public.sign;
        let pass = self.pass(now, Way::Device, secret, root, lan, tx);
        let keys = pass.door();
        self.doors.pairing = Some(Pairing { keys, until_mono, asks: None, shown: Shown::Waiting });
        self.sync_rooms(now);
        Reply::Pass(pass.to_text())
    }

    /// Where the pairing stands.
    pub(super) fn pairing(&self) -> Reply {
        Reply::Pairing(self.doors.pairing.as_ref().map_or(Shown::None, |pairing| pairing.shown.clone()))
    }

    /// A device asks at the door of our pass.
    fn asked_by_device(&mut self, now: Timestamp, route: Route, payload: &[u8]) {
        let Some(pairing) = &mut self.doors.pairing else { return };
        let keys = pairing.keys.clone();
        let Some(request) = open_request(&self.id, &keys, payload).filter(|request| request.op.is_none()) else {
            return;
        };
        let id = request.device.id();
        match (&pairing.shown, &pairing.asks) {
            (Shown::Waiting, None) => {
                let words = pairing_words(&keys, &request.device);
                pairing.shown = Shown::Asks { device: id, label: request.label.clone(), words };
                pairing.asks = Some((route, request));
            }
            (Shown::Asks { device, .. }, _) if *device == id => pairing.asks = Some((route, request)),
            (Shown::Done { device, .. }, _) if *device == id => {
                // It did not hear that it is in, or there was no key for it then.
                if self.is_active_device(&id) {
                    self.answer_door_with(now, route, &keys, &request);
                }
            }
            (Shown::Asks { .. }, _) => {
                // Two devices at a door that one pass leads to: somebody else has the pass, and people compare badly.
                pairing.shown = Shown::Failed(
                    "Two devices came by this pass: somebody else has it. Nobody was let in; begin anew, and send the pass \
                     over a channel you trust."
                        .into(),
                );
                pairing.asks = None;
            }
            (Shown::Waiting | Shown::None | Shown::Done { .. } | Shown::Failed(_), _) => {}
        }
    }

    /// The person compared the words, and says whether they are the same.
    pub(super) fn accept_device(&mut self, now: Timestamp, device: DeviceId, same: bool, tx: &Tx<'_>) -> Reply {
        // Another one than was compared may ask by now, at the door of a later pass.
        let asks = self.doors.pairing.as_mut().and_then(|pairing| {
            let asks = pairing.asks.take_if(|(_, request)| request.device.id() == device)?;
            Some((pairing.keys.clone(), asks))
        });
        let Some((keys, (route, request))) = asks else {
            return Reply::Refused("No device asks; begin with `weft devices add`.".into());
        };
        if !same {
            self.refuse(route, &keys, &request, Refusal::Declined);
            self.set_pairing(Shown::Failed("The words differed; nobody was let in.".into()));
            return Reply::Done;
        }
        let cert = DeviceCert::by_device(&self.identity.device, self.identity.root_public, request.device);
        let op = self.sign_op(now, OpBody::Device { cert, label: request.label.clone() });
        let Some(op) = op.filter(|op| self.judge(op) == Lawful::Yes) else {
            let why = "This device may not let that one in. A revoked device comes back by your words only: weft identity \
                       recover";
            self.set_pairing(Shown::Failed(why.into()));
            return Reply::Refused(why.into());
        };
        self.publish_op(&op, tx);
        self.answer_door_with(now, route, &keys, &request);
        self.set_pairing(Shown::Done { device, label: request.label });
        Reply::Done
    }

    fn set_pairing(&mut self, shown: Shown) {
        if let Some(pairing) = &mut self.doors.pairing {
            pairing.shown = shown;
        }
    }

    pub(super) fn run_enrol(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.doors.pending).into_iter().partition(|pending| pending.due_mono <= now.mono_ms);
        self.doors.pending = later;
        for pending in &due {
            self.answer_words(now, pending, tx);
        }
        if self.doors.pairing.as_ref().is_some_and(|pairing| pairing.until_mono <= now.mono_ms) {
            self.doors.pairing = None;
            self.sync_rooms(now);
        }
        let Phase::Enrolling(enrolling) = &mut self.phase else { return };
        if enrolling.next_mono > now.mono_ms {
            return;
        }
        // Somebody coming to the door sets an earlier time.
        enrolling.next_mono = now.after_ms(AGAIN_MS_MAX);
        let doors: Vec<_> = self
            .links
            .0
            .iter()
            .flat_map(|(link, state)| state.rooms.iter().map(|(room, state)| (*link, *room, state)))
            .filter(|(_, _, state)| matches!(state.purpose, Purpose::Door(_)) && !state.peers.is_empty())
            .map(|(link, room, _)| (link, room))
            .collect();
        for (link, room) in doors {
            self.ask_at_door(now, link, room);
        }
    }

    pub(super) fn enrol_deadline(&self) -> Option<u64> {
        let enrolling = match &self.phase {
            Phase::Enrolling(enrolling) => Some(enrolling.next_mono),
            Phase::Joining(_) | Phase::Active | Phase::Left => None,
        };
        let pairing = self.doors.pairing.as_ref().map(|pairing| pairing.until_mono);
        self.doors.pending.iter().map(|pending| pending.due_mono).chain(enrolling).chain(pairing).min()
    }

    /// We are in: what the answer brought becomes ours. The opener has checked that it is what the pass promised.
    fn enrolled(&mut self, enrolled: Enrolled, tx: &Tx<'_>) {
        let Enrolled { ops, epoch } = enrolled;
        tx.delete(Table::Meta, ENROLLING);
        self.come_in(ops, epoch, tx);
        self.take_certificate();
        self.effects.push(Output::Admitted { name: self.name.clone() });
    }

    /// After a start: the shell may have ended before it kept what we became.
    pub(super) fn heal_certificate(&mut self) {
        let mine = self.membership.devices.get(&self.my_device()).filter(|device| device.active);
        if mine.is_some_and(|device| device.root != self.identity.root_public.sign) {
            self.take_certificate();
        }
    }

    /// Becomes what the membership says that this device is, and tells the shell, which keeps identities.
    fn take_certificate(&mut self) {
        let Some(device) = self.membership.devices.get(&self.my_device()) else { return };
        let Some(name) = self.membership.members.get(&device.root).map(|member| member.name.clone()) else { return };
        let certificate = |id: &crate::id::OpId| {
            let OpBody::Device { cert, .. } = self.ops.as_ref()?.get(id)?.body() else { return None };
            Some(cert.clone())
        };
        let Some(cert) = device.introduced_by.iter().find_map(certificate) else { return };
        if let Some(identity) = self.identity.certified(cert.clone(), &name) {
            self.effects.push(Output::Enrolled { cert, name });
            self.identity = identity;
        }
    }
}
