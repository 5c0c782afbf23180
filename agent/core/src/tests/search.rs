//! Every history up to a size: no power from nothing, somebody is left, equal sets are equal.
//!
//! A history is a set of ops with the places each stands at: a DAG. Each is met once, whatever the order its ops could be
//! written in (of the ops that could come next one is taken, and those passed over stay passed over), and once whatever the
//! names of people who stand alike. Nothing is signed and nothing is kept: what is open at a place is judged once, and goes
//! with every history that holds the place. What is not authorised where it stands is left out, for it changes nothing, which
//! is looked at for all histories of up to two ops (and for random ones in `model`).
//!
//! `WEFT_MODEL_OPS=4` makes the search go that far with every letter (`WEFT_MODEL_LETTERS=people` for removals, roles and
//! votes alone), and `WEFT_MODEL_CAST=2` for one cast alone; without it, two ops, which takes seconds.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how far to search is asked of the environment, and how long it took is printed; the test is no core"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a question about one letter has one answer for all the others")]

mod alphabet;
mod envelopes;
mod oracle;

use std::rc::Rc;
use std::time::Instant;

use alphabet::{Alphabet, Letter, Props};
use oracle::{Oracle, Placed};

use super::script::Cast;
use crate::id::OpId;
use crate::membership::{Defence, Judged, Membership, OpSet, Role, evaluate_at};

/// An op that may come next.
struct Open {
    judged: Judged,
    placed: Placed,
}

struct Search {
    props: Props,
    alphabet: Alphabet,
    letters: Vec<Letter>,
    base: [Option<Role>; 4],
    root: OpId,
    set: OpSet,
    /// What was the base, to build the same set in another order on.
    other: OpSet,
    placed: Vec<Placed>,
    ids: Vec<OpId>,
    /// Names of people for one another who stand alike.
    alike: Vec<[u8; 4]>,
    ops: usize,
    sets: u64,
    judged: u64,
    orders: u64,
    /// One history in so many is looked at with envelopes; zero: none.
    envelopes_in: u64,
    placings: u64,
}

fn bits(mask: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |bit| mask & (1 << bit) != 0)
}

impl Search {
    fn new(seed: u8, roles: [Role; 2], alphabet: Alphabet, ops: usize, lacks: Option<Defence>) -> Self {
        let mut cast = Cast::new(seed, &roles);
        cast.world.set.lacks = lacks;
        cast.world.set.unsigned = true;
        let state = cast.world.state();
        let role = |who: usize| {
            cast.people.get(who).and_then(|who| state.members.get(&who.root_public.sign)).map(|who| who.role)
        };
        let base = [role(0), role(1), role(2), None];
        let mut alike = Vec::new();
        if base[1] == base[2] {
            alike.push([0, 2, 1, 3]);
            // The founder made the base's invite: with letters about it, nobody stands like the founder.
            if base[0] == base[1] && !alphabet.guests {
                alike.extend([[1, 0, 2, 3], [2, 1, 0, 3], [1, 2, 0, 3], [2, 0, 1, 3]]);
            }
        }
        let (root, set) = (cast.places[0], cast.world.set.clone());
        Self {
            props: Props::of(&cast),
            letters: alphabet.fixed(),
            alphabet,
            base,
            root,
            other: set.clone(),
            set,
            placed: Vec::new(),
            ids: Vec::new(),
            alike,
            ops,
            sets: 0,
            judged: 0,
            orders: 0,
            envelopes_in: 0,
            placings: 0,
        }
    }

    fn run(&mut self) {
        let open = self.opened();
        self.descend(&open);
    }

    /// Every op that may stand on the newest place, alone or with places beside it.
    fn opened(&mut self) -> Vec<Rc<Open>> {
        let newest = self.placed.len().checked_sub(1);
        let beside: Vec<usize> = newest.map_or(Vec::new(), |newest| {
            (0..newest).filter(|at| self.placed[newest].before & (1 << at) == 0).collect()
        });
        let mut letters = self.letters.clone();
        let mut open = Vec::new();
        let about: Vec<(usize, Vec<Letter>)> = (0..self.placed.len())
            .map(|at| {
                let needs_votes = self.set.needs_votes(&self.ids[at]);
                (at, self.alphabet.about(at as u8, self.placed[at].letter, needs_votes))
            })
            .collect();
        for choice in 0..1u32 << beside.len() {
            let chosen = newest.into_iter().chain(bits(choice).map(|nth| beside[nth]));
            let chosen: Vec<usize> = chosen.collect();
            let apart = |one: &usize| chosen.iter().all(|other| self.placed[*one].before & (1 << other) == 0);
            if !chosen.iter().all(apart) {
                continue;
            }
            let before = chosen.iter().fold(0, |all, at| all | 1 << at | self.placed[*at].before);
            let parents: Vec<OpId> =
                if chosen.is_empty() { vec![self.root] } else { chosen.iter().map(|at| self.ids[*at]).collect() };
            letters.truncate(self.letters.len());
            letters.extend(about.iter().filter(|(at, _)| before & (1 << at) != 0).flat_map(|(_, letters)| letters));
            for letter in &letters {
                self.judged += 1;
                let op = self.props.op(&self.set, *letter, &parents, &self.ids);
                let judged = self.set.judged(op);
                if judged.is_authorised() {
                    open.push(Rc::new(Open { judged, placed: Placed { letter: *letter, before } }));
                } else if self.placed.len() < 2 && before + 1 == 1 << self.placed.len() {
                    self.changes_nothing(&judged);
                }
            }
        }
        open
    }

