//! The fourteen things an op can do, each with its bounded CBOR shape.
//!
//! Invariant: `from_bytes(kind, to_bytes(body)) == body`, and every list is bounded before it is read.
//! Spec: docs/sealing.md#op-kinds.

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use super::cut::Cut;
use crate::epoch::{BackLink, Commitments};
use crate::id::{DeviceId, EpochId, OpId, RootKey, WorkspaceId};
use crate::identity::{DeviceCert, read_name};
use crate::knock::Admission;
use crate::membership::Role;
use crate::secret::Secret;
use crate::sign::is_sound_key;

/// Most devices an epoch reaches: their slots, and as many of roots, fit one key packet.
pub const RECIPIENTS_MAX: usize = 2048;
/// Most parents of an epoch.
pub const EPOCH_PARENTS_MAX: usize = 64;
/// Most devices taken by one revocation.
pub const REVOKED_MAX: usize = 256;
/// Most relays of a workspace.
pub const RELAYS_MAX: usize = 16;
/// Longest relay URL, in bytes.
pub const URL_BYTES_MAX: usize = 256;
/// Longest signed header in a fork proof: nonce, the largest header and its signature.
pub const SIGNED_HEADER_BYTES_MAX: usize = 1024;
/// Most key slots in a welcome.
pub const SLOTS_PER_WELCOME_MAX: usize = 8;
/// Longest identity in an attestation, and longest proof.
const ATTEST_BYTES_MAX: usize = 1024;

/// Everyone's settings. Grants no power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a joiner needs an admin's approval, whatever the invite says.
    pub approval: bool,
    /// How long old lobbies and rooms are listened to, in days.
    pub max_offline_days: u16,
    /// Relay URLs, ascending.
    pub relays: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { approval: false, max_offline_days: 90, relays: Vec::new() }
    }
}

impl Policy {
    /// As it may stand on the wire: relays sorted, without duplicates, bounded; what is too long is left out.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.relays.retain(|url| is_url(url));
        self.relays.sort();
        self.relays.dedup();
        self.relays.truncate(RELAYS_MAX);
        self
    }
}

/// Printable ASCII without spaces, bounded: enough that a URL cannot rewrite the line it is printed in.
pub(crate) fn is_url(url: &str) -> bool {
    !url.is_empty() && url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) fn read_url(reader: &mut Reader<'_>) -> Decoded<String> {
    let url = reader.text_up_to(URL_BYTES_MAX, "URL")?;
    if !is_url(url) {
        return Err(DecodeError::Invalid("URL"));
    }
    Ok(url.to_owned())
}

impl Wire for Policy {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).bool(self.approval).uint(u64::from(self.max_offline_days)).array(self.relays.len());
        for url in &self.relays {
            writer.text(url);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "policy")?;
        let approval = reader.bool()?;
        let max_offline_days = reader.uint_up_to(u64::from(u16::MAX), "days")? as u16;
        let mut relays = Vec::new();
        for _ in 0..reader.array_up_to(RELAYS_MAX, "relays")? {
            relays.push(read_url(reader)?);
        }
        if !relays.is_sorted_by(|one, next| one < next) {
            return Err(DecodeError::Invalid("relays"));
        }
        Ok(Self { approval, max_offline_days, relays })
    }
}

impl Wire for Role {
    fn encode(&self, writer: &mut Writer) {
        writer.uint(*self as u64);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        match reader.uint()? {
            0 => Ok(Role::Keeper),
            1 => Ok(Role::Reader),
            2 => Ok(Role::Writer),
            3 => Ok(Role::Admin),
            4 => Ok(Role::Owner),
            _ => Err(DecodeError::Invalid("role")),
        }
    }
}

/// [commit_A, commit_C, [[parent16, back_a72, back_c72]], \[recipient16\]]: an epoch, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochGrant {
    /// What the secrets must match.
    pub commitments: Commitments,
    /// The parents, and the way back to them; empty for a workspace's first epoch only.
    pub parents: Vec<BackLink>,
    /// The devices that get it, ascending: the active set where the op stands.
    pub recipients: Vec<DeviceId>,
}

