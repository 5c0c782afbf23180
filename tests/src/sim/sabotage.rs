//! Defences that can be switched off, so that tests can show that each matters.
//!
//! Invariant: nothing here is reachable from the programs that ship. Spec: docs/simulation.md#ablation.

use weft_agent_core::setup::Weakness;

/// Which defences are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sabotage {
    /// A batch is called durable before it is: "stored before sent" does not hold.
    pub early_persisted: bool,
    /// No watermark beside the database: a restored backup is not found out by itself.
    pub no_watermark: bool,
    /// The folder's actions do not look at what is there: edits between look and write are overwritten.
    pub blind_writes: bool,
    /// What is held already is taken in again.
    pub no_dedupe: bool,
    /// Edits are entered at the newest heads, not at those that were on disk.
    pub no_base: bool,
    /// What a checkpoint says is taken for true.
    pub no_proof: bool,
    /// Whoever was removed gets keys like anybody.
    pub no_exclusion: bool,
    /// A message counts whoever says it again.
    pub no_speaker: bool,
}

/// The names `--sabotage` takes.
pub const NAMES: [&str; 8] = [
    "early-persisted",
    "no-watermark",
    "blind-writes",
    "no-dedupe",
    "no-base",
    "no-proof",
    "no-exclusion",
    "no-speaker",
];

impl Sabotage {
    /// The switches by name, for `--sabotage`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let none = Self::default();
        match name {
            "early-persisted" => Some(Self { early_persisted: true, ..none }),
            "no-watermark" => Some(Self { no_watermark: true, ..none }),
            "blind-writes" => Some(Self { blind_writes: true, ..none }),
            "no-dedupe" => Some(Self { no_dedupe: true, ..none }),
            "no-base" => Some(Self { no_base: true, ..none }),
            "no-proof" => Some(Self { no_proof: true, ..none }),
            "no-exclusion" => Some(Self { no_exclusion: true, ..none }),
            "no-speaker" => Some(Self { no_speaker: true, ..none }),
            _ => None,
        }
    }

    /// The defences inside the machine that are off.
    pub fn weaknesses(self) -> impl Iterator<Item = Weakness> {
        let dedupe = self.no_dedupe.then_some(Weakness::NoDedupe);
        let base = self.no_base.then_some(Weakness::NoBase);
        let proof = self.no_proof.then_some(Weakness::NoProof);
        let exclusion = self.no_exclusion.then_some(Weakness::NoExclusion);
        let speaker = self.no_speaker.then_some(Weakness::NoSpeaker);
        dedupe.into_iter().chain(base).chain(proof).chain(exclusion).chain(speaker)
    }

    /// The profile in which the missing defence shows soonest.
    #[must_use]
    pub fn profile(self) -> &'static str {
        if self.no_watermark {
            "backups"
        } else if self.early_persisted {
            "crashy"
        } else if self.no_proof {
            "poison"
        } else if self.no_exclusion || self.no_speaker {
            "former"
        } else if self.no_dedupe {
            "mixed"
        } else {
            "split"
        }
    }
}
