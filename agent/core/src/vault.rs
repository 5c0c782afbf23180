//! The plain content of stored envelopes, opened again when it is needed.
//!
//! Versions of files are not stored a second time: `Table::Versions` says in which envelope (or unsealed batch) their
//! bytes are. Invariant: what the vault gives was held and accepted before, so it is opened without being verified
//! again. What was opened is kept within a bound of bytes; what was not used for longest goes first.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use crate::checkpoint::{Data, FOLLOWING_MAX, Pack, Record, unpack_data};
use crate::content::{Content, DocumentName, INLINE_BYTES_MAX, Item, Manifest, PieceRef, VersionBytes};
use crate::envelope;
use crate::files::Versions;
use crate::id::{Place, VersionHash, WorkspaceId};
use crate::keyring::Keyring;
use crate::piece;
use crate::store::{Read, Table, Tx};

/// Bytes of opened envelopes kept. Files are written in the order in which they came, so one envelope at a time is in use for
/// that, while others come in: a dozen large ones are enough.
const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an opened envelope takes beyond its bytes: small ones are not many thousands, which would be searched one by one.
const CACHED_BYTES: usize = 32 * 1024;

/// Manifests of one version that are remembered while the pieces of none are here: the first, and the last.
const MANIFESTS_MAX: usize = 4;

/// Where the bytes of a version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In this envelope.
    Sealed(Place),
    /// In this unsealed batch of the outbox.
    Unsealed(u64),
    /// In pieces.
    Blob(Manifest),
    /// In this pack of a checkpoint, until an envelope tells it.
    Saved(PieceRef),
    /// In these pieces behind a pack of a checkpoint, until an envelope tells it.
    Following(Vec<PieceRef>),
    /// In pieces that a checkpoint named, until an envelope tells them.
    SavedBlob(Manifest),
    /// In the pieces of any of these, of which none were all here: who lost the first, in a backup say, cut it anew. Whoever
    /// can be reached has those of one or another.
    Blobs(Vec<Manifest>),
}

impl Location {
    /// The pieces of a version were named once more; nothing, if that says nothing new.
    fn beside(self, new: Manifest, tx: &Tx<'_>) -> Option<Location> {
        let mut known = match self {
            Location::Blob(known) => vec![known],
            Location::Blobs(known) => known,
            Location::Sealed(_)
            | Location::Unsealed(_)
            | Location::Saved(_)
            | Location::Following(_)
            | Location::SavedBlob(_) => return None,
        };
        if known.contains(&new) || known.iter().any(|known| known.is_here(tx)) {
            return None;
        }
        known.truncate(MANIFESTS_MAX - 1);
        known.push(new);
        Some(Location::Blobs(known))
    }
}

impl Wire for Location {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Location::Sealed(place) => writer.array(2).uint(0).bytes(&place.to_bytes()),
            Location::Unsealed(order) => writer.array(2).uint(1).uint(*order),
            Location::Blob(manifest) => writer.array(2).uint(2).item(manifest),
            Location::Saved(piece) => writer.array(2).uint(3).item(piece),
            Location::Following(pieces) => writer.array(2).uint(4).list(pieces),
            Location::SavedBlob(manifest) => writer.array(2).uint(5).item(manifest),
            Location::Blobs(manifests) => writer.array(2).uint(6).list(manifests),
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "location")?;
        match reader.uint()? {
            0 => Ok(Location::Sealed(Place::from_bytes(reader.fixed("place")?))),
            1 => Ok(Location::Unsealed(reader.uint()?)),
            2 => Ok(Location::Blob(reader.item()?)),
            3 => Ok(Location::Saved(reader.item()?)),
            4 => Ok(Location::Following(reader.list(FOLLOWING_MAX, "pieces")?)),
            5 => Ok(Location::SavedBlob(reader.item()?)),
            6 => Ok(Location::Blobs(reader.list(MANIFESTS_MAX, "manifests")?)),
            _ => Err(DecodeError::Invalid("location")),
        }
    }
}

