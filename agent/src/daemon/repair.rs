//! `weft repair`: a damaged database is set aside, a new one begins with what can be read, and peers bring the rest.
//!
//! Invariant: the folder is not touched before the new replica has compared it with what the workspace holds, and nothing
//! of the damaged database is removed. The device stays the one it was. Spec: docs/sync.md#damage.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::run::Daemon;
use super::wire::Failure;
use crate::store::salvage::{Repaired, repair as repair_store};

/// Repairs the workspace in a folder, and starts it again.
pub(super) async fn repair(daemon: &Arc<Daemon>, dir: &Path) -> Result<Value, Failure> {
    let space = super::answer::space(daemon, dir)?;
    let (id, path, name) = (space.shared.id, space.shared.path.clone(), space.shared.name());
    if space.shared.is_joining() {
        return Err(Failure::attention(
            "this workspace is not joined yet, so nothing is lost: run `weft leave`, and join again with the same link",
        ));
    }
    // One that does not run although its database can be read is inconsistent in a way that no checksum shows.
    let stands = !space.shared.is_running() && space.shared.problem().is_some();
    drop(space);
    let stopping = Arc::clone(daemon);
    let replica = daemon.home.replica_dir(&id);
    let done = tokio::task::spawn_blocking(move || {
        stopping.stop_space(&id);
        repair_store(&replica, stands)
    });
    let done = done.await.map_err(|_| Failure::new("the repair was given up; run `weft stop`, then try again"))?;
    let entry = daemon.registry().by_id(&id).cloned();
    if let Some(entry) = entry {
        daemon.start_space(entry, None, Vec::new())?;
    }
    Ok(match done.map_err(|error| Failure::new(error.to_string()))? {
        Repaired::Whole => json!({"path": path, "name": name, "was": "whole"}),
        Repaired::Values(count) => json!({"path": path, "name": name, "was": "values", "values": count}),
        Repaired::Replaced(salvaged) => json!({
            "path": path, "name": name, "was": "replaced", "kept_as": salvaged.kept_as, "rows": salvaged.rows,
            "can_return": salvaged.can_return,
        }),
    })
}
