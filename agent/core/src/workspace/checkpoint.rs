//! Checkpoints: saved documents, so that who lacks much history has its folder before it has the history.
//!
//! `make` saves everything once many envelopes came since the newest checkpoint; this file knows which that is and offers
//! it; `take` fetches and shows what somebody offers; `check` compares every change in it with the envelopes that were
//! signed, once those are here. Invariant: what a checkpoint said is shown at once, and nothing is sealed on top of it
//! before every change in it was found in an accepted envelope; what was not found is taken out again, and its maker
//! named. Every state is a row, so a machine that is opened again goes on where it was. Spec: docs/sync.md#checkpoints.

use std::collections::BTreeMap;

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::links::Route;
use crate::checkpoint::Checkpoint;
use crate::content::PieceRef;
use crate::id::{DeviceId, Link, Place};
use crate::membership::Role;
use crate::message::{Message, OFFER_BYTES_MAX};
use crate::store::{Read, Table, Tx, rows};
use crate::time::Timestamp;

mod check;
mod make;
mod take;

/// A checkpoint is due when so many envelopes are held that the newest one does not cover, and worth taking for whoever
/// lacks so many that it covers.
const EVERY: u64 = 2_000;
/// To one device it is offered again after this.
const OFFER_AGAIN_MS: u64 = 30_000;

const KNOWN: &[u8] = b"checkpoint/known";
const TAKING: &[u8] = b"checkpoint/taking";
/// Followed by a device: a sentence on what was wrong with its checkpoint.
const BLAMED: &[u8] = b"checkpoint/blamed/";
/// Followed by a document's name: it holds what a checkpoint said and nobody has checked.
const SHOWN: &[u8] = b"checkpoint/shown/";
/// Followed by a number: ids of pieces of a checkpoint that is being made.
const MAKING: &[u8] = b"checkpoint/making/";

/// The newest checkpoint that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    place: Place,
    link: Link,
    checkpoint: Checkpoint,
}

impl Wire for Known {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).bytes(&self.place.to_bytes()).item(&self.link).item(&self.checkpoint);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "known checkpoint")?;
        let place = Place::from_bytes(reader.fixed("place")?);
        Ok(Self { place, link: reader.item()?, checkpoint: reader.item()? })
    }
}

/// Everything about checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints {
    every: u64,
    /// Whether what is shown is compared with what was signed; only tests say no.
    proves: bool,
    known: Option<Known>,
    /// More is held than when it was last looked whether one is due.
    moved: bool,
    due_mono: Option<u64>,
    making: Option<make::Making>,
    /// What is here does not fit one: none is made until the next start.
    outgrown: bool,
    /// Pieces of one that was not finished may be left.
    leftovers: bool,
    taking: Option<take::Taking>,
    offered: BTreeMap<DeviceId, u64>,
    /// Whose checkpoint was wrong, and how.
    blamed: BTreeMap<DeviceId, String>,
}

impl Checkpoints {
    pub(super) fn open(read: &dyn Read) -> Self {
        let row = |key| read.get(Table::Meta, key);
        let blamed = rows(read, Table::Meta, BLAMED, 64).filter_map(|(key, value)| {
            let device = DeviceId::from_slice(key.get(BLAMED.len()..)?)?;
            Some((device, String::from_utf8(value.to_vec()).ok()?))
        });
        Self {
            every: EVERY,
            proves: true,
            known: row(KNOWN).and_then(|row| from_bytes(&row).ok()),
            moved: true,
            due_mono: None,
            making: None,
            outgrown: false,
            leftovers: true,
            taking: row(TAKING).and_then(|row| from_bytes(&row).ok()),
            offered: BTreeMap::new(),
            blamed: blamed.collect(),
        }
    }

    /// More is held than before.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// Whether something is shown, or about to be, that was not compared with what was signed.
    pub(super) fn is_taking(&self) -> bool {
        self.taking.is_some()
    }

    /// What was wrong with others' checkpoints, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.blamed.values()
    }

    pub(super) fn every(&mut self, envelopes: u64) {
        self.every = envelopes.max(1);
    }

    pub(super) fn prove_nothing(&mut self) {
        self.proves = false;
    }
}

impl Workspace {
    /// Makes a checkpoint when so many envelopes came since the newest, and takes one that covers so many we lack. For the
    /// simulator and tests; as shipped it is 2,000. Call it right after the machine was made.
    pub fn checkpoint_every(&mut self, envelopes: u64) {
        self.checkpoints.every(envelopes);
    }

    /// Whether verdicts wait: until the history of what is shown is here, a judgement would take it apart.
    pub(super) fn verdicts_wait(&self) -> bool {
        self.checkpoints.taking.as_ref().is_some_and(|taking| !taking.is_checking())
    }

