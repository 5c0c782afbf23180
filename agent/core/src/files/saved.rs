//! Documents saved for a checkpoint, and taken in from one before any of their history is here.
//!
//! Invariant: a saved document reaches Automerge only after its columns were counted, and is loaded aside: whatever comes
//! of it, what was in the document's rows stays until it could be merged. What is taken in is as unproven as its
//! maker: [`Files::unproven`] says which of its changes nobody signed. Spec: docs/files.md#saved.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, LoadOptions, ReadDoc, SaveOptions, TextEncoding};

use super::change::{Cursor, Malformed, check_framing, rows};
use super::documents::{count, has};
use super::entry::Kind;
use super::names::{Document, founding_actor, start_of};
use super::tree::Alternative;
use super::{Author, Cx, Files, Versions, text};
use crate::checkpoint::SAVED_BYTES_MAX;
use crate::content::DocumentName;
use crate::id::VersionHash;
use crate::store::Tx;
use crate::time::Timestamp;

/// Most rows in any column of a saved document: more than [`SAVED_BYTES_MAX`] of honest text needs.
pub const SAVED_ROWS_MAX: u64 = 1 << 22;
/// The chunk type of a saved document.
const SAVED_TYPE: u8 = 0;

/// Why a saved document was refused. Whoever made the checkpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// Longer than [`SAVED_BYTES_MAX`], or with more than [`SAVED_ROWS_MAX`] rows.
    #[error("a saved document is larger than the format allows")]
    TooLarge,
    /// No document of files is named so, or not with this version.
    #[error("a saved document has a name that none can have")]
    Name,
    /// Damaged, compressed, or followed by other bytes.
    #[error("a saved document cannot be read")]
    Malformed,
}

/// One thing that is worth saving, in the order in which it is to be taken in again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Savable {
    /// A version that is shown as it is.
    Version(VersionHash),
    /// A document.
    Document(DocumentName),
}

/// A saved document.
pub(crate) struct Saved {
    pub(crate) name: DocumentName,
    /// What a text starts from.
    pub(crate) version: Option<VersionHash>,
    pub(crate) bytes: Vec<u8>,
}

/// What [`Files::unproven`] found in a document.
pub(crate) struct Unproven {
    /// Changes that were not known to be signed.
    pub(crate) changes: Vec<[u8; 32]>,
    /// A text does not begin as the version it starts from founds it.
    pub(crate) unfounded: bool,
}

/// Whether these bytes are one saved document, uncompressed, within bounds. Never panics; its work is bounded by the bytes.
pub fn inspect_saved(bytes: &[u8]) -> Result<(), SavedError> {
    if bytes.len() > SAVED_BYTES_MAX {
        return Err(SavedError::TooLarge);
    }
    let body = check_framing(bytes, SAVED_TYPE).map_err(|Malformed| SavedError::Malformed)?;
    let columns = columns(body).ok_or(SavedError::Malformed)?;
    let mut rows_in_all = 0u64;
    for (spec, column) in columns {
        // Bit 3 says deflated; the lowest three bits say the type.
        if spec & 0b1000 != 0 {
            return Err(SavedError::Malformed);
        }
        let kind = spec & 0b111;
        let mut rows = rows(kind, column).ok_or(SavedError::Malformed)?;
        if kind == 0 {
            // A group: each value says how many rows its members have.
            rows = rows.max(members(column).ok_or(SavedError::Malformed)?);
        }
        rows_in_all = rows_in_all.saturating_add(rows);
        if rows > SAVED_ROWS_MAX || rows_in_all > 8 * SAVED_ROWS_MAX {
            return Err(SavedError::TooLarge);
        }
    }
    Ok(())
}

/// The columns of a saved document, of changes and of operations: (specification, bytes).
fn columns(body: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut cursor = Cursor(body);
    let len = cursor.uleb()?;
    let mut cursor = Cursor(cursor.take(len)?);
    for _ in 0..cursor.uleb()? {
        let actor = cursor.uleb()?;
        cursor.take(actor)?;
    }
    let heads = cursor.uleb()?;
    cursor.take(heads.checked_mul(32)?)?;
    let mut specs = Vec::new();
    for _ in 0..2 {
        for _ in 0..cursor.uleb()? {
            specs.push((cursor.uleb()?, cursor.uleb()?));
        }
    }
    specs.into_iter().map(|(spec, len)| Some((spec, cursor.take(len)?))).collect()
}

/// The sum of all values of a run-length column of numbers.
fn members(column: &[u8]) -> Option<u64> {
    let mut cursor = Cursor(column);
    let mut sum = 0u64;
    while !cursor.0.is_empty() {
        match cursor.sleb()? {
            0 => {
                cursor.uleb()?;
            }
            run @ 1.. => sum = sum.saturating_add(cursor.uleb()?.saturating_mul(run.unsigned_abs())),
            literals => {
                for _ in 0..literals.unsigned_abs() {
                    sum = sum.saturating_add(cursor.uleb()?);
                }
            }
        }
    }
    Some(sum)
}

