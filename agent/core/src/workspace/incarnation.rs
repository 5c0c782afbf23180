//! A database that went back in time, found out, and the new life it begins.
//!
//! Invariant: no number of a chain is ever given to two envelopes. A replica that is behind what was sent of its own
//! chain leaves that chain for ever and begins the next incarnation from seq 1; what it had not sealed is dropped from
//! the documents. The folder stands still until what a connected peer holds is here, and is then entered by difference,
//! under the new actor. Why wait: what others made of it since the backup may be on the disk already, and must not be
//! entered as ours a second time.
//! Spec: docs/sync.md#incarnations.

use std::collections::{BTreeMap, BTreeSet};

use super::birth::{INCARNATION, REBORN, RECORDS_LOST};
use super::links::Route;
use super::outbox::{Batch, Outbox};
use super::output::Output;
use super::{Own, Workspace};
use crate::content::DocumentName;
use crate::files::{self, Author, Identity};
use crate::frontier::{Frontier, Range};
use crate::id::{ChainId, DeviceId, Place};
use crate::message::Message;
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// Most incarnations of a device that are accepted.
pub(super) const INCARNATIONS_MAX: u64 = 64;
/// What people see while the folder stands still.
const WAITING: &str = "This computer was restored from a backup. Syncing goes on by itself as soon as another device is \
                       reachable; nothing in the folder is touched until then. If there is no other device any more: \
                       `weft resume --restore`.";

/// The same, of a replica whose database was damaged.
const REFILLED: &str = "The database of this computer was damaged and is filled again from the other devices. Syncing goes on \
                        by itself as soon as another device is reachable; nothing in the folder is touched until then. If \
                        there is no other device any more: `weft resume --restore`.";

/// Whoever says that we went back has this long to show it.
const CLAIM_MS: u64 = 20_000;
/// Bytes granted for that: one envelope.
const CLAIM_BYTES: u64 = 1024 * 1024;
/// So often one device is waited for; whoever has shown something until then was right.
const WAITS_MAX: u32 = 3;
/// Claims waited for at once.
const CLAIMS_MAX: usize = 64;

/// Who says that there is more of our own chain than we hold.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pending: BTreeMap<DeviceId, u64>,
    /// What was not taken in meanwhile is to be tried again.
    answered: bool,
    /// How often each was waited for.
    waits: BTreeMap<DeviceId, u32>,
}

impl Workspace {
    /// A peer stated what it holds: does it say that it holds more of our own chain than we do? Then it is asked for that:
    /// what we signed proves itself, and a mere word must not cost us a life.
    pub(super) fn note_own_chains(&mut self, now: Timestamp, route: Route, device: DeviceId, theirs: &Frontier) {
        let (own, held) = (self.own.chain, self.own.tip.map_or(0, |tip| tip.seq));
        let lives = own.incarnation..=INCARNATIONS_MAX;
        let ahead = theirs
            .of_device(&own.device)
            .filter(|(chain, tip)| lives.contains(&chain.signed().incarnation) && (**chain != own || tip.seq > held))
            .max_by_key(|(chain, tip)| (chain.signed().incarnation, tip.seq));
        let Some((chain, tip)) = ahead else {
            self.claims.answered |= self.claims.pending.remove(&device).is_some();
            return;
        };
        let claims = &mut self.claims;
        let waits = claims.waits.entry(device).or_default();
        if *waits < WAITS_MAX && claims.pending.len() < CLAIMS_MAX && !claims.pending.contains_key(&device) {
            *waits += 1;
            claims.pending.insert(device, now.after_ms(CLAIM_MS));
        }
        let (nonce, range) = (self.nonce(), Range { chain: *chain, from: tip.seq, to: tip.seq });
        self.send_message(route, &Message::Credit { nonce, ranges: vec![range], credit: CLAIM_BYTES });
    }

    /// Whether somebody may still show that we went back: until then nothing is taken in, and nothing sealed.
    pub(super) fn is_doubted(&self) -> bool {
        !self.claims.pending.is_empty()
    }

    /// Something that we signed came: whoever said so was right, or it is known here.
    pub(super) fn claims_shown(&mut self) {
        self.claims.answered |= !self.claims.pending.is_empty();
        for device in std::mem::take(&mut self.claims.pending).into_keys() {
            self.claims.waits.remove(&device);
        }
    }

    pub(super) fn claims_deadline(&self) -> Option<u64> {
        self.claims.pending.values().min().copied()
    }

    /// Who said so and showed nothing is not waited for again.
    pub(super) fn run_claims(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let due: Vec<DeviceId> =
            self.claims.pending.iter().filter(|(_, until)| **until <= now.mono_ms).map(|(device, _)| *device).collect();
        let here = self.links.connected();
        for device in &due {
            self.claims.pending.remove(device);
            // Whoever is gone may have been about to.
            let known = self.membership.devices.get(device).cloned().filter(|_| here.contains(device));
            if let Some(known) = known {
                self.claims.waits.insert(*device, WAITS_MAX);
                let (label, member) = (&known.label, self.member_name(&known.root));
                self.problem(format!(
                    "'{label}' of {member} says that this computer wrote more than it has here, and does not show it: what it \
                     says of that is not believed any more. Its data is damaged, or its owner lies."
                ));
            }
        }
        self.claims.answered |= !due.is_empty();
        if !self.is_doubted() && std::mem::take(&mut self.claims.answered) {
            self.retry_parked(now, tx);
        }
    }

