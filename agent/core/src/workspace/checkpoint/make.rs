//! Saving every document into the pieces of a checkpoint.
//!
//! Invariant: everything saved is sealed, and below the frontier that the checkpoint names: the frontier is taken at the
//! end, when the outbox is empty, and if documents were built anew meanwhile, so that a change may be gone that was saved,
//! all is done again. It goes on a few documents at a time, so that nothing else waits for it.

use std::collections::VecDeque;

use weft_protocol::cbor::to_bytes;
use weft_protocol::frame::ClientFrame;

use super::{MAKING, Workspace};
use crate::checkpoint::{
    CHECKPOINT_BYTES_MAX, CHECKPOINT_CHAINS_MAX, Checkpoint, Data, PACK_BYTES, PACK_RECORDS_MAX, Pack, Record,
    SAVED_BYTES_MAX, pack_data,
};
use crate::content::PieceRef;
use crate::files::{Savable, Versions};
use crate::id::Place;
use crate::piece::{self, PIECE_BYTES_MAX};
use crate::store::{Table, Tx, rows};
use crate::time::Timestamp;
use crate::workspace::outbox::Batch;
use crate::workspace::output::Rank;

/// One that is due is made after this ...
const AFTER_MS: u64 = 2_000;
/// ... and up to this more, so that not everybody makes one: whoever sees one made stops.
const JITTER_MS: u64 = 10_000;
/// What keeps us from making or ending one is looked at again after this.
const AGAIN_MS: u64 = 1_000;
/// Documents saved in one go ...
const STEP_RECORDS: usize = 64;
/// ... or, if they are long, bytes.
const STEP_BYTES: usize = 512 * 1024;
/// A checkpoint ends this far below what the format allows: more than is saved in one go, however long.
const ROOM_BYTES: u64 = 2 * SAVED_BYTES_MAX as u64;
/// What stands around the data of a record, at most.
const RECORD_BYTES: usize = 256;

/// A checkpoint on its way.
#[derive(Debug)]
pub(super) struct Making {
    /// In which life of the files it was begun.
    life: u64,
    todo: VecDeque<Savable>,
    pack: Pack,
    pack_bytes: usize,
    pieces: Vec<PieceRef>,
    /// Rows that name the pieces stored so far.
    steps: u64,
    wait_until_mono: u64,
}

impl Making {
    fn plain_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.len)).sum()
    }
}

impl Workspace {
    pub(super) fn making_deadline(&self) -> Option<u64> {
        let making = self.checkpoints.making.as_ref().filter(|_| !self.paused)?;
        // What is saved waits for somebody to tell it to.
        (!making.todo.is_empty() || self.is_met()).then_some(making.wait_until_mono.max(self.last_mono))
    }

    pub(super) fn run_making(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if std::mem::take(&mut self.checkpoints.leftovers) {
            self.forget_steps(true, tx);
        }
        if self.checkpoints.moved && self.is_met() {
            self.checkpoints.moved = false;
            let since = self.envelopes_since();
            if since < self.checkpoints.every || !self.is_writer() || self.checkpoints.outgrown {
                self.checkpoints.due_mono = None;
            } else if self.checkpoints.due_mono.is_none() && self.checkpoints.making.is_none() {
                self.checkpoints.due_mono = Some(now.after_ms(AFTER_MS + self.jitter(JITTER_MS)));
            }
        }
        if self.checkpoints.due_mono.is_some_and(|due| due <= now.mono_ms) {
            let begins = self.may_seal() && self.pulls.0.is_empty() && self.checkpoints.making.is_none();
            self.checkpoints.due_mono = if begins {
                self.begin_making();
                None
            } else {
                self.checkpoints.moved = !self.is_met();
                self.is_met().then_some(now.after_ms(AGAIN_MS))
            };
        }
        let steps = |making: &Making| making.wait_until_mono <= now.mono_ms;
        if !self.paused && self.checkpoints.making.as_ref().is_some_and(steps) {
            self.step_making(now, tx);
        }
    }

    /// Whether somebody is there, and nothing that they hold is missing here.
    fn is_met(&self) -> bool {
        !self.paused && self.links.0.values().any(|link| link.reconciled)
    }

    /// How many envelopes are held that the newest checkpoint does not cover.
    fn envelopes_since(&self) -> u64 {
        let all = || self.frontier.iter().map(|(_, tip)| tip.seq).sum();
        let known = self.checkpoints.known.as_ref().map(|known| &known.checkpoint.frontier);
        known.filter(|covered| self.frontier.covers(covered)).map_or_else(all, |covered| covered.gap_to(&self.frontier))
    }

    fn begin_making(&mut self) {
        if self.frontier.len() > CHECKPOINT_CHAINS_MAX {
            self.checkpoints.outgrown = true;
            return;
        }
        self.checkpoints.making = Some(Making {
            life: self.lives,
            todo: self.files.savable().into(),
            pack: Pack::default(),
            pack_bytes: 0,
            pieces: Vec::new(),
            steps: 0,
            wait_until_mono: 0,
        });
    }

    fn step_making(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let Some(mut making) = self.checkpoints.making.take() else { return };
        self.checkpoints.outgrown = making.plain_bytes() > CHECKPOINT_BYTES_MAX - ROOM_BYTES;
        if making.life != self.lives || self.checkpoints.outgrown {
            self.checkpoints.making = Some(making);
            return self.abandon_making(tx);
        }
        let before = making.pieces.len();
        let mut bytes = 0;
        for _ in 0..STEP_RECORDS {
            let Some(next) = making.todo.pop_front() else { break };
            bytes += self.save_one(next, &mut making, tx);
            if bytes >= STEP_BYTES {
                break;
            }
        }
        let all_saved = making.todo.is_empty();
        if all_saved {
            self.flush_pack(&mut making, tx);
        }
        let ids: Vec<u8> = making.pieces.iter().skip(before).flat_map(|piece| piece.id.0).collect();
        if !ids.is_empty() {
            tx.put(Table::Meta, making_key(making.steps), ids);
            making.steps += 1;
        }
        if all_saved {
            // Everything saved must be signed, and so in the frontier that is named.
            if !(self.may_seal() && self.outbox.is_empty() && self.is_writer()) {
                making.wait_until_mono = now.after_ms(AGAIN_MS);
            } else {
                return self.finish_making(now, making, tx);
            }
        }
        self.checkpoints.making = Some(making);
    }