/// Loads a saved document, aside.
fn load(bytes: &[u8]) -> Result<Automerge, SavedError> {
    inspect_saved(bytes)?;
    let options = || LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
    let loaded = catch_unwind(AssertUnwindSafe(|| Automerge::load_with_options(bytes, options())));
    match loaded {
        Ok(Ok(doc)) if count(&doc) > 0 && doc.get_missing_deps(&[]).is_empty() => Ok(doc),
        Ok(_) | Err(_) => Err(SavedError::Malformed),
    }
}

/// Whether a text begins with one change by the actor that founds this version of this file.
fn begins(doc: &Automerge, document: Document, version: Option<VersionHash>) -> bool {
    match (document, version) {
        (Document::Tree(_), None) => true,
        (Document::Text(id, start), Some(version)) => {
            let changes = doc.get_changes_meta(&[]);
            let mut first = changes.iter().filter(|change| change.deps.is_empty());
            let founded = first.next().is_some_and(|one| one.actor.to_bytes() == founding_actor(&id, &version));
            start_of(&version) == start && founded && first.next().is_none()
        }
        (Document::Tree(_) | Document::Text(..) | Document::Versions(_), _) => false,
    }
}

impl Files {
    /// Everything worth saving: file by file what is shown, and the trees last, so that nothing is shown before what it
    /// shows is here.
    pub(crate) fn savable(&self) -> Vec<Savable> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let mut texts = self.tree.texts.iter().peekable();
        let text = |key: &(crate::id::FileId, [u8; 8])| Savable::Document(Document::Text(key.0, key.1).name());
        for (id, entry) in &self.tree.entries {
            while let Some((key, _)) = texts.next_if(|((of, _), _)| of <= id) {
                all.push(text(key));
            }
            if entry.kind == Kind::Folder {
                continue;
            }
            let plain = |alternative: &&Alternative| alternative.text.is_none();
            let versions = entry.alternatives.iter().filter(plain).map(|alternative| alternative.version.hash);
            all.extend(versions.filter(|hash| seen.insert(*hash)).map(Savable::Version));
        }
        all.extend(texts.map(|(key, _)| text(key)));
        all.extend((0..super::names::BUCKETS).map(|bucket| Savable::Document(Document::Tree(bucket).name())));
        all
    }

    /// A document as it is saved; `None` if there is nothing in it, or too much.
    pub(crate) fn save(&mut self, name: DocumentName, tx: &Tx<'_>) -> Option<Saved> {
        let document = Document::parse(&name)?;
        let version = match document {
            Document::Text(id, start) => Some(self.tree.texts.get(&(id, start))?.version),
            Document::Tree(_) => None,
            Document::Versions(_) => return None,
        };
        let doc = &self.documents.open(document, tx).doc;
        let saved = (count(doc) > 0).then(|| {
            let options = SaveOptions { deflate: false, retain_orphans: false };
            doc.save_with_options(options)
        });
        self.documents.trim();
        let bytes = saved.filter(|bytes| bytes.len() <= SAVED_BYTES_MAX)?;
        Some(Saved { name, version, bytes })
    }

    /// Takes a saved document in: what was here is merged into it.
    pub(crate) fn take_saved(
        &mut self,
        now: Timestamp,
        author: Author,
        saved: &Saved,
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) -> Result<(), SavedError> {
        let mut cx = Cx { now, versions, tx };
        let document = Document::parse(&saved.name).ok_or(SavedError::Name)?;
        let mut doc = load(&saved.bytes)?;
        if !begins(&doc, document, saved.version) {
            return Err(SavedError::Name);
        }
        let here = self.documents.open(document, tx);
        if here.is_damaged() {
            // Its rows are kept as they are.
            return Ok(());
        }
        let before = count(&here.doc);
        if before > 0 {
            let merged = catch_unwind(AssertUnwindSafe(|| doc.merge(&mut here.doc)));
            if !matches!(merged, Ok(Ok(_))) || !here.doc.get_heads().iter().all(|head| has(&doc, head)) {
                // Two changes have one number: somebody's device signed twice, or went back in time, ours perhaps. Whose fault
                // that is the history tells.
                self.documents.forget(document);
                return Ok(());
            }
        }
        let after = count(&doc);
        self.documents.replace(document, doc, tx);
        match (document, saved.version) {
            (Document::Tree(bucket), _) => {
                self.changes = (self.changes + after).saturating_sub(before);
                self.take_bucket(bucket, None, author, &mut cx);
            }
            (Document::Text(id, _), Some(version)) => {
                self.note_text(id, version, &cx);
                self.refresh(&id, &cx);
            }
            (Document::Text(..) | Document::Versions(_), _) => {}
        }
        self.retry(document, &saved.name, author, &mut cx);
        // What others did before we came is no news; and who made the checkpoint did not do it.
        self.remote.clear();
        self.settle_later(&mut cx);
        Ok(())
    }

    /// The bytes or pieces of these versions can be found now.
    pub(crate) fn versions_here(
        &mut self,
        now: Timestamp,
        hashes: &[VersionHash],
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) {
        let mut cx = Cx { now, versions, tx };
        for hash in hashes {
            self.work.version_told(hash);
        }
        self.settle_later(&mut cx);
    }

    /// Which changes of a document `is_signed` does not know. That a text begins as its version founds it is computed.
    pub(crate) fn unproven(
        &mut self,
        name: &DocumentName,
        is_signed: &dyn Fn(&[u8; 32]) -> bool,
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) -> Unproven {
        let nothing = Unproven { changes: Vec::new(), unfounded: false };
        let Some(document) = Document::parse(name) else { return nothing };
        let founded: Option<Vec<automerge::ChangeHash>> = match document {
            Document::Tree(_) => Some(Vec::new()),
            Document::Text(id, start) => {
                let version = self.tree.texts.get(&(id, start)).map(|state| state.version);
                let bytes = version.and_then(|version| Some((version, versions.version(&version, tx)?)));
                bytes.and_then(|(version, bytes)| Some(text::found(&id, &version, &bytes)?.get_heads()))
            }
            Document::Versions(_) => return nothing,
        };
        let doc = &self.documents.open(document, tx).doc;
        let founding = founded.unwrap_or_default();
        let mut unproven = nothing;
        for change in doc.get_changes_meta(&[]) {
            let first = matches!(document, Document::Text(..)) && change.deps.is_empty();
            if first {
                unproven.unfounded |= !founding.contains(&change.hash);
            } else if !is_signed(&change.hash.0) {
                unproven.changes.push(change.hash.0);
            }
        }
        self.documents.trim();
        unproven
    }
}

