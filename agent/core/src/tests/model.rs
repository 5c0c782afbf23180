//! Model checks: random histories by the thousand, and every history up to a size.
//!
//! `WEFT_MODEL_OPS=4` (or 5) makes the exhaustive search go that far; without it, two ops, which takes seconds.
#![allow(clippy::disallowed_methods, reason = "how far to search is asked of the environment; the test is no core")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::script::{Cast, Step, step};
use crate::id::{OpId, RootKey};
use crate::membership::{Defence, Membership, OpSet, Role, evaluate, evaluate_at};
use crate::op::SignedOp;

fn owners(state: &Membership) -> usize {
    state.members.values().filter(|member| member.role == Role::Owner).count()
}

/// In a random order, from a generator's numbers.
fn shuffled(ops: &[SignedOp], order: &[prop::sample::Index]) -> Vec<SignedOp> {
    let mut ops = ops.to_vec();
    for (at, index) in order.iter().enumerate().take(ops.len()) {
        let other = index.index(ops.len());
        ops.swap(at, other);
    }
    ops
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is done by whomever, in whatever order and however much of it arrives: one set has one state, at all heads;
    /// the state one op further is that of the whole history; an owner is left; whoever is active belongs.
    #[test]
    fn one_set_has_one_state(
        steps in prop::collection::vec(step(), 1..24),
        order in prop::collection::vec(any::<prop::sample::Index>(), 24),
        lost in prop::collection::vec(prop::bool::weighted(0.2), 24),
    ) {
        let mut cast = Cast::usual();
        let base = cast.world.set.clone();
        let made = cast.play(&steps);
        let set = &cast.world.set;
        let mut other = base.clone();
        for op in shuffled(&made, &order) {
            prop_assert!(other.insert(op).is_ok());
        }
        prop_assert_eq!(other.parked(), 0);
        prop_assert_eq!(evaluate(&other), evaluate(set));
        for op in &made {
            let at = [op.id()];
            prop_assert_eq!(evaluate_at(&other, &at), evaluate_at(set, &at));
            prop_assert_eq!(evaluate_at(set, &at), set.state_anew(&at).map(Arc::new));
            prop_assert_eq!(other.is_authorised(&op.id()), set.is_authorised(&op.id()));
        }
        let mut part = base;
        for (op, _) in shuffled(&made, &order).into_iter().zip(&lost).filter(|(_, lost)| !**lost) {
            prop_assert!(part.insert(op).is_ok());
        }
        let state = evaluate(&part);
        prop_assert_eq!(Some(state.clone()), evaluate_at(set, &part.heads()));
        for state in [state, evaluate(set)] {
            prop_assert!(owners(&state) > 0);
            prop_assert!(state.active_devices().all(|(_, device)| state.members.contains_key(&device.root)));
            prop_assert!(state.covering.iter().all(|epoch| state.epochs.contains_key(epoch)));
        }
    }
}

/// What is tried at each place: few enough to go through all, and all that moves power.
fn alphabet(people: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    for who in 0..people {
        let step = |kind, whom, role| Step { who, key: 9, kind, whom, role, places: 0 };
        for whom in (0..people).filter(|whom| *whom != who) {
            steps.push(step(0, whom, 0));
            steps.push(step(2, whom, 0));
            for role in [1, 3, 4] {
                steps.push(step(3, whom, role));
            }
        }
        steps.extend([step(3, who, 1), step(5, 0, 0), step(9, 0, 0), step(8, 0, 0), step(13, 0, 0)]);
    }
    steps
}

struct Search {
    base: BTreeMap<RootKey, Role>,
    /// The state of every set reached, by its ops: reached again in another order, it must be the same.
    seen: BTreeMap<Vec<OpId>, Arc<Membership>>,
    /// The base's op.
    root: OpId,
    states: u64,
}

impl Search {
    /// Independent of how evaluation works: what a set of authors can bring about at most.
    fn check(&self, cast: &Cast, state: &Membership) {
        assert!(owners(state) > 0, "nobody is left");
        assert!(state.active_devices().all(|(_, device)| state.members.contains_key(&device.root)));
        let authors = authors(cast, &self.root);
        let highest = authors.iter().filter_map(|root| self.base.get(root)).max().copied();
        let base_owners = self.base.values().filter(|role| **role == Role::Owner).count();
        let owning = authors.iter().filter(|root| self.base.get(*root) == Some(&Role::Owner)).count();
        for (root, role) in &self.base {
            let now = state.members.get(root).map(|member| member.role);
            // Nobody falls but by somebody above, by other owners together, or by themself.
            let beside = highest == Some(*role) && *role < Role::Owner;
            let safe = highest < Some(*role) || beside || (*role == Role::Owner && owning < 2);
            if safe && !authors.contains(root) {
                assert_eq!(now, Some(*role), "fell by nobody above");
                assert!(state.active_devices().any(|(_, device)| device.root == *root), "lost its devices");
            }
            // Nobody rises but by somebody above what it rises to; to owner only by most owners.
            if let Some(now) = now.filter(|now| now > role) {
                let given = if now == Role::Owner { owning > base_owners / 2 } else { highest > Some(now) };
                assert!(given, "rose to {now:?} by nobody above");
            }
        }
        for (root, member) in state.members.iter().filter(|(root, _)| !self.base.contains_key(*root)) {
            let named = owning > base_owners / 2;
            let role = if named { Role::Owner } else { highest.map_or(Role::Keeper, |_| Role::Admin) };
            assert!(*root == cast.guest.root_public.sign && member.role <= role && highest >= Some(Role::Writer));
        }
    }

