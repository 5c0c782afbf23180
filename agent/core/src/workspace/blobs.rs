//! Fetching the pieces of large files, apart from everything else.
//!
//! Invariant: at most a window of pieces is asked of one peer at a time, so that blobs never crowd out text; a piece is
//! stored only if it was wanted and hashes to its id. Pieces that came stay, and after a restart the files ask for the rest.
//! Spec: docs/sync.md#blobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Workspace;
use super::links::Route;
use super::pulls::Nonce;
use crate::content::Manifest;
use crate::id::{DeviceId, PieceId, VersionHash};
use crate::message::Message;
use crate::piece;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;
use crate::vault::Vault;

/// Pieces asked for and not come: 8 of at most 256 KiB are half of a relay's queue.
const WINDOW: usize = 8;
/// Pieces that nobody here has, looked at in one go.
const UNSERVED_MAX: usize = 64;
/// A peer that sends no piece for this long is given up for a while.
const SILENT_MS: u64 = 10_000;

/// A version whose pieces are being fetched: those of whatever manifest of it is complete first.
#[derive(Debug)]
struct Fetch(Vec<Candidate>);

/// One way to put a version together.
#[derive(Debug)]
struct Candidate {
    /// As it was published.
    outer: Manifest,
    /// The same, or what was in it.
    manifest: Manifest,
    missing: BTreeSet<PieceId>,
}

impl Candidate {
    fn new(outer: Manifest, manifest: Manifest, read: &dyn Read) -> Self {
        let missing =
            manifest.pieces.iter().map(|piece| piece.id).filter(|id| !read.has(Table::Pieces, &id.0)).collect();
        Self { outer, manifest, missing }
    }
}

/// What is being fetched, and from whom.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    fetches: BTreeMap<VersionHash, Fetch>,
    wanted: BTreeMap<PieceId, BTreeSet<VersionHash>>,
    queue: VecDeque<PieceId>,
    asked: BTreeMap<PieceId, (DeviceId, u64)>,
    /// Who said not to have which piece.
    absent: BTreeSet<(DeviceId, PieceId)>,
    complete: Vec<VersionHash>,
    /// When to try again although nothing happened.
    retry_mono: Option<u64>,
    /// Pieces came, or others are wanted, since it was last asked.
    moved: bool,
}

impl Blobs {
    pub(super) fn pending(&self) -> usize {
        self.wanted.len()
    }

    /// Wants nothing more for a version.
    pub(super) fn forget(&mut self, hash: &VersionHash) {
        self.take(hash);
    }

    /// How many bytes of a version have not come; `None`: nothing of it is being fetched.
    fn missing_bytes(&self, hash: &VersionHash) -> Option<u64> {
        let Fetch(candidates) = self.fetches.get(hash)?;
        let missing = |candidate: &Candidate| -> u64 {
            if candidate.missing.is_empty() {
                0
            } else if candidate.manifest.depth > 0 {
                // Which pieces the content is in is not known yet.
                candidate.manifest.len
            } else {
                let pieces = candidate.manifest.pieces.iter().filter(|piece| candidate.missing.contains(&piece.id));
                pieces.map(|piece| u64::from(piece.len)).sum()
            }
        };
        candidates.iter().map(missing).min()
    }

    fn unwant(&mut self, hash: &VersionHash, pieces: BTreeSet<PieceId>) {
        for piece in pieces {
            if let Some(versions) = self.wanted.get_mut(&piece) {
                versions.remove(hash);
                if versions.is_empty() {
                    self.wanted.remove(&piece);
                    self.asked.remove(&piece);
                    self.queue.retain(|queued| *queued != piece);
                }
            }
        }
    }

    /// What is fetched for a version, which wants nothing more by itself.
    fn take(&mut self, hash: &VersionHash) -> Option<Vec<Candidate>> {
        let Fetch(candidates) = self.fetches.remove(hash)?;
        self.moved = true;
        let all = candidates.iter().flat_map(|candidate| candidate.missing.iter().copied()).collect();
        self.unwant(hash, all);
        Some(candidates)
    }