    /// Something is being made, or about to be, or was not checked yet.
    pub(super) fn checkpoints_are_settled(&self) -> bool {
        let making = self.checkpoints.making.is_some() || self.checkpoints.due_mono.is_some();
        self.checkpoints.taking.is_none() && !(making && self.may_seal())
    }

    /// Of whose checkpoint the folder is shown while it is unverified.
    pub(super) fn unverified(&self) -> Option<String> {
        self.checkpoints
            .taking
            .as_ref()
            .filter(|taking| taking.is_shown())
            .map(|taking| self.device_name(&taking.maker()))
    }

    pub(super) fn checkpoints_deadline(&self) -> Option<u64> {
        if !self.is_active() {
            return None;
        }
        let making = self.making_deadline().or(self.checkpoints.due_mono).filter(|_| !self.reborn);
        [making, self.taking_deadline()].into_iter().flatten().min()
    }

    pub(super) fn run_checkpoints(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.is_active() {
            self.run_taking(now, tx);
        }
        if self.is_active() && !self.reborn {
            self.run_making(now, tx);
        }
    }

    /// An accepted checkpoint is held.
    pub(super) fn note_checkpoint(&mut self, place: Place, link: Link, checkpoint: Checkpoint, tx: &Tx<'_>) {
        let writes = self.membership.role_of(&place.chain.device).is_some_and(|role| role >= Role::Writer);
        if !writes || self.checkpoints.blamed.contains_key(&place.chain.device) {
            return;
        }
        let total = |known: &Known| -> u64 {
            known.checkpoint.frontier.iter().fold(0, |sum, (_, tip)| sum.saturating_add(tip.seq))
        };
        let known = Known { place, link, checkpoint };
        let newer = self.checkpoints.known.as_ref().is_none_or(|old| {
            // One that covers what nobody holds is none.
            !self.frontier.covers(&old.checkpoint.frontier) || (total(&known), known.link) > (total(old), old.link)
        });
        if !newer {
            return;
        }
        self.abandon_making(tx);
        tx.put(Table::Meta, KNOWN, to_bytes(&known));
        if let Some(old) = self.checkpoints.known.replace(known) {
            self.drop_pieces(&old.link, &old.checkpoint, tx);
        }
        self.checkpoints.due_mono = None;
        self.checkpoints.moved = true;
    }

    /// Removes the pieces of a checkpoint that is neither the newest nor being taken.
    fn drop_pieces(&self, link: &Link, checkpoint: &Checkpoint, tx: &Tx<'_>) {
        let known = self.checkpoints.known.as_ref().is_some_and(|known| known.link == *link);
        if known || self.checkpoints.taking.as_ref().is_some_and(|taking| taking.is_of(link)) {
            return;
        }
        let inner = pieces_of(checkpoint, tx).unwrap_or_default();
        for piece in inner.iter().chain(&checkpoint.manifest.pieces) {
            tx.delete(Table::Pieces, piece.id.0);
        }
    }

    /// A peer asks who holds what: if it lacks much of what the newest checkpoint covers, it is offered that.
    pub(super) fn offer_checkpoint(&mut self, now: Timestamp, route: Route, device: DeviceId, tx: &Tx<'_>) {
        let reads = self.membership.role_of(&device).is_some_and(|role| role >= Role::Reader);
        if !reads || self.checkpoints.is_taking() || self.paused {
            return;
        }
        let Some(known) = &self.checkpoints.known else { return };
        let Some(peer) = self.peers.get(&device) else { return };
        let lacks = peer.frontier.gap_to(&known.checkpoint.frontier) >= self.checkpoints.every;
        let soon = self.checkpoints.offered.get(&device).is_some_and(|at| now.mono_ms < at + OFFER_AGAIN_MS);
        if !lacks || soon || !self.frontier.covers(&known.checkpoint.frontier) {
            return;
        }
        let here = pieces_of(&known.checkpoint, tx)
            .is_some_and(|pieces| pieces.iter().all(|piece| tx.has(Table::Pieces, &piece.id.0)));
        let envelope = tx.get(Table::Envelopes, &known.place.to_bytes());
        if let Some(envelope) = envelope.filter(|envelope| here && envelope.len() <= OFFER_BYTES_MAX) {
            self.checkpoints.offered.insert(device, now.mono_ms);
            self.send_message(route, &Message::Offer(envelope));
        }
    }
}

/// All pieces of packs, in order; `None` if the manifest is in pieces that are not here, or malformed.
fn pieces_of(checkpoint: &Checkpoint, read: &dyn Read) -> Option<Vec<PieceRef>> {
    match super::blobs::nested(&checkpoint.manifest, read) {
        None => Some(checkpoint.manifest.pieces.clone()),
        Some(inner) => inner.ok().map(|manifest| manifest.pieces),
    }
}
