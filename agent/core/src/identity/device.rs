//! A device's keys, all from one seed.
//!
//! HKDF-SHA256(salt `weft/v1/device`, ikm seed, info `weft/v1/sign`, `weft/v1/kem`, `weft/v1/relay` ‖ audience).
//! Spec: docs/sealing.md#device.

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};
use weft_protocol::id::RelayDevice;

use crate::hash;
use crate::id::DeviceId;
use crate::secret::Secret;
use crate::sign::is_sound_key;
use crate::wrap::{is_sound_kem_key, kem_public};

/// A device's secret keys.
#[derive(Clone)]
pub struct DeviceKeys {
    seed: Secret,
    sign: SigningKey,
    kem: Secret,
    public: DevicePublic,
    id: DeviceId,
}

impl DeviceKeys {
    /// A new device.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::from_seed(&Secret::random(rng))
    }
    /// The device that this seed is.
    #[must_use]
    pub fn from_seed(seed: &Secret) -> Self {
        let derive = |info: &[&[u8]]| Self::derive_from(seed, info);
        let sign = SigningKey::from_bytes(derive(&[b"sign"]).expose());
        let kem = derive(&[b"kem"]);
        let public = DevicePublic { sign: sign.verifying_key().to_bytes(), kem: kem_public(&kem) };
        Self { seed: seed.clone(), sign, kem, public, id: public.id() }
    }
    fn derive_from(seed: &Secret, info: &[&[u8]]) -> Secret {
        hash::derive(format!("{}device", hash::PREFIX).as_bytes(), seed.expose(), info)
    }
    /// The seed, for a protected file.
    #[must_use]
    pub fn seed(&self) -> &Secret {
        &self.seed
    }
    /// The public half.
    #[must_use]
    pub fn public(&self) -> DevicePublic {
        self.public
    }
    /// The device's name in the workspace.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }
    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.sign
    }
    /// The X25519 secret that opens key packets.
    #[must_use]
    pub fn kem_secret(&self) -> &Secret {
        &self.kem
    }
    /// The pseudonym that the relay of this audience (lower-case host:port) knows this device by; unlinkable between
    /// audiences.
    #[must_use]
    pub fn relay_pseudonym(&self, audience: &str) -> SigningKey {
        SigningKey::from_bytes(Self::derive_from(&self.seed, &[b"relay", audience.as_bytes()]).expose())
    }
    /// The 16 bytes that are stable for the relay of this audience: the start of the hash of its pseudonym.
    #[must_use]
    pub fn relay_device(&self, audience: &str) -> RelayDevice {
        let public = self.relay_pseudonym(audience).verifying_key().to_bytes();
        RelayDevice(hash::first16(&hash::h("relay-device", &[&public])))
    }
}

impl core::fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A device's public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DevicePublic {
    /// Ed25519.
    pub sign: [u8; 32],
    /// X25519.
    pub kem: [u8; 32],
}

impl DevicePublic {
    /// H(device, signing key), its first 16 bytes.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(hash::first16(&hash::h("device", &[&self.sign])))
    }
}

impl Wire for DevicePublic {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).bytes(&self.sign).bytes(&self.kem);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "device keys")?;
        let device = Self { sign: reader.item()?, kem: reader.item()? };
        if !is_sound_key(&device.sign) || !is_sound_kem_key(&device.kem) {
            return Err(DecodeError::Invalid("device key"));
        }
        Ok(device)
    }
}
