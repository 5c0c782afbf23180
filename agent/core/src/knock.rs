//! How a joiner gets in: it knocks, a member answers with everything it needs, sealed to it.
//!
//! Both ways are HPKE in PSK mode with the link's pre-shared key: the knock to the link's X25519 key, the answer to the
//! joiner's reply key. Invariant: a joiner accepts only the workspace whose id the link carries, with a history that
//! contains every op the link names, in which its own device is active. Spec: docs/sealing.md#knock.

mod admission;
mod answer;
mod refusal;
mod request;

pub use crate::history::{ANSWER_BYTES_MAX, ANSWER_PARTS_MAX};
pub use admission::{ADMISSION_BYTES_MAX, Admission};
pub use answer::{Answer, AnswerError, AnswerOpener, ReplyKey, make_answer};
pub use refusal::{Refusal, make_refusal, open_refusal};
pub use request::JoinRequest;

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, Decoded, Reader, Wire, Writer};

use crate::envelope::{DirectKind, DirectScope, Sealed, open_scoped, seal_scoped};
use crate::id::{OpId, WorkspaceId};
use crate::identity::LocalIdentity;
use crate::invite::KnockKeys;
use crate::invite_link::InviteLink;
use crate::membership::Invite;
use crate::wrap::{Psk, is_sound_kem_key, kem_public};

/// Why a knock was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnockError {
    /// Not a knock on this link: somebody else's, or noise.
    #[error("not a knock on this invite")]
    NotAKnock,
    /// It opens, but what it says is malformed or for another invite.
    #[error("a knock is malformed")]
    Malformed,
    /// The admission is not signed by the link's key and the device's.
    #[error("a knock's admission has a wrong signature")]
    BadSignature,
}

/// A knock that opened and whose admission is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// For the welcome op.
    pub admission: Admission,
    /// Where to seal the answer to.
    pub reply_key: [u8; 32],
}

struct Body {
    admission: Admission,
    reply_key: [u8; 32],
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.admission).bytes(&self.reply_key);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "knock")?;
        Ok(Self { admission: reader.item()?, reply_key: reader.item()? })
    }
}

/// Seals a knock on this link; publish it in the room of `link.keys().knock.room`. About 0.2 ms.
#[must_use]
pub fn make_knock(
    link: &InviteLink,
    identity: &LocalIdentity,
    reply: &ReplyKey,
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    let keys = link.keys();
    let admission = Admission::make(&link.workspace, link.invite(), &keys.sign, identity);
    let invite = link.invite();
    let body = cbor::to_bytes(&Body { admission, reply_key: reply.public() });
    let psk = Some(Psk { key: &keys.knock.psk, id: &invite.0 });
    let scope = DirectScope { label: "knock", workspace: &link.workspace, psk };
    seal_scoped(&scope, DirectKind::Knock, &kem_public(&keys.knock.kem), &body, rng)
}

/// Opens a knock on this invite, with its keys ([`KnockKeys::new`] of the invite's knock secret). Whether to welcome is
/// the caller's to judge ([`Invite::is_usable`], approval, role).
pub fn open_knock(
    workspace: &WorkspaceId,
    id: OpId,
    invite: &Invite,
    keys: &KnockKeys,
    bytes: &[u8],
) -> Result<Knock, KnockError> {
    let scope = DirectScope { label: "knock", workspace, psk: Some(Psk { key: &keys.psk, id: &id.0 }) };
    let (kind, message) = open_scoped(&scope, &keys.kem, bytes).map_err(|_| KnockError::NotAKnock)?;
    if kind != DirectKind::Knock {
        return Err(KnockError::NotAKnock);
    }
    let body: Body = cbor::from_bytes(&message).map_err(|_| KnockError::Malformed)?;
    if body.admission.invite() != id || !is_sound_kem_key(&body.reply_key) {
        return Err(KnockError::Malformed);
    }
    body.admission.verify(workspace, &invite.sign).map_err(|_| KnockError::BadSignature)?;
    Ok(Knock { admission: body.admission, reply_key: body.reply_key })
}
