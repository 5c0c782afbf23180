//! Comparing what a checkpoint said with what was signed.
//!
//! Every change that an accepted envelope holds is noted; then each document that the checkpoint brought is looked
//! through. Invariant: a change that is in no accepted envelope, nor made here and not sealed yet, does not stay: its
//! document is built anew from what counts, as after a removal, and what a person here wrote on top is entered again. The
//! maker is named only for what was signed nowhere: what is held and does not count, they could not know of. A few
//! envelopes or documents at a time; a crash begins it again. Spec: docs/sync.md#checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use super::{SHOWN, Workspace};
use crate::content::{Content, DocumentName, Item};
use crate::envelope::Kind;
use crate::files::hash_of_change;
use crate::id::{ChainId, Place};
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;
use crate::workspace::outbox::{Batch, Outbox};

/// Envelopes opened in one go: about 20 ms.
const STEP_ENVELOPES: u64 = 256;
/// Documents looked through in one go.
const STEP_DOCUMENTS: usize = 16;

/// A change in a document.
type Mark = [u8; 32];

/// How far the comparison is.
#[derive(Debug, Default)]
pub(super) struct Checking {
    /// The whole history is here: what is not in it was never signed.
    whole: bool,
    /// Up to where each chain was read, and the outbox.
    read: BTreeMap<ChainId, u64>,
    read_outbox: u64,
    counts: BTreeSet<Mark>,
    void: BTreeSet<Mark>,
    /// The last document that was looked through.
    after: Option<Vec<u8>>,
    wrong: BTreeSet<DocumentName>,
    forged: bool,
}

impl Checking {
    pub(super) fn new(whole: bool) -> Self {
        Self { whole, ..Self::default() }
    }

    /// Notes the changes of an envelope, or of what is not sealed yet.
    fn note(&mut self, content: &Content, counts: bool) {
        for (name, items) in &content.documents {
            let salt = salt(name);
            for item in items {
                let Item::Change(bytes) = item else { continue };
                let mark = mark(&salt, &hash_of_change(bytes));
                if counts {
                    self.counts.insert(mark);
                } else {
                    self.void.insert(mark);
                }
            }
        }
    }
}

/// What tells one document's changes from another's: a change that was signed for one is forged in another.
fn salt(name: &DocumentName) -> [u8; 32] {
    *blake3::hash(name.as_str().as_bytes()).as_bytes()
}

fn mark(salt: &[u8; 32], hash: &[u8; 32]) -> Mark {
    let mut mark = *hash;
    mark.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    mark
}

impl Workspace {
    pub(super) fn run_checking(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let Some(mut checking) =
            self.checkpoints.taking.as_mut().and_then(|taking| taking.checking()).map(std::mem::take)
        else {
            return;
        };
        if !self.checkpoints.proves {
            return self.finish_checking(now, Checking::default(), tx);
        }
        if !self.verdicts.is_settled() {
            // What counts is about to change: begin again when it did.
            checking = Checking::new(checking.whole);
        } else if self.read_on(&mut checking, tx) && self.look_on(&mut checking, tx) {
            return self.finish_checking(now, checking, tx);
        }
        if let Some(place) = self.checkpoints.taking.as_mut().and_then(|taking| taking.checking()) {
            *place = checking;
        }
    }

    /// Reads some of what is held; whether that was all.
    fn read_on(&mut self, checking: &mut Checking, tx: &Tx<'_>) -> bool {
        let tips: Vec<(ChainId, u64)> = self.frontier.iter().map(|(chain, tip)| (*chain, tip.seq)).collect();
        let mut left = STEP_ENVELOPES;
        for (chain, last) in tips {
            let first = checking.read.get(&chain).copied().unwrap_or(0) + 1;
            for seq in first..=last {
                if left == 0 {
                    return false;
                }
                left -= 1;
                checking.read.insert(chain, seq);
                let place = Place { chain, seq };
                let Some(held) = self.held(place, tx) else { continue };
                if Kind::from_byte(held.kind) == Kind::Content
                    && let Some(content) = self.vault.content(&Location::Sealed(place), tx)
                {
                    checking.note(&content, held.refused.is_empty());
                }
            }
        }
        for order in self.outbox.orders().into_iter().filter(|order| *order >= checking.read_outbox).collect::<Vec<_>>()
        {
            checking.read_outbox = order + 1;
            if let Some(Batch::Content(content)) = Outbox::batch(order, tx) {
                checking.note(&content, true);
            }
        }
        true
    }

    /// Looks through some documents; whether those were all.
    fn look_on(&mut self, checking: &mut Checking, tx: &Tx<'_>) -> bool {
        use crate::store::Read;
        let page = tx.scan(Table::Meta, SHOWN, checking.after.as_deref(), STEP_DOCUMENTS);
        for (key, _) in &page {
            let name = key.get(SHOWN.len()..).and_then(|name| core::str::from_utf8(name).ok());
            let Some(name) = name.and_then(DocumentName::new) else { continue };
            let salt = salt(&name);
            let is_signed = |hash: &[u8; 32]| checking.counts.contains(&mark(&salt, hash));
            let unproven = self.files.unproven(&name, &is_signed, &mut self.vault, tx);
            let forged = unproven.changes.iter().any(|hash| !checking.void.contains(&mark(&salt, hash)));
            checking.forged |= forged;
            if unproven.unfounded || !unproven.changes.is_empty() {
                checking.wrong.insert(name);
            }
        }
        checking.after = page.last().map(|(key, _)| key.clone()).or_else(|| checking.after.take());
        page.len() < STEP_DOCUMENTS
    }

    fn finish_checking(&mut self, now: Timestamp, checking: Checking, tx: &Tx<'_>) {
        use crate::store::Read;
        if checking.forged && checking.whole && !self.covers_another_branch(tx) {
            self.blame("holds what nobody signed", tx);
        }
        loop {
            let page = tx.scan(Table::Meta, SHOWN, None, 256);
            if page.is_empty() {
                break;
            }
            for (key, _) in page {
                tx.delete(Table::Meta, key);
            }
        }
        let good = checking.wrong.is_empty();
        if !good {
            self.rebuild(now, &checking.wrong, Vec::new(), tx);
        }
        self.end_taking(good, tx);
        self.beacon_soon(now);
    }

    /// Whether the frontier that the checkpoint covers is one of a branch that is not the one held here: then its maker may
    /// have been told otherwise.
    fn covers_another_branch(&self, tx: &Tx<'_>) -> bool {
        let Some(taking) = &self.checkpoints.taking else { return false };
        taking.checkpoint.frontier.iter().any(|(chain, tip)| {
            self.held(Place { chain: *chain, seq: tip.seq }, tx).is_some_and(|held| held.link != tip.link)
        })
    }
}
