//! Holding and accepting what others sealed.
//!
//! Invariant: an envelope is *held*, and so in the frontier, as soon as it is signed by a device that belongs, dense and
//! linked; whether it is *accepted* depends only on held envelopes and ops, never on the order of arrival, and what is
//! not accepted never reaches a document. Spec: docs/sync.md#held-and-accepted.

use bytes::Bytes;
use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::outbox::OpsBody;
use crate::content::{Content, Item};
use crate::envelope::{self, Kind, OpenError, VerifiedHead};
use crate::files::{Author, actor_prefix, inspect_change};
use crate::frontier::Tip;
use crate::id::{ChainId, ChangeHash, Link, OpId, Place};
use crate::membership::Role;
use crate::op::SignedOp;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// What is remembered of a held envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) link: Link,
    pub(super) kind: u8,
    /// Empty if accepted, else why not.
    pub(super) refused: String,
    pub(super) op_heads: Vec<OpId>,
}

impl Wire for Held {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).item(&self.link).uint(u64::from(self.kind)).text(&self.refused).list(&self.op_heads);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "held")?;
        Ok(Self {
            link: reader.item()?,
            kind: reader.uint_up_to(255, "kind")? as u8,
            refused: reader.text_up_to(256, "reason")?.to_owned(),
            op_heads: reader.list(8, "heads")?,
        })
    }
}

/// Key of a chain's tip in `Table::Meta`.
pub(super) fn tip_key(chain: ChainId) -> Vec<u8> {
    let mut key = b"tip/".to_vec();
    key.extend(chain.to_bytes());
    key
}

impl Workspace {
    /// A stored envelope came, from whomever.
    pub(super) fn receive(&mut self, now: Timestamp, envelope: Bytes, tx: &Tx<'_>) {
        let mut next = Some(envelope);
        while let Some(envelope) = next.take() {
            if let Some(chain) = self.take_in(now, envelope, tx) {
                let seq = self.frontier.seq(&chain);
                next = self.parked.take_next(chain, seq);
            }
        }
    }

    /// Tries again what something was unknown for.
    pub(super) fn retry_parked(&mut self, now: Timestamp, tx: &Tx<'_>) {
        for envelope in self.parked.take_unknown() {
            self.receive(now, envelope, tx);
        }
    }

    /// Returns the chain if it is held further than before.
    fn take_in(&mut self, now: Timestamp, envelope: Bytes, tx: &Tx<'_>) -> Option<ChainId> {
        let head = match envelope::open_head(&self.id, &self.vault.keyring, &envelope) {
            Ok(head) => head,
            Err(OpenError::UnknownEpoch) => {
                self.parked.park_unknown(envelope);
                return None;
            }
            Err(error) => {
                self.reject(error.reason());
                return None;
            }
        };
        let (chain, seq, prev) = (head.head().chain, head.head().seq, head.head().prev);
        let held = self.frontier.seq(&chain);
        if seq <= held {
            if self.held(Place { chain, seq }, tx).is_some_and(|held| held.link != head.link()) {
                self.reject("fork");
            }
            return None;
        }
        if chain.device == self.my_device() && chain.incarnation >= self.own.chain.incarnation {
            // Ours, and we do not know it: this replica went back. `note_own_chains` hears of it from a statement.
            self.found_out_rollback(now, chain.incarnation, tx);
            return None;
        }
        if seq > held + 1 {
            self.parked.park_gap(Place { chain, seq }, envelope);
            return None;
        }
        if prev != self.frontier.tip(&chain).map_or_else(|| self.first_link(chain, head.head().prev), |tip| tip.link) {
            self.reject("wrong link");
            return None;
        }
        if !head.head().op_heads.iter().all(|op| self.ops.contains(op)) {
            self.parked.park_unknown(envelope);
            return None;
        }
        let Some(device) = self.membership.devices.get(&chain.device) else {
            self.parked.park_unknown(envelope);
            return None;
        };
        let verified = match head.verify(&device.public) {
            Ok(verified) => verified,
            Err(error) => {
                self.reject(error.reason());
                return None;
            }
        };
        self.hold(now, &verified, envelope, tx);
        Some(chain)
    }

    /// The first envelope of an incarnation names the last link of the one before, which we may not hold.
    fn first_link(&self, chain: ChainId, named: Link) -> Link {
        if chain.incarnation <= 1 { Link([0; 32]) } else { named }
    }

    pub(super) fn held(&self, place: Place, read: &dyn Read) -> Option<Held> {
        from_bytes(&read.get(Table::Held, &place.to_bytes())?).ok()
    }

