//! What happens in a world, as data: a list of timed events, fixed before the world starts.
//!
//! Invariant: an event carries its own chance (`pick`), and means something, if only nothing, in any world. Why: a
//! failing case shrinks by deleting events and must replay exactly from what is left.
//! Spec: docs/simulation.md#plans.

use super::dice::Dice;
use super::profile::Profile;

/// What a user does in a folder; which file and which line follows from the event's `pick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A new text file of a few lines.
    Create,
    /// A line with a new marker, anywhere in a text.
    Insert,
    /// A line out of a text.
    DropLine,
    /// A line put in another's place.
    Replace,
    /// A file moved, also into folders.
    Rename,
    /// A file removed.
    Delete,
    /// A file removed and made again with other content, at once.
    Recreate,
    /// A new empty folder.
    MakeFolder,
    /// A folder moved with everything in it.
    RenameFolder,
    /// A folder removed with everything in it.
    DeleteFolder,
    /// A small binary file made or replaced.
    Binary,
    /// A binary file larger than an envelope made or replaced.
    Blob,
    /// A file without a byte.
    Empty,
    /// The execute bit flipped.
    Mode,
    /// A save that first truncates, and writes a moment later.
    SlowSave,
}

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A user does something.
    Deed(Deed),
    /// The host joins by an invite of a member who may invite.
    Join,
    /// The host's member leaves.
    Leave,
    /// The host's member, if it may, removes another.
    Remove,
    /// The host's member lies; who was removed says something.
    Lie,
    /// The founder removes the one who goes on saying things.
    Expel,
    /// The agent dies, and starts again after so many milliseconds.
    Crash {
        /// How long it is away.
        down_ms: u64,
    },
    /// Its connections break; each side notices after at most so many milliseconds.
    Cut {
        /// The longest that a side believes in a dead connection.
        notice_ms: u64,
    },
    /// It cannot reach a relay for so many milliseconds.
    Partition {
        /// How long.
        ms: u64,
    },
    /// It opens a second connection beside a live one.
    Twin,
    /// A relay stops, and starts again after so many milliseconds.
    RelayRestart {
        /// How long it is away.
        down_ms: u64,
    },
    /// A backup of store, watermark and folder is taken.
    Backup,
    /// The last backup is put back.
    Restore {
        /// Whether the watermark beside the database is put back too.
        watermark: bool,
        /// Whether the folder stays as it is.
        store_only: bool,
    },
    /// One row of its database is damaged, or goes.
    Damage {
        /// Whether it happens while the agent runs; else the agent dies of something else at that moment.
        running: bool,
        /// Whether the row is gone, and not damaged.
        gone: bool,
    },
    /// The wall clock jumps by so many milliseconds.
    ClockJump {
        /// By how much.
        by_ms: i64,
    },
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// To which host.
    pub host: usize,
    /// What.
    pub what: What,
    /// Its own chance.
    pub pick: u64,
}

/// A host's place in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Relays it can reach.
    pub relays: Vec<usize>,
    /// One-way latency, in microseconds.
    pub latency_us: u64,
    /// Bytes a second its link carries; 0 for no bound.
    pub bytes_per_s: u64,
}

/// A whole case: everything a run follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Where it came from.
    pub seed: u64,
    /// The kind of trouble.
    pub profile: Profile,
    /// The hosts; the first founds the workspace, reaches every relay and never leaves.
    pub seats: Vec<Seat>,
    /// The events, by time.
    pub events: Vec<Event>,
}

impl Case {
    /// The case of a seed, under the profile of that name or the one the seed draws. `None`: no such profile.
    #[must_use]
    pub fn draw(seed: u64, profile: Option<&str>) -> Option<Case> {
        let profile = Profile::draw(seed, profile)?;
        let seats = seats(&profile, &mut Dice::new(seed, "topology", 0));
        let mut events = Vec::new();
        workload(&profile, &mut Dice::new(seed, "workload", 0), &mut events);
        faults(&profile, &mut Dice::new(seed, "faults", 0), &mut events);
        again(&profile, &mut Dice::new(seed, "again", 0), &mut events);
        events.sort_by_key(|event| event.at_ms);
        Some(Case { seed, profile, seats, events })
    }
}

