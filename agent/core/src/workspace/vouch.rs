//! Ops that we were let in with and that no envelope we hold carries.
//!
//! Invariant: what a newcomer knows of the membership is in some chain before it says anything else, so that whoever lost
//! it can have it again. Why: who let us in may be put back to a backup from before; then nobody but us knows the
//! invite, and our own envelopes name ops that it can get nowhere. Spec: docs/sync.md#joining.

use std::collections::BTreeSet;

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::outbox::{Batch, OPS_PER_ENVELOPE_MAX, OpsBody};
use crate::id::OpId;
use crate::op::SignedOp;
use crate::store::{Read, Table, Tx};

/// The row that lists them.
const VOUCH: &[u8] = b"vouch";

/// The ids of those ops.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Vouch(BTreeSet<OpId>);

impl Wire for Vouch {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.0.iter().copied().collect::<Vec<_>>());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.list(crate::membership::OPS_MAX, "ops").map(|ops: Vec<OpId>| Self(ops.into_iter().collect()))
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
        self.vouch = Vouch(ops.collect());
        self.keep_vouch(tx);
    }

    /// An envelope that carries these is held.
    pub(super) fn is_carried(&mut self, body: &OpsBody, tx: &Tx<'_>) {
        if self.vouch.0.is_empty() {
            return;
        }
        let before = self.vouch.0.len();
        for op in body.0.iter().filter_map(|bytes| SignedOp::parse(&self.id, bytes).ok()) {
            self.vouch.0.remove(&op.id());
        }
        if self.vouch.0.len() < before {
            self.keep_vouch(tx);
        }
    }

    /// What is left when we may speak goes into our own chain.
    pub(super) fn vouch(&mut self, tx: &Tx<'_>) {
        let left = std::mem::take(&mut self.vouch.0);
        if left.is_empty() {
            return;
        }
        // Parents first, as they were taken in.
        let ops: Vec<_> = self.ops.iter().flat_map(|ops| ops.ops()).filter(|op| left.contains(&op.id())).collect();
        for some in ops.chunks(OPS_PER_ENVELOPE_MAX) {
            let body = OpsBody(some.iter().map(|op| op.bytes().clone()).collect());
            self.outbox.push(&Batch::Ops(body), tx);
        }
        self.keep_vouch(tx);
    }

    fn keep_vouch(&self, tx: &Tx<'_>) {
        if self.vouch.0.is_empty() {
            tx.delete(Table::Meta, VOUCH);
        } else {
            tx.put(Table::Meta, VOUCH, to_bytes(&self.vouch));
        }
    }
}
