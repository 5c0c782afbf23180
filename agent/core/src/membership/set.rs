//! The ops a replica holds: a DAG that is closed under parents.
//!
//! Invariant: an op is in only if its parents are, its signer was introduced by one of its ancestors, and its signature
//! verifies; so whether it is in depends on the op alone, never on what came first. Others wait, bounded.
//! Spec: docs/sealing.md#op-set.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::authority::{self, Standing};
use super::bits::Bits;
use super::{Fork, Membership, evaluate as evaluation, join, step};
use crate::id::{DeviceId, OpId, RootKey, WorkspaceId};
use crate::op::{Genesis, OpBody, SignedOp, Signer};

/// Most ops of a workspace: a thousand members' lives; what comes beyond is refused, loudly.
pub const OPS_MAX: usize = 65_536;
/// Most ops that wait for their parents.
pub const PARKED_OPS_MAX: usize = 4096;
/// Most bytes that wait.
pub const PARKED_BYTES_MAX: usize = 4 << 20;
/// States kept; a state is a few KB a member, and few heads are asked for at a time.
const STATES_MAX: usize = 64;

/// What became of an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It is in, with those that waited for it, in an order in which parents stand first. Store them all.
    Added(Vec<OpId>),
    /// It was in already.
    Known,
    /// Parents are missing; it waits.
    Parked,
}

/// Whether an op would count where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lawful {
    /// Its author may not do it.
    No,
    /// It counts.
    Yes,
    /// It counts once so many owners agree, its author included.
    Together(usize),
}

/// Why an op was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// Of another workspace.
    #[error("a membership op belongs to another workspace")]
    OtherWorkspace,
    /// Nobody among its ancestors introduced its signer.
    #[error("a membership op is signed by somebody its ancestors do not know")]
    UnknownSigner,
    /// Its signature is wrong.
    #[error("a membership op has a wrong signature")]
    BadSignature,
    /// Bounds are reached.
    #[error("too many membership ops are held or waiting")]
    Full,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) op: SignedOp,
    pub(super) ancestors: Bits,
    /// What the author might do where the op stands; `None`: the op never counts.
    pub(super) standing: Option<Standing>,
}

/// By which op a signing key came in (`None`: the genesis), and the key.
type Introduced = (Option<usize>, [u8; 32]);

/// The states that were asked for last.
#[derive(Clone, Default)]
struct States {
    states: BTreeMap<Vec<OpId>, Arc<Membership>>,
    /// The oldest first.
    order: VecDeque<Vec<OpId>>,
}

/// The ops of one workspace.
#[derive(Clone)]
pub struct OpSet {
    genesis: Genesis,
    pub(super) nodes: Vec<Node>,
    index: BTreeMap<OpId, usize>,
    heads: BTreeSet<OpId>,
    /// Where each device's signing key was introduced; `None` stands for the genesis.
    keys: BTreeMap<DeviceId, Vec<Introduced>>,
    /// Where each root was introduced.
    roots: BTreeMap<RootKey, Vec<Option<usize>>>,
    parked: BTreeMap<OpId, SignedOp>,
    waiting: BTreeMap<OpId, BTreeSet<OpId>>,
    parked_bytes: usize,
    states: RefCell<States>,
    /// The defence that this set does without, to show what it stops.
    #[cfg(test)]
    pub(crate) lacks: Option<super::Defence>,
    /// Admissions are taken as signed: a search does not sign.
    #[cfg(test)]
    pub(crate) unsigned: bool,
}

impl core::fmt::Debug for OpSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpSet").field("ops", &self.nodes.len()).field("heads", &self.heads).finish_non_exhaustive()
    }
}

/// The state of the whole set.
#[must_use]
pub fn evaluate(set: &OpSet) -> Arc<Membership> {
    let heads: Vec<OpId> = set.heads();
    set.state(&heads).unwrap_or_else(|| Arc::new(evaluation::state(set, &Bits::default(), Vec::new())))
}

/// The state of the ancestors of these heads and the heads themselves; `None` if one of them is not in the set.
#[must_use]
pub fn evaluate_at(set: &OpSet, heads: &[OpId]) -> Option<Arc<Membership>> {
    set.state(heads)
}

/// The state of the whole set, from all ops, as if none had been asked for before: what the others must be equal to.
#[must_use]
pub fn evaluate_anew(set: &OpSet) -> Arc<Membership> {
    let all: Bits = (0..set.nodes.len()).collect();
    Arc::new(evaluation::state(set, &all, set.heads()))
}

