//! Going on after stored values were lost: what depended on them is rebuilt from the rest, or asked of peers.
//!
//! The shell took damaged rows away and left notes ([`crate::damage`]); the next `open` comes here. First, before anything
//! reads them, rows are put in order that everything else stands on ([`prepare`], [`prepare_chains`]); then the machine
//! rebuilds the rest ([`Workspace::mend`]). Every table is dealt with by name:
//!
//! - documents, waiting changes, states of texts: given again from held accepted envelopes and from the outbox;
//! - envelopes: [`super::holes`]; what was known of one: read from it again; the index of versions: made again;
//! - the outbox or the incarnation: the chain is left as after a rollback, and the folder is entered by difference;
//! - what is on disk: met again ([`crate::files`]); pieces: wanted again; ops: read from held envelopes again.
//!
//! Invariant: no loss of a row ever becomes a removal, from a disk or of an entry, and every loss is said.
//! Spec: docs/sync.md#damage.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::cbor::to_bytes;

use super::Workspace;
use super::birth::{self, INCARNATION};
use super::holes::{Holes, hole_key};
use super::incarnation::INCARNATIONS_MAX;
use super::outbox::{Batch, OpsBody, Outbox};
use super::output::Output;
use super::receive::{Held, tip_key};
use super::vouch::VOUCH;
use crate::content::DocumentName;
use crate::damage::Losses;
use crate::envelope::{self, Kind};
use crate::files::{self, Author, UNREADABLE};
use crate::frontier::Tip;
use crate::id::{ChainId, DeviceId, OpId, PieceId, Place, VersionHash, WorkspaceId};
use crate::keyring::Keyring;
use crate::op::SignedOp;
use crate::setup::Watermark;
use crate::store::{Read, Table, Tx, rows};
use crate::time::Timestamp;
use crate::vault::{Location, Vault};

/// More holes than this are not asked for one by one: their chains are cut before them, and pulled again.
const HOLES_MAX: usize = 64;
/// Rows read at once, some of them whole envelopes.
const ROWS: usize = 64;
/// Where the last mend is told of; wall ms 8 BE ‖ text.
const MENDED: &[u8] = b"mended";
/// ... for so long, in milliseconds: a failing disk is to be noticed.
const MENDED_MS: u64 = 7 * 24 * 3600 * 1000;

/// What of the documents is to be built anew.
#[derive(Debug, Default)]
struct Anew {
    all: bool,
    documents: BTreeSet<DocumentName>,
}

impl Anew {
    fn is_empty(&self) -> bool {
        !self.all && self.documents.is_empty()
    }
}

/// What is still to be done once the machine stands.
#[derive(Debug, Default)]
pub(super) struct Mend {
    losses: Losses,
    anew: Anew,
    /// What was known of these was read from the envelopes again, but for whether they count.
    unjudged: Vec<Place>,
    /// Chains were cut.
    cut: bool,
    /// Nobody knows what was sealed or is about to be under the present incarnation.
    begins_anew: bool,
}

/// Reads the notes, and puts in order what `open` reads first.
pub(super) fn prepare(device: DeviceId, watermark: Watermark, tx: &Tx<'_>) -> Mend {
    let losses = Losses::read(tx);
    let mut mend = Mend::default();
    if losses.of(Table::Meta) {
        birth::restore_start(device, tx);
        if tx.get(Table::Meta, INCARNATION).is_none() {
            let mut last = watermark.incarnation.max(1);
            for (key, _) in rows(tx, Table::Held, &device.0, ROWS) {
                last = last.max(place_of(&key).map_or(1, |place| place.chain.signed().incarnation));
            }
            tx.put(Table::Meta, INCARNATION, last.min(INCARNATIONS_MAX).to_be_bytes().to_vec());
            mend.begins_anew = true;
        }
    }
    mend.begins_anew |= losses.of(Table::Outbox);
    mend.anew = lost_documents(&losses);
    // What is in no envelope any more goes, and comes back from the folder.
    mend.anew.all |= mend.begins_anew;
    mend.losses = losses;
    mend
}

