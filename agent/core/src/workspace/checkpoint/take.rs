//! Taking an offered checkpoint: its pieces are fetched before any history, and loaded into the folder.
//!
//! Invariant: an offer is believed as far as an active writer signed it, and no further: what it holds is bounded before
//! it is unpacked, counted before Automerge sees it, and shown as unverified until `check` is done with it. A checkpoint
//! that cannot be read is left where the fault was found, and its maker named.

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::check::Checking;
use super::{BLAMED, SHOWN, TAKING, Workspace, pieces_of};
use crate::checkpoint::{Checkpoint, Data, Pack, Record, SAVED_BYTES_MAX, unpack_data};
use crate::content::{INLINE_BYTES_MAX, PieceRef};
use crate::envelope::{self, Kind};
use crate::files::{Author, Saved, version_hash};
use crate::id::{ChainId, DeviceId, Link, VersionHash};
use crate::membership::{Role, accepts, ends_before};
use crate::piece::check_manifest;
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::{Location, Vault, join, open_stored};

/// If no piece comes for this long, the history is asked for instead.
const STALLED_MS: u64 = 20_000;
/// Nor does the history wait longer than this in all, however slowly pieces come.
const FETCH_MS: u64 = 600_000;
/// If all that anybody here holds is here, and it is less than the checkpoint covers, for this long, it is compared with
/// what there is.
const GIVE_UP_MS: u64 = 600_000;

/// How far it is.
#[derive(Debug)]
enum Phase {
    /// Pieces are being fetched.
    Fetching,
    /// They are being loaded; this one is next.
    Loading(u64),
    /// All is shown; the history is coming.
    Shown,
    /// The history is here.
    Checking(Checking),
}

/// A checkpoint that was offered and is being taken.
#[derive(Debug)]
pub(super) struct Taking {
    /// Whose chain its envelope is on.
    chain: ChainId,
    link: Link,
    pub(super) checkpoint: Checkpoint,
    phase: Phase,
    /// Since this machine was opened: pieces are being asked for.
    asked: bool,
    /// How many pieces were missing when one came last, and when to give up: if no other comes, and at all.
    missing: usize,
    deadline_mono: Option<u64>,
    end_mono: u64,
}

impl Wire for Taking {
    fn encode(&self, writer: &mut Writer) {
        let (phase, next) = match self.phase {
            Phase::Fetching => (0, 0),
            Phase::Loading(next) => (1, next),
            // A check that was interrupted begins again.
            Phase::Shown | Phase::Checking(_) => (2, 0),
        };
        writer.array(5).bytes(&self.chain.to_bytes()).item(&self.link).item(&self.checkpoint).uint(phase).uint(next);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "taken checkpoint")?;
        let chain = ChainId::from_bytes(reader.fixed("chain")?);
        let (link, checkpoint) = (reader.item()?, reader.item()?);
        let phase = match (reader.uint()?, reader.uint()?) {
            (0, _) => Phase::Fetching,
            (1, next) => Phase::Loading(next),
            (2, _) => Phase::Shown,
            _ => return Err(DecodeError::Invalid("phase")),
        };
        Ok(Self { chain, link, checkpoint, phase, asked: false, missing: 0, deadline_mono: None, end_mono: u64::MAX })
    }
}

impl Taking {
    pub(super) fn maker(&self) -> DeviceId {
        self.chain.device
    }
    pub(super) fn is_of(&self, link: &Link) -> bool {
        self.link == *link
    }
    pub(super) fn is_checking(&self) -> bool {
        matches!(self.phase, Phase::Checking(_))
    }
    /// Whether anything of it may be in the documents.
    pub(super) fn is_shown(&self) -> bool {
        !matches!(self.phase, Phase::Fetching)
    }
    pub(super) fn checking(&mut self) -> Option<&mut Checking> {
        match &mut self.phase {
            Phase::Checking(checking) => Some(checking),
            Phase::Fetching | Phase::Loading(_) | Phase::Shown => None,
        }
    }
    /// What its pieces are asked for as.
    fn key(&self) -> VersionHash {
        VersionHash(self.link.0)
    }
}

/// What is wrong with a checkpoint, for its maker's sake in a word.
struct Unreadable;

impl Workspace {
    /// Whether the history waits for the pieces of a checkpoint.
    pub(in crate::workspace) fn history_waits(&self) -> bool {
        let taking = self.checkpoints.taking.as_ref();
        taking.is_some_and(|taking| matches!(taking.phase, Phase::Fetching | Phase::Loading(_)))
    }

    /// Whether these pieces are those of the checkpoint being taken.
    pub(in crate::workspace) fn is_checkpoint(&self, hash: &VersionHash) -> bool {
        self.checkpoints.taking.as_ref().is_some_and(|taking| taking.key() == *hash)
    }

    pub(super) fn taking_deadline(&self) -> Option<u64> {
        let taking = self.checkpoints.taking.as_ref()?;
        match &taking.phase {
            Phase::Fetching if !taking.asked => Some(self.last_mono),
            Phase::Loading(_) => Some(self.last_mono),
            Phase::Fetching | Phase::Shown => taking.deadline_mono,
            // What else wakes it: the verdicts that are due.
            Phase::Checking(_) => self.verdicts.is_settled().then_some(self.last_mono),
        }
    }

