//! `weft resume`: goes on syncing, or says why a workspace does not.
//!
//! Invariant: "done" means that every workspace that was meant goes on. One that still stands still is a failure that
//! says why, and what to choose.
//! Spec: docs/using.md#when-it-stands-still.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weft_agent_core::files::{Halt, Resume};
use weft_agent_core::workspace::command::{Command, State};

use super::answer::{Outcome, PATIENCE, ask_status, chosen, done};
use super::report::halt_text;
use super::run::Daemon;
use super::space::Space;
use super::wire::{Failure, ResumeAnswer};

/// A folder that is back is looked at within this time, before it is said that it is not.
const LOOK: Duration = Duration::from_secs(10);

pub(super) async fn resume(daemon: &Arc<Daemon>, dir: Option<&Path>, answer: Option<ResumeAnswer>) -> Outcome {
    let mut still = Vec::new();
    let mut first = None;
    for space in chosen(daemon, dir)? {
        if let Err(failure) = resume_one(&space, answer).await {
            still.push(format!("'{}': {}", space.shared.name(), failure.message));
            first.get_or_insert(failure);
        }
    }
    match first {
        None => Ok(Value::Null),
        Some(failure) if still.len() == 1 => Err(failure),
        Some(failure) => Err(Failure { message: still.join("\n"), ..failure }),
    }
}

async fn resume_one(space: &Space, answer: Option<ResumeAnswer>) -> Result<(), Failure> {
    if let Some(answer) = answer {
        let answer = match answer {
            ResumeAnswer::AcceptDeletes => Resume::AcceptDeletes,
            ResumeAnswer::Restore => Resume::Restore,
        };
        if let Some(Halt::Root(why)) = halt(space).await {
            return Err(still_halted(&Halt::Root(why)));
        }
        done(space, Command::Resume(answer)).await?;
    }
    done(space, Command::Pause(false)).await?;
    space.shared.set_paused(false)?;
    space.shared.nudge();
    match halt(space).await {
        Some(halt) => Err(still_halted(&halt)),
        None if ask_status(space).await.is_some_and(|status| status.state == State::Left) => {
            Err(Failure::attention("you do not belong here any more, so nothing is synced; `weft status` says why"))
        }
        None => Ok(()),
    }
}

/// Why it is halted, after a look whether it still has to be.
async fn halt(space: &Space) -> Option<Halt> {
    let is_halted = |status: &weft_agent_core::workspace::command::Status| status.state == State::Halted;
    let status = ask_status(space).await?;
    if !is_halted(&status) {
        return None;
    }
    if let Some(seeing) = space.shared.seeing() {
        let _late = tokio::time::timeout(LOOK.min(PATIENCE), seeing.take_in()).await;
    }
    ask_status(space).await.filter(|status| is_halted(status)).and_then(|status| status.halt)
}

fn still_halted(halt: &Halt) -> Failure {
    let choose = match halt {
        Halt::Root(_) => "It goes on by itself once that is mended.",
        Halt::MassDelete { .. } => "Choose one of the two.",
    };
    Failure::attention(format!("still halted: {}. {choose}", halt_text(halt).trim_end_matches('.')))
}