impl EpochGrant {
    /// The epoch's name.
    #[must_use]
    pub fn id(&self, workspace: &WorkspaceId) -> EpochId {
        self.commitments.id(workspace)
    }
}

impl Wire for BackLink {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.parent).bytes(&self.access).bytes(&self.content);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "back link")?;
        Ok(Self { parent: reader.item()?, access: reader.item()?, content: reader.item()? })
    }
}

impl Wire for EpochGrant {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).bytes(&self.commitments.access).bytes(&self.commitments.content);
        writer.list(&self.parents).list(&self.recipients);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "epoch")?;
        let commitments = Commitments { access: reader.item()?, content: reader.item()? };
        let parents: Vec<BackLink> = reader.list(EPOCH_PARENTS_MAX, "epoch parents")?;
        let recipients: Vec<DeviceId> = reader.list(RECIPIENTS_MAX, "epoch recipients")?;
        if !parents.is_sorted_by(|one, next| one.parent < next.parent)
            || !recipients.is_sorted_by(|one, next| one < next)
        {
            return Err(DecodeError::Invalid("epoch"));
        }
        Ok(Self { commitments, parents, recipients })
    }
}

/// A key slot that travels in a welcome: [epoch16, enc32 ‖ ciphertext].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedSlot {
    /// Which epoch.
    pub epoch: EpochId,
    /// The slot, as in a key packet.
    pub slot: [u8; crate::key_packet::SLOT_LEN],
}

impl Wire for WrappedSlot {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.epoch).bytes(&self.slot);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "slot")?;
        Ok(Self { epoch: reader.item()?, slot: reader.item()? })
    }
}

/// What an op does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpBody {
    /// 1: a member's further device. [certificate, label]
    Device {
        /// Its keys, signed over by the member.
        cert: DeviceCert,
        /// Its label.
        label: String,
    },
    /// 2: devices are taken out. [\[device16\], cut, epoch]
    Revoke {
        /// Which, ascending; the revoked one with those it certified that are not kept.
        devices: Vec<DeviceId>,
        /// What the author held of their chains.
        cut: Cut,
        /// The epoch without them.
        epoch: EpochGrant,
    },
    /// 3: an invite. [signing key, knock, role, expiry wall ms, uses, approval], and root32 if it is for one person
    Invite {
        /// Whoever holds the link signs admissions with its secret half.
        sign: [u8; 32],
        /// Opens knocks; derived from the link's secret, one way.
        knock: Secret,
        /// What whoever joins becomes.
        role: Role,
        /// When it ends, by the wall clock; judged by the welcoming member.
        expires_wall_ms: u64,
        /// How many may join; judged by the welcoming member.
        uses: u32,
        /// Whether only an admin may welcome.
        approval: bool,
        /// Whom alone it lets in; `None`: whoever holds the link.
        whom: Option<RootKey>,
    },
    /// 4: an invite is void. \[invite32\]
    Uninvite {
        /// Which.
        invite: OpId,
    },
    /// 5: a joiner is let in. [invite32, admission, \[slot\]]
    Welcome {
        /// By which invite.
        invite: OpId,
        /// Signed by the joiner's device and by the link's key.
        admission: Admission,
        /// An epoch's secrets for the joiner.
        slots: Vec<WrappedSlot>,
    },
    /// 6: a member's role changes. [root32, role, cut, epoch or null]
    Role {
        /// Whose.
        root: RootKey,
        /// To what.
        role: Role,
        /// What the author held of the member's chains.
        cut: Cut,
        /// On demotion, the next epoch.
        epoch: Option<EpochGrant>,
    },
    /// 7: a member is removed. [root32, cut, epoch]
    Remove {
        /// Whom.
        root: RootKey,
        /// What the author held of their chains.
        cut: Cut,
        /// The epoch without them.
        epoch: EpochGrant,
    },
    /// 8: a new epoch.
    Epoch(EpochGrant),
    /// 9: another op is endorsed. \[op32\]
    Endorse {
        /// Which.
        op: OpId,
    },
    /// 10: a cut is moved forward. [op32, cut]
    ExtendCut {
        /// The removal.
        op: OpId,
        /// Points beyond its cut.
        cut: Cut,
    },
    /// 11: two headers of one place. [signed header, signed header, cut, epoch]
    Fork {
        /// nonce ‖ header ‖ signature, the smaller first.
        headers: Box<[Vec<u8>; 2]>,
        /// Before the fork.
        cut: Cut,
        /// The next epoch.
        epoch: EpochGrant,
    },
    /// 12: the author is also known as. [identity, proof]
    Attest {
        /// A DID.
        identity: String,
        /// Its key's signature over the root, in the form its method has.
        proof: Vec<u8>,
    },
    /// 13: the author's member leaves. []
    Leave,
    /// 14: the settings.
    Policy(Policy),
}

