//! End-to-end harness: the real binaries, real sockets, real folders.
//!
//! A test opens a [`Stage`] (a temporary folder that everything lives in), starts a [`Relay`] and [`Agent`]s on it, and
//! waits for conditions with [`wait`]. Every agent has its own `WEFT_HOME`, does not look at the LAN, and runs as a
//! child of the test.
//!
//! Invariant: nothing outlives its test. Every process is owned by a guard that kills it by its id, and every file is
//! below the stage's folder. Why: one forgotten daemon makes the next run fail for a reason nobody finds.

mod agent;
mod atproto;
mod balancer;
mod binaries;
mod corpus;
mod editor;
mod fetch;
mod folder;
mod nats;
mod process;
mod proxy;
mod relay;
mod wait;

pub use agent::{Agent, Ran, Status};
pub use atproto::{AtAccount, AtNetwork};
pub use balancer::Balancer;
pub use binaries::{Binaries, binaries};
pub use corpus::Corpus;
pub use editor::Editor;
pub use fetch::fetch;
pub use folder::{Entry, Snapshot, differences, snapshot};
pub use nats::Nats;
pub use process::{Process, rss_kib, rss_peak_kib};
pub use proxy::{Captured, Proxy};
pub use relay::Relay;
pub use wait::{LONG, SHORT, wait};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The temporary folder of one test; removed when it is dropped, unless `WEFT_KEEP_STAGE` is set.
pub struct Stage {
    root: PathBuf,
    // Held for its Drop only.
    _folder: Option<tempfile::TempDir>,
}

impl Stage {
    /// A fresh folder, and the binaries built.
    pub fn open() -> Result<Self> {
        binaries()?;
        // Short, because a Unix socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("weft").tempdir().context("no temporary folder")?;
        let root = folder.path().canonicalize().context("the temporary folder has no canonical path")?;
        if std::env::var_os("WEFT_KEEP_STAGE").is_some() {
            let kept = folder.keep();
            eprintln!("stage kept at {}", kept.display());
            return Ok(Self { root, _folder: None });
        }
        Ok(Self { root, _folder: Some(folder) })
    }

    /// Where everything of this test is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A relay on a free port of the loopback address.
    pub fn relay(&self) -> Result<Relay> {
        Relay::start(&self.root.join("relay.log"), 0, &[])
    }

    /// A running agent that belongs to no workspace yet; `name` is its member's and its folders' name.
    pub fn agent(&self, name: &str) -> Result<Agent> {
        Agent::start(&self.root, name)
    }

    /// A workspace of `names` that meet at `relay`: the first creates it, the others join. Their folders are empty.
    pub fn team(&self, relay: &Relay, names: &[&str]) -> Result<Vec<Agent>> {
        let mut team: Vec<Agent> = Vec::new();
        for name in names {
            let agent = self.agent(name)?;
            match team.first() {
                None => agent.init(&[relay.url()])?,
                Some(first) => agent.join(&first.invite()?)?,
            }
            team.push(agent);
        }
        wait_settled(&team.iter().collect::<Vec<_>>())?;
        Ok(team)
    }
}

/// Waits until every agent says that it is settled and all folders hold the same; gives what they hold.
pub fn wait_same(agents: &[&Agent]) -> Result<Snapshot> {
    wait_same_within(agents, LONG)
}

/// As [`wait_same`], with another deadline.
pub fn wait_same_within(agents: &[&Agent], deadline: std::time::Duration) -> Result<Snapshot> {
    let mut last = String::new();
    let outcome = wait("all folders to hold the same", deadline, || {
        let mut first: Option<Snapshot> = None;
        for agent in agents {
            if let Some(not_yet) = agent.not_settled()? {
                last = not_yet;
                return Ok(None);
            }
            let here = snapshot(agent.folder())?;
            match &first {
                None => first = Some(here),
                Some(expected) if *expected == here => {}
                Some(expected) => {
                    last = format!("{} differs: {}", agent.name(), differences(expected, &here));
                    return Ok(None);
                }
            }
        }
        Ok(first)
    });
    explain(outcome, &last, agents)
}

/// Waits until every agent says that it is settled, whatever the folders hold.
pub fn wait_settled(agents: &[&Agent]) -> Result<()> {
    let mut last = String::new();
    let outcome = wait("all agents to be settled", LONG, || {
        for agent in agents {
            if let Some(not_yet) = agent.not_settled()? {
                last = not_yet;
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    explain(outcome, &last, agents)
}

/// Waits until the file at `path` of `agent` holds exactly `text`.
pub fn wait_text(agent: &Agent, path: &str, text: &str) -> Result<()> {
    let at = agent.folder().join(path);
    let mut last = String::new();
    let outcome = wait("a file to hold a text", LONG, || match std::fs::read(&at) {
        Ok(bytes) if bytes == text.as_bytes() => Ok(Some(())),
        Ok(bytes) => {
            last = format!("{path} holds {:?}", String::from_utf8_lossy(&bytes).chars().take(400).collect::<String>());
            Ok(None)
        }
        Err(error) => {
            last = format!("{path}: {error}");
            Ok(None)
        }
    });
    explain(outcome, &last, &[agent])
}

/// Adds to a failure what was seen last and what each agent wrote about it.
fn explain<T>(outcome: Result<T>, last: &str, agents: &[&Agent]) -> Result<T> {
    outcome.with_context(|| {
        let mut text = format!("last seen: {last}");
        for agent in agents {
            text.push_str(&format!("\n--- {}\n{}", agent.name(), agent.report()));
        }
        text
    })
}
