//! What an entry of the tree says, and how it is written.
//!
//! An entry is a few scalar registers in the root map of its bucket's document, under `"<32 hex of id>/<field>"`.
//! Invariant: never a nested map. Why: two objects made apart at one key hide one another. Keys are never removed.
//! Spec: docs/files.md#tree.

use std::collections::BTreeSet;

use automerge::{Automerge, ROOT, ReadDoc, ScalarValue, Value};
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::disk::is_name;
use crate::id::{ChangeHash, FileId, VersionHash};

/// The parent of what is in the root of the folder.
pub(crate) const ROOT_ID: FileId = FileId([0; 16]);
/// Most alternatives one entry carries; further ones are dropped, oldest last.
const ALTERNATIVES_MAX: usize = 64;
/// Most known versions that a pointer or a deletion lists.
const KNOWN_MAX: usize = 64;
/// Most heads of one document that are recorded.
const HEADS_MAX: usize = 256;

/// What an entry is; settled when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Folder,
    File,
    Link,
}

/// The fields of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    /// Parent and name, as one register.
    Place,
    /// Folder or link; absent for a file.
    Kind,
    /// Which versions it holds.
    Versions,
    /// Whether its owner may execute it.
    Mode,
    /// That it was deleted, and what the deleter knew.
    Deleted,
}

impl Field {
    const fn letter(self) -> char {
        match self {
            Self::Place => 'p',
            Self::Kind => 'k',
            Self::Versions => 'v',
            Self::Mode => 'm',
            Self::Deleted => 'd',
        }
    }
    /// The key of this field of this entry.
    pub(crate) fn key(self, id: &FileId) -> String {
        // Made for every register that is read: formatting it byte by byte would take a tenth of an import.
        let mut key = String::with_capacity(34);
        let digits = id.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        key.extend(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)));
        key.push('/');
        key.push(self.letter());
        key
    }
}

/// The entry and the field that a key names.
pub(crate) fn field_of_key(key: &str) -> Option<(FileId, Field)> {
    let (id, letter) = key.split_once('/')?;
    let field = [Field::Place, Field::Kind, Field::Versions, Field::Mode, Field::Deleted]
        .into_iter()
        .find(|field| letter.chars().eq([field.letter()]))?;
    Some((FileId::from_hex(id)?, field))
}

/// The entry a key belongs to.
pub(crate) fn id_of_key(key: &str) -> Option<FileId> {
    key.split_once('/').and_then(|(id, _)| FileId::from_hex(id))
}

/// Where an entry is: one register, so that a rename and a move never mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parent: FileId,
    pub(crate) name: Box<str>,
}

/// A version as a pointer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VersionRef {
    pub(crate) hash: VersionHash,
    pub(crate) len: u64,
    /// Whether it is merged as text.
    pub(crate) text: bool,
    /// Whether its bytes travel in pieces.
    pub(crate) blob: bool,
}

/// A version and the heads of the text founded on it, as far as somebody knew them (none: only the version).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: VersionHash,
    pub(crate) heads: Vec<ChangeHash>,
}

/// The content of a file: its versions (several stand side by side), and those it replaced that were text, so that
/// edits of those that its author had not seen are not lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pointer {
    pub(crate) versions: Vec<VersionRef>,
    pub(crate) replaced: Vec<Known>,
}

/// A deletion, with all that whoever deleted had seen. Empty `known` and `wall_ms` 0: not deleted after all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Deletion {
    pub(crate) wall_ms: u64,
    pub(crate) known: Vec<Known>,
}

impl Wire for Place {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.parent).text(&self.name);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "place")?;
        let parent = reader.item()?;
        let name = reader.text_up_to(crate::disk::NAME_BYTES_MAX, "name")?;
        if !is_name(name) {
            return Err(DecodeError::Invalid("name"));
        }
        Ok(Self { parent, name: name.into() })
    }
}

impl Wire for VersionRef {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.hash).uint(self.len).uint(u64::from(self.text) | u64::from(self.blob) << 1);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "version")?;
        let (hash, len, flags) = (reader.item()?, reader.uint()?, reader.uint_up_to(3, "version flags")?);
        Ok(Self { hash, len, text: flags & 1 != 0, blob: flags & 2 != 0 })
    }
}

impl Wire for Known {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.version).list(&self.heads);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "known version")?;
        Ok(Self { version: reader.item()?, heads: reader.list(HEADS_MAX, "heads")? })
    }
}

impl Wire for Pointer {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).list(&self.versions).list(&self.replaced);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "pointer")?;
        Ok(Self {
            versions: reader.list(ALTERNATIVES_MAX, "versions")?,
            replaced: reader.list(KNOWN_MAX, "replaced versions")?,
        })
    }
}

