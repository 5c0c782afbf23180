//! What a history may amount to, told without evaluating it.
//!
//! Independent of how evaluation works: bounds from simple statements. Above: nobody has a role that no chain of grants gives,
//! each by somebody who could be high enough. Below: nobody falls but by themself, by somebody who could be above, by several
//! owners, or by the recovery key. And what an author whom nobody touches does to somebody below is done, whatever else is
//! concurrent: it voids what that one did meanwhile.

use std::cell::Cell;

use super::alphabet::{Act, GUEST, Key, Letter, Props};
use crate::membership::{Membership, Role};

/// One op of a history.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Placed {
    pub(in super::super) letter: Letter,
    /// Bits of the places before it.
    pub(in super::super) before: u32,
}

/// A history, and the roles it began with.
pub(super) struct Oracle<'a> {
    placed: &'a [Placed],
    base: [Option<Role>; 4],
    sure: u32,
    void: u32,
    /// What somebody could be who knows some places, once it was asked: the role and two, or one for none.
    asked: [[Cell<u8>; 1 << PLACES_MAX]; 4],
}

const PLACES_MAX: usize = 6;

fn bits(mask: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |bit| mask & (1 << bit) != 0)
}

fn blank() -> [[Cell<u8>; 1 << PLACES_MAX]; 4] {
    [const { [const { Cell::new(0) }; 1 << PLACES_MAX] }; 4]
}

/// The least role an act takes where it is none on oneself.
fn needs(act: Act) -> Role {
    match act {
        Act::Remove(_)
        | Act::Role(..)
        | Act::Invite(_)
        | Act::RevokeFirst(_)
        | Act::RevokeSecond(_)
        | Act::Approval => Role::Admin,
        Act::Welcome(..) => Role::Writer,
        Act::Endorse(_) => Role::Owner,
        Act::Leave | Act::AddSecond | Act::AddFirst | Act::Uninvite(_) => Role::Keeper,
    }
}

impl<'a> Oracle<'a> {
    pub(super) fn of(placed: &'a [Placed], base: [Option<Role>; 4]) -> Self {
        let mut oracle = Self { placed, base, sure: 0, void: 0, asked: blank() };
        let all = oracle.all();
        let could: Vec<Option<Role>> = (0..=GUEST).map(|who| oracle.could(who, all)).collect();
        for (at, op) in placed.iter().enumerate() {
            let Key::First(who) = op.letter.by else { continue };
            let own = base[usize::from(who)];
            let untouched = !placed.iter().any(|other| other.letter.target() == Some(who));
            let from_above = match op.letter.act {
                Act::Remove(whom) => own > could[usize::from(whom)],
                Act::Role(whom, role) => whom != who && own > could[usize::from(whom)] && own > Some(role),
                _ => false,
            };
            if untouched && from_above && own >= Some(Role::Admin) {
                oracle.sure |= 1 << at;
            }
        }
        for (at, op) in placed.iter().enumerate() {
            let voided = bits(oracle.sure).any(|by| {
                let concurrent = at != by && op.before & (1 << by) == 0 && placed[by].before & (1 << at) == 0;
                let own = op.letter.by.person();
                concurrent
                    && own.is_some()
                    && match placed[by].letter.act {
                        Act::Remove(whom) => own == Some(whom),
                        Act::Role(whom, role) => {
                            own == Some(whom) && op.letter.target() != own && role < needs(op.letter.act)
                        }
                        _ => false,
                    }
            });
            if voided {
                oracle.void |= 1 << at;
            }
        }
        if oracle.void != 0 {
            oracle.asked = blank();
        }
        oracle
    }

    fn all(&self) -> u32 {
        (1 << self.placed.len()) - 1
    }
    fn counts(&self, at: usize) -> bool {
        self.void & (1 << at) == 0
    }

    /// The most that somebody can be, knowing these places.
    fn could(&self, who: u8, known: u32) -> Option<Role> {
        const ROLES: [Role; 5] = [Role::Keeper, Role::Reader, Role::Writer, Role::Admin, Role::Owner];
        let asked = &self.asked[usize::from(who)][known as usize];
        if asked.get() == 0 {
            asked.set(self.could_indeed(who, known).map_or(1, |role| role as u8 + 2));
        }
        asked.get().checked_sub(2).map(|role| ROLES[usize::from(role)])
    }

    fn could_indeed(&self, who: u8, known: u32) -> Option<Role> {
        let mut most = self.base[usize::from(who)];
        for at in bits(known).filter(|at| self.counts(*at)) {
            let op = &self.placed[at];
            let by = op.letter.by.person().map(|by| (by, self.could(by, op.before)));
            let given = match op.letter.act {
                Act::Role(whom, role) if whom == who => match by {
                    None => Some(role),
                    Some((by, _)) if by == who => None,
                    Some((_, above)) if role == Role::Owner => {
                        (above == Some(Role::Owner) && self.named_by_most(at)).then_some(role)
                    }
                    Some((_, above)) => (above > Some(role) && above >= Some(Role::Admin)).then_some(role),
                },
                Act::Welcome(whom, invite) if whom == who && by.is_some_and(|(_, by)| by >= Some(Role::Writer)) => {
                    self.invited(invite)
                }
                _ => None,
            };
            most = most.max(given);
        }
        most
    }

