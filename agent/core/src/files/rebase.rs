//! Building documents anew from what was accepted, and taking what the folder holds as an edit of that.
//!
//! Used when a replica went back in time (a restored backup) and drops what it had not sealed. Nobody knows then whether
//! the folder went back with the database or not, so a record keeps what it says is on disk, if the documents still know
//! that content, and gets the documents' present content as what a write may have left: whichever is nearer to what is
//! really there becomes the base of the edit. Invariant: content that no document holds is met as an edit or as something
//! new; nothing in the folder is overwritten or removed unseen.

use std::collections::BTreeSet;

use super::documents::{has, ours, theirs};
use super::entry::Kind;
use super::names::{Document, start_of, version_hash};
use super::record::{Key, OnDisk, RECENT_ROWS_MAX as STATES_MAX, WHEN_REBORN, text_row_at};
use super::{Files, Moved, Versions, text};
use crate::content::DocumentName;
use crate::disk::Stat;
use crate::store::{Read, Table, Tx, rows};

/// Removes every row of these documents. Open [`Files`] anew afterwards, and give it the accepted content again.
pub(crate) fn forget(documents: &BTreeSet<DocumentName>, tx: &Tx<'_>) {
    for name in documents {
        let mut prefix = name.as_str().as_bytes().to_vec();
        prefix.push(0);
        for table in [Table::Documents, Table::Waiting] {
            loop {
                let page = tx.scan(table, &prefix, None, 256);
                if page.is_empty() {
                    break;
                }
                for (key, _) in page {
                    tx.delete(table, key);
                }
            }
        }
        if let Some(Document::Text(id, start)) = Document::parse(name) {
            tx.delete(Table::Files, text_row_at(&id, start));
        }
    }
}

/// Removes every row of every document; as [`forget`].
pub(crate) fn forget_all(tx: &Tx<'_>) {
    for table in [Table::Documents, Table::Waiting] {
        let keys: Vec<Vec<u8>> = rows(tx, table, &[], 256).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| tx.delete(table, key));
    }
    let texts: Vec<Vec<u8>> =
        rows(tx, Table::Files, &[], 256).map(|(key, _)| key).filter(|key| text_of_row(key).is_some()).collect();
    texts.into_iter().for_each(|key| tx.delete(Table::Files, key));
}

/// The document whose state the row of this key in [`Table::Files`] is; `None` if it is another row.
pub(crate) fn text_of_row(key: &[u8]) -> Option<DocumentName> {
    let (id, rest) = key.split_at_checked(16)?;
    let (b't', start) = rest.split_first()? else { return None };
    Some(Document::Text(crate::id::FileId::from_slice(id)?, start.try_into().ok()?).name())
}

impl Files {
    /// Whether the documents know this content, so that an edit can be entered on it.
    fn knows(&mut self, key: Key, base: &OnDisk, versions: &mut dyn Versions, tx: &Tx<'_>) -> bool {
        if !base.heads.is_empty() {
            let doc = &self.documents.open(Document::text(key.id, &base.version), tx).doc;
            return theirs(&base.heads).iter().all(|head| has(doc, head));
        }
        let entry = self.tree.entries.get(&key.id);
        let shown =
            entry.is_some_and(|entry| entry.alternatives.iter().any(|other| other.version.hash == base.version));
        shown || versions.version(&base.version, tx).is_some() || versions.manifest(&base.version, tx).is_some()
    }

    /// The states that a text went through since `base`: one of them is on the disk, if the folder did not go back with the
    /// database, and is then no edit of another. They are those that its authors had on their disks, before and after each
    /// change; newest first.
    fn states_since(&mut self, key: Key, base: Option<&OnDisk>, tx: &Tx<'_>) -> Vec<(OnDisk, u64)> {
        let Some(base) = base.filter(|_| key.is_main()) else { return Vec::new() };
        if !self.tree.texts.contains_key(&(key.id, start_of(&base.version))) {
            return Vec::new();
        }
        let workspace = self.identity.workspace;
        let doc = &self.documents.open(Document::text(key.id, &base.version), tx).doc;
        let mut seen: BTreeSet<Vec<automerge::ChangeHash>> = BTreeSet::from([theirs(&base.heads)]);
        let mut states = Vec::new();
        for change in doc.get_changes(&theirs(&base.heads)).iter().rev() {
            for heads in [vec![change.hash()], change.deps().to_vec()] {
                if heads.is_empty() || states.len() >= STATES_MAX || !seen.insert(heads.clone()) {
                    continue;
                }
                let (style, text) = text::read(doc, Some(&heads));
                let hash = version_hash(&workspace, &text::render(style, &text));
                let state = OnDisk { hash, heads: ours(&heads), ..base.clone() };
                states.push((state, WHEN_REBORN));
            }
        }
        states
    }

    /// Makes every record one that the documents can answer for.
    pub(crate) fn rebase(&mut self, versions: &mut dyn Versions, tx: &Tx<'_>) {
        self.building = false;
        let keys: Vec<_> = self.records.keys().collect();
        for key in keys {
            let Some(mut record) = self.records.whole(key, tx) else { continue };
            let Some(entry) = self.tree.entries.get(&key.id) else {
                // Nothing that was accepted knows of it: it is met as something new.
                self.records.remove(key, tx);
                continue;
            };
            let executable = entry.executable;
            let shown = self.alternative(key).map(|found| {
                let heads = found.text.as_ref().map(|text| text.heads.clone()).unwrap_or_default();
                let target = record.now.as_ref().map(|now| now.target.clone()).unwrap_or_default();
                OnDisk { hash: found.hash(), executable, version: found.version.hash, heads, target, void: None }
            });
            if record.kind != Kind::Folder {
                let known = record.now.clone().filter(|now| self.knows(key, now, versions, tx));
                match (known, shown) {
                    (Some(_), shown) => record.pending = shown,
                    // About to be written for the first time: if it is not there it was not deleted.
                    (None, Some(shown)) if record.now.is_none() => record.pending = Some(shown),
                    (None, Some(shown)) => (record.now, record.pending) = (Some(shown), None),
                    // Deleted by others, and here with content that nobody has: new.
                    (None, None) => {
                        self.records.remove(key, tx);
                        continue;
                    }
                }
            }
            record.guessed = record.pending.is_some();
            record.recent = self.states_since(key, record.now.as_ref(), tx);
            record.stat = Stat::default();
            self.records.put(key, &record, tx);
        }
        self.moved = Some(Moved::default());
    }
}
