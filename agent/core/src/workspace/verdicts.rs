//! Which held envelopes count, now that more is known of who belonged, and the documents made to follow.
//!
//! Most envelopes are judged once, when they come. Only what was written beyond the end of its author's membership, and
//! what was built on that, may be judged otherwise later: then all are judged together, by the pure function
//! [`settle`], and documents that hold something void are built anew. Invariant: what is in the documents is what
//! [`settle`] accepts, whatever came first; what a person here made on top of something void is entered again.
//! Spec: docs/sealing.md#acceptance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use super::Workspace;
use super::incarnation::INCARNATIONS_MAX;
use super::outbox::{Batch, Outbox};
use super::output::Output;
use super::receive::Held;
use crate::content::{Content, DocumentName, Item};
use crate::envelope::{Kind, VerifiedHead};
use crate::files::{self, Author, Halt, inspect_change};
use crate::id::{ChainId, Link, Place};
use crate::membership::{Envelope, Refused, Verdict, above, builders, ends_before, settle};
use crate::store::{Read, Table, Tx, rows};
use crate::time::Timestamp;
use crate::vault::Location;

/// Rows of what does not count: this ‖ place.
const VOID: &[u8] = b"void/";
/// What makes a judgement necessary often comes in many pieces: it waits this long for more of them, in milliseconds.
const SOON_MS: u64 = 100;

/// One envelope that does not count, and what others might build on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct VoidEnvelope {
    why: String,
    /// Hashes of its changes and versions.
    holds: Vec<[u8; 32]>,
}

impl Wire for VoidEnvelope {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).text(&self.why).array(self.holds.len());
        for hash in &self.holds {
            writer.bytes(hash);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "void envelope")?;
        let why = reader.text_up_to(256, "reason")?.to_owned();
        let len = reader.array_up_to(1 << 20, "hashes")?;
        let mut holds = Vec::new();
        for _ in 0..len {
            holds.push(reader.fixed("hash")?);
        }
        Ok(Self { why, holds })
    }
}

/// What does not count, and whether that is to be judged again.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    void: BTreeMap<Place, VoidEnvelope>,
    /// How many of them hold each change and version.
    held: BTreeMap<[u8; 32], u32>,
    /// Changes and versions that count, in envelopes that stand on what one of them holds too, directly or through others:
    /// whoever goes on with those supports what does not count.
    above: BTreeSet<[u8; 32]>,
    due_mono: Option<u64>,
}

impl Verdicts {
    pub(super) fn open(read: &dyn Read) -> Self {
        // Whether a crash came between new ops and their verdicts is not known: judge again if there is anything to judge.
        let mut verdicts = Self { due_mono: Some(0), ..Self::default() };
        for (key, value) in rows(read, Table::Meta, VOID, 512) {
            let place = key.get(VOID.len()..).and_then(|place| place.try_into().ok()).map(Place::from_bytes);
            if let (Some(place), Ok(envelope)) = (place, from_bytes(&value)) {
                verdicts.insert(place, envelope);
            }
        }
        verdicts
    }
    fn insert(&mut self, place: Place, envelope: VoidEnvelope) {
        self.remove(&place);
        for hash in &envelope.holds {
            *self.held.entry(*hash).or_default() += 1;
        }
        self.void.insert(place, envelope);
    }
    fn remove(&mut self, place: &Place) {
        for hash in self.void.remove(place).into_iter().flat_map(|envelope| envelope.holds) {
            if let Some(count) = self.held.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&hash);
                }
            }
        }
    }
    /// How many do not count, by reason.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for envelope in self.void.values() {
            *counts.entry(envelope.why.clone()).or_default() += 1;
        }
        counts
    }
    /// Why what is at a place does not count.
    pub(super) fn why(&self, place: &Place) -> Option<String> {
        self.void.get(place).map(|envelope| envelope.why.clone())
    }
    /// Where what does not count is.
    pub(super) fn void_places(&self) -> impl Iterator<Item = Place> {
        self.void.keys().copied()
    }
    pub(super) fn is_settled(&self) -> bool {
        self.due_mono.is_none()
    }
    /// Whether what a content builds on, or starts from, is in something that does not count.
    fn hold_what_is_below(&self, facts: &Facts) -> bool {
        facts.deps.iter().any(|hash| self.held.contains_key(hash))
            || facts.starts.iter().any(|start| self.held.range(starting(start)).next().is_some())
    }
    /// Whether a content that counts may change what else does: it brings what something that does not count holds too, or
    /// goes on with what stands on that.
    fn may_turn_by(&self, facts: &Facts) -> bool {
        facts.holds.iter().any(|hash| self.held.contains_key(hash))
            || facts.deps.iter().any(|hash| self.above.contains(hash))
            || facts.starts.iter().any(|start| self.above.range(starting(start)).next().is_some())
    }
}

