//! Building documents anew from what was accepted, and taking what the folder holds as an edit of that.
//!
//! Used when a replica went back in time (a restored backup) and drops what it had not sealed. Invariant: afterwards each
//! record says that the documents' content is what is on disk, so that whatever really is there is met by an action's
//! `expect` or by the next look, and taken in as an edit; nothing in the folder is overwritten or removed unseen.

use std::collections::BTreeSet;

use super::entry::Kind;
use super::names::Document;
use super::record::{OnDisk, text_row_at};
use super::{Files, Moved};
use crate::content::DocumentName;
use crate::disk::Stat;
use crate::store::{Read, Table, Tx};

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

impl Files {
    /// Makes the documents' content the base of every file on disk.
    pub(crate) fn rebase(&mut self, tx: &Tx<'_>) {
        let keys: Vec<_> = self.records.keys().collect();
        for key in keys {
            let Some(mut record) = self.records.whole(key, tx) else { continue };
            let executable = self.tree.entries.get(&key.id).is_some_and(|entry| entry.executable);
            let lives = self.tree.entries.get(&key.id).is_some_and(super::tree::Entry::lives);
            let current = self.alternative(key).map(|found| {
                let heads = found.text.as_ref().map(|text| text.heads.clone()).unwrap_or_default();
                (found.hash(), found.version.hash, heads)
            });
            match (record.kind, current) {
                (Kind::Folder, _) if lives => {}
                (Kind::File | Kind::Link, Some((hash, version, heads))) => {
                    let target = record.now.take().map(|now| now.target).unwrap_or_default();
                    record.now = Some(OnDisk { hash, executable, version, heads, target });
                }
                (Kind::Folder | Kind::File | Kind::Link, _) => {
                    // Nothing that was accepted knows of it: it is met as something new.
                    self.records.remove(key, tx);
                    continue;
                }
            }
            record.pending = None;
            record.recent.clear();
            record.stat = Stat::default();
            self.records.put(key, &record, tx);
        }
        self.moved = Some(Moved::default());
    }
}
