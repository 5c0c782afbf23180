//! Which held envelopes count, as a pure function of them and of the ops.
//!
//! Invariant: [`settle`] depends on the set of ops and the set of envelopes alone, never on what came first; and what it
//! accepts is closed: nothing accepted was built on something that is not. Why: every replica must show the same text, and
//! Automerge cannot take a change without those it depends on. Spec: docs/sealing.md#acceptance.

use std::collections::{BTreeMap, BTreeSet};

use super::{Defence, End, Membership, OpSet, Role, evaluate, evaluate_at};
use crate::envelope::Kind;
use crate::id::{ChainId, DeviceId, Link, OpId, RootKey};

/// What acceptance needs to know of a held envelope: its header, and what its changes depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who signed it, in which life.
    pub chain: ChainId,
    /// Its number there, from 1.
    pub seq: u64,
    /// The link before it.
    pub prev: Link,
    /// What its body is.
    pub kind: Kind,
    /// The membership its author knew.
    pub op_heads: Vec<OpId>,
    /// For each change that its own changes name as a dependency, the envelopes that hold it: several, if somebody sealed
    /// it again. One that counts is enough.
    pub built_on: Vec<Vec<Link>>,
    /// The envelopes that hold versions its texts start from. They may have come elsewhere too, so it does not fall with
    /// them; but it shows that they were taken in good faith.
    pub started_from: Vec<Link>,
}

impl Envelope {
    /// All that its own content stands on.
    fn below(&self) -> impl Iterator<Item = &Link> {
        self.built_on.iter().flatten().chain(&self.started_from)
    }
}

/// Why an envelope does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It names ops that are not here yet.
    #[error("names membership that is not known here yet")]
    UnknownHeads,
    /// Its predecessor, or something it was built on, is not here yet.
    #[error("what it was built on is not here yet")]
    Waiting,
    /// The author belonged to nobody where it says it stood.
    #[error("not a member at its heads")]
    NotAMember,
    /// The author might read at most.
    #[error("not a writer at its heads")]
    NotAWriter,
    /// The author knew more before.
    #[error("heads behind its predecessor")]
    HeadsBehind,
    /// Written after, or unknown to, the op that ended its author's writing, and nobody who stayed built on it.
    #[error("beyond the cut of its author's removal")]
    BeyondCut,
    /// One of two envelopes that its author signed for one place, and not the one that stays.
    #[error("signed twice for one place")]
    Forked,
    /// It was built on something that does not count.
    #[error("built on something that does not count")]
    BuiltOnRefused,
}

/// Whether a held envelope counts.
pub type Verdict = Result<(), Refused>;

/// Whether an envelope's author might write it where it says it stood; its role there. `before`: the op heads of the
/// predecessor on its chain, empty for the first. Cuts and dependencies are judged by [`settle`].
pub fn accepts(set: &OpSet, before: &[OpId], kind: Kind, chain: ChainId, op_heads: &[OpId]) -> Result<Role, Refused> {
    let then = evaluate_at(set, op_heads).ok_or(Refused::UnknownHeads)?;
    let role = then.role_of(&chain.device).ok_or(Refused::NotAMember)?;
    if !set.descends(op_heads, before) && set.defends(Defence::HeadsMoveOn) {
        return Err(Refused::HeadsBehind);
    }
    let writes = matches!(kind, Kind::Content | Kind::Checkpoint);
    if writes && role < Role::Writer && set.defends(Defence::RoleAtHeads) {
        return Err(Refused::NotAWriter);
    }
    Ok(role)
}

/// The verdict on every envelope held. About a microsecond each, and one evaluation for each set of heads named.
#[must_use]
pub fn settle(set: &OpSet, held: &BTreeMap<Link, Envelope>) -> BTreeMap<Link, Verdict> {
    Court::new(set, held).settle()
}

/// What an envelope lies beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Beyond {
    /// The end that this op made.
    End(OpId),
    /// Everything: the admission of its device does not count at all.
    Void(DeviceId),
}

/// What an envelope lies beyond.
pub(crate) fn ends_before(
    set: &OpSet,
    state: &Membership,
    link: Link,
    chain: ChainId,
    seq: u64,
    kind: Kind,
    op_heads: &[OpId],
) -> BTreeSet<Beyond> {
    let mut beyond = BTreeSet::new();
    if !matches!(kind, Kind::Content | Kind::Checkpoint) {
        // Ops stand or fall by themselves.
        return beyond;
    }
    let Some(device) = state.devices.get(&chain.device) else {
        return BTreeSet::from([Beyond::Void(chain.device)]);
    };
    for (op, end) in &state.ends {
        // A fork closes its chain; who goes on with it after that writes beyond the end, whatever they know.
        let knew = end.chain.is_none() && set.descends(op_heads, &[*op]);
        if concerns(end, chain, &device.root) && !is_within(end, link, chain, seq) && !knew {
            beyond.insert(Beyond::End(*op));
        }
    }
    beyond
}