/// Changes and versions in a content, and what those build on.
#[derive(Default)]
struct Facts {
    holds: Vec<[u8; 32]>,
    deps: Vec<[u8; 32]>,
    /// The versions that the changed texts are founded on, by the starts of their hashes. The founding itself is in no
    /// envelope, and only the first change after it may say which it is: so the document's name tells.
    starts: BTreeSet<[u8; 8]>,
}

/// The hashes that start so.
fn starting(start: &[u8; 8]) -> RangeInclusive<[u8; 32]> {
    let [mut from, mut to] = [[0; 32], [0xff; 32]];
    for edge in [&mut from, &mut to] {
        edge.iter_mut().zip(start).for_each(|(to, from)| *to = *from);
    }
    from..=to
}

fn facts_of(content: &Content) -> Facts {
    let mut facts = Facts::default();
    facts.starts.extend(content.documents.iter().filter_map(|(name, _)| files::founded_on(name)));
    for item in content.documents.iter().flat_map(|(_, items)| items) {
        match item {
            Item::Change(bytes) => {
                if let Ok(change) = inspect_change(bytes) {
                    facts.holds.push(change.hash.0);
                    facts.deps.extend(change.deps.iter().map(|dep| dep.0));
                }
            }
            Item::Version { hash, .. } => facts.holds.push(hash.0),
            Item::Founded { .. } => {}
        }
    }
    facts
}

/// Everything that is held, as [`settle`] wants it.
#[derive(Default)]
struct Docket {
    envelopes: BTreeMap<Link, Envelope>,
    rows: BTreeMap<Link, (Place, Held)>,
    holds: BTreeMap<Link, Vec<[u8; 32]>>,
}

impl Docket {
    /// What stands on something that does not count and counts itself, and holds this.
    fn above(&self, verdicts: &BTreeMap<Link, Verdict>) -> BTreeSet<[u8; 32]> {
        let void = |link: &Link| verdicts.get(link).is_some_and(Result::is_err);
        let found = above(&builders(&self.envelopes), self.rows.keys().filter(|link| void(link)).copied());
        found.iter().filter(|link| !void(link)).filter_map(|link| self.holds.get(link)).flatten().copied().collect()
    }
}

impl Workspace {
    /// Whether an envelope that would be accepted must wait for a judgement, and why it does not count until then.
    /// If it counts at once, what else does may be another matter now.
    pub(super) fn suspect(&mut self, now: Timestamp, head: &VerifiedHead, content: &Content) -> Option<Refused> {
        let header = head.header();
        let ops = self.ops.as_ref()?;
        let ends =
            ends_before(ops, &self.membership, head.link(), header.chain, header.seq, header.kind, &header.op_heads);
        if !ends.is_empty() {
            return Some(Refused::BeyondCut);
        }
        if self.verdicts.void.is_empty() {
            return None;
        }
        let facts = facts_of(content);
        if self.verdicts.hold_what_is_below(&facts) {
            return Some(Refused::BuiltOnRefused);
        }
        if self.verdicts.may_turn_by(&facts) {
            self.judge_soon(now);
        }
        None
    }

