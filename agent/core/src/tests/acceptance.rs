//! Which envelopes count: what people wrote, and what was done to their membership meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::script::{Cast, Step, step, stopped_by};
use crate::envelope::{Draft, Kind, open_head, seal};
use crate::hash;
use crate::id::{ChainId, Link, OpId};
use crate::keyring::Keyring;
use crate::membership::{Defence, Envelope, Refused, Role, evaluate, evaluate_at, settle};
use crate::op::{ChainPoint, Cut, OpBody, SignedOp, ops};

/// What everybody wrote, by link.
#[derive(Clone, Default)]
struct Written {
    held: BTreeMap<Link, Envelope>,
    last: BTreeMap<ChainId, Link>,
    order: Vec<Link>,
}

/// Changes that one envelope holds each.
fn each(links: Vec<Link>) -> Vec<Vec<Link>> {
    links.into_iter().map(|link| vec![link]).collect()
}

impl Written {
    /// Somebody writes at these heads, on top of `built_on`; with `after` at another place of its own chain.
    fn write(&mut self, cast: &Cast, who: u8, heads: Vec<OpId>, built_on: Vec<Link>, after: Option<Link>) -> Link {
        let chain = ChainId { device: cast.device(who), incarnation: 1 };
        let prev = after.or_else(|| self.last.get(&chain).copied());
        let seq = prev.and_then(|prev| self.held.get(&prev)).map_or(1, |prev| prev.seq + 1);
        let prev = prev.unwrap_or(Link([0; 32]));
        let envelope = Envelope {
            chain,
            seq,
            prev,
            kind: Kind::Content,
            op_heads: heads,
            built_on: each(built_on),
            started_from: vec![],
        };
        let number = (self.order.len() as u64).to_be_bytes();
        let link = Link(hash::h("written", &[format!("{envelope:?}").as_bytes(), &number]));
        self.held.insert(link, envelope);
        self.last.insert(chain, link);
        self.order.push(link);
        link
    }
    fn point(&self, link: Link) -> ChainPoint {
        let envelope = &self.held[&link];
        ChainPoint { chain: envelope.chain, seq: envelope.seq, link }
    }
}

/// A reader writes.
#[test]
fn reader_writes() {
    stopped_by(Defence::RoleAtHeads, |cast| {
        let demoted = cast.promote(0, 5, Role::Reader, cast.base());
        let mut written = Written::default();
        let link = written.write(cast, 5, vec![demoted], vec![], None);
        settle(&cast.world.set, &written.held)[&link].is_ok()
    });
}

/// A demoted writer names the membership from before its demotion, after having named a later one.
#[test]
fn heads_step_back() {
    stopped_by(Defence::HeadsMoveOn, |cast| {
        let base = cast.base();
        let op = ops::policy(&cast.by(0, base.clone()), crate::op::Policy::default());
        let later = cast.add(op);
        let mut written = Written::default();
        written.write(cast, 5, vec![later], vec![], None);
        let link = written.write(cast, 5, base, vec![], None);
        settle(&cast.world.set, &written.held)[&link].is_ok()
    });
}

/// Whoever was removed backdates what it writes: beyond the cut it does not count.
#[test]
fn removed_writer_backdates() {
    stopped_by(Defence::Cut, |cast| {
        let mut written = Written::default();
        let first = written.write(cast, 5, cast.base(), vec![], None);
        let removal = cast.removal(0, 5, cast.base(), Cut::new(vec![written.point(first)]));
        cast.add(removal);
        let later = written.write(cast, 5, cast.base(), vec![first], None);
        let verdicts = settle(&cast.world.set, &written.held);
        assert_eq!(verdicts[&first], Ok(()));
        verdicts[&later].is_ok()
    });
}

/// A text that an honest writer began on a file of the removed one keeps the file, though no change of theirs depends on one
/// of its; the writer's own does not fall with it if the version is there from elsewhere.
#[test]
fn a_file_that_others_went_on_with_stays() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let mut written = Written::default();
    let file = written.write(&cast, 5, base.clone(), vec![], None);
    let edit = written.write(&cast, 6, base.clone(), vec![], None);
    written.held.get_mut(&edit).unwrap().started_from = vec![file];
    let removal = cast.removal(0, 5, base.clone(), Cut::default());
    let removal = cast.add(removal);
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&file], verdicts[&edit]], [Ok(()); 2]);
    // Who knew of the removal had the version from somebody else, or should not have it: the file does not stay for that.
    written.held.get_mut(&edit).unwrap().op_heads = vec![removal];
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&file], verdicts[&edit]], [Err(Refused::BeyondCut), Ok(())]);
}

