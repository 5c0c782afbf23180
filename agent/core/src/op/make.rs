//! Making ops: one function a kind that is issued here, each signed where its author stands.
//!
//! Invariant: what is made parses again. Spec: docs/sealing.md#ops.

use bytes::Bytes;
use rand_core::CryptoRng;
use weft_protocol::cbor;

use super::{EpochGrant, OP_PARENTS_MAX, OpBody, SignedOp, Signer, Unsigned};
use crate::epoch::Epoch;
use crate::hash;
use crate::id::{OpId, WorkspaceId};
use crate::identity::{DeviceKeys, RootSecret};
use crate::membership::Membership;
use crate::sign::{self, Context};

/// With which key an op is signed.
#[derive(Debug, Clone, Copy)]
pub enum OpSigner<'a> {
    /// A device's.
    Device(&'a DeviceKeys),
    /// The member's root.
    Root(&'a RootSecret),
    /// The workspace's recovery key.
    Recovery(&'a ed25519_dalek::SigningKey),
}

impl SignedOp {
    /// Signs an op. `parents` are the heads the author knows (1 to 64; any order).
    #[must_use]
    pub fn make(workspace: &WorkspaceId, parents: &[OpId], signer: OpSigner<'_>, wall_ms: u64, body: OpBody) -> Self {
        let mut parents = parents.to_vec();
        parents.sort();
        parents.dedup();
        parents.truncate(OP_PARENTS_MAX);
        let (name, key) = match signer {
            OpSigner::Device(device) => (Signer::Device(device.id()), device.signing_key()),
            OpSigner::Root(root) => (Signer::Root(root.public().sign), root.signing_key()),
            OpSigner::Recovery(key) => (Signer::Recovery(key.verifying_key().to_bytes()), key),
        };
        let unsigned = Unsigned { workspace: *workspace, parents, signer: name, wall_ms, body };
        let mut bytes = cbor::to_bytes(&unsigned);
        let id = OpId(hash::h("op", &[&bytes]));
        let signature = sign::sign(key, Context::Op, workspace, &[&bytes]);
        bytes.extend_from_slice(&signature);
        Self { id, bytes: Bytes::from(bytes), unsigned }
    }
}

#[cfg(test)]
impl SignedOp {
    /// Of nobody's hand and without bytes, under a name of the caller's: for a search that makes millions.
    pub(crate) fn unsigned(id: OpId, workspace: &WorkspaceId, parents: &[OpId], signer: Signer, body: OpBody) -> Self {
        let mut parents = parents.to_vec();
        parents.sort();
        let unsigned = Unsigned { workspace: *workspace, parents, signer, wall_ms: 1, body };
        Self { id, bytes: Bytes::new(), unsigned }
    }
}

/// A grant of this epoch: back links to the parents held, recipients as given. `None` without C of any of them.
fn grant(
    epoch: &Epoch,
    parents: &[&Epoch],
    recipients: Vec<crate::id::DeviceId>,
    rng: &mut dyn CryptoRng,
) -> Option<EpochGrant> {
    let mut links = parents.iter().map(|parent| epoch.back_link(parent, rng)).collect::<Option<Vec<_>>>()?;
    links.sort_by_key(|link| link.parent);
    links.dedup_by_key(|link| link.parent);
    let mut recipients = recipients;
    recipients.sort();
    Some(EpochGrant { commitments: *epoch.commitments(), parents: links, recipients })
}

/// One function a kind.
pub mod ops {
    use super::{CryptoRng, Epoch, Membership, OpBody, OpId, OpSigner, SignedOp, WorkspaceId, grant};
    use crate::id::{DeviceId, RootKey};
    use crate::identity::{DeviceCert, clean_name};
    use crate::invite::InviteSecret;
    use crate::key_packet::wrap_slot;
    use crate::knock::Admission;
    use crate::membership::Role;
    use crate::op::{Cut, Policy, WrappedSlot};

    /// Where an author stands: the workspace, the heads it knows, its key and its clock.
    #[derive(Debug, Clone)]
    pub struct Author<'a> {
        /// The workspace.
        pub workspace: WorkspaceId,
        /// The heads the op descends from.
        pub parents: Vec<OpId>,
        /// Who signs.
        pub signer: OpSigner<'a>,
        /// The clock, for people.
        pub wall_ms: u64,
    }

    impl Author<'_> {
        /// Signs a body here.
        #[must_use]
        pub fn sign(&self, body: OpBody) -> SignedOp {
            SignedOp::make(&self.workspace, &self.parents, self.signer, self.wall_ms, body)
        }
    }

    /// Kind 1: a further device of the member.
    #[must_use]
    pub fn device(author: &Author<'_>, cert: DeviceCert, label: &str) -> SignedOp {
        author.sign(OpBody::Device { cert, label: clean_name(label) })
    }

    /// Kind 3: an invite by this secret.
    #[must_use]
    pub fn invite(
        author: &Author<'_>,
        secret: &InviteSecret,
        role: Role,
        expires_wall_ms: u64,
        uses: u32,
        approval: bool,
    ) -> SignedOp {
        invite_for(author, secret, role, expires_wall_ms, uses, approval, None)
    }

    /// Kind 3: an invite that lets in nobody but `whom`, if that is given.
    #[must_use]
    pub fn invite_for(
        author: &Author<'_>,
        secret: &InviteSecret,
        role: Role,
        expires_wall_ms: u64,
        uses: u32,
        approval: bool,
        whom: Option<RootKey>,
    ) -> SignedOp {
        let keys = secret.keys(&author.workspace);
        let sign = keys.sign.verifying_key().to_bytes();
        let knock = keys.knock.secret().clone();
        author.sign(OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval, whom })
    }

    /// Kind 4: an invite is void.
    #[must_use]
    pub fn uninvite(author: &Author<'_>, invite: OpId) -> SignedOp {
        author.sign(OpBody::Uninvite { invite })
    }

    /// Kind 5: a joiner is let in at `role` (the invite's), with the epoch sealed to its device and its root.
    /// `None` if `epoch` lacks C and the joiner is no keeper.
    #[must_use]
    pub fn welcome(
        author: &Author<'_>,
        invite: OpId,
        admission: Admission,
        role: Role,
        epoch: &Epoch,
        rng: &mut dyn CryptoRng,
    ) -> Option<SignedOp> {
        let mut slots = Vec::new();
        for kem in [admission.cert().device().kem, admission.cert().root().kem] {
            slots.push(WrappedSlot { epoch: epoch.id(), slot: wrap_slot(epoch, &kem, role, rng)? });
        }
        Some(author.sign(OpBody::Welcome { invite, admission, slots }))
    }

    /// Kind 8: a new epoch for the active set of `membership` (the state at the author's heads), with its secrets.
    /// `parents` are the epochs it follows, all held with C; none for a workspace's first. `None` if C is missing.
    #[must_use]
    pub fn epoch(
        author: &Author<'_>,
        membership: &Membership,
        parents: &[&Epoch],
        rng: &mut dyn CryptoRng,
    ) -> Option<(SignedOp, Epoch)> {
        let epoch = Epoch::generate(&author.workspace, rng);
        let recipients = membership.active_devices().map(|(device, _)| *device).collect();
        let body = OpBody::Epoch(grant(&epoch, parents, recipients, rng)?);
        Some((author.sign(body), epoch))
    }

    /// Kind 7: a member is removed; the next epoch reaches everybody else.
    #[must_use]
    pub fn remove(
        author: &Author<'_>,
        membership: &Membership,
        root: RootKey,
        cut: Cut,
        parents: &[&Epoch],
        rng: &mut dyn CryptoRng,
    ) -> Option<(SignedOp, Epoch)> {
        let epoch = Epoch::generate(&author.workspace, rng);
        let left = membership.active_devices().filter(|(_, device)| device.root != root).map(|(id, _)| *id).collect();
        let grant = grant(&epoch, parents, left, rng)?;
        Some((author.sign(OpBody::Remove { root, cut, epoch: grant }), epoch))
    }

    /// Kind 2: devices are revoked; the next epoch reaches everybody else.
    #[must_use]
    pub fn revoke(
        author: &Author<'_>,
        membership: &Membership,
        mut devices: Vec<DeviceId>,
        cut: Cut,
        parents: &[&Epoch],
        rng: &mut dyn CryptoRng,
    ) -> Option<(SignedOp, Epoch)> {
        let epoch = Epoch::generate(&author.workspace, rng);
        devices.sort();
        devices.dedup();
        let left = membership.active_devices().map(|(id, _)| *id).filter(|id| !devices.contains(id)).collect();
        let grant = grant(&epoch, parents, left, rng)?;
        Some((author.sign(OpBody::Revoke { devices, cut, epoch: grant }), epoch))
    }

    /// Kind 6: a member's role; on demotion with the next epoch.
    #[must_use]
    pub fn role(
        author: &Author<'_>,
        membership: &Membership,
        root: RootKey,
        role: Role,
        cut: Cut,
        parents: &[&Epoch],
        rng: &mut dyn CryptoRng,
    ) -> Option<(SignedOp, Option<Epoch>)> {
        let demotion = membership.members.get(&root).is_some_and(|member| role < member.role);
        if !demotion {
            return Some((author.sign(OpBody::Role { root, role, cut, epoch: None }), None));
        }
        let epoch = Epoch::generate(&author.workspace, rng);
        let recipients = membership.active_devices().map(|(device, _)| *device).collect();
        let grant = Some(grant(&epoch, parents, recipients, rng)?);
        Some((author.sign(OpBody::Role { root, role, cut, epoch: grant }), Some(epoch)))
    }

    /// Kind 9: the author agrees to another op, or, if that needs nobody's agreement, only joins heads.
    #[must_use]
    pub fn endorse(author: &Author<'_>, op: OpId) -> SignedOp {
        author.sign(OpBody::Endorse { op })
    }

    /// Kind 10: more of what was written before a removal stays.
    #[must_use]
    pub fn extend_cut(author: &Author<'_>, op: OpId, cut: Cut) -> SignedOp {
        author.sign(OpBody::ExtendCut { op, cut })
    }

    /// Kind 11: a device signed two envelopes for one place. `headers`: both halves of the proof, in any order; `cut`: the
    /// envelope before the fork. `None` without C of a parent.
    #[must_use]
    pub fn fork(
        author: &Author<'_>,
        membership: &Membership,
        mut headers: [Vec<u8>; 2],
        cut: Cut,
        parents: &[&Epoch],
        rng: &mut dyn CryptoRng,
    ) -> Option<(SignedOp, Epoch)> {
        headers.sort();
        let epoch = Epoch::generate(&author.workspace, rng);
        let recipients = membership.active_devices().map(|(device, _)| *device).collect();
        let grant = grant(&epoch, parents, recipients, rng)?;
        Some((author.sign(OpBody::Fork { headers: Box::new(headers), cut, epoch: grant }), epoch))
    }

    /// Kind 12: the author's member is also known as `identity`, a DID, which `proof` says too.
    #[must_use]
    pub fn attest(author: &Author<'_>, identity: &str, proof: Vec<u8>) -> SignedOp {
        author.sign(OpBody::Attest { identity: identity.to_owned(), proof })
    }

    /// Kind 13: the author's member leaves.
    #[must_use]
    pub fn leave(author: &Author<'_>) -> SignedOp {
        author.sign(OpBody::Leave)
    }

    /// Kind 14: the settings.
    #[must_use]
    pub fn policy(author: &Author<'_>, policy: Policy) -> SignedOp {
        author.sign(OpBody::Policy(policy.bounded()))
    }
}