    /// We sealed this. Something below it that does not count may count by that, as it does for whoever gets it.
    pub(super) fn sealed_on(&mut self, content: &Content) {
        if self.verdicts.void.is_empty() {
            return;
        }
        let facts = facts_of(content);
        if self.verdicts.hold_what_is_below(&facts) || self.verdicts.may_turn_by(&facts) {
            self.verdicts.due_mono = Some(self.last_mono);
        }
    }

    /// An envelope is held, and does not count unless a later judgement says so.
    pub(super) fn suspend(&mut self, now: Timestamp, place: Place, why: Refused, content: &Content, tx: &Tx<'_>) {
        self.set_void(place, why.to_string(), content, tx);
        self.judge_soon(now);
    }

    fn set_void(&mut self, place: Place, why: String, content: &Content, tx: &Tx<'_>) {
        let envelope = VoidEnvelope { why, holds: facts_of(content).holds };
        tx.put(Table::Meta, void_key(place), to_bytes(&envelope));
        self.verdicts.insert(place, envelope);
    }

    /// Notes again everything that does not count, should the notes be lost.
    pub(super) fn void_again(&mut self, tx: &Tx<'_>) {
        let refused: Vec<(Place, String)> = rows(tx, Table::Held, &[], 512)
            .filter_map(|(key, value)| {
                let place = Place::from_bytes(key.as_slice().try_into().ok()?);
                let held = Held::parse(&value)?;
                (!held.refused.is_empty() && is_ours_to_judge(&held.refused)).then_some((place, held.refused))
            })
            .collect();
        for (place, why) in refused {
            if self.verdicts.why(&place).is_none()
                && let Some(content) = self.vault.content(&Location::Sealed(place), tx)
            {
                self.set_void(place, why, &content, tx);
            }
        }
    }

    /// What is held is arranged otherwise: judge it at once.
    pub(super) fn judge_now(&mut self, now: Timestamp) {
        self.verdicts.due_mono = Some(now.mono_ms);
    }

    /// An envelope is held at another place from now on.
    pub(super) fn move_void(&mut self, from: Place, to: Place, tx: &Tx<'_>) {
        let Some(envelope) = self.verdicts.void.get(&from).cloned() else { return };
        self.drop_void(from, tx);
        tx.put(Table::Meta, void_key(to), to_bytes(&envelope));
        self.verdicts.insert(to, envelope);
    }

    /// What does not count at this place is forgotten.
    pub(super) fn drop_void(&mut self, place: Place, tx: &Tx<'_>) {
        self.verdicts.remove(&place);
        tx.delete(Table::Meta, void_key(place));
    }

    fn judge_soon(&mut self, now: Timestamp) {
        self.verdicts.due_mono.get_or_insert(now.after_ms(SOON_MS));
    }

    /// The membership changed: is there anything held that might count otherwise now?
    pub(super) fn verdicts_changed(&mut self, now: Timestamp, read: &dyn Read) {
        if !self.verdicts.void.is_empty() || self.has_suspects(read) {
            self.judge_soon(now);
        }
    }

    /// Whether something accepted lies beyond an end. Costs a look at what each chain concerned has beyond its cut.
    fn has_suspects(&self, read: &dyn Read) -> bool {
        let Some(ops) = &self.ops else { return false };
        self.frontier.iter().any(|(chain, tip)| {
            let signed = chain.signed();
            let first = self.first_beyond(signed).max(self.chain_start(chain, read).0);
            (first..=tip.seq).any(|seq| {
                let Some(held) = self.held(Place { chain: *chain, seq }, read) else { return false };
                let kind = Kind::from_byte(held.kind);
                held.refused.is_empty()
                    && !ends_before(ops, &self.membership, held.link, signed, seq, kind, &held.op_heads).is_empty()
            })
        })
    }