/// Opens what is stored.
pub(crate) struct Vault {
    workspace: WorkspaceId,
    /// The epochs this device holds.
    pub(crate) keyring: Keyring,
    cache: Cache,
}

/// Opened envelopes; used last, last.
#[derive(Default)]
struct Cache {
    entries: VecDeque<(Location, Arc<Content>)>,
    bytes: usize,
}

impl Cache {
    fn weight(content: &Content) -> usize {
        content.size_hint() + CACHED_BYTES
    }
    fn get(&mut self, at: &Location) -> Option<Arc<Content>> {
        let found = self.entries.iter().rposition(|(location, _)| location == at)?;
        let entry = self.entries.remove(found)?;
        let content = Arc::clone(&entry.1);
        self.entries.push_back(entry);
        Some(content)
    }
    fn put(&mut self, at: Location, content: Arc<Content>) {
        self.retain(|location| *location != at);
        self.bytes += Self::weight(&content);
        self.entries.push_back((at, content));
        while self.bytes > CACHE_BYTES_MAX && self.entries.len() > 1 {
            if let Some((_, content)) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(Self::weight(&content));
            }
        }
    }
    fn retain(&mut self, keep: impl Fn(&Location) -> bool) {
        self.entries.retain(|(location, content)| {
            let keep = keep(location);
            if !keep {
                self.bytes = self.bytes.saturating_sub(Self::weight(content));
            }
            keep
        });
    }
}

impl Vault {
    pub(crate) fn new(workspace: WorkspaceId, keyring: Keyring) -> Self {
        Self { workspace, keyring, cache: Cache::default() }
    }

    /// Notes where the versions of a content are, for [`Versions`].
    pub(crate) fn index(&mut self, content: &Content, at: &Location, tx: &Tx<'_>) {
        for (_, items) in &content.documents {
            for item in items {
                let Item::Version { hash, bytes } = item else { continue };
                let location = match bytes {
                    VersionBytes::Inline(_) => at.clone(),
                    VersionBytes::Blob(manifest) => Location::Blob(manifest.clone()),
                };
                let location = match (Self::location(hash, tx), location) {
                    (Some(known @ (Location::Blob(_) | Location::Blobs(_))), Location::Blob(new)) => {
                        let Some(beside) = known.beside(new, tx) else { continue };
                        tx.put(Table::Versions, hash.0, to_bytes(&beside));
                        continue;
                    }
                    (_, location) => location,
                };
                // An unsealed batch gets its place.
                let moves_on = |known: &Location| match known {
                    Location::Unsealed(_) | Location::Saved(_) | Location::Following(_) | Location::SavedBlob(_) => {
                        true
                    }
                    Location::Blob(_) | Location::Blobs(_) | Location::Sealed(_) => false,
                };
                let known = Self::location(hash, tx);
                if known.as_ref().is_none_or(moves_on) {
                    tx.put(Table::Versions, hash.0, to_bytes(&location));
                }
            }
        }
    }

    /// Forgets the versions of an unsealed batch that never will be sealed: nobody else has them, or pieces of them, by
    /// that name.
    pub(crate) fn unindex(&mut self, content: &Content, order: u64, tx: &Tx<'_>) {
        for (_, items) in &content.documents {
            for item in items {
                let Item::Version { hash, bytes } = item else { continue };
                let ours = match (Self::location(hash, tx), bytes) {
                    (Some(Location::Unsealed(at)), _) => at == order,
                    (Some(Location::Blobs(mut known)), VersionBytes::Blob(manifest)) => {
                        known.retain(|known| known != manifest);
                        if !known.is_empty() {
                            tx.put(Table::Versions, hash.0, to_bytes(&Location::Blobs(known)));
                            continue;
                        }
                        true
                    }
                    (Some(Location::Blob(known)), VersionBytes::Blob(manifest)) => known == *manifest,
                    (
                        Some(
                            Location::Blob(_)
                            | Location::Blobs(_)
                            | Location::Sealed(_)
                            | Location::Saved(_)
                            | Location::Following(_)
                            | Location::SavedBlob(_),
                        )
                        | None,
                        _,
                    ) => false,
                };
                if ours {
                    tx.delete(Table::Versions, hash.0);
                }
            }
        }
    }

