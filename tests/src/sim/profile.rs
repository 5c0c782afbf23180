//! What kind of trouble a world is in, drawn per seed.
//!
//! Many profiles over the seeds find far more than many seeds of one profile. Spec: docs/simulation.md#profiles.

use super::dice::Dice;

/// How rough a world is: counts are events over its whole span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name, for `--profile`.
    pub name: &'static str,
    /// Hosts, the founder included.
    pub hosts: usize,
    /// How many of them join late, in the midst of the workload.
    pub late: usize,
    /// Relays; a second one is reached by some hosts only.
    pub relays: usize,
    /// Whether the last relay stands for an agent on the local network.
    pub lan: bool,
    /// Virtual milliseconds in which the plan happens.
    pub span_ms: u64,
    /// Things users do.
    pub edits: usize,
    /// Edits that come at the same moment on two hosts, of 1,000.
    pub together: u64,
    /// Binary files larger than an envelope may carry, of 1,000 edits.
    pub blobs: u64,
    /// Members that leave.
    pub leaves: usize,
    /// Members that an owner or admin removes.
    pub removals: usize,
    /// One-way latency of links, in microseconds, least and most.
    pub latency_us: (u64, u64),
    /// Links of 1 Mbit/s, of 1,000.
    pub slow: u64,
    /// An fsync's duration, in microseconds, least and most.
    pub fsync_us: (u64, u64),
    /// How long the watcher debounces, in microseconds, least and most.
    pub watch_us: (u64, u64),
    /// Watcher events that never come, of 1,000; a slow scan finds those files.
    pub deaf: u64,
    /// Connections cut with an unknown delivered prefix.
    pub cuts: usize,
    /// Connections that one side, or both, believe in long after they broke.
    pub half_open: usize,
    /// Times in which a host cannot reach a relay.
    pub partitions: usize,
    /// Second connections of a device beside a live one.
    pub twins: usize,
    /// Relays that stop and come back with nothing.
    pub relay_restarts: usize,
    /// Agents that die and start again.
    pub crashes: usize,
    /// Hosts put back to an earlier state.
    pub restores: usize,
    /// Rows of databases that are damaged or lost.
    pub damages: usize,
    /// Jumps of a wall clock.
    pub clock_jumps: usize,
    /// Lies that the last host, a member, tells with its own keys; then it is gone.
    pub malice: usize,
    /// Whether those lies are checkpoints, for newcomers and whoever was away.
    pub poison: bool,
    /// What the last host's member, once removed, says with all the keys they had.
    pub former: usize,
    /// Frames about which relays lie, of 1,000, until the world is healed.
    pub lies: u64,
    /// After how many envelopes a checkpoint is made and taken; 0: as shipped, which is never in so short a life.
    pub checkpoint_every: u64,
}

const CALM: Profile = Profile {
    name: "calm",
    hosts: 2,
    late: 0,
    relays: 1,
    lan: false,
    span_ms: 6_000,
    edits: 8,
    together: 150,
    blobs: 10,
    leaves: 0,
    removals: 0,
    latency_us: (200, 30_000),
    slow: 0,
    fsync_us: (500, 8_000),
    watch_us: (1_000, 60_000),
    deaf: 0,
    cuts: 0,
    half_open: 0,
    partitions: 0,
    twins: 0,
    relay_restarts: 0,
    crashes: 0,
    restores: 0,
    damages: 0,
    clock_jumps: 0,
    malice: 0,
    poison: false,
    former: 0,
    lies: 0,
    checkpoint_every: 0,
};

/// The names `--profile` takes. The last seven are never drawn, and are worlds of their own: what somebody wrote while they
/// were being removed may rightly be gone, where relays or members lie, much is refused, and checkpoints are rare.
pub const NAMES: [&str; 17] = [
    "calm",
    "flaky",
    "crashy",
    "split",
    "backups",
    "slow",
    "crowd",
    "bridge",
    "churn",
    "mixed",
    "removals",
    "liars",
    "hostile",
    "checkpoints",
    "poison",
    "former",
    "damage",
];

impl Profile {
    /// Whether a member, or who was one, lies.
    #[must_use]
    pub fn has_liar(&self) -> bool {
        self.malice > 0 || self.former > 0
    }

    /// Whose member lies, if one does: the last of those who are there from the beginning.
    #[must_use]
    pub fn liar(&self) -> usize {
        self.hosts - 1 - self.late
    }

    /// Draws a profile: of that name, or any.
    #[must_use]
    pub fn draw(seed: u64, name: Option<&str>) -> Option<Profile> {
        let mut dice = Dice::new(seed, "profile", 0);
        let weights = [
            (12, "calm"),
            (16, "flaky"),
            (18, "crashy"),
            (12, "split"),
            (10, "backups"),
            (5, "slow"),
            (2, "crowd"),
            (9, "bridge"),
            (8, "churn"),
            (8, "mixed"),
        ];
        let drawn = dice.weighted(&weights).copied().unwrap_or("calm");
        let name = match name {
            Some(wanted) => *NAMES.iter().find(|known| **known == wanted)?,
            None => drawn,
        };
        Some(Self::named(name, &mut dice))
    }

