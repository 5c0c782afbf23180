//! A member who lies: its agent is an honest one, and beside it somebody says things with the same keys.
//!
//! Until the world is healed; then it is gone, and those who stay must agree on everything, have lost nothing of their own,
//! and blame nobody else. Spec: docs/simulation.md#hostile.

use weft_agent_core::workspace::input::LinkId;
use weft_agent_core::workspace::output::Rank;
use weft_protocol::frame::ClientFrame;

use super::World;
use crate::sim::dice::Dice;
use crate::sim::host::Phase;
use crate::sim::machine::Machine;

impl<M: Machine> World<M> {
    /// The host's member says what is not so, on one of its connections or on all.
    pub(super) fn lie(&mut self, index: usize, pick: u64) {
        let now = self.timestamp(index);
        let mut dice = Dice::new(self.case.seed, "malice", pick);
        let Some(host) = self.hosts.get(index).filter(|host| host.phase == Phase::Active && host.admitted) else {
            return;
        };
        let lies = M::lie(&host.identity, &host.disk.store, now, &mut dice);
        let ours = host.conns.values().copied();
        let conns: Vec<_> = ours.filter(|id| self.conns.get(id).is_some_and(|conn| conn.is_linked())).collect();
        for (room, payload) in lies {
            self.note(|| format!("h{index} lies, {} bytes", payload.len()));
            self.witness.forged(&payload);
            for conn in &conns {
                if dice.chance(800) {
                    let frame = ClientFrame::Publish { room, payload: payload.clone() };
                    self.send(index, LinkId(*conn), Rank::Live, frame);
                }
            }
        }
    }

    /// Whoever lied is gone, with all it has.
    pub(super) fn end_malice(&mut self) {
        if self.case.profile.malice == 0 {
            return;
        }
        let liar = self.hosts.len() - 1;
        let conns: Vec<_> = self.hosts.get(liar).map(|host| host.conns.values().copied().collect()).unwrap_or_default();
        for conn in conns {
            self.cut(conn, 1_000);
        }
        if let Some(host) = self.hosts.get_mut(liar) {
            host.halt();
            host.phase = Phase::Left;
        }
    }
}
