//! A database that went back in time, found out, and the new life it begins.
//!
//! Invariant: no number of a chain is ever given to two envelopes. A replica that is behind what was sent of its own
//! chain leaves that chain for ever and begins the next incarnation from seq 1; what it had not sealed is dropped from
//! the documents. The folder stands still until what a connected peer holds is here, and is then entered by difference,
//! under the new actor. Why wait: what others made of it since the backup may be on the disk already, and must not be
//! entered as ours a second time.
//! Spec: docs/sync.md#incarnations.

use std::collections::BTreeSet;

use super::birth::{INCARNATION, REBORN};
use super::outbox::{Batch, Outbox};
use super::output::Output;
use super::{Own, Workspace};
use crate::content::DocumentName;
use crate::disk::{Outcome, Stat};
use crate::files::{self, ActionId, Author, Files, Identity};
use crate::frontier::Frontier;
use crate::id::{ChainId, Place};
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// Most incarnations of a device that are accepted.
pub(super) const INCARNATIONS_MAX: u64 = 64;
/// What people see while the folder stands still.
const WAITING: &str = "This computer was restored from a backup. Syncing goes on by itself as soon as another device is \
                       reachable; nothing in the folder is touched until then. If there is no other device any more: \
                       `weft resume --restore`.";

/// Numbers the folder's actions over the lives of [`Files`], so that a late outcome is never taken for another's.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Actions {
    base: u64,
    highest: u64,
}

impl Actions {
    pub(super) fn outer(&mut self, action: ActionId) -> ActionId {
        let outer = self.base + action.0;
        self.highest = self.highest.max(outer);
        ActionId(outer)
    }
    pub(super) fn inner(&self, action: ActionId) -> Option<ActionId> {
        action.0.checked_sub(self.base).map(ActionId)
    }
    /// Another number for each life of the files.
    pub(super) fn life(&self) -> u64 {
        self.base
    }
    fn begin_anew(&mut self) {
        self.base = self.highest + 1;
    }
}

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
            self.stuck = true;
            self.problem(
                "This device was restored from backups too often: run `weft leave` here and join again.".into(),
            );
            return;
        }
        let mut documents: BTreeSet<DocumentName> = BTreeSet::new();
        self.drop_outbox(&mut documents, tx);
        self.begin_incarnation(next, tx);
        self.reopen_files(&documents, tx);
        // First of all the folder stands still: nothing half rebuilt is written to it.
        self.await_peers(now, tx);
        self.replay(now, &documents, tx);
        self.files.rebase(&mut self.vault, tx);
    }

    /// Drops what was taken in here and not sealed, and names the documents it was in; ops are kept, to be said again.
    pub(super) fn drop_outbox(&mut self, documents: &mut BTreeSet<DocumentName>, tx: &Tx<'_>) {
        let mut ops = Vec::new();
        let orders = self.outbox.orders();
        for order in &orders {
            match Outbox::batch(*order, tx) {
                Some(Batch::Content(content)) => {
                    self.vault.unindex(&content, *order, tx);
                    documents.extend(content.documents.into_iter().map(|(name, _)| name));
                }
                Some(Batch::Ops(batch)) => ops.push(batch),
                Some(Batch::Checkpoint(_)) | None => {}
            }
        }
        self.outbox.remove(&orders, tx);
        self.vault.forget_unsealed();
        for batch in ops {
            self.outbox.push(&Batch::Ops(batch), tx);
        }
    }

    /// Our chain ends here, and the next one begins.
    pub(super) fn begin_incarnation(&mut self, next: u64, tx: &Tx<'_>) {
        self.own = Own { chain: ChainId { device: self.own.chain.device, incarnation: next }, tip: None };
        tx.put(Table::Meta, INCARNATION, next.to_be_bytes().to_vec());
    }

    /// Forgets these documents, and opens the files anew from what is left. Outcomes of what the machine before asked for are
    /// none of the new one's business.
    pub(super) fn reopen_files(&mut self, documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
        files::forget(documents, tx);
        self.files = Files::open(Identity { workspace: self.id, chain: self.own.chain }, tx);
        self.actions.begin_anew();
        self.effects.forget_actions();
    }

    /// Lets the folder stand still until a peer was heard and nothing it holds is missing.
    pub(super) fn await_peers(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.reborn = true;
        tx.put(Table::Meta, REBORN, vec![1]);
        for link in self.links.0.values_mut() {
            link.reconciled = false;
        }
        self.files.handle_root(now, Some(WAITING.into()), &mut self.vault, tx);
    }

    /// What a connected peer holds is here, or there is nobody left to ask: the folder goes on, entered by difference.
    pub(super) fn go_on_reborn(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.reborn && (self.is_alone() || self.links.0.values().any(|link| link.reconciled)) {
            self.go_on(now, tx);
        }
    }

    /// The folder goes on, entered by difference; also when a person says that nobody else is left to wait for.
    pub(super) fn go_on(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.reborn = false;
        tx.delete(Table::Meta, REBORN);
        self.files.rebase(&mut self.vault, tx);
        self.files.handle_root(now, None, &mut self.vault, tx);
        self.effects.push(Output::Halted(None));
        self.effects.push(Output::Look(Vec::new()));
    }

    /// An action in the folder ended; one of an earlier life of the files is none of the present one's.
    pub(super) fn acted(&mut self, now: Timestamp, action: ActionId, outcome: Outcome, tx: &Tx<'_>) {
        if let Some(action) = self.actions.inner(action) {
            self.files.handle_acted(now, action, outcome, &mut self.vault, tx);
        } else if matches!(outcome, Outcome::Done(stat) if stat != Stat::default()) {
            self.effects.push(Output::Look(Vec::new()));
        }
    }

    /// Gives the accepted content of some documents to the files again.
    pub(super) fn replay(&mut self, now: Timestamp, documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
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