impl OpBody {
    /// The highest kind known.
    pub const KIND_MAX: u64 = 14;

    /// Its number.
    #[must_use]
    pub fn kind(&self) -> u64 {
        match self {
            OpBody::Device { .. } => 1,
            OpBody::Revoke { .. } => 2,
            OpBody::Invite { .. } => 3,
            OpBody::Uninvite { .. } => 4,
            OpBody::Welcome { .. } => 5,
            OpBody::Role { .. } => 6,
            OpBody::Remove { .. } => 7,
            OpBody::Epoch(_) => 8,
            OpBody::Endorse { .. } => 9,
            OpBody::ExtendCut { .. } => 10,
            OpBody::Fork { .. } => 11,
            OpBody::Attest { .. } => 12,
            OpBody::Leave => 13,
            OpBody::Policy(_) => 14,
        }
    }

    /// The epoch it carries, if any.
    #[must_use]
    pub fn epoch(&self) -> Option<&EpochGrant> {
        match self {
            OpBody::Revoke { epoch, .. } | OpBody::Remove { epoch, .. } | OpBody::Fork { epoch, .. } => Some(epoch),
            OpBody::Epoch(epoch) => Some(epoch),
            OpBody::Role { epoch, .. } => epoch.as_ref(),
            OpBody::Device { .. }
            | OpBody::Invite { .. }
            | OpBody::Uninvite { .. }
            | OpBody::Welcome { .. }
            | OpBody::Endorse { .. }
            | OpBody::ExtendCut { .. }
            | OpBody::Attest { .. }
            | OpBody::Leave
            | OpBody::Policy(_) => None,
        }
    }