/// What a writer who did not know of the removal built on stays; what one who knew built on does not, nor what the removed
/// one's friend builds on after being removed too; and a moved cut gives the rest.
#[test]
fn what_honest_people_built_on_stays() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let mut written = Written::default();
    let first = written.write(&cast, 5, base.clone(), vec![], None);
    let second = written.write(&cast, 5, base.clone(), vec![first], None);
    let third = written.write(&cast, 5, base.clone(), vec![second], None);
    let honest = written.write(&cast, 6, base.clone(), vec![second], None);
    let removal = cast.removal(0, 5, base.clone(), Cut::default());
    let removal = cast.add(removal);
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&first], verdicts[&second], verdicts[&honest]], [Ok(()); 3]);
    assert_eq!(verdicts[&third], Err(Refused::BeyondCut));
    // Somebody who knows better does not bring it back, and falls with it.
    let knowing = written.write(&cast, 6, vec![removal], vec![third], None);
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&third], verdicts[&knowing]], [Err(Refused::BeyondCut), Err(Refused::BuiltOnRefused)]);
    let op = ops::extend_cut(&cast.by(1, vec![removal]), removal, Cut::new(vec![written.point(third)]));
    let extended = cast.add(op);
    assert!(cast.world.set.is_authorised(&extended));
    let verdicts = settle(&cast.world.set, &written.held);
    assert!(verdicts.values().all(Result::is_ok));
    // An admin cannot undo what an owner did.
    let op = ops::extend_cut(&cast.by(3, vec![removal]), removal, Cut::default());
    let by_admin = cast.add(op);
    assert!(!cast.world.set.is_authorised(&by_admin));
}

/// Two removed friends cannot hold up each other.
#[test]
fn removed_friends_do_not_rescue_each_other() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let mut written = Written::default();
    let one = written.write(&cast, 5, base.clone(), vec![], None);
    let other = written.write(&cast, 6, base.clone(), vec![one], None);
    for whom in [5, 6] {
        let removal = cast.removal(0, whom, base.clone(), Cut::default());
        cast.add(removal);
    }
    let verdicts = settle(&cast.world.set, &written.held);
    assert!([one, other].iter().all(|link| verdicts[link].is_err()));
}

/// What is built on something refused is refused too.
#[test]
fn accepted_is_closed() {
    stopped_by(Defence::ClosedSet, |cast| {
        let demoted = cast.promote(0, 5, Role::Reader, cast.base());
        let mut written = Written::default();
        let wrong = written.write(cast, 5, vec![demoted], vec![], None);
        let on_it = written.write(cast, 6, vec![demoted], vec![wrong], None);
        settle(&cast.world.set, &written.held)[&on_it].is_ok()
    });
}

/// Whoever was removed and came back writes anew, and a demoted one's later promotion does not bring back what was beyond.
#[test]
fn a_new_beginning_is_no_amnesty() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let demoted = cast.promote(0, 5, Role::Reader, base.clone());
    let again = cast.promote(0, 5, Role::Writer, vec![demoted]);
    let mut written = Written::default();
    let beyond = written.write(&cast, 5, base, vec![], None);
    let anew = written.write(&cast, 5, vec![again], vec![], None);
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&beyond], verdicts[&anew]], [Err(Refused::BeyondCut), Ok(())]);
}

/// Somebody signs two envelopes for one place. Until an op proves it, no branch counts; then one does at most: that on which
/// more people built, and of equal ones that with the smaller link.
#[test]
fn signing_twice() {
    stopped_by(Defence::OneBranch, |cast| {
        let base = cast.base();
        let mut written = Written::default();
        let first = written.write(cast, 5, base.clone(), vec![], None);
        let one = written.write(cast, 5, base.clone(), vec![], Some(first));
        let other = written.write(cast, 5, base, vec![], Some(first));
        let verdicts = settle(&cast.world.set, &written.held);
        assert_eq!(verdicts[&first], Ok(()));
        verdicts[&one].is_ok() && verdicts[&other].is_ok()
    });
}

