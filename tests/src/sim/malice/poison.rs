//! A checkpoint with a lie in it, made of what its maker holds.
//!
//! Invariant: it is signed by its maker alone, but its changes claim to be anybody's: nobody's signature stands inside a
//! saved document. Spec: docs/simulation.md#poisoned-checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, LoadOptions, ROOT, ReadDoc, SaveOptions, TextEncoding};
use bytes::Bytes;
use weft_agent_core::checkpoint::{Checkpoint, Data, Pack, Record};
use weft_agent_core::content::{Content, DocumentName, Item, Manifest, PieceRef, VersionBytes};
use weft_agent_core::envelope::Kind;
use weft_agent_core::files::actor_prefix;
use weft_agent_core::frontier::{Frontier, Tip};
use weft_agent_core::id::{ChainId, FileId, Link, PieceId, VersionHash};
use weft_agent_core::message::Message;
use weft_agent_core::piece::seal_piece;
use weft_agent_core::store::{Read, Table};
use weft_protocol::cbor::{Writer, from_bytes, to_bytes};

use super::{Lie, Malice};
use crate::sim::dice::Dice;

/// Stands in every text that a liar forges: no member's folder may hold it in the end.
pub const FORGED: &str = "FORGED-by-a-liar";
/// Plain bytes of records in one pack.
const PACK_BYTES: usize = 200 * 1024;

/// A checkpoint that lies.
#[derive(Debug)]
pub struct Poison {
    /// The offer, and the room to say it in.
    pub offer: Lie,
    /// Its pieces, for its maker's store.
    pub pieces: Vec<(PieceId, Bytes)>,
    /// In what way it lies.
    pub lie: Forgery,
}

/// In what way a checkpoint lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forgery {
    /// A text says what nobody wrote, by somebody's actor.
    Text,
    /// A text says nothing any more.
    Emptied,
    /// A file is somewhere else, or out of the folder.
    Moved,
    /// Documents or versions are not there.
    Missing,
    /// It covers what nobody holds.
    Far,
    /// It covers less than it holds.
    Short,
    /// Something in it is damaged.
    Damaged,
    /// One text stands under the name of another.
    Swapped,
}

fn load(bytes: &[u8]) -> Option<Automerge> {
    let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
    Automerge::load_with_options(bytes, options).ok()
}

fn save(document: &Automerge) -> Vec<u8> {
    document.save_with_options(SaveOptions { deflate: false, retain_orphans: false })
}

