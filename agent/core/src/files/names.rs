//! How files, their documents and their content are named.
//!
//! Invariant: a name depends on nothing but its arguments, so that two machines that import the same files name them
//! the same and meet. Spec: docs/files.md#names.

use crate::content::DocumentName;
use crate::disk::RelPath;
use crate::id::{ChainId, FileId, VersionHash, WorkspaceId};

/// How many documents the tree is split into: so that one create does not touch every entry.
pub(crate) const BUCKETS: u8 = 64;

/// Hashes the content of a file as it streams by.
pub struct VersionHasher(blake3::Hasher);

impl VersionHasher {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new(workspace: &WorkspaceId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("weft/v1/version");
        hasher.update(workspace.as_bytes());
        Self(hasher)
    }
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The hash of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> VersionHash {
        VersionHash(*self.0.finalize().as_bytes())
    }
}

/// The hash that names this content in this workspace.
#[must_use]
pub fn version_hash(workspace: &WorkspaceId, bytes: &[u8]) -> VersionHash {
    let mut hasher = VersionHasher::new(workspace);
    hasher.update(bytes);
    hasher.finish()
}

/// BLAKE3 `derive_key` over the parts, its first 16 bytes.
fn short_hash(context: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// What the actor of every change of this chain starts with; see [`is_actor_of`].
#[must_use]
pub fn actor_prefix(workspace: &WorkspaceId, chain: ChainId) -> [u8; 16] {
    short_hash("weft/v1/actor", &[workspace.as_bytes(), &chain.to_bytes()])
}

/// What Automerge (0.12, `ActorId::with_concurrency`) puts before an actor that edits beside its own newer changes; a
/// number in LEB128 follows, then the actor.
const BESIDE: [u8; 4] = [0x13, 0xb2, 0x23, 0x09];
/// Bytes of a LEB128 number of 64 bits.
const LEB128_BYTES_MAX: usize = 10;

/// Whether an actor is of the chain with this [`actor_prefix`]: it starts with it, or with what Automerge puts before it.
#[must_use]
pub fn is_actor_of(actor: &[u8], prefix: &[u8; 16]) -> bool {
    if actor.starts_with(prefix) {
        return true;
    }
    let Some(number) = actor.strip_prefix(&BESIDE) else { return false };
    let end = number.iter().take(LEB128_BYTES_MAX).position(|byte| byte & 0x80 == 0);
    end.and_then(|end| number.get(end + 1..)).is_some_and(|rest| rest.starts_with(prefix))
}

/// The actor of an edit beside own newer changes: the `level`-th of those of this one.
pub(crate) fn actor_beside(actor: &[u8; 16], mut level: u64) -> Vec<u8> {
    let mut bytes = BESIDE.to_vec();
    while level >= 0x80 {
        bytes.push((level & 0x7f) as u8 | 0x80);
        level >>= 7;
    }
    bytes.push(level as u8);
    bytes.extend(actor);
    bytes
}

/// The actor of the change that founds a text.
pub(crate) fn founding_actor(id: &FileId, version: &VersionHash) -> [u8; 16] {
    short_hash("weft/v1/founding", &[id.as_bytes(), version.as_bytes()])
}

/// The id of a file that is new at `path` with this content; `n` counts up while the id is in use elsewhere.
pub(crate) fn file_id(workspace: &WorkspaceId, path: &RelPath, content: &VersionHash, n: u64) -> FileId {
    let path = path.as_str().as_bytes();
    let len = (path.len() as u64).to_be_bytes();
    let parts: [&[u8]; 5] = [workspace.as_bytes(), &len, path, content.as_bytes(), &n.to_be_bytes()];
    FileId(short_hash("weft/v1/file-id", &parts))
}

/// The id of a folder that is new at `path`.
pub(crate) fn folder_id(workspace: &WorkspaceId, path: &RelPath, n: u64) -> FileId {
    let path = path.as_str().as_bytes();
    let len = (path.len() as u64).to_be_bytes();
    FileId(short_hash("weft/v1/folder-id", &[workspace.as_bytes(), &len, path, &n.to_be_bytes()]))
}

/// Which tree document holds the entry of this file.
pub(crate) fn bucket(id: &FileId) -> u8 {
    let [first, ..] = id.0;
    first % BUCKETS
}

/// A document, as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Document {
    /// Entries of the tree whose ids fall into this bucket.
    Tree(u8),
    /// The versions of a file; not an Automerge document.
    Versions(FileId),
    /// The text that was founded on the version whose hash starts so.
    Text(FileId, [u8; 8]),
}

/// Whether a document holds versions of a file, which are taken as they are and never built.
pub(crate) fn is_of_versions(name: &DocumentName) -> bool {
    matches!(Document::parse(name), Some(Document::Versions(_)))
}

/// The file that a document belongs to; `None` for the tree.
pub(crate) fn file_of(name: &DocumentName) -> Option<FileId> {
    match Document::parse(name)? {
        Document::Tree(_) => None,
        Document::Versions(id) | Document::Text(id, _) => Some(id),
    }
}

