//! Which workspaces this agent serves, and in which folders.
//!
//! Invariant: the file names every replica that is in use; a workspace is listed once, and so is a folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_agent_core::id::WorkspaceId;

use crate::durable;
use crate::home::Home;

/// One workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Its id, in hexadecimal.
    pub(crate) workspace: String,
    /// Its folder.
    pub(crate) path: PathBuf,
    /// Its name when last known.
    pub(crate) name: String,
    /// Whether the person stopped syncing.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Whether a member has let us in yet.
    #[serde(default)]
    pub(crate) joining: bool,
}

impl Entry {
    pub(crate) fn id(&self) -> Option<WorkspaceId> {
        WorkspaceId::from_hex(&self.workspace)
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    #[serde(default)]
    pub(crate) workspaces: Vec<Entry>,
}

impl Registry {
    /// Reads it; none is an empty one. A damaged one is an error: overwriting it would forget workspaces.
    pub(crate) fn load(home: &Home) -> anyhow::Result<Registry> {
        let path = home.registry_file();
        let Some(bytes) = durable::read_if_there(&path)? else { return Ok(Registry::default()) };
        serde_json::from_slice(&bytes).map_err(|error| {
            anyhow::anyhow!("{} is damaged ({error}); put it right or restore it from a backup", path.display())
        })
    }
    pub(crate) fn save(&self, home: &Home) -> anyhow::Result<()> {
        Ok(durable::replace(&home.registry_file(), &serde_json::to_vec_pretty(self)?)?)
    }
    pub(crate) fn by_id(&mut self, workspace: &WorkspaceId) -> Option<&mut Entry> {
        self.workspaces.iter_mut().find(|entry| entry.id().as_ref() == Some(workspace))
    }
    pub(crate) fn put(&mut self, new: Entry) {
        self.workspaces.retain(|entry| entry.workspace != new.workspace && entry.path != new.path);
        self.workspaces.push(new);
    }
    pub(crate) fn remove(&mut self, workspace: &WorkspaceId) {
        self.workspaces.retain(|entry| entry.id().as_ref() != Some(workspace));
    }
}