    /// What an invite gives at most.
    fn invited(&self, invite: Option<u8>) -> Option<Role> {
        let Some(at) = invite.map(usize::from) else { return Some(Role::Writer) };
        let Act::Invite(role) = self.placed[at].letter.act else { return None };
        let issuer = self.could(self.placed[at].letter.by.person()?, self.placed[at].before);
        (self.counts(at) && issuer > Some(role) && issuer >= Some(Role::Admin)).then_some(role)
    }

    /// How many who could be owners stand behind an op.
    fn behind(&self, at: usize) -> usize {
        let votes = self.placed.iter().enumerate().filter(|(nth, op)| {
            let votes = *nth == at || op.letter.act == Act::Endorse(at as u8);
            // Who votes was an owner where the op stands.
            let by = op.letter.by.person().map(|by| self.could(by, self.placed[at].before));
            votes && self.counts(*nth) && by == Some(Some(Role::Owner))
        });
        let mut voters: Vec<Option<u8>> = votes.map(|(_, op)| op.letter.by.person()).collect();
        voters.sort_unstable();
        voters.dedup();
        voters.len()
    }
    /// Whether most of those agree who are owners for certain where an op stands.
    fn named_by_most(&self, at: usize) -> bool {
        let touched =
            |who: u8| bits(self.placed[at].before).any(|before| self.placed[before].letter.target() == Some(who));
        let owners =
            (0..GUEST).filter(|who| self.base[usize::from(*who)] == Some(Role::Owner) && !touched(*who)).count();
        self.behind(at) > owners / 2
    }

    /// Whether an op about somebody is by whom it may be.
    fn lawful_end(&self, at: usize, whom: u8) -> bool {
        let op = &self.placed[at];
        let base = self.base[usize::from(whom)];
        let Some(by) = op.letter.by.person() else { return true };
        let could = self.could(by, op.before);
        let owners = base == Some(Role::Owner) && could == base && self.behind(at) >= 2;
        self.counts(at) && (by == whom || could > base || owners)
    }

    fn has(&self, found: impl Fn(usize, Letter) -> bool) -> bool {
        self.placed.iter().enumerate().any(|(at, op)| found(at, op.letter))
    }

    /// Whether a state is within the bounds; what is wrong if not.
    pub(super) fn judge(&self, props: &Props, state: &Membership) -> Result<(), String> {
        let root = |who: u8| &props.people[usize::from(who)].root_public.sign;
        let role = |who: u8| state.members.get(root(who)).map(|member| member.role);
        let wrong = |what: &str, who: u8| {
            Err(format!("{what}: person {who}, {:?} -> {:?}", self.base[usize::from(who)], role(who)))
        };
        if !state.members.values().any(|member| member.role == Role::Owner) {
            return Err("nobody is left".to_owned());
        }
        if state.members.len() != (0..=GUEST).filter(|who| role(*who).is_some()).count() {
            return Err("a stranger belongs".to_owned());
        }
        if !state.active_devices().all(|(_, device)| state.members.contains_key(&device.root)) {
            return Err("a device of nobody is active".to_owned());
        }
        for invite in state.invites.values().filter(|invite| invite.open) {
            let issuer = state.members.get(&invite.issuer).map(|member| member.role);
            if issuer < Some(Role::Admin) || issuer <= Some(invite.role) {
                return Err("an invite outlives its issuer's rank".to_owned());
            }
        }
        let active = |who: u8| state.active_devices().any(|(_, device)| device.root == *root(who));
        for who in 0..=GUEST {
            let base = self.base[usize::from(who)];
            if role(who) > self.could(who, self.all()) {
                return wrong("power from nothing", who);
            }
            let fell = || {
                self.has(|at, letter| {
                    let ends = match letter.act {
                        Act::Remove(whom) => whom == who,
                        Act::Role(whom, role) => whom == who && Some(role) < base,
                        Act::Leave => letter.by.person() == Some(who),
                        _ => false,
                    };
                    ends && self.lawful_end(at, who)
                })
            };
            if role(who) < base && !fell() {
                return wrong("fell by nobody above", who);
            }
            let unplugged = || {
                self.has(|at, letter| {
                    matches!(letter.act, Act::RevokeFirst(whom) | Act::Remove(whom) if whom == who)
                        && self.lawful_end(at, who)
                })
            };
            if role(who).is_some() && !active(who) && !unplugged() && !fell() {
                return wrong("lost its devices by nobody above", who);
            }
        }
        for at in bits(self.sure) {
            let after = |welcome: bool, whom: u8, above: Role| {
                self.placed.iter().any(|op| {
                    let later = op.before & (1 << at) != 0;
                    match op.letter.act {
                        Act::Welcome(other, _) => other == whom && (later || !welcome),
                        Act::Role(other, role) => !welcome && other == whom && later && role > above,
                        _ => false,
                    }
                })
            };
            match self.placed[at].letter.act {
                Act::Remove(whom) if !after(true, whom, Role::Owner) && (role(whom).is_some() || active(whom)) => {
                    return wrong("stays in spite of a removal from above", whom);
                }
                Act::Role(whom, to) if !after(false, whom, to) && role(whom) > Some(to) => {
                    return wrong("has more than the least that stands", whom);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
