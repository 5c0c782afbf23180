//! What a workspace machine is started with.

use crate::identity::LocalIdentity;

/// The highest place on our own chain that may have been sent, kept outside the database (`Output::Watermark`), so that
/// a database restored from a backup is found out before it gives one number to two envelopes.
///
/// It is raised after the sealed envelope is durable and before its first send: above the database it can only be if
/// the database went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Watermark {
    /// The incarnation.
    pub incarnation: u64,
    /// The highest seq that may have been sent in it.
    pub seq: u64,
}

/// A defence that can be switched off, so that the simulator can show that it matters. Nothing that ships does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// What is held already is taken in again.
    NoDedupe,
    /// An edit is entered at the newest heads, not at those that were on disk.
    NoBase,
    /// Nobody is told of a key that is not what its op commits to.
    NoNack,
    /// What a checkpoint says is taken for true.
    NoProof,
    /// A message counts whoever says it again.
    NoSpeaker,
    /// Keys are wrapped for those who were removed, too.
    NoExclusion,
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