/// The hash of a change that was looked at before.
pub(crate) fn hash_of_change(bytes: &[u8]) -> [u8; 32] {
    <sha2::Sha256 as sha2::Digest>::digest(bytes.get(super::change::TYPE_AT..).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{ActorId, ROOT};
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut doc = text::empty();
        for number in 0..20u8 {
            doc.set_actor(ActorId::from([number % 3; 16]));
            let mut tx = doc.transaction();
            let list = tx.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
            tx.splice_text(&list, 0, 0, "hello, wörld\n").unwrap();
            tx.put(ROOT, format!("{number}"), vec![number; 9]).unwrap();
            tx.commit();
        }
        doc.save_with_options(SaveOptions { deflate: false, retain_orphans: false })
    }

    /// What is saved passes and loads; a compressed one, a change and anything around it do not.
    #[test]
    fn only_one_plain_document_passes() {
        let bytes = sample();
        assert_eq!(inspect_saved(&bytes), Ok(()));
        let doc = load(&bytes).unwrap();
        assert_eq!(count(&doc), 20);
        let change = doc.get_changes(&[]).remove(0).raw_bytes().to_vec();
        assert_eq!(hash_of_change(&change), doc.get_changes(&[])[0].hash().0);
        let mut longer = bytes.clone();
        longer.push(0);
        let mut big = text::empty();
        let mut tx = big.transaction();
        for number in 0..2_000 {
            tx.put(ROOT, format!("{number}"), number).unwrap();
        }
        tx.commit();
        let twice = [bytes.clone(), bytes.clone()].concat();
        for wrong in [&change[..], &longer, &bytes[..bytes.len() - 1], &twice, &big.save(), &[]] {
            assert_eq!(inspect_saved(wrong), Err(SavedError::Malformed));
        }
        assert_eq!(inspect_saved(&vec![0; SAVED_BYTES_MAX + 1]), Err(SavedError::TooLarge));
    }

    /// Columns of a few bytes that claim billions of rows, by themselves or for their group, are refused.
    #[test]
    fn a_run_that_claims_billions_is_refused() {
        let run = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1];
        assert_eq!(members(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]), Some(1 << 40));
        assert_eq!(members(&run), Some(1 << 40));
        for (spec, column) in [(0x42, &run[..]), (0x40, &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20][..])] {
            let mut data = vec![0, 0, 0, 1, spec, column.len() as u8];
            data.extend(column);
            let mut chunk = vec![SAVED_TYPE, data.len() as u8];
            chunk.extend(data);
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&chunk);
            let bytes = [&[0x85, 0x6f, 0x4a, 0x83][..], &digest[..4], &chunk].concat();
            assert_eq!(inspect_saved(&bytes), Err(SavedError::TooLarge));
        }
    }

    proptest! {
        /// Whatever bytes arrive, with a repaired checksum, the answer is a value.
        #[test]
        fn hostile_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = sample();
            for (at, value) in flips {
                let at = at.index(bytes.len() - 8) + 8;
                bytes[at] = value;
            }
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[8..]);
            bytes[4..8].copy_from_slice(&digest[..4]);
            let _ = load(&bytes);
        }
    }
}
