//! What an agent knows of itself, as a protected file keeps it. Spec: docs/sealing.md#identity.

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};
use zeroize::Zeroizing;

use super::cert::DeviceCert;
use super::device::DeviceKeys;
use super::name::{clean_name, read_name};
use super::root::{RootPublic, RootSecret};
use crate::secret::Secret;

/// Why an identity file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not an identity, or one of another version.
    #[error("the identity file is damaged or of another version: {0}")]
    Malformed(#[from] DecodeError),
    /// Its parts belong to different identities.
    #[error("the identity file mixes keys of different identities")]
    Mismatch,
}

/// Who this agent is.
#[derive(Debug, Clone)]
pub struct LocalIdentity {
    /// The root secret, while this device still has it.
    pub root: Option<RootSecret>,
    /// The member.
    pub root_public: RootPublic,
    /// The device.
    pub device: DeviceKeys,
    /// That the device is the member's.
    pub cert: DeviceCert,
    /// The member's display name.
    pub name: String,
    /// The device's label.
    pub label: String,
}

impl LocalIdentity {
    /// A new member with its first device. Names are cleaned and cut to 64 bytes.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng, name: &str, label: &str) -> Self {
        Self::for_root(RootSecret::generate(rng), rng, name, label)
    }
    /// A new device of the member whose words these are.
    #[must_use]
    pub fn for_root(root: RootSecret, rng: &mut dyn CryptoRng, name: &str, label: &str) -> Self {
        let device = DeviceKeys::generate(rng);
        let cert = DeviceCert::by_root(&root, device.public());
        let root_public = root.public();
        Self { root: Some(root), root_public, device, cert, name: clean_name(name), label: clean_name(label) }
    }
    /// A new device that another device of some member is about to certify: it belongs to nobody yet, and nobody knows the
    /// words of the member that its certificate names.
    #[must_use]
    pub fn provisional(rng: &mut dyn CryptoRng, name: &str, label: &str) -> Self {
        Self { root: None, ..Self::generate(rng, name, label) }
    }
    /// The same with the root secret at hand, for what only that can do, and with the root's own certificate. `None` if
    /// the secret is another member's.
    #[must_use]
    pub fn with_root(&self, root: RootSecret) -> Option<Self> {
        let same = root.public() == self.root_public;
        same.then(|| Self { cert: DeviceCert::by_root(&root, self.device.public()), root: Some(root), ..self.clone() })
    }
    /// The same as a device of the member that certified it. `None` if the certificate is another device's.
    #[must_use]
    pub fn certified(&self, cert: DeviceCert, name: &str) -> Option<Self> {
        let (same, root_public) = (cert.device() == self.device.public(), cert.root());
        let root = self.root.clone().filter(|root| root.public() == root_public);
        same.then(|| Self { root, root_public, cert, name: clean_name(name), ..self.clone() })
    }
    /// For a file that only its owner can read: holds the secrets.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(cbor::to_bytes(&Stored {
            entropy: self.root.as_ref().map(|root| root.entropy().clone()),
            seed: self.device.seed().clone(),
            cert: self.cert.clone(),
            name: self.name.clone(),
            label: self.label.clone(),
        }))
    }
    /// The reverse of [`LocalIdentity::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let stored: Stored = cbor::from_bytes(bytes)?;
        let root = stored.entropy.as_ref().map(RootSecret::from_entropy);
        let device = DeviceKeys::from_seed(&stored.seed);
        let root_public = stored.cert.root();
        if stored.cert.device() != device.public() || root.as_ref().is_some_and(|root| root.public() != root_public) {
            return Err(IdentityError::Mismatch);
        }
        Ok(Self { root, root_public, device, cert: stored.cert, name: stored.name, label: stored.label })
    }
}

struct Stored {
    entropy: Option<Secret>,
    seed: Secret,
    cert: DeviceCert,
    name: String,
    label: String,
}

impl Wire for Stored {
    fn encode(&self, writer: &mut Writer) {
        writer.array(6).uint(1);
        match &self.entropy {
            Some(entropy) => writer.bytes(entropy.expose()),
            None => writer.null(),
        };
        writer.bytes(self.seed.expose()).item(&self.cert).text(&self.name).text(&self.label);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(6, "identity")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("identity version"));
        }
        let entropy = reader.optional::<[u8; 32]>()?.map(Secret::new);
        let seed = Secret::new(reader.item()?);
        Ok(Self { entropy, seed, cert: reader.item()?, name: read_name(reader)?, label: read_name(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// An identity survives its file, with and without its root; parts of two identities are refused.
    #[test]
    fn survives_its_file() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let mut identity = LocalIdentity::generate(&mut rng, "Ada", "laptop");
        let other = LocalIdentity::generate(&mut rng, "Bob", "desk");
        for _ in 0..2 {
            let back = LocalIdentity::from_bytes(&identity.to_bytes()).unwrap();
            assert_eq!(back.root_public, identity.root_public);
            assert_eq!(back.device.public(), identity.device.public());
            assert_eq!((back.name.as_str(), back.label.as_str()), ("Ada", "laptop"));
            assert_eq!(back.root.is_some(), identity.root.is_some());
            identity.root = None;
        }
        identity.cert = other.cert;
        assert_eq!(LocalIdentity::from_bytes(&identity.to_bytes()).unwrap_err(), IdentityError::Mismatch);
        assert!(LocalIdentity::from_bytes(&[0x86]).is_err());
    }

    /// A provisional device becomes one of the member that certifies it, and of no other; the words of another member are
    /// not taken for its own.
    #[test]
    fn a_device_takes_its_own_certificate_only() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let ada = LocalIdentity::generate(&mut rng, "Ada", "laptop");
        let phone = LocalIdentity::provisional(&mut rng, "someone", "phone");
        assert!(phone.root.is_none() && phone.root_public != ada.root_public);
        let cert = DeviceCert::by_device(&ada.device, ada.root_public, phone.device.public());
        assert!(ada.certified(cert.clone(), "Ada").is_none(), "another device's certificate");
        let phone = phone.certified(cert, "Ada").unwrap();
        assert_eq!((phone.root_public, phone.name.as_str(), phone.label.as_str()), (ada.root_public, "Ada", "phone"));
        assert!(LocalIdentity::from_bytes(&phone.to_bytes()).unwrap().root.is_none());
        let whole = phone.with_root(ada.root.clone().unwrap()).unwrap();
        assert_eq!(whole.cert.certifier(), crate::identity::Certifier::Root);
        assert_eq!(whole.device.id(), phone.device.id());
        let other = LocalIdentity::generate(&mut rng, "Bob", "desk");
        assert!(phone.with_root(other.root.unwrap()).is_none());
    }
}
