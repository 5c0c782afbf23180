//! A database that went back in time, found out, and the new life it begins.
//!
//! Invariant: no number of a chain is ever given to two envelopes. A replica that is behind what was sent of its own
//! chain leaves that chain for ever and begins the next incarnation from seq 1; what it had not sealed is dropped from
//! the documents and entered again from the disk, under the new actor.
//! Spec: docs/sync.md#incarnations.

use std::collections::BTreeSet;

use super::Workspace;
use super::birth::INCARNATION;
use super::outbox::{Batch, Outbox};
use super::output::Output;
use crate::content::DocumentName;
use crate::files::Author;
use crate::frontier::Frontier;
use crate::id::{ChainId, Place};
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// Most incarnations of a device that are accepted.
pub(super) const INCARNATIONS_MAX: u64 = 64;

impl Workspace {
    /// A peer stated what it holds: does it hold more of our own chain than we do?
    pub(super) fn note_own_chains(&mut self, now: Timestamp, theirs: &Frontier, tx: &Tx<'_>) {
        let me = self.my_device();
        let ahead = theirs
            .iter()
            .filter(|(chain, _)| chain.device == me && chain.incarnation >= self.own.chain.incarnation)
            .filter(|(chain, tip)| **chain != self.own.chain || tip.seq > self.own.tip.map_or(0, |own| own.seq))
            .map(|(chain, _)| chain.incarnation)
            .max();
        if let Some(incarnation) = ahead {
            self.found_out_rollback(now, incarnation, tx);
        }
    }

    /// This replica is behind what was sent under its name, up to this incarnation: begins the next.
    pub(super) fn found_out_rollback(&mut self, now: Timestamp, incarnation: u64, tx: &Tx<'_>) {
        let next = incarnation.max(self.own.chain.incarnation) + 1;
        if next > INCARNATIONS_MAX {
            self.reborn = true;
            self.problem("This device was restored from backups too often: run `weft leave` here and join again.".into());
            return;
        }
        let mut documents: BTreeSet<DocumentName> = BTreeSet::new();
        let mut ops = Vec::new();
        let orders = self.outbox.orders();
        for order in &orders {
            match Outbox::batch(*order, tx) {
                Some(Batch::Content(content)) => {
                    documents.extend(content.documents.into_iter().map(|(name, _)| name));
                }
                Some(Batch::Ops(batch)) => ops.push(batch),
                None => {}
            }
        }
        self.outbox.remove(&orders, tx);
        self.vault.forget_unsealed();
        let chain = ChainId { device: self.own.chain.device, incarnation: next };
        self.own = super::Own { chain, tip: None };
        tx.put(Table::Meta, INCARNATION, next.to_be_bytes().to_vec());
        self.files.set_chain(chain);
        for batch in ops {
            self.outbox.push(&Batch::Ops(batch), tx);
        }
        if !documents.is_empty() {
            self.replay(now, &documents, tx);
        }
        self.effects.push(Output::Look(Vec::new()));
    }

    /// Gives the accepted content of some documents to the files again.
    fn replay(&mut self, now: Timestamp, documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
        let tips: Vec<(ChainId, u64)> = self.frontier.iter().map(|(chain, tip)| (*chain, tip.seq)).collect();
        for (chain, last) in tips {
            for seq in 1..=last {
                let place = Place { chain, seq };
                let accepted = self.held(place, tx).is_some_and(|held| held.kind == 1 && held.refused.is_empty());
                let content = if accepted { self.vault.content(&Location::Sealed(place), tx) } else { None };
                let Some(content) = content else { continue };
                let mut part = (*content).clone();
                part.documents.retain(|(name, _)| documents.contains(name));
                if !part.is_empty() {
                    let author = Author { chain, wall_ms: now.wall_ms };
                    self.files.handle_content(now, author, &part, &mut self.vault, tx);
                }
            }
        }
    }
}
