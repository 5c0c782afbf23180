//! Outputs, and what must be durable before each may leave.
//!
//! Invariant: a frame or an action in the folder leaves only when every batch handed out before it, and the one of the
//! same `handle`, is durable; and before the first frame that can carry a new envelope of our own, the watermark covers
//! it. Why: after a crash Automerge would reuse (actor, seq) and the chain would reuse a number; what a peer has seen or
//! what stands in the folder must never be more than what we remember.
//! Spec: docs/sync.md#stored-before-sent.

use std::collections::{BTreeSet, VecDeque};

use weft_protocol::frame::ClientFrame;

use crate::files::ActionId;
use crate::setup::Watermark;
use crate::store::{Tx, Write};
use crate::workspace::input::Token;
use crate::workspace::output::{Output, Rank};

/// Collects outputs while an input is handled, and gives them out in an order that a crash cannot make a lie.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Made by the input being handled.
    made: Vec<Output>,
    /// May be taken now.
    ready: VecDeque<Output>,
    /// Wait for a batch.
    gated: VecDeque<(Token, Output)>,
    /// Batches under way, and the highest place of our own chain that is durable with each.
    unpersisted: VecDeque<(Token, Watermark)>,
    last_token: u64,
    persisted: u64,
    /// The place of our own chain up to which everything is durable.
    durable: Watermark,
    /// As last raised.
    watermark: Watermark,
}

/// Whether an output tells somebody, or does something, that a crash must not make us forget.
fn is_gated(output: &Output) -> bool {
    match output {
        // Who goes for good leaves a room after its last words, so after what those wait for.
        Output::Send { frame: ClientFrame::Leave { .. }, rank, .. } => *rank == Rank::Live,
        Output::Send { frame, .. } => matches!(frame, ClientFrame::Publish { .. } | ClientFrame::Send { .. }),
        Output::Act(..) | Output::Reply(..) | Output::Admitted { .. } | Output::Enrolled { .. } => true,
        Output::Persist { .. }
        | Output::Close { .. }
        | Output::Look(_)
        | Output::Watermark { .. }
        | Output::Halted(_)
        | Output::Addresses { .. }
        | Output::Event(_) => false,
    }
}

impl Effects {
    /// With the watermark as found, and the tip of our own chain as stored (hence durable).
    pub(super) fn new(watermark: Watermark, durable: Watermark) -> Self {
        Self { watermark, durable, ..Self::default() }
    }

    /// Something to do, once what this input writes is durable if it must.
    pub(super) fn push(&mut self, output: Output) {
        self.made.push(output);
    }

    /// Ends the handling of one input: its writes become a batch. `own` is the tip of our own chain now.
    pub(super) fn commit(&mut self, tx: Tx<'_>, own: Watermark) {
        let batch: Vec<Write> = tx.into_writes();
        if !batch.is_empty() {
            self.last_token += 1;
            let token = Token(self.last_token);
            self.unpersisted.push_back((token, own));
            self.ready.push_back(Output::Persist { token, batch });
        }
        for output in std::mem::take(&mut self.made) {
            if is_gated(&output) && self.last_token > self.persisted {
                self.gated.push_back((Token(self.last_token), output));
            } else {
                self.release(output);
            }
        }
    }

    /// Drops the actions in the folder that have not left yet, and names them: what they were based on is void.
    pub(super) fn forget_actions(&mut self) -> BTreeSet<ActionId> {
        let mut dropped = BTreeSet::new();
        let mut stays = |output: &Output| {
            if let Output::Act(action, _) = output {
                dropped.insert(*action);
            }
            !matches!(output, Output::Act(..))
        };
        self.made.retain(&mut stays);
        self.gated.retain(|(_, output)| stays(output));
        self.ready.retain(&mut stays);
        dropped
    }

    /// Everything up to `token` is durable.
    pub(super) fn persisted(&mut self, token: Token) {
        self.persisted = self.persisted.max(token.0);
        while let Some((first, own)) = self.unpersisted.front() {
            if first.0 > self.persisted {
                break;
            }
            self.durable = *own;
            self.unpersisted.pop_front();
        }
        while let Some((first, _)) = self.gated.front() {
            if first.0 > self.persisted {
                break;
            }
            if let Some((_, output)) = self.gated.pop_front() {
                self.release(output);
            }
        }
    }

    fn release(&mut self, output: Output) {
        if is_gated(&output) && self.durable > self.watermark && matches!(output, Output::Send { .. }) {
            self.watermark = self.durable;
            self.ready
                .push_back(Output::Watermark { incarnation: self.watermark.incarnation, seq: self.watermark.seq });
        }
        self.ready.push_back(output);
    }

    /// Whether some batch is not durable yet.
    pub(super) fn in_flight(&self) -> bool {
        self.last_token > self.persisted
    }

    /// The next output.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, Table};
    use crate::workspace::input::LinkId;
    use bytes::Bytes;
    use weft_protocol::id::RoomId;

    fn send() -> Output {
        let frame = ClientFrame::Publish { room: RoomId([0; 32]), payload: Bytes::new() };
        Output::Send { link: LinkId(1), rank: Rank::Live, frame }
    }

    /// A frame made with or after a write leaves only when the write is durable, and the watermark leaves before it.
    #[test]
    fn stored_before_sent_and_watermark_before_sent() {
        let store = MemoryStore::default();
        let mut effects = Effects::default();
        let own = Watermark { incarnation: 1, seq: 1 };
        let tx = Tx::new(&store);
        tx.put(Table::Meta, *b"a", &b"1"[..]);
        effects.push(send());
        effects.commit(tx, own);
        assert!(matches!(effects.poll(), Some(Output::Persist { token: Token(1), .. })));
        assert_eq!(effects.poll(), None);
        // A later input without writes waits for the same batch.
        effects.push(send());
        effects.commit(Tx::new(&store), own);
        assert_eq!(effects.poll(), None);
        effects.persisted(Token(1));
        assert_eq!(effects.poll(), Some(Output::Watermark { incarnation: 1, seq: 1 }));
        assert_eq!(effects.poll(), Some(send()));
        assert_eq!(effects.poll(), Some(send()));
        assert_eq!(effects.poll(), None);
    }
}