    /// The first number of a chain that may lie beyond an end; past all numbers if none does.
    fn first_beyond(&self, chain: ChainId) -> u64 {
        let Some(device) = self.membership.devices.get(&chain.device) else { return 1 };
        let ends = self.membership.ends.values().filter(|end| match end.chain {
            Some(ended) => ended == chain,
            None => end.root == Some(device.root) || end.devices.contains(&chain.device),
        });
        let seqs = ends.map(|end| end.cut.points().iter().find(|point| point.chain == chain).map_or(1, |one| one.seq));
        seqs.min().unwrap_or(u64::MAX)
    }

    pub(super) fn verdicts_deadline(&self) -> Option<u64> {
        let may = self.is_active() && !self.reborn && !self.verdicts_wait() && !self.holes.are_waited_for();
        if may { self.verdicts.due_mono } else { None }
    }

    pub(super) fn run_verdicts(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let may = self.is_active() && !self.reborn && !self.verdicts_wait() && !self.holes.are_waited_for();
        if may && self.verdicts.due_mono.is_some_and(|due| due <= now.mono_ms) {
            self.verdicts.due_mono = None;
            if self.own_chain_is_forked() || !self.verdicts.void.is_empty() || self.has_suspects(tx) {
                self.judge_all(now, tx);
            }
        }
    }

    /// Judges everything held, and makes the documents follow. Costs by all content that is held: about 50 us an envelope.
    fn judge_all(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let docket = self.docket(tx);
        let Some(ops) = &self.ops else { return };
        let verdicts = settle(ops, &docket.envelopes);
        self.verdicts.above = docket.above(&verdicts);
        let mut voided: BTreeSet<Place> = BTreeSet::new();
        let mut freed: BTreeSet<Place> = BTreeSet::new();
        let mut documents: BTreeSet<DocumentName> = BTreeSet::new();
        for (link, (place, held)) in docket.rows {
            let why = verdicts.get(&link).and_then(|verdict| verdict.err()).map(|why| why.to_string());
            let why = why.unwrap_or_default();
            if held.refused == why {
                continue;
            }
            let Some(content) = self.vault.content(&Location::Sealed(place), tx) else { continue };
            if why.is_empty() {
                freed.insert(place);
                self.drop_void(place, tx);
                self.vault.index(&content, &Location::Sealed(place), tx);
            } else {
                if held.refused.is_empty() {
                    voided.insert(place);
                }
                self.set_void(place, why.clone(), &content, tx);
            }
            documents.extend(content.documents.iter().map(|(name, _)| name.clone()));
            tx.put(Table::Held, place.to_bytes(), to_bytes(&Held { refused: why, ..held }));
        }
        let me = self.my_device();
        let mut ours = Vec::new();
        for place in voided.iter().filter(|place| place.chain.device == me) {
            ours.extend(self.vault.content(&Location::Sealed(*place), tx));
        }
        if self.own_chain_is_forked() || !ours.is_empty() {
            self.go_on_beside(now, documents, &ours, tx);
        } else if voided.is_empty() {
            for place in freed {
                let Some(content) = self.vault.content(&Location::Sealed(place), tx) else { continue };
                let author = Author { chain: place.chain.signed(), wall_ms: now.wall_ms };
                self.files.handle_content(now, author, &content, &mut self.vault, tx);
            }
        } else {
            self.rebuild(now, &documents, Vec::new(), tx);
        }
    }