    /// Wants what is missing for a version.
    fn want(&mut self, hash: VersionHash, candidates: Vec<Candidate>) {
        self.moved = true;
        for piece in candidates.iter().flat_map(|candidate| &candidate.missing) {
            let versions = self.wanted.entry(*piece).or_default();
            if versions.is_empty() {
                self.queue.push_back(*piece);
            }
            versions.insert(hash);
        }
        if candidates.iter().any(|candidate| candidate.missing.is_empty()) {
            self.complete.push(hash);
        }
        if !candidates.is_empty() {
            self.fetches.insert(hash, Fetch(candidates));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let asked = self.asked.values().map(|(_, deadline)| *deadline).min();
        [asked, self.retry_mono].into_iter().flatten().min()
    }
}

impl Workspace {
    /// Wants the pieces of a version, by this manifest or another of it.
    pub(super) fn fetch(&mut self, now: Timestamp, hash: VersionHash, manifest: Manifest, tx: &Tx<'_>) {
        self.blobs.forget(&hash);
        let mut manifests = Vault::manifests(&hash, tx);
        manifests.retain(|known| *known != manifest);
        manifests.push(manifest);
        let candidate = |outer: Manifest| Candidate::new(outer.clone(), outer, tx);
        self.blobs.want(hash, manifests.into_iter().map(candidate).collect());
        self.finish_fetches(now, tx);
    }

    /// A piece came.
    pub(super) fn piece(&mut self, now: Timestamp, bytes: Bytes, tx: &Tx<'_>) {
        let id = piece::piece_id(&bytes);
        let Some(versions) = self.blobs.wanted.remove(&id) else { return };
        tx.put(Table::Pieces, id.0, bytes);
        self.blobs.moved = true;
        if let Some((device, _)) = self.blobs.asked.remove(&id) {
            for (_, deadline) in self.blobs.asked.values_mut().filter(|(asked, _)| *asked == device) {
                *deadline = now.after_ms(SILENT_MS);
            }
        }
        self.blobs.queue.retain(|queued| *queued != id);
        for hash in versions {
            if let Some(Fetch(candidates)) = self.blobs.fetches.get_mut(&hash) {
                candidates.iter_mut().for_each(|candidate| {
                    candidate.missing.remove(&id);
                });
                if candidates.iter().any(|candidate| candidate.missing.is_empty()) {
                    self.blobs.complete.push(hash);
                }
            }
        }
        self.finish_fetches(now, tx);
    }

    /// Notes how much of large files is not here, and says so soon if that begins or ends.
    pub(super) fn note_lacks(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let moved = self.files.blobs_moved() | core::mem::take(&mut self.blobs.moved);
        // What is held and not judged may hold large files, and what is unverified may not be what counts.
        let unjudged = !self.verdicts.is_settled() || self.is_doubted() || self.reborn || self.checkpoints.is_taking();
        let was_unjudged = self.lacks_are_unknown;
        if !moved && unjudged == was_unjudged {
            return;
        }
        self.lacks_are_unknown = unjudged;
        if moved {
            let here = |hash: &VersionHash| Vault::manifests(hash, tx).iter().any(|manifest| is_whole(manifest, tx));
            let missing = |(hash, len): (VersionHash, u64)| match self.blobs.missing_bytes(&hash) {
                Some(bytes) => bytes,
                None if here(&hash) => 0,
                None => len,
            };
            self.lacks = self.files.not_in_folder().into_iter().map(missing).fold(0, u64::saturating_add);
        }
        // What is not judged yet came a moment ago, so a beacon follows in any case.
        let something = self.stated_lacks() > 0;
        let said = core::mem::replace(&mut self.lacks_something, something);
        if said != something && (!something || self.lacks > 0) {
            self.beacon_soon(now);
        }
    }

    /// What we state to lack.
    pub(super) fn stated_lacks(&self) -> u64 {
        self.lacks.max(u64::from(self.lacks_are_unknown)) + self.holes.waited_for()
    }

    fn finish_fetches(&mut self, now: Timestamp, tx: &Tx<'_>) {
        while let Some(hash) = self.blobs.complete.pop() {
            let Some(mut candidates) = self.blobs.take(&hash) else { continue };
            let Some(at) = candidates.iter().position(|candidate| candidate.missing.is_empty()) else {
                self.blobs.want(hash, candidates);
                continue;
            };
            let Candidate { outer, manifest, .. } = candidates.remove(at);
            match nested(&manifest, tx) {
                Some(Ok(inner)) => {
                    candidates.push(Candidate::new(outer, inner, tx));
                    self.blobs.want(hash, candidates);
                }
                Some(Err(())) if self.is_checkpoint(&hash) => self.checkpoint_is_malformed(tx),
                Some(Err(())) => {
                    self.reject("malformed manifest");
                    self.blobs.want(hash, candidates);
                }
                None if self.is_checkpoint(&hash) => self.checkpoint_here(tx),
                None => {
                    Vault::here_by(&hash, &outer, tx);
                    self.files.handle_blob_here(now, &hash, &mut self.vault, tx);
                }
            }
        }
    }