/// Puts the chains in order, and forgets the documents that are to be built anew.
pub(super) fn prepare_chains(mend: &mut Mend, workspace: WorkspaceId, keyring: &Keyring, tx: &Tx<'_>) {
    if mend.losses.is_empty() {
        return;
    }
    let chains = Chains::read(&mend.losses, tx);
    mend.unjudged = chains.read_again(workspace, keyring, tx);
    if mend.losses.of(Table::Meta) {
        chains.find_tips(tx);
    }
    let holes = chains.holes(tx);
    if holes.len() > HOLES_MAX {
        chains.cut_before(&holes, tx);
        mend.unjudged.retain(|place| tx.has(Table::Held, &place.to_bytes()));
        mend.cut = true;
        mend.anew.all = true;
    } else {
        for place in holes {
            tx.put(Table::Meta, hole_key(place), Vec::new());
        }
    }
    if mend.anew.all {
        files::forget_all(tx);
    } else {
        files::forget(&mend.anew.documents, tx);
    }
    // One that cannot be read although it was built anew is left alone from then on.
    for name in mend.losses.rows_of(Table::Documents).filter_map(|key| key.strip_suffix(&[0])) {
        if let Some(name) = core::str::from_utf8(name).ok().and_then(DocumentName::new) {
            tx.put(Table::Meta, [UNREADABLE, name.as_str().as_bytes()].concat(), Vec::new());
        }
    }
}

fn place_of(key: &[u8]) -> Option<Place> {
    Some(Place::from_bytes(key.try_into().ok()?))
}

fn lost_documents(losses: &Losses) -> Anew {
    let name_of = |key: &[u8]| {
        let name = key.split(|byte| *byte == 0).next()?;
        DocumentName::new(core::str::from_utf8(name).ok()?)
    };
    let mut anew = Anew::default();
    for table in [Table::Documents, Table::Waiting] {
        anew.all |= losses.some_of(table);
        for key in losses.rows_of(table) {
            match name_of(key) {
                Some(name) => {
                    anew.documents.insert(name);
                }
                None => anew.all = true,
            }
        }
    }
    anew.all |= losses.some_of(Table::Files);
    anew.documents.extend(losses.rows_of(Table::Files).filter_map(files::text_of_row));
    anew
}

/// What is there of every chain that may have lost something.
#[derive(Default)]
struct Chains {
    /// By chain, the numbers of which something is stored or noted as lost.
    all: BTreeMap<ChainId, BTreeSet<u64>>,
    /// Those that are known to have lost something.
    lost: BTreeSet<Place>,
}

impl Chains {
    fn read(losses: &Losses, tx: &Tx<'_>) -> Self {
        let mut chains = Self::default();
        for table in [Table::Envelopes, Table::Held] {
            chains.lost.extend(losses.rows_of(table).filter_map(place_of));
        }
        // The notes of holes are in the table of everything else.
        let some = [Table::Envelopes, Table::Held, Table::Meta].into_iter().any(|table| losses.of(table));
        if some {
            for table in [Table::Held, Table::Envelopes] {
                for (key, _) in rows(tx, table, &[], ROWS) {
                    chains.note(place_of(&key));
                }
            }
        }
        chains.lost.clone().into_iter().for_each(|place| chains.note(Some(place)));
        if some {
            for (chain, numbers) in &chains.all {
                let tip = tx.get(Table::Meta, &tip_key(*chain)).and_then(|row| row.first_chunk::<8>().copied());
                let last = tip.map_or(0, u64::from_be_bytes).max(numbers.last().copied().unwrap_or(0));
                let first = if chain.is_branch() { numbers.first().copied().unwrap_or(1) } else { 1 };
                let places = (first..=last).map(|seq| Place { chain: *chain, seq });
                let whole = |place: &Place| {
                    [Table::Envelopes, Table::Held].into_iter().all(|table| tx.has(table, &place.to_bytes()))
                };
                chains.lost.extend(places.filter(|place| !whole(place)));
            }
        }
        chains
    }

