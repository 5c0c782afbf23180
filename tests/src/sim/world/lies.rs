//! A relay that lies: it drops, doubles, damages, cuts short, delays, replays and misattributes what it delivers.
//!
//! It holds no key, so it can do no more than that. Until the world is healed; then it is honest again, and everything
//! must be as if it always had been. Spec: docs/simulation.md#liars.

use bytes::Bytes;
use weft_agent_core::workspace::input::{Input, LinkId};
use weft_protocol::frame::{PeerId, ServerFrame};
use weft_protocol::id::RoomId;

use super::{ConnId, Step, World};
use crate::sim::machine::Machine;

/// Most messages that a relay remembers, to say them again.
const HEARD_MAX: usize = 256;

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

impl<M: Machine> World<M> {
    /// Delivers, or lies.
    pub(super) fn deliver_or_lie(&mut self, id: ConnId, delivery: Delivery) {
        if self.heard.len() >= HEARD_MAX {
            self.heard.remove(0);
        }
        self.heard.push(delivery.clone());
        if !self.network.chance(self.case.profile.lies) {
            return self.deliver(id, delivery);
        }
        match self.network.below(8) {
            0 => {}
            1 => {
                self.deliver(id, delivery.clone());
                self.deliver(id, delivery);
            }
            2 => {
                let damaged = self.damaged(delivery);
                self.deliver(id, damaged);
            }
            3 => {
                let keep = self.network.index(delivery.payload.len() + 1);
                let payload = delivery.payload.slice(..keep);
                self.deliver(id, Delivery { payload, ..delivery });
            }
            4 => {
                let late_us = self.network.between(1_000, 8_000_000);
                self.after(late_us, Step::Late(id, delivery));
            }
            5 => {
                // Something older, from anybody, as if it came now; and this one too.
                let old = self.network.index(self.heard.len());
                if let Some(old) = self.heard.get(old).cloned() {
                    self.deliver(id, old);
                }
                self.deliver(id, delivery);
            }
            6 => {
                // The right bytes in another room, from another peer.
                let other = self.network.index(self.heard.len());
                if let Some(Delivery { room, from, .. }) = self.heard.get(other).cloned() {
                    self.deliver(id, Delivery { room, from, payload: delivery.payload });
                }
            }
            _ => {
                let (room, peer) = (delivery.room, delivery.from);
                self.deliver(id, delivery);
                self.tell_agent(id, ServerFrame::PeerLeft { room, peer });
            }
        }
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
