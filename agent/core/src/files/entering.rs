//! Entering an edit of a text: at which base, and into which document.
//!
//! Invariant: an edit takes out only what whoever made it saw. So it is entered at the content that was on disk, or at the
//! older one that an editor still had open; where it is not known which, at the one that loses nothing of others'.
//! Spec: docs/files.md#taking-in.

use bytes::Bytes;

use crate::content::Item;
use crate::files::diff::{Hunk, apart, diff, weight};
use crate::files::documents::{count, heads, ours, theirs};
use crate::files::ingest::{Look, STALE_MS};
use crate::files::names::{Document, start_of, version_hash};
use crate::files::record::{Key, OnDisk, Record, TextState, text_row};
use crate::files::{CHANGE_BYTES_MAX, Cx, Files, LogEvent, text};
use crate::id::{ChangeHash, FileId, VersionHash};
use crate::store::Table;

impl Files {
    /// The text of a content that was on disk, as its document has it.
    pub(crate) fn text_at(&mut self, id: FileId, base: &OnDisk, cx: &mut Cx<'_, '_>) -> Option<(text::Style, String)> {
        if let Some(void) = &base.void {
            return text::split(void);
        }
        if base.heads.is_empty() {
            return text::split(&self.bytes_of(cx, &base.version)?);
        }
        let doc = &self.documents.open(Document::text(id, &base.version), cx.tx).doc;
        Some(text::read(doc, Some(&theirs(&base.heads))))
    }

    /// Enters an edit into the text it was made on; what is on disk now. `None`: it must become a version.
    pub(super) fn enter_text(
        &mut self,
        key: Key,
        record: &Record,
        look: &Look,
        new: &(text::Style, String),
        cx: &mut Cx<'_, '_>,
    ) -> Option<OnDisk> {
        let (base, old) = self.choose_base(key, record, look, &new.1, cx)?;
        if base.void.is_none() {
            let edit = text::Edit { hunks: diff(&old.1, &new.1), style: (old.0, new.0) };
            let (version, heads) = self.enter_at(key.id, &base, &edit, cx)?;
            return Some(look.on_disk(version, heads));
        }
        let void = look.inline().cloned();
        let (version, heads) = self.enter_beside(key, &old, new, cx)?;
        Some(OnDisk { void, ..look.on_disk(version, heads) })
    }

    /// Enters an edit of a text that does not count any more into the one that does.
    pub(crate) fn enter_beside(
        &mut self,
        key: Key,
        old: &(text::Style, String),
        new: &(text::Style, String),
        cx: &mut Cx<'_, '_>,
    ) -> Option<(VersionHash, Vec<ChangeHash>)> {
        let (version, heads) = self.alternative(key).filter(|shown| shown.version.text).and(self.current(key))?;
        self.enter_into(key.id, (version, heads), old, new, cx)
    }

    /// Enters an edit of a text that was made elsewhere into the text of this version, as it is at these heads.
    pub(crate) fn enter_into(
        &mut self,
        id: FileId,
        (version, heads): (VersionHash, Vec<ChangeHash>),
        old: &(text::Style, String),
        new: &(text::Style, String),
        cx: &mut Cx<'_, '_>,
    ) -> Option<(VersionHash, Vec<ChangeHash>)> {
        let base = OnDisk { hash: version, executable: false, version, heads, target: String::new(), void: None };
        let now = self.text_at(id, &base, cx)?;
        let merged = if now.1 == old.1 { new.1.clone() } else { text::merge(&old.1, &new.1, &now.1)? };
        let style = if old.0 == new.0 { now.0 } else { new.0 };
        let edit = text::Edit { hunks: diff(&now.1, &merged), style: (now.0, style) };
        self.enter_at(id, &base, &edit, cx)
    }

    /// Enters an edit of a text at `base`; the version and its new heads.
    pub(super) fn enter_at(
        &mut self,
        id: FileId,
        base: &OnDisk,
        edit: &text::Edit,
        cx: &mut Cx<'_, '_>,
    ) -> Option<(VersionHash, Vec<ChangeHash>)> {
        if edit.is_empty() {
            return Some((base.version, base.heads.clone()));
        }
        if !edit.is_small() {
            return None;
        }
        let version = base.version;
        let document = Document::text(id, &version);
        let time = i64::try_from(cx.now.wall_ms / 1000).unwrap_or(i64::MAX);
        let mut items = Vec::new();
        let change;
        if count(&self.documents.open(document, cx.tx).doc) == 0 {
            let bytes = self.bytes_of(cx, &version)?;
            let mut doc = text::found(&id, &version, &bytes)?;
            let founded = doc.get_heads();
            items.push(Item::Founded { version, base: ours(&founded).into_iter().next()? });
            change = edit.enter(&mut doc, &founded, self.actor, time)?;
            if change.raw_bytes().len() > CHANGE_BYTES_MAX {
                return None;
            }
            self.documents.insert(document, doc, cx.tx);
            self.changes += 1;
        } else {
            let actor = self.actor;
            let doc = &mut self.documents.open(document, cx.tx).doc;
            let at = if base.heads.is_empty() {
                doc.get_changes_meta(&[])
                    .into_iter()
                    .filter(|meta| meta.deps.is_empty())
                    .map(|meta| meta.hash)
                    .collect()
            } else {
                theirs(&base.heads)
            };
            let found = edit.enter(doc, &at, actor, time).or_else(|| {
                self.documents.forget(document);
                let doc = &mut self.documents.open(document, cx.tx).doc;
                edit.enter_by_transaction(doc, Some(&at), actor, time)
            });
            match found {
                Some(found) if found.raw_bytes().len() <= CHANGE_BYTES_MAX => change = found,
                Some(_) | None => {
                    // Not stored yet: the document is read again without it.
                    self.documents.forget(document);
                    return None;
                }
            }
            self.documents.append(document, std::slice::from_ref(&change), cx.tx);
        }
        items.push(Item::Change(Bytes::copy_from_slice(change.raw_bytes())));
        self.draft.text(id, document, items);
        self.note_text(id, version, cx);
        self.refresh(&id, cx);
        Some((version, ours(&[change.hash()])))
    }