struct Court<'a> {
    set: &'a OpSet,
    held: &'a BTreeMap<Link, Envelope>,
    state: std::sync::Arc<Membership>,
    /// Who might write it, without cuts and dependencies.
    base: BTreeMap<Link, Verdict>,
    /// What each lies beyond.
    beyond: BTreeMap<Link, BTreeSet<Beyond>>,
    /// What was built on each.
    builders: BTreeMap<Link, Vec<Link>>,
}

impl<'a> Court<'a> {
    fn new(set: &'a OpSet, held: &'a BTreeMap<Link, Envelope>) -> Self {
        let (base, beyond) = (BTreeMap::new(), BTreeMap::new());
        let mut court = Self { set, held, state: evaluate(set), base, beyond, builders: builders(held) };
        for (link, envelope) in held {
            court.base.insert(*link, court.base_of(envelope));
            let beyond =
                ends_before(set, &court.state, *link, envelope.chain, envelope.seq, envelope.kind, &envelope.op_heads);
            if !beyond.is_empty() && set.defends(Defence::Cut) {
                court.beyond.insert(*link, beyond);
            }
        }
        court
    }

    fn base_of(&self, envelope: &Envelope) -> Verdict {
        let before: &[OpId] = if envelope.seq > 1 {
            let previous = self.held.get(&envelope.prev).ok_or(Refused::Waiting)?;
            if previous.chain != envelope.chain || previous.seq + 1 != envelope.seq {
                return Err(Refused::Waiting);
            }
            &previous.op_heads
        } else {
            &[]
        };
        accepts(self.set, before, envelope.kind, envelope.chain, &envelope.op_heads).map(|_| ())
    }

    fn settle(&self) -> BTreeMap<Link, Verdict> {
        let mut verdicts = self.base.clone();
        for link in self.lost_branches() {
            verdicts.entry(link).and_modify(|verdict| *verdict = verdict.and(Err(Refused::Forked)));
        }
        // The largest set in which everything is closed and what lies beyond a cut was built on from within: what fails is
        // taken out until nothing does.
        let ends: BTreeSet<Beyond> = self.beyond.values().flatten().copied().collect();
        loop {
            let rescued: BTreeMap<Beyond, BTreeSet<Link>> =
                ends.iter().map(|end| (*end, self.rescued(end, &verdicts))).collect();
            let failing: Vec<(Link, Refused)> = verdicts
                .iter()
                .filter(|(_, verdict)| verdict.is_ok())
                .filter_map(|(link, _)| Some((*link, self.fails(*link, &verdicts, &rescued)?)))
                .collect();
            if failing.is_empty() {
                return verdicts;
            }
            verdicts.extend(failing.into_iter().map(|(link, why)| (link, Err(why))));
        }
    }

    fn fails(
        &self,
        link: Link,
        verdicts: &BTreeMap<Link, Verdict>,
        rescued: &BTreeMap<Beyond, BTreeSet<Link>>,
    ) -> Option<Refused> {
        let envelope = self.held.get(&link)?;
        for holders in &envelope.built_on {
            let mut found = holders.iter().map(|holder| verdicts.get(holder).copied().unwrap_or(Err(Refused::Waiting)));
            if found.clone().any(|verdict| verdict.is_ok()) {
                continue;
            }
            if found.any(|verdict| verdict == Err(Refused::Waiting)) || holders.is_empty() {
                return Some(Refused::Waiting);
            }
            if self.set.defends(Defence::ClosedSet) {
                return Some(Refused::BuiltOnRefused);
            }
        }
        let beyond = self.beyond.get(&link)?;
        let stays = |end: &Beyond| rescued.get(end).is_some_and(|links| links.contains(&link));
        (!beyond.iter().all(stays)).then_some(Refused::BeyondCut)
    }

    /// What active writers who did not know of the end built on, directly or through others.
    fn rescued(&self, end: &Beyond, verdicts: &BTreeMap<Link, Verdict>) -> BTreeSet<Link> {
        let unaware = |envelope: &Envelope| match end {
            Beyond::End(op) => !self.set.descends(&envelope.op_heads, &[*op]),
            Beyond::Void(device) => {
                evaluate_at(self.set, &envelope.op_heads).is_some_and(|then| then.devices.contains_key(device))
            }
        };
        let good_faith = |link: &Link, envelope: &Envelope| {
            let counts = verdicts.get(link).is_some_and(Result::is_ok) && !self.beyond.contains_key(link);
            let builds = !envelope.built_on.is_empty() || !envelope.started_from.is_empty();
            counts && builds && self.writer(envelope).is_some() && unaware(envelope)
        };
        let mut ready: Vec<&Envelope> =
            self.held.iter().filter(|(link, envelope)| good_faith(link, envelope)).map(|(_, one)| one).collect();
        let mut rescued = BTreeSet::new();
        while let Some(envelope) = ready.pop() {
            for below in envelope.below() {
                if rescued.insert(*below) {
                    ready.extend(self.held.get(below));
                }
            }
        }
        rescued
    }