/// Two sealed envelopes of person 5 for one place, as their signed headers, with the place before them.
fn forked(cast: &mut Cast) -> ([Vec<u8>; 2], [Link; 2], ChainPoint) {
    let who = cast.people[5].clone();
    let chain = ChainId { device: who.device.id(), incarnation: 1 };
    let (workspace, epoch, heads) = (cast.world.workspace(), cast.world.epoch.clone(), cast.base());
    let mut keyring = Keyring::new();
    keyring.insert(epoch.clone());
    let mut rng = ChaCha20Rng::from_seed([12; 32]);
    let mut head = |seq, prev, body: &[u8]| {
        let draft = Draft {
            kind: Kind::Content,
            epoch: &epoch,
            chain,
            seq,
            prev,
            op_heads: heads.clone(),
            body,
            leaf_changes: &[],
        };
        let sealed = seal(draft, &workspace, &who.device, &mut rng).unwrap();
        open_head(&workspace, &keyring, sealed.sealed.bytes()).unwrap()
    };
    let first = head(1, Link([0; 32]), b"first");
    let (one, other) = (head(2, first.link, b"one"), head(2, first.link, b"other"));
    let point = ChainPoint { chain, seq: 1, link: first.link };
    ([one.signed_header(), other.signed_header()], [one.link, other.link], point)
}

/// A proven fork closes that chain: the branch that honest people built on stays, the other goes; without such people
/// everything beyond the cut goes. The device stays.
#[test]
fn a_proven_fork_is_settled() {
    let mut cast = Cast::ranks();
    let (headers, [one, other], point) = forked(&mut cast);
    let base = cast.base();
    let place = |seq, prev| Envelope {
        chain: point.chain,
        seq,
        prev,
        kind: Kind::Content,
        op_heads: base.clone(),
        built_on: vec![],
        started_from: vec![],
    };
    let mut written = Written::default();
    written.held.insert(point.link, place(1, Link([0; 32])));
    written.held.insert(one, place(2, point.link));
    written.held.insert(other, place(2, point.link));
    written.write(&cast, 6, base.clone(), vec![other], None);
    let (state, old) = (cast.world.state(), cast.world.epoch.clone());
    let mut rng = ChaCha20Rng::from_seed([13; 32]);
    let cut = Cut::new(vec![point]);
    let (op, _) = ops::fork(&cast.by(4, base.clone()), &state, headers, cut, &[&old], &mut rng).unwrap();
    let id = cast.add(op);
    assert!(cast.world.set.is_authorised(&id));
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&point.link], verdicts[&one], verdicts[&other]], [Ok(()), Err(Refused::Forked), Ok(())]);
    assert_eq!(cast.world.state().role_of(&cast.device(5)), Some(Role::Writer));
    let state = cast.world.state();
    assert!(state.covering.len() == 1 && state.epochs[state.covering.first().unwrap()].lobby);
}

/// What was built on a change that several envelopes hold counts if one of them does: a forker that seals its words again
/// into both branches does not take away what others made of them.
#[test]
fn one_holder_that_counts_is_enough() {
    let cast = Cast::ranks();
    let base = cast.base();
    let mut written = Written::default();
    let first = written.write(&cast, 5, base.clone(), vec![], None);
    let one = written.write(&cast, 5, base.clone(), vec![], Some(first));
    let other = written.write(&cast, 5, base.clone(), vec![], Some(first));
    let again = written.write(&cast, 4, base.clone(), vec![], None);
    let top = written.write(&cast, 6, base, vec![], None);
    written.held.get_mut(&top).unwrap().built_on = vec![vec![one, other]];
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&one], verdicts[&top]], [Err(Refused::Forked), Err(Refused::BuiltOnRefused)]);
    written.held.get_mut(&top).unwrap().built_on = vec![vec![one, again, other]];
    assert_eq!(settle(&cast.world.set, &written.held)[&top], Ok(()));
}

