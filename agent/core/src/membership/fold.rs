//! What the ops that count amount to: members, devices, invites, epochs, settings.
//!
//! Invariant: every rule compares ops by ancestry only, so the order they are visited in does not show.
//! Spec: docs/sealing.md#state.

use std::collections::{BTreeMap, BTreeSet};

use super::bits::Bits;
use super::set::OpSet;
use super::{Device, EpochFacts, Invite, Member, Membership, Role};
use crate::id::{DeviceId, EpochId, OpId, RootKey};
use crate::identity::DeviceCert;
use crate::op::{OpBody, Policy};

/// An op's place: `None` is the genesis, an ancestor of all.
type At = Option<usize>;

struct Fold<'a> {
    set: &'a OpSet,
    counting: Vec<usize>,
    /// Removals and leaves, by member.
    ended: BTreeMap<RootKey, Vec<usize>>,
    /// Revocations, by device.
    revoked: BTreeMap<DeviceId, Vec<usize>>,
}

pub(super) fn fold(set: &OpSet, counting: &Bits, heads: Vec<OpId>) -> Membership {
    let all: Vec<usize> = counting.iter().collect();
    let state = Fold::new(set, all.clone()).state(heads.clone());
    if state.members.values().any(|member| member.role == Role::Owner) {
        return state;
    }
    // Removals that together would leave no owner do not count.
    let kept = all.into_iter().filter(|index| !ends_an_owner(set, *index)).collect();
    Fold::new(set, kept).state(heads)
}

/// Whether an op is an owner's own leave or demotion.
fn ends_an_owner(set: &OpSet, index: usize) -> bool {
    let Some(node) = set.nodes.get(index) else { return false };
    let Some(standing) = node.standing.as_ref().filter(|standing| standing.role == Role::Owner) else { return false };
    match node.op.body() {
        OpBody::Leave => true,
        OpBody::Role { root, role, .. } => *root == standing.root && *role < Role::Owner,
        OpBody::Device { .. }
        | OpBody::Revoke { .. }
        | OpBody::Invite { .. }
        | OpBody::Uninvite { .. }
        | OpBody::Welcome { .. }
        | OpBody::Remove { .. }
        | OpBody::Epoch(_)
        | OpBody::Endorse { .. }
        | OpBody::ExtendCut { .. }
        | OpBody::Fork { .. }
        | OpBody::Attest { .. }
        | OpBody::Policy(_) => false,
    }
}

impl<'a> Fold<'a> {
    fn new(set: &'a OpSet, counting: Vec<usize>) -> Self {
        let mut fold = Self { set, counting, ended: BTreeMap::new(), revoked: BTreeMap::new() };
        for index in fold.counting.clone() {
            let Some(node) = set.nodes.get(index) else { continue };
            if let OpBody::Remove { root, .. } = node.op.body() {
                fold.ended.entry(*root).or_default().push(index);
            } else if let OpBody::Leave = node.op.body() {
                let Some(standing) = &node.standing else { continue };
                fold.ended.entry(standing.root).or_default().push(index);
            } else if let OpBody::Revoke { devices, .. } = node.op.body() {
                for device in devices {
                    fold.revoked.entry(*device).or_default().push(index);
                }
            }
        }
        fold
    }