/// The start of the hash of the version that a text is founded on, if the document is a text.
pub(crate) fn founded_on(name: &DocumentName) -> Option<[u8; 8]> {
    match Document::parse(name)? {
        Document::Text(_, start) => Some(start),
        Document::Tree(_) | Document::Versions(_) => None,
    }
}

/// The start of a version's hash, which names the text founded on it.
pub(crate) fn start_of(version: &VersionHash) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = version.0;
    [a, b, c, d, e, f, g, h]
}

impl Document {
    /// The text founded on this version of this file.
    pub(crate) fn text(id: FileId, version: &VersionHash) -> Self {
        Self::Text(id, start_of(version))
    }
    /// Its name.
    pub(crate) fn name(self) -> DocumentName {
        let text = match self {
            Self::Tree(bucket) => format!("tree:{bucket:02x}:entries"),
            Self::Versions(id) => format!("file:{id}:version"),
            Self::Text(id, start) => format!("file:{id}:text-{:016x}", u64::from_be_bytes(start)),
        };
        #[allow(clippy::expect_used, reason = "all three shapes are short ASCII with two colons")]
        DocumentName::new(&text).expect("a well-formed document name")
    }
    /// The reverse; `None` for names of other parts of Weft, or written in another way than ours.
    pub(crate) fn parse(name: &DocumentName) -> Option<Self> {
        let mut parts = name.as_str().split(':');
        let (entity, id, concern) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match (entity, concern) {
            ("tree", "entries") => Self::Tree(u8::from_str_radix(id, 16).ok().filter(|bucket| *bucket < BUCKETS)?),
            ("file", "version") => Self::Versions(FileId::from_hex(id)?),
            ("file", concern) => {
                let start = weft_protocol::id::unhex::<8>(concern.strip_prefix("text-")?)?;
                Self::Text(FileId::from_hex(id)?, start)
            }
            _ => return None,
        };
        (found.name() == *name).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document's name says which it is, and only one spelling counts.
    #[test]
    fn names_have_one_spelling() {
        let id = FileId([0xab; 16]);
        for document in [Document::Tree(63), Document::Versions(id), Document::Text(id, [1; 8])] {
            assert_eq!(Document::parse(&document.name()), Some(document));
        }
        for other in ["tree:+1:entries", "tree:40:entries", "tree:3F:entries", "file:ab:version", "chat:1:x"] {
            assert_eq!(Document::parse(&DocumentName::new(other).unwrap()), None, "{other}");
        }
    }

    /// An actor that edits beside its own newer changes, as an editor with an old buffer makes it do, is still of its
    /// chain; one of another chain is not, whatever stands before it.
    #[test]
    fn an_actor_beside_itself_is_of_its_chain() {
        use automerge::transaction::Transactable;
        let mut doc = automerge::Automerge::new();
        let (ours, theirs) = ([1; 16], [2; 16]);
        doc.set_actor(automerge::ActorId::from(ours));
        let mut first = doc.transaction();
        first.put(automerge::ROOT, "a", 1).unwrap();
        first.commit();
        let old = doc.get_heads();
        for value in 0..200 {
            let mut newer = doc.transaction();
            newer.put(automerge::ROOT, "a", value).unwrap();
            newer.commit();
            let mut beside = doc.transaction_at(automerge::PatchLog::inactive(), &old).unwrap();
            beside.put(automerge::ROOT, "b", value).unwrap();
            beside.commit();
        }
        let changes = doc.get_changes(&[]);
        assert!(changes.iter().any(|change| !change.actor_id().to_bytes().starts_with(&ours)));
        for change in changes {
            assert!(is_actor_of(change.actor_id().to_bytes(), &ours));
            assert!(!is_actor_of(change.actor_id().to_bytes(), &theirs));
        }
        for actor in [&BESIDE[..], &[0x13, 0xb2, 0x23, 0x09, 0x80], &[], &[0x13, 0xb2, 0x23, 0x09, 1, 1, 1]] {
            assert!(!is_actor_of(actor, &ours));
        }
    }

    /// The hashes that travel are fixed for ever: golden vectors.
    #[test]
    fn golden_names() {
        let workspace = WorkspaceId([7; 32]);
        let version = version_hash(&workspace, b"hello\n");
        let path = RelPath::new("notes/a.md").unwrap();
        let chain = ChainId { device: crate::id::DeviceId([9; 16]), incarnation: 1 };
        let actor: String = actor_prefix(&workspace, chain).iter().map(|byte| format!("{byte:02x}")).collect();
        let all = [
            version.to_string(),
            file_id(&workspace, &path, &version, 0).to_string(),
            folder_id(&workspace, &path, 0).to_string(),
            actor,
        ];
        assert_eq!(all, super::golden::NAMES);
    }
}

#[cfg(test)]
mod golden {
    pub(super) const NAMES: [&str; 4] = [
        "a5d4a247ab8c46e362b9c4e3663afb913a984811a13fb4233ccdecd334ce8cbc",
        "2842dadce1e463d1d98ca4fbcefc9c22",
        "bf680eaf2efcfc411c7317a5a2b550e1",
        "b67b223453670a396020a519b67daa41",
    ];
}
