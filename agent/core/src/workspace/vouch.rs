//! Ops that we know and that no envelope we hold carries.
//!
//! Invariant: what we know of the membership is in some chain sooner or later, so that whoever lacks it can have it from
//! anybody. Why: chains are what is compared and served; an op that is in none reaches nobody who missed the moment.
//!
//! - What we were let in with is said before anything else of ours: who let us in may be put back to a backup from before;
//!   then nobody but us knows the invite. To such a one we are a stranger, whom nobody answers: so it is told directly, by a
//!   notice, whose ops prove themselves.
//! - What came with a key or in a notice its author usually says in an envelope as well; whoever never does, because it
//!   lies or was put back to a backup, has it said by us after a while, and before anything else that we seal meanwhile.
//!
//! Spec: docs/sync.md#joining and docs/sync.md#epochs.

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
pub(super) const VOUCH: &[u8] = b"vouch";

/// Nobody who is there knows us: they are told after this, in milliseconds, ...
const TELL_AFTER_MS: u64 = 3_000;
/// ... and again after this.
const TELL_AGAIN_MS: u64 = 15_000;
/// An op that came beside the chains is said by us if no envelope brought it for so long, ...
const ASIDE_MS: u64 = 60_000;
/// ... and up to so much more: one says it, and the others hear that.
const ASIDE_JITTER_MS: u64 = 60_000;

/// The ids of those ops.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Vouch {
    /// Those we were let in with.
    ops: BTreeSet<OpId>,
    /// Those that are in and that no held envelope carries. All of them: what is sealed names the heads of what is in.
    aside: BTreeSet<OpId>,
    tell_mono: Option<u64>,
    /// When those in `aside` are said.
    say_mono: Option<u64>,
}

impl Wire for Vouch {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2);
        for ops in [&self.ops, &self.aside] {
            writer.list(&ops.iter().copied().collect::<Vec<_>>());
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "vouch")?;
        let ops: Vec<OpId> = reader.list(OPS_MAX, "ops")?;
        let aside: Vec<OpId> = reader.list(OPS_MAX, "ops aside")?;
        Ok(Self { ops: ops.into_iter().collect(), aside: aside.into_iter().collect(), tell_mono: None, say_mono: None })
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

    /// Takes in ops that came beside the chains.
    pub(super) fn take_ops_aside(&mut self, ops: &[SignedOp], tx: &Tx<'_>) {
        let taken = self.take_ops(&OpsBody(ops.iter().map(|op| op.bytes().clone()).collect()), tx);
        self.set_aside(&taken.added, tx);
    }

    /// No envelope that we hold carries these, which are in.
    pub(super) fn set_aside(&mut self, ops: &[OpId], tx: &Tx<'_>) {
        if !ops.is_empty() {
            self.vouch.aside.extend(ops);
            self.keep_vouch(tx);
        }
    }

    /// An envelope that carries these is held. Returns which.
    pub(super) fn is_carried(&mut self, body: &OpsBody, tx: &Tx<'_>) -> BTreeSet<OpId> {
        let carried: BTreeSet<OpId> =
            body.0.iter().filter_map(|bytes| SignedOp::parse(&self.id, bytes).ok()).map(|op| op.id()).collect();
        let before = self.vouch.ops.len() + self.vouch.aside.len();
        self.vouch.ops.retain(|op| !carried.contains(op));
        self.vouch.aside.retain(|op| !carried.contains(op));
        if self.vouch.ops.len() + self.vouch.aside.len() < before {
            self.keep_vouch(tx);
        }
        carried
    }

    /// What we were let in with, if some is left when we may speak, goes into our own chain.
    pub(super) fn vouch(&mut self, tx: &Tx<'_>) {
        let ops = std::mem::take(&mut self.vouch.ops);
        self.say_ops(&ops, tx);
    }

    /// Puts those of these ops that are known into our own chain.
    fn say_ops(&mut self, ops: &BTreeSet<OpId>, tx: &Tx<'_>) {
        if ops.is_empty() {
            return;
        }
        let known: Vec<_> = self.parents_first(ops).into_iter().map(|op| op.bytes().clone()).collect();
        for some in known.chunks(OPS_PER_ENVELOPE_MAX) {
            self.outbox.push(&Batch::Ops(OpsBody(some.to_vec())), tx);
        }
        self.keep_vouch(tx);
    }

    fn parents_first(&self, these: &BTreeSet<OpId>) -> Vec<&SignedOp> {
        self.ops.iter().flat_map(OpSet::ops).filter(|op| these.contains(&op.id())).collect()
    }

    /// Whether nobody can know us yet, as far as we can tell.
    fn is_stranger(&self) -> bool {
        !self.vouch.ops.is_empty() && self.is_active() && !self.paused && !self.may_seal()
    }

    pub(super) fn vouch_deadline(&self) -> Option<u64> {
        [self.vouch.tell_mono, self.vouch.say_mono].into_iter().flatten().min()
    }

    /// How many ops are in and in no chain yet.
    pub(super) fn unsaid(&self) -> usize {
        self.vouch.aside.len()
    }

    /// Says what came beside the chains and that nobody else said in time.
    pub(super) fn run_aside(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.vouch.aside.is_empty() || !self.may_seal() {
            self.vouch.say_mono = None;
            return;
        }
        if self.vouch.say_mono.is_none() {
            self.vouch.say_mono = Some(now.after_ms(ASIDE_MS + self.jitter(ASIDE_JITTER_MS)));
        }
        if self.vouch.say_mono.is_some_and(|due| due <= now.mono_ms) {
            self.vouch.say_mono = None;
            self.say_aside(None, tx);
        }
    }

    /// Puts what came beside the chains into our own, before an envelope of ours names it: who does not know an op that an
    /// envelope names waits for it, and it would wait behind that envelope for ever. All `but` one, which they have otherwise.
    pub(super) fn say_aside(&mut self, but: Option<OpId>, tx: &Tx<'_>) {
        let mut unsaid = std::mem::take(&mut self.vouch.aside);
        self.vouch.aside.extend(but.filter(|but| unsaid.remove(but)));
        self.say_ops(&unsaid, tx);
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
        let parts = in_parts(self.parents_first(&self.vouch.ops));
        let routes: BTreeMap<DeviceId, Route> = self.links.routes().map(|(route, device)| (device, route)).collect();
        for (device, route) in routes {
            let kem = self.membership.devices.get(&device).filter(|facts| facts.active).map(|facts| facts.public.kem);
            if let Some(kem) = kem {
                self.send_notices(route, &kem, &parts);
            }
        }
    }

    fn keep_vouch(&self, tx: &Tx<'_>) {
        if self.vouch.ops.is_empty() && self.vouch.aside.is_empty() {
            tx.delete(Table::Meta, VOUCH);
        } else {
            tx.put(Table::Meta, VOUCH, to_bytes(&self.vouch));
        }
    }
}
