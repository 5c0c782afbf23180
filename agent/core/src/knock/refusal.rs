//! What a joiner is told who is not let in, or not yet.
//!
//! To-device, type 6, one byte. Invariant: it proves only that a holder of the invite's knock key said so, hence the joiner
//! tells its person and goes on knocking. Spec: docs/sealing.md#refusal.

use rand_core::CryptoRng;

use super::ReplyKey;
use super::answer::scope;
use crate::envelope::{DirectKind, Sealed, open_byte, seal_scoped};
use crate::id::{OpId, WorkspaceId};
use crate::invite::KnockKeys;
use crate::invite_link::InviteLink;

/// Why whoever answered did not let the joiner in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The invite was revoked, or its issuer is gone.
    Revoked = 1,
    /// Its time is over.
    Expired = 2,
    /// As many joined by it as may.
    UsedUp = 3,
    /// Not refused: an admin has to decide.
    Waiting = 4,
    /// An admin said no.
    Denied = 5,
    /// The link lets in somebody else alone.
    NotForYou = 6,
    /// The joiner was removed, and the link is older than that.
    BeforeRemoval = 7,
    /// Too many others wait to be let in.
    Crowded = 8,
    /// The joiner's device was revoked by its owner.
    DeviceRevoked = 9,
    /// The joiner's keys contradict what the members know of that person.
    OtherKeys = 10,
}

impl Refusal {
    const ALL: [Refusal; 10] = [
        Refusal::Revoked,
        Refusal::Expired,
        Refusal::UsedUp,
        Refusal::Waiting,
        Refusal::Denied,
        Refusal::NotForYou,
        Refusal::BeforeRemoval,
        Refusal::Crowded,
        Refusal::DeviceRevoked,
        Refusal::OtherKeys,
    ];

    /// Of the byte it travels as.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == byte)
    }

    /// What to tell the joiner.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Refusal::Revoked => "This link was revoked, or whoever made it may not invite any more. Ask for a new one.",
            Refusal::Expired => "This link has expired. Ask for a new one.",
            Refusal::UsedUp => {
                "This link was used as often as it may be. If it was not you, tell whoever gave it to you: it is a key. Ask \
                 for a new one."
            }
            Refusal::Waiting => "An admin or owner has to let you in.",
            Refusal::Denied => "An admin decided not to let you in.",
            Refusal::NotForYou => "This link was made for somebody else. Ask for one of your own.",
            Refusal::BeforeRemoval => "You were removed, and this link is older than that. Ask for a new one.",
            Refusal::Crowded => "Too many others wait to be let in by this link. Ask for one of your own.",
            Refusal::DeviceRevoked => {
                "This device was revoked, and no link brings it back. The 24 words of whom it belongs to do, with a pass made \
                 since: weft identity recover PASS DIR --merge."
            }
            Refusal::OtherKeys => {
                "Your keys contradict what the members know of you. Ask them to look at `weft members`."
            }
        }
    }
}

/// Seals a refusal to the joiner.
#[must_use]
pub fn make_refusal(
    workspace: &WorkspaceId,
    id: OpId,
    keys: &KnockKeys,
    reply_key: &[u8; 32],
    refusal: Refusal,
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    seal_scoped(&scope(workspace, keys, &id), DirectKind::Refusal, reply_key, &[refusal as u8], rng)
}

/// Opens a refusal of our knock on this link; `None` if it is anything else.
#[must_use]
pub fn open_refusal(link: &InviteLink, reply: &ReplyKey, bytes: &[u8]) -> Option<Refusal> {
    let (keys, invite) = (link.keys().knock, link.invite());
    let scope = scope(&link.workspace, &keys, &invite);
    open_byte(&scope, DirectKind::Refusal, reply.secret(), bytes).and_then(Refusal::from_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason has a byte of its own and says what to do; no other byte is a reason.
    #[test]
    fn every_reason_has_its_byte() {
        let known: Vec<u8> = (0..=255).filter(|byte| Refusal::from_byte(*byte).is_some()).collect();
        assert_eq!(known, (1..=10).collect::<Vec<u8>>());
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_byte(refusal as u8), Some(refusal));
            assert!(refusal.advice().ends_with('.'));
        }
    }
}
