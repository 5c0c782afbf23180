//! Ops as the body of an envelope of kind 2 and of control messages: [op], each a byte string, parents first.
//! Spec: docs/sealing.md#ops.

use weft_protocol::cbor::{DecodeError, Reader, Writer};

use super::{OP_BYTES_MAX, OpError, SignedOp};
use crate::id::WorkspaceId;

/// Most ops in one list; send several lists for more.
pub const OPS_PER_ENVELOPE_MAX: usize = 1024;

/// The list's bytes. The caller keeps within [`OPS_PER_ENVELOPE_MAX`] and an envelope's size.
#[must_use]
pub fn ops_to_bytes<'a>(ops: impl ExactSizeIterator<Item = &'a SignedOp>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(ops.len());
    for op in ops {
        writer.bytes(op.bytes());
    }
    writer.into_bytes()
}

/// Decodes a list; signatures are checked on insertion. One malformed op refuses the list: its sender is to blame.
pub fn ops_from_bytes(workspace: &WorkspaceId, bytes: &[u8]) -> Result<Vec<SignedOp>, OpError> {
    let mut reader = Reader::new(bytes);
    let mut ops = Vec::new();
    for _ in 0..reader.array_up_to(OPS_PER_ENVELOPE_MAX, "ops")? {
        ops.push(SignedOp::parse(workspace, reader.bytes_up_to(OP_BYTES_MAX, "op")?)?);
    }
    if ops_to_bytes(ops.iter()) != bytes {
        return Err(DecodeError::NotDeterministic.into());
    }
    Ok(ops)
}
