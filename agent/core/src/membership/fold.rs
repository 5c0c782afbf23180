//! What the ops that count amount to: members, devices, invites, epochs, ends, settings.
//!
//! Invariant: every rule compares ops by ancestry only, so the order they are visited in does not show.
//! Spec: docs/sealing.md#state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ancestry::At;
use super::bits::Bits;
use super::set::OpSet;
use super::{Defence, Device, End, EpochFacts, Invite, Member, Membership, Proposal, Role};
use crate::id::{DeviceId, EpochId, OpId, RootKey};
use crate::identity::{Certifier, DeviceCert};
use crate::op::{ChainPoint, Cut, OpBody, Policy};

/// Most identities of one member that count; those that sort last are left out.
pub const ATTESTED_MAX: usize = 8;

/// Proofs of one identity, by place.
type Proofs<'a> = Vec<(At, &'a [u8])>;

struct Fold<'a> {
    set: &'a OpSet,
    counting: Vec<usize>,
    /// Removals and leaves, by member.
    ended: BTreeMap<RootKey, Vec<usize>>,
    /// Revocations, by device.
    revoked: BTreeMap<DeviceId, Vec<usize>>,
    /// Role ops, by member.
    roles: BTreeMap<RootKey, Vec<(usize, Role)>>,
}

pub(super) fn fold(set: &OpSet, counting: &Bits, closure: &Bits, heads: Vec<OpId>) -> Membership {
    let mut state = Fold::new(set, counting).state(heads);
    let waits = |index: &usize| !counting.contains(*index);
    for index in closure.iter().filter(waits) {
        let Some((standing, quorum)) = set.standing_at(index).and_then(|by| Some((by, by.quorum.as_ref()?))) else {
            continue;
        };
        let votes = counting
            .iter()
            .filter_map(|other| set.standing_at(other))
            .filter_map(|other| other.ballot.as_ref().filter(|ballot| ballot.on == index).and(other.root));
        let votes = votes.chain(standing.root).filter(|root| quorum.electorate.contains(root)).collect();
        state.proposals.insert(set.id_at(Some(index)), Proposal { votes, needed: quorum.needed });
    }
    state
}

/// Members, devices and invites alone: what a search asks for.
#[cfg(test)]
pub(super) fn fold_power(set: &OpSet, counting: &Bits) -> Membership {
    let fold = Fold::new(set, counting);
    let (admissions, introductions) = fold.entries();
    let members = fold.members(&admissions);
    let mut state = Membership::clone(&Membership::nobody(set.workspace()));
    state.devices = fold.devices(&introductions, &members).into_iter().collect();
    state.invites = fold.invites(&admissions, &members).into_iter().collect();
    state.members = members.into_iter().collect();
    state
}

/// What an invite's own state is, given who its issuer is now.
pub(super) fn is_open(void: bool, gives: Role, issuer: Option<&Arc<Member>>) -> bool {
    !void && issuer.is_some_and(|issuer| issuer.role >= Role::Admin && issuer.role > gives)
}

/// Whether an op asks for a new epoch without somebody.
pub(super) fn rotates(body: &OpBody) -> bool {
    match body {
        OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Leave | OpBody::Fork { .. } => true,
        OpBody::Role { epoch, .. } => epoch.is_some(),
        OpBody::Device { .. }
        | OpBody::Invite { .. }
        | OpBody::Uninvite { .. }
        | OpBody::Welcome { .. }
        | OpBody::Epoch(_)
        | OpBody::Endorse { .. }
        | OpBody::ExtendCut { .. }
        | OpBody::Attest { .. }
        | OpBody::Policy(_) => false,
    }
}

/// Whether an op's epoch opens a lobby.
pub(super) fn opens_lobby(body: &OpBody) -> bool {
    let embedded = matches!(body, OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Fork { .. });
    embedded || body.epoch().is_some_and(|grant| grant.parents.is_empty())
}