    fn visit(&mut self, cast: &mut Cast, left: usize) {
        let mut key: Vec<OpId> = cast.places.iter().skip(1).copied().collect();
        key.sort();
        let state = evaluate(&cast.world.set);
        if let Some(known) = self.seen.get(&key) {
            assert_eq!(known, &state, "two replicas with equal sets differ");
            return;
        }
        self.states += 1;
        self.check(cast, &state);
        self.seen.insert(key, state);
        if left == 0 {
            return;
        }
        let mut steps = alphabet(3);
        // A vote on each place.
        for (nth, _) in cast.places.iter().enumerate().skip(1) {
            for who in 0..3 {
                steps.push(Step { who, key: 9, kind: 10, whom: nth as u8, role: 0, places: 0 });
            }
        }
        for parents in antichains(&cast.world.set, &cast.places) {
            for step in &steps {
                let Some(op) = cast.op(*step, parents.clone()) else { continue };
                let id = op.id();
                if cast.world.set.contains(&id) {
                    continue;
                }
                let before = cast.world.set.clone();
                let counts = cast.world.set.insert(op).is_ok() && cast.world.set.is_authorised(&id);
                // What is not authorised where it stands never counts, whatever comes.
                if counts {
                    cast.places.push(id);
                    self.visit(cast, left - 1);
                    cast.places.pop();
                }
                cast.world.set = before;
            }
        }
    }
}

fn authors(cast: &Cast, base: &OpId) -> BTreeSet<RootKey> {
    let set = &cast.world.set;
    let since = set.ops().filter(|op| op.id() != *base && set.descends(op.parents(), &[*base]));
    since
        .filter_map(|op| match op.signer() {
            crate::op::Signer::Device(device) => {
                cast.people.iter().find(|who| who.device.id() == device).map(|who| who.root_public.sign)
            }
            crate::op::Signer::Root(root) => Some(root),
            crate::op::Signer::Recovery(_) => None,
        })
        .collect()
}

/// Every set of places of which none stands before another.
fn antichains(set: &OpSet, places: &[OpId]) -> Vec<Vec<OpId>> {
    let mut all = Vec::new();
    for mask in 1u32..1 << places.len() {
        let chosen: Vec<OpId> =
            places.iter().enumerate().filter(|(nth, _)| mask & (1 << nth) != 0).map(|(_, id)| *id).collect();
        let stands_apart =
            chosen.iter().all(|one| chosen.iter().all(|other| one == other || !set.descends(&[*one], &[*other])));
        if stands_apart {
            all.push(chosen);
        }
    }
    all
}

/// All histories of a few ops by three people of several ranks: no power from nothing, somebody is left, equal sets are
/// equal.
#[test]
fn every_small_history_is_sound() {
    let ops = std::env::var("WEFT_MODEL_OPS").ok().and_then(|ops| ops.parse().ok()).unwrap_or(2usize);
    let casts: [&[Role]; 3] = [&[Role::Owner, Role::Owner], &[Role::Admin, Role::Writer], &[Role::Owner, Role::Admin]];
    for (nth, roles) in casts.into_iter().enumerate() {
        let states = search(190 + nth as u8, roles, ops, None);
        assert!(states > 100, "{roles:?}: only {states} sets of up to {ops} ops");
    }
}

fn search(seed: u8, roles: &[Role], ops: usize, lacks: Option<Defence>) -> u64 {
    let mut cast = Cast::new(seed, roles);
    cast.world.set.lacks = lacks;
    let base = cast.world.state().members.iter().map(|(root, member)| (*root, member.role)).collect();
    let mut search = Search { base, seen: BTreeMap::new(), root: cast.places[0], states: 0 };
    search.visit(&mut cast, ops);
    search.states
}

/// The search finds what is wrong: each of these defences taken out, some history of two ops is unsound.
#[test]
fn the_search_finds_what_is_wrong() {
    for (roles, lacks) in [
        ([Role::Owner, Role::Owner], Defence::Quorum),
        ([Role::Admin, Role::Admin], Defence::StrictRank),
        ([Role::Owner, Role::Admin], Defence::OwnerLeft),
    ] {
        let found = std::panic::catch_unwind(|| search(195, &roles, 2, Some(lacks)));
        assert!(found.is_err(), "nothing found without {lacks:?}");
    }
}
