//! Every way a relay refuses something, and how a connection ends. Spec: docs/protocol.md#codes.

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A frame that cannot be decoded, or does not belong there.
    Malformed,
}