    /// This replica is behind what was sent under its name, up to this incarnation: begins the next.
    pub(super) fn found_out_rollback(&mut self, now: Timestamp, incarnation: u64, tx: &Tx<'_>) {
        self.leave_chain(now, incarnation, false, tx);
    }

    /// Begins the next incarnation after this one; `all`: every document is built anew, not only what was not sealed.
    pub(super) fn leave_chain(&mut self, now: Timestamp, incarnation: u64, all: bool, tx: &Tx<'_>) {
        let next = incarnation.max(self.own.chain.incarnation) + 1;
        if next > INCARNATIONS_MAX {
            self.stuck = true;
            self.problem(
                "This device was restored from backups too often: run `weft leave` here and join again.".into(),
            );
            if all {
                self.files.build();
                self.replay_where(now, &|_| true, tx);
                self.files.rebase(&mut self.vault, tx);
            }
            return;
        }
        self.drain_files(now, tx);
        let mut documents: BTreeSet<DocumentName> = BTreeSet::new();
        self.drop_outbox(&mut documents, tx);
        self.begin_incarnation(next, tx);
        if all {
            files::forget_all(tx);
        }
        self.reopen_files(&documents, tx);
        // First of all the folder stands still: nothing half rebuilt is written to it.
        self.await_peers(now, tx);
        if all {
            // What was known of the folder is compared when all that peers have is here.
            self.files.build();
            self.replay_where(now, &|_| true, tx);
        } else {
            self.replay(now, &documents, tx);
            self.files.rebase(&mut self.vault, tx);
        }
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

    /// Forgets these documents, and opens the files anew from what is left.
    pub(super) fn reopen_files(&mut self, documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
        files::forget(documents, tx);
        let unsent = self.effects.forget_actions();
        self.files.reopen(Identity { workspace: self.id, chain: self.own.chain }, &unsent, tx);
        self.lives += 1;
    }

    /// Lets the folder stand still until a peer was heard and nothing it holds is missing.
    pub(super) fn await_peers(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.reborn = true;
        tx.put(Table::Meta, REBORN, vec![if self.records_lost { RECORDS_LOST } else { 1 }]);
        for link in self.links.0.values_mut() {
            link.reconciled = false;
        }
        let why = if self.records_lost || !self.holes.is_empty() { REFILLED } else { WAITING };
        self.files.handle_root(now, Some(why.into()), &mut self.vault, tx);
    }

    /// What a connected peer holds is here, or there is nobody left to ask: the folder goes on, entered by difference.
    pub(super) fn go_on_reborn(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let whole = !self.holes.are_waited_for() && self.unverified().is_none();
        if self.reborn && (self.is_alone() || whole && self.links.0.values().any(|link| link.reconciled)) {
            self.go_on(now, tx);
        }
    }

    /// The folder goes on, entered by difference; also when a person says that nobody else is left to wait for.
    pub(super) fn go_on(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.reborn = false;
        tx.delete(Table::Meta, REBORN);
        self.files.rebase(&mut self.vault, tx);
        if std::mem::take(&mut self.records_lost) {
            self.files.meet_again(now, &mut self.vault, tx);
        }
        self.files.handle_root(now, None, &mut self.vault, tx);
        self.effects.push(Output::Halted(None));
        self.effects.push(Output::Look(Vec::new()));
    }

    /// Gives the accepted content of some documents to the files again.
    pub(super) fn replay(&mut self, now: Timestamp, documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
        self.replay_where(now, &|name| documents.contains(name), tx);
    }

    /// The same, of the documents that are meant.
    pub(super) fn replay_where(&mut self, now: Timestamp, is_meant: &dyn Fn(&DocumentName) -> bool, tx: &Tx<'_>) {
        let tips: Vec<(ChainId, u64)> = self.frontier.iter().map(|(chain, tip)| (*chain, tip.seq)).collect();
        for (chain, last) in tips {
            for seq in self.chain_start(&chain, tx).0..=last {
                let place = Place { chain, seq };
                let accepted = self.held(place, tx).is_some_and(|held| held.kind == 1 && held.refused.is_empty());
                let content = if accepted { self.vault.content(&Location::Sealed(place), tx) } else { None };
                let Some(content) = content else { continue };
                let mut part = (*content).clone();
                part.documents.retain(|(name, _)| is_meant(name));
                if !part.is_empty() {
                    let author = Author { chain: chain.signed(), wall_ms: now.wall_ms };
                    self.files.handle_content(now, author, &part, &mut self.vault, tx);
                }
            }
        }
    }
}
