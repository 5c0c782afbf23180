//! Telling the members which account is ours.
//!
//! Invariant: an op is made only if it changes what others see. Why: the shell asks at every start, and every op stays in
//! the history for ever. Spec: docs/sealing.md#attestation.

use super::Workspace;
use super::command::Reply;
use crate::attestation;
use crate::membership::{ATTESTED_MAX, Lawful};
use crate::op::OpBody;
use crate::store::Tx;
use crate::time::Timestamp;

impl Workspace {
    /// Says in the membership that this member is this DID, as its root signed.
    pub(super) fn attest(&mut self, now: Timestamp, did: String, proof: &[u8], tx: &Tx<'_>) -> Reply {
        let root = self.identity.root_public.sign;
        let member = self.membership.members.get(&root).filter(|_| self.is_active());
        let Some(member) = member else {
            return self.not_in();
        };
        if !attestation::holds(&root, &did, proof) {
            return Reply::Refused("Your root key did not sign this account; `weft identity attest` again.".into());
        }
        match member.attested.get(&did) {
            Some(known) if known == proof => return Reply::Done,
            Some(_) => {}
            // The state keeps those that sort first; another one would be said again at every start, and never be seen.
            None if member.attested.len() >= ATTESTED_MAX && member.attested.keys().all(|known| *known < did) => {
                return Reply::Refused(format!("You name {ATTESTED_MAX} accounts here already; more are not shown."));
            }
            None => {}
        }
        let op = self.sign_op(now, OpBody::Attest { identity: did, proof: proof.to_vec() });
        let Some(op) = op.filter(|op| self.judge(op) == Lawful::Yes) else {
            return Reply::Refused("This device may not speak for its member here any more.".into());
        };
        self.publish_op(&op, tx);
        Reply::Done
    }
}