    fn note(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.all.entry(place.chain).or_default().insert(place.seq);
        }
    }

    /// Reads from envelopes that are whole what is lost of what was known of them.
    fn read_again(&self, workspace: WorkspaceId, keyring: &Keyring, tx: &Tx<'_>) -> Vec<Place> {
        let mut again = Vec::new();
        for place in self.lost.iter().filter(|place| !tx.has(Table::Held, &place.to_bytes())) {
            let envelope = tx.get(Table::Envelopes, &place.to_bytes());
            let head = envelope.and_then(|envelope| envelope::open_head(&workspace, keyring, &envelope).ok());
            if let Some(head) = head {
                let (kind, op_heads) = (head.header.kind.to_byte(), head.header.op_heads);
                let held = Held { link: head.link, kind, refused: String::new(), op_heads };
                tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
                again.push(*place);
            }
        }
        again
    }

    /// Writes down the last of every chain whose tip is lost.
    fn find_tips(&self, tx: &Tx<'_>) {
        for (chain, numbers) in &self.all {
            if tx.has(Table::Meta, &tip_key(*chain)) {
                continue;
            }
            for seq in numbers.iter().rev() {
                if let Some(held) = Held::read(Place { chain: *chain, seq: *seq }, tx) {
                    let row = [&seq.to_be_bytes()[..], &held.link.0].concat();
                    tx.put(Table::Meta, tip_key(*chain), row);
                    break;
                }
            }
        }
    }

    fn holes(&self, tx: &Tx<'_>) -> BTreeSet<Place> {
        let whole =
            |place: &&Place| [Table::Envelopes, Table::Held].into_iter().all(|table| tx.has(table, &place.to_bytes()));
        self.lost.iter().filter(|place| !whole(place)).copied().collect()
    }

    /// Ends every chain before its first hole.
    fn cut_before(&self, holes: &BTreeSet<Place>, tx: &Tx<'_>) {
        for (chain, numbers) in &self.all {
            let from = Place { chain: *chain, seq: 0 };
            let Some(hole) = holes.range(from..).next().filter(|hole| hole.chain == *chain) else { continue };
            for seq in numbers.range(hole.seq..) {
                let place = Place { chain: *chain, seq: *seq };
                tx.delete(Table::Envelopes, place.to_bytes());
                tx.delete(Table::Held, place.to_bytes());
            }
            let last = Place { chain: *chain, seq: hole.seq.saturating_sub(1) };
            match Held::read(last, tx) {
                Some(held) => {
                    let row = [&last.seq.to_be_bytes()[..], &held.link.0].concat();
                    tx.put(Table::Meta, tip_key(*chain), row);
                }
                None => tx.delete(Table::Meta, tip_key(*chain)),
            }
        }
    }
}

impl Workspace {
    /// Rebuilds what depended on lost rows. Whether the chain must be left, as after a rollback.
    pub(super) fn mend(&mut self, now: Timestamp, mend: &Mend, tx: &Tx<'_>) -> bool {
        let losses = &mend.losses;
        if losses.is_empty() {
            return false;
        }
        self.holes = Holes::open(tx);
        let uncarried = losses.some_of(Table::Meta) || losses.rows_of(Table::Meta).any(|key| key == VOUCH);
        if losses.of(Table::Ops) || uncarried {
            self.read_ops_again(tx);
        }
        self.judge_again(mend, tx);
        if losses.of(Table::Versions) || mend.cut {
            self.index_again(tx);
        }
        self.want_pieces_again(now, losses, tx);
        let waits = !self.holes.is_empty() || self.unverified().is_some() || mend.cut;
        if losses.of(Table::Files) {
            self.records_lost = true;
        }
        if !mend.begins_anew && !mend.anew.is_empty() {
            self.build_anew(now, &mend.anew, tx);
            if waits {
                self.await_peers(now, tx);
            } else {
                self.files.rebase(&mut self.vault, tx);
            }
        }
        if self.records_lost && !self.reborn && !mend.begins_anew {
            self.records_lost = false;
            self.files.meet_again(now, &mut self.vault, tx);
        }
        self.effects.push(Output::Look(Vec::new()));
        self.say_mended(now, losses, tx);
        for note in losses.notes() {
            tx.delete(Table::Meta, note.clone());
        }
        mend.begins_anew
    }