    fn id(&self, at: At) -> OpId {
        at.and_then(|index| self.set.nodes.get(index)).map_or_else(|| self.set.genesis().op_id(), |node| node.op.id())
    }
    fn body(&self, index: usize) -> Option<&'a OpBody> {
        self.set.nodes.get(index).map(|node| node.op.body())
    }
    /// Whether `earlier` is an ancestor of `later`.
    fn before(&self, earlier: At, later: At) -> bool {
        match (earlier, later) {
            (None, later) => later.is_some(),
            (Some(_), None) => false,
            (Some(earlier), Some(later)) => {
                self.set.nodes.get(later).is_some_and(|node| node.ancestors.contains(earlier))
            }
        }
    }
    /// Whether every op in `ends` is an ancestor: what came after an end begins anew, what is concurrent ends with it.
    fn after_all(&self, ends: Option<&Vec<usize>>, at: At) -> bool {
        ends.into_iter().flatten().all(|end| self.before(Some(*end), at))
    }
    fn ids(&self, mut at: Vec<At>) -> Vec<OpId> {
        let mut ids: Vec<OpId> = at.drain(..).map(|at| self.id(at)).collect();
        ids.sort();
        ids
    }

    fn state(&self, heads: Vec<OpId>) -> Membership {
        let genesis = self.set.genesis();
        let (admissions, introductions) = self.entries();
        let members = self.members(&admissions);
        let devices = self.devices(&introductions, &members);
        let mut former = BTreeMap::new();
        for (root, ends) in &self.ended {
            if !members.contains_key(root)
                && let Some(end) = ends.iter().map(|end| self.id(Some(*end))).min()
            {
                former.insert(*root, end);
            }
        }
        Membership {
            workspace: genesis.workspace(),
            name: genesis.workspace_name().to_owned(),
            invites: self.invites(&admissions),
            epochs: self.epochs(),
            policy: self.policy(),
            members,
            devices,
            former,
            heads,
        }
    }

    /// Every op that admits a member, and every one that introduces a device.
    #[allow(clippy::type_complexity)] // two lists of places with what stands there; names would only hide it
    fn entries(&self) -> (Vec<(At, Entry<'a>)>, Vec<(At, Entry<'a>)>) {
        let genesis = self.set.genesis();
        let founder = Entry {
            cert: genesis.cert(),
            name: genesis.member_name(),
            label: genesis.device_label(),
            role: Some(Role::Owner),
            invite: None,
        };
        let mut admissions = vec![(None, founder)];
        let mut introductions = vec![(None, founder)];
        for index in &self.counting {
            match self.body(*index) {
                Some(OpBody::Welcome { invite, admission, .. }) => {
                    let invited = self.set.get(invite).map(crate::op::SignedOp::body);
                    let role = if let Some(OpBody::Invite { role, .. }) = invited { Some(*role) } else { None };
                    let (cert, name, label) = (admission.cert(), admission.name(), admission.label());
                    let entry = Entry { cert, name, label, role, invite: Some(*invite) };
                    admissions.push((Some(*index), entry));
                    introductions.push((Some(*index), entry));
                }
                Some(OpBody::Device { cert, label }) => {
                    introductions.push((Some(*index), Entry { cert, name: "", label, role: None, invite: None }));
                }
                _ => {}
            }
        }
        (admissions, introductions)
    }

    fn members(&self, admissions: &[(At, Entry<'a>)]) -> BTreeMap<RootKey, Member> {
        let mut alive: BTreeMap<RootKey, Vec<(At, Entry<'a>)>> = BTreeMap::new();
        for (at, entry) in admissions {
            let root = entry.cert.root().sign;
            if self.after_all(self.ended.get(&root), *at) {
                alive.entry(root).or_default().push((*at, *entry));
            }
        }
        let mut members = BTreeMap::new();
        for (root, entries) in alive {
            let mut statements: Vec<(At, Role)> = entries
                .iter()
                .filter(|(at, _)| self.is_fresh(*at))
                .filter_map(|(at, entry)| Some((*at, entry.role?)))
                .collect();
            for index in &self.counting {
                if let Some(OpBody::Role { root: target, role, .. }) = self.body(*index)
                    && *target == root
                    && self.after_all(self.ended.get(&root), Some(*index))
                {
                    statements.push((Some(*index), *role));
                }
            }
            if statements.is_empty() {
                statements.extend(entries.iter().filter_map(|(at, entry)| Some((*at, entry.role?))));
            }
            let last = self.latest(statements);
            // Of several that stand, the least privilege.
            let Some(role) = last.iter().map(|(_, role)| *role).min() else { continue };
            // The name is content: of several, the one said by the op with the smallest id.
            let Some((_, first)) = entries.iter().min_by_key(|(at, _)| self.id(*at)) else { continue };
            let member = Member {
                role,
                name: first.name.to_owned(),
                kem: first.cert.root().kem,
                admitted_by: self.ids(entries.iter().map(|(at, _)| *at).collect()),
                role_from: self.ids(last.iter().map(|(at, _)| *at).collect()),
            };
            members.insert(root, member);
        }
        members
    }

    fn is_fresh(&self, at: At) -> bool {
        at.and_then(|index| self.set.nodes.get(index))
            .is_none_or(|node| node.standing.as_ref().is_some_and(|standing| standing.fresh))
    }

    /// Those that are no ancestor of another.
    fn latest<T>(&self, statements: Vec<(At, T)>) -> Vec<(At, T)> {
        let places: Vec<At> = statements.iter().map(|(at, _)| *at).collect();
        statements.into_iter().filter(|(at, _)| !places.iter().any(|other| self.before(*at, *other))).collect()
    }

    fn devices(
        &self,
        introductions: &[(At, Entry<'a>)],
        members: &BTreeMap<RootKey, Member>,
    ) -> BTreeMap<DeviceId, Device> {
        let mut devices: BTreeMap<DeviceId, Device> = BTreeMap::new();
        let mut said: BTreeMap<DeviceId, OpId> = BTreeMap::new();
        for (at, entry) in introductions {
            let (public, root) = (entry.cert.device(), entry.cert.root().sign);
            let id = public.id();
            let alive = members.contains_key(&root)
                && self.after_all(self.ended.get(&root), *at)
                && self.after_all(self.revoked.get(&id), *at);
            let by = self.id(*at);
            let device = devices.entry(id).or_insert_with(|| Device {
                root,
                public,
                label: String::new(),
                active: false,
                introduced_by: Vec::new(),
            });
            device.active |= alive;
            if alive {
                device.introduced_by.push(by);
                device.introduced_by.sort();
            }
            // Of several labels, and keys under one id, those said by the op with the smallest id.
            if said.get(&id).is_none_or(|other| by < *other) {
                entry.label.clone_into(&mut device.label);
                (device.root, device.public) = (root, public);
                said.insert(id, by);
            }
        }
        devices
    }

    fn invites(&self, admissions: &[(At, Entry<'a>)]) -> BTreeMap<OpId, Invite> {
        let mut invites = BTreeMap::new();
        let mut withdrawn = BTreeSet::new();
        for index in &self.counting {
            if let Some(OpBody::Uninvite { invite }) = self.body(*index) {
                withdrawn.insert(*invite);
            }
        }
        // A removal voids the invites that the removed one issued or came in by.
        let mut came_by: BTreeMap<OpId, Vec<usize>> = BTreeMap::new();
        for (at, entry) in admissions {
            let Some(invite) = entry.invite else { continue };
            for end in self.ended.get(&entry.cert.root().sign).into_iter().flatten() {
                let removal = matches!(self.body(*end), Some(OpBody::Remove { .. }));
                if removal && !self.before(Some(*end), *at) {
                    came_by.entry(invite).or_default().push(*end);
                }
            }
        }
        for index in &self.counting {
            let Some(OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval }) = self.body(*index) else {
                continue;
            };
            let Some(issuer) = self.set.nodes.get(*index).and_then(|node| node.standing.as_ref()) else { continue };
            let id = self.id(Some(*index));
            let used = admissions.iter().filter(|(_, entry)| entry.invite == Some(id)).count();
            let open = !withdrawn.contains(&id)
                && self.after_all(self.ended.get(&issuer.root), Some(*index))
                && self.after_all(came_by.get(&id), Some(*index));
            let invite = Invite {
                sign: *sign,
                knock: knock.clone(),
                role: *role,
                expires_wall_ms: *expires_wall_ms,
                uses: *uses,
                used: u32::try_from(used).unwrap_or(u32::MAX),
                issuer: issuer.root,
                approval: *approval,
                open,
            };
            invites.insert(id, invite);
        }
        invites
    }

    fn epochs(&self) -> BTreeMap<EpochId, EpochFacts> {
        let workspace = self.set.workspace();
        let rotations: Vec<usize> = self
            .counting
            .iter()
            .copied()
            .filter(|index| match self.body(*index) {
                Some(OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Leave | OpBody::Fork { .. }) => true,
                Some(OpBody::Role { epoch, .. }) => epoch.is_some(),
                _ => false,
            })
            .collect();
        let mut epochs: BTreeMap<EpochId, EpochFacts> = BTreeMap::new();
        for index in &self.counting {
            let Some(body) = self.body(*index) else { continue };
            let Some(grant) = body.epoch() else { continue };
            let (id, op) = (grant.id(&workspace), self.id(Some(*index)));
            let covers =
                rotations.iter().all(|rotation| rotation == index || self.before(Some(*rotation), Some(*index)));
            let embedded = matches!(body, OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Fork { .. });
            let lobby = embedded || grant.parents.is_empty();
            let facts = EpochFacts { op, grant: grant.clone(), depth: 1, covers, lobby };
            // Of concurrent copies of one epoch, the smallest op speaks for it.
            if epochs.get(&id).is_none_or(|known| op < known.op) {
                epochs.insert(id, facts);
            }
        }
        deepen(&mut epochs);
        epochs
    }

    /// Of concurrent settings the stricter, and all the relays.
    fn policy(&self) -> Policy {
        let mut said: Vec<(At, &Policy)> = vec![(None, self.set.genesis().policy())];
        for index in &self.counting {
            if let Some(OpBody::Policy(policy)) = self.body(*index) {
                said.push((Some(*index), policy));
            }
        }
        let mut last = self.latest(said).into_iter().map(|(_, policy)| policy.clone());
        let first = last.next().unwrap_or_default();
        let merged = last.fold(first, |one, other| Policy {
            approval: one.approval || other.approval,
            max_offline_days: one.max_offline_days.min(other.max_offline_days),
            relays: [one.relays, other.relays].concat(),
        });
        merged.bounded()
    }
}

/// Sets each depth to one more than the deepest parent's. As many rounds as there are epochs settle it.
fn deepen(epochs: &mut BTreeMap<EpochId, EpochFacts>) {
    for _ in 0..epochs.len() {
        let depths: BTreeMap<EpochId, u32> = epochs.iter().map(|(id, facts)| (*id, facts.depth)).collect();
        let mut changed = false;
        for facts in epochs.values_mut() {
            let deepest = facts.grant.parents.iter().filter_map(|link| depths.get(&link.parent)).max();
            let depth = deepest.map_or(1, |depth| depth.saturating_add(1));
            changed |= depth != facts.depth;
            facts.depth = depth;
        }
        if !changed {
            return;
        }
    }
}

/// What an admitting or introducing op says.
#[derive(Clone, Copy)]
struct Entry<'a> {
    cert: &'a DeviceCert,
    name: &'a str,
    label: &'a str,
    role: Option<Role>,
    invite: Option<OpId>,
}
