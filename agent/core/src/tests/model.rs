//! Model checks: random histories by the thousand. Every history up to a size is in `search`.

use std::sync::Arc;

use proptest::prelude::*;

use super::script::{Cast, step};
use crate::id::OpId;
use crate::membership::{Membership, Role, evaluate, evaluate_at};
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
        // What is not authorised where it stands changes nothing, whatever is beside it: a search may leave it out.
        for (op, other) in made.iter().zip(shuffled(&made, &order)).filter(|(op, _)| !set.is_authorised(&op.id())).take(4) {
            let beside = |heads: &[OpId]| set.state_anew(&[heads, &[other.id()]].concat());
            let (with, without) = (beside(&[op.id()]), beside(op.parents()));
            let with = with.zip(without.as_ref()).map(|(mut state, without)| {
                state.heads.clone_from(&without.heads);
                state
            });
            prop_assert_eq!(with, without);
        }
        // At any two places, too: what a few did at the same time.
        for (one, other) in shuffled(&made, &order).iter().zip(&made).take(8) {
            let mut at = vec![one.id(), other.id()];
            at.sort();
            at.dedup();
            prop_assert_eq!(evaluate_at(set, &at), set.state_anew(&at).map(Arc::new));
        }
        prop_assert_eq!(Some(evaluate(set)), set.state_anew(&set.heads()).map(Arc::new));
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
