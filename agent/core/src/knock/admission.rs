//! What a joiner asks to be admitted as: signed by its device, then by the link's key.
//!
//! [1, invite32, certificate, member name, device label] ‖ device signature ‖ invite signature (over all before it).
//! The device's signature proves that it wants in; the link's that it was asked. Spec: docs/sealing.md#admission.

use ed25519_dalek::SigningKey;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::{OpId, WorkspaceId};
use crate::identity::{DeviceCert, LocalIdentity, clean_name, read_name};
use crate::sign::{self, BadSignature, Context};

/// Longest admission, in bytes.
pub const ADMISSION_BYTES_MAX: usize = 1024;

/// A decoded admission; valid once [`Admission::verify`] said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    bytes: Vec<u8>,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    invite: OpId,
    cert: DeviceCert,
    name: String,
    label: String,
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).uint(1).item(&self.invite).item(&self.cert).text(&self.name).text(&self.label);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "admission")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("admission version"));
        }
        Ok(Self { invite: reader.item()?, cert: reader.item()?, name: read_name(reader)?, label: read_name(reader)? })
    }
}

impl Admission {
    /// Signs for this identity with the link's key.
    #[must_use]
    pub fn make(workspace: &WorkspaceId, invite: OpId, key: &SigningKey, identity: &LocalIdentity) -> Self {
        let (name, label) = (clean_name(&identity.name), clean_name(&identity.label));
        let body = Body { invite, cert: identity.cert.clone(), name, label };
        let mut bytes = cbor::to_bytes(&body);
        let by_device = sign::sign(identity.device.signing_key(), Context::Admit, workspace, &[&bytes]);
        bytes.extend_from_slice(&by_device);
        let by_link = sign::sign(key, Context::Admit, workspace, &[&bytes]);
        bytes.extend_from_slice(&by_link);
        Self { bytes, body }
    }
    /// Of nobody's hand: for a search that asks what membership makes of it.
    #[cfg(test)]
    pub(crate) fn unsigned(invite: OpId, identity: &LocalIdentity) -> Self {
        let (name, label) = (clean_name(&identity.name), clean_name(&identity.label));
        Self { bytes: Vec::new(), body: Body { invite, cert: identity.cert.clone(), name, label } }
    }
    /// Decodes; checks the certificate but not yet the two signatures.
    pub fn parse(bytes: &[u8]) -> Decoded<Self> {
        if bytes.len() > ADMISSION_BYTES_MAX {
            let (len, max) = (bytes.len() as u64, ADMISSION_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "admission", len, max });
        }
        let len = bytes.len().checked_sub(2 * sign::SIGNATURE_LEN).ok_or(DecodeError::Malformed("truncated"))?;
        let unsigned = bytes.get(..len).ok_or(DecodeError::Malformed("truncated"))?;
        Ok(Self { bytes: bytes.to_vec(), body: cbor::from_bytes(unsigned)? })
    }
    /// Checks both signatures: the device's own, and the link's, whose public key the invite op names.
    pub fn verify(&self, workspace: &WorkspaceId, invite_key: &[u8; 32]) -> Result<(), BadSignature> {
        let (by_device, link) = sign::split_signature(&self.bytes).ok_or(BadSignature)?;
        let (unsigned, device) = sign::split_signature(by_device).ok_or(BadSignature)?;
        sign::verify(invite_key, Context::Admit, workspace, &[by_device], &link)?;
        sign::verify(&self.body.cert.device().sign, Context::Admit, workspace, &[unsigned], &device)
    }
    /// As it travels.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// By which invite.
    #[must_use]
    pub fn invite(&self) -> OpId {
        self.body.invite
    }
    /// Member and device.
    #[must_use]
    pub fn cert(&self) -> &DeviceCert {
        &self.body.cert
    }
    /// The member's display name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.body.name
    }
    /// The device's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.body.label
    }
}

impl Wire for Admission {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.bytes);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        Self::parse(reader.bytes_up_to(ADMISSION_BYTES_MAX, "admission")?)
    }
}
