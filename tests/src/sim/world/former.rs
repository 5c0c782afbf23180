//! Somebody who was removed and goes on, with a program of their own and all the keys they had.
//!
//! The founder removes them; from then on what their host hears goes to [`Former`], which enters every room and lobby it can
//! and says what it likes, until the world is healed. Some stay on, silent, while the others settle. Invariant: they learn
//! nothing that was written by anybody who knew of the removal. Spec: docs/simulation.md#former-members.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::envelope::split_several;
use weft_agent_core::id::{OpId, RootKey};
use weft_agent_core::store::Write;
use weft_agent_core::workspace::command::{Command, RequestId};
use weft_agent_core::workspace::input::{Input, LinkUp};
use weft_agent_core::workspace::output::Rank;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::sign_room;
use weft_protocol::frame::{ClientFrame, ServerFrame};

use super::{Step, World};
use crate::sim::dice::Dice;
use crate::sim::host::Phase;
use crate::sim::machine::Machine;
use crate::sim::malice::former::{Former, Learnt, stands_on};
use crate::sim::malice::is_member_in;

/// Who could not be removed yet is tried again after this, in virtual microseconds.
const AGAIN_US: u64 = 1_000_000;

/// Somebody who was removed, at their host.
pub(super) struct Seat {
    index: usize,
    root: RootKey,
    former: Former,
    /// Whether they are still there, and silent, once the world is healed.
    stays: bool,
    /// The ops that removed them.
    removals: Vec<OpId>,
    /// Since when each host knows of it.
    knew_us: BTreeMap<usize, u64>,
}

impl<M: Machine> World<M> {
    /// Whether this is the host of who was removed.
    pub(super) fn is_former(&self, index: usize) -> bool {
        self.former.as_ref().is_some_and(|seat| seat.index == index)
    }

    /// The founder removes the one who goes on; later, if either is not there.
    pub(super) fn expel(&mut self, pick: u64) {
        let index = self.case.profile.liar();
        let runs = |host: &crate::sim::host::Host<M>| {
            host.phase == Phase::Active && host.machine.is_some() && host.admitted && host.disk.pending() == 0
        };
        if self.healed || self.former.is_some() {
            return;
        }
        let both = [0, index].into_iter().all(|index| self.hosts.get(index).is_some_and(runs));
        let host = self.hosts.get(index).filter(|_| both && !self.has_large_files_alone(index));
        let seat = host.and_then(|host| {
            let (former, root) = (Former::new(&host.identity, &host.disk.store)?, M::root(&host.identity)?);
            // Somebody else may have let them in, while the founder was away.
            let founder = self.hosts.first().filter(|founder| is_member_in(&root, &founder.disk.store));
            let (removals, knew_us) = founder.map(|_| (Vec::new(), BTreeMap::new()))?;
            Some(Seat { index, root, former, stays: pick.is_multiple_of(2), removals, knew_us })
        });
        let Some(seat) = seat else { return self.after(AGAIN_US, Step::Expel { pick }) };
        self.excuse_content_of(index);
        self.links_may_be_void();
        if let Some(host) = self.hosts.get_mut(index) {
            host.phase = Phase::Left;
        }
        self.note(|| format!("h0 removes h{index}, who goes on"));
        self.former = Some(seat);
        self.remove_former();
        let conns: Vec<_> =
            self.hosts.get(index).map(|host| host.conns.values().copied().collect()).unwrap_or_default();
        for conn in conns {
            // Their own program connects anew.
            self.cut(conn, 1_000);
        }
    }

    fn remove_former(&mut self) {
        let Some(root) = self.former.as_ref().map(|seat| seat.root) else { return };
        self.requests += 1;
        self.feed(0, Input::Command(RequestId(self.requests), Command::RemoveMember(root)));
    }

    /// Something comes to the host of who was removed.
    pub(super) fn former_hears(&mut self, index: usize, input: Input) {
        if let Input::LinkUp(up) = &input {
            self.enter_all(index, up);
        } else if let (Input::Frame { frame: ServerFrame::Deliver { payload, .. }, .. }, Some(seat)) =
            (&input, &mut self.former)
        {
            match split_several(payload) {
                Ok(envelopes) => envelopes.into_iter().for_each(|one| seat.former.hears(&Bytes::copy_from_slice(one))),
                Err(_) => seat.former.hears(payload),
            }
        }
    }

