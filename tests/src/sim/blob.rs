//! Large files, cut and put together as the agent's shell does.

use bytes::Bytes;
use weft_agent_core::content::Manifest;
use weft_agent_core::id::{PieceId, WorkspaceId};
use weft_agent_core::piece::{Chunker, make_manifest, open_piece, seal_piece};
use weft_agent_core::store::{Read, Table};

use super::dice::Dice;

/// Cuts and seals a file.
///
/// # Errors
/// It is too large.
pub fn cut(
    workspace: &WorkspaceId,
    bytes: &[u8],
    dice: &mut Dice,
) -> Result<(Manifest, Vec<(PieceId, Bytes)>), String> {
    let (mut pieces, mut rows) = (Vec::new(), Vec::new());
    for plain in Chunker::new(workspace).pieces(bytes) {
        let (piece, sealed) = seal_piece(plain, dice.rng()).ok_or("a piece is too large")?;
        rows.push((piece.id, sealed.bytes().clone()));
        pieces.push(piece);
    }
    let (manifest, inner) = make_manifest(pieces, workspace, dice.rng()).map_err(|error| error.to_string())?;
    rows.extend(inner.into_iter().map(|(piece, sealed)| (piece.id, sealed.bytes().clone())));
    Ok((manifest, rows))
}

/// Opens the pieces of a file that are in the store, and joins them. Files in the world are small enough for a manifest
/// that names the content's own pieces.
///
/// # Errors
/// A piece is missing, or is not what the manifest says.
pub fn splice(manifest: &Manifest, read: &dyn Read) -> Result<Bytes, String> {
    let mut joined = Vec::new();
    for piece in &manifest.pieces {
        let sealed = read.get(Table::Pieces, &piece.id.0).ok_or_else(|| format!("piece {:?} is missing", piece.id))?;
        joined.extend(open_piece(piece, &sealed).map_err(|error| error.to_string())?);
    }
    Ok(Bytes::from(joined))
}