    /// Reads everything held. Envelopes that were refused for what is in them are there without what they build on.
    fn docket(&mut self, tx: &Tx<'_>) -> Docket {
        let mut docket = Docket::default();
        let mut facts: BTreeMap<Link, Facts> = BTreeMap::new();
        let mut holders: BTreeMap<[u8; 32], Vec<Link>> = BTreeMap::new();
        let tips: Vec<(ChainId, u64)> = self.frontier.iter().map(|(chain, tip)| (*chain, tip.seq)).collect();
        for (chain, last) in tips {
            let (first, mut prev) = self.chain_start(&chain, tx);
            for seq in first..=last {
                let place = Place { chain, seq };
                let Some(held) = self.held(place, tx) else { continue };
                let kind = Kind::from_byte(held.kind);
                let mut envelope = Envelope {
                    chain: chain.signed(),
                    seq,
                    prev,
                    kind,
                    op_heads: held.op_heads.clone(),
                    built_on: Vec::new(),
                    started_from: Vec::new(),
                };
                prev = held.link;
                if kind == Kind::Content && is_ours_to_judge(&held.refused) {
                    if let Some(content) = self.vault.content(&Location::Sealed(place), tx) {
                        let found = facts_of(&content);
                        for hash in &found.holds {
                            holders.entry(*hash).or_default().push(held.link);
                        }
                        facts.insert(held.link, found);
                    }
                    docket.rows.insert(held.link, (place, held.clone()));
                } else if !held.refused.is_empty() {
                    envelope.kind = Kind::Ops;
                }
                docket.envelopes.insert(held.link, envelope);
            }
        }
        for (link, found) in facts {
            let Some(envelope) = docket.envelopes.get_mut(&link) else { continue };
            let held_by = |hash: &[u8; 32]| -> Vec<Link> {
                holders.get(hash).into_iter().flatten().copied().filter(|other| *other != link).collect()
            };
            let own = |hash: &[u8; 32]| holders.get(hash).is_some_and(|holders| holders.contains(&link));
            docket.holds.insert(link, found.holds.clone());
            let deps: BTreeSet<Vec<Link>> = found.deps.iter().filter(|hash| !own(hash)).map(held_by).collect();
            envelope.built_on = deps.into_iter().filter(|holders| !holders.is_empty()).collect();
            // Not if it brings the version itself.
            let starts = found.starts.iter().flat_map(|start| holders.range(starting(start)));
            let others = starts.filter(|(_, links)| !links.contains(&link)).flat_map(|(_, links)| links);
            let starts: BTreeSet<Link> = others.copied().collect();
            envelope.started_from = starts.into_iter().collect();
        }
        docket
    }

    /// Builds documents anew from what counts; what was made here is entered again on top: what is `leaving`, and what is
    /// not sealed yet.
    pub(super) fn rebuild(
        &mut self,
        now: Timestamp,
        documents: &BTreeSet<DocumentName>,
        mut leaving: Vec<Content>,
        tx: &Tx<'_>,
    ) {
        self.drain_files(now, tx);
        for order in self.outbox.orders() {
            let Some(Batch::Content(content)) = Outbox::batch(order, tx) else { continue };
            // Versions stay: what is entered again names them.
            let concerned = |name: &DocumentName| documents.contains(name) && !files::is_of_versions(name);
            if !content.documents.iter().any(|(name, _)| concerned(name)) {
                continue;
            }
            let (gone, stays) = content.documents.into_iter().partition(|(name, _)| concerned(name));
            leaving.push(Content { documents: gone });
            self.outbox.replace(order, Content { documents: stays }, tx);
        }
        let carried = self.files.take_along(now, documents, &leaving, &mut self.vault, tx);
        let halt = self.files.halted().cloned();
        self.vault.forget_unsealed();
        self.reopen_files(documents, tx);
        self.files.build();
        if let Some(Halt::Root(why)) = halt {
            self.files.handle_root(now, Some(why), &mut self.vault, tx);
        }
        self.replay(now, documents, tx);
        self.files.enter_again(now, carried, &mut self.vault, tx);
        self.effects.push(Output::Look(Vec::new()));
    }

