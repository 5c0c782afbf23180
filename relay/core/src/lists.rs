//! Which identities may be here: everybody, or those on a list, less those on another.
//!
//! Invariant: the machine asks these lists whenever an identity gains something (a connection, a room, a longer session),
//! and closes at once whoever new lists leave out. Why here and not where tokens are given: a token outlives the list it was
//! given by. Spec: docs/protocol.md#lists.

use std::collections::BTreeSet;

/// Hashes of DIDs, as in [`Admission`](crate::Admission).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// Who may be here; `None` for all.
    pub allowed: Option<BTreeSet<[u8; 32]>>,
    /// Who may not, even if allowed.
    pub blocked: BTreeSet<[u8; 32]>,
}

impl Lists {
    /// Whether an identity may be here.
    #[must_use]
    pub fn admit(&self, identity: &[u8; 32]) -> bool {
        !self.blocked.contains(identity) && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(identity))
    }
}