    /// What is not authorised where it stands does not count, whatever is there.
    fn changes_nothing(&mut self, judged: &Judged) {
        let without = self.set.state_of_all();
        self.set.push(judged);
        let mut with = self.set.state_of_all();
        with.heads.clone_from(&without.heads);
        assert_eq!(with, without, "something unlawful does something: {:?}", self.placed);
        self.set.pop();
    }

    fn descend(&mut self, open: &[Rc<Open>]) {
        for (nth, next) in open.iter().enumerate() {
            self.set.push(&next.judged);
            self.placed.push(next.placed);
            self.ids.push(next.judged.op().id());
            let still_at_base = next.placed.before == 0;
            let first_of_its_kind = self.is_first_of_its_kind();
            if first_of_its_kind {
                self.look();
            }
            if self.placed.len() < self.ops {
                let rest = open[nth + 1..].iter();
                let further = if first_of_its_kind {
                    let new = self.opened();
                    rest.cloned().chain(new).collect()
                } else if still_at_base {
                    // Others at the base may make it one.
                    rest.filter(|open| open.placed.before == 0).cloned().collect()
                } else {
                    Vec::new()
                };
                self.descend(&further);
            }
            self.ids.pop();
            self.placed.pop();
            self.set.pop();
        }
    }

    /// Whether what stands on the base comes first among what it is under other names for people who stand alike.
    fn is_first_of_its_kind(&self) -> bool {
        if self.alike.is_empty() {
            return true;
        }
        let mut own: Vec<Letter> = self.placed.iter().filter(|op| op.before == 0).map(|op| op.letter).collect();
        own.sort_unstable();
        self.alike.iter().all(|names| {
            let mut others: Vec<Letter> =
                own.iter().map(|letter| letter.renamed(|who| names[usize::from(who)])).collect();
            others.sort_unstable();
            own <= others
        })
    }

    fn look(&mut self) {
        self.sets += 1;
        if let Err(wrong) = Oracle::of(&self.placed, self.base).judge(&self.props, &self.set.power_of_all()) {
            panic!("{wrong}: {:?}", self.placed);
        }
        if self.envelopes_in > 0 && self.sets.is_multiple_of(self.envelopes_in) {
            let ops = self.newest();
            let mut other = self.other.clone();
            deliver_backwards(&mut other, &ops, &self.placed);
            self.envelopes(&other);
            self.set.forget_states();
        }
        // All orders of what is small; of what is not, the one that is as unlike as can be, of some.
        let size = self.placed.len();
        let of_some = |one_in: u8| self.ids[size - 1].0[0] < u8::MAX / one_in;
        if size <= 2 || (size == 3 && of_some(16)) {
            let (ops, whole) = (self.newest(), self.set.state_of_all());
            self.in_every_order(&ops, 0, &whole);
            self.other.forget_states();
        } else if of_some(64) {
            let (ops, whole) = (self.newest(), self.set.state_of_all());
            self.backwards(&ops, &whole);
            self.other.forget_states();
        }
    }

    fn newest(&self) -> Vec<Judged> {
        self.set.newest(self.placed.len())
    }

    /// Delivers what can be delivered next, whatever that is; every part on the way is as in the whole.
    fn in_every_order(&mut self, ops: &[Judged], done: u32, whole: &Membership) {
        let state = self.other.state_of_all();
        assert_eq!(Some(&state), self.set.state_anew(&state.heads).as_ref(), "a part differs: {:?}", self.placed);
        let further = evaluate_at(&self.set, &state.heads);
        assert_eq!(Some(&state), further.as_deref(), "a step or a join differs: {:?}", self.placed);
        if done + 1 == 1 << ops.len() {
            self.orders += 1;
            assert_eq!(&state, whole, "two replicas with equal sets differ: {:?}", self.placed);
        }
        for (at, op) in ops.iter().enumerate() {
            if done & (1 << at) == 0 && self.placed[at].before & !done == 0 {
                let again = self.other.judged(op.op().clone());
                assert_eq!(again.is_authorised(), op.is_authorised());
                self.other.push(&again);
                self.in_every_order(ops, done | 1 << at, whole);
                self.other.pop();
            }
        }
    }