/// The chains an op ends, without what later ops extend.
pub(super) fn end_of(body: &OpBody) -> Option<End> {
    match body {
        OpBody::Remove { root, cut, .. } => {
            Some(End { root: Some(*root), devices: Vec::new(), chain: None, cut: cut.clone() })
        }
        // Whoever may still write needs no cut.
        OpBody::Role { root, role, cut, epoch: Some(_) } if *role < Role::Writer => {
            Some(End { root: Some(*root), devices: Vec::new(), chain: None, cut: cut.clone() })
        }
        OpBody::Revoke { devices, cut, .. } => {
            Some(End { root: None, devices: devices.clone(), chain: None, cut: cut.clone() })
        }
        OpBody::Fork { headers, cut, .. } => {
            let [one, _] = headers.as_ref();
            Some(End { root: None, devices: Vec::new(), chain: Some(super::fork::peek(one)?.chain), cut: cut.clone() })
        }
        OpBody::Role { .. }
        | OpBody::Device { .. }
        | OpBody::Invite { .. }
        | OpBody::Uninvite { .. }
        | OpBody::Welcome { .. }
        | OpBody::Epoch(_)
        | OpBody::Endorse { .. }
        | OpBody::ExtendCut { .. }
        | OpBody::Attest { .. }
        | OpBody::Leave
        | OpBody::Policy(_) => None,
    }
}

/// The further of two cuts, chain by chain.
pub(super) fn extended(cut: &Cut, further: &Cut) -> Cut {
    let points: Vec<ChainPoint> = cut.points().iter().chain(further.points()).copied().collect();
    Cut::new(points)
}

impl<'a> Fold<'a> {
    fn new(set: &'a OpSet, counting: &Bits) -> Self {
        let counting: Vec<usize> = counting.iter().collect();
        let mut fold = Self { set, counting, ended: BTreeMap::new(), revoked: BTreeMap::new(), roles: BTreeMap::new() };
        for index in fold.counting.clone() {
            let Some(node) = set.nodes.get(index) else { continue };
            if let OpBody::Remove { root, .. } = node.op.body() {
                fold.ended.entry(*root).or_default().push(index);
            } else if let OpBody::Leave = node.op.body() {
                let Some(root) = node.standing.as_ref().and_then(|standing| standing.root) else { continue };
                fold.ended.entry(root).or_default().push(index);
            } else if let OpBody::Revoke { devices, .. } = node.op.body() {
                for device in devices {
                    fold.revoked.entry(*device).or_default().push(index);
                }
            } else if let OpBody::Role { root, role, .. } = node.op.body() {
                fold.roles.entry(*root).or_default().push((index, *role));
            }
        }
        fold
    }