/// As everything inside a seal is packed: no codec, length, data.
fn packed(bytes: &[u8]) -> Data {
    Data::Here([&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat().into())
}

impl Malice {
    /// A checkpoint with a lie in it, if there is anything to save.
    #[must_use]
    pub fn poison(&self, read: &dyn Read, dice: &mut Dice) -> Option<Poison> {
        let lie = *dice.weighted(&[
            (14, Forgery::Text),
            (3, Forgery::Emptied),
            (3, Forgery::Moved),
            (2, Forgery::Missing),
            (1, Forgery::Far),
            (2, Forgery::Short),
            (2, Forgery::Damaged),
            (2, Forgery::Swapped),
        ])?;
        let versions = self.versions();
        let mut documents = stored(read);
        self.forge(lie, &mut documents, dice)?;
        let mut records: Vec<Record> = versions
            .iter()
            .map(|(hash, bytes)| match bytes {
                VersionBytes::Inline(bytes) => Record::Version { hash: *hash, data: packed(bytes) },
                VersionBytes::Blob(manifest) => Record::Blob { hash: *hash, manifest: manifest.clone() },
            })
            .collect();
        // Trees come last, as they should: `file` stands before `tree`.
        for (name, bytes) in &documents {
            let version = start_of(name).and_then(|start| versions.keys().find(|hash| hash.0.starts_with(&start)));
            let data = packed(bytes);
            records.push(Record::Document { name: DocumentName::new(name)?, version: version.copied(), data });
        }
        if lie == Forgery::Missing {
            records.retain(|_| dice.chance(600));
        }
        let pieces = self.pieces(records, dice)?;
        let refs: Vec<PieceRef> = pieces.iter().map(|(piece, _)| piece.clone()).collect();
        let pieces = pieces.into_iter().map(|(piece, sealed)| (piece.id, sealed)).collect();
        let manifest = Manifest { len: refs.iter().map(|piece| u64::from(piece.len)).sum(), depth: 0, pieces: refs };
        let checkpoint = Checkpoint { frontier: self.covered(lie, dice), manifest };
        let envelope = self.sealed(Kind::Checkpoint, self.next(), self.heads(), &to_bytes(&checkpoint), dice)?;
        Some(Poison { offer: self.said(Message::Offer(envelope)), pieces, lie })
    }

    /// The bytes of every version that was told of.
    fn versions(&self) -> BTreeMap<VersionHash, VersionBytes> {
        let mut versions = BTreeMap::new();
        for (head, bytes) in self.own.iter().chain(&self.others) {
            let body = self.body_of(head, bytes).filter(|_| head.header.kind == Kind::Content);
            let Some(content) = body.and_then(|body| from_bytes::<Content>(&body).ok()) else { continue };
            for item in content.documents.into_iter().flat_map(|(_, items)| items) {
                if let Item::Version { hash, bytes } = item {
                    versions.insert(hash, bytes);
                }
            }
        }
        versions
    }

    /// An actor of somebody, its own perhaps.
    fn actor(&self, dice: &mut Dice) -> Option<ActorId> {
        let chains: BTreeSet<ChainId> =
            self.own.iter().chain(&self.others).map(|(head, _)| head.header.chain).collect();
        let chain = chains.into_iter().nth(dice.index(8)).or_else(|| self.tip().map(|(head, _)| head.header.chain))?;
        Some(ActorId::from(actor_prefix(&self.set.workspace(), chain).as_slice()))
    }

    /// Puts the lie into the documents; `None` if there is none to put it into.
    fn forge(&self, lie: Forgery, documents: &mut BTreeMap<String, Vec<u8>>, dice: &mut Dice) -> Option<()> {
        let named = |documents: &BTreeMap<String, Vec<u8>>, tree: bool| -> Vec<String> {
            documents.keys().filter(|name| name.starts_with("tree:") == tree).cloned().collect()
        };
        match lie {
            Forgery::Text | Forgery::Emptied => {
                let texts = named(documents, false);
                // At least one; all of them, now and then.
                let all = dice.chance(300);
                let one = dice.index(texts.len());
                for (index, name) in texts.iter().enumerate() {
                    if all || index == one {
                        let actor = self.actor(dice)?;
                        let bytes = documents.get_mut(name)?;
                        *bytes = false_text(bytes, actor, lie == Forgery::Emptied, dice)?;
                    }
                }
                (!texts.is_empty()).then_some(())
            }
            Forgery::Moved => {
                let trees = named(documents, true);
                let bytes = documents.get_mut(trees.get(dice.index(trees.len()))?)?;
                *bytes = false_place(bytes, self.actor(dice)?, dice)?;
                Some(())
            }
            Forgery::Damaged => {
                let names: Vec<String> = documents.keys().cloned().collect();
                let bytes = documents.get_mut(names.get(dice.index(names.len()))?)?;
                let at = dice.index(bytes.len());
                *bytes.get_mut(at)? ^= 1 << dice.below(8);
                Some(())
            }
            Forgery::Swapped => {
                let texts = named(documents, false);
                let (one, other) = (texts.get(dice.index(texts.len()))?, texts.get(dice.index(texts.len()))?);
                let bytes = documents.get(one)?.clone();
                documents.insert(other.clone(), bytes);
                (one != other).then_some(())
            }
            Forgery::Missing | Forgery::Far | Forgery::Short => Some(()),
        }
    }

    fn covered(&self, lie: Forgery, dice: &mut Dice) -> Frontier {
        let mut frontier = Frontier::default();
        for (head, _) in self.own.iter().chain(&self.others) {
            let (chain, seq) = (head.header.chain, head.header.seq);
            let left_out = lie == Forgery::Short && dice.chance(300);
            if frontier.seq(&chain) < seq && !left_out {
                frontier.advance(chain, Tip { seq, link: head.link });
            }
        }
        if lie == Forgery::Far {
            let device = self.identity.device.id();
            let far = Tip { seq: 1 + dice.below(1 << 40), link: Link(dice.bytes32()) };
            frontier.advance(ChainId { device, incarnation: 2 + dice.below(60) }, far);
        }
        frontier
    }

    /// Packs the records into sealed pieces.
    fn pieces(&self, records: Vec<Record>, dice: &mut Dice) -> Option<Vec<(PieceRef, Bytes)>> {
        let (mut packs, mut bytes) = (vec![Pack::default()], 0);
        for record in records {
            let len = to_bytes(&record).len();
            if bytes + len > PACK_BYTES && bytes > 0 {
                packs.push(Pack::default());
                bytes = 0;
            }
            bytes += len;
            packs.last_mut()?.records.push(record);
        }
        let mut pieces = Vec::new();
        for pack in packs.iter().filter(|pack| !pack.records.is_empty()) {
            let (piece, sealed) = seal_piece(&to_bytes(pack), dice.rng())?;
            pieces.push((piece, sealed.into_bytes()));
        }
        (!pieces.is_empty()).then_some(pieces)
    }
}

/// All documents of a store, whole.
fn stored(read: &dyn Read) -> BTreeMap<String, Vec<u8>> {
    let mut rows: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (key, value) in read.scan(Table::Documents, &[], None, super::ROWS_MAX) {
        let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
        rows.entry(String::from_utf8_lossy(name).into_owned()).or_default().extend_from_slice(&value);
    }
    rows.into_iter().filter_map(|(name, bytes)| Some((name, save(&load(&bytes)?)))).collect()
}

/// The first bytes of the version that a text starts from, as its name says them.
fn start_of(name: &str) -> Option<[u8; 8]> {
    let (_, start) = name.split_once(":text-")?;
    Some(u64::from_str_radix(start, 16).ok()?.to_be_bytes())
}

/// The text with a line more, or without any.
fn false_text(bytes: &[u8], actor: ActorId, empty: bool, dice: &mut Dice) -> Option<Vec<u8>> {
    let mut document = load(bytes)?;
    document.set_actor(actor);
    let (_, text) = document.get(ROOT, "text").ok()??;
    let len = document.length(&text);
    let mut tx = document.transaction();
    if empty {
        tx.splice_text(&text, 0, len as isize, "").ok()?;
    } else {
        tx.splice_text(&text, 0, 0, &format!("{FORGED} {}\n", dice.below(1000))).ok()?;
    }
    tx.commit();
    Some(save(&document))
}

/// The tree with a file at another place.
fn false_place(bytes: &[u8], actor: ActorId, dice: &mut Dice) -> Option<Vec<u8>> {
    let mut document = load(bytes)?;
    document.set_actor(actor);
    let keys: Vec<String> = document.keys(ROOT).filter(|key| key.ends_with("/p")).collect();
    let key = keys.get(dice.index(keys.len()))?.clone();
    let name = if dice.chance(500) { "../../out.md".to_owned() } else { format!("{FORGED}-{}.md", dice.below(1000)) };
    let mut place = Writer::new();
    place.array(2).item(&FileId([0; 16])).text(&name);
    let mut tx = document.transaction();
    tx.put(ROOT, key, place.into_bytes()).ok()?;
    tx.commit();
    Some(save(&document))
}