    /// A peer offers a checkpoint.
    pub(in crate::workspace) fn offered(&mut self, envelope: &Bytes, tx: &Tx<'_>) {
        if !self.is_active() || self.paused || self.reborn || self.checkpoints.taking.is_some() {
            return;
        }
        let Some((chain, link, checkpoint)) = self.open_offer(envelope) else {
            return self.reject("checkpoint that is none");
        };
        let worth = self.frontier.gap_to(&checkpoint.frontier) >= self.checkpoints.every;
        if !worth || self.checkpoints.blamed.contains_key(&chain.device) {
            return;
        }
        self.abandon_making(tx);
        // What is asked for already would come before the pieces.
        self.pulls.0.clear();
        let taking = Taking {
            chain,
            link,
            checkpoint,
            phase: Phase::Fetching,
            asked: false,
            missing: 0,
            deadline_mono: None,
            end_mono: u64::MAX,
        };
        self.checkpoints.taking = Some(taking);
        self.store_taking(tx);
    }

    /// What an active writer signed.
    fn open_offer(&self, envelope: &Bytes) -> Option<(ChainId, Link, Checkpoint)> {
        let head = envelope::open_head(&self.id, &self.vault.keyring, envelope).ok()?;
        let device = self.membership.devices.get(&head.header.chain.device)?;
        let head = head.verify(&device.public).ok()?;
        let header = head.header();
        let (kind, chain) = (header.kind, header.chain);
        let writes = self.membership.role_of(&chain.device).is_some_and(|role| role >= Role::Writer);
        if kind != Kind::Checkpoint || !writes {
            return None;
        }
        let ops = self.ops.as_ref()?;
        // Who was away for long may not know the membership it names: then what they know of its maker must do until it is
        // checked.
        if header.op_heads.iter().all(|op| self.knows(op)) {
            accepts(ops, &[], kind, chain, &header.op_heads).ok()?;
        }
        let ends = ends_before(ops, &self.membership, head.link(), chain, header.seq, kind, &header.op_heads);
        let body = head.open_body(&self.vault.keyring, envelope).ok()?;
        ends.is_empty().then_some((chain, head.link(), from_bytes(&body).ok()?))
    }

    fn store_taking(&self, tx: &Tx<'_>) {
        match &self.checkpoints.taking {
            Some(taking) => tx.put(Table::Meta, TAKING, to_bytes(taking)),
            None => tx.delete(Table::Meta, TAKING),
        }
    }

    fn set_phase(&mut self, phase: Phase, tx: &Tx<'_>) {
        if let Some(taking) = &mut self.checkpoints.taking {
            (taking.phase, taking.deadline_mono) = (phase, None);
        }
        self.store_taking(tx);
    }

    pub(super) fn run_taking(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let missing = self.blobs.pending();
        let Some(taking) = &mut self.checkpoints.taking else { return };
        match taking.phase {
            Phase::Fetching if !taking.asked => {
                taking.asked = true;
                taking.deadline_mono = Some(now.after_ms(STALLED_MS));
                taking.end_mono = now.after_ms(FETCH_MS);
                let (key, manifest) = (taking.key(), taking.checkpoint.manifest.clone());
                self.fetch(now, key, manifest, tx);
            }
            Phase::Fetching if missing != taking.missing && now.mono_ms < taking.end_mono => {
                taking.missing = missing;
                taking.deadline_mono = Some(now.after_ms(STALLED_MS).min(taking.end_mono));
            }
            Phase::Fetching if taking.deadline_mono.is_some_and(|at| at <= now.mono_ms) => {
                let key = taking.key();
                self.blobs.forget(&key);
                self.end_taking(false, tx);
            }
            Phase::Fetching => {}
            Phase::Loading(next) => self.load_pack(now, next, tx),
            Phase::Shown if self.frontier.covers(&taking.checkpoint.frontier) => {
                taking.phase = Phase::Checking(Checking::new(true));
                self.run_checking(now, tx);
            }
            Phase::Shown => self.wait_for_history(now, tx),
            Phase::Checking(_) => self.run_checking(now, tx),
        }
    }

    /// All that connected peers hold is here, and it is not all that the checkpoint covers: that lasts only so long.
    fn wait_for_history(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let all_here = self.links.0.values().any(|link| link.reconciled);
        let Some(taking) = &mut self.checkpoints.taking else { return };
        if !all_here {
            taking.deadline_mono = None;
            return;
        }
        let due = *taking.deadline_mono.get_or_insert(now.after_ms(GIVE_UP_MS));
        if due <= now.mono_ms {
            taking.phase = Phase::Checking(Checking::new(false));
            let maker = taking.maker();
            let maker = self.device_name(&maker);
            self.problem(format!(
                "The checkpoint of {maker} covers more than anybody here holds; what nobody signed was taken out again."
            ));
            self.run_checking(now, tx);
        }
    }

    /// All pieces are here.
    pub(in crate::workspace) fn checkpoint_here(&mut self, tx: &Tx<'_>) {
        self.set_phase(Phase::Loading(0), tx);
    }

