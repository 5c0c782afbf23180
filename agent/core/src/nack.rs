//! A device says, signed, that a slot of a key packet opened to something else than the epoch's op commits to.
//!
//! [1, epoch16, complaining device16, handing device16, BLAKE3(packet)] ‖ sig64, context `nack`, scope the workspace; travels
//! to-device, type 4. Invariant: it proves who complains, not that the complaint is true: what a slot held only its
//! recipient can tell. Why sign it at all: only those who belong are answered, and a member who cries wolf is named.
//! Spec: docs/sealing.md#nack.

use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::{DeviceId, EpochId, WorkspaceId};
use crate::identity::DeviceKeys;
use crate::sign::{self, BadSignature, Context};

/// Longest NACK, in bytes.
pub const NACK_BYTES_MAX: usize = 256;

/// A decoded NACK; valid once [`Nack::verify`] said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    body: Body,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    epoch: EpochId,
    device: DeviceId,
    from: DeviceId,
    packet: [u8; 32],
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).uint(1).item(&self.epoch).item(&self.device).item(&self.from).bytes(&self.packet);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "NACK")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("NACK version"));
        }
        Ok(Self { epoch: reader.item()?, device: reader.item()?, from: reader.item()?, packet: reader.item()? })
    }
}

impl Nack {
    /// Signs that this packet of an epoch, handed on by `from`, did not hold for us what its op commits to.
    #[must_use]
    pub fn make(workspace: &WorkspaceId, keys: &DeviceKeys, epoch: EpochId, from: DeviceId, packet: &[u8]) -> Self {
        let body = Body { epoch, device: keys.id(), from, packet: *blake3::hash(packet).as_bytes() };
        let mut bytes = cbor::to_bytes(&body);
        let signature = sign::sign(keys.signing_key(), Context::Nack, workspace, &[&bytes]);
        bytes.extend_from_slice(&signature);
        Self { body, bytes }
    }
    /// Decodes; checks no signature yet.
    pub fn parse(bytes: &[u8]) -> Decoded<Self> {
        if bytes.len() > NACK_BYTES_MAX {
            let (len, max) = (bytes.len() as u64, NACK_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "NACK", len, max });
        }
        let (signed, _) = sign::split_signature(bytes).ok_or(DecodeError::Malformed("truncated"))?;
        Ok(Self { body: cbor::from_bytes(signed)?, bytes: bytes.to_vec() })
    }
    /// Checks the signature with the complaining device's key.
    pub fn verify(&self, workspace: &WorkspaceId, key: &[u8; 32]) -> Result<(), BadSignature> {
        let (signed, signature) = sign::split_signature(&self.bytes).ok_or(BadSignature)?;
        sign::verify(key, Context::Nack, workspace, &[signed], &signature)
    }
    /// As it travels.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The epoch whose packet it was.
    #[must_use]
    pub fn epoch(&self) -> EpochId {
        self.body.epoch
    }
    /// Who complains.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.body.device
    }
    /// Who handed it the packet.
    #[must_use]
    pub fn from(&self) -> DeviceId {
        self.body.from
    }
    /// BLAKE3 of the packet.
    #[must_use]
    pub fn packet(&self) -> &[u8; 32] {
        &self.body.packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// A NACK is its device's, in its workspace, and no byte of it can be changed.
    #[test]
    fn a_nack_is_signed() {
        let (workspace, keys) = (WorkspaceId([1; 32]), DeviceKeys::from_seed(&Secret::new([2; 32])));
        let nack = Nack::make(&workspace, &keys, EpochId([3; 16]), DeviceId([4; 16]), b"packet");
        let key = keys.public().sign;
        assert_eq!(Nack::parse(nack.bytes()), Ok(nack.clone()));
        assert!(nack.verify(&workspace, &key).is_ok());
        assert!(nack.verify(&WorkspaceId([9; 32]), &key).is_err());
        for at in 0..nack.bytes().len() {
            let mut bytes = nack.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Nack::parse(&bytes).is_err() || Nack::parse(&bytes).unwrap().verify(&workspace, &key).is_err());
            assert!(Nack::parse(&bytes[..at]).is_err());
        }
    }
}
