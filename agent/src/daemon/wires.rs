//! From a workspace's machine to its links, its folder and the people who wait for answers.

use std::path::PathBuf;
use std::sync::Arc;

use weft_agent_core::disk::{FolderAction, RelPath};
use weft_agent_core::files::{ActionId, Halt, LogEntry};
use weft_agent_core::identity::DeviceCert;
use weft_agent_core::workspace::command::{Reply, RequestId};
use weft_agent_core::workspace::input::LinkId;
use weft_agent_core::workspace::output::Rank;
use weft_protocol::frame::ClientFrame;

use super::space::Shared;
use crate::folder::marker::Marker;
use crate::folder::orders::{Folder, Order};
use crate::host::Effects;
use crate::host::inbox::Inbox;
use crate::link::Links;

/// The effects of one run of one workspace.
pub(crate) struct Wires {
    shared: Arc<Shared>,
    links: Arc<Links>,
    inbox: Arc<Inbox>,
    root: PathBuf,
    marker: Marker,
    replica: PathBuf,
    folder: Option<Folder>,
}

impl Wires {
    pub(crate) fn new(
        shared: Arc<Shared>,
        links: Arc<Links>,
        inbox: Arc<Inbox>,
        marker: Marker,
        replica: PathBuf,
    ) -> Wires {
        let root = shared.path.clone();
        Wires { shared, links, inbox, root, marker, replica, folder: None }
    }

    /// From now on the folder is looked at and written.
    pub(crate) fn open_folder(&mut self) {
        if self.folder.is_some() {
            return;
        }
        match Folder::start(self.root.clone(), self.marker.clone(), self.replica.clone(), Arc::clone(&self.inbox)) {
            Ok(folder) => {
                self.shared.set_seeing(Some(folder.seeing()));
                self.folder = Some(folder);
            }
            Err(error) => tracing::error!(%error, "the folder's thread cannot be started"),
        }
    }

    fn order(&self, order: Order) {
        if let Some(folder) = &self.folder {
            folder.order(order);
        }
    }
}

impl Effects for Wires {
    fn send(&mut self, link: LinkId, rank: Rank, frame: ClientFrame) {
        self.links.send(link, rank, &frame);
    }
    fn close(&mut self, link: LinkId, why: &'static str) {
        tracing::info!(why, "a link is given up");
        self.links.close(link, why);
    }
    fn act(&mut self, actions: Vec<(ActionId, FolderAction)>) {
        self.order(Order::Act(actions));
    }
    fn look(&mut self, paths: Vec<RelPath>) {
        self.order(Order::Look(paths));
    }
    fn halted(&mut self, halt: Option<Halt>) {
        tracing::warn!(halted = halt.is_some(), "the folder halts or goes on");
    }
    fn addresses(&mut self, relays: Vec<String>, lan: Vec<String>) {
        self.shared.set_addresses(relays, lan);
        self.shared.redial();
    }
    fn admitted(&mut self, name: String) {
        self.shared.admitted(name);
        self.open_folder();
    }
    fn enrolled(&mut self, cert: DeviceCert, name: String) {
        self.shared.enrolled(&cert, &name);
    }
    fn event(&mut self, entry: LogEntry) {
        self.shared.event(entry);
    }
    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.shared.reply(request, reply);
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Whoever still waits on the inbox is let go before the folder's thread is joined.
        self.inbox.close();
        self.shared.set_seeing(None);
    }
}
