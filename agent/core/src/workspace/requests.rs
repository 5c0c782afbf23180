//! Knocks that wait for an admin: heard, listed, approved or denied.
//!
//! Invariant: by an invite with approval nobody is welcomed but by the command of an admin or owner; what waits is stored
//! before the joiner is told that it waits, bounded in number and time. Why: whoever has such a link has shown nothing yet
//! but that; people compare names and words before they decide. Spec: docs/sealing.md#approval.

use weft_protocol::cbor::{from_bytes, to_bytes};

use super::Workspace;
use super::admission::{Pending, a_role};
use super::command::{JoinRequestDetail, Reply};
use crate::id::{DeviceId, OpId};
use crate::identity::fingerprint;
use crate::invite::KnockKeys;
use crate::knock::{JoinRequest, Refusal};
use crate::membership::Role;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

const REQUEST: &[u8] = b"request/";
/// Requests kept, with those that were denied: more than anybody reads.
const REQUESTS_MAX: usize = 64;
/// ... and by one invite: a link that leaked must not crowd out the others.
const REQUESTS_PER_INVITE_MAX: usize = 16;
/// A request that was not heard again for so long is forgotten; a joiner knocks every minute while it runs.
const REQUEST_MS: u64 = 7 * 24 * 3_600_000;

fn request_key(device: &DeviceId) -> Vec<u8> {
    [REQUEST, &device.0].concat()
}

fn stored(read: &dyn Read) -> Vec<JoinRequest> {
    let rows = read.scan(Table::Meta, REQUEST, None, REQUESTS_MAX * 2);
    rows.iter().filter_map(|(_, row)| from_bytes(row).ok()).collect()
}

fn store(request: &JoinRequest, tx: &Tx<'_>) {
    tx.put(Table::Meta, request_key(&request.device()), to_bytes(request));
}

impl Workspace {
    fn may_approve(&self) -> bool {
        self.membership.role_of(&self.my_device()).is_some_and(|role| role >= Role::Admin)
    }

    /// Whether it still asks for something: its invite stands, and it was not let in meanwhile.
    fn still_asks(&self, request: &JoinRequest, now: Timestamp) -> bool {
        let open = self.membership.invites.get(&request.admission.invite()).is_some_and(|invite| invite.open);
        let inside = self.membership.devices.get(&request.device()).is_some_and(|device| device.active);
        open && !inside && request.last_wall_ms.saturating_add(REQUEST_MS) > now.wall_ms
    }

    /// What waits for this person's decision, the oldest first; nothing where they may not decide.
    fn open_requests(&self, now: Timestamp, read: &dyn Read) -> Vec<JoinRequest> {
        if !self.is_active() || !self.may_approve() {
            return Vec::new();
        }
        let mut open = stored(read);
        open.retain(|request| !request.denied && self.still_asks(request, now));
        open.sort_by_key(|request| (request.first_wall_ms, request.device()));
        open
    }

    /// How many wait for this person's decision.
    pub(super) fn requests_waiting(&self, now: Timestamp, read: &dyn Read) -> u64 {
        self.open_requests(now, read).len() as u64
    }

    /// A knock by an invite with approval: kept for the person here if they may decide. What the joiner is told.
    pub(super) fn hear_request(&mut self, now: Timestamp, pending: &Pending, tx: &Tx<'_>) -> Refusal {
        if !self.may_approve() {
            return Refusal::Waiting;
        }
        let mut all = stored(tx);
        for gone in all.iter().filter(|request| !self.still_asks(request, now)) {
            tx.delete(Table::Meta, request_key(&gone.device()));
        }
        all.retain(|request| self.still_asks(request, now));
        let mut request = JoinRequest::new(&pending.knock, now.wall_ms);
        let (device, invite) = (request.device(), pending.invite);
        if let Some(known) = all.iter().find(|known| known.device() == device) {
            request.first_wall_ms = known.first_wall_ms;
            // Another link is another question.
            request.denied = known.denied && known.admission.invite() == invite;
        } else {
            let by_invite = all.iter().filter(|request| request.admission.invite() == invite).count();
            if by_invite >= REQUESTS_PER_INVITE_MAX || all.len() >= REQUESTS_MAX {
                let same = |request: &&JoinRequest| {
                    by_invite < REQUESTS_PER_INVITE_MAX || request.admission.invite() == invite
                };
                let decided = all.iter().filter(|request| request.denied).filter(same);
                let Some(oldest) = decided.min_by_key(|request| request.last_wall_ms) else {
                    return Refusal::Crowded;
                };
                tx.delete(Table::Meta, request_key(&oldest.device()));
            }
        }
        store(&request, tx);
        self.knocks.remember_door(device, pending.route);
        if request.denied { Refusal::Denied } else { Refusal::Waiting }
    }

