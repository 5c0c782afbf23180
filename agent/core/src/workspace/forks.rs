//! Devices that signed two envelopes for one place: found, proved, and kept apart.
//!
//! A copied store or a liar gives one number of a chain to two envelopes. Whoever holds one and meets the other signs a
//! fork op that carries both headers; from then on that chain is closed, and what was signed after the place before is
//! held in *branches*: chains of their own, each named by its first link ([`ChainId::branch`]). Invariant: where an
//! envelope is held is a function of the envelope and of the fork ops known, so equal holdings have equal frontiers, and
//! everybody comes to hold all branches; which of them counts is [`crate::membership::settle`]'s to say. Why chains: all
//! that is known of serving, pulling and comparing chains holds for them unchanged. Spec: docs/sync.md#forks.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Workspace;
use super::receive::tip_key;
use crate::envelope::{self, Header, OpenHead};
use crate::frontier::{Frontier, Range, Tip};
use crate::id::{ChainId, DeviceId, Link, Place};
use crate::membership::{Fork, Lawful, OpSet};
use crate::message::Message;
use crate::op::{ChainPoint, Cut, OpBody};
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// Whoever can prove a fork waits up to this for somebody else to do it: each proof brings a new epoch.
const PROVE_WITHIN_MS: u64 = 2_000;
/// Forks of one device that are proved; one that goes on is to be revoked.
const FORKS_PER_DEVICE_MAX: usize = 8;
/// Branches held of one fork. Beyond it the smallest first links stay, everywhere the same.
const BRANCHES_MAX: usize = 16;
/// A look for the place where two replicas' chains part begins with so many envelopes, then four times as many.
const SEARCH_FIRST: u64 = 4;
/// Most envelopes asked for in one step of a search.
const SEARCH_STEP_MAX: u64 = 1024;
/// Bytes granted to each peer for a step.
const SEARCH_BYTES: u64 = 1024 * 1024;
/// Peers asked for one step.
const SEARCH_PEERS_MAX: usize = 4;
/// A step that brought nothing is taken again after this.
const SEARCH_MS: u64 = 10_000;
/// Chains that are searched at once.
const SEARCHES_MAX: usize = 64;
/// Proofs under way at once.
const PROOFS_MAX: usize = 16;

/// A fork that we can prove.
#[derive(Debug)]
struct Proof {
    headers: [Vec<u8>; 2],
    cut: Cut,
    due_mono: u64,
}

/// A look down a chain.
#[derive(Debug, Clone, Copy)]
struct Search {
    lowest: u64,
    step: u64,
    until_mono: u64,
}

/// What is known of forks.
#[derive(Debug, Default)]
pub(super) struct Forks {
    /// By signed chain, sorted by number.
    places: BTreeMap<ChainId, Vec<Fork>>,
    proofs: BTreeMap<(ChainId, u64), Proof>,
    searches: BTreeMap<ChainId, Search>,
}

impl Forks {
    fn of(&self, chain: &ChainId) -> &[Fork] {
        self.places.get(&chain.signed()).map_or(&[], Vec::as_slice)
    }
    fn knows(&self, chain: &ChainId, seq: u64, prev: &Link) -> bool {
        self.of(chain).iter().any(|fork| fork.is_at(seq, prev))
    }
}

/// Where an envelope belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) place: Place,
    /// The envelope before it, unless it is the first of its incarnation.
    pub(super) before: Option<Place>,
}

impl Workspace {
    /// Where an envelope with this header belongs; `None` if that is known only with what comes before it.
    pub(super) fn locate(&self, header: &Header, link: &Link, read: &dyn Read) -> Option<Located> {
        let (chain, seq, prev) = (header.chain, header.seq, header.prev);
        if self.forks.of(&chain).is_empty() {
            let before = (seq > 1).then(|| Place { chain, seq: seq - 1 });
            return Some(Located { place: Place { chain, seq }, before });
        }
        let before = if seq > 1 {
            let holds = |one: &ChainId| {
                self.held(Place { chain: *one, seq: seq - 1 }, read).is_some_and(|held| held.link == prev)
            };
            let parent = self.branches(&chain).into_iter().find(holds)?;
            Some(Place { chain: parent, seq: seq - 1 })
        } else {
            None
        };
        let parts = self.forks.knows(&chain, seq, &prev);
        let chain = if parts { chain.branch(link) } else { before.map_or(chain, |before| before.chain) };
        Some(Located { place: Place { chain, seq }, before })
    }

