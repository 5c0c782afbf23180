//! What takes more than a device: the member's root, which is asked for once its words are confirmed, and the workspace's
//! recovery key, which no computer keeps.
//!
//! Invariant: neither is stored here; the recovery key serves one op and is wiped. Spec: docs/sealing.md#recovery-key.

use super::Workspace;
use super::command::{RecoveryDeed, Reply};
use super::members::By;
use crate::identity::RecoveryKey;
use crate::membership::{OpSet, Role};
use crate::store::Tx;
use crate::time::Timestamp;

impl Workspace {
    /// From now on this machine cannot speak for its member's root.
    pub fn forget_root(&mut self) {
        self.identity.root = None;
    }

    /// Whether nobody else could decide here, were our words lost.
    pub(super) fn is_only_owner(&self) -> bool {
        let members = &self.membership.members;
        let me = &self.identity.root_public.sign;
        let owners = members.iter().filter(|(_, member)| member.role == Role::Owner);
        self.is_active()
            && self.ops.as_ref().is_some_and(|ops| ops.genesis().recovery().is_none())
            && owners.map(|(root, _)| root).eq([me])
    }

    /// Removes or names an owner, or anybody, with the recovery key.
    pub(super) fn by_recovery_key(
        &mut self,
        now: Timestamp,
        key: &RecoveryKey,
        deed: RecoveryDeed,
        tx: &Tx<'_>,
    ) -> Reply {
        match self.ops.as_ref().map(OpSet::genesis).map(|genesis| genesis.recovery()) {
            Some(Some(named)) if *named == key.public() => {}
            Some(Some(_)) => {
                let why = "These words are not this workspace's recovery key. The words of an identity are others.";
                return Reply::Refused(why.into());
            }
            Some(None) => {
                let why = "This workspace has no recovery key; only `weft init --recovery-key` gives it one.";
                return Reply::Refused(why.into());
            }
            None => return self.not_in(),
        }
        match deed {
            RecoveryDeed::Remove(root) => self.remove_member(now, root, By::Recovery(key), tx),
            RecoveryDeed::Role(root, role) => self.set_role(now, root, role, By::Recovery(key), tx),
        }
    }
}
