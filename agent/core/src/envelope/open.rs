//! Opening an envelope, in three steps that cannot be skipped: [`open_head`] (who says it is from whom), then
//! [`OpenHead::verify`] (it is), then [`VerifiedHead::open_body`].
//!
//! Invariant: lengths are checked before anything is decrypted, and nothing of a header is acted on before its signature.
//! Spec: docs/sealing.md#opening.

use subtle::ConstantTimeEq;
use weft_protocol::cbor::DecodeError;

use super::header::{HEADER_BYTES_MAX, HEADER_MULTIPLE, Header, split_padded};
use super::seal::body_subkey;
use super::{BODY_AAD_LEN, BODY_BYTES_MAX, Class, ENVELOPE_BYTES_MAX, OUTER_LEN, PREAMBLE_LEN};
use crate::cipher::{self, TAG_LEN};
use crate::hash;
use crate::id::{Link, WorkspaceId};
use crate::identity::DevicePublic;
use crate::keyring::Keyring;
use crate::op::{FORMAT_VERSION, SUITE};
use crate::padding::is_padded_len;
use crate::payload::{self, PayloadError};
use crate::sign::{self, Context, SIGNATURE_LEN};

/// Why an envelope was refused, or cannot be opened yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Longer than the format allows.
    #[error("an envelope is longer than the format allows")]
    TooLarge,
    /// Sealed by another version of the format.
    #[error("an envelope is of format {0}: this weft speaks format 0, upgrade the older side")]
    Version(u8),
    /// Not an envelope: another class, or a length that padding does not give.
    #[error("not an envelope")]
    NotAnEnvelope,
    /// Under an epoch that is not held: park it, and ask for the key packet.
    #[error("an envelope is under an epoch that this device does not hold")]
    UnknownEpoch,
    /// The seal is broken: changed on the way, or of another workspace.
    #[error("an envelope's seal is broken")]
    BrokenSeal,
    /// The header inside is malformed.
    #[error("an envelope's header is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The header names another epoch, class or body than it came with: its author is to blame.
    #[error("an envelope's header does not match its envelope")]
    Mismatch,
    /// Not signed by the device it names.
    #[error("an envelope has a wrong signature")]
    BadSignature,
    /// The body is sealed under C, which a keeper does not hold.
    #[error("this device holds no content key")]
    NoContentKey,
    /// A kind that this program does not know.
    #[error("an envelope is of a kind this weft does not know: upgrade weft")]
    UnknownKind,
    /// The body inside is malformed.
    #[error("an envelope's body is refused: {0}")]
    Payload(#[from] PayloadError),
}

/// A header that was decrypted, and whose body hash is right; nothing is proven about its author yet.
#[derive(Debug, Clone)]
pub struct OpenHead {
    /// What it claims.
    pub header: Header,
    /// What the next envelope of the chain names.
    pub link: Link,
    /// The nonce: unique to this envelope.
    pub nonce: [u8; 24],
    workspace: WorkspaceId,
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
}

/// A header signed by the device it names.
#[derive(Debug, Clone)]
pub struct VerifiedHead {
    head: OpenHead,
}

struct Parts<'a> {
    preamble_to_nonce: &'a [u8],
    outer: &'a [u8],
    tag: [u8; 4],
    nonce: [u8; 24],
    commitment: [u8; 16],
    head: &'a [u8],
    body: &'a [u8],
    class: Class,
}

fn split(bytes: &[u8]) -> Result<Parts<'_>, OpenError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(OpenError::TooLarge);
    }
    let (preamble, rest) = bytes.split_first_chunk::<PREAMBLE_LEN>().ok_or(OpenError::NotAnEnvelope)?;
    let [version, suite, _] = *preamble;
    if version != FORMAT_VERSION || suite != SUITE {
        return Err(OpenError::Version(version));
    }
    let class = match Class::of(bytes) {
        Some(class @ (Class::Stored | Class::Ephemeral)) if is_padded_len(bytes.len()) => class,
        _ => return Err(OpenError::NotAnEnvelope),
    };
    let (tag, rest) = rest.split_first_chunk::<4>().ok_or(OpenError::NotAnEnvelope)?;
    let (nonce, rest) = rest.split_first_chunk::<24>().ok_or(OpenError::NotAnEnvelope)?;
    let (commitment, rest) = rest.split_first_chunk::<16>().ok_or(OpenError::NotAnEnvelope)?;
    let (hlen, rest) = rest.split_first_chunk::<2>().ok_or(OpenError::NotAnEnvelope)?;
    let head_len = usize::from(u16::from_be_bytes(*hlen));
    let plain_len = head_len.checked_sub(TAG_LEN).ok_or(OpenError::NotAnEnvelope)?;
    if plain_len == 0 || plain_len > HEADER_BYTES_MAX || !plain_len.is_multiple_of(HEADER_MULTIPLE) {
        return Err(OpenError::NotAnEnvelope);
    }
    let (head, body) = rest.split_at_checked(head_len).ok_or(OpenError::NotAnEnvelope)?;
    let preamble_to_nonce = bytes.get(..BODY_AAD_LEN).ok_or(OpenError::NotAnEnvelope)?;
    let outer = bytes.get(..OUTER_LEN).ok_or(OpenError::NotAnEnvelope)?;
    Ok(Parts { preamble_to_nonce, outer, tag: *tag, nonce: *nonce, commitment: *commitment, head, body, class })
}