/// Nobody proves a fork that is none: equal headers, another device's, another place's, a cut that takes more.
#[test]
fn forged_fork() {
    let forge = |cast: &mut Cast, wrong: usize| {
        let (mut headers, _, mut point) = forked(cast);
        match wrong {
            0 => headers[1][200] ^= 1,
            1 => headers[1] = headers[0][..headers[0].len() - 1].to_vec(),
            2 => point.seq = 2,
            _ => point.link = Link([1; 32]),
        }
        let (state, old) = (cast.world.state(), cast.world.epoch.clone());
        let mut rng = ChaCha20Rng::from_seed([13; 32]);
        let by = cast.by(4, cast.base());
        let (op, _) = ops::fork(&by, &state, headers, Cut::new(vec![point]), &[&old], &mut rng).unwrap();
        let id = cast.add(op);
        cast.world.set.is_authorised(&id)
    };
    for wrong in 0..4 {
        assert!(!forge(&mut Cast::ranks(), wrong));
    }
    stopped_by(Defence::ForkProof, |cast| forge(cast, 3));
}

/// Somebody whose admission does not count after all, because whoever let it in was removed at that time: what it wrote
/// counts as far as people who belong built on it.
#[test]
fn admissions_that_fall() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let (invite, admission, epoch) = (cast.invite, cast.admission.clone(), cast.world.epoch.clone());
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let by = cast.by(5, base.clone());
    let op = ops::welcome(&by, invite, admission, Role::Writer, &epoch, &mut rng).unwrap();
    let welcome = cast.add(op);
    let guest = cast.people.len() as u8;
    let mut written = Written::default();
    let one = written.write(&cast, guest, vec![welcome], vec![], None);
    let other = written.write(&cast, guest, vec![welcome], vec![one], None);
    assert!(settle(&cast.world.set, &written.held).values().all(Result::is_ok));
    cast.remove(0, 5, base);
    assert!(settle(&cast.world.set, &written.held).values().all(Result::is_err));
    // Whoever knew that it did not count does not make it count.
    let aware = written.write(&cast, 4, cast.world.set.heads(), vec![], None);
    written.held.get_mut(&aware).unwrap().started_from = vec![one];
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&one], verdicts[&aware]], [Err(Refused::BeyondCut), Ok(())]);
    written.write(&cast, 6, vec![welcome], vec![one], None);
    let verdicts = settle(&cast.world.set, &written.held);
    assert_eq!([verdicts[&one], verdicts[&other]], [Ok(()), Err(Refused::BeyondCut)]);
    assert!(cast.world.set.signing_key(&cast.device(guest)).is_some());
}

/// A step of membership, or an envelope: who, at which heads, on top of what.
#[derive(Debug, Clone)]
enum Act {
    Op(Step),
    Write { who: u8, places: u32, built_on: u32, fork: bool },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        step().prop_map(Act::Op),
        (0u8..5, any::<u32>(), any::<u32>(), prop::bool::weighted(0.1))
            .prop_map(|(who, places, built_on, fork)| Act::Write { who, places, built_on, fork }),
    ]
}

/// An op, or an envelope.
type Delivered = (Option<SignedOp>, Option<(Link, Envelope)>);

/// What is delivered to a replica: envelopes are held once their predecessor is and their heads are known.
struct Replica {
    set: crate::membership::OpSet,
    held: BTreeMap<Link, Envelope>,
    waiting: Vec<(Link, Envelope)>,
}

