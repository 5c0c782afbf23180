//! Between the bytes of a text file and the text that is merged.
//!
//! Invariant: the merged text has LF line ends and no byte order mark; both are kept beside it as a [`Style`], and
//! founding a text is a pure function of file id, version hash and bytes. Why: people with different editors must not
//! fight over line ends, and two people who edit one version apart must found the same document.
//!
//! A file with mixed line ends keeps its bytes as long as nobody edits it; from its first edit on it has the ends that
//! most of its lines had. Spec: docs/files.md#text.

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ObjId, ObjType, PatchLog, ROOT, ReadDoc, TextEncoding, Value,
};

use crate::files::diff::{Hunk, diff};
use crate::files::names::founding_actor;
use crate::files::older;
use crate::id::{FileId, VersionHash};

/// The key of the text object in a text document.
const TEXT: &str = "text";
/// The key that says that lines end with CR LF.
const CRLF: &str = "crlf";
/// The key that says that the file starts with a byte order mark.
const BOM: &str = "bom";
/// U+FEFF as UTF-8.
const BOM_BYTES: &[u8] = &[0xef, 0xbb, 0xbf];

/// How a text looks on disk beyond its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Style {
    /// Lines end with CR LF.
    pub(crate) crlf: bool,
    /// The file starts with a byte order mark.
    pub(crate) bom: bool,
}

/// Whether these bytes are merged as text: UTF-8 without NUL.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && core::str::from_utf8(bytes).is_ok()
}

/// The text in these bytes and how they are written; `None` if they are no text.
pub(crate) fn split(bytes: &[u8]) -> Option<(Style, String)> {
    let bom = bytes.starts_with(BOM_BYTES);
    let text = core::str::from_utf8(if bom { bytes.get(BOM_BYTES.len()..)? } else { bytes }).ok()?;
    if text.contains('\0') {
        return None;
    }
    let pairs = text.matches("\r\n").count();
    let crlf = pairs > text.matches('\n').count() - pairs;
    Some((Style { crlf, bom }, text.replace("\r\n", "\n")))
}

/// The bytes of a text in this style.
pub(crate) fn render(style: Style, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 3);
    if style.bom {
        bytes.extend_from_slice(BOM_BYTES);
    }
    if style.crlf {
        bytes.extend_from_slice(text.replace('\n', "\r\n").as_bytes());
    } else {
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An empty document that counts text in characters, as [`Hunk`] does.
pub(crate) fn empty() -> Automerge {
    Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint)
}

/// The deterministic document that a version's text starts as, with one change. The commit claims no time (0).
pub(crate) fn found(id: &FileId, version: &VersionHash, bytes: &[u8]) -> Option<Automerge> {
    let (style, text) = split(bytes)?;
    let mut doc = empty();
    doc.set_actor(ActorId::from(founding_actor(id, version)));
    let mut tx = doc.transaction();
    let written = (|| {
        let object = tx.put_object(ROOT, TEXT, ObjType::Text)?;
        tx.splice_text(&object, 0, 0, &text)?;
        put_style(&mut tx, Style::default(), style)
    })();
    if written.is_err() {
        tx.rollback();
        return None;
    }
    tx.commit_with(CommitOptions::default().with_time(0));
    Some(doc)
}

fn put_style<T: Transactable>(tx: &mut T, old: Style, new: Style) -> Result<(), AutomergeError> {
    for (key, value) in flags(old, new) {
        tx.put(ROOT, key, value)?;
    }
    Ok(())
}

/// The flags that differ between two styles, as they are to be.
fn flags(old: Style, new: Style) -> impl Iterator<Item = (&'static str, bool)> {
    let crlf = (old.crlf != new.crlf).then_some((CRLF, new.crlf));
    let bom = (old.bom != new.bom).then_some((BOM, new.bom));
    crlf.into_iter().chain(bom)
}

