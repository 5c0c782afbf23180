//! Envelopes that are held by name and whose bytes are damaged here: they are asked again from peers.
//!
//! Invariant: a hole is filled only by the envelope that was there: its link is the one that was stored, or the one that
//! the next envelope names. Until then nothing is judged, sealed or called settled that might depend on it, and a person
//! is told. Spec: docs/sync.md#damage.

use std::collections::BTreeSet;

use bytes::Bytes;
use weft_protocol::cbor::to_bytes;

use super::Workspace;
use super::receive::{Held, Opened};
use crate::envelope::{self, OpenHead};
use crate::files::Author;
use crate::frontier::Range;
use crate::id::{DeviceId, Link, Place};
use crate::message::Message;
use crate::store::{Read, Table, Tx, rows};
use crate::time::Timestamp;
use crate::vault::Location;

/// Start of the keys of holes in [`Table::Meta`]; then the place.
const HOLE: &[u8] = b"hole/";
/// Holes asked for at once.
const ASKED_MAX: usize = 16;
/// Bytes granted for each: one envelope.
const ASKED_BYTES: u64 = 1024 * 1024;
/// First and last wait before holes are asked for again, in milliseconds.
const AGAIN_MS: u64 = 2_000;
const AGAIN_MAX_MS: u64 = 60_000;
/// After so many rounds in which connected peers were asked, the folder waits no longer.
const ROUNDS_WAITED: u32 = 4;

/// Key of a hole.
pub(super) fn hole_key(place: Place) -> Vec<u8> {
    [HOLE, &place.to_bytes()].concat()
}

/// What is asked again.
#[derive(Debug, Default)]
pub(super) struct Holes {
    places: BTreeSet<Place>,
    due_mono: u64,
    wait_ms: u64,
    rounds: u32,
}

impl Holes {
    pub(super) fn open(read: &dyn Read) -> Self {
        let places = rows(read, Table::Meta, HOLE, 256)
            .filter_map(|(key, _)| Some(Place::from_bytes(key.get(HOLE.len()..)?.try_into().ok()?)))
            .collect();
        Self { places, wait_ms: AGAIN_MS, ..Self::default() }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
    pub(super) fn contains(&self, place: &Place) -> bool {
        self.places.contains(place)
    }
    /// Whether somebody who is there may still fill them.
    pub(super) fn are_waited_for(&self) -> bool {
        !self.places.is_empty() && self.rounds < ROUNDS_WAITED
    }
    /// How many are waited for.
    pub(super) fn waited_for(&self) -> u64 {
        if self.are_waited_for() { self.places.len() as u64 } else { 0 }
    }
    /// For people.
    pub(super) fn problem(&self) -> Option<String> {
        let count = self.places.len();
        let what =
            if count == 1 { "1 stored batch of changes is" } else { &format!("{count} stored batches of changes are") };
        (count > 0).then(|| {
            format!(
                "{what} damaged in this computer's database. Weft asks the other devices for them; nothing is removed for it. \
                 If no device has them, what they brought is still in the folder, as far as it was written there."
            )
        })
    }
}

impl Workspace {
    pub(super) fn holes_deadline(&self) -> Option<u64> {
        let may = self.is_active() && !self.paused && !self.holes.is_empty() && !self.links.connected().is_empty();
        may.then_some(self.holes.due_mono)
    }

    /// Asks connected peers for what is damaged here.
    pub(super) fn run_holes(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.holes_deadline().is_none_or(|due| due > now.mono_ms) {
            return;
        }
        let own = |place: &&Place| place.chain == self.own.chain;
        if self.holes.rounds >= ROUNDS_WAITED
            && let Some(hole) = self.holes.places.iter().find(own).copied()
        {
            for place in self.holes.places.split_off(&hole).into_iter() {
                if place.chain == hole.chain {
                    tx.delete(Table::Meta, hole_key(place));
                } else {
                    self.holes.places.insert(place);
                }
            }
            return self.give_up_own_hole(now, hole, tx);
        }
        let here: Vec<DeviceId> = self.links.connected().into_iter().collect();
        let rounds = self.holes.rounds as usize;
        let places: Vec<Place> = self.holes.places.iter().take(ASKED_MAX).copied().collect();
        for (number, place) in places.into_iter().enumerate() {
            let has = |device: &&DeviceId| {
                self.peers.get(device).is_some_and(|peer| peer.frontier.seq(&place.chain) >= place.seq)
            };
            let holders: Vec<DeviceId> = here.iter().filter(has).copied().collect();
            let Some(holder) = holders.get((rounds + number) % holders.len().max(1)) else { continue };
            let Some(route) = self.links.route_to(holder, |epoch| self.is_left_behind(epoch)) else { continue };
            let range = Range { chain: place.chain, from: place.seq, to: place.seq };
            let message = Message::Credit { nonce: self.nonce(), ranges: vec![range], credit: ASKED_BYTES };
            self.send_message(route, &message);
        }
        self.holes.rounds = self.holes.rounds.saturating_add(1);
        self.holes.due_mono = now.after_ms(self.holes.wait_ms);
        self.holes.wait_ms = (self.holes.wait_ms * 2).min(AGAIN_MAX_MS);
    }

    /// An envelope of a damaged place came: it is stored again if it is the one that was there.
    pub(super) fn fill_hole(&mut self, now: Timestamp, head: OpenHead, place: Place, envelope: &Bytes, tx: &Tx<'_>) {
        let known = self.held(place, tx);
        if self.link_at(place, known.as_ref(), tx).is_none_or(|link| link != head.link) {
            return self.reject("another envelope than the damaged one");
        }
        let device = self.membership.devices.get(&place.chain.device).map(|device| device.public);
        let Some(Ok(head)) = device.map(|public| head.verify(&public)) else {
            return self.reject("a damaged envelope came back unsigned");
        };
        let before = Place { seq: place.seq.saturating_sub(1), ..place };
        let before = self.held(before, tx).map(|held| held.op_heads).unwrap_or_default();
        let opened = self.accept(&head, &before, envelope);
        let held = known.unwrap_or_else(|| Held {
            link: head.link(),
            kind: head.header().kind.to_byte(),
            refused: opened.as_ref().err().cloned().unwrap_or_default(),
            op_heads: head.header().op_heads.clone(),
        });
        tx.put(Table::Envelopes, place.to_bytes(), envelope.clone());
        tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
        tx.delete(Table::Meta, hole_key(place));
        self.holes.places.remove(&place);
        (self.holes.rounds, self.holes.due_mono, self.holes.wait_ms) = (0, now.mono_ms, AGAIN_MS);
        if let (Ok(Opened::Content(content)), true) = (opened, held.refused.is_empty()) {
            self.vault.index(&content, &Location::Sealed(place), tx);
            // Its changes are in the documents, unless those were built anew meanwhile.
            let author = Author { chain: place.chain.signed(), wall_ms: now.wall_ms };
            self.files.handle_content(now, author, &content, &mut self.vault, tx);
        }
        self.judge_now(now);
    }

    /// The link of the envelope that was at a place.
    fn link_at(&self, place: Place, known: Option<&Held>, tx: &Tx<'_>) -> Option<Link> {
        if let Some(held) = known {
            return Some(held.link);
        }
        if let Some(tip) = self.frontier.tip(&place.chain).filter(|tip| tip.seq == place.seq) {
            return Some(tip.link);
        }
        let next = Place { seq: place.seq + 1, ..place };
        let next = tx.get(Table::Envelopes, &next.to_bytes())?;
        Some(envelope::open_head(&self.id, &self.vault.keyring, &next).ok()?.header.prev)
    }
}