/// Opens the header under whichever held epoch its tag names, and checks the body's hash.
pub fn open_head(workspace: &WorkspaceId, keyring: &Keyring, bytes: &[u8]) -> Result<OpenHead, OpenError> {
    let parts = split(bytes)?;
    let aad = [parts.outer, &workspace.0].concat();
    let mut failure = OpenError::UnknownEpoch;
    for epoch in keyring.by_tag_all(&parts.nonce, &parts.tag) {
        let (key, commitment) = hash::message_key(&epoch.keys.head, &parts.nonce);
        failure = OpenError::BrokenSeal;
        if !bool::from(commitment.ct_eq(&parts.commitment)) {
            continue;
        }
        let Some(plain) = cipher::open_once(&key, &aad, parts.head) else { continue };
        let (header, signed, signature) = split_padded(&plain)?;
        let body_hash: [u8; 32] = blake3::hash(parts.body).into();
        if header.epoch != epoch.id() || header.kind.class() != parts.class || header.body_hash != body_hash {
            return Err(OpenError::Mismatch);
        }
        return Ok(OpenHead {
            link: Header::link(workspace, &parts.nonce, signed),
            header,
            nonce: parts.nonce,
            workspace: *workspace,
            signed: signed.to_vec(),
            signature,
        });
    }
    Err(failure)
}

impl OpenError {
    /// A few words that name the kind of fault, for counting.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            OpenError::TooLarge => "oversized envelope",
            OpenError::Version(_) => "envelope of another format",
            OpenError::NotAnEnvelope => "not an envelope",
            OpenError::UnknownEpoch => "unknown epoch",
            OpenError::BrokenSeal => "broken seal",
            OpenError::Malformed(_) => "malformed header",
            OpenError::Mismatch => "header does not match its envelope",
            OpenError::BadSignature => "bad signature",
            OpenError::NoContentKey => "no content key",
            OpenError::UnknownKind => "unknown kind",
            OpenError::Payload(_) => "malformed body",
        }
    }
}

impl OpenHead {
    /// Checks the signature against the device's keys as the membership knows them. About 40 µs; may run on any thread.
    pub fn verify(self, device: &DevicePublic) -> Result<VerifiedHead, OpenError> {
        if device.id() != self.header.chain.device {
            return Err(OpenError::BadSignature);
        }
        sign::verify(&device.sign, Context::Envelope, &self.workspace, &[&self.nonce, &self.signed], &self.signature)
            .map_err(|_| OpenError::BadSignature)?;
        Ok(VerifiedHead { head: self })
    }
    /// For what was verified before it was stored, and for ops, which are signed by themselves: skips the signature.
    #[must_use]
    pub(crate) fn trust_stored(self) -> VerifiedHead {
        VerifiedHead { head: self }
    }
    /// nonce ‖ header ‖ signature: one half of a fork's proof.
    #[must_use]
    pub fn signed_header(&self) -> Vec<u8> {
        [self.nonce.as_slice(), &self.signed, &self.signature].concat()
    }
}

impl VerifiedHead {
    /// What it says.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.head.header
    }
    /// What the next envelope of the chain names.
    #[must_use]
    pub fn link(&self) -> Link {
        self.head.link
    }
    /// The opened head.
    #[must_use]
    pub fn head(&self) -> &OpenHead {
        &self.head
    }
    /// Opens the body of the same envelope bytes.
    pub fn open_body(&self, keyring: &Keyring, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        let parts = split(bytes)?;
        let header = &self.head.header;
        let key = header.kind.body_key().ok_or(OpenError::UnknownKind)?;
        let epoch = keyring.get(&header.epoch).ok_or(OpenError::UnknownEpoch)?;
        let subkey = body_subkey(epoch, key).ok_or(OpenError::NoContentKey)?;
        if parts.nonce != self.head.nonce {
            return Err(OpenError::Mismatch);
        }
        let (key, _) = hash::message_key(subkey, &parts.nonce);
        let aad = [parts.preamble_to_nonce, &self.head.workspace.0].concat();
        // The AEAD binds these bytes to the nonce that the signature covers; the hash was checked with the head.
        let packed = cipher::open_once(&key, &aad, parts.body).ok_or(OpenError::BrokenSeal)?;
        Ok(payload::unpack(&packed, BODY_BYTES_MAX)?)
    }
}

/// Checks one half of a fork's proof, nonce ‖ header ‖ signature, against a device's keys; gives header and link.
pub fn verify_signed_header(
    workspace: &WorkspaceId,
    device: &DevicePublic,
    bytes: &[u8],
) -> Result<(Header, Link), OpenError> {
    if bytes.len() > crate::op::SIGNED_HEADER_BYTES_MAX {
        return Err(OpenError::TooLarge);
    }
    let (nonce, rest) = bytes.split_first_chunk::<24>().ok_or(OpenError::NotAnEnvelope)?;
    let (signed, signature) = sign::split_signature(rest).ok_or(OpenError::NotAnEnvelope)?;
    let header: Header = weft_protocol::cbor::from_bytes(signed)?;
    if device.id() != header.chain.device {
        return Err(OpenError::BadSignature);
    }
    sign::verify(&device.sign, Context::Envelope, workspace, &[nonce, signed], &signature)
        .map_err(|_| OpenError::BadSignature)?;
    Ok((header, Header::link(workspace, nonce, signed)))
}