    fn backwards(&mut self, ops: &[Judged], whole: &Membership) {
        deliver_backwards(&mut self.other, ops, &self.placed);
        self.orders += 1;
        assert_eq!(&self.other.state_of_all(), whole, "two replicas with equal sets differ: {:?}", self.placed);
        for _ in ops {
            self.other.pop();
        }
    }
}

/// The last that can be delivered, each time.
fn deliver_backwards(set: &mut OpSet, ops: &[Judged], placed: &[Placed]) {
    let mut done = 0u32;
    while done + 1 < 1 << ops.len() {
        let ready = |at: &usize| done & (1 << at) == 0 && placed[*at].before & !done == 0;
        let Some(at) = (0..ops.len()).rev().find(ready) else { return };
        let again = set.judged(ops[at].op().clone());
        set.push(&again);
        done |= 1 << at;
    }
}

/// The ranks three people may have, the founder an owner. Keepers may do what readers may, and reading moves no power.
const CASTS: [[Role; 2]; 7] = [
    [Role::Owner, Role::Owner],
    [Role::Owner, Role::Admin],
    [Role::Admin, Role::Admin],
    [Role::Admin, Role::Writer],
    [Role::Owner, Role::Writer],
    [Role::Writer, Role::Writer],
    [Role::Admin, Role::Reader],
];

fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// All histories of a few ops by three people of several ranks, and a guest.
#[test]
fn every_small_history_is_sound() {
    let ops = asked("WEFT_MODEL_OPS").and_then(|ops| ops.parse().ok()).unwrap_or(2usize);
    let alphabet = match asked("WEFT_MODEL_LETTERS").as_deref() {
        Some("people") => Alphabet::PEOPLE,
        Some("guests") => Alphabet { guests: true, roles: &[Role::Reader, Role::Admin], ..Alphabet::PEOPLE },
        Some("devices") => Alphabet { devices: true, roles: &[Role::Reader], ..Alphabet::PEOPLE },
        Some("recovery") => Alphabet { recovery: true, ..Alphabet::PEOPLE },
        Some(other) => panic!("no such letters: {other}"),
        None => Alphabet::WHOLE,
    };
    let only = asked("WEFT_MODEL_CAST").and_then(|cast| cast.parse().ok());
    for (nth, roles) in CASTS.into_iter().enumerate().filter(|(nth, _)| only.is_none_or(|only: usize| only == *nth)) {
        let begun = Instant::now();
        let mut search = Search::new(190 + nth as u8, roles, alphabet, ops, None);
        search.run();
        let Search { sets, judged, orders, .. } = search;
        eprintln!("{roles:?}: {sets} sets of up to {ops} ops, {judged} judged, {orders} orders, {:?}", begun.elapsed());
        assert!(sets > 20, "{roles:?}: only {sets} sets of up to {ops} ops");
    }
}

/// The same with envelopes at every place: all histories of one op, and some of two (`WEFT_MODEL_ENVELOPES=2`: all of two).
#[test]
fn envelopes_at_every_place_of_small_histories() {
    let all = asked("WEFT_MODEL_ENVELOPES").is_some();
    for (nth, roles) in CASTS.into_iter().enumerate() {
        for (ops, one_in) in [(1, 1), (2, if all { 1 } else { 293 })] {
            let begun = Instant::now();
            let mut search = Search::new(180 + nth as u8, roles, Alphabet::WHOLE, ops, None);
            search.envelopes_in = one_in;
            search.run();
            eprintln!("{roles:?}: {} placings of envelopes, {:?}", search.placings, begun.elapsed());
            assert!(search.placings > 20, "{roles:?}: only {} placings", search.placings);
        }
    }
}

/// The search finds what is wrong: each of these defences taken out, some small history is unsound.
#[test]
fn the_search_finds_what_is_wrong() {
    for (roles, ops, lacks) in [
        ([Role::Owner, Role::Owner], 2, Defence::Quorum),
        ([Role::Admin, Role::Admin], 2, Defence::StrictRank),
        ([Role::Owner, Role::Admin], 2, Defence::OwnerLeft),
        ([Role::Admin, Role::Writer], 2, Defence::RemovalVoids),
        ([Role::Admin, Role::Writer], 2, Defence::LeastPrivilege),
        ([Role::Admin, Role::Writer], 2, Defence::IssuerStays),
    ] {
        let found = std::panic::catch_unwind(|| Search::new(195, roles, Alphabet::WHOLE, ops, Some(lacks)).run());
        assert!(found.is_err(), "nothing found without {lacks:?}");
    }
}
