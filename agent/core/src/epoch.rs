//! An epoch: two group secrets, what is derived from them, and what commits to them.
//!
//! A (access) opens headers, ops and control messages and leads to the rooms; C (content) opens bodies. Keepers hold A
//! only. Invariant: an [`Epoch`] that exists matches its commitments, so no two devices can hold different secrets under
//! one id. Spec: docs/sealing.md#epochs.

use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};
use weft_protocol::id::RoomId;
use zeroize::Zeroizing;

use crate::cipher;
use crate::hash;
use crate::id::{ChangeHash, EpochId, WorkspaceId};
use crate::secret::{Secret, random_bytes};

/// The secrets of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSecrets {
    /// A.
    pub access: Secret,
    /// C; keepers do not have it.
    pub content: Option<Secret>,
}

/// What an op says of an epoch's secrets without giving them away: commit_X = K(X, `epoch-commit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commitments {
    /// Of A.
    pub access: [u8; 32],
    /// Of C.
    pub content: [u8; 32],
}

impl Commitments {
    /// H(epoch, workspace ‖ commit_A ‖ commit_C), its first 16 bytes.
    #[must_use]
    pub fn id(&self, workspace: &WorkspaceId) -> EpochId {
        EpochId(hash::first16(&hash::h("epoch", &[&workspace.0, &self.access, &self.content])))
    }
    fn of(secret: &Secret) -> [u8; 32] {
        hash::k(secret.expose(), &[b"epoch-commit"])
    }
}

/// Secrets that are not those an op committed to: whoever sent them is to blame, or the storage is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these are not the epoch's secrets")]
pub struct NotTheEpoch;

/// The parent's secrets, sealed under the child's: nonce (24) ‖ XChaCha20-Poly1305 of A, and of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackLink {
    /// The parent epoch.
    pub parent: EpochId,
    /// Its A under the child's A.
    pub access: [u8; 72],
    /// Its C under the child's C.
    pub content: [u8; 72],
}

/// An epoch that this device holds, with its subkeys.
#[derive(Clone)]
pub struct Epoch {
    id: EpochId,
    workspace: WorkspaceId,
    commitments: Commitments,
    secrets: EpochSecrets,
    pub(crate) keys: Subkeys,
    room: RoomKey,
}

#[derive(Clone)]
pub(crate) struct Subkeys {
    pub(crate) tag: Secret,
    pub(crate) head: Secret,
    pub(crate) ops: Secret,
    pub(crate) nonce: Secret,
    back_access: Secret,
    pub(crate) content: Option<ContentKeys>,
}

#[derive(Clone)]
pub(crate) struct ContentKeys {
    pub(crate) body: Secret,
    pub(crate) leaf: Secret,
    pub(crate) presence: Secret,
    back: Secret,
}

impl Epoch {
    /// Fresh secrets.
    #[must_use]
    pub fn generate(workspace: &WorkspaceId, rng: &mut dyn CryptoRng) -> Self {
        let (access, content) = (Secret::random(rng), Secret::random(rng));
        let commitments = Commitments { access: Commitments::of(&access), content: Commitments::of(&content) };
        Self::derive(workspace, EpochSecrets { access, content: Some(content) }, commitments)
    }

    /// Secrets as they came, checked against what an op committed to.
    pub fn open(
        workspace: &WorkspaceId,
        secrets: EpochSecrets,
        commitments: &Commitments,
    ) -> Result<Self, NotTheEpoch> {
        let content = secrets.content.as_ref().is_none_or(|content| Commitments::of(content) == commitments.content);
        if !content || Commitments::of(&secrets.access) != commitments.access {
            return Err(NotTheEpoch);
        }
        Ok(Self::derive(workspace, secrets, *commitments))
    }