    /// The content that an edit was most likely made on: what is on disk, or, for an editor that never saw what we
    /// wrote there, what was there before.
    fn choose_base(
        &mut self,
        key: Key,
        record: &Record,
        look: &Look,
        new: &str,
        cx: &mut Cx<'_, '_>,
    ) -> Option<(OnDisk, (text::Style, String))> {
        if self.ignores_base {
            let (version, heads) = self.current(key)?;
            let base = OnDisk { version, heads, ..record.now.clone()? };
            let text = self.text_at(key.id, &base, cx)?;
            return Some((base, text));
        }
        let (size, base, text) = self.likely_base(key, record, new, cx)?;
        let mut stale: Option<(usize, OnDisk, (text::Style, String))> = None;
        for (old, when) in &record.recent {
            let unopened = look.opened == Some(false);
            if !unopened && cx.now.wall_ms.saturating_sub(*when) > STALE_MS {
                continue;
            }
            let Some(old_text) = self.text_at(key.id, old, cx) else { continue };
            let written: Vec<Hunk> = diff(&old_text.1, &text.1);
            let edited = diff(&old_text.1, new);
            let undone = !written.is_empty() && apart(&written, &edited);
            let smaller = stale.as_ref().map_or(size, |(smallest, ..)| *smallest);
            if (unopened || undone) && weight(&edited) < smaller {
                stale = Some((weight(&edited), old.clone(), old_text));
            }
        }
        match stale {
            Some((_, old, old_text)) => {
                self.log(cx, None, LogEvent::StaleBuffer(look.path.clone()));
                Some((old, old_text))
            }
            None => Some((base, text)),
        }
    }

    /// The content at the base, or, after a crash, what the write under way was to leave, if that is nearer and
    /// something that it brought is there. Why: if the write never happened, entering the edit at it would take out what
    /// others wrote; entering it at the older one takes out nothing of theirs.
    fn likely_base(
        &mut self,
        key: Key,
        record: &Record,
        new: &str,
        cx: &mut Cx<'_, '_>,
    ) -> Option<(usize, OnDisk, (text::Style, String))> {
        let mut candidate = |base: Option<&OnDisk>| {
            let base = base?;
            let old = self.text_at(key.id, base, cx)?;
            let hunks = diff(&old.1, new);
            Some((base.clone(), old, hunks))
        };
        let (now, pending) = (candidate(record.now.as_ref()), candidate(record.pending.as_ref()));
        let written = match (&now, &pending) {
            (Some((_, now, since_now)), Some((_, pending, since_pending))) => {
                let brought = diff(&pending.1, &now.1);
                weight(since_pending) < weight(since_now)
                    && brought.iter().any(|hunk| hunk.removed > 0 && apart(std::slice::from_ref(hunk), since_pending))
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let (base, text, hunks) = if written { pending } else { now }?;
        Some((weight(&hunks), base, text))
    }

    /// Writes down what a text is now, after its document changed.
    pub(crate) fn note_text(&mut self, id: FileId, version: VersionHash, cx: &Cx<'_, '_>) {
        let doc = &self.documents.open(Document::text(id, &version), cx.tx).doc;
        let (style, text) = text::read(doc, None);
        let bytes = text::render(style, &text);
        let state = TextState {
            version,
            heads: heads(doc),
            hash: version_hash(&self.identity.workspace, &bytes),
            len: bytes.len() as u64,
            changes: count(doc).saturating_sub(1),
        };
        let slot = (id, start_of(&version));
        let before = self.tree.texts.get(&slot).map_or(0, |old| old.changes);
        self.changes = (self.changes + state.changes).saturating_sub(before);
        cx.tx.put(Table::Files, text_row(&id, &version), weft_protocol::cbor::to_bytes(&state));
        self.tree.texts.insert(slot, state);
    }
}