impl Replica {
    fn take(&mut self, op: Option<SignedOp>, envelope: Option<(Link, Envelope)>) {
        op.into_iter().for_each(|op| assert!(self.set.insert(op).is_ok()));
        self.waiting.extend(envelope);
        loop {
            let (set, held) = (&self.set, &self.held);
            let ready = |(_, envelope): &(Link, Envelope)| {
                let follows = envelope.seq == 1 || held.contains_key(&envelope.prev);
                follows && envelope.op_heads.iter().all(|head| set.contains(head))
            };
            let Some(next) = self.waiting.iter().position(ready) else { return };
            let (link, envelope) = self.waiting.swap_remove(next);
            self.held.insert(link, envelope);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Ops and envelopes in any order, some lost: equal sets have equal verdicts; what counts is closed, was written by
    /// somebody who might where it stood, once a place; and what lies beyond a cut was built on by somebody who stayed.
    #[test]
    fn acceptance_is_a_function_of_what_is_held(
        acts in prop::collection::vec(act(), 1..24),
        order in prop::collection::vec(any::<prop::sample::Index>(), 24),
        lost in prop::collection::vec(prop::bool::weighted(0.15), 24),
    ) {
        let mut cast = Cast::usual();
        let base = cast.world.set.clone();
        let mut written = Written::default();
        let mut delivered: Vec<Delivered> = Vec::new();
        for act in &acts {
            match act {
                Act::Op(step) => delivered.extend(cast.play(&[*step]).into_iter().map(|op| (Some(op), None))),
                Act::Write { who, places, built_on, fork } => {
                    let heads = cast.parents(*places);
                    let pick = |bits: u32| {
                        let nth = (bits as usize) % (written.order.len() + 1);
                        written.order.get(nth).copied()
                    };
                    let on: BTreeSet<Link> = [pick(*built_on), pick(*built_on >> 8)].into_iter().flatten().collect();
                    let chain = ChainId { device: cast.device(*who), incarnation: 1 };
                    let after = fork.then(|| {
                        written.held.iter().find(|(_, other)| other.chain == chain).map(|(link, _)| *link)
                    }).flatten();
                    let link = written.write(&cast, *who, heads, on.into_iter().collect(), after);
                    delivered.push((None, Some((link, written.held[&link].clone()))));
                }
            }
        }
        let set = &cast.world.set;
        let verdicts = settle(set, &written.held);
        let mut shuffled = delivered.clone();
        for (at, index) in order.iter().enumerate().take(shuffled.len()) {
            let other = index.index(shuffled.len());
            shuffled.swap(at, other);
        }
        let mut all = Replica { set: base.clone(), held: BTreeMap::new(), waiting: Vec::new() };
        shuffled.iter().cloned().for_each(|(op, envelope)| all.take(op, envelope));
        prop_assert_eq!(&all.held, &written.held);
        prop_assert_eq!(settle(&all.set, &all.held), verdicts.clone());
        // Two that got the same part, in two orders.
        let part = |reverse: bool| {
            let mut kept: Vec<_> = shuffled.iter().zip(&lost).filter(|(_, lost)| !**lost).map(|(sent, _)| sent.clone()).collect();
            if reverse {
                kept.reverse();
            }
            let mut replica = Replica { set: base.clone(), held: BTreeMap::new(), waiting: Vec::new() };
            kept.into_iter().for_each(|(op, envelope)| replica.take(op, envelope));
            replica
        };
        let (one, other) = (part(false), part(true));
        prop_assert_eq!(settle(&one.set, &one.held), settle(&other.set, &other.held));

        let state = evaluate(set);
        let counts = |link: &Link| verdicts[link].is_ok();
        let mut places = BTreeSet::new();
        for (link, envelope) in written.held.iter().filter(|(link, _)| counts(link)) {
            prop_assert!(envelope.built_on.iter().all(|holders| holders.iter().any(counts)));
            prop_assert!(places.insert((envelope.chain, envelope.seq)), "two of one place");
            let then = evaluate_at(set, &envelope.op_heads).unwrap();
            prop_assert!(then.role_of(&envelope.chain.device) >= Some(Role::Writer));
            let root = then.devices[&envelope.chain.device].root;
            let ended = state.ends.iter().filter(|(_, end)| end.root == Some(root)).any(|(op, end)| {
                let within = end.cut.points().iter().any(|point| point.chain == envelope.chain && envelope.seq < point.seq);
                !within && !set.descends(&envelope.op_heads, &[*op])
            });
            if ended {
                let stayed = |other: &Envelope| state.role_of(&other.chain.device) >= Some(Role::Writer);
                let by_others = written.held.iter().any(|(other, by)| counts(other) && stayed(by) && other != link);
                prop_assert!(by_others, "beyond a cut, and nobody who stayed wrote anything");
            }
        }
    }
}

/// What the parts of a body are for: ops say nothing of content, so their envelopes know no cut.
#[test]
fn ops_are_beyond_no_cut() {
    let mut cast = Cast::ranks();
    let mut written = Written::default();
    let link = written.write(&cast, 5, cast.base(), vec![], None);
    written.held.get_mut(&link).unwrap().kind = Kind::Ops;
    let removal = cast.removal(0, 5, cast.base(), Cut::default());
    assert!(matches!(removal.body(), OpBody::Remove { .. }));
    cast.add(removal);
    assert_eq!(settle(&cast.world.set, &written.held)[&link], Ok(()));
}