    /// An envelope is held at another place from now on: its versions are there.
    pub(crate) fn moved(&mut self, from: Place, to: Place, tx: &Tx<'_>) {
        let Some(content) = self.content(&Location::Sealed(to), tx) else { return };
        for (_, items) in &content.documents {
            for item in items {
                let Item::Version { hash, .. } = item else { continue };
                if Self::location(hash, tx) == Some(Location::Sealed(from)) {
                    tx.put(Table::Versions, hash.0, to_bytes(&Location::Sealed(to)));
                }
            }
        }
    }

    /// Notes where a checkpoint has a version, unless its bytes were told before.
    pub(crate) fn index_saved(hash: &VersionHash, at: &Location, tx: &Tx<'_>) {
        if Self::location(hash, tx).is_none() {
            tx.put(Table::Versions, hash.0, to_bytes(at));
        }
    }

    /// The manifests of a version whose bytes are in pieces.
    pub(crate) fn manifests(hash: &VersionHash, store: &dyn Read) -> Vec<Manifest> {
        match Self::location(hash, store) {
            Some(Location::Blob(manifest) | Location::SavedBlob(manifest)) => vec![manifest],
            Some(Location::Blobs(manifests)) => manifests,
            Some(Location::Sealed(_) | Location::Unsealed(_) | Location::Saved(_) | Location::Following(_)) | None => {
                Vec::new()
            }
        }
    }

    /// All pieces of this manifest are here: the version is put together from them.
    pub(crate) fn here_by(hash: &VersionHash, manifest: &Manifest, tx: &Tx<'_>) {
        if let Some(Location::Blobs(known)) = Self::location(hash, tx)
            && known.contains(manifest)
        {
            tx.put(Table::Versions, hash.0, to_bytes(&Location::Blob(manifest.clone())));
        }
    }

    /// The envelope that a row of [`Table::Versions`] names.
    pub(crate) fn place_in(row: &[u8]) -> Option<Place> {
        match from_bytes(row).ok()? {
            Location::Sealed(place) => Some(place),
            Location::Unsealed(_)
            | Location::Blob(_)
            | Location::Saved(_)
            | Location::Following(_)
            | Location::SavedBlob(_)
            | Location::Blobs(_) => None,
        }
    }

    fn location(hash: &VersionHash, store: &dyn Read) -> Option<Location> {
        from_bytes(&store.get(Table::Versions, &hash.0)?).ok()
    }

    /// Forgets opened batches of the outbox, whose numbers may come to mean something else.
    pub(crate) fn forget_unsealed(&mut self) {
        self.cache.retain(|location| !matches!(location, Location::Unsealed(_)));
    }

    /// Keeps a content that was just opened or made.
    pub(crate) fn remember(&mut self, at: Location, content: Arc<Content>) {
        self.cache.put(at, content);
    }

    /// The content of a held envelope, or of an unsealed batch.
    pub(crate) fn content(&mut self, at: &Location, store: &dyn Read) -> Option<Arc<Content>> {
        if let Some(content) = self.cache.get(at) {
            return Some(content);
        }
        let body = match at {
            Location::Sealed(place) => self.body(*place, store)?,
            Location::Unsealed(order) => {
                let row = store.get(Table::Outbox, &order.to_be_bytes())?;
                row.get(1..)?.to_vec()
            }
            Location::Saved(piece) => {
                let content = Arc::new(saved_content(piece, store)?);
                self.remember(at.clone(), Arc::clone(&content));
                return Some(content);
            }
            Location::Blob(_) | Location::Blobs(_) | Location::Following(_) | Location::SavedBlob(_) => return None,
        };
        let content: Arc<Content> = Arc::new(from_bytes(&body).ok()?);
        self.remember(at.clone(), Arc::clone(&content));
        Some(content)
    }