impl Wire for Deletion {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).uint(self.wall_ms).list(&self.known);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "deletion")?;
        Ok(Self { wall_ms: reader.uint()?, known: reader.list(KNOWN_MAX, "known versions")? })
    }
}

/// Adds what is known to a list, newest first, without doubles, bounded.
pub(crate) fn add_known(list: &mut Vec<Known>, known: Known) {
    list.retain(|old| *old != known);
    list.insert(0, known);
    list.truncate(KNOWN_MAX);
}

/// The versions that a file held at these heads of its bucket's document.
pub(crate) fn versions_at(doc: &Automerge, id: &FileId, heads: &[automerge::ChangeHash]) -> BTreeSet<VersionHash> {
    let values = doc.get_all_at(ROOT, Field::Versions.key(id), heads).unwrap_or_default();
    let pointers = values.iter().filter_map(|(value, _)| decoded::<Pointer>(value.as_scalar()?));
    pointers.flat_map(|pointer| pointer.versions).map(|version| version.hash).collect()
}

/// All registers of an entry, with concurrent values; the winning one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) executable: bool,
    pub(crate) pointers: Vec<Pointer>,
    pub(crate) deletions: Vec<Deletion>,
}

/// The values of one register, the winning one first.
fn values(doc: &Automerge, id: &FileId, field: Field) -> Vec<ScalarValue> {
    let mut found: Vec<ScalarValue> = doc
        .get_all(ROOT, field.key(id))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(value, _)| match value {
            Value::Scalar(value) => Some(value.into_owned()),
            Value::Object(_) => None,
        })
        .collect();
    found.reverse();
    found
}

/// A value of a register.
pub(crate) fn decoded<T: Wire>(value: &ScalarValue) -> Option<T> {
    if let ScalarValue::Bytes(bytes) = value { cbor::from_bytes(bytes).ok() } else { None }
}

fn all_decoded<T: Wire>(values: &[ScalarValue]) -> Vec<T> {
    values.iter().filter_map(decoded).collect()
}

impl Registers {
    /// The entry as its bucket's document has it; `None` if it has no valid place (yet).
    pub(crate) fn read(doc: &Automerge, id: &FileId) -> Option<Self> {
        let place = values(doc, id, Field::Place).iter().find_map(decoded)?;
        let kind = match values(doc, id, Field::Kind).first().and_then(ScalarValue::as_u64) {
            Some(1) => Kind::Folder,
            Some(2) => Kind::Link,
            _ => Kind::File,
        };
        let executable = values(doc, id, Field::Mode).first().and_then(ScalarValue::as_bool).unwrap_or(false);
        let pointers = all_decoded(&values(doc, id, Field::Versions));
        let deletions = all_decoded(&values(doc, id, Field::Deleted));
        Some(Self { place, kind, executable, pointers, deletions })
    }
    /// All versions that stand side by side, those of the winning pointer first.
    pub(crate) fn versions(&self) -> Vec<VersionRef> {
        let mut versions: Vec<VersionRef> = Vec::new();
        let mut others: Vec<VersionRef> = Vec::new();
        for (index, pointer) in self.pointers.iter().enumerate() {
            let into = if index == 0 { &mut versions } else { &mut others };
            into.extend(&pointer.versions);
        }
        others.sort_unstable();
        for other in others {
            if versions.iter().all(|version| version.hash != other.hash) {
                versions.push(other);
            }
        }
        versions.truncate(ALTERNATIVES_MAX);
        versions
    }
    /// All versions that a pointer replaced.
    pub(crate) fn replaced(&self) -> Vec<Known> {
        let mut all = Vec::new();
        for known in self.pointers.iter().flat_map(|pointer| &pointer.replaced) {
            if !all.contains(known) {
                all.push(known.clone());
            }
        }
        all
    }
    /// Whether it knows a version, shown or replaced.
    pub(crate) fn names(&self, version: &VersionHash) -> bool {
        self.versions().iter().any(|known| known.hash == *version)
            || self.replaced().iter().any(|known| known.version == *version)
    }
    /// What deleters knew, if it is deleted at all: a deletion that was taken back counts against the others.
    pub(crate) fn deleted(&self) -> Option<Vec<Known>> {
        let taken_back = self.deletions.iter().any(|deletion| deletion.wall_ms == 0);
        (!self.deletions.is_empty() && !taken_back)
            .then(|| self.deletions.iter().flat_map(|deletion| deletion.known.iter().cloned()).collect())
    }
}
