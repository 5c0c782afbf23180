//! Runs cases: once, twice for their digest, many at once, and smaller until they no longer fail.
//!
//! Spec: docs/simulation.md#running.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::machine::Machine;
use super::oracle;
use super::plan::Case;
use super::sabotage::Sabotage;
use super::witness::Violation;
use super::world::{FAULTS, World};

/// How long after the plan's end and the healing everybody must be settled, in virtual milliseconds.
const SETTLE_MS: u64 = 300_000;
/// ... and where a checkpoint may cover what nobody holds, which is waited for ten minutes.
const SETTLE_POISONED_MS: u64 = 1_200_000;
/// How long the world is watched after that, in virtual milliseconds.
const QUIET_MS: u64 = 120_000;
/// Control frames that one host may send on one relay in that time: beacons every 60 s ± 50 % and what answers them.
const QUIET_CONTROL_MAX: u64 = 40;
/// ... and where somebody who was removed sits in every old room, in each of which all is said and asked.
const QUIET_CONTROL_AMONG_FORMER_MAX: u64 = 120;

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The digest of everything that happened.
    pub digest: [u8; 32],
    /// Steps.
    pub steps: u64,
    /// Virtual milliseconds from the healing until everybody was settled.
    pub settle_ms: u64,
    /// Markers written.
    pub markers: usize,
    /// Batches that crashes took.
    pub lost_batches: u64,
    /// Connections closed because their queue was full.
    pub overflows: u64,
    /// How often relays lied, each way, in the order of [`FAULTS`].
    pub lied: [u64; FAULTS.len()],
    /// Members whose folder showed, for a while, what a liar forged.
    pub deceived: usize,
}

/// Runs a case; a panic is a violation like any other.
///
/// # Errors
/// What broke.
pub fn run<M: Machine>(case: &Case, sabotage: Sabotage, trace: bool) -> Result<Figures, Violation> {
    match catch_unwind(AssertUnwindSafe(|| run_inside::<M>(case, sabotage, trace))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Violation { oracle: "panic", detail: text.to_owned() })
        }
    }
}

fn run_inside<M: Machine>(case: &Case, sabotage: Sabotage, trace: bool) -> Result<Figures, Violation> {
    let mut world = World::<M>::new(case.clone(), sabotage, trace);
    let end_us = (case.events.iter().map(|event| event.at_ms).max().unwrap_or(0) + 100) * 1000;
    advance(&mut world, end_us)?;
    world.heal();
    let healed_us = world.now_us;
    let (mut step_us, mut settled_before) = (1_000_000, false);
    loop {
        let next_us = world.now_us + step_us;
        advance(&mut world, next_us)?;
        world.ask_all();
        // Who just came back has not heard yet what it missed, and settles in good faith: two looks in a row.
        let settled = world.connected() && oracle::settled(&world);
        if settled && core::mem::replace(&mut settled_before, settled) {
            break;
        }
        settled_before = settled;
        let settle_ms = if case.profile.poison { SETTLE_POISONED_MS } else { SETTLE_MS };
        if world.now_us > healed_us + settle_ms * 1000 {
            return Err(Violation { oracle: "settle", detail: oracle::unsettled(&world) });
        }
        step_us = (step_us * 5 / 4).min(5_000_000);
    }
    let settle_ms = (world.now_us - healed_us) / 1000;
    oracle::check(&world)?;
    quiet(&mut world)?;
    Ok(Figures {
        digest: world.digest(),
        steps: world.steps,
        settle_ms,
        markers: world.witness.markers.len(),
        lost_batches: world.lost_batches,
        overflows: world.witness.overflows,
        lied: world.lied(),
        deceived: oracle::members(&world).filter(|(_, host)| host.was_shown_forged).count(),
    })
}

fn advance<M: Machine>(world: &mut World<M>, until_us: u64) -> Result<(), Violation> {
    world.run_until(until_us);
    match world.witness.violation.take() {
        Some(violation) => Err(violation),
        None => Ok(()),
    }
}

/// Once settled, nothing but beacons and pings moves, and everything stays as it is.
fn quiet<M: Machine>(world: &mut World<M>) -> Result<(), Violation> {
    let before = world.traffic;
    let until_us = world.now_us + QUIET_MS * 1000;
    advance(world, until_us)?;
    let after = world.traffic;
    let seats: usize = world.case.seats.iter().map(|seat| seat.relays.len()).sum();
    let control = after.control - before.control;
    let among_former = world.case.profile.former > 0;
    let most = if among_former { QUIET_CONTROL_AMONG_FORMER_MAX } else { QUIET_CONTROL_MAX } * seats as u64;
    if after.live != before.live || after.bulk != before.bulk || control > most {
        return Err(Violation { oracle: "quiet", detail: format!("{before:?} became {after:?}") });
    }
    world.ask_all();
    if !oracle::settled(world) {
        return Err(Violation { oracle: "quiet", detail: oracle::unsettled(world) });
    }
    oracle::check(world)
}

/// The smallest case found that breaks the same oracle: events are deleted as long as it still does.
#[must_use]
pub fn shrink<M: Machine>(case: &Case, sabotage: Sabotage, oracle: &'static str) -> Case {
    let mut best = case.clone();
    let mut chunk = best.events.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shrunk = false;
        while from < best.events.len() {
            let mut candidate = best.clone();
            let to = (from + chunk).min(candidate.events.len());
            candidate.events.drain(from..to);
            let fails = run::<M>(&candidate, sabotage, false).is_err_and(|violation| violation.oracle == oracle);
            if fails {
                best = candidate;
                shrunk = true;
            } else {
                from += chunk;
            }
        }
        if chunk == 1 && !shrunk {
            return best;
        }
        chunk = chunk.div_ceil(2).max(1);
    }
}