    /// Its manifest is in pieces, and those make none.
    pub(in crate::workspace) fn checkpoint_is_malformed(&mut self, tx: &Tx<'_>) {
        self.blame("cannot be read", tx);
        self.end_taking(false, tx);
    }

    fn load_pack(&mut self, now: Timestamp, next: u64, tx: &Tx<'_>) {
        let Some(taking) = &self.checkpoints.taking else { return };
        let chain = taking.chain;
        let pieces = pieces_of(&taking.checkpoint, tx).unwrap_or_default();
        let at = usize::try_from(next).unwrap_or(usize::MAX);
        let Some(piece) = pieces.get(at) else { return self.set_phase(Phase::Shown, tx) };
        let loaded = self.load_records(now, chain, piece, pieces.get(at + 1..).unwrap_or_default(), tx);
        match loaded {
            Ok(following) => self.set_phase(Phase::Loading(next + 1 + following as u64), tx),
            Err(Unreadable) => {
                self.blame("cannot be read", tx);
                self.set_phase(Phase::Shown, tx);
            }
        }
    }

    /// Takes in one pack, and how many pieces behind it were its own.
    fn load_records(
        &mut self,
        now: Timestamp,
        chain: ChainId,
        piece: &PieceRef,
        behind: &[PieceRef],
        tx: &Tx<'_>,
    ) -> Result<usize, Unreadable> {
        let plain = open_stored(piece, tx).ok_or(Unreadable)?;
        let pack: Pack = from_bytes(&plain).map_err(|_| Unreadable)?;
        let following = pack.following();
        let parts = behind.get(..following).ok_or(Unreadable)?;
        let unpack = |data: &Data, max: usize| {
            let unpacked = match data {
                Data::Here(packed) => unpack_data(packed, max),
                Data::Following(_) => unpack_data(&join(parts, tx).ok_or(Unreadable)?, max),
            };
            unpacked.map_err(|_| Unreadable)
        };
        let mut told = Vec::new();
        let mut result = Ok(following);
        for record in pack.records {
            let taken = match record {
                Record::Version { hash, data } => unpack(&data, INLINE_BYTES_MAX).and_then(|bytes| {
                    let at = match data {
                        Data::Here(_) => Location::Saved(piece.clone()),
                        Data::Following(_) => Location::Following(parts.to_vec()),
                    };
                    let right = version_hash(&self.id, &bytes) == hash;
                    right.then(|| told.push((hash, at))).ok_or(Unreadable)
                }),
                Record::Blob { hash, manifest } => {
                    let right = check_manifest(&manifest).is_ok();
                    right.then(|| told.push((hash, Location::SavedBlob(manifest)))).ok_or(Unreadable)
                }
                Record::Document { name, version, data } => unpack(&data, SAVED_BYTES_MAX).and_then(|bytes| {
                    // What the row says is that it may hold what nobody signed: so the row comes first.
                    tx.put(Table::Meta, shown_key(&name), Vec::new());
                    let author = Author { chain, wall_ms: now.wall_ms };
                    let saved = Saved { name, version, bytes };
                    let taken = self.files.take_saved(now, author, &saved, &mut self.vault, tx);
                    taken.map_err(|_| Unreadable)
                }),
            };
            if taken.is_err() {
                result = Err(Unreadable);
                break;
            }
        }
        let hashes: Vec<VersionHash> = told.iter().map(|(hash, _)| *hash).collect();
        for (hash, at) in &told {
            Vault::index_saved(hash, at, tx);
        }
        self.files.versions_here(now, &hashes, &mut self.vault, tx);
        result
    }

    /// Names the maker of the checkpoint being taken, and takes none of theirs again.
    pub(super) fn blame(&mut self, what: &str, tx: &Tx<'_>) {
        let Some(maker) = self.checkpoints.taking.as_ref().map(Taking::maker) else { return };
        let name = self.device_name(&maker);
        let why = format!(
            "The checkpoint that {name} made {what}: it was dropped, and the folder is built from what everybody signed. \
             What you wrote is kept. Ask its owner, or take that device out with `weft devices revoke`."
        );
        tx.put(Table::Meta, [BLAMED, &maker.0].concat(), why.as_bytes().to_vec());
        self.checkpoints.blamed.insert(maker, why);
        self.reject("false checkpoint");
    }

    /// Nothing unproven is shown any more; `keeps`: its pieces can be served to others.
    pub(super) fn end_taking(&mut self, keeps: bool, tx: &Tx<'_>) {
        let Some(taking) = self.checkpoints.taking.take() else { return };
        self.store_taking(tx);
        let known = self.checkpoints.known.as_ref().is_some_and(|known| taking.is_of(&known.link));
        if known && !keeps {
            self.checkpoints.known = None;
            tx.delete(Table::Meta, super::KNOWN);
        }
        self.drop_pieces(&taking.link, &taking.checkpoint, tx);
        self.checkpoints.moved = true;
    }
}

pub(super) fn shown_key(name: &crate::content::DocumentName) -> Vec<u8> {
    [SHOWN, name.as_str().as_bytes()].concat()
}
