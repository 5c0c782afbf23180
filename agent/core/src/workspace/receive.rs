//! Holding and accepting what others sealed.
//!
//! Invariant: an envelope is *held*, and so in the frontier, as soon as it is signed by a device that belongs, dense and
//! linked; whether it is *accepted* depends only on held envelopes and ops, never on the order of arrival, and what is
//! not accepted never reaches a document. Spec: docs/sync.md#held-and-accepted.

use bytes::Bytes;
use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::forks::Located;
use super::incarnation::INCARNATIONS_MAX;
use super::outbox::OpsBody;
use crate::checkpoint::Checkpoint;
use crate::content::{Content, Item};
use crate::envelope::{self, Kind, OpenError, VerifiedHead};
use crate::files::{Author, actor_prefix, inspect_change, is_actor_of};
use crate::frontier::Tip;
use crate::id::{ChainId, ChangeHash, Link, OpId, Place};
use crate::membership::{InsertError, Inserted, accepts, evaluate, evaluate_at};
use crate::op::SignedOp;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// What came of taking ops in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// None waits for its parents. An envelope with one that does must not be held yet, or a restart would forget the op.
    pub(super) complete: bool,
    /// What is in since, also what had waited for its parents.
    pub(super) added: Vec<OpId>,
}

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

impl Held {
    /// As stored.
    pub(super) fn parse(row: &[u8]) -> Option<Self> {
        from_bytes(row).ok()
    }
    /// What is known of the envelope at a place.
    pub(super) fn read(place: Place, read: &dyn Read) -> Option<Self> {
        Self::parse(&read.get(Table::Held, &place.to_bytes())?)
    }
}

/// Key of an op in `Table::Ops`.
pub(super) fn op_key(order: u64, id: &OpId) -> Vec<u8> {
    let mut key = order.to_be_bytes().to_vec();
    key.extend(id.0);
    key
}

/// Key of a chain's tip in `Table::Meta`.
pub(super) fn tip_key(chain: ChainId) -> Vec<u8> {
    let mut key = b"tip/".to_vec();
    key.extend(chain.to_bytes());
    key
}

impl Workspace {
    /// A stored envelope came, from whomever; what is held now and was not before.
    pub(super) fn receive(&mut self, now: Timestamp, envelope: Bytes, tx: &Tx<'_>) -> Vec<Place> {
        let mut held = Vec::new();
        let mut next = Some(envelope);
        while let Some(envelope) = next.take() {
            if let Some(place) = self.take_in(now, envelope, tx) {
                held.push(place);
                next = self.parked.take_next(place.chain.signed(), place.seq);
            }
        }
        held
    }

    /// Tries again what something was unknown for.
    pub(super) fn retry_parked(&mut self, now: Timestamp, tx: &Tx<'_>) {
        for envelope in self.parked.take_unknown() {
            self.receive(now, envelope, tx);
        }
    }

    /// Returns where it is held, if it was not before.
    fn take_in(&mut self, now: Timestamp, envelope: Bytes, tx: &Tx<'_>) -> Option<Place> {
        let mut added = Vec::new();
        let place = self.take_in_with(now, envelope, &mut added, tx);
        // The envelope waits or is refused, and its ops are in; or what had waited for them is.
        self.set_aside(&added, tx);
        place
    }