fn text_object(doc: &impl ReadDoc) -> Option<ObjId> {
    match doc.get(ROOT, TEXT) {
        Ok(Some((Value::Object(ObjType::Text), object))) => Some(object),
        _ => None,
    }
}

/// The text object, if it is the same at these heads as now.
pub(crate) fn object_at(doc: &Automerge, heads: &[automerge::ChangeHash]) -> Option<ObjId> {
    let now = text_object(doc)?;
    match doc.get_at(ROOT, TEXT, heads) {
        Ok(Some((Value::Object(ObjType::Text), then))) if then == now => Some(now),
        _ => None,
    }
}

/// The text and its style at these heads (now, if `None`). A document that somebody spoiled reads as empty.
pub(crate) fn read(doc: &Automerge, heads: Option<&[automerge::ChangeHash]>) -> (Style, String) {
    let text = text_object(doc).and_then(|object| match heads {
        Some(heads) => doc.text_at(&object, heads).ok(),
        None => doc.text(&object).ok(),
    });
    let flag = |key| {
        let value = match heads {
            Some(heads) => doc.get_at(ROOT, key, heads),
            None => doc.get(ROOT, key),
        };
        matches!(value, Ok(Some((value, _))) if value.as_bool() == Some(true))
    };
    (Style { crlf: flag(CRLF), bom: flag(BOM) }, text.unwrap_or_default())
}

/// An edit of a text, ready to be entered at the heads it was made on.
#[derive(Debug)]
pub(crate) struct Edit {
    /// What changed in the text.
    pub(crate) hunks: Vec<Hunk>,
    /// The style before and after.
    pub(crate) style: (Style, Style),
}

impl Edit {
    /// Whether there is anything to enter.
    pub(crate) fn is_empty(&self) -> bool {
        self.hunks.is_empty() && self.style.0 == self.style.1
    }
    /// Whether its change stays safely below [`crate::files::CHANGE_BYTES_MAX`]; two bytes a character at worst.
    pub(crate) fn is_small(&self) -> bool {
        let bytes: usize = self.hunks.iter().map(|hunk| hunk.inserted.len() * 2 + 32).sum();
        bytes < crate::files::CHANGE_BYTES_MAX
    }
    /// The flags that it sets.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        flags(self.style.0, self.style.1)
    }
    /// The text after it, from the text before.
    pub(crate) fn applied_to(&self, old: &str) -> String {
        let mut chars = old.chars();
        let mut new = String::with_capacity(old.len());
        let mut at = 0;
        for hunk in &self.hunks {
            new.extend(chars.by_ref().take(hunk.at.saturating_sub(at)));
            chars.by_ref().take(hunk.removed).for_each(drop);
            new.push_str(&hunk.inserted);
            at = hunk.at + hunk.removed;
        }
        new.extend(chars);
        new
    }
    /// Enters it at `heads`, by `actor`; the new change. `None`: it does not fit, and the document must be read again from
    /// its rows before it is used.
    pub(crate) fn enter(
        &self,
        doc: &mut Automerge,
        heads: &[automerge::ChangeHash],
        actor: [u8; 16],
        time: i64,
    ) -> Option<Change> {
        if doc.get_heads() != heads {
            return older::enter(self, doc, heads, actor, time);
        }
        self.enter_by_transaction(doc, None, actor, time)
    }
    /// Enters it through Automerge's own transaction, at these heads (now, if `None`). `None` as well if the text is not what
    /// it is to be then, because a member's program put something else than single characters there. Slow at older heads: it
    /// walks the text again for every character.
    pub(crate) fn enter_by_transaction(
        &self,
        doc: &mut Automerge,
        heads: Option<&[automerge::ChangeHash]>,
        actor: [u8; 16],
        time: i64,
    ) -> Option<Change> {
        let (_, old) = read(doc, heads);
        doc.set_actor(ActorId::from(actor));
        let mut tx = match heads {
            None => doc.transaction(),
            Some(heads) => doc.transaction_at(PatchLog::inactive(), heads).ok()?,
        };
        let object = text_object(&tx);
        let written = object.is_some_and(|object| self.write_into(&mut tx, &object).is_ok());
        if !written {
            tx.rollback();
            return None;
        }
        let hash = tx.commit_with(CommitOptions::default().with_time(time)).0?;
        let is_right = read(doc, heads.map(|_| [hash]).as_ref().map(<[_; 1]>::as_slice)).1 == self.applied_to(&old);
        if is_right { doc.get_change_by_hash(&hash) } else { None }
    }
    fn write_into(&self, tx: &mut Transaction<'_>, object: &ObjId) -> Result<(), AutomergeError> {
        // From the end, so that positions before stay true.
        for hunk in self.hunks.iter().rev() {
            let removed = isize::try_from(hunk.removed).unwrap_or(isize::MAX);
            tx.splice_text(object, hunk.at, removed, &hunk.inserted)?;
        }
        put_style(tx, self.style.0, self.style.1)
    }
}