    /// Whether all documents are to be built anew when the chain is left.
    pub(super) fn forgets_all(mend: &Mend) -> bool {
        mend.anew.all
    }

    fn say_mended(&mut self, now: Timestamp, losses: &Losses, tx: &Tx<'_>) {
        let text = format!(
            "Stored values of this computer's database were damaged ({}). They were rebuilt from what is here and what the \
             other devices hold; no file was removed for it. Check the disk: it does not keep what is written to it.",
            losses.named()
        );
        tx.put(Table::Meta, MENDED, [&now.wall_ms.to_be_bytes()[..], text.as_bytes()].concat());
    }

    /// What people are to know of damage.
    pub(super) fn damage_problems(&self, now: Timestamp, read: &dyn Read) -> Vec<String> {
        let mended = read.get(Table::Meta, MENDED).and_then(|row| {
            let (wall_ms, text) = row.split_first_chunk::<8>()?;
            let age_ms = now.wall_ms.saturating_sub(u64::from_be_bytes(*wall_ms));
            (age_ms < MENDED_MS).then(|| String::from_utf8_lossy(text).into_owned())
        });
        let unnamed = self.files.figures().unnamed;
        let unnamed = (unnamed > 0 && !self.reborn).then(|| {
            let them = if unnamed == 1 { "1 file or folder is".to_owned() } else { format!("{unnamed} files or folders are") };
            format!(
                "{them} on this disk and in no document of this workspace: nothing says that they were deleted, so they stay, \
                 but they are not synced. The database is damaged: run `weft repair`."
            )
        });
        mended.into_iter().chain(self.holes.problem()).chain(unnamed).collect()
    }

    /// Takes in again every op that a held envelope carries; the others are to be said again.
    fn read_ops_again(&mut self, tx: &Tx<'_>) {
        let mut carried: BTreeSet<OpId> = BTreeSet::new();
        let mut bodies = Vec::new();
        for (key, value) in rows(tx, Table::Held, &[], ROWS) {
            let Some(place) =
                place_of(&key).filter(|_| Held::parse(&value).is_some_and(|held| held.kind == Kind::Ops.to_byte()))
            else {
                continue;
            };
            let body = self.vault.body(place, tx);
            bodies.extend(body.and_then(|body| weft_protocol::cbor::from_bytes::<OpsBody>(&body).ok()));
        }
        for order in self.outbox.orders() {
            if let Some(Batch::Ops(body)) = Outbox::batch(order, tx) {
                bodies.push(body);
            }
        }
        for body in &bodies {
            self.take_ops(body, tx);
            let ids = body.0.iter().filter_map(|op| SignedOp::parse(&self.id, op).ok()).map(|op| op.id());
            carried.extend(ids);
        }
        let all = self.ops.iter().flat_map(|ops| ops.ops().map(SignedOp::id));
        let uncarried: Vec<OpId> = all.filter(|id| !carried.contains(id)).collect();
        self.set_aside(&uncarried, tx);
    }

    /// Judges what was read again, and finds again what does not count.
    fn judge_again(&mut self, mend: &Mend, tx: &Tx<'_>) {
        for place in &mend.unjudged {
            let (Some(mut held), Some(envelope)) = (self.held(*place, tx), tx.get(Table::Envelopes, &place.to_bytes()))
            else {
                continue;
            };
            let head = envelope::open_head(&self.id, &self.vault.keyring, &envelope);
            let Ok(head) = head else { continue };
            let before = Place { seq: place.seq.saturating_sub(1), ..*place };
            let before = self.held(before, tx).map(|held| held.op_heads).unwrap_or_default();
            let why = self.verdicts.why(place);
            held.refused =
                why.or_else(|| self.accept(&head.trust_stored(), &before, &envelope).err()).unwrap_or_default();
            tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
        }
        if mend.losses.of(Table::Meta) || !mend.unjudged.is_empty() {
            self.void_again(tx);
        }
    }

