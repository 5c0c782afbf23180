//! A device's certificate: [1, root, device keys, certifier type, certifier key] ‖ signature.
//!
//! Invariant: a [`DeviceCert`] that exists has a valid signature. Whether a certifying device was active at the time is
//! the membership's to judge. Spec: docs/sealing.md#certificate.

use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use super::device::{DeviceKeys, DevicePublic};
use super::root::{RootPublic, RootSecret};
use crate::id::DeviceId;
use crate::sign::{self, BadSignature, Context, NO_WORKSPACE};

/// Longest certificate, in bytes.
pub(crate) const CERT_BYTES_MAX: usize = 512;

/// Who certified a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certifier {
    /// The member's root key.
    Root,
    /// Another device of the member.
    Device(DeviceId),
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// Not a certificate.
    #[error("malformed device certificate: {0}")]
    Malformed(#[from] DecodeError),
    /// Not signed by whom it names.
    #[error("a device certificate has a wrong signature")]
    BadSignature(#[from] BadSignature),
}

/// A device's keys, signed over by its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCert {
    bytes: Vec<u8>,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    root: RootPublic,
    device: DevicePublic,
    by_device: bool,
    signer: [u8; 32],
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).uint(1).item(&self.root).item(&self.device);
        writer.uint(u64::from(self.by_device)).bytes(&self.signer);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "certificate")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("certificate version"));
        }
        let (root, device): (RootPublic, DevicePublic) = (reader.item()?, reader.item()?);
        let by_device = reader.uint_up_to(1, "certifier")? == 1;
        let signer = reader.item()?;
        // A root signs as itself, and no device certifies itself.
        if (!by_device && signer != root.sign.0) || (by_device && signer == device.sign) {
            return Err(DecodeError::Invalid("certifier"));
        }
        Ok(Self { root, device, by_device, signer })
    }
}

impl DeviceCert {
    /// The root certifies a device.
    #[must_use]
    pub fn by_root(root: &RootSecret, device: DevicePublic) -> Self {
        let public = root.public();
        Self::make(root.signing_key(), Body { root: public, device, by_device: false, signer: public.sign.0 })
    }
    /// A device certifies another of the same member.
    #[must_use]
    pub fn by_device(certifier: &DeviceKeys, root: RootPublic, device: DevicePublic) -> Self {
        let signer = certifier.public().sign;
        Self::make(certifier.signing_key(), Body { root, device, by_device: true, signer })
    }
    fn make(key: &ed25519_dalek::SigningKey, body: Body) -> Self {
        let mut bytes = cbor::to_bytes(&body);
        let signature = sign::sign(key, Context::Cert, &NO_WORKSPACE, &[&bytes]);
        bytes.extend_from_slice(&signature);
        Self { bytes, body }
    }
    /// Decodes and verifies.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertError> {
        if bytes.len() > CERT_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "certificate",
                len: bytes.len() as u64,
                max: CERT_BYTES_MAX as u64,
            }
            .into());
        }
        let (unsigned, signature) = sign::split_signature(bytes).ok_or(DecodeError::Malformed("truncated"))?;
        let body: Body = cbor::from_bytes(unsigned)?;
        sign::verify(&body.signer, Context::Cert, &NO_WORKSPACE, &[unsigned], &signature)?;
        Ok(Self { bytes: bytes.to_vec(), body })
    }
    /// As it travels.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The member.
    #[must_use]
    pub fn root(&self) -> RootPublic {
        self.body.root
    }
    /// The device.
    #[must_use]
    pub fn device(&self) -> DevicePublic {
        self.body.device
    }
    /// Who signed.
    #[must_use]
    pub fn certifier(&self) -> Certifier {
        if self.body.by_device {
            Certifier::Device(DevicePublic { sign: self.body.signer, kem: [0; 32] }.id())
        } else {
            Certifier::Root
        }
    }
}

impl Wire for DeviceCert {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.bytes);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let bytes = reader.bytes_up_to(CERT_BYTES_MAX, "certificate")?;
        Self::parse(bytes).map_err(|error| match error {
            CertError::Malformed(error) => error,
            CertError::BadSignature(_) => DecodeError::Invalid("certificate signature"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// Every flipped bit and every shorter piece of a certificate is refused.
    #[test]
    fn a_changed_certificate_is_refused() {
        let root = RootSecret::from_entropy(&Secret::new([1; 32]));
        let device = DeviceKeys::from_seed(&Secret::new([2; 32]));
        let cert = DeviceCert::by_root(&root, device.public());
        assert_eq!(DeviceCert::parse(cert.bytes()), Ok(cert.clone()));
        assert_eq!(cert.certifier(), Certifier::Root);
        for at in 0..cert.bytes().len() {
            let mut bytes = cert.bytes().to_vec();
            bytes[at] ^= 1 << (at % 8);
            assert!(DeviceCert::parse(&bytes).is_err());
            assert!(DeviceCert::parse(&bytes[..at]).is_err());
        }
        let second = DeviceKeys::from_seed(&Secret::new([3; 32]));
        let by_device = DeviceCert::by_device(&device, root.public(), second.public());
        assert_eq!(DeviceCert::parse(by_device.bytes()).unwrap().certifier(), Certifier::Device(device.id()));
    }
}
