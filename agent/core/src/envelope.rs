//! Envelopes: signed, sealed, padded; what leaves an agent is nothing else.
//!
//! ver (1) suite (1) class (1) tag (4) nonce (24) commitment (16) hlen (2) head body, padded by Padmé. The header is sealed
//! under A, the body under C (ops and control messages under A). Invariant: the only type that a link accepts is
//! [`Sealed`], which no public function makes from plaintext without sealing it; and a body is given out only by a
//! [`VerifiedHead`]. Spec: docs/sealing.md#envelope.

mod direct;
mod header;
mod kind;
mod lobby;
mod open;
mod seal;
mod sealed;
mod several;

pub use direct::{DirectError, DirectKind, open_direct, seal_direct};
pub(crate) use direct::{DirectScope, open_byte, open_scoped, seal_scoped};
pub use header::{Header, OP_HEADS_MAX, spoken_by};
pub use kind::Kind;
pub use lobby::{open_lobby, seal_lobby};
pub use open::{OpenError, OpenHead, VerifiedHead, open_head, verify_signed_header};
pub use seal::{Draft, SealError, SealedEnvelope, seal};
pub use sealed::Sealed;
pub use several::{SEVERAL_BYTES, SEVERAL_CLASS, SEVERAL_MAX, SeveralError, join_several, split_several};

/// Longest envelope, padded, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
/// Longest body before compression, in bytes: a bound on what a body can inflate to.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest to-device message and piece, padded, in bytes.
pub const SMALL_BYTES_MAX: usize = 256 * 1024;

/// ver, suite, class.
pub(crate) const PREAMBLE_LEN: usize = 3;
/// Up to and with the nonce: the body's associated data.
pub(crate) const BODY_AAD_LEN: usize = 31;
/// Up to and with hlen: the head's associated data.
pub(crate) const OUTER_LEN: usize = 49;

/// What kind of sealed bytes the third byte names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// An envelope of a chain.
    Stored = 0,
    /// An envelope outside the chains.
    Ephemeral = 1,
    /// HPKE to one key.
    Direct = 2,
    /// Under a lobby's key.
    Lobby = 3,
    /// A piece of a blob.
    Piece = 4,
}

impl Class {
    /// The class of sealed bytes, if version and suite are ours.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [crate::op::FORMAT_VERSION, crate::op::SUITE, class, ..] => match class {
                0 => Some(Class::Stored),
                1 => Some(Class::Ephemeral),
                2 => Some(Class::Direct),
                3 => Some(Class::Lobby),
                4 => Some(Class::Piece),
                _ => None,
            },
            _ => None,
        }
    }
    pub(crate) fn preamble(self) -> [u8; PREAMBLE_LEN] {
        [crate::op::FORMAT_VERSION, crate::op::SUITE, self as u8]
    }
}
