//! Ops that we were let in with and that no envelope we hold carries.
//!
//! Invariant: what a newcomer knows of the membership is in some chain before it says anything else, so that whoever lost
//! it can have it again. Why: who let us in may be put back to a backup from before; then nobody but us knows the
//! invite, and our own envelopes name ops that it can get nowhere. To such a one we are a stranger, whom nobody answers: so
//! it is told directly, by a notice, whose ops prove themselves. Spec: docs/sync.md#joining.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::links::Route;
use super::notices::in_parts;
use super::outbox::{Batch, OPS_PER_ENVELOPE_MAX, OpsBody};
use crate::id::{DeviceId, OpId};
use crate::membership::{OPS_MAX, OpSet};
use crate::op::SignedOp;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// The row that lists them.
const VOUCH: &[u8] = b"vouch";

/// Nobody who is there knows us: they are told after this, in milliseconds, ...
const TELL_AFTER_MS: u64 = 3_000;
/// ... and again after this.
const TELL_AGAIN_MS: u64 = 15_000;

/// The ids of those ops.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Vouch {
    ops: BTreeSet<OpId>,
    tell_mono: Option<u64>,
}

impl Wire for Vouch {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.ops.iter().copied().collect::<Vec<_>>());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let ops: Vec<OpId> = reader.list(OPS_MAX, "ops")?;
        Ok(Self { ops: ops.into_iter().collect(), tell_mono: None })
    }
}

impl Vouch {
    pub(super) fn open(read: &dyn Read) -> Self {
        read.get(Table::Meta, VOUCH).and_then(|row| from_bytes(&row).ok()).unwrap_or_default()
    }
}

impl Workspace {
    /// We were let in with these.
    pub(super) fn let_in_with(&mut self, ops: impl Iterator<Item = OpId>, tx: &Tx<'_>) {
        self.vouch.ops = ops.collect();
        self.keep_vouch(tx);
    }

    /// An envelope that carries these is held.
    pub(super) fn is_carried(&mut self, body: &OpsBody, tx: &Tx<'_>) {
        if self.vouch.ops.is_empty() {
            return;
        }
        let before = self.vouch.ops.len();
        for op in body.0.iter().filter_map(|bytes| SignedOp::parse(&self.id, bytes).ok()) {
            self.vouch.ops.remove(&op.id());
        }
        if self.vouch.ops.len() < before {
            self.keep_vouch(tx);
        }
    }

    /// What is left when we may speak goes into our own chain.
    pub(super) fn vouch(&mut self, tx: &Tx<'_>) {
        if self.vouch.ops.is_empty() {
            return;
        }
        let ops: Vec<_> = self.ops_to_vouch_for().into_iter().map(|op| op.bytes().clone()).collect();
        for some in ops.chunks(OPS_PER_ENVELOPE_MAX) {
            self.outbox.push(&Batch::Ops(OpsBody(some.to_vec())), tx);
        }
        self.vouch.ops.clear();
        self.keep_vouch(tx);
    }

    /// Those ops, parents first.
    fn ops_to_vouch_for(&self) -> Vec<&SignedOp> {
        self.ops.iter().flat_map(OpSet::ops).filter(|op| self.vouch.ops.contains(&op.id())).collect()
    }

    /// Whether nobody can know us yet, as far as we can tell.
    fn is_stranger(&self) -> bool {
        !self.vouch.ops.is_empty() && self.is_active() && !self.paused && !self.may_seal()
    }

    pub(super) fn vouch_deadline(&self) -> Option<u64> {
        self.vouch.tell_mono
    }

    /// Tells those who are there who we are, if nobody answers us for a while.
    pub(super) fn run_vouch(&mut self, now: Timestamp) {
        if !self.is_stranger() {
            self.vouch.tell_mono = None;
            return;
        }
        let due = *self.vouch.tell_mono.get_or_insert(now.after_ms(TELL_AFTER_MS));
        if due > now.mono_ms {
            return;
        }
        self.vouch.tell_mono = Some(now.after_ms(TELL_AGAIN_MS));
        let parts = in_parts(self.ops_to_vouch_for());
        let routes: BTreeMap<DeviceId, Route> = self.links.routes().map(|(route, device)| (device, route)).collect();
        for (device, route) in routes {
            let kem = self.membership.devices.get(&device).filter(|facts| facts.active).map(|facts| facts.public.kem);
            if let Some(kem) = kem {
                self.send_notices(route, &kem, &parts);
            }
        }
    }

    fn keep_vouch(&self, tx: &Tx<'_>) {
        if self.vouch.ops.is_empty() {
            tx.delete(Table::Meta, VOUCH);
        } else {
            tx.put(Table::Meta, VOUCH, to_bytes(&self.vouch));
        }
    }
}
