//! Large files: cut and sealed into pieces while they are read, opened and joined while they are written.
//!
//! Invariant: memory is bounded by a piece, whatever the size of the file; a piece that does not open, or whose plain
//! length is not what the manifest says, is an error and never content.
//! Spec: docs/sealing.md#pieces.

use std::io::{self, Read as _};

use weft_agent_core::content::{Manifest, PieceRef};
use weft_agent_core::envelope::Sealed;
use weft_agent_core::id::{VersionHash, WorkspaceId};
use weft_agent_core::piece::{self, Chunker, PIECE_BYTES_MAX};
use weft_agent_core::store::{Read, Table, Write};

use crate::engine::OsRandom;
use crate::folder::look::Rows;

/// Read at a time.
const BUFFER_BYTES: usize = 128 * 1024;

/// The hash of content that is here whole.
pub(crate) fn version_hash(workspace: &WorkspaceId, bytes: &[u8]) -> VersionHash {
    let mut hasher = Hasher::new(workspace);
    hasher.update(bytes);
    hasher.finish()
}

/// The hash of content that is read.
pub(crate) fn hash_reader(workspace: &WorkspaceId, from: &mut dyn io::Read) -> io::Result<VersionHash> {
    let mut hasher = Hasher::new(workspace);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(hasher.finish()) };
        hasher.update(bytes);
    }
}

/// The same hash as the core's, as a stream.
struct Hasher(blake3::Hasher);

impl Hasher {
    fn new(workspace: &WorkspaceId) -> Hasher {
        let mut hasher = blake3::Hasher::new_derive_key("weft/v1/version");
        hasher.update(workspace.as_bytes());
        Hasher(hasher)
    }
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> VersionHash {
        VersionHash(*self.0.finalize().as_bytes())
    }
}

/// Cuts and seals what is read; rows of finished pieces go to `rows` as they come. `None`: nobody takes rows any more.
pub(crate) fn cut(
    workspace: &WorkspaceId,
    from: &mut dyn io::Read,
    rows: &mut Rows<'_>,
) -> io::Result<Option<(VersionHash, Manifest)>> {
    let chunker = Chunker::new(workspace);
    let mut hasher = Hasher::new(workspace);
    let mut pieces = Vec::new();
    let mut window = Vec::with_capacity(2 * PIECE_BYTES_MAX);
    loop {
        let missing = (2 * PIECE_BYTES_MAX).saturating_sub(window.len());
        let read = from.take(missing as u64).read_to_end(&mut window)?;
        let ended = read < missing;
        while window.len() >= PIECE_BYTES_MAX || (ended && !window.is_empty()) {
            let plain: Vec<u8> = window.drain(..chunker.cut(&window)).collect();
            hasher.update(&plain);
            let (reference, sealed) = piece::seal_piece(&plain, &mut OsRandom).ok_or_else(too_large)?;
            let goes_on = rows(vec![row(&reference, &sealed)]);
            pieces.push(reference);
            if !goes_on {
                return Ok(None);
            }
        }
        if ended {
            break;
        }
    }
    let (manifest, inner) = piece::make_manifest(pieces, workspace, &mut OsRandom).map_err(io::Error::other)?;
    let inner: Vec<Write> = inner.iter().map(|(reference, sealed)| row(reference, sealed)).collect();
    if !inner.is_empty() && !rows(inner) {
        return Ok(None);
    }
    Ok(Some((hasher.finish(), manifest)))
}

fn too_large() -> io::Error {
    io::Error::other(piece::PieceError::TooLarge)
}

fn row(reference: &PieceRef, sealed: &Sealed) -> Write {
    Write { table: Table::Pieces, key: reference.id.0.to_vec(), value: Some(sealed.bytes().clone()) }
}

/// Opens and joins the pieces of a manifest into `to`; gives the hash of what was written.
pub(crate) fn join(
    workspace: &WorkspaceId,
    manifest: &Manifest,
    pieces: &dyn Read,
    to: &mut dyn io::Write,
) -> io::Result<VersionHash> {
    piece::check_manifest(manifest).map_err(io::Error::other)?;
    let inner;
    let content = if manifest.depth == 0 {
        manifest
    } else {
        let mut joined = Vec::new();
        for reference in &manifest.pieces {
            joined.extend_from_slice(&open(reference, pieces)?);
        }
        inner = piece::open_inner_manifest(manifest, &joined).map_err(io::Error::other)?;
        &inner
    };
    let mut hasher = Hasher::new(workspace);
    for reference in &content.pieces {
        let plain = open(reference, pieces)?;
        hasher.update(&plain);
        to.write_all(&plain)?;
    }
    Ok(hasher.finish())
}

fn open(reference: &PieceRef, pieces: &dyn Read) -> io::Result<Vec<u8>> {
    let sealed = pieces
        .get(Table::Pieces, reference.id.as_bytes())
        .ok_or_else(|| io::Error::other("a piece of this file is not here yet"))?;
    piece::open_piece(reference, &sealed).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::store::MemoryStore;

    /// What was cut and sealed is joined to the same bytes, however large; the hash is the core's.
    #[test]
    fn large_content_round_trips() {
        let workspace = WorkspaceId([5; 32]);
        let mut state = 1u64;
        let noise: Vec<u8> = (0..900_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        for content in [Vec::new(), noise[..1].to_vec(), noise.clone()] {
            let mut store = MemoryStore::default();
            let mut rows = |rows: Vec<Write>| {
                store.apply(&rows);
                true
            };
            let (hash, manifest) = cut(&workspace, &mut content.as_slice(), &mut rows).unwrap().unwrap();
            assert_eq!(hash, weft_agent_core::files::version_hash(&workspace, &content));
            let mut joined = Vec::new();
            assert_eq!(join(&workspace, &manifest, &store, &mut joined).unwrap(), hash);
            assert!(joined == content);
        }
    }

    /// A piece that is missing or altered is an error, never content.
    #[test]
    fn damaged_pieces_are_errors() {
        let workspace = WorkspaceId([5; 32]);
        let content = vec![7; 300_000];
        let mut kept = Vec::new();
        let mut rows = |rows: Vec<Write>| {
            kept.extend(rows);
            true
        };
        let (_, manifest) = cut(&workspace, &mut content.as_slice(), &mut rows).unwrap().unwrap();
        assert!(join(&workspace, &manifest, &MemoryStore::default(), &mut Vec::new()).is_err());
        let mut store = MemoryStore::default();
        if let Some(Write { value: Some(value), .. }) = kept.last_mut() {
            let mut bytes = value.to_vec();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            *value = bytes.into();
        }
        store.apply(&kept);
        assert!(join(&workspace, &manifest, &store, &mut Vec::new()).is_err());
    }

    /// Nobody takes rows any more: the cut ends instead of reading on.
    #[test]
    fn a_refused_row_ends_the_cut() {
        let content = vec![1; 1_000_000];
        let mut calls = 0;
        let mut rows = |_: Vec<Write>| {
            calls += 1;
            false
        };
        assert!(cut(&WorkspaceId([5; 32]), &mut content.as_slice(), &mut rows).unwrap().is_none());
        assert_eq!(calls, 1);
    }
}