fn seats(profile: &Profile, dice: &mut Dice) -> Vec<Seat> {
    (0..profile.hosts)
        .map(|host| {
            let all: Vec<usize> = (0..profile.relays).collect();
            let relays = if host == 0 || profile.relays == 1 || dice.chance(250) {
                all
            } else {
                vec![dice.index(profile.relays)]
            };
            let (low, high) = profile.latency_us;
            let bytes_per_s = if dice.chance(profile.slow) { 125_000 } else { 0 };
            Seat { relays, latency_us: dice.between(low, high), bytes_per_s }
        })
        .collect()
}

const DEEDS: [(u64, Deed); 15] = [
    (18, Deed::Create),
    (34, Deed::Insert),
    (7, Deed::DropLine),
    (8, Deed::Replace),
    (8, Deed::Rename),
    (6, Deed::Delete),
    (3, Deed::Recreate),
    (2, Deed::MakeFolder),
    (3, Deed::RenameFolder),
    (1, Deed::DeleteFolder),
    (5, Deed::Binary),
    (0, Deed::Blob),
    (2, Deed::Empty),
    (2, Deed::Mode),
    (2, Deed::SlowSave),
];

fn workload(profile: &Profile, dice: &mut Dice, events: &mut Vec<Event>) {
    for host in 1..profile.hosts {
        let late = host + profile.late >= profile.hosts;
        let at_ms = if late { dice.between(profile.span_ms / 4, profile.span_ms) } else { dice.between(1, 300) };
        events.push(Event { at_ms, host, what: What::Join, pick: dice.any() });
    }
    for _ in 0..profile.edits {
        let deed = if dice.chance(profile.blobs) {
            Deed::Blob
        } else {
            dice.weighted(&DEEDS).copied().unwrap_or(Deed::Insert)
        };
        let (host, pick) = (dice.index(profile.hosts), dice.any());
        let at_ms = dice.between(0, profile.span_ms);
        events.push(Event { at_ms, host, what: What::Deed(deed), pick });
        if dice.chance(profile.together) {
            // The same choice of file by another host at about the same moment, with another marker.
            let other = (host + 1) % profile.hosts;
            let at_ms = at_ms + dice.between(0, 40);
            events.push(Event { at_ms, host: other, what: What::Deed(deed), pick });
        }
    }
    for _ in 0..profile.removals {
        let host = if dice.chance(700) { 0 } else { dice.index(profile.hosts) };
        let at_ms = dice.between(profile.span_ms / 4, profile.span_ms);
        events.push(Event { at_ms, host, what: What::Remove, pick: dice.any() });
    }
    for _ in 0..profile.malice {
        let at_ms = dice.between(profile.span_ms / 8, profile.span_ms);
        events.push(Event { at_ms, host: profile.liar(), what: What::Lie, pick: dice.any() });
    }
    if profile.former > 0 {
        let from_ms = dice.between(profile.span_ms / 6, profile.span_ms / 2);
        events.push(Event { at_ms: from_ms, host: 0, what: What::Expel, pick: dice.any() });
        for _ in 0..profile.former {
            let at_ms = dice.between(from_ms, profile.span_ms);
            events.push(Event { at_ms, host: profile.liar(), what: What::Lie, pick: dice.any() });
        }
    }
    for _ in 0..profile.leaves {
        let host = 1 + dice.index(profile.hosts - 1);
        let at_ms = dice.between(profile.span_ms / 2, profile.span_ms);
        events.push(Event { at_ms, host, what: What::Leave, pick: dice.any() });
    }
}