    /// Ops that came in by it and that no envelope we hold carries are `added`.
    fn take_in_with(&mut self, now: Timestamp, envelope: Bytes, added: &mut Vec<OpId>, tx: &Tx<'_>) -> Option<Place> {
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
        let (chain, seq, prev) = (head.header.chain, head.header.seq, head.header.prev);
        if chain.device == self.my_device() {
            self.claims_shown();
        } else if self.is_doubted() {
            // If we went back, this is to be taken in by our next life.
            self.parked.park_unknown(envelope);
            return None;
        }
        if chain.incarnation == 0 || chain.incarnation > INCARNATIONS_MAX {
            self.reject("more lives than a device has");
            return None;
        }
        let Some(Located { place, before }) = self.locate(&head.header, &head.link, tx) else {
            self.parked.park_gap(Place { chain, seq }, envelope);
            return None;
        };
        let held = self.frontier.seq(&place.chain);
        if self.holes.contains(&place) {
            self.fill_hole(now, head, place, &envelope, tx);
            return None;
        }
        if seq <= held && self.dedupes {
            if self.held(place, tx).is_some_and(|held| held.link != head.link) {
                self.reject("fork");
                self.met_other(now, head, place, tx);
            }
            return None;
        }
        if chain.device == self.my_device() && chain.incarnation >= self.own.chain.incarnation {
            // Ours, if it is signed by us, and we do not know it: this replica went back.
            if let Err(error) = head.clone().verify(&self.identity.device.public()) {
                self.reject(error.reason());
                return None;
            }
            self.found_out_rollback(now, chain.incarnation, tx);
        }
        let begins = held == 0 && place.chain.is_branch();
        if seq > held + 1 && !begins {
            self.parked.park_gap(Place { chain, seq }, envelope);
            return None;
        }
        // The first envelope of an incarnation names the last link of the one before, which we may not hold.
        let before = before.map(|before| self.held(before, tx));
        let last = match &before {
            Some(before) => before.as_ref().map(|held| held.link),
            None => Some(if chain.incarnation <= 1 { Link([0; 32]) } else { prev }),
        };
        if seq > held && last != Some(prev) {
            self.reject("wrong link");
            // Signed on top of another envelope than the one that is held: there are two for that place.
            self.met_other(now, head, place, tx);
            return None;
        }
        if begins && !self.admit_branch(place, &head.link, tx) {
            self.reject("too many branches of one fork");
            return None;
        }
        let mut carried = None;
        if head.header.kind == Kind::Ops {
            // Ops stand by themselves: what the envelope names, or its very device, may be in it.
            let body = head.clone().trust_stored().open_body(&self.vault.keyring, &envelope);
            carried = body.ok().and_then(|body| from_bytes::<OpsBody>(&body).ok());
            let taken = carried.as_ref().map(|ops| self.take_ops(ops, tx));
            if let Some(taken) = taken {
                added.extend(taken.added);
                if !taken.complete {
                    self.parked.park_unknown(envelope);
                    return None;
                }
            }
        }
        if !head.header.op_heads.iter().all(|op| self.knows(op)) {
            self.parked.park_unknown(envelope);
            return None;
        }
        // A device belongs to its chain even if who let it in had no right to: what it wrote does not count then, but all
        // must hold the same.
        let known = self.membership.devices.get(&chain.device).cloned().or_else(|| {
            let then = evaluate_at(self.ops.as_ref()?, &head.header.op_heads)?;
            then.devices.get(&chain.device).cloned()
        });
        let Some(device) = known else {
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
        let before = before.flatten().map(|held| held.op_heads).unwrap_or_default();
        self.hold(now, &verified, place, &before, envelope, tx);
        if let Some(ops) = carried {
            let carried = self.is_carried(&ops, tx);
            added.retain(|op| !carried.contains(op));
        }
        Some(place)
    }

    pub(super) fn held(&self, place: Place, read: &dyn Read) -> Option<Held> {
        Held::read(place, read)
    }

    /// Stores a verified envelope, and applies it if it is accepted; `before`: the op heads of the one before it.
    fn hold(
        &mut self,
        now: Timestamp,
        head: &VerifiedHead,
        place: Place,
        before: &[OpId],
        envelope: Bytes,
        tx: &Tx<'_>,
    ) {
        let opened = self.accept(head, before, &envelope);
        if let Ok(Opened::Content(content)) = &opened
            && let Some(why) = self.suspect(now, head, content)
        {
            self.store_held(place, head, &why.to_string(), envelope, tx);
            self.suspend(now, place, why, content, tx);
            return self.beacon_soon(now);
        }
        let refused = opened.as_ref().err().cloned().unwrap_or_default();
        self.store_held(place, head, &refused, envelope, tx);
        match opened {
            Ok(Opened::Content(content)) => {
                let author = Author { chain: head.header().chain, wall_ms: now.wall_ms };
                self.vault.index(&content, &Location::Sealed(place), tx);
                let content = std::sync::Arc::new(content);
                self.vault.remember(Location::Sealed(place), std::sync::Arc::clone(&content));
                let refusals = self.files.handle_content(now, author, &content, &mut self.vault, tx);
                for refusal in refusals {
                    self.reject(&refusal.why.to_string());
                }
            }
            Ok(Opened::Checkpoint(checkpoint)) => self.note_checkpoint(place, head.link(), checkpoint, tx),
            Ok(Opened::Nothing) => {}
            Err(reason) => self.reject(&reason),
        }
        self.beacon_soon(now);
    }

    fn store_held(&mut self, place: Place, head: &VerifiedHead, refused: &str, envelope: Bytes, tx: &Tx<'_>) {
        let held = Held {
            link: head.link(),
            kind: head.header().kind.to_byte(),
            refused: refused.to_owned(),
            op_heads: head.header().op_heads.clone(),
        };
        tx.put(Table::Envelopes, place.to_bytes(), envelope);
        tx.put(Table::Held, place.to_bytes(), to_bytes(&held));
        self.set_tip(place.chain, Tip { seq: place.seq, link: head.link() }, tx);
        self.count_use(head.header().epoch, tx);
    }

    pub(super) fn set_tip(&mut self, chain: ChainId, tip: Tip, tx: &Tx<'_>) {
        let mut row = tip.seq.to_be_bytes().to_vec();
        row.extend(tip.link.0);
        tx.put(Table::Meta, tip_key(chain), row);
        self.frontier.advance(chain, tip);
        self.checkpoints.moved();
    }

    /// Whether what an envelope says counts: a function of it, of its predecessor and of the ops it names.
    pub(super) fn accept(&mut self, head: &VerifiedHead, before: &[OpId], envelope: &[u8]) -> Result<Opened, String> {
        let chain = head.header().chain;
        let ops = self.ops.as_ref().ok_or("not a member here")?;
        accepts(ops, before, head.header().kind, chain, &head.header().op_heads).map_err(|why| why.to_string())?;
        let body = || head.open_body(&self.vault.keyring, envelope).map_err(|error| error.reason().to_owned());
        match head.header().kind {
            Kind::Content => {
                let content: Content = from_bytes(&body()?).map_err(|_| "malformed content")?;
                self.check_changes(chain, head, &content)?;
                Ok(Opened::Content(content))
            }
            Kind::Ops => {
                // Its ops were taken in before it could be judged; each of them stands or falls by itself.
                from_bytes::<OpsBody>(&body()?).map_err(|_| "malformed ops")?;
                Ok(Opened::Nothing)
            }
            Kind::Unknown { critical: true, .. } => Err("of a kind this version does not know: upgrade weft".into()),
            Kind::Checkpoint => {
                let checkpoint = from_bytes(&body()?).map_err(|_| "malformed checkpoint")?;
                Ok(Opened::Checkpoint(checkpoint))
            }
            Kind::Presence
            | Kind::Beacon
            | Kind::Query
            | Kind::Answer
            | Kind::Enough
            | Kind::Credit
            | Kind::Want
            | Kind::Have
            | Kind::KeyPacket
            | Kind::Offer
            | Kind::Unknown { .. } => Ok(Opened::Nothing),
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
                if !is_actor_of(&facts.actor, &prefix) {
                    return Err("change by a foreign actor".into());
                }
                hashes.push(facts.hash);
            }
        }
        if self.leaf_matches(head, &hashes) { Ok(()) } else { Err("change digest differs".into()) }
    }