    fn derive(workspace: &WorkspaceId, secrets: EpochSecrets, commitments: Commitments) -> Self {
        let id = commitments.id(workspace);
        let from = |secret: &Secret, label: &str| hash::kd(workspace, secret.expose(), label, &id);
        let access = |label: &str| from(&secrets.access, label);
        let content = secrets.content.as_ref().map(|content| ContentKeys {
            body: from(content, "body"),
            leaf: from(content, "leaf"),
            presence: from(content, "presence"),
            back: from(content, "back-c"),
        });
        let keys = Subkeys {
            tag: access("tag"),
            head: access("head"),
            ops: access("ops"),
            nonce: access("nonce"),
            back_access: access("back-a"),
            content,
        };
        let room = RoomKey::from_seed(&access("room"));
        Self { id, workspace: *workspace, commitments, secrets, keys, room }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> EpochId {
        self.id
    }
    /// The workspace it belongs to.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }
    /// What its op commits to.
    #[must_use]
    pub fn commitments(&self) -> &Commitments {
        &self.commitments
    }
    /// Its secrets, to seal them to others.
    #[must_use]
    pub fn secrets(&self) -> &EpochSecrets {
        &self.secrets
    }
    /// Whether bodies can be opened and sealed.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.secrets.content.is_some()
    }
    /// The room its holders meet in.
    #[must_use]
    pub fn room(&self) -> &RoomKey {
        &self.room
    }
    /// The lobby that this epoch opens (used only if it is the first epoch, or embedded in a removal, revocation or fork).
    #[must_use]
    pub fn lobby(&self) -> Lobby {
        let lobby = hash::kd(&self.workspace, self.secrets.access.expose(), "lobby", &self.id);
        let room = hash::derive(&self.workspace.0, lobby.expose(), &[b"lobby-room"]);
        let seal = hash::derive(&self.workspace.0, lobby.expose(), &[b"lobby-seal"]);
        Lobby { room: RoomKey::from_seed(&room), seal }
    }
    /// The secret of the door that this epoch opens, where further devices of members ask (used as [`Epoch::lobby`] is).
    #[must_use]
    pub fn door(&self) -> Secret {
        hash::kd(&self.workspace, self.secrets.access.expose(), "door", &self.id)
    }
    /// K(KD tag, nonce), its first 4 bytes: tells which epoch an envelope is under.
    #[must_use]
    pub fn tag(&self, nonce: &[u8; 24]) -> [u8; 4] {
        let [a, b, c, d, ..] = hash::k(self.keys.tag.expose(), &[nonce]);
        [a, b, c, d]
    }
    /// The keyed digest of the change hashes that a body carries, in order; zeros if there are none. `None` without C.
    #[must_use]
    pub fn leaf(&self, changes: &[ChangeHash]) -> Option<[u8; 32]> {
        if changes.is_empty() {
            return Some([0; 32]);
        }
        let parts: Vec<&[u8]> = changes.iter().map(|change| change.0.as_slice()).collect();
        self.keys.content.as_ref().map(|keys| hash::k(keys.leaf.expose(), &parts))
    }
    /// Seals a parent's secrets under this epoch's. `None` if either lacks C.
    #[must_use]
    pub fn back_link(&self, parent: &Epoch, rng: &mut dyn CryptoRng) -> Option<BackLink> {
        let (own, parent_content) = (self.keys.content.as_ref()?, parent.secrets.content.as_ref()?);
        let aad = [self.id.0, parent.id.0].concat();
        let mut seal = |key: &Secret, secret: &Secret| {
            let random = random_bytes::<24>(rng);
            let mut nonce = [0; 24];
            let derived = hash::k(self.keys.nonce.expose(), &[b"back", &random, &aad, secret.expose()]);
            nonce.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
            cipher::seal_secret(key, nonce, &aad, secret)
        };
        let access = seal(&self.keys.back_access, &parent.secrets.access);
        let content = seal(&own.back, parent_content);
        Some(BackLink { parent: parent.id, access, content })
    }
    /// Opens a parent through a back link, as far as this epoch's own secrets reach.
    pub fn open_back_link(&self, link: &BackLink, parent: &Commitments) -> Result<Epoch, NotTheEpoch> {
        if parent.id(&self.workspace) != link.parent {
            return Err(NotTheEpoch);
        }
        let aad = [self.id.0, link.parent.0].concat();
        let access = cipher::open_secret(&self.keys.back_access, &aad, &link.access).ok_or(NotTheEpoch)?;
        let content = match &self.keys.content {
            Some(keys) => Some(cipher::open_secret(&keys.back, &aad, &link.content).ok_or(NotTheEpoch)?),
            None => None,
        };
        Epoch::open(&self.workspace, EpochSecrets { access, content }, parent)
    }
    /// For the store's secret table: [commit_A, commit_C, A, C or null].
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(cbor::to_bytes(&StoredEpoch { commitments: self.commitments, secrets: self.secrets.clone() }))
    }
    /// The reverse of [`Epoch::to_bytes`].
    pub fn from_bytes(workspace: &WorkspaceId, bytes: &[u8]) -> Result<Self, EpochBytesError> {
        let stored: StoredEpoch = cbor::from_bytes(bytes)?;
        Ok(Self::open(workspace, stored.secrets, &stored.commitments)?)
    }
}

