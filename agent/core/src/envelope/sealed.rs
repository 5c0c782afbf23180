//! Bytes that may leave this agent.

use bytes::Bytes;

use super::{Class, ENVELOPE_BYTES_MAX};
use crate::padding::is_padded_len;

/// Sealed bytes: an envelope, a to-device message, a lobby message or a piece. Sealing makes them; what was received or
/// stored comes back in by its shape.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Bytes::from(bytes))
    }
    /// What came over a link or out of the store, to be served again. `None` unless it has the shape of sealed bytes:
    /// version, suite, a known class, and a padded length within the format's bound.
    #[must_use]
    pub fn from_received(bytes: Bytes) -> Option<Self> {
        let shaped = Class::of(&bytes).is_some() && bytes.len() <= ENVELOPE_BYTES_MAX && is_padded_len(bytes.len());
        shaped.then_some(Self(bytes))
    }
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
    /// The bytes, for a frame.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
    /// What they are.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        Class::of(&self.0)
    }
}

impl core::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}
