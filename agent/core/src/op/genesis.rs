//! The self-signed first op: its hash is the workspace's id, so nobody can win a race to found it.
//!
//! [version, suite, nonce32, root, device certificate, member name, device label, workspace name, policy, recovery key or
//! null] ‖ signature by the root. Spec: docs/sealing.md#genesis.

use bytes::Bytes;
use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use super::OpError;
use super::body::Policy;
use crate::hash;
use crate::id::{OpId, WorkspaceId};
use crate::identity::{Certifier, DeviceCert, LocalIdentity, RootPublic, RootSecret, clean_name, read_name};
use crate::secret::{Secret, random_bytes};
use crate::sign::{self, Context, NO_WORKSPACE, is_sound_key};

/// The format of everything sealed. 0 until membership and the folder are complete: breaks are allowed until then.
pub const FORMAT_VERSION: u8 = 0;
/// The one set of algorithms: Ed25519, X25519, HKDF-SHA256, BLAKE3, ChaCha20-Poly1305, zstd.
pub const SUITE: u8 = 1;
/// Longest genesis, in bytes.
const GENESIS_BYTES_MAX: usize = 16 * 1024;

/// The first op of a workspace. One that exists has a valid signature and certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    bytes: Bytes,
    workspace: WorkspaceId,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    nonce: [u8; 32],
    root: RootPublic,
    cert: DeviceCert,
    member_name: String,
    device_label: String,
    workspace_name: String,
    policy: Policy,
    recovery: Option<[u8; 32]>,
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(10).uint(u64::from(FORMAT_VERSION)).uint(u64::from(SUITE)).bytes(&self.nonce);
        writer.item(&self.root).item(&self.cert);
        writer.text(&self.member_name).text(&self.device_label).text(&self.workspace_name).item(&self.policy);
        writer.optional(self.recovery.as_ref());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(10, "genesis")?;
        if reader.uint()? != u64::from(FORMAT_VERSION) || reader.uint()? != u64::from(SUITE) {
            return Err(DecodeError::Invalid("genesis version or suite: this weft speaks format 0, suite 1"));
        }
        let nonce = reader.item()?;
        let (root, cert): (RootPublic, DeviceCert) = (reader.item()?, reader.item()?);
        if cert.root() != root || cert.certifier() != Certifier::Root {
            return Err(DecodeError::Invalid("genesis certificate"));
        }
        let (member_name, device_label, workspace_name) = (read_name(reader)?, read_name(reader)?, read_name(reader)?);
        let policy = reader.item()?;
        let recovery: Option<[u8; 32]> = reader.optional()?;
        if recovery.as_ref().is_some_and(|key| !is_sound_key(key)) {
            return Err(DecodeError::Invalid("recovery key"));
        }
        Ok(Self { nonce, root, cert, member_name, device_label, workspace_name, policy, recovery })
    }
}

impl Genesis {
    /// Founds a workspace. `None` if this device has no root secret any more, or no certificate by it: founding needs both.
    #[must_use]
    pub fn found(
        identity: &LocalIdentity,
        workspace_name: &str,
        policy: Policy,
        recovery: Option<[u8; 32]>,
        rng: &mut dyn CryptoRng,
    ) -> Option<Self> {
        let root: &RootSecret = identity.root.as_ref()?;
        // A repeated generator state (a resumed snapshot) must not found one workspace twice under two names.
        let nonce = Secret::new(hash::h(
            "genesis-nonce",
            &[&random_bytes::<32>(rng), &identity.device.public().sign, workspace_name.as_bytes()],
        ));
        let body = Body {
            nonce: *nonce.expose(),
            root: root.public(),
            cert: identity.cert.clone(),
            member_name: clean_name(&identity.name),
            device_label: clean_name(&identity.label),
            workspace_name: clean_name(workspace_name),
            policy: policy.bounded(),
            recovery,
        };
        let mut bytes = cbor::to_bytes(&body);
        let signature = sign::sign(root.signing_key(), Context::Genesis, &NO_WORKSPACE, &[&bytes]);
        bytes.extend_from_slice(&signature);
        Self::parse(&bytes).ok()
    }

    /// Decodes and verifies.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpError> {
        if bytes.len() > GENESIS_BYTES_MAX {
            let (len, max) = (bytes.len() as u64, GENESIS_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "genesis", len, max }.into());
        }
        let (unsigned, signature) = sign::split_signature(bytes).ok_or(DecodeError::Malformed("truncated"))?;
        let body: Body = cbor::from_bytes(unsigned)?;
        sign::verify(&body.root.sign.0, Context::Genesis, &NO_WORKSPACE, &[unsigned], &signature)?;
        let workspace = WorkspaceId(hash::h("workspace", &[unsigned]));
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), workspace, body })
    }

    /// The workspace it founds: the hash of its unsigned bytes.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }
    /// What the first ops name as their parent: the workspace id's bytes.
    #[must_use]
    pub fn op_id(&self) -> OpId {
        OpId(self.workspace.0)
    }
    /// As it travels and is stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The first owner.
    #[must_use]
    pub fn root(&self) -> RootPublic {
        self.body.root
    }
    /// The first device's certificate.
    #[must_use]
    pub fn cert(&self) -> &DeviceCert {
        &self.body.cert
    }
    /// The first owner's display name.
    #[must_use]
    pub fn member_name(&self) -> &str {
        &self.body.member_name
    }
    /// The first device's label.
    #[must_use]
    pub fn device_label(&self) -> &str {
        &self.body.device_label
    }
    /// The workspace's name.
    #[must_use]
    pub fn workspace_name(&self) -> &str {
        &self.body.workspace_name
    }
    /// The first policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.body.policy
    }
    /// The recovery key, if the founder named one.
    #[must_use]
    pub fn recovery(&self) -> Option<&[u8; 32]> {
        self.body.recovery.as_ref()
    }
}