/// What two edits of one text come to, as if they had been made apart and met.
pub(crate) fn merge(old: &str, one: &str, other: &str) -> Option<String> {
    let put = |doc: &mut Automerge, new: &str, actor: u8| {
        let heads = doc.get_heads();
        let edit = Edit { hunks: diff(old, new), style: Default::default() };
        edit.is_empty() || edit.enter(doc, &heads, [actor; 16], 0).is_some()
    };
    let mut first = found(&FileId([0; 16]), &VersionHash([0; 32]), old.as_bytes())?;
    let mut second = first.fork();
    if !put(&mut first, one, 1) || !put(&mut second, other, 2) {
        return None;
    }
    first.merge(&mut second).ok()?;
    Some(read(&first, None).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes with one kind of line end come back as they were; a mark at the start too.
    #[test]
    fn bytes_round_trip() {
        for bytes in [&b"a\nb\n"[..], b"a\r\nb\r\n", b"\xef\xbb\xbfa\r\n", b"", b"no end", b"a\rb", b"\xef\xbb\xbf"] {
            let (style, text) = split(bytes).unwrap();
            assert!(!text.contains("\r\n"));
            assert_eq!(render(style, &text), bytes);
        }
        assert!(split(b"a\0b").is_none() && split(b"\xff").is_none());
    }

    /// Both edits are there, each once, also where they are the same.
    #[test]
    fn merging_keeps_both() {
        assert_eq!(merge("a\nb\nc\n", "a\nB\nc\n", "a\nb\nc\nd\n").as_deref(), Some("a\nB\nc\nd\n"));
        assert_eq!(merge("a\nb\n", "a\n", "a\nb\nc\n").as_deref(), Some("a\nc\n"));
        assert_eq!(merge("a\n", "a\n", "").as_deref(), Some(""));
    }

    /// Founding gives the same change for ever: golden vectors, without which two versions of Weft would not meet.
    #[test]
    fn golden_founding() {
        let hashes: Vec<String> = [&b"hello\n"[..], b"\xef\xbb\xbfa\r\nb\r\n", b""]
            .into_iter()
            .map(|bytes| {
                let doc = found(&FileId([3; 16]), &VersionHash([4; 32]), bytes).unwrap();
                let [head] = doc.get_heads()[..] else { panic!("one change") };
                assert_eq!(render(read(&doc, None).0, &read(&doc, None).1), bytes);
                head.to_string()
            })
            .collect();
        let golden = [
            "dd2469d9176961d8db94003cc76656f26b22820c9a772ee285b2e907f3c52c24",
            "cca7afe57c6592649103c630582e69821f6a59545d1e6364811eda3a96353b25",
            "7af5cbcd2580a11ec320772c58f2a4f09cf432010c8e5c8df03f33646733712b",
        ];
        assert_eq!(hashes, golden);
    }
}
