//! What both directions share: the kind in front, the deterministic header, the payload behind.
//!
//! Layout: `CBOR [kind, field...]` and, for kinds with a payload, the payload's bytes up to the end of the message.
//! Spec: docs/protocol.md#frames.

use bytes::{BufMut, Bytes, BytesMut};

use crate::cbor::{DecodeError, Reader, Writer};
use crate::code::Code;
use crate::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A kind that this build does not know; the other side speaks a newer protocol.
    #[error("frame kind {0} is unknown here: the other side is newer, upgrade")]
    UnknownKind(u64),
    /// More bytes than a frame may have.
    #[error("a frame of {len} bytes, {max} is the most")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The header is not what the format says.
    #[error("frame header: {0}")]
    Header(#[from] DecodeError),
    /// Bytes after the header of a kind that carries no payload.
    #[error("bytes after the end of a frame without payload")]
    Trailing,
}

impl FrameError {
    /// What a relay answers to it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            FrameError::UnknownKind(_) => Code::UnknownKind,
            FrameError::TooLarge { .. } => Code::TooLarge,
            FrameError::Header(_) | FrameError::Trailing => Code::Malformed,
        }
    }
}

/// A frame's header as bytes: `[kind, fields...]`.
pub(super) fn header(kind: u64, fields: usize, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(fields + 1).uint(kind);
    write(&mut writer);
    writer.into_bytes()
}

/// Header and payload in one message: the only copy a payload ever sees here.
pub(super) fn join(header: &[u8], payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(header.len() + payload.len());
    out.put_slice(header);
    out.put_slice(payload);
    out.freeze()
}

/// Reads `[kind, ...]`: the number of fields after the kind, and the kind.
pub(super) fn begin(bytes: &Bytes) -> Result<(Reader<'_>, usize, u64), FrameError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { len: bytes.len(), max: FRAME_BYTES_MAX });
    }
    let mut reader = Reader::new(bytes);
    let items = reader.array_up_to(32, "frame header")?;
    let fields = items.checked_sub(1).ok_or(DecodeError::Invalid("frame header"))?;
    let kind = reader.uint()?;
    Ok((reader, fields, kind))
}

/// Refuses a header with another number of fields than its kind has.
pub(super) fn fields(found: usize, expected: usize) -> Result<(), DecodeError> {
    if found == expected { Ok(()) } else { Err(DecodeError::Invalid("number of fields in a frame header")) }
}

/// The payload behind the first `header_len` bytes, sharing their allocation.
pub(super) fn payload(bytes: &Bytes, header_len: usize) -> Result<Bytes, FrameError> {
    let len = bytes.len().saturating_sub(header_len);
    if len > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLarge { len, max: PAYLOAD_BYTES_MAX });
    }
    Ok(bytes.slice(header_len..))
}

/// Checks that the header was the deterministic one, and that nothing but a payload is behind it.
pub(super) fn finish(bytes: &Bytes, again: &[u8], payload_len: Option<usize>) -> Result<(), FrameError> {
    let behind = bytes.strip_prefix(again).ok_or(DecodeError::NotDeterministic)?;
    if behind.len() == payload_len.unwrap_or(0) { Ok(()) } else { Err(FrameError::Trailing) }
}