impl core::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Epoch").field("id", &self.id).field("content", &self.has_content()).finish_non_exhaustive()
    }
}

/// Why stored epoch bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochBytesError {
    /// Not a stored epoch.
    #[error("a stored epoch is damaged: {0}")]
    Malformed(#[from] DecodeError),
    /// Its secrets do not match its commitments.
    #[error("a stored epoch is damaged: {0}")]
    NotTheEpoch(#[from] NotTheEpoch),
}

struct StoredEpoch {
    commitments: Commitments,
    secrets: EpochSecrets,
}

impl Wire for StoredEpoch {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).bytes(&self.commitments.access).bytes(&self.commitments.content);
        writer.bytes(self.secrets.access.expose());
        match &self.secrets.content {
            Some(content) => writer.bytes(content.expose()),
            None => writer.null(),
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "stored epoch")?;
        let commitments = Commitments { access: reader.item()?, content: reader.item()? };
        let access = Secret::new(reader.item()?);
        let content = reader.optional::<[u8; 32]>()?.map(Secret::new);
        Ok(Self { commitments, secrets: EpochSecrets { access, content } })
    }
}

/// A room that is entered by proving possession of its key.
#[derive(Clone)]
pub struct RoomKey {
    /// The room: H(room-id, public key).
    pub id: RoomId,
    key: SigningKey,
}

impl RoomKey {
    /// The room of this Ed25519 seed.
    #[must_use]
    pub fn from_seed(seed: &Secret) -> Self {
        let key = SigningKey::from_bytes(seed.expose());
        Self { id: RoomId(hash::h("room-id", &[&key.verifying_key().to_bytes()])), key }
    }
    /// The public key whose hash the room is.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }
    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }
    /// Signs a whole message, prefix included, as the admission's room proof builds it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl core::fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("RoomKey").field(&self.id).finish()
    }
}

/// Where devices that missed an epoch catch up: a room, and the key that seals what passes there.
#[derive(Debug, Clone)]
pub struct Lobby {
    /// The room.
    pub room: RoomKey,
    /// Seals class 3.
    pub seal: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    const WORKSPACE: WorkspaceId = WorkspaceId([1; 32]);

    /// Secrets open only the epoch that committed to them, with or without C.
    #[test]
    fn commitments_bind() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (one, two) = (Epoch::generate(&WORKSPACE, &mut rng), Epoch::generate(&WORKSPACE, &mut rng));
        assert_eq!(Epoch::from_bytes(&WORKSPACE, &one.to_bytes()).unwrap().id(), one.id());
        assert!(Epoch::open(&WORKSPACE, one.secrets().clone(), two.commitments()).is_err());
        let mixed = EpochSecrets { access: one.secrets().access.clone(), content: two.secrets().content.clone() };
        assert!(Epoch::open(&WORKSPACE, mixed, one.commitments()).is_err());
        let keeper = EpochSecrets { access: one.secrets().access.clone(), content: None };
        let keeper = Epoch::open(&WORKSPACE, keeper, one.commitments()).unwrap();
        assert_eq!((keeper.id(), keeper.room().id), (one.id(), one.room().id));
        assert_eq!(keeper.leaf(&[ChangeHash([1; 32])]), None);
    }

    /// A back link opens the parent from the child, only that parent, and only A without C.
    #[test]
    fn back_links_open_parents() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let (parent, child) = (Epoch::generate(&WORKSPACE, &mut rng), Epoch::generate(&WORKSPACE, &mut rng));
        let other = Epoch::generate(&WORKSPACE, &mut rng);
        let link = child.back_link(&parent, &mut rng).unwrap();
        let opened = child.open_back_link(&link, parent.commitments()).unwrap();
        assert_eq!(opened.secrets(), parent.secrets());
        assert!(child.open_back_link(&link, other.commitments()).is_err());
        assert!(other.open_back_link(&link, parent.commitments()).is_err());
        let keeper = EpochSecrets { access: child.secrets().access.clone(), content: None };
        let keeper = Epoch::open(&WORKSPACE, keeper, child.commitments()).unwrap();
        assert!(!keeper.open_back_link(&link, parent.commitments()).unwrap().has_content());
        let mut changed = link;
        changed.access[30] ^= 1;
        assert!(child.open_back_link(&changed, parent.commitments()).is_err());
    }
}
