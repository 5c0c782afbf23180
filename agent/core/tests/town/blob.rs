//! Large files in the town: cut and put together as the agent's shell does.

use weft_agent_core::content::Manifest;
use weft_agent_core::files::version_hash;
use weft_agent_core::piece::{Chunker, make_manifest, open_piece, seal_piece};
use weft_agent_core::store::{Read, Write};

use super::*;

/// Whether a sealed payload is a piece.
pub(crate) fn is_piece(payload: &[u8]) -> bool {
    payload.get(2) == Some(&4)
}

/// Bytes that are no text and do not compress.
pub(crate) fn noise(seed: u8, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    rand_core::Rng::fill_bytes(&mut ChaCha20Rng::from_seed([seed; 32]), &mut bytes);
    Bytes::from(bytes)
}

impl Town {
    /// Somebody saves a large file.
    pub(crate) fn write_large(&mut self, host: usize, path: &str, bytes: Bytes) {
        self.hosts[host].folder.insert(path.into(), bytes);
        let seen = self.look(host, path);
        self.hosts[host].inputs.push_back(Input::Seen(vec![seen]));
    }

    pub(crate) fn look_at_large(&mut self, host: usize, path: &str, bytes: &Bytes) -> Seen {
        let workspace = self.hosts[host].machine.id();
        let hash = version_hash(&workspace, bytes);
        self.seed = self.seed.wrapping_add(1);
        let mut rng = ChaCha20Rng::from_seed([self.seed; 32]);
        let mut pieces = Vec::new();
        for plain in Chunker::new(&workspace).pieces(bytes) {
            let (piece, sealed) = seal_piece(plain, &mut rng).unwrap();
            let row = Write { table: Table::Pieces, key: piece.id.0.to_vec(), value: Some(sealed.bytes().clone()) };
            self.hosts[host].store.apply(&[row]);
            pieces.push(piece);
        }
        let (manifest, _) = make_manifest(pieces, &workspace, &mut rng).unwrap();
        self.made.push((bytes.clone(), manifest.clone()));
        let stat = Stat { size: bytes.len() as u64, ..Stat::default() };
        let found = Found::File { bytes: FileBytes::Blob { hash, manifest }, executable: false, stat };
        Seen::new(RelPath::new(path).unwrap(), found)
    }

    pub(crate) fn bytes_of(&self, host: usize, content: &NewContent) -> Bytes {
        match content {
            NewContent::Bytes(bytes) => bytes.clone(),
            NewContent::Blob(manifest) => self.joined(host, manifest).unwrap(),
            NewContent::Symlink(target) => Bytes::from(target.clone()),
        }
    }

    /// The content of a manifest, if all its pieces are stored.
    pub(crate) fn joined(&self, host: usize, manifest: &Manifest) -> Option<Bytes> {
        let mut joined = Vec::new();
        for piece in &manifest.pieces {
            let sealed = self.hosts[host].store.get(Table::Pieces, &piece.id.0)?;
            joined.extend(open_piece(piece, &sealed).ok()?);
        }
        Some(joined.into())
    }
}
