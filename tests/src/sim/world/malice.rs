//! A member who lies: its agent is an honest one, and beside it somebody says things with the same keys.
//!
//! In a poisoned world what it says are checkpoints. Until the world is healed; then it is gone, and those who stay must
//! agree on everything, have lost nothing of their own, and blame nobody else. Spec: docs/simulation.md#hostile-members.

use weft_agent_core::disk::RelPath;
use weft_agent_core::workspace::input::LinkId;
use weft_agent_core::workspace::output::Rank;
use weft_protocol::frame::{ClientFrame, PeerId};

use super::{ConnId, Step, World};
use crate::sim::dice::Dice;
use crate::sim::folder::Node;
use crate::sim::host::Phase;
use crate::sim::machine::Machine;
use crate::sim::malice::poison::FORGED;
use crate::sim::malice::{Lie, Malice};

impl<M: Machine> World<M> {
    /// The host's member says what is not so, on one of its connections or on all.
    pub(super) fn lie(&mut self, index: usize, pick: u64) {
        let now = self.timestamp(index);
        let mut dice = Dice::new(self.case.seed, "malice", pick);
        if self.healed {
            return;
        }
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.phase == Phase::Active && host.admitted) else {
            return;
        };
        let Some(malice) = M::malice(&host.identity, &host.disk.store) else { return };
        let lies = if self.case.profile.poison {
            let Some(poison) = malice.poison(&host.disk.store, &mut dice) else { return };
            for (id, sealed) in poison.pieces {
                host.disk.write_piece(id, sealed);
            }
            self.note(|| format!("h{index} offers a checkpoint that lies: {:?}", poison.lie));
            vec![poison.offer]
        } else {
            malice.lie(now, &mut dice)
        };
        self.say_lies(index, &malice, lies, &mut dice);
    }

    /// Somebody says what is no honest agent's, on most of its connections.
    pub(super) fn say_lies(&mut self, index: usize, malice: &Malice, lies: Vec<Lie>, dice: &mut Dice) {
        for (room, said) in lies {
            for conn in self.linked(index) {
                if dice.chance(800) {
                    let name = self.names.get(&(conn, room)).copied().unwrap_or(PeerId([0; 16]));
                    let Some(payload) = malice.says_as(name, &said, dice) else { continue };
                    self.note(|| format!("h{index} lies, {} bytes", payload.len()));
                    self.witness.forged(&payload);
                    let frame = ClientFrame::Publish { room, payload };
                    self.send(index, LinkId(conn), Rank::Live, frame);
                }
            }
        }
    }

    /// Somebody came where the liar is: whoever is new there lacks much.
    pub(super) fn poison_soon(&mut self, index: usize) {
        if self.case.profile.poison && index == self.case.profile.liar() && !self.healed && self.network.chance(700) {
            let (delay_us, pick) = (self.network.between(0, 400_000), self.network.any());
            self.after(delay_us, Step::Lie { host: index, pick });
        }
    }

    /// The host's connections that its agent was told of.
    pub(super) fn linked(&self, index: usize) -> Vec<ConnId> {
        let ours = self.hosts.get(index).into_iter().flat_map(|host| host.conns.values().copied());
        ours.filter(|id| self.conns.get(id).is_some_and(|conn| conn.is_linked())).collect()
    }

    /// Whether a host's folder shows what a liar forged.
    pub(super) fn shows_forged(&self, index: usize) -> bool {
        let holds = |host: &crate::sim::host::Host<M>| host.folder.iter().any(|(path, node)| is_forged(path, node));
        self.case.profile.poison && self.hosts.get(index).is_some_and(holds)
    }

    /// Whoever lied is gone, with all it has.
    pub(super) fn end_malice(&mut self) {
        if self.case.profile.malice > 0 {
            self.silence(self.case.profile.liar());
            // Whoever it invited knocks in vain.
            self.links_may_be_void();
        }
    }

    /// A host is gone for good.
    pub(super) fn silence(&mut self, index: usize) {
        let conns: Vec<_> =
            self.hosts.get(index).map(|host| host.conns.values().copied().collect()).unwrap_or_default();
        for conn in conns {
            self.cut(conn, 1_000);
        }
        if let Some(host) = self.hosts.get_mut(index) {
            host.halt();
            host.phase = Phase::Left;
        }
    }
}

/// Whether this is a liar's work: by its name, or by what is in it.
#[must_use]
pub fn is_forged(path: &RelPath, node: &Node) -> bool {
    let inside = |bytes: &[u8]| bytes.windows(FORGED.len()).any(|window| window == FORGED.as_bytes());
    path.as_str().contains(FORGED) || matches!(node, Node::File { bytes, .. } if inside(bytes))
}
