//! Names inside a workspace. Spec: docs/protocol.md#ids.

use weft_protocol::byte_id;
use weft_protocol::cbor::{Decoded, Reader, Wire, Writer};

byte_id!(
    /// A workspace: the hash of its self-signed genesis.
    WorkspaceId,
    32
);
byte_id!(
    /// A member's public root key (Ed25519).
    RootKey,
    32
);
byte_id!(
    /// A device: the start of the hash of its signing key.
    DeviceId,
    16
);
byte_id!(
    /// A signed membership operation: the hash of its unsigned bytes.
    OpId,
    32
);
byte_id!(
    /// An epoch: the hash of the workspace and of the commitments to its two secrets.
    EpochId,
    16
);
byte_id!(
    /// What the next envelope of a chain names as its predecessor: the hash of a signed header.
    Link,
    32
);
byte_id!(
    /// A sealed piece of a blob: the hash of its sealed bytes.
    PieceId,
    32
);
byte_id!(
    /// The content of a file at one moment: BLAKE3 of its plain bytes, keyed by the workspace.
    VersionHash,
    32
);
byte_id!(
    /// A file, folder or symbolic link of the tree, whatever its path.
    FileId,
    16
);
byte_id!(
    /// An Automerge change's hash.
    ChangeHash,
    32
);

/// One chain of envelopes: a device in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    /// The device that signs the chain.
    pub device: DeviceId,
    /// Which life of its replica, in the lowest byte. What stands above it names a branch, see [`ChainId::branch`]; no
    /// envelope is signed for such a chain.
    pub incarnation: u64,
}

impl ChainId {
    /// What was signed after a fork of this chain, from the envelope with this link on: its branches are held, served and
    /// compared like chains. Spec: docs/sync.md#forks.
    #[must_use]
    pub fn branch(self, first: &Link) -> Self {
        let name = first.0.iter().take(7).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        Self { incarnation: (name.max(1) << 8) | (self.incarnation & 0xff), ..self }
    }
    /// Whether it is a branch.
    #[must_use]
    pub fn is_branch(&self) -> bool {
        self.incarnation > 0xff
    }
    /// The chain that its envelopes were signed for.
    #[must_use]
    pub fn signed(self) -> Self {
        Self { incarnation: self.incarnation & 0xff, ..self }
    }
    /// Its bytes in keys and hashes: device (16) ‖ incarnation (8, big-endian).
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let (device, incarnation) = bytes.split_at_mut(16);
        device.copy_from_slice(&self.device.0);
        incarnation.copy_from_slice(&self.incarnation.to_be_bytes());
        bytes
    }
    /// The reverse of [`ChainId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let (device, incarnation) = bytes.split_at(16);
        Self {
            device: DeviceId::from_slice(device).unwrap_or(DeviceId([0; 16])),
            incarnation: incarnation.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        }
    }
}

/// One envelope of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The chain.
    pub chain: ChainId,
    /// Its number there, from 1, without gaps.
    pub seq: u64,
}

impl Place {
    /// Its bytes in keys: chain (24) ‖ seq (8, big-endian).
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (chain, seq) = bytes.split_at_mut(24);
        chain.copy_from_slice(&self.chain.to_bytes());
        seq.copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }
    /// The reverse of [`Place::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let (chain, seq) = bytes.split_at(24);
        let mut chain_bytes = [0; 24];
        chain_bytes.copy_from_slice(chain);
        Self {
            chain: ChainId::from_bytes(chain_bytes),
            seq: seq.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        }
    }
}

impl Wire for ChainId {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.device).uint(self.incarnation);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "chain")?;
        Ok(Self { device: reader.item()?, incarnation: reader.uint()? })
    }
}