    /// The member of an envelope's device, if it may write now.
    fn writer(&self, envelope: &Envelope) -> Option<RootKey> {
        let device = &envelope.chain.device;
        let root = self.state.devices.get(device)?.root;
        self.state.role_of(device).filter(|role| *role >= Role::Writer).map(|_| root)
    }

    /// What was signed for a place that was signed for twice, and everything after it on that chain, without the branch
    /// that stays. As long as no op proves the fork, no branch stays: whoever holds both makes that op at once.
    fn lost_branches(&self) -> BTreeSet<Link> {
        let mut lost = BTreeSet::new();
        if !self.set.defends(Defence::OneBranch) {
            return lost;
        }
        let mut places: BTreeMap<(ChainId, u64), Vec<Link>> = BTreeMap::new();
        let mut next: BTreeMap<Link, Vec<Link>> = BTreeMap::new();
        for (link, envelope) in self.held {
            places.entry((envelope.chain, envelope.seq)).or_default().push(*link);
            if envelope.seq > 1 {
                next.entry(envelope.prev).or_default().push(*link);
            }
        }
        let branch = |root: Link| {
            let mut all = above(&next, std::iter::once(root));
            all.insert(root);
            all
        };
        for ((chain, _), links) in places.into_iter().filter(|(_, links)| links.len() > 1) {
            let proven = self.state.ends.values().any(|end| end.chain == Some(chain));
            let branches: Vec<(Link, BTreeSet<Link>)> = links.into_iter().map(|link| (link, branch(link))).collect();
            let stays = branches
                .iter()
                .max_by(|(one, built), (other, others)| {
                    self.supporters(chain, built).cmp(&self.supporters(chain, others)).then(other.cmp(one))
                })
                .map(|(link, _)| *link)
                .filter(|_| proven);
            for (link, all) in branches {
                if Some(link) != stays {
                    lost.extend(all);
                }
            }
        }
        lost
    }

    /// How many members who may write now, besides the forker, built on a branch.
    fn supporters(&self, chain: ChainId, branch: &BTreeSet<Link>) -> usize {
        let own = self.state.devices.get(&chain.device).map(|device| device.root);
        let above = above(&self.builders, branch.iter().copied()).into_iter().filter(|link| !branch.contains(link));
        let sound = |link: &Link| self.base.get(link).is_some_and(Result::is_ok) && !self.beyond.contains_key(link);
        let members: BTreeSet<RootKey> = above
            .filter(sound)
            .filter_map(|link| self.writer(self.held.get(&link)?))
            .filter(|root| Some(*root) != own)
            .collect();
        members.len()
    }
}

/// What was built on each of these envelopes, or of those they name.
pub(crate) fn builders(held: &BTreeMap<Link, Envelope>) -> BTreeMap<Link, Vec<Link>> {
    let mut builders: BTreeMap<Link, Vec<Link>> = BTreeMap::new();
    for (link, envelope) in held {
        for below in envelope.below() {
            builders.entry(*below).or_default().push(*link);
        }
    }
    builders
}

/// Everything that comes after some envelopes by this, directly or through others: with [`builders`], what was built on them.
pub(crate) fn above(next: &BTreeMap<Link, Vec<Link>>, from: impl Iterator<Item = Link>) -> BTreeSet<Link> {
    let (mut found, mut ready) = (BTreeSet::new(), from.collect::<Vec<_>>());
    while let Some(link) = ready.pop() {
        let after = next.get(&link).into_iter().flatten();
        ready.extend(after.filter(|link| found.insert(**link)));
    }
    found
}

fn concerns(end: &End, chain: ChainId, root: &RootKey) -> bool {
    match end.chain {
        Some(ended) => ended == chain,
        None => end.root.as_ref() == Some(root) || end.devices.binary_search(&chain.device).is_ok(),
    }
}

/// Not beyond what the end's author held of the chain.
fn is_within(end: &End, link: Link, chain: ChainId, seq: u64) -> bool {
    let point = end.cut.points().iter().find(|point| point.chain == chain);
    point.is_some_and(|point| seq < point.seq || (seq == point.seq && link == point.link))
}
