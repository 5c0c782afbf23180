//! `weft move`: the folder of a workspace is elsewhere now.
//!
//! Invariant: only the folder that the workspace is in can be named, by its marker, or because it is the one that was
//! seen last; nothing in it is written but its marker, and nothing is moved. The old folder must be gone: of two folders
//! with one marker, one is a copy.
//! Spec: docs/using.md#when-it-stands-still.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use weft_agent_core::id::WorkspaceId;

use super::answer::{Outcome, may_be_shared};
use super::run::Daemon;
use super::wire::Failure;
use crate::folder::guard::quoted;
use crate::folder::marker::{self, Marker};
use crate::folder::place::{self, Place};
use crate::folder::{at, known};
use crate::home::identity;
use crate::home::registry::Entry;
use crate::store::Store;

pub(super) async fn moved(daemon: &Arc<Daemon>, from: Option<&Path>, to: &Path) -> Outcome {
    let _making = daemon.making.lock().await;
    let to = to.canonicalize().map_err(|error| Failure::usage(format!("{}: {error}", to.display())))?;
    let shown = to.display();
    let found = marker::read(&to).ok().flatten();
    let entry = meant(daemon, from, &to, found.as_ref())?;
    let id = entry.id().ok_or_else(|| Failure::new("the list of workspaces names one without an id"))?;
    let device = identity::current(&daemon.home)?.map(|identity| identity.device.id());
    let device = device.ok_or_else(|| Failure::new("the identity file is gone; restore it from a backup"))?;
    if entry.path == to {
        return Err(Failure::usage(format!("'{}' is in {shown} already", entry.name)));
    }
    let is_it = match &found {
        Some(found) => *found == Marker { workspace: id, device },
        // Its marker was lost on the way: the same folder all the same, or one that holds what is known.
        None => is_known(&daemon.home.replica_dir(&id), &id, &to),
    };
    if !is_it {
        return Err(Failure::usage(format!(
            "{shown} is not the folder of '{}': it has no .weft folder of it. Nothing was changed",
            entry.name
        )));
    }
    let there = marker::read(&entry.path).ok().flatten();
    if there.is_some_and(|there| there.workspace == id) {
        return Err(Failure::usage(format!(
            "'{}' is still in {}, so {shown} is a copy of it; remove or rename one of the two first. Nothing was changed",
            entry.name,
            entry.path.display()
        )));
    }
    may_be_shared(daemon, &to)?;
    let overlaps = |other: &&Entry| {
        other.workspace != entry.workspace && (other.path.starts_with(&to) || to.starts_with(&other.path))
    };
    if let Some(other) = daemon.registry().workspaces.iter().find(overlaps) {
        return Err(Failure::usage(format!(
            "{shown} overlaps the workspace '{}' in {}. Nothing was changed",
            other.name,
            other.path.display()
        )));
    }
    let stopping = Arc::clone(daemon);
    tokio::task::spawn_blocking(move || stopping.stop_space(&id))
        .await
        .map_err(|_| Failure::new("the workspace did not stop; run `weft stop`, then try again"))?;
    let entry = {
        let mut registry = daemon.registry();
        let Some(listed) = registry.by_id(&id) else {
            return Err(Failure::new("the workspace was left meanwhile"));
        };
        let before = std::mem::replace(&mut listed.path, to.clone());
        let listed = listed.clone();
        if let Err(error) = registry.save(&daemon.home) {
            if let Some(listed) = registry.by_id(&id) {
                listed.path.clone_from(&before);
            }
            drop(registry);
            daemon.start_space(Entry { path: before, ..listed }, None, Vec::new())?;
            return Err(Failure::new(format!(
                "the list of workspaces cannot be written ({error:#}); nothing was changed"
            )));
        }
        listed
    };
    let name = entry.name.clone();
    daemon.start_space(entry, None, Vec::new())?;
    Ok(json!({"workspace": id.to_string(), "path": to, "name": name}))
}

/// Whether a folder without a marker is the one that was seen last, or holds what the replica knows.
fn is_known(replica: &Path, id: &WorkspaceId, dir: &Path) -> bool {
    let is_last = |meta| place::last(replica).is_some_and(|last| last.is(&Place::of(&meta)));
    if std::fs::metadata(dir).is_ok_and(is_last) {
        return true;
    }
    // A database that cannot be read knows nothing.
    let samples = std::panic::catch_unwind(|| {
        Store::open_reader(replica).map(|reader| place::samples(&known::stored(&reader))).unwrap_or_default()
    });
    at::open_root(dir).is_ok_and(|root| place::holds(&root, id, &samples.unwrap_or_default()))
}

/// The workspace that is meant: the one that was in `from`, or the one that the marker names.
fn meant(daemon: &Daemon, from: Option<&Path>, to: &Path, found: Option<&Marker>) -> Result<Entry, Failure> {
    let mut registry = daemon.registry();
    match (from, found) {
        (Some(from), _) => {
            // It is gone, so only the folder above it can still be looked up.
            let above = from.parent().and_then(|above| above.canonicalize().ok());
            let from = from.canonicalize().ok().or_else(|| Some(above?.join(from.file_name()?)));
            let entry = registry.workspaces.iter().find(|entry| Some(&entry.path) == from.as_ref());
            entry.cloned().ok_or_else(|| {
                Failure::usage(
                    "no workspace of this agent was in the first of the two folders; `weft status` lists them"
                        .to_owned(),
                )
            })
        }
        (None, Some(found)) => registry.by_id(&found.workspace).cloned().ok_or_else(|| {
            Failure::usage(format!(
                "{} belongs to a workspace that this agent is not in; join it: weft join LINK {} --merge",
                to.display(),
                quoted(to)
            ))
        }),
        (None, None) => Err(Failure::usage(format!(
            "{} has no .weft folder; say which folder it was before: weft move OLD {}",
            to.display(),
            quoted(to)
        ))),
    }
}