    /// Asks connected peers for pieces, within the window.
    pub(super) fn plan_pieces(&mut self, now: Timestamp) {
        if !self.is_active() || self.paused || self.blobs.wanted.is_empty() {
            self.blobs.retry_mono = None;
            let asked = std::mem::take(&mut self.blobs.asked);
            self.blobs.queue.extend(asked.into_keys());
            return;
        }
        if self.blobs.retry_mono.is_some_and(|at| at <= now.mono_ms) {
            // Everybody here said no, or was silent: ask all again.
            self.blobs.retry_mono = None;
            self.blobs.absent.clear();
        }
        let connected = self.links.connected();
        let mut silent = BTreeSet::new();
        self.blobs.asked.retain(|piece, (device, deadline)| {
            let keep = *deadline > now.mono_ms && connected.contains(device);
            if !keep {
                silent.insert((*device, *piece));
            }
            keep
        });
        for (device, piece) in silent {
            self.blobs.queue.push_front(piece);
            self.blobs.absent.insert((device, piece));
        }
        let mut room = WINDOW.saturating_sub(self.blobs.asked.len());
        let mut batches: BTreeMap<DeviceId, Vec<PieceId>> = BTreeMap::new();
        let mut unserved = VecDeque::new();
        let mut holders: Vec<DeviceId> = connected.iter().copied().collect();
        holders.sort_by_key(|device| self.links.route_to(device, |epoch| self.is_left_behind(epoch)));
        while room > 0 && unserved.len() < UNSERVED_MAX && !holders.is_empty() {
            let Some(piece) = self.blobs.queue.pop_front() else { break };
            let holder = holders.iter().find(|device| !self.blobs.absent.contains(&(**device, piece)));
            match holder {
                Some(device) => {
                    batches.entry(*device).or_default().push(piece);
                    self.blobs.asked.insert(piece, (*device, now.after_ms(SILENT_MS)));
                    room -= 1;
                }
                None => unserved.push_back(piece),
            }
        }
        if !unserved.is_empty() {
            self.blobs.queue.append(&mut unserved);
            if self.blobs.retry_mono.is_none() {
                self.blobs.retry_mono = Some(now.after_ms(SILENT_MS));
            }
        }
        for (device, pieces) in batches {
            let nonce = self.nonce();
            if let Some(route) = self.links.route_to(&device, |epoch| self.is_left_behind(epoch)) {
                self.send_message(route, &Message::Want { nonce, pieces });
            }
        }
    }

    /// A peer wants pieces of us.
    pub(super) fn wanted(&mut self, route: Route, nonce: Nonce, pieces: Vec<PieceId>, tx: &Tx<'_>) {
        let mut absent = Vec::new();
        for piece in pieces {
            if tx.has(Table::Pieces, &piece.0) {
                self.serving.want(route, piece);
            } else {
                absent.push(piece);
            }
        }
        if !absent.is_empty() {
            self.send_message(route, &Message::Have { nonce, absent });
        }
    }

    /// A peer has not what we want of it.
    pub(super) fn absent(&mut self, device: DeviceId, pieces: &[PieceId]) {
        for piece in pieces {
            if self.blobs.asked.get(piece).is_some_and(|(asked, _)| *asked == device) {
                self.blobs.asked.remove(piece);
                self.blobs.absent.insert((device, *piece));
                self.blobs.queue.push_back(*piece);
            }
        }
    }
}

/// Whether all pieces of a version are stored, those behind its manifest as well.
fn is_whole(manifest: &Manifest, read: &dyn Read) -> bool {
    manifest.is_here(read) && nested(manifest, read).is_none_or(|inner| inner.is_ok_and(|inner| inner.is_here(read)))
}

/// The manifest inside a manifest that is itself a blob.
pub(super) fn nested(manifest: &Manifest, read: &dyn Read) -> Option<Result<Manifest, ()>> {
    if manifest.depth == 0 {
        return None;
    }
    let mut joined = Vec::new();
    for piece in &manifest.pieces {
        let opened = read.get(Table::Pieces, &piece.id.0).and_then(|sealed| piece::open_piece(piece, &sealed).ok());
        let Some(opened) = opened else { return Some(Err(())) };
        joined.extend_from_slice(&opened);
    }
    Some(piece::open_inner_manifest(manifest, &joined).map_err(|_| ()))
}