    /// A signed chain and what is held of its branches.
    fn branches(&self, chain: &ChainId) -> Vec<ChainId> {
        let signed = chain.signed();
        let held = self.frontier.of_device(&chain.device).map(|(one, _)| *one);
        std::iter::once(signed).chain(held.filter(|one| one.is_branch() && one.signed() == signed)).collect()
    }

    /// The first number of a chain as it is held, and the link before it.
    pub(super) fn chain_start(&self, chain: &ChainId, read: &dyn Read) -> (u64, Link) {
        if !chain.is_branch() {
            return (1, Link([0; 32]));
        }
        let starts = |fork: &&Fork| {
            let held = self.held(Place { chain: *chain, seq: fork.seq }, read);
            held.is_some_and(|held| chain.signed().branch(&held.link) == *chain)
        };
        let fork = self.forks.of(chain).iter().find(starts);
        fork.map_or((1, Link([0; 32])), |fork| (fork.seq, fork.prev.unwrap_or(Link([0; 32]))))
    }

    /// Ops came: envelopes of chains that are known to be forked now go to their branches.
    pub(super) fn forks_changed(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let Some(ops) = &self.ops else { return };
        let places = places_of(ops);
        if places == self.forks.places {
            return;
        }
        let changed: Vec<ChainId> = places
            .iter()
            .filter(|(chain, forks)| self.forks.of(chain) != forks.as_slice())
            .map(|(one, _)| *one)
            .collect();
        self.forks.places = places;
        for chain in changed {
            self.split(&chain, tx);
            self.judge_now(now);
            self.beacon_soon(now);
            let device = chain.device;
            self.tell_of_fork(&device);
        }
        let places = &self.forks.places;
        self.forks.proofs.retain(|(chain, seq), _| {
            !places.get(chain).is_some_and(|forks| forks.iter().any(|fork| fork.seq == *seq))
        });
    }

    /// As [`Workspace::forks_changed`], for a replica that was just opened: its rows are in their branches already.
    pub(super) fn open_forks(&mut self) {
        self.forks.places = self.ops.as_ref().map(places_of).unwrap_or_default();
    }

    /// Moves what was held of a chain from its forks on to branches.
    fn split(&mut self, chain: &ChainId, tx: &Tx<'_>) {
        for fork in self.forks.of(chain).to_vec() {
            for from in self.branches(chain) {
                let before = fork.seq.checked_sub(1).filter(|before| *before > 0);
                let follows = match before {
                    Some(seq) => self
                        .held(Place { chain: from, seq }, tx)
                        .is_some_and(|held| fork.prev.is_none_or(|prev| held.link == prev)),
                    None => !from.is_branch(),
                };
                let last = self.frontier.seq(&from);
                let first = self.held(Place { chain: from, seq: fork.seq }, tx);
                let Some(first) = first.filter(|_| follows && last >= fork.seq) else { continue };
                let to = from.signed().branch(&first.link);
                for seq in fork.seq..=last {
                    self.move_row(Place { chain: from, seq }, Place { chain: to, seq }, tx);
                }
                if let Some(tip) = self.frontier.tip(&from).copied() {
                    self.set_tip(to, tip, tx);
                }
                let end =
                    before.and_then(|seq| Some(Tip { seq, link: self.held(Place { chain: from, seq }, tx)?.link }));
                match end {
                    Some(tip) => self.set_tip(from, tip, tx),
                    None => self.drop_tip(from, tx),
                }
            }
        }
    }

    fn move_row(&mut self, from: Place, to: Place, tx: &Tx<'_>) {
        for table in [Table::Envelopes, Table::Held] {
            if let Some(row) = tx.get(table, &from.to_bytes()) {
                tx.delete(table, from.to_bytes());
                tx.put(table, to.to_bytes(), row);
            }
        }
        self.vault.moved(from, to, tx);
        self.move_void(from, to, tx);
    }

    fn drop_tip(&mut self, chain: ChainId, tx: &Tx<'_>) {
        tx.delete(Table::Meta, tip_key(chain));
        self.frontier.remove(&chain);
    }

