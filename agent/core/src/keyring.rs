//! The epochs that this device holds.
//!
//! Invariant: every epoch in it matches its commitments. Spec: docs/sealing.md#keyring.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::epoch::Epoch;
use crate::id::{EpochId, WorkspaceId};
use crate::membership::Membership;

/// What to seal under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// This epoch; it is held.
    Under(EpochId),
    /// This epoch, which is not held yet: wait for its key packet, or ask.
    Lacking(EpochId),
    /// No epoch covers every removal: mint one over [`Membership::epoch_heads`] first.
    Mint,
}

/// The epochs held, newest last in [`Keyring::by_tag`]'s order of trial.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    epochs: BTreeMap<EpochId, Arc<Epoch>>,
    /// In order of insertion: what came last is tried first.
    order: Vec<EpochId>,
}

impl Keyring {
    /// Holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an epoch; one with C replaces one without. Returns whether anything changed.
    pub fn insert(&mut self, epoch: Epoch) -> bool {
        let id = epoch.id();
        match self.epochs.get(&id) {
            Some(held) if held.has_content() || !epoch.has_content() => return false,
            Some(_) => {}
            None => self.order.push(id),
        }
        self.epochs.insert(id, Arc::new(epoch));
        true
    }
    /// Gives an epoch up: its op did not come.
    pub fn remove(&mut self, id: &EpochId) {
        self.epochs.remove(id);
        self.order.retain(|known| known != id);
    }
    /// An epoch that is held.
    #[must_use]
    pub fn get(&self, id: &EpochId) -> Option<&Arc<Epoch>> {
        self.epochs.get(id)
    }
    /// Which epoch an envelope is under, by its nonce and tag; about 0.1 µs an epoch held, the newest first.
    #[must_use]
    pub fn by_tag(&self, nonce: &[u8; 24], tag: &[u8; 4]) -> Option<&Epoch> {
        self.by_tag_all(nonce, tag).next()
    }
    /// All that match: four bytes collide once in 4 billion trials.
    pub(crate) fn by_tag_all(&self, nonce: &[u8; 24], tag: &[u8; 4]) -> impl Iterator<Item = &Epoch> {
        let epochs = self.order.iter().rev().filter_map(|id| self.epochs.get(id)).map(AsRef::as_ref);
        epochs.filter(move |epoch| epoch.tag(nonce) == *tag)
    }
    /// All epochs held, by id.
    pub fn epochs(&self) -> impl Iterator<Item = &Arc<Epoch>> {
        self.epochs.values()
    }
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.epochs.len()
    }
    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
    /// Opens every parent that back links of held epochs reach; returns the new ones, to be stored.
    pub fn open_back_links(&mut self, workspace: &WorkspaceId, membership: &Membership) -> Vec<Arc<Epoch>> {
        let mut opened = Vec::new();
        let mut ready: Vec<EpochId> = self.epochs.keys().copied().collect();
        while let Some(id) = ready.pop() {
            let (Some(child), Some(facts)) = (self.epochs.get(&id).cloned(), membership.epochs.get(&id)) else {
                continue;
            };
            if child.workspace() != workspace {
                continue;
            }
            for link in &facts.grant.parents {
                let held = self.epochs.get(&link.parent);
                if held.is_some_and(|held| held.has_content() || !child.has_content()) {
                    continue;
                }
                let Some(commitments) = membership.commitments(&link.parent) else { continue };
                if let Ok(parent) = child.open_back_link(link, commitments)
                    && self.insert(parent)
                {
                    ready.push(link.parent);
                    opened.extend(self.epochs.get(&link.parent).cloned());
                }
            }
        }
        // Parents were pushed after their children: put the newest back to where they are tried first.
        self.order.sort_by_key(|id| (membership.epochs.get(id).map_or(u32::MAX, |facts| facts.depth), *id));
        opened
    }
    /// What to seal under, given the membership.
    #[must_use]
    pub fn sealing(&self, membership: &Membership) -> Sealing {
        match membership.sealing_epoch() {
            Some(id) if self.epochs.get(&id).is_some_and(|epoch| epoch.has_content()) => Sealing::Under(id),
            Some(id) => Sealing::Lacking(id),
            None => Sealing::Mint,
        }
    }
}
