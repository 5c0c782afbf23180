//! Large files: cut and sealed into pieces while they are read, opened and joined while they are written.
//!
//! Invariant: memory is bounded by a piece, whatever the size of the file; a piece that does not open, or whose plain
//! length is not what the manifest says, is an error and never content.
//! Spec: docs/protocol.md#blobs.

use std::io::{self, Read as _, Write as _};

use weft_agent_core::content::{Manifest, PieceRef};
use weft_agent_core::id::{VersionHash, WorkspaceId};
use weft_agent_core::piece::{self, Chunker};
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