    fn named(name: &'static str, dice: &mut Dice) -> Profile {
        let mut count = |low: u64, high: u64| dice.between(low, high) as usize;
        let base = Profile { name, hosts: count(2, 3), edits: count(3, 10), ..CALM };
        match name {
            "flaky" => Profile {
                cuts: count(1, 4),
                half_open: count(0, 2),
                twins: count(0, 1),
                relay_restarts: count(0, 1),
                ..base
            },
            "crashy" => Profile {
                crashes: count(1, 4),
                cuts: count(0, 1),
                fsync_us: (1_000, 8_000 << (3 * count(0, 2))),
                deaf: 50,
                ..base
            },
            "split" => Profile {
                hosts: count(2, 4),
                partitions: count(1, 4),
                span_ms: 20_000,
                edits: count(5, 16),
                together: 300,
                ..base
            },
            "backups" => {
                Profile { hosts: count(2, 4), restores: count(1, 2), crashes: count(0, 1), span_ms: 15_000, ..base }
            }
            "slow" => Profile {
                slow: 700,
                latency_us: (20_000, 400_000),
                blobs: 150,
                cuts: count(0, 2),
                span_ms: 20_000,
                ..base
            },
            "crowd" => Profile { hosts: 6 + 2 * count(0, 2), late: 2, edits: count(10, 20), cuts: count(0, 2), ..base },
            "bridge" => Profile {
                hosts: count(3, 4),
                relays: 2,
                lan: count(0, 1) == 1,
                cuts: count(0, 2),
                relay_restarts: count(0, 1),
                ..base
            },
            "churn" => Profile {
                hosts: count(3, 5),
                late: count(1, 2),
                leaves: count(0, 1),
                crashes: count(0, 1),
                clock_jumps: count(0, 1),
                span_ms: 15_000,
                ..base
            },
            "mixed" => Profile {
                hosts: count(2, 5),
                late: count(0, 1),
                relays: count(1, 2),
                span_ms: 25_000,
                edits: count(8, 20),
                slow: 100,
                deaf: 100,
                cuts: count(0, 3),
                half_open: count(0, 2),
                partitions: count(0, 2),
                twins: count(0, 1),
                relay_restarts: count(0, 1),
                crashes: count(0, 3),
                restores: count(0, 1),
                clock_jumps: count(0, 2),
                leaves: count(0, 1),
                ..base
            },
            "liars" => Profile {
                hosts: count(2, 4),
                relays: count(1, 2),
                late: count(0, 1),
                crashes: count(0, 1),
                cuts: count(0, 1),
                blobs: 60,
                lies: count(20, 400) as u64,
                span_ms: 15_000,
                ..base
            },
            "hostile" => Profile {
                hosts: count(3, 5),
                relays: count(1, 2),
                late: 0,
                crashes: count(0, 1),
                partitions: count(0, 2),
                cuts: count(0, 1),
                malice: count(1, 8),
                span_ms: 20_000,
                edits: count(6, 18),
                together: 300,
                ..base
            },
            "checkpoints" => {
                let drawn = Profile {
                    hosts: count(3, 5),
                    late: count(1, 2),
                    relays: count(1, 2),
                    span_ms: 60_000,
                    edits: count(10, 30),
                    together: 200,
                    blobs: 40,
                    deaf: 50,
                    cuts: count(0, 3),
                    half_open: count(0, 1),
                    partitions: count(0, 3),
                    relay_restarts: count(0, 1),
                    crashes: count(0, 4),
                    restores: count(0, 3) / 3,
                    removals: count(0, 4) / 4,
                    fsync_us: (1_000, 8_000 << (3 * count(0, 2))),
                    checkpoint_every: count(3, 8) as u64,
                    ..base
                };
                // What no watcher told of before a backup was put back is nowhere any more; who is removed meanwhile may be the
                // only one who knows what was sent since; and who joins late may be let in by somebody who is being removed.
                let deaf = if drawn.restores > 0 { 0 } else { drawn.deaf };
                let removals = if drawn.restores > 0 { 0 } else { drawn.removals };
                let late = if removals > 0 { 0 } else { drawn.late };
                Profile { removals, late, deaf, ..drawn }
            }
            "poison" => Profile {
                hosts: count(4, 5),
                late: count(1, 2),
                relays: count(1, 2),
                span_ms: 60_000,
                edits: count(14, 30),
                together: 200,
                blobs: 20,
                cuts: count(0, 2),
                partitions: count(1, 4),
                crashes: count(0, 2),
                malice: count(2, 8),
                poison: true,
                checkpoint_every: count(3, 6) as u64,
                latency_us: (5_000, 300_000),
                ..base
            },
            "former" => Profile {
                hosts: count(3, 5),
                relays: count(1, 2),
                partitions: count(0, 4),
                crashes: count(0, 1),
                cuts: count(0, 2),
                former: count(4, 20),
                span_ms: 30_000,
                edits: count(8, 20),
                together: 300,
                ..base
            },
            "damage" => Profile {
                hosts: count(2, 4),
                late: count(0, 1),
                damages: count(1, 2),
                crashes: count(0, 1),
                cuts: count(0, 1),
                blobs: 60,
                span_ms: 20_000,
                edits: count(6, 20),
                ..base
            },
            "removals" => Profile {
                hosts: count(3, 5),
                partitions: count(0, 3),
                crashes: count(0, 1),
                cuts: count(0, 2),
                removals: count(1, 2),
                span_ms: 20_000,
                edits: count(6, 18),
                together: 300,
                ..base
            },
            _ => base,
        }
    }
}