    /// Our chain ends here: it is forked, or some of what we sealed does not count. That is entered again in the next one,
    /// to be published if we may.
    fn go_on_beside(
        &mut self,
        now: Timestamp,
        mut documents: BTreeSet<DocumentName>,
        void: &[Arc<Content>],
        tx: &Tx<'_>,
    ) {
        let next = self.own.chain.incarnation + 1;
        if next > INCARNATIONS_MAX {
            self.stuck = true;
            self.problem("This device began anew too often: run `weft leave` here and join again.".into());
            return;
        }
        self.begin_incarnation(next, tx);
        let mut leaving = Vec::new();
        for content in void {
            // Nobody looks for versions in what does not count: what is entered again names them, so they are sent again.
            let all = content.documents.iter().cloned();
            let (versions, changes) = all.partition(|(name, _)| files::is_of_versions(name));
            leaving.push(Content { documents: changes });
            let versions = Content { documents: versions };
            if !versions.is_empty() {
                self.enqueue_content(versions, tx);
            }
        }
        for order in self.outbox.orders() {
            let Some(Batch::Content(content)) = Outbox::batch(order, tx) else { continue };
            documents.extend(content.documents.into_iter().map(|(name, _)| name));
        }
        self.rebuild(now, &documents, leaving, tx);
    }
}

fn void_key(place: Place) -> Vec<u8> {
    let mut key = VOID.to_vec();
    key.extend(place.to_bytes());
    key
}

/// Whether a refusal is one that [`settle`] decides, and may take back.
fn is_ours_to_judge(refused: &str) -> bool {
    let ours = [Refused::BeyondCut, Refused::Forked, Refused::BuiltOnRefused, Refused::Waiting];
    refused.is_empty() || ours.iter().any(|why| why.to_string() == refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DeviceId;

    fn envelope(seq: u64, built_on: &[&[u8]]) -> Envelope {
        let links = |of: &[u8]| of.iter().map(|byte| Link([*byte; 32])).collect();
        Envelope {
            chain: ChainId { device: DeviceId([1; 16]), incarnation: 1 },
            seq,
            prev: Link([0; 32]),
            kind: Kind::Content,
            op_heads: Vec::new(),
            built_on: built_on.iter().copied().map(links).collect(),
            started_from: Vec::new(),
        }
    }

    /// Somebody sealed one change twice, in a branch that does not count too: whoever goes on with what was built on the other,
    /// at any distance, may make that branch count. What has nothing to do with it does not.
    #[test]
    fn what_supports_the_void_at_a_distance_is_judged() {
        let mut docket = Docket::default();
        let row = |seq| {
            let place = Place { chain: ChainId { device: DeviceId([1; 16]), incarnation: 1 }, seq };
            (place, Held { link: Link([0; 32]), kind: 1, refused: String::new(), op_heads: Vec::new() })
        };
        let all =
            [(1, envelope(1, &[])), (2, envelope(2, &[])), (3, envelope(3, &[&[1, 2]])), (4, envelope(4, &[&[3]]))];
        let all = all.into_iter().chain([(5, envelope(5, &[]))]);
        for (byte, envelope) in all {
            docket.rows.insert(Link([byte; 32]), row(envelope.seq));
            docket.holds.insert(Link([byte; 32]), vec![[10 + byte; 32]]);
            docket.envelopes.insert(Link([byte; 32]), envelope);
        }
        let verdict = |byte: u8| if byte == 2 { Err(Refused::Forked) } else { Ok(()) };
        let verdicts = (1..=5).map(|byte| (Link([byte; 32]), verdict(byte))).collect();
        let verdicts = Verdicts { above: docket.above(&verdicts), held: [([12; 32], 1)].into(), ..Verdicts::default() };
        let on = |byte: u8| Facts { deps: vec![[byte; 32]], ..Facts::default() };
        assert!(verdicts.hold_what_is_below(&on(12)) && !verdicts.hold_what_is_below(&on(14)));
        assert!(verdicts.may_turn_by(&on(13)) && verdicts.may_turn_by(&on(14)));
        assert!(!verdicts.may_turn_by(&on(11)) && !verdicts.may_turn_by(&on(15)));
        let started = Facts { starts: [[14; 8]].into(), ..Facts::default() };
        let again = Facts { holds: vec![[12; 32]], ..Facts::default() };
        assert!(verdicts.may_turn_by(&started) && verdicts.may_turn_by(&again));
    }
}
