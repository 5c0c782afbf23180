//! Defences that can be switched off, so that tests can show that each matters.
//!
//! Invariant: nothing here is reachable from the programs that ship. Spec: docs/simulation.md#ablation.

/// Which defences are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sabotage {
    /// A batch is called durable before it is: "stored before sent" does not hold.
    pub early_persisted: bool,
    /// No watermark beside the database: a restored backup is not found out by itself.
    pub no_watermark: bool,
    /// The folder's actions do not look at what is there: edits between look and write are overwritten.
    pub blind_writes: bool,
}

/// The names `--sabotage` takes.
pub const NAMES: [&str; 3] = ["early-persisted", "no-watermark", "blind-writes"];

impl Sabotage {
    /// The switches by name, for `--sabotage`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let none = Self::default();
        match name {
            "early-persisted" => Some(Self { early_persisted: true, ..none }),
            "no-watermark" => Some(Self { no_watermark: true, ..none }),
            "blind-writes" => Some(Self { blind_writes: true, ..none }),
            _ => None,
        }
    }

    /// The profile in which the missing defence shows soonest.
    #[must_use]
    pub fn profile(self) -> &'static str {
        if self.no_watermark {
            "backups"
        } else if self.early_persisted {
            "crashy"
        } else {
            "split"
        }
    }
}