    /// Whether a new branch may be held, beside those of the same fork. Makes room by dropping the one with the largest
    /// first link, if this one's is smaller.
    pub(super) fn admit_branch(&mut self, place: Place, link: &Link, tx: &Tx<'_>) -> bool {
        if !place.chain.is_branch() || self.frontier.seq(&place.chain) > 0 {
            return true;
        }
        let mut beside: Vec<(Link, ChainId)> = self
            .branches(&place.chain)
            .into_iter()
            .filter(|one| one.is_branch())
            .filter_map(|one| Some((self.held(Place { chain: one, seq: place.seq }, tx)?.link, one)))
            .filter(|(first, one)| one.signed().branch(first) == *one)
            .collect();
        beside.sort();
        let Some((largest, chain)) = beside.last().filter(|_| beside.len() >= BRANCHES_MAX) else { return true };
        if *largest < *link {
            return false;
        }
        for seq in place.seq..=self.frontier.seq(chain) {
            let dropped = Place { chain: *chain, seq };
            tx.delete(Table::Envelopes, dropped.to_bytes());
            tx.delete(Table::Held, dropped.to_bytes());
            self.drop_void(dropped, tx);
        }
        let chain = *chain;
        self.drop_tip(chain, tx);
        true
    }

    /// An envelope came for a place where another one is held, or on top of another one than is held.
    pub(super) fn met_other(&mut self, now: Timestamp, head: OpenHead, envelope_place: Place, tx: &Tx<'_>) {
        let Some(device) = self.membership.devices.get(&head.header.chain.device).cloned() else { return };
        if head.clone().verify(&device.public).is_err() {
            return;
        }
        self.tell_of_fork(&head.header.chain.device);
        let ours = tx
            .get(Table::Envelopes, &envelope_place.to_bytes())
            .and_then(|bytes: Bytes| envelope::open_head(&self.id, &self.vault.keyring, &bytes).ok());
        let Some(ours) = ours.filter(|ours| ours.header.seq == head.header.seq) else {
            // It stands on what we do not hold: the chains part further down.
            return self.search(now, envelope_place.chain, head.header.seq.saturating_sub(1), None);
        };
        let (seq, signed) = (head.header.seq, head.header.chain);
        if seq > 1 && ours.header.prev != head.header.prev {
            return self.search(now, envelope_place.chain, seq - 1, None);
        }
        if self.forks.knows(&signed, seq, &head.header.prev)
            || self.forks.proofs.len() >= PROOFS_MAX
            || self.forks.proofs.contains_key(&(signed, seq))
        {
            return;
        }
        let before = ChainPoint { chain: signed, seq: seq.saturating_sub(1), link: head.header.prev };
        let cut = Cut::new(if seq > 1 { vec![before] } else { Vec::new() });
        let mut headers = [ours.signed_header(), head.signed_header()];
        headers.sort();
        let due_mono = now.after_ms(self.jitter(PROVE_WITHIN_MS));
        self.forks.proofs.insert((signed, seq), Proof { headers, cut, due_mono });
    }

    /// A peer states what it holds: where it holds another envelope than we do for one place, the two are to be compared.
    pub(super) fn compare_tips(&mut self, now: Timestamp, device: DeviceId, theirs: &Frontier, read: &dyn Read) {
        let differ = |(chain, tip): (&ChainId, &Tip)| {
            let ours = self.frontier.tip(chain)?;
            let held = if ours.seq == tip.seq {
                Some(ours.link)
            } else if ours.seq > tip.seq {
                self.held(Place { chain: *chain, seq: tip.seq }, read).map(|held| held.link)
            } else {
                None
            };
            held.is_some_and(|link| link != tip.link).then_some((*chain, tip.seq))
        };
        let parted: Vec<(ChainId, u64)> = theirs.iter().filter_map(differ).take(SEARCHES_MAX).collect();
        for (chain, seq) in parted {
            self.search(now, chain, seq, Some(device));
        }
    }