    /// Stores a verified envelope, and applies it if it is accepted.
    fn hold(&mut self, now: Timestamp, head: &VerifiedHead, envelope: Bytes, tx: &Tx<'_>) {
        let place = Place { chain: head.head().chain, seq: head.head().seq };
        let opened = self.accept(head, &envelope, tx);
        let refused = opened.as_ref().err().cloned().unwrap_or_default();
        self.store_held(place, head, &refused, envelope, tx);
        match opened {
            Ok(Opened::Content(content)) => {
                let author = Author { chain: place.chain, wall_ms: now.wall_ms };
                self.vault.index(&content, &Location::Sealed(place), tx);
                let content = std::sync::Arc::new(content);
                self.vault.remember(Location::Sealed(place), std::sync::Arc::clone(&content));
                let refusals = self.files.handle_content(now, author, &content, &mut self.vault, tx);
                for refusal in refusals {
                    self.reject(refusal.reason());
                }
            }
            Ok(Opened::Ops(ops)) => self.add_ops(now, &ops, tx),
            Ok(Opened::Nothing) => {}
            Err(reason) => self.reject(&reason),
        }
        self.beacon_soon(now);
    }

    fn store_held(&mut self, place: Place, head: &VerifiedHead, refused: &str, envelope: Bytes, tx: &Tx<'_>) {
        let held = Held {
            link: head.link(),
            kind: head.head().kind.number(),
            refused: refused.to_owned(),
            op_heads: head.head().op_heads.clone(),
        };
        tx.put(Table::Envelopes, place.to_bytes(), envelope);
        tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
        self.set_tip(place.chain, Tip { seq: place.seq, link: head.link() }, tx);
    }

    pub(super) fn set_tip(&mut self, chain: ChainId, tip: Tip, tx: &Tx<'_>) {
        let mut row = tip.seq.to_be_bytes().to_vec();
        row.extend(tip.link.0);
        tx.put(Table::Meta, tip_key(chain), row);
        self.frontier.advance(chain, tip);
    }

    /// Whether what an envelope says counts: a function of it, of its predecessor and of the ops it names.
    fn accept(&mut self, head: &VerifiedHead, envelope: &[u8], read: &dyn Read) -> Result<Opened, String> {
        let chain = head.head().chain;
        let Some(then) = self.ops.evaluate_at(&head.head().op_heads) else { return Err("unknown heads".into()) };
        let role = then.role_of(&chain.device).ok_or("not a member at its heads")?;
        if head.head().seq > 1 {
            let place = Place { chain, seq: head.head().seq - 1 };
            let before = self.held(place, read).map(|held| held.op_heads).unwrap_or_default();
            if !self.ops.is_at_or_after(&head.head().op_heads, &before) {
                return Err("heads behind its predecessor".into());
            }
        }
        let body = || head.open_body(&self.vault.keyring, envelope).map_err(|error| error.reason().to_owned());
        match head.head().kind {
            Kind::Content => {
                if role < Role::Writer {
                    return Err("not a writer at its heads".into());
                }
                let content: Content = from_bytes(&body()?).map_err(|_| "malformed content")?;
                self.check_changes(chain, head, &content)?;
                Ok(Opened::Content(content))
            }
            Kind::Ops => {
                let ops: OpsBody = from_bytes(&body()?).map_err(|_| "malformed ops")?;
                Ok(Opened::Ops(ops))
            }
            Kind::Unknown { critical: true, .. } => Err("of a kind this version does not know: upgrade weft".into()),
            _ => Ok(Opened::Nothing),
        }
    }

    /// Every change is whole, by an actor of this chain, and digested in the signed header.
    fn check_changes(&self, chain: ChainId, head: &VerifiedHead, content: &Content) -> Result<(), String> {
        let prefix = actor_prefix(&self.id, chain);
        let mut hashes: Vec<ChangeHash> = Vec::new();
        for (_, items) in &content.documents {
            for item in items {
                let Item::Change(bytes) = item else { continue };
                let facts = inspect_change(bytes).map_err(|_| "malformed change")?;
                if !facts.actor.starts_with(&prefix) {
                    return Err("change by a foreign actor".into());
                }
                hashes.push(facts.hash);
            }
        }
        if head.leaf_matches(&self.vault.keyring, &hashes) { Ok(()) } else { Err("change digest differs".into()) }
    }

    /// Ops came in an envelope, in an answer, or were made here. Returns nothing: what is new shows in the membership.
    pub(super) fn add_ops(&mut self, now: Timestamp, ops: &OpsBody, tx: &Tx<'_>) {
        let mut news = false;
        for bytes in &ops.0 {
            match SignedOp::parse(bytes) {
                Ok(op) => {
                    for op in self.ops.insert(op) {
                        tx.put(Table::Ops, op.id().0, op.bytes().to_vec());
                        news = true;
                    }
                }
                Err(_) => self.reject("malformed op"),
            }
        }
        if news {
            self.membership_changed(now, tx);
        }
    }

    /// Evaluates anew, and does what follows from it.
    pub(super) fn membership_changed(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.membership = self.ops.evaluate();
        if self.is_active() && !self.membership.devices.get(&self.my_device()).is_some_and(|device| device.active) {
            self.leave_now(now, tx);
            return;
        }
        self.epochs_changed(now, tx);
        self.sync_rooms(now);
        self.retry_parked(now, tx);
    }
}

enum Opened {
    Content(Content),
    Ops(OpsBody),
    Nothing,
}