    /// Notes where every version is, from everything that counts.
    fn index_again(&mut self, tx: &Tx<'_>) {
        let stale: Vec<Vec<u8>> = rows(tx, Table::Versions, &[], 256)
            .filter(|(_, value)| Vault::place_in(value).is_some_and(|place| !tx.has(Table::Held, &place.to_bytes())))
            .map(|(key, _)| key)
            .collect();
        stale.into_iter().for_each(|key| tx.delete(Table::Versions, key));
        for place in self.accepted_places(tx) {
            if let Some(content) = self.vault.content(&Location::Sealed(place), tx) {
                self.vault.index(&content, &Location::Sealed(place), tx);
            }
        }
        for order in self.outbox.orders() {
            if let Some(Batch::Content(content)) = Outbox::batch(order, tx) {
                self.vault.index(&content, &Location::Unsealed(order), tx);
            }
        }
    }

    fn accepted_places(&self, tx: &Tx<'_>) -> Vec<Place> {
        let content = |held: &Held| held.kind == Kind::Content.to_byte() && held.refused.is_empty();
        rows(tx, Table::Held, &[], 512)
            .filter(|(_, value)| Held::parse(value).as_ref().is_some_and(content))
            .filter_map(|(key, _)| place_of(&key))
            .collect()
    }

    /// Lost pieces are wanted again by whatever version they are of, and their files are read anew.
    fn want_pieces_again(&mut self, now: Timestamp, losses: &Losses, tx: &Tx<'_>) {
        if !losses.of(Table::Pieces) {
            return;
        }
        let lost: BTreeSet<PieceId> =
            losses.rows_of(Table::Pieces).filter_map(|key| Some(PieceId(key.try_into().ok()?))).collect();
        let shown = self.files.shown_blobs();
        let mut concerned: BTreeSet<VersionHash> = BTreeSet::new();
        for (key, _) in rows(tx, Table::Versions, &[], 256) {
            let Ok(hash) = key.as_slice().try_into().map(VersionHash) else { continue };
            for manifest in Vault::manifests(&hash, tx) {
                let pieces = manifest.pieces.iter().map(|piece| piece.id);
                let missing =
                    |id: PieceId| lost.contains(&id) || shown.contains(&hash) && !tx.has(Table::Pieces, &id.0);
                if pieces.into_iter().any(missing)
                    || losses.some_of(Table::Pieces) && shown.contains(&hash) && !manifest.is_here(tx)
                {
                    concerned.insert(hash);
                    self.fetch(now, hash, manifest, tx);
                }
            }
        }
        self.files.read_anew(&|hash| concerned.contains(hash), tx);
    }

    /// An envelope of our own chain is damaged here, and nobody else has it: no one can take in what follows it. The chain
    /// ends before it, and all that it held from there on is entered again from the folder, in the next one.
    pub(super) fn give_up_own_hole(&mut self, now: Timestamp, hole: Place, tx: &Tx<'_>) {
        let last = self.frontier.seq(&hole.chain);
        for seq in hole.seq..=last {
            let place = Place { seq, ..hole };
            tx.delete(Table::Envelopes, place.to_bytes());
            tx.delete(Table::Held, place.to_bytes());
            self.drop_void(place, tx);
        }
        self.frontier.remove(&hole.chain);
        let before = Place { seq: hole.seq.saturating_sub(1), ..hole };
        match self.held(before, tx) {
            Some(held) => self.set_tip(hole.chain, Tip { seq: before.seq, link: held.link }, tx),
            None => tx.delete(Table::Meta, tip_key(hole.chain)),
        }
        self.index_again(tx);
        self.leave_chain(now, hole.chain.incarnation, true, tx);
    }

    /// Gives the documents that were forgotten everything that counts, and what is not sealed yet.
    fn build_anew(&mut self, now: Timestamp, anew: &Anew, tx: &Tx<'_>) {
        self.files.build();
        let is_meant = |name: &DocumentName| anew.all || anew.documents.contains(name);
        self.replay_where(now, &is_meant, tx);
        for order in self.outbox.orders() {
            let Some(Batch::Content(mut content)) = Outbox::batch(order, tx) else { continue };
            content.documents.retain(|(name, _)| is_meant(name));
            let author = Author { chain: self.own.chain, wall_ms: now.wall_ms };
            self.files.handle_content(now, author, &content, &mut self.vault, tx);
        }
        self.lives += 1;
    }
}
