//! The secret in an invite link, and the keys derived from it one way.
//!
//! HKDF-SHA256, salt workspace: secret -> sign, knock; knock -> psk, kem, room. The invite op carries the knock secret, so
//! members open knocks; only the link's holder can sign the admission. Spec: docs/sealing.md#invites.

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;

use crate::epoch::RoomKey;
use crate::hash;
use crate::id::WorkspaceId;
use crate::secret::Secret;

/// The 32 bytes in a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteSecret(Secret);

/// What a link's holder can do.
#[derive(Debug, Clone)]
pub struct InviteKeys {
    /// Signs admissions.
    pub sign: SigningKey,
    /// Meets members, who hold these keys too.
    pub knock: KnockKeys,
}

/// What the members know of a link: enough to meet and to read knocks, not to sign an admission.
#[derive(Debug, Clone)]
pub struct KnockKeys {
    secret: Secret,
    /// Pre-shared key of knock and answer.
    pub psk: Secret,
    /// X25519 secret that knocks are sealed to.
    pub kem: Secret,
    /// Where to knock.
    pub room: RoomKey,
}

impl InviteSecret {
    /// A new link's secret.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self(Secret::random(rng))
    }
    /// From the bytes of a link.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }
    /// The bytes, for the link.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
    /// Its keys in this workspace.
    #[must_use]
    pub fn keys(&self, workspace: &WorkspaceId) -> InviteKeys {
        let sign = hash::derive(&workspace.0, self.0.expose(), &[b"invite-sign"]);
        let knock = hash::derive(&workspace.0, self.0.expose(), &[b"invite-knock"]);
        InviteKeys { sign: SigningKey::from_bytes(sign.expose()), knock: KnockKeys::new(workspace, &knock) }
    }
}

impl KnockKeys {
    /// From the knock secret of an invite op.
    #[must_use]
    pub fn new(workspace: &WorkspaceId, knock: &Secret) -> Self {
        let derive = |label: &[u8]| hash::derive(&workspace.0, knock.expose(), &[label]);
        Self {
            secret: knock.clone(),
            psk: derive(b"knock-psk"),
            kem: derive(b"knock-kem"),
            room: RoomKey::from_seed(&derive(b"knock-room")),
        }
    }
    /// What the invite op carries.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}