    fn body(&self, index: usize) -> Option<&'a OpBody> {
        self.set.nodes.get(index).map(|node| node.op.body())
    }
    /// Every op that counts, with its place.
    fn bodies(&self) -> impl Iterator<Item = (usize, &'a OpBody)> + '_ {
        self.counting.iter().filter_map(|index| Some((*index, self.body(*index)?)))
    }
    /// Whether every op in `ends` is an ancestor: what came after an end begins anew, what is concurrent ends with it.
    fn after_all(&self, ends: Option<&Vec<usize>>, at: At) -> bool {
        ends.into_iter().flatten().all(|end| self.set.before(Some(*end), at))
    }
    fn ids(&self, at: impl Iterator<Item = At>) -> Vec<OpId> {
        let mut ids: Vec<OpId> = at.map(|at| self.set.id_at(at)).collect();
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
            let last = self.set.latest(ends.iter().map(|end| (Some(*end), ())).collect());
            if !members.contains_key(root)
                && let Some(end) = last.into_iter().map(|(end, ())| self.set.id_at(end)).min()
            {
                former.insert(*root, end);
            }
        }
        let mut came_by: BTreeMap<RootKey, BTreeSet<OpId>> = BTreeMap::new();
        for (_, entry) in &admissions {
            if let Some(invite) = entry.invite {
                came_by.entry(entry.cert.root().sign).or_default().insert(invite);
            }
        }
        let (epochs, covering) = self.epochs();
        Membership {
            workspace: genesis.workspace(),
            name: genesis.workspace_name().to_owned(),
            invites: self.invites(&admissions, &members).into_iter().collect(),
            epochs: epochs.into_iter().collect(),
            covering,
            policy: self.policy(),
            members: members.into_iter().collect(),
            devices: devices.into_iter().collect(),
            former: former.into_iter().collect(),
            ends: self.chain_ends().into_iter().collect(),
            proposals: BTreeMap::new(),
            heads,
            came_by: came_by.into_iter().collect(),
            owners_kept: false,
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
        for (index, body) in self.bodies() {
            if let OpBody::Welcome { invite, admission, .. } = body {
                let entry = Entry {
                    cert: admission.cert(),
                    name: admission.name(),
                    label: admission.label(),
                    role: invited_as(self.set, invite),
                    invite: Some(*invite),
                };
                admissions.push((Some(index), entry));
                introductions.push((Some(index), entry));
            } else if let OpBody::Device { cert, label } = body {
                introductions.push((Some(index), Entry { cert, name: "", label, role: None, invite: None }));
            }
        }
        (admissions, introductions)
    }

    fn members(&self, admissions: &[(At, Entry<'a>)]) -> BTreeMap<RootKey, Arc<Member>> {
        let mut alive: BTreeMap<RootKey, Vec<(At, Entry<'a>)>> = BTreeMap::new();
        for (at, entry) in admissions {
            let root = entry.cert.root().sign;
            if self.after_all(self.ended.get(&root), *at) {
                alive.entry(root).or_default().push((*at, *entry));
            }
        }
        let mut attested = self.attested();
        let mut members = BTreeMap::new();
        for (root, entries) in alive {
            let ends = self.ended.get(&root);
            let mut statements: Vec<(At, Role)> = entries
                .iter()
                .filter(|(at, _)| self.is_fresh(*at))
                .filter_map(|(at, entry)| Some((*at, entry.role?)))
                .collect();
            let roles = self.roles.get(&root).into_iter().flatten();
            statements.extend(
                roles
                    .filter(|(index, _)| self.after_all(ends, Some(*index)))
                    .map(|(index, role)| (Some(*index), *role)),
            );
            if statements.is_empty() {
                // The one that made it a member is void: the first of the others does. A later one finds a member, and says
                // nothing of the role.
                let first = |at: &At| !entries.iter().any(|(earlier, _)| self.set.before(*earlier, *at));
                let first = entries.iter().filter(|(at, _)| first(at));
                statements.extend(first.filter_map(|(at, entry)| Some((*at, entry.role?))));
            }
            statements.sort_by_key(|(at, _)| *at);
            let last = self.set.latest(statements);
            // Of several that stand, the least privilege.
            let least = last.iter().map(|(_, role)| *role).min();
            let smallest = || last.iter().min_by_key(|(at, _)| self.set.id_at(*at)).map(|(_, role)| *role);
            let Some(role) = (if self.set.defends(Defence::LeastPrivilege) { least } else { smallest() }) else {
                continue;
            };
            // The name is content: of several, the one said by the op with the smallest id.
            let Some((said_by, first)) =
                entries.iter().map(|(at, entry)| (self.set.id_at(*at), entry)).min_by_key(|(id, _)| *id)
            else {
                continue;
            };
            let member = Member {
                role,
                name: first.name.to_owned(),
                kem: first.cert.root().kem,
                admitted_by: self.ids(entries.iter().map(|(at, _)| *at)),
                role_from: self.ids(last.iter().map(|(at, _)| *at)),
                attested: attested.remove(&root).unwrap_or_default(),
                said_by,
            };
            members.insert(root, Arc::new(member));
        }
        members
    }

    /// Of several proofs for one identity, the last; of concurrent ones, that of the smallest op.
    fn attested(&self) -> BTreeMap<RootKey, BTreeMap<String, Vec<u8>>> {
        let mut said: BTreeMap<(RootKey, &str), Proofs<'_>> = BTreeMap::new();
        for (index, body) in self.bodies() {
            if let OpBody::Attest { identity, proof } = body
                && let Some(root) = self.set.standing_at(index).and_then(|standing| standing.root)
                && self.after_all(self.ended.get(&root), Some(index))
            {
                said.entry((root, identity)).or_default().push((Some(index), proof));
            }
        }
        let mut attested: BTreeMap<RootKey, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
        for ((root, identity), proofs) in said {
            let last = self.set.latest(proofs);
            let proof = last.into_iter().min_by_key(|(at, _)| self.set.id_at(*at));
            let identities = attested.entry(root).or_default();
            if let Some((_, proof)) = proof {
                identities.insert(identity.to_owned(), proof.to_vec());
            }
            while identities.len() > ATTESTED_MAX {
                identities.pop_last();
            }
        }
        attested
    }

    fn is_fresh(&self, at: At) -> bool {
        at.is_none_or(|index| self.set.standing_at(index).is_some_and(|standing| standing.fresh))
    }

    fn devices(
        &self,
        introductions: &[(At, Entry<'a>)],
        members: &BTreeMap<RootKey, Arc<Member>>,
    ) -> BTreeMap<DeviceId, Arc<Device>> {
        let mut devices: BTreeMap<DeviceId, Device> = BTreeMap::new();
        for (at, entry) in introductions {
            let (root, id) = (entry.cert.root().sign, entry.cert.device().id());
            let back = self.after_all(self.revoked.get(&id), *at);
            let alive = members.contains_key(&root) && self.after_all(self.ended.get(&root), *at) && back;
            let by = self.set.id_at(*at);
            let device = devices.entry(id).or_insert_with(|| new_device(entry.cert, entry.label, by));
            device.active |= alive;
            device.revoked &= !back;
            if alive {
                device.introduced_by.push(by);
                device.introduced_by.sort();
            }
            name_device(device, entry.cert, entry.label, by);
        }
        devices.into_iter().map(|(id, device)| (id, Arc::new(device))).collect()
    }

    fn invites(
        &self,
        admissions: &[(At, Entry<'a>)],
        members: &BTreeMap<RootKey, Arc<Member>>,
    ) -> BTreeMap<OpId, Arc<Invite>> {
        let withdrawn: BTreeSet<OpId> = self
            .bodies()
            .filter_map(|(_, body)| if let OpBody::Uninvite { invite } = body { Some(*invite) } else { None })
            .collect();
        // A removal voids the invites that the removed one issued or came in by, or that are for it alone.
        let mut came_by: BTreeMap<OpId, Vec<usize>> = BTreeMap::new();
        // By person: two admins may welcome the same one at the same time.
        let mut used: BTreeMap<OpId, BTreeSet<RootKey>> = BTreeMap::new();
        for (at, entry) in admissions {
            let Some(invite) = entry.invite else { continue };
            used.entry(invite).or_default().insert(entry.cert.root().sign);
            for end in self.ended.get(&entry.cert.root().sign).into_iter().flatten() {
                let removal = matches!(self.body(*end), Some(OpBody::Remove { .. }));
                if removal && !self.set.before(Some(*end), *at) {
                    came_by.entry(invite).or_default().push(*end);
                }
            }
        }
        let mut invites = BTreeMap::new();
        for (index, body) in self.bodies() {
            let OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval, whom } = body else { continue };
            let Some(issuer) = self.set.standing_at(index).and_then(|standing| standing.root) else { continue };
            let id = self.set.id_at(Some(index));
            let guest = whom.and_then(|root| self.ended.get(&root));
            let ended = [self.ended.get(&issuer), came_by.get(&id), guest]
                .into_iter()
                .any(|ends| !self.after_all(ends, Some(index)));
            let void = withdrawn.contains(&id) || (ended && self.set.defends(Defence::IssuerStays));
            let invite = Invite {
                sign: *sign,
                knock: knock.clone(),
                role: *role,
                expires_wall_ms: *expires_wall_ms,
                uses: *uses,
                used: used.get(&id).map_or(0, |people| u32::try_from(people.len()).unwrap_or(u32::MAX)),
                issuer,
                approval: *approval,
                whom: *whom,
                open: is_open(void, *role, members.get(&issuer)) || (!void && !self.set.defends(Defence::IssuerStays)),
                void,
            };
            invites.insert(id, Arc::new(invite));
        }
        invites
    }

    fn epochs(&self) -> (BTreeMap<EpochId, Arc<EpochFacts>>, BTreeSet<EpochId>) {
        let workspace = self.set.workspace();
        let rotations: Vec<usize> = self.bodies().filter(|(_, body)| rotates(body)).map(|(index, _)| index).collect();
        let mut epochs: BTreeMap<EpochId, EpochFacts> = BTreeMap::new();
        let mut covering = BTreeSet::new();
        let mut order = Vec::new();
        for (index, body) in self.bodies() {
            let Some(grant) = body.epoch() else { continue };
            let (id, op) = (grant.id(&workspace), self.set.id_at(Some(index)));
            // Of concurrent copies of one epoch, the smallest op speaks for it.
            if epochs.get(&id).is_some_and(|known| known.op < op) {
                continue;
            }
            let covers = self.set.nodes.get(index).is_some_and(|node| {
                // Most fail by the latest rotation.
                let knows = |rotation: &usize| *rotation == index || node.ancestors.contains(*rotation);
                rotations.iter().rev().all(knows)
            });
            if covers {
                covering.insert(id);
            } else {
                covering.remove(&id);
            }
            order.push(id);
            epochs.insert(id, EpochFacts { op, grant: grant.clone(), depth: 1, lobby: opens_lobby(body) });
        }
        deepen(&mut epochs, &order);
        (epochs.into_iter().map(|(id, facts)| (id, Arc::new(facts))).collect(), covering)
    }

    fn chain_ends(&self) -> BTreeMap<OpId, Arc<End>> {
        let mut ends: BTreeMap<OpId, End> = BTreeMap::new();
        for (index, body) in self.bodies() {
            if let Some(end) = end_of(body) {
                ends.insert(self.set.id_at(Some(index)), end);
            } else if let OpBody::ExtendCut { op, cut } = body
                && let Some(end) = ends.get_mut(op)
            {
                end.cut = extended(&end.cut, cut);
            }
        }
        ends.into_iter().map(|(op, end)| (op, Arc::new(end))).collect()
    }

    /// Of concurrent settings the stricter, and all the relays.
    fn policy(&self) -> Policy {
        let mut said: Vec<(At, &Policy)> = vec![(None, self.set.genesis().policy())];
        for (index, body) in self.bodies() {
            if let OpBody::Policy(policy) = body {
                said.push((Some(index), policy));
            }
        }
        let mut last = self.set.latest(said).into_iter().map(|(_, policy)| policy.clone());
        let first = last.next().unwrap_or_default();
        let merged = last.fold(first, |one, other| Policy {
            approval: one.approval || other.approval,
            max_offline_days: one.max_offline_days.min(other.max_offline_days),
            relays: [one.relays, other.relays].concat(),
        });
        merged.bounded()
    }
}

/// The role that an invite gives.
pub(super) fn invited_as(set: &OpSet, invite: &OpId) -> Option<Role> {
    let invited = set.get(invite).map(crate::op::SignedOp::body);
    if let Some(OpBody::Invite { role, .. }) = invited { Some(*role) } else { None }
}

/// A device as an op introduces it, not active yet.
pub(super) fn new_device(cert: &DeviceCert, label: &str, by: OpId) -> Device {
    Device {
        root: cert.root().sign,
        public: cert.device(),
        label: label.to_owned(),
        active: false,
        introduced_by: Vec::new(),
        certified_by: certifier(cert),
        revoked: true,
        said_by: by,
    }
}

/// Of several labels, and keys under one id, those said by the op with the smallest id.
pub(super) fn name_device(device: &mut Device, cert: &DeviceCert, label: &str, by: OpId) {
    if by < device.said_by {
        label.clone_into(&mut device.label);
        (device.root, device.public, device.said_by) = (cert.root().sign, cert.device(), by);
        device.certified_by = certifier(cert);
    }
}

fn certifier(cert: &DeviceCert) -> Option<DeviceId> {
    match cert.certifier() {
        Certifier::Root => None,
        Certifier::Device(device) => Some(device),
    }
}

/// Sets each depth to one more than the deepest parent's. In the order of their ops parents mostly come first, so that a
/// round or two settle it; as many rounds as there are epochs always do.
fn deepen(epochs: &mut BTreeMap<EpochId, EpochFacts>, order: &[EpochId]) {
    for _ in 0..epochs.len() {
        let mut changed = false;
        for id in order {
            let Some(facts) = epochs.get(id) else { continue };
            let parents = facts.grant.parents.iter().filter_map(|link| epochs.get(&link.parent));
            let depth = parents.map(|parent| parent.depth).max().map_or(1, |depth| depth.saturating_add(1));
            if let Some(facts) = epochs.get_mut(id)
                && facts.depth != depth
            {
                facts.depth = depth;
                changed = true;
            }
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
