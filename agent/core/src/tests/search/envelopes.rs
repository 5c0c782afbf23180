//! Envelopes at every place of a history: which of them count depends on what is held alone, and whoever was removed writes
//! nothing more that counts by itself.
//!
//! Three envelopes: two of a chain, its author the target of something, and one by somebody else on top of either. Cuts keep
//! the first.

use std::collections::BTreeMap;

use super::Search;
use super::alphabet::{Act, GUEST};
use crate::envelope::Kind;
use crate::id::{ChainId, Link, OpId};
use crate::membership::{Envelope, OpSet, Refused, Role, evaluate, evaluate_at, settle};

impl Search {
    /// Every placing of three envelopes of which one author is the target of an op, or was welcomed.
    pub(super) fn envelopes(&mut self, other: &OpSet) {
        let heads = self.places();
        for whom in 0..=GUEST {
            let concerned = |op: &super::Placed| {
                op.letter.target() == Some(whom) || matches!(op.letter.act, Act::Welcome(other, _) if other == whom)
            };
            if !self.placed.iter().any(concerned) {
                continue;
            }
            let by = if whom == 1 { 2 } else { 1 };
            for first in &heads {
                for second in &heads {
                    for on_top in &heads {
                        for on_second in [false, true] {
                            self.three(other, whom, by, [first, second, on_top], on_second);
                        }
                    }
                }
            }
        }
    }

    /// Every set of heads.
    fn places(&self) -> Vec<Vec<OpId>> {
        let mut all = vec![vec![self.root]];
        for mask in 1u32..1 << self.placed.len() {
            let apart = |at: usize| self.placed[at].before & mask == 0;
            if super::bits(mask).all(apart) {
                all.push(super::bits(mask).map(|at| self.ids[at]).collect());
            }
        }
        all
    }

    fn three(&mut self, other: &OpSet, whom: u8, by: u8, heads: [&Vec<OpId>; 3], on_second: bool) {
        let chain = |who: u8| ChainId { device: self.props.first(who), incarnation: 1 };
        // The first one is what cuts keep.
        let (first, second, top) = (self.props.kept(whom).link, Link([0x72; 32]), Link([0x73; 32]));
        let written = |who, seq, prev, heads: &Vec<OpId>, built_on: Vec<Link>| Envelope {
            chain: chain(who),
            seq,
            prev,
            kind: Kind::Content,
            op_heads: heads.clone(),
            built_on: built_on.into_iter().map(|link| vec![link]).collect(),
            started_from: vec![],
        };
        let below = if on_second { second } else { first };
        let held = BTreeMap::from([
            (first, written(whom, 1, Link([0; 32]), heads[0], vec![])),
            (second, written(whom, 2, first, heads[1], vec![first])),
            (top, written(by, 1, Link([0; 32]), heads[2], vec![below])),
        ]);
        let verdicts = settle(&self.set, &held);
        self.placings += 1;
        let told = || format!("{:?} {held:?} {verdicts:?}", self.placed);
        if self.placings.is_multiple_of(8) {
            assert_eq!(settle(other, &held), verdicts, "equal sets, other verdicts: {}", told());
        }
        let state = evaluate(&self.set);
        let writes = |who: u8| state.role_of(&self.props.first(who)) >= Some(Role::Writer);
        for (link, envelope) in &held {
            if verdicts[link].is_err() {
                continue;
            }
            assert!(envelope.built_on.iter().flatten().all(|link| verdicts[link].is_ok()), "not closed: {}", told());
            let then = evaluate_at(&self.set, &envelope.op_heads).unwrap();
            assert!(
                then.role_of(&envelope.chain.device) >= Some(Role::Writer),
                "no writer where it stands: {}",
                told()
            );
        }
        // What is built on by nobody else, and was written without knowing of a removal that counts, beyond its cut.
        let root = self.props.people[usize::from(whom)].root_public.sign;
        let unknown = |heads: &[OpId]| {
            state.ends.iter().any(|(end, facts)| {
                let about = facts.root == Some(root) || facts.devices.contains(&self.props.first(whom));
                about && !self.set.descends(heads, &[*end])
            })
        };
        if unknown(heads[1]) && verdicts[&second].is_ok() {
            assert!(
                on_second && verdicts[&top].is_ok() && writes(by),
                "backdated, and nobody stands by it: {}",
                told()
            );
        }
        // Nothing was done to anybody here that ends writing: all stands that might where it stands.
        let sound = |link: &Link, before: &[OpId]| {
            let envelope = &held[link];
            let then = evaluate_at(&self.set, &envelope.op_heads).unwrap();
            then.role_of(&envelope.chain.device) >= Some(Role::Writer) && self.set.descends(&envelope.op_heads, before)
        };
        let known = |who: u8| state.devices.contains_key(&self.props.first(who));
        if state.ends.is_empty() && known(whom) && known(by) {
            assert_eq!(verdicts[&first].is_ok(), sound(&first, &[]), "{}", told());
            let second_sound = sound(&first, &[]) && sound(&second, heads[0]);
            assert_eq!(verdicts[&second].is_ok(), second_sound, "{}", told());
            let below_sound = if on_second { second_sound } else { sound(&first, &[]) };
            assert_eq!(verdicts[&top].is_ok(), below_sound && sound(&top, &[]), "{}", told());
        }
        // Who stayed a writer all along, and built on nothing that fell, is heard.
        let touched = self.placed.iter().any(|op| op.letter.target() == Some(by));
        if !touched && self.base[usize::from(by)] >= Some(Role::Writer) {
            let expected = if verdicts[&below].is_ok() { Ok(()) } else { Err(Refused::BuiltOnRefused) };
            assert_eq!(verdicts[&top], expected, "somebody who stayed is not heard: {}", told());
        }
    }
}
