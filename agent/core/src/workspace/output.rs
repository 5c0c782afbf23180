//! What a workspace wants done.

use weft_protocol::frame::ClientFrame;

use crate::disk::{FolderAction, RelPath};
use crate::files::{ActionId, Halt};
use crate::identity::DeviceCert;
use crate::store::Write;
use crate::workspace::command::{Reply, RequestId};
use crate::workspace::input::{LinkId, Token};

/// How urgent a frame is; the shell sends a link's frames in this order, first in first out within one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Joins, queries, credit, beacons.
    Control = 0,
    /// What was just written.
    Live = 1,
    /// What a peer asked for: history and blobs.
    Bulk = 2,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Apply to the store at once and make durable soon; answer `Persisted(token)` then.
    Persist {
        /// Names the batch; ascending.
        token: Token,
        /// What to write, in order.
        batch: Vec<Write>,
    },
    /// Send on a link.
    Send {
        /// The link.
        link: LinkId,
        /// How urgent.
        rank: Rank,
        /// What.
        frame: ClientFrame,
    },
    /// Give a link up (its peer misbehaved); the shell closes and reconnects with back-off.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for the log.
        why: &'static str,
    },
    /// Do this in the folder, answer `Acted`. Actions on one path are done in the order given.
    Act(ActionId, FolderAction),
    /// Look at these paths (all, if empty) and answer `Seen` (and `Scanned`, if all).
    Look(Vec<RelPath>),
    /// Raise the watermark outside the database to this (incarnation, seq), durably, before the outputs that follow.
    Watermark {
        /// The incarnation.
        incarnation: u64,
        /// The highest seq about to be sent.
        seq: u64,
    },
    /// The folder is halted; `None`: it goes on.
    Halted(Option<Halt>),
    /// The relays and LAN addresses of this workspace, as known now; dial those that are new.
    Addresses {
        /// Relay URLs (`ws://`, `wss://`), shared among the members.
        relays: Vec<String>,
        /// LAN addresses of peers, `ws://ip:port`.
        lan: Vec<String>,
    },
    /// Joined: the folder may be touched from now on.
    Admitted {
        /// The workspace's name.
        name: String,
    },
    /// This device was let in as one of a member: keep that as its identity, durably.
    Enrolled {
        /// That it is the member's.
        cert: DeviceCert,
        /// The member's display name.
        name: String,
    },
    /// Something worth telling whoever follows: `weft log --follow`, progress bars.
    Event(crate::files::LogEntry),
    /// The answer to a command.
    Reply(RequestId, Reply),
}