    /// The plain body of a held envelope.
    pub(crate) fn body(&self, place: Place, store: &dyn Read) -> Option<Vec<u8>> {
        let envelope = store.get(Table::Envelopes, &place.to_bytes())?;
        let head = envelope::open_head(&self.workspace, &self.keyring, &envelope).ok()?;
        head.trust_stored().open_body(&self.keyring, &envelope).ok()
    }
}

impl Versions for Vault {
    fn version(&mut self, hash: &VersionHash, store: &dyn Read) -> Option<Bytes> {
        let at = Self::location(hash, store)?;
        if let Location::Following(pieces) = &at {
            return unpack_data(&join(pieces, store)?, INLINE_BYTES_MAX).ok().map(Bytes::from);
        }
        let content = self.content(&at, store)?;
        content.documents.iter().flat_map(|(_, items)| items).find_map(|item| match item {
            Item::Version { hash: found, bytes: VersionBytes::Inline(bytes) } if found == hash => Some(bytes.clone()),
            Item::Version { .. } | Item::Change(_) | Item::Founded { .. } => None,
        })
    }

    fn manifest(&mut self, hash: &VersionHash, store: &dyn Read) -> Option<Manifest> {
        let mut known = Self::manifests(hash, store);
        let here = known.iter().position(|manifest| manifest.is_here(store));
        here.map(|at| known.swap_remove(at)).or_else(|| known.pop())
    }
}

/// A piece, opened.
pub(crate) fn open_stored(piece: &PieceRef, store: &dyn Read) -> Option<Vec<u8>> {
    piece::open_piece(piece, &store.get(Table::Pieces, &piece.id.0)?).ok()
}

/// Pieces, opened and joined. Callers bound their number.
pub(crate) fn join(pieces: &[PieceRef], store: &dyn Read) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    for piece in pieces {
        joined.extend_from_slice(&open_stored(piece, store)?);
    }
    Some(joined)
}

/// The versions in a pack of a checkpoint, as the content of an envelope.
fn saved_content(piece: &PieceRef, store: &dyn Read) -> Option<Content> {
    let pack: Pack = from_bytes(&open_stored(piece, store)?).ok()?;
    let items = pack.records.into_iter().filter_map(|record| match record {
        Record::Version { hash, data: Data::Here(packed) } => {
            let bytes = unpack_data(&packed, INLINE_BYTES_MAX).ok()?;
            Some(Item::Version { hash, bytes: VersionBytes::Inline(bytes.into()) })
        }
        Record::Version { .. } | Record::Blob { .. } | Record::Document { .. } => None,
    });
    Some(Content { documents: vec![(DocumentName::new("pack:0:versions")?, items.collect())] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was used last stays, whatever the sizes, and the bound in bytes holds; one that is larger than it stays alone.
    #[test]
    fn the_cache_is_bounded_and_forgets_what_was_not_used() {
        let content = |bytes: usize| {
            let item = Item::Change(vec![0; bytes].into());
            Arc::new(Content { documents: vec![(DocumentName::new("tree:00:entries").unwrap(), vec![item])] })
        };
        let mut cache = Cache::default();
        for order in 0..200 {
            cache.put(Location::Unsealed(order), content(256 * 1024));
            assert!(cache.get(&Location::Unsealed(0)).is_some(), "used all the time");
            assert!(cache.bytes <= CACHE_BYTES_MAX);
        }
        assert!((10..20).contains(&cache.entries.len()));
        assert!(cache.get(&Location::Unsealed(1)).is_none() && cache.get(&Location::Unsealed(199)).is_some());
        for order in 0..1_000 {
            cache.put(Location::Unsealed(order), content(1));
        }
        assert!(cache.entries.len() <= CACHE_BYTES_MAX / CACHED_BYTES);
        cache.put(Location::Unsealed(5), content(2 * CACHE_BYTES_MAX));
        assert_eq!(cache.entries.len(), 1);
        cache.retain(|_| false);
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }
}
