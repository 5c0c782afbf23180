//! Who belongs, as a pure function of the set of signed operations.

/// What a member may do, from least to most. The order is the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Holds access keys only; stores and serves what it cannot read.
    Keeper = 0,
    /// Reads.
    Reader = 1,
    /// Reads and writes.
    Writer = 2,
    /// Also invites, and removes those below.
    Admin = 3,
    /// Also names admins.
    Owner = 4,
}