fn faults(profile: &Profile, dice: &mut Dice, events: &mut Vec<Event>) {
    let span = profile.span_ms;
    let mut add = |dice: &mut Dice, from_ms: u64, what: What| {
        let at_ms = dice.between(from_ms, span);
        let host = dice.index(profile.hosts);
        events.push(Event { at_ms, host, what, pick: dice.any() });
    };
    for _ in 0..profile.cuts {
        let notice_ms = dice.between(0, 300);
        add(dice, 0, What::Cut { notice_ms });
    }
    for _ in 0..profile.half_open {
        let notice_ms = dice.between(1_000, 40_000);
        add(dice, 0, What::Cut { notice_ms });
    }
    for _ in 0..profile.partitions {
        let ms = dice.between(500, 15_000);
        add(dice, 0, What::Partition { ms });
    }
    for _ in 0..profile.twins {
        add(dice, 0, What::Twin);
    }
    for _ in 0..profile.relay_restarts {
        let down_ms = dice.between(1, 4_000);
        add(dice, 0, What::RelayRestart { down_ms });
    }
    for _ in 0..profile.crashes {
        let down_ms = if dice.chance(700) { dice.between(1, 500) } else { dice.between(1_000, 20_000) };
        add(dice, 0, What::Crash { down_ms });
    }
    for _ in 0..profile.clock_jumps {
        // Within what an invite outlives: whoever's clock is further off cannot judge its expiry.
        let hours = dice.between(1, 72) as i64;
        let by_ms = if dice.chance(500) { hours } else { -hours } * 3_600_000;
        add(dice, 0, What::ClockJump { by_ms });
    }
    for _ in 0..profile.damages {
        let running = dice.chance(500);
        let gone = !running && dice.chance(500);
        add(dice, span / 6, What::Damage { running, gone });
    }
    for _ in 0..profile.restores {
        let host = dice.index(profile.hosts);
        let from = dice.between(span / 4, span * 3 / 4);
        let to = dice.between(from, span);
        let (watermark, store_only) = (dice.chance(400), dice.chance(250));
        events.push(Event { at_ms: from, host, what: What::Backup, pick: dice.any() });
        events.push(Event { at_ms: to, host, what: What::Restore { watermark, store_only }, pick: dice.any() });
        if profile.hosts > 2 && dice.chance(300) {
            alone_with_a_stale_peer(profile, dice, host, (from, to), events);
        }
    }
}

/// Some crashes come in pairs: the person goes on writing while the agent is down, others do as well, and it dies again just after
/// it has started, before it has looked at everything. Drawn by dice of its own, so that the rest of a case is as it was.
fn again(profile: &Profile, dice: &mut Dice, events: &mut Vec<Event>) {
    let crashes: Vec<(u64, usize, u64)> = events
        .iter()
        .filter_map(|event| {
            if let What::Crash { down_ms } = event.what { Some((event.at_ms, event.host, down_ms)) } else { None }
        })
        .collect();
    for (at_ms, host, down_ms) in crashes.into_iter().filter(|(_, _, down_ms)| *down_ms <= 500) {
        if !dice.chance(400) {
            continue;
        }
        let mut add = |dice: &mut Dice, at_ms, host, what| events.push(Event { at_ms, host, what, pick: dice.any() });
        for _ in 0..dice.between(1, 4) {
            let at_ms = at_ms + dice.between(0, down_ms);
            let other = if dice.chance(500) { host } else { dice.index(profile.hosts) };
            add(dice, at_ms, other, What::Deed(Deed::Insert));
        }
        let dies_ms = at_ms + down_ms + dice.between(1, 100);
        let down_ms = dice.between(1, 100);
        add(dice, dies_ms, host, What::Crash { down_ms });
        add(dice, dies_ms + down_ms / 2, host, What::Deed(Deed::Insert));
    }
}

/// Around a restore: what the host wrote after the backup reaches some, and whoever it meets first afterwards is
/// somebody else, who cannot tell it that it went back.
fn alone_with_a_stale_peer(
    profile: &Profile,
    dice: &mut Dice,
    host: usize,
    (from, to): (u64, u64),
    events: &mut Vec<Event>,
) {
    let stale = (host + 1 + dice.index(profile.hosts - 1)) % profile.hosts;
    let mut add = |at_ms, host, what| events.push(Event { at_ms, host, what, pick: dice.any() });
    add(from, stale, What::Partition { ms: to - from + 200 });
    add((from + to) / 2, host, What::Deed(Deed::Create));
    for other in (0..profile.hosts).filter(|other| *other != host && *other != stale) {
        add(to, other, What::Partition { ms: 8_000 });
    }
    add(to + 4_000, host, What::Deed(Deed::Create));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed says everything: drawn twice it is the same case, another seed is another one.
    #[test]
    fn a_case_is_its_seed() {
        assert_eq!(Case::draw(5, None), Case::draw(5, None));
        assert_ne!(Case::draw(5, None), Case::draw(6, None));
        assert_eq!(Case::draw(5, Some("no such profile")), None);
    }

    /// Every named profile can be drawn, and the founder sits at every relay.
    #[test]
    fn the_founder_reaches_every_relay() {
        for name in crate::sim::profile::NAMES {
            for seed in 0..20 {
                let case = Case::draw(seed, Some(name)).unwrap();
                assert_eq!(case.seats[0].relays.len(), case.profile.relays);
                assert!(case.events.is_sorted_by_key(|event| event.at_ms));
            }
        }
    }
}