    /// Its deterministic CBOR.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let w = &mut writer;
        match self {
            OpBody::Device { cert, label } => w.array(2).item(cert).text(label),
            OpBody::Revoke { devices, cut, epoch } => w.array(3).list(devices).item(cut).item(epoch),
            OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval, whom } => {
                w.array(6 + usize::from(whom.is_some())).bytes(sign).bytes(knock.expose()).item(role);
                w.uint(*expires_wall_ms).uint(u64::from(*uses)).bool(*approval);
                if let Some(root) = whom { w.item(root) } else { w }
            }
            OpBody::Uninvite { invite } => w.array(1).item(invite),
            OpBody::Welcome { invite, admission, slots } => w.array(3).item(invite).item(admission).list(slots),
            OpBody::Role { root, role, cut, epoch } => {
                w.array(4).item(root).item(role).item(cut).optional(epoch.as_ref())
            }
            OpBody::Remove { root, cut, epoch } => w.array(3).item(root).item(cut).item(epoch),
            OpBody::Epoch(epoch) => w.item(epoch),
            OpBody::Endorse { op } => w.array(1).item(op),
            OpBody::ExtendCut { op, cut } => w.array(2).item(op).item(cut),
            OpBody::Fork { headers, cut, epoch } => {
                let [one, other] = headers.as_ref();
                w.array(4).bytes(one).bytes(other).item(cut).item(epoch)
            }
            OpBody::Attest { identity, proof } => w.array(2).text(identity).bytes(proof),
            OpBody::Leave => w.array(0),
            OpBody::Policy(policy) => w.item(policy),
        };
        writer.into_bytes()
    }

    /// Decodes the body of an op of this kind; the whole of `bytes`, and only their one encoding.
    pub fn from_bytes(kind: u64, bytes: &[u8]) -> Decoded<Self> {
        let body = Self::read(kind, &mut Reader::new(bytes))?;
        if body.to_bytes() != bytes {
            return Err(DecodeError::NotDeterministic);
        }
        Ok(body)
    }

    fn read(kind: u64, r: &mut Reader<'_>) -> Decoded<Self> {
        match kind {
            1 => {
                r.array(2, "device op")?;
                Ok(OpBody::Device { cert: r.item()?, label: read_name(r)? })
            }
            2 => {
                r.array(3, "revoke op")?;
                let devices: Vec<DeviceId> = r.list(REVOKED_MAX, "revoked devices")?;
                if devices.is_empty() || !devices.is_sorted_by(|one, next| one < next) {
                    return Err(DecodeError::Invalid("revoked devices"));
                }
                Ok(OpBody::Revoke { devices, cut: r.item()?, epoch: r.item()? })
            }
            3 => {
                let fields = r.array_up_to(7, "invite op")?;
                if fields < 6 {
                    return Err(DecodeError::Invalid("invite op"));
                }
                let sign: [u8; 32] = r.item()?;
                if !is_sound_key(&sign) {
                    return Err(DecodeError::Invalid("invite key"));
                }
                let knock = Secret::new(r.item()?);
                let (role, expires_wall_ms) = (r.item()?, r.uint()?);
                let uses = r.uint_up_to(u64::from(u32::MAX), "uses")? as u32;
                let approval = r.bool()?;
                let whom = if fields == 7 { Some(r.item()?) } else { None };
                Ok(OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval, whom })
            }
            4 => {
                r.array(1, "uninvite op")?;
                Ok(OpBody::Uninvite { invite: r.item()? })
            }
            5 => {
                r.array(3, "welcome op")?;
                let (invite, admission) = (r.item()?, r.item()?);
                Ok(OpBody::Welcome { invite, admission, slots: r.list(SLOTS_PER_WELCOME_MAX, "welcome slots")? })
            }
            6 => {
                r.array(4, "role op")?;
                Ok(OpBody::Role { root: r.item()?, role: r.item()?, cut: r.item()?, epoch: r.optional()? })
            }
            7 => {
                r.array(3, "remove op")?;
                Ok(OpBody::Remove { root: r.item()?, cut: r.item()?, epoch: r.item()? })
            }
            8 => Ok(OpBody::Epoch(r.item()?)),
            9 => {
                r.array(1, "endorse op")?;
                Ok(OpBody::Endorse { op: r.item()? })
            }
            10 => {
                r.array(2, "extend-cut op")?;
                Ok(OpBody::ExtendCut { op: r.item()?, cut: r.item()? })
            }
            11 => {
                r.array(4, "fork op")?;
                let one = r.bytes_up_to(SIGNED_HEADER_BYTES_MAX, "signed header")?.to_vec();
                let other = r.bytes_up_to(SIGNED_HEADER_BYTES_MAX, "signed header")?.to_vec();
                if one >= other {
                    return Err(DecodeError::Invalid("fork"));
                }
                Ok(OpBody::Fork { headers: Box::new([one, other]), cut: r.item()?, epoch: r.item()? })
            }
            12 => {
                r.array(2, "attest op")?;
                let identity = read_url(r)?;
                Ok(OpBody::Attest { identity, proof: r.bytes_up_to(ATTEST_BYTES_MAX, "attestation")?.to_vec() })
            }
            13 => {
                r.array(0, "leave op")?;
                Ok(OpBody::Leave)
            }
            14 => Ok(OpBody::Policy(r.item()?)),
            _ => Err(DecodeError::Invalid("op kind")),
        }
    }
}
