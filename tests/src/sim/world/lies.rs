//! A relay that lies: it drops, reorders, doubles, damages, cuts short, delays, withholds, replays and misattributes what it
//! delivers, says that peers left who did not, and goes back to an earlier state.
//!
//! It holds no key, so it can do no more than that. Until the world is healed; then it is honest again, and everything
//! must be as if it always had been. Spec: docs/simulation.md#liars.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::workspace::input::{Input, LinkId};
use weft_protocol::frame::{PeerId, ServerFrame};
use weft_protocol::id::RoomId;

use super::{ConnId, Step, World};
use crate::sim::machine::Machine;

/// Most messages that a relay remembers, to say them again.
const HEARD_MAX: usize = 256;
/// Most messages of an earlier state that it says again in a row.
const ROLL_BACK_MAX: u64 = 24;
/// The longest that it keeps a peer's messages from somebody, in virtual microseconds.
const WITHHOLD_US_MAX: u64 = 12_000_000;

/// A message as a relay passes it on.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The room it says.
    pub(super) room: RoomId,
    /// The peer it says.
    pub(super) from: PeerId,
    /// The sealed bytes.
    pub(super) payload: Bytes,
}

/// A way to lie about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never comes.
    Drop,
    /// It comes twice.
    Double,
    /// Bits of it are flipped.
    Corrupt,
    /// Its end is missing.
    CutShort,
    /// It comes seconds later.
    Delay,
    /// It comes after the next one.
    Reorder,
    /// Something older comes before it, as if it were new.
    Replay,
    /// It comes in another room, from another peer.
    Misattribute,
    /// It comes, and its sender is said to have left.
    Gone,
    /// From here on nothing of its sender's comes for a while.
    Withhold,
    /// Its room is said to be as it was when it was entered, and what was said there then is said again instead of it.
    RollBack,
}

/// All of them.
pub const FAULTS: [Fault; 11] = [
    Fault::Drop,
    Fault::Double,
    Fault::Corrupt,
    Fault::CutShort,
    Fault::Delay,
    Fault::Reorder,
    Fault::Replay,
    Fault::Misattribute,
    Fault::Gone,
    Fault::Withhold,
    Fault::RollBack,
];

/// What relays that lie keep.
#[derive(Debug, Default)]
pub(super) struct Lying {
    /// What they delivered.
    heard: Vec<Delivery>,
    /// Messages that wait for the next one on their connection.
    swapped: BTreeMap<ConnId, Delivery>,
    /// Until when what a peer says does not reach a connection.
    withheld: BTreeMap<(ConnId, PeerId), u64>,
    /// How rooms were when they were entered.
    entered: BTreeMap<(ConnId, RoomId), ServerFrame>,
    /// How often they lied, each way.
    pub(super) count: [u64; FAULTS.len()],
}

impl Lying {
    fn counts(&mut self, fault: Fault) {
        let at = FAULTS.iter().position(|known| *known == fault);
        if let Some(count) = at.and_then(|at| self.count.get_mut(at)) {
            *count += 1;
        }
    }

    /// A room is entered.
    pub(super) fn remember(&mut self, id: ConnId, frame: &ServerFrame) {
        if let ServerFrame::Joined { room, .. } = frame {
            self.entered.insert((id, *room), frame.clone());
        }
    }
}

impl<M: Machine> World<M> {
    /// Delivers, or lies.
    pub(super) fn deliver_or_lie(&mut self, id: ConnId, delivery: Delivery) {
        if self.lying.heard.len() >= HEARD_MAX {
            self.lying.heard.remove(0);
        }
        self.lying.heard.push(delivery.clone());
        let before = self.lying.swapped.remove(&id);
        let withheld = self.lying.withheld.get(&(id, delivery.from)).is_some_and(|until_us| *until_us > self.now_us);
        if withheld {
            self.lying.counts(Fault::Withhold);
        } else if self.network.chance(self.case.profile.lies) {
            let fault = FAULTS.get(self.network.index(FAULTS.len())).copied().unwrap_or(Fault::Drop);
            self.lying.counts(fault);
            self.lie_about(fault, id, delivery);
        } else {
            self.deliver(id, delivery);
        }
        if let Some(before) = before {
            self.deliver(id, before);
        }
    }

    fn lie_about(&mut self, fault: Fault, id: ConnId, delivery: Delivery) {
        match fault {
            Fault::Drop => {}
            Fault::Double => {
                self.deliver(id, delivery.clone());
                self.deliver(id, delivery);
            }
            Fault::Corrupt => {
                let damaged = self.damaged(delivery);
                self.deliver(id, damaged);
            }
            Fault::CutShort => {
                let keep = self.network.index(delivery.payload.len() + 1);
                let payload = delivery.payload.slice(..keep);
                self.deliver(id, Delivery { payload, ..delivery });
            }
            Fault::Delay => {
                let late_us = self.network.between(1_000, 8_000_000);
                self.after(late_us, Step::Late(id, delivery));
            }
            Fault::Reorder => drop(self.lying.swapped.insert(id, delivery)),
            Fault::Replay => {
                // Something older, from anybody, as if it came now; and this one too.
                if let Some(old) = self.some_heard() {
                    self.deliver(id, old);
                }
                self.deliver(id, delivery);
            }
            Fault::Misattribute => {
                // The right bytes in another room, from another peer.
                if let Some(Delivery { room, from, .. }) = self.some_heard() {
                    self.deliver(id, Delivery { room, from, payload: delivery.payload });
                }
            }
            Fault::Gone => {
                let (room, peer) = (delivery.room, delivery.from);
                self.deliver(id, delivery);
                self.tell_agent(id, ServerFrame::PeerLeft { room, peer });
            }
            Fault::Withhold => {
                let until_us = self.now_us + self.network.between(1_000_000, WITHHOLD_US_MAX);
                self.lying.withheld.insert((id, delivery.from), until_us);
            }
            Fault::RollBack => {
                let count = self.network.between(1, ROLL_BACK_MAX) as usize;
                let there = self.lying.heard.iter().filter(|old| old.room == delivery.room);
                let old: Vec<Delivery> = there.take(count).cloned().collect();
                if let Some(entered) = self.lying.entered.get(&(id, delivery.room)).cloned() {
                    self.tell_agent(id, entered);
                }
                for old in old {
                    self.deliver(id, old);
                }
            }
        }
    }

    fn some_heard(&mut self) -> Option<Delivery> {
        let at = self.network.index(self.lying.heard.len());
        self.lying.heard.get(at).cloned()
    }

    fn damaged(&mut self, delivery: Delivery) -> Delivery {
        let mut bytes = delivery.payload.to_vec();
        for _ in 0..self.network.between(1, 3) {
            let at = self.network.index(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.network.below(8);
            }
        }
        Delivery { payload: bytes.into(), ..delivery }
    }

    /// Says this to the agent behind a connection, if it is still there.
    pub(super) fn deliver(&mut self, id: ConnId, Delivery { room, from, payload }: Delivery) {
        self.tell_agent(id, ServerFrame::Deliver { room, from, payload });
    }

    fn tell_agent(&mut self, id: ConnId, frame: ServerFrame) {
        if let Some(host) = self.client_of(id) {
            self.feed(host, Input::Frame { link: LinkId(id), frame });
        }
    }
}