impl OpSet {
    /// Holds the genesis alone.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        let device = genesis.cert().device();
        Self {
            heads: BTreeSet::from([genesis.op_id()]),
            keys: BTreeMap::from([(device.id(), vec![(None, device.sign)])]),
            roots: BTreeMap::from([(genesis.root().sign, vec![None])]),
            genesis,
            nodes: Vec::new(),
            index: BTreeMap::new(),
            parked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            parked_bytes: 0,
            states: RefCell::default(),
            #[cfg(test)]
            lacks: None,
            #[cfg(test)]
            unsigned: false,
        }
    }
    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.genesis.workspace()
    }
    /// All forks that were proved where their op stands, whether that op counts or not: a proof stays one.
    pub fn forks(&self) -> impl Iterator<Item = Fork> + '_ {
        self.nodes.iter().filter(|node| node.standing.is_some()).filter_map(|node| Fork::of(node.op.body()))
    }
    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }
    /// The ops that no other op names, ascending; the genesis' id if there is none.
    #[must_use]
    pub fn heads(&self) -> Vec<OpId> {
        self.heads.iter().copied().collect()
    }
    /// How many ops are in, without the genesis.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// Whether nothing but the genesis is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// Whether an op is in. The genesis is.
    #[must_use]
    pub fn contains(&self, id: &OpId) -> bool {
        *id == self.genesis.op_id() || self.index.contains_key(id)
    }
    /// An op that is in.
    #[must_use]
    pub fn get(&self, id: &OpId) -> Option<&SignedOp> {
        self.index.get(id).and_then(|index| self.nodes.get(*index)).map(|node| &node.op)
    }
    /// All ops that are in, parents first.
    pub fn ops(&self) -> impl Iterator<Item = &SignedOp> {
        self.nodes.iter().map(|node| &node.op)
    }
    /// Parents that waiting ops name and nobody has sent yet: ask for them.
    pub fn missing(&self) -> impl Iterator<Item = &OpId> {
        self.waiting.keys().filter(|id| !self.parked.contains_key(*id))
    }
    /// How many ops wait.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }
    /// Whether everything in `older` is one of `heads` or an ancestor of one. False if a head is unknown.
    #[must_use]
    pub fn descends(&self, heads: &[OpId], older: &[OpId]) -> bool {
        let Some(closure) = self.closure(heads) else { return false };
        older
            .iter()
            .all(|id| *id == self.genesis.op_id() || self.index.get(id).is_some_and(|index| closure.contains(*index)))
    }
    /// Whether an op's author had the role for it where it stands. (In a larger set it may still not count.)
    #[must_use]
    pub fn is_authorised(&self, id: &OpId) -> bool {
        *id == self.genesis.op_id()
            || self.index.get(id).and_then(|index| self.nodes.get(*index)).is_some_and(|node| node.standing.is_some())
    }
    /// Whether an op that is not in yet would count where it stands; its parents must be in.
    #[must_use]
    pub fn judge(&self, op: &SignedOp) -> Lawful {
        let (Some(ancestors), Some(state)) = (self.closure(op.parents()), self.state(op.parents())) else {
            return Lawful::No;
        };
        let ancestor = |id: &OpId| self.index_of(id).filter(|index| ancestors.contains(*index));
        match authority::standing(self, op, &state, &ancestor) {
            None => Lawful::No,
            Some(standing) => match standing.quorum {
                Some(quorum) if quorum.needed > 1 => Lawful::Together(quorum.needed),
                Some(_) | None => Lawful::Yes,
            },
        }
    }
    /// The ops at or below these heads, parents first; `None` if a head is unknown.
    #[must_use]
    pub fn history(&self, heads: &[OpId]) -> Option<Vec<&SignedOp>> {
        let closure = self.closure(heads)?;
        Some(closure.iter().filter_map(|index| self.nodes.get(index)).map(|node| &node.op).collect())
    }

    pub(super) fn index_of(&self, id: &OpId) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub(super) fn closure(&self, heads: &[OpId]) -> Option<Bits> {
        let mut closure = Bits::default();
        for head in heads {
            if *head == self.genesis.op_id() {
                continue;
            }
            let index = *self.index.get(head)?;
            closure.union(&self.nodes.get(index)?.ancestors);
            closure.insert(index);
        }
        Some(closure)
    }

    fn state(&self, heads: &[OpId]) -> Option<Arc<Membership>> {
        let mut key = heads.to_vec();
        key.sort();
        key.dedup();
        if let Some(state) = self.states.borrow().states.get(&key) {
            return Some(Arc::clone(state));
        }
        let further = self.one_further(&key).or_else(|| self.few_further(&key));
        let state = Arc::new(further.or_else(|| self.state_anew(&key))?);
        let mut kept = self.states.borrow_mut();
        if kept.order.len() >= STATES_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.states.remove(&oldest);
        }
        kept.order.push_back(key.clone());
        kept.states.insert(key, Arc::clone(&state));
        Some(state)
    }

    /// The state at one op, from the state at its parents: nothing is concurrent with an op that descends from all others,
    /// so it only adds what it says. `None`: evaluate the whole.
    fn one_further(&self, heads: &[OpId]) -> Option<Membership> {
        let [head] = heads else { return None };
        #[cfg(test)]
        if self.lacks.is_some() {
            return None;
        }
        let index = self.index_of(head)?;
        let parents = self.nodes.get(index)?.op.parents().to_vec();
        let before = self.states.borrow().states.get(&parents).cloned()?;
        step::step(self, &before, index)
    }

    /// The state at several heads, from the latest known one that stands before all that is new. `None`: evaluate the whole.
    fn few_further(&self, heads: &[OpId]) -> Option<Membership> {
        #[cfg(test)]
        if self.lacks.is_some() {
            return None;
        }
        let closure = self.closure(heads)?;
        let kept = self.states.borrow();
        for known in kept.order.iter().rev() {
            let Some(before) = self.closure(known) else { continue };
            let Some(new) = closure.beyond(&before, join::JOINED_MAX) else { continue };
            let after_all =
                |index: &usize| self.nodes.get(*index).is_some_and(|node| node.ancestors.contains_all(&before));
            if new.iter().all(after_all) {
                let mut state = join::join(self, kept.states.get(known)?, &new)?;
                state.heads = heads.to_vec();
                return Some(state);
            }
        }
        None
    }

    /// The state at these heads, from all that stands below them.
    pub(crate) fn state_anew(&self, heads: &[OpId]) -> Option<Membership> {
        Some(evaluation::state(self, &self.closure(heads)?, heads.to_vec()))
    }

    pub(super) fn standing_at(&self, index: usize) -> Option<&Standing> {
        self.nodes.get(index)?.standing.as_ref()
    }

    /// The signing key of a device that any op here introduces, whether it counts or not: with it what the device signed
    /// can be verified and held, whoever it turns out to be.
    #[must_use]
    pub fn signing_key(&self, device: &DeviceId) -> Option<[u8; 32]> {
        self.keys.get(device)?.first().map(|(_, key)| *key)
    }

    /// The first op here that brings a device, whether it counts or not, with the certificate in it.
    #[must_use]
    pub fn introduction(&self, device: &DeviceId) -> Option<(&SignedOp, &crate::identity::DeviceCert)> {
        let (at, _) = self.keys.get(device)?.iter().find(|(at, _)| at.is_some())?;
        let op = &self.nodes.get((*at)?)?.op;
        Some((op, introduced(op.body())?))
    }

    /// Takes an op in, or parks it until its parents are here.
    pub fn insert(&mut self, op: SignedOp) -> Result<Inserted, InsertError> {
        if *op.workspace() != self.workspace() {
            return Err(InsertError::OtherWorkspace);
        }
        if self.contains(&op.id()) {
            return Ok(Inserted::Known);
        }
        if self.nodes.len() >= OPS_MAX {
            return Err(InsertError::Full);
        }
        if op.parents().iter().any(|parent| !self.contains(parent)) {
            return self.park(op);
        }
        let id = op.id();
        self.add(op)?;
        let mut added = vec![id];
        let mut ready = self.waiting.remove(&id).unwrap_or_default();
        while let Some(next) = ready.pop_first() {
            let Some(op) = self.parked.get(&next) else { continue };
            if op.parents().iter().any(|parent| !self.contains(parent)) {
                continue;
            }
            let Some(op) = self.unpark(&next) else { continue };
            // What waited and turns out forged is dropped; what waits for it stays parked, bounded.
            if self.nodes.len() < OPS_MAX && self.add(op).is_ok() {
                added.push(next);
                ready.extend(self.waiting.remove(&next).unwrap_or_default());
            }
        }
        Ok(Inserted::Added(added))
    }

    fn park(&mut self, op: SignedOp) -> Result<Inserted, InsertError> {
        if self.parked.contains_key(&op.id()) {
            return Ok(Inserted::Parked);
        }
        if self.parked.len() >= PARKED_OPS_MAX || self.parked_bytes + op.bytes().len() > PARKED_BYTES_MAX {
            return Err(InsertError::Full);
        }
        for parent in op.parents() {
            if !self.contains(parent) {
                self.waiting.entry(*parent).or_default().insert(op.id());
            }
        }
        self.parked_bytes += op.bytes().len();
        self.parked.insert(op.id(), op);
        Ok(Inserted::Parked)
    }

    fn unpark(&mut self, id: &OpId) -> Option<SignedOp> {
        let op = self.parked.remove(id)?;
        self.parked_bytes = self.parked_bytes.saturating_sub(op.bytes().len());
        Some(op)
    }

    fn add(&mut self, op: SignedOp) -> Result<(), InsertError> {
        let ancestors = self.closure(op.parents()).ok_or(InsertError::UnknownSigner)?;
        match self.verify(&op, &ancestors) {
            Err(InsertError::BadSignature) if !self.defends(super::Defence::Signature) => {}
            verified => verified?,
        }
        let state = self.state(op.parents()).ok_or(InsertError::UnknownSigner)?;
        let ancestor = |id: &OpId| self.index_of(id).filter(|index| ancestors.contains(*index));
        let standing = authority::standing(self, &op, &state, &ancestor);
        let index = self.nodes.len();
        for parent in op.parents() {
            self.heads.remove(parent);
        }
        self.heads.insert(op.id());
        if let Some(cert) = introduced(op.body()) {
            let device = cert.device();
            self.keys.entry(device.id()).or_default().push((Some(index), device.sign));
            self.roots.entry(cert.root().sign).or_default().push(Some(index));
        }
        self.index.insert(op.id(), index);
        self.nodes.push(Node { op, ancestors, standing });
        Ok(())
    }

    /// Takes in what a search judged; nothing is verified.
    #[cfg(test)]
    pub(super) fn push_node(&mut self, node: Node) {
        for parent in node.op.parents() {
            self.heads.remove(parent);
        }
        self.heads.insert(node.op.id());
        self.index.insert(node.op.id(), self.nodes.len());
        self.nodes.push(node);
    }

    /// Takes out what [`Self::push_node`] put in last.
    #[cfg(test)]
    pub(super) fn pop_node(&mut self) {
        let Some(node) = self.nodes.pop() else { return };
        self.index.remove(&node.op.id());
        self.heads.remove(&node.op.id());
        for parent in node.op.parents() {
            if !self.nodes.iter().any(|other| other.op.parents().contains(parent)) {
                self.heads.insert(*parent);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn clear_states(&mut self) {
        self.states.take();
    }

    fn verify(&self, op: &SignedOp, ancestors: &Bits) -> Result<(), InsertError> {
        let among = |introduced: &Option<usize>| introduced.is_none_or(|index| ancestors.contains(index));
        match op.signer() {
            Signer::Root(root) => {
                if !self.roots.get(&root).into_iter().flatten().any(among) {
                    return Err(InsertError::UnknownSigner);
                }
                op.verify(&root.0).map_err(|_| InsertError::BadSignature)
            }
            Signer::Recovery(key) => {
                if self.genesis.recovery() != Some(&key) {
                    return Err(InsertError::UnknownSigner);
                }
                op.verify(&key).map_err(|_| InsertError::BadSignature)
            }
            Signer::Device(device) => {
                let mut keys = self.keys.get(&device).into_iter().flatten().filter(|(at, _)| among(at)).peekable();
                if keys.peek().is_none() {
                    return Err(InsertError::UnknownSigner);
                }
                if keys.any(|(_, key)| op.verify(key).is_ok()) { Ok(()) } else { Err(InsertError::BadSignature) }
            }
        }
    }
}

/// The certificate that an op brings.
pub(super) fn introduced(body: &OpBody) -> Option<&crate::identity::DeviceCert> {
    match body {
        OpBody::Device { cert, .. } => Some(cert),
        OpBody::Welcome { admission, .. } => Some(admission.cert()),
        OpBody::Revoke { .. }
        | OpBody::Invite { .. }
        | OpBody::Uninvite { .. }
        | OpBody::Role { .. }
        | OpBody::Remove { .. }
        | OpBody::Epoch(_)
        | OpBody::Endorse { .. }
        | OpBody::ExtendCut { .. }
        | OpBody::Fork { .. }
        | OpBody::Attest { .. }
        | OpBody::Leave
        | OpBody::Policy(_) => None,
    }
}