    fn leaf_matches(&self, head: &VerifiedHead, hashes: &[ChangeHash]) -> bool {
        let epoch = self.vault.keyring.get(&head.header().epoch);
        epoch.and_then(|epoch| epoch.leaf(hashes)).is_some_and(|leaf| leaf == head.header().leaf)
    }

    /// Whether an op is known here.
    pub(super) fn knows(&self, op: &OpId) -> bool {
        self.ops.as_ref().is_some_and(|ops| ops.contains(op))
    }

    /// Stores what is new and evaluates; what follows from it is done by `settle_news`. What is added and in no envelope that
    /// we hold is to be [set aside](Self::set_aside).
    pub(super) fn take_ops(&mut self, body: &OpsBody, tx: &Tx<'_>) -> Taken {
        let Some(ops) = &mut self.ops else { return Taken::default() };
        let mut added = Vec::new();
        let mut complete = true;
        let mut refused = Vec::new();
        for bytes in &body.0 {
            let before = ops.len() as u64;
            match SignedOp::parse(&self.id, bytes).map(|op| ops.insert(op)) {
                Ok(Ok(Inserted::Added(ids))) => added.extend((before..).zip(ids)),
                Ok(Ok(Inserted::Known)) => {}
                Ok(Ok(Inserted::Parked)) => complete = false,
                Ok(Err(InsertError::Full)) => refused.push("too many ops"),
                Ok(Err(_)) => refused.push("op of nobody known here"),
                Err(_) => refused.push("malformed op"),
            }
        }
        for (order, id) in &added {
            if let Some(op) = ops.get(id) {
                tx.put(Table::Ops, op_key(*order, id), op.bytes().clone());
            }
        }
        if !added.is_empty() {
            self.membership = evaluate(ops);
            self.news = true;
        }
        refused.into_iter().for_each(|reason| self.reject(reason));
        Taken { complete, added: added.into_iter().map(|(_, id)| id).collect() }
    }

    /// Does what follows from new ops and keys, until nothing new comes of it.
    pub(super) fn settle_news(&mut self, now: Timestamp, tx: &Tx<'_>) {
        while std::mem::take(&mut self.news) {
            self.membership_changed(now, tx);
        }
    }

    /// Does what follows from a new membership.
    fn membership_changed(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.is_active() && !self.membership.devices.get(&self.my_device()).is_some_and(|device| device.active) {
            self.leave_now(now, tx);
            return;
        }
        self.forks_changed(now, tx);
        self.verdicts_changed(now, tx);
        self.epochs_changed(now, tx);
        self.sync_rooms(now);
        self.retry_parked(now, tx);
    }
}

/// What is in an envelope that counts.
pub(super) enum Opened {
    Content(Content),
    Checkpoint(Checkpoint),
    Nothing,
}
