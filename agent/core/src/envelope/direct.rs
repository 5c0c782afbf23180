//! To one device or joiner: ver, suite, class 2, then enc (32) ‖ ciphertext of payload(type (1) ‖ message), padded.
//!
//! HPKE, base mode with info `weft/v1/direct` ‖ workspace, or PSK mode between a joiner and the members (knock, answer).
//! Invariant: nothing here proves who sent it; what it carries proves itself. Spec: docs/sealing.md#to-device.

use rand_core::CryptoRng;

use super::{Class, PREAMBLE_LEN, SMALL_BYTES_MAX, Sealed};
use crate::hash;
use crate::id::WorkspaceId;
use crate::padding::{is_padded_len, padded_len};
use crate::payload;
use crate::secret::Secret;
use crate::wrap::{self, OVERHEAD, Psk};

/// What a message to a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DirectKind {
    /// A joiner asks to be let in.
    Knock = 1,
    /// One part of the answer.
    Answer = 2,
    /// A key packet for one device.
    Slot = 3,
    /// A slot did not hold what its op commits to.
    Nack = 4,
    /// A removed device learns why.
    Notice = 5,
    /// A joiner is told why it is not let in.
    Refusal = 6,
}

impl DirectKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(DirectKind::Knock),
            2 => Some(DirectKind::Answer),
            3 => Some(DirectKind::Slot),
            4 => Some(DirectKind::Nack),
            5 => Some(DirectKind::Notice),
            6 => Some(DirectKind::Refusal),
            _ => None,
        }
    }
}

/// Why a to-device message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectError {
    /// Not of this class, version or padded length.
    #[error("not a to-device message")]
    NotDirect,
    /// Sealed to another key.
    #[error("not sealed to this key")]
    NotForUs,
    /// Sealed to us, but malformed inside.
    #[error("a to-device message is malformed")]
    Malformed,
}

pub(crate) struct DirectScope<'a> {
    /// `direct`, `knock` or `answer`.
    pub(crate) label: &'static str,
    pub(crate) workspace: &'a WorkspaceId,
    pub(crate) psk: Option<Psk<'a>>,
}

impl DirectScope<'_> {
    fn info(&self) -> Vec<u8> {
        [hash::PREFIX.as_bytes(), self.label.as_bytes(), &self.workspace.0].concat()
    }
}

/// Seals to an X25519 key. `None` if the key is unsound or the message too long for one piece of 256 KiB.
#[must_use]
pub fn seal_direct(
    workspace: &WorkspaceId,
    kind: DirectKind,
    recipient: &[u8; 32],
    message: &[u8],
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    seal_scoped(&DirectScope { label: "direct", workspace, psk: None }, kind, recipient, message, rng)
}

pub(crate) fn seal_scoped(
    scope: &DirectScope<'_>,
    kind: DirectKind,
    recipient: &[u8; 32],
    message: &[u8],
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    let plain = zeroize::Zeroizing::new([&[kind as u8][..], message].concat());
    let mut packed = payload::pack(&plain, true);
    let fixed = PREAMBLE_LEN + OVERHEAD;
    let total = padded_len(fixed + packed.len());
    if total > SMALL_BYTES_MAX {
        return None;
    }
    packed.resize(total - fixed, 0);
    let preamble = Class::Direct.preamble();
    let mut bytes = preamble.to_vec();
    bytes.extend_from_slice(&wrap::seal(recipient, scope.psk, &scope.info(), &preamble, &packed, rng)?);
    Some(Sealed::new(bytes))
}

/// Opens with an X25519 secret.
pub fn open_direct(
    workspace: &WorkspaceId,
    secret: &Secret,
    bytes: &[u8],
) -> Result<(DirectKind, Vec<u8>), DirectError> {
    open_scoped(&DirectScope { label: "direct", workspace, psk: None }, secret, bytes)
}

/// Opens a message of this kind that is one byte; `None` if it is anything else.
pub(crate) fn open_byte(scope: &DirectScope<'_>, kind: DirectKind, secret: &Secret, bytes: &[u8]) -> Option<u8> {
    let (found, message) = open_scoped(scope, secret, bytes).ok()?;
    match message.as_slice() {
        [byte] if found == kind => Some(*byte),
        _ => None,
    }
}

pub(crate) fn open_scoped(
    scope: &DirectScope<'_>,
    secret: &Secret,
    bytes: &[u8],
) -> Result<(DirectKind, Vec<u8>), DirectError> {
    let shaped = Class::of(bytes) == Some(Class::Direct) && is_padded_len(bytes.len());
    if !shaped || bytes.len() > SMALL_BYTES_MAX {
        return Err(DirectError::NotDirect);
    }
    let (preamble, sealed) = bytes.split_at_checked(PREAMBLE_LEN).ok_or(DirectError::NotDirect)?;
    let packed = wrap::open(secret, scope.psk, &scope.info(), preamble, sealed).map_err(|_| DirectError::NotForUs)?;
    let mut plain = payload::unpack(&packed, 2 * SMALL_BYTES_MAX).map_err(|_| DirectError::Malformed)?;
    let kind = plain.first().copied().and_then(DirectKind::from_byte).ok_or(DirectError::Malformed)?;
    plain.remove(0);
    Ok((kind, plain))
}
