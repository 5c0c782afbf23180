//! What a workspace machine is started with.

use crate::identity::LocalIdentity;

/// The highest place on our own chain that may have been sealed, kept outside the database (`Output::Watermark`), so
/// that a database restored from a backup is found out before it seals anything twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Watermark {
    /// The incarnation.
    pub incarnation: u64,
    /// The highest seq about to be sealed in it.
    pub seq: u64,
}

/// What every start needs.
pub struct Setup {
    /// Who we are.
    pub identity: LocalIdentity,
    /// 32 fresh random bytes from the operating system; the machine draws all its randomness from them.
    pub seed: [u8; 32],
    /// As read from beside the database; zero if there is none.
    pub watermark: Watermark,
}