    /// Asks for what others hold of a chain up to this number, to find where it parts from what we hold.
    fn search(&mut self, now: Timestamp, chain: ChainId, up_to: u64, of: Option<DeviceId>) {
        if up_to == 0 || self.paused {
            return;
        }
        self.forks.searches.retain(|_, search| now.mono_ms < search.until_mono);
        let known = self.forks.searches.get(&chain).copied();
        if known.is_some_and(|known| up_to >= known.lowest) || self.forks.searches.len() >= SEARCHES_MAX {
            return;
        }
        let step = known.map_or(SEARCH_FIRST, |known| (known.step * 4).min(SEARCH_STEP_MAX));
        let from = up_to.saturating_sub(step - 1).max(1);
        self.forks.searches.insert(chain, Search { lowest: from, step, until_mono: now.after_ms(SEARCH_MS) });
        let has_other = |device: &DeviceId| {
            let tip = self.peers.get(device).and_then(|peer| peer.frontier.tip(&chain));
            tip.is_some() && tip != self.frontier.tip(&chain)
        };
        let devices: Vec<DeviceId> = match of {
            Some(device) => vec![device],
            None => self.links.connected().into_iter().filter(has_other).take(SEARCH_PEERS_MAX).collect(),
        };
        for device in devices {
            let Some(route) = self.links.route_to(&device, |epoch| self.is_left_behind(epoch)) else { continue };
            let (nonce, ranges) = (self.nonce(), vec![Range { chain, from, to: up_to }]);
            self.send_message(route, &Message::Credit { nonce, ranges, credit: SEARCH_BYTES });
        }
    }

    fn may_prove(&self) -> bool {
        self.may_seal() && self.is_writer()
    }

    pub(super) fn forks_deadline(&self) -> Option<u64> {
        if self.may_prove() { self.forks.proofs.values().map(|proof| proof.due_mono).min() } else { None }
    }

    /// Proves what nobody else proved meanwhile.
    pub(super) fn run_forks(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let due = |proof: &Proof| proof.due_mono <= now.mono_ms;
        while self.may_prove()
            && let Some(key) = self.forks.proofs.iter().find(|(_, proof)| due(proof)).map(|(key, _)| *key)
            && let Some(proof) = self.forks.proofs.remove(&key)
        {
            let proved =
                |(chain, forks): (&ChainId, &Vec<Fork>)| if chain.device == key.0.device { forks.len() } else { 0 };
            if self.forks.places.iter().map(proved).sum::<usize>() >= FORKS_PER_DEVICE_MAX {
                continue;
            }
            let devices: Vec<DeviceId> = self.membership.active_devices().map(|(id, _)| *id).collect();
            let (epoch, grant) = self.next_epoch(|_| true);
            let recipients = self.keys_for(&devices, |_, role| Some(role));
            let body = OpBody::Fork { headers: Box::new(proof.headers), cut: proof.cut, epoch: grant };
            let Some(op) = self.sign_op(now, body) else { continue };
            if self.judge(&op) != Lawful::Yes || !self.hand_out(now, epoch, &op, &recipients, tx) {
                continue;
            }
            self.settle_news(now, tx);
        }
    }

    /// Whether the chain that we seal on is one of those.
    pub(super) fn own_chain_is_forked(&self) -> bool {
        !self.forks.of(&self.own.chain).is_empty()
    }

    fn tell_of_fork(&mut self, device: &DeviceId) {
        let Some(known) = self.membership.devices.get(device) else { return };
        let (label, member) = (known.label.clone(), self.member_name(&known.root));
        self.problem(if *device == self.my_device() {
            "This computer's Weft data was copied, and the copy was used as well. What both wrote is kept where it can be; this \
             one goes on by itself. Remove the copy: `weft leave` there."
                .to_owned()
        } else {
            format!(
                "'{label}' of {member} signed two different envelopes for one place: its Weft data was copied, or its owner \
                 lies. Of what it wrote from there on only that stays which others went on with. If nobody knows of a copy: \
                 `weft devices revoke`."
            )
        });
    }
}

/// The places that these ops prove to be forked, by signed chain, sorted by number.
fn places_of(ops: &OpSet) -> BTreeMap<ChainId, Vec<Fork>> {
    let mut places: BTreeMap<ChainId, Vec<Fork>> = BTreeMap::new();
    for fork in ops.forks() {
        places.entry(fork.chain).or_default().push(fork);
    }
    for forks in places.values_mut() {
        forks.sort_by_key(|fork| (fork.seq, fork.prev));
        forks.dedup();
    }
    places
}