    /// Puts one thing into the pack; about how many bytes it was.
    fn save_one(&mut self, savable: Savable, making: &mut Making, tx: &Tx<'_>) -> usize {
        let (plain, record): (Vec<u8>, Box<dyn FnOnce(Data) -> Record>) = match savable {
            Savable::Version(hash) => match (self.vault.manifest(&hash, tx), self.vault.version(&hash, tx)) {
                (Some(manifest), _) => {
                    self.push_record(Record::Blob { hash, manifest }, making, tx);
                    return RECORD_BYTES;
                }
                (None, Some(bytes)) => (bytes.to_vec(), Box::new(move |data| Record::Version { hash, data })),
                // It has not come: the newcomer will wait for it as we do.
                (None, None) => return 0,
            },
            Savable::Document(name) => {
                let Some(saved) = self.files.save(name, tx) else { return RECORD_BYTES };
                let (name, version) = (saved.name, saved.version);
                (saved.bytes, Box::new(move |data| Record::Document { name, version, data }))
            }
        };
        let packed = pack_data(&plain);
        if packed.len() + 2 * RECORD_BYTES <= PACK_BYTES {
            self.push_record(record(Data::Here(packed.into())), making, tx);
        } else {
            let parts = packed.chunks(PIECE_BYTES_MAX);
            self.push_record(record(Data::Following(parts.len())), making, tx);
            self.flush_pack(making, tx);
            for part in parts {
                self.seal_plain(part, making, tx);
            }
        }
        plain.len()
    }

    fn push_record(&mut self, record: Record, making: &mut Making, tx: &Tx<'_>) {
        let bytes = to_bytes(&record).len();
        if making.pack_bytes + bytes > PACK_BYTES || making.pack.records.len() >= PACK_RECORDS_MAX {
            self.flush_pack(making, tx);
        }
        making.pack_bytes += bytes;
        making.pack.records.push(record);
    }

    fn flush_pack(&mut self, making: &mut Making, tx: &Tx<'_>) {
        making.pack_bytes = 0;
        let pack = std::mem::take(&mut making.pack);
        if !pack.records.is_empty() {
            self.seal_plain(&to_bytes(&pack), making, tx);
        }
    }

    fn seal_plain(&mut self, plain: &[u8], making: &mut Making, tx: &Tx<'_>) {
        if let Some((piece, sealed)) = piece::seal_piece(plain, &mut self.rng) {
            tx.put(Table::Pieces, piece.id.0, sealed.bytes().clone());
            making.pieces.push(piece);
        }
    }

    /// Seals the envelope that names the pieces, and tells it.
    fn finish_making(&mut self, now: Timestamp, making: Making, tx: &Tx<'_>) {
        let Some(epoch) = self.sealing_epoch() else {
            self.mint_soon(now);
            self.checkpoints.making = Some(Making { wait_until_mono: now.after_ms(AGAIN_MS), ..making });
            return;
        };
        let manifest = piece::make_manifest(making.pieces.clone(), &self.id, &mut self.rng);
        let named = manifest.ok().filter(|_| self.frontier.len() <= CHECKPOINT_CHAINS_MAX);
        let Some((manifest, outer)) = named else {
            self.checkpoints.outgrown = true;
            self.checkpoints.making = Some(making);
            return self.abandon_making(tx);
        };
        for (piece, sealed) in outer {
            tx.put(Table::Pieces, piece.id.0, sealed.bytes().clone());
        }
        let checkpoint = Checkpoint { frontier: self.frontier.clone(), manifest };
        let sealed = self.seal_batch(epoch, &Batch::Checkpoint(to_bytes(&checkpoint).into()), tx);
        let (Some(sealed), Some(tip)) = (sealed, self.own.tip) else {
            self.checkpoints.making = Some(making);
            return self.abandon_making(tx);
        };
        self.forget_steps(false, tx);
        let place = Place { chain: self.own.chain, seq: tip.seq };
        self.note_checkpoint(place, tip.link, checkpoint, tx);
        for (link, room, room_epoch) in self.links.peopled_rooms() {
            if room_epoch == epoch {
                self.send(link, Rank::Live, ClientFrame::Publish { room, payload: sealed.clone() });
            }
        }
        self.beacon_soon(now);
    }

    /// Makes none after all.
    pub(super) fn abandon_making(&mut self, tx: &Tx<'_>) {
        if self.checkpoints.making.take().is_some() {
            self.forget_steps(true, tx);
            self.checkpoints.moved = true;
        }
    }

    /// Forgets which pieces were stored for a checkpoint that is being made, and the pieces if it comes to nothing.
    fn forget_steps(&self, pieces: bool, tx: &Tx<'_>) {
        let steps: Vec<_> = rows(tx, Table::Meta, MAKING, 64).collect();
        for (key, ids) in steps {
            for id in ids.chunks(32).filter(|_| pieces) {
                tx.delete(Table::Pieces, id);
            }
            tx.delete(Table::Meta, key);
        }
    }
}

fn making_key(step: u64) -> Vec<u8> {
    [MAKING, &step.to_be_bytes()].concat()
}