    fn enter_all(&mut self, index: usize, up: &LinkUp) {
        let (Ok(audience), Some(seat)) = (Audience::from_url(&up.url), &self.former) else { return };
        let joins: Vec<ClientFrame> = seat
            .former
            .rooms()
            .into_iter()
            .map(|key| {
                let proof = sign_room(key.signing_key(), &audience, &up.nonce, &up.connection);
                ClientFrame::Join { room: key.id, key: key.public(), proof }
            })
            .collect();
        for frame in joins {
            self.send(index, up.link, Rank::Control, frame);
        }
    }

    /// They say something.
    pub(super) fn haunt(&mut self, pick: u64) {
        let Some(index) = self.former.as_ref().map(|seat| seat.index).filter(|_| !self.healed) else { return };
        let now = self.timestamp(index);
        let mut dice = Dice::new(self.case.seed, "former", pick);
        let Some(seat) = self.former.take() else { return };
        let said = seat.former.says(now, &mut dice);
        self.say_lies(index, seat.former.malice(), said, &mut dice);
        self.former = Some(seat);
    }

    /// Somebody else said something: what would it tell them?
    pub(super) fn overheard(&mut self, by: usize, frame: &Bytes) {
        let payload = match ClientFrame::decode(frame.clone()) {
            Ok(ClientFrame::Publish { payload, .. } | ClientFrame::Send { payload, .. }) => payload,
            Ok(_) | Err(_) => return,
        };
        match split_several(&payload) {
            Ok(envelopes) => envelopes.into_iter().for_each(|one| self.overheard_one(by, &Bytes::copy_from_slice(one))),
            Err(_) => self.overheard_one(by, &payload),
        }
    }

    fn overheard_one(&mut self, by: usize, payload: &Bytes) {
        let (Some(seat), Some(host)) = (&mut self.former, self.hosts.get(by)) else { return };
        if seat.index == by {
            return;
        }
        match seat.former.learns(payload) {
            None => {}
            Some(Learnt::Keys(op, epoch)) => {
                if stands_on(&op, &seat.removals, &host.disk.store) {
                    let epoch = epoch.id();
                    self.witness
                        .fail("former", || format!("h{by} says the keys of {epoch:?} to who was removed before"));
                } else {
                    seat.former.holds(*epoch);
                }
            }
            Some(Learnt::Markers(numbers)) => {
                for number in numbers {
                    let Some(marker) = self.witness.markers.get(number).copied() else { continue };
                    let knew_us = seat.knew_us.get(&marker.host).copied();
                    if knew_us.is_some_and(|knew_us| marker.at_us > knew_us) {
                        let by = marker.host;
                        let detail =
                            format!("who was removed reads marker {number:06} that h{by} wrote and knew of it");
                        self.witness.fail("former", || detail);
                    }
                }
            }
        }
    }

    /// A host stores something: the removal, perhaps.
    pub(super) fn former_learnt(&mut self, index: usize, batch: &[Write]) {
        let Some(seat) = &mut self.former else { return };
        let found: Vec<OpId> = batch.iter().filter_map(|write| seat.former.removes(&seat.root, write)).collect();
        for op in found {
            seat.knew_us.entry(index).or_insert(self.now_us);
            if !seat.removals.contains(&op) {
                seat.removals.push(op);
            }
        }
    }

    /// A host died, and may know less than it did.
    pub(super) fn former_forgotten(&mut self, index: usize) {
        let (Some(seat), Some(host)) = (&mut self.former, self.hosts.get(index)) else { return };
        if !seat.former.is_removed_in(&seat.root, &host.disk.store) {
            seat.knew_us.remove(&index);
        }
    }

    /// They say nothing more. If the founder died before the removal was durable, it is done again.
    pub(super) fn end_former(&mut self) {
        let Some(seat) = &self.former else { return };
        let (index, stays) = (seat.index, seat.stays);
        if self.hosts.first().is_some_and(|host| !seat.former.is_removed_in(&seat.root, &host.disk.store)) {
            self.remove_former();
        }
        if !stays {
            self.silence(index);
        }
    }
}