    /// `weft requests`.
    pub(super) fn list_requests(&self, now: Timestamp, read: &dyn Read) -> Reply {
        if let Some(refused) = self.may_not_decide() {
            return refused;
        }
        let detail = |request: JoinRequest| {
            let (admission, root) = (&request.admission, request.admission.cert().root().sign);
            let invite = self.membership.invites.get(&admission.invite());
            JoinRequestDetail {
                device: request.device(),
                root,
                name: admission.name().to_owned(),
                label: admission.label().to_owned(),
                fingerprint: fingerprint(&root),
                member: self.membership.members.get(&root).map(|member| member.name.clone()),
                invite: admission.invite(),
                role: invite.map_or(Role::Reader, |invite| invite.role),
                first_wall_ms: request.first_wall_ms,
                last_wall_ms: request.last_wall_ms,
            }
        };
        Reply::Requests(self.open_requests(now, read).into_iter().map(detail).collect())
    }

    fn may_not_decide(&self) -> Option<Reply> {
        if !self.is_active() {
            return Some(self.not_in());
        }
        let mine = self.membership.role_of(&self.my_device());
        let mine = mine.filter(|role| *role < Role::Admin)?;
        Some(Reply::Refused(format!("You are {} here: admins and owners let people in.", a_role(mine))))
    }

    fn request_of(&self, now: Timestamp, device: &DeviceId, read: &dyn Read) -> Result<JoinRequest, Reply> {
        if let Some(refused) = self.may_not_decide() {
            return Err(refused);
        }
        let found = self.open_requests(now, read).into_iter().find(|request| request.device() == *device);
        found.ok_or_else(|| Reply::Refused("Nobody of that name waits any more; `weft requests` lists them.".into()))
    }

    /// `weft approve`.
    pub(super) fn approve(&mut self, now: Timestamp, device: &DeviceId, tx: &Tx<'_>) -> Reply {
        let request = match self.request_of(now, device, tx) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let id = request.admission.invite();
        let Some(invite) = self.membership.invites.get(&id).cloned() else {
            return Reply::Refused("The invite is not known any more.".into());
        };
        let known = self.membership.members.contains_key(&request.admission.cert().root().sign);
        if !known && invite.used >= invite.uses {
            return Reply::Refused(Refusal::UsedUp.advice().into());
        }
        if self.sealing_epoch().is_none() {
            self.mint_soon(now);
            return Reply::Refused("A new key is being made since somebody left; try again in a moment.".into());
        }
        if let Err(refusal) = self.let_in(now, id, &request.admission, tx) {
            return Reply::Refused(format!("They cannot be let in. They are told: {}", refusal.advice()));
        }
        tx.delete(Table::Meta, request_key(device));
        if let Some(route) = self.knocks.door_of(device).filter(|route| self.links.is_live(*route)) {
            self.send_answer(route, id, &request.reply_key);
        }
        Reply::Done
    }

    /// `weft deny`.
    pub(super) fn deny(&mut self, now: Timestamp, device: &DeviceId, tx: &Tx<'_>) -> Reply {
        let request = match self.request_of(now, device, tx) {
            Ok(request) => JoinRequest { denied: true, ..request },
            Err(refused) => return refused,
        };
        store(&request, tx);
        if let Some(route) = self.knocks.door_of(device).filter(|route| self.links.is_live(*route)) {
            self.say_at_door(route, request.admission.invite(), &request.reply_key, Refusal::Denied);
        }
        Reply::Done
    }

    /// The keys of an invite that is known here.
    pub(super) fn knock_keys(&self, invite: &OpId) -> Option<KnockKeys> {
        self.membership.invites.get(invite).map(|facts| KnockKeys::new(&self.id, &facts.knock))
    }
}
