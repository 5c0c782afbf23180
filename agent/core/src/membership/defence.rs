//! The defences that a test takes out, one at a time, to see the attack that it stops.
//!
//! Invariant: outside of tests every defence stands; there is nothing to switch.

use super::set::OpSet;

/// A rule without which some attack works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Defence {
    /// A concurrent removal from above voids.
    RemovalVoids,
    /// Only those below are removed.
    StrictRank,
    /// A revoked device comes back by the words only.
    WordsReadmit,
    /// A concurrent revocation ends what its device introduced.
    RevocationEndsIntroductions,
    /// What rests on nothing falls.
    Support,
    /// Ending an owner takes the others.
    Quorum,
    /// An owner is always left.
    OwnerLeft,
    /// Whoever an op names as its signer signed it.
    Signature,
    /// An epoch reaches exactly those who belong.
    Recipients,
    /// Nobody goes without a new epoch.
    Rotation,
    /// A link that was withdrawn lets nobody in.
    OpenInvite,
    /// An invite ends with its issuer.
    IssuerStays,
    /// A link for one person lets in nobody else.
    NamedGuest,
    /// Who was removed comes back by an invite that knew of the removal.
    InvitedSince,
    /// Of several that stand, the least privilege.
    LeastPrivilege,
    /// A cut is exact, and both signatures of a fork hold.
    ForkProof,
    /// An envelope's author might write where it says it stood.
    RoleAtHeads,
    /// Nobody steps back to a membership in which it might do more.
    HeadsMoveOn,
    /// What lies beyond a cut does not count by itself.
    Cut,
    /// Of two envelopes for one place at most one counts.
    OneBranch,
    /// Nothing counts that was built on what does not.
    ClosedSet,
}

impl OpSet {
    /// Whether both signatures of an admission hold. A search does not sign, and says so.
    pub(super) fn admits(&self, admission: &crate::knock::Admission, invite_key: &[u8; 32]) -> bool {
        #[cfg(test)]
        if self.unsigned {
            return true;
        }
        admission.verify(&self.workspace(), invite_key).is_ok()
    }
    /// Always.
    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "in tests it is the set that lacks a defence")]
    pub(super) fn defends(&self, _defence: Defence) -> bool {
        true
    }
    #[cfg(test)]
    pub(super) fn defends(&self, defence: Defence) -> bool {
        self.lacks != Some(defence)
    }
}
