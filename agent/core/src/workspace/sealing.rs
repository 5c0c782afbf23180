//! Turning the outbox into envelopes.
//!
//! Invariant: an envelope is sealed once, and only when nobody can have seen another one under its number: the watermark
//! does not contradict the database, and a peer said on this connection how far it holds our chain. Why: sealing settles
//! number, epoch and nonce for ever; and as long as nobody is there, nothing is gained by it: a backup from before the
//! first joiner, watermark and all, looks just like a founder who is still alone.
//! Spec: docs/sync.md#sealing.

use bytes::Bytes;
use weft_protocol::cbor::to_bytes;
use weft_protocol::frame::ClientFrame;

use super::Workspace;
use super::links::BULK_QUEUED_BYTES_MAX;
use super::outbox::Batch;
use super::output::Rank;
use super::receive::Held;
use crate::content::{Content, Item};
use crate::envelope::OP_HEADS_MAX;
use crate::envelope::{self, Draft, Kind};
use crate::files::inspect_change;
use crate::frontier::Tip;
use crate::id::{ChangeHash, EpochId, Link, Place};
use crate::keyring::Sealing;
use crate::membership::{OpSet, Role};
use crate::op::OpBody;
use crate::store::{Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// Plain bytes put into one envelope together.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Envelopes sealed in one go, so that a large import does not keep the machine from anything else.
const SEALED_AT_ONCE_MAX: usize = 16;
/// More than this sealed in one go is not pushed to everybody: peers pull it, each at its own speed.
const LIVE_BYTES_MAX: usize = 512 * 1024;

impl Workspace {
    /// The epoch to seal under now.
    pub(super) fn sealing_epoch(&self) -> Option<EpochId> {
        match self.vault.keyring.sealing(&self.membership) {
            Sealing::Under(epoch) => Some(epoch),
            Sealing::Lacking(_) | Sealing::Mint => None,
        }
    }

    /// Whether ours is the only active device.
    pub(super) fn is_alone(&self) -> bool {
        let me = self.my_device();
        self.is_active() && self.membership.active_devices().all(|(device, _)| *device == me)
    }

    pub(super) fn may_seal(&self) -> bool {
        // What stands on something that may not count any more is not settled for ever before that is known.
        let judged = self.verdicts.is_settled();
        let met = self.links.0.values().any(|link| link.reconciled);
        // ... nor what stands on a checkpoint that was not compared with what was signed.
        let proven = !self.checkpoints.is_taking();
        let ours = !self.own_chain_is_forked() && !self.is_doubted();
        judged && proven && ours && self.is_active() && !self.paused && !self.reborn && met
    }

    pub(super) fn is_writer(&self) -> bool {
        self.membership.role_of(&self.my_device()).is_some_and(|role| role >= Role::Writer)
    }

    /// Whether something waits that could be sealed at once. A reader's edits stay here until it is promoted.
    fn has_work(&self) -> bool {
        !self.stuck && self.may_seal() && self.outbox.has_any(self.is_writer())
    }

    pub(super) fn sealing_deadline(&self) -> Option<u64> {
        (self.has_work() && self.sealing_epoch().is_some()).then_some(self.last_mono)
    }

    /// The op heads an envelope sealed now names. All of them are in envelopes already, or in the one being sealed: ops
    /// leave the outbox first, and who receives an ops envelope takes in its ops before it judges it.
    pub(super) fn named_heads(&self) -> Vec<crate::id::OpId> {
        let mut heads = self.ops.as_ref().map(OpSet::heads).unwrap_or_default();
        heads.truncate(OP_HEADS_MAX);
        heads
    }

    /// Stores content that was taken in here.
    pub(super) fn enqueue_content(&mut self, content: Content, tx: &Tx<'_>) {
        let batch = Batch::Content(content);
        let order = self.outbox.push(&batch, tx);
        if let Batch::Content(content) = batch {
            self.vault.index(&content, &Location::Unsealed(order), tx);
            self.vault.remember(Location::Unsealed(order), std::sync::Arc::new(content));
        }
    }

    /// Seals what may be sealed, and sends it to those who are there.
    pub(super) fn seal(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.may_seal() {
            self.vouch(tx);
        }
        if !self.has_work() {
            return;
        }
        let Some(epoch) = self.sealing_epoch() else {
            self.mint_soon(now);
            return;
        };
        // What is sealed names them. But who lacks the key that we seal under could not read its op there: that comes with the
        // key's packet.
        let op = self.membership.epochs.get(&epoch).map(|facts| facts.op);
        self.say_aside(op, tx);
        let heads = self.ops.as_ref().map(OpSet::heads).unwrap_or_default();
        if heads.len() > OP_HEADS_MAX {
            // An envelope names at most so many heads: one op on top of all of them makes them one.
            // The genesis: whoever endorsed one of the heads would vote where owners decide together.
            if let Some(op) = self.ops.as_ref().map(|ops| ops.genesis().op_id()) {
                self.issue(now, OpBody::Endorse { op }, tx);
            }
        }
        let writer = self.is_writer();
        let mut live = Vec::new();
        let mut live_bytes = 0;
        for _ in 0..SEALED_AT_ONCE_MAX {
            let Some((orders, batch)) = self.outbox.front(BATCH_BYTES_MAX, writer, tx) else { break };
            let Some(sealed) = self.seal_batch(epoch, &batch, tx) else { break };
            self.outbox.remove(&orders, tx);
            live_bytes += sealed.len();
            if live_bytes <= LIVE_BYTES_MAX {
                live.push(sealed);
            }
        }
        self.vault.forget_unsealed();
        let rooms = self.links.peopled_rooms();
        let busy = self.links.0.values().any(|link| link.queued_bytes > 4 * BULK_QUEUED_BYTES_MAX);
        if live_bytes <= LIVE_BYTES_MAX && !busy {
            for envelope in live {
                for (link, room, room_epoch) in &rooms {
                    if *room_epoch == epoch {
                        let payload = envelope.clone();
                        self.send(*link, Rank::Live, ClientFrame::Publish { room: *room, payload });
                    }
                }
            }
            self.beacon_soon(now);
        } else {
            self.send_beacons(now);
        }
    }

    /// Seals one batch as the next envelope of our chain, and stores it.
    pub(super) fn seal_batch(&mut self, epoch: EpochId, batch: &Batch, tx: &Tx<'_>) -> Option<Bytes> {
        let (kind, body, changes) = match batch {
            Batch::Content(content) => (Kind::Content, to_bytes(content), change_hashes(content)),
            Batch::Ops(ops) => (Kind::Ops, to_bytes(ops), Vec::new()),
            Batch::Checkpoint(body) => (Kind::Checkpoint, body.to_vec(), Vec::new()),
        };
        let place = Place { chain: self.own.chain, seq: self.own.tip.map_or(1, |tip| tip.seq + 1) };
        let op_heads = self.named_heads();
        let draft = Draft {
            kind,
            epoch: self.vault.keyring.get(&epoch)?.as_ref(),
            chain: place.chain,
            seq: place.seq,
            prev: self.own.tip.map_or(self.own_first_link(), |tip| tip.link),
            op_heads: op_heads.clone(),
            body: &body,
            leaf_changes: &changes,
        };
        let sealed = match envelope::seal(draft, &self.id, &self.identity.device, &mut self.rng) {
            Ok(sealed) => sealed,
            Err(error) => {
                // Sealing it again would fail again; what waits behind it must not overtake it.
                self.stuck = true;
                self.problem(format!("A change could not be sealed and stays on this computer: {error}"));
                return None;
            }
        };
        let bytes = sealed.sealed.bytes().clone();
        let held = Held { link: sealed.link, kind: kind.to_byte(), refused: String::new(), op_heads };
        tx.put(Table::Envelopes, place.to_bytes(), bytes.clone());
        tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
        let tip = Tip { seq: place.seq, link: sealed.link };
        self.own.tip = Some(tip);
        self.set_tip(place.chain, tip, tx);
        self.count_own_use(epoch, tx);
        if let Batch::Content(content) = batch {
            self.vault.index(content, &Location::Sealed(place), tx);
            self.sealed_on(content);
        }
        Some(bytes)
    }

    /// What the first envelope of our chain names as its predecessor: nothing, or the end of the incarnation before.
    fn own_first_link(&self) -> Link {
        let chain = self.own.chain;
        (1..chain.incarnation)
            .rev()
            .find_map(|incarnation| self.frontier.tip(&crate::id::ChainId { device: chain.device, incarnation }))
            .map_or(Link([0; 32]), |tip| tip.link)
    }
}

/// The hashes of all changes, in order, as the header's digest has them.
fn change_hashes(content: &Content) -> Vec<ChangeHash> {
    content
        .documents
        .iter()
        .flat_map(|(_, items)| items)
        .filter_map(|item| match item {
            Item::Change(bytes) => inspect_change(bytes).ok().map(|facts| facts.hash),
            Item::Version { .. } | Item::Founded { .. } => None,
        })
        .collect()
}
