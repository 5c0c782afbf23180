//! What can happen to a workspace.

use weft_protocol::frame::ServerFrame;
use weft_protocol::id::ConnectionKey;

use crate::disk::{Outcome, Seen};
use crate::files::ActionId;
use crate::workspace::command::{Command, RequestId};

/// An open transport to a relay (or to an agent that serves one on the LAN); never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names a batch until it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Which kind of link, for what people see and for what is preferred for bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A relay.
    Relay,
    /// An agent on the local network, whichever side dialled.
    Lan,
}

/// What a link's admission handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUp {
    /// The link.
    pub link: LinkId,
    /// Relay or LAN.
    pub kind: LinkKind,
    /// The URL people know it by.
    pub url: String,
    /// The audience that was dialled: lower-case host:port.
    pub audience: String,
    /// The connection's public key.
    pub connection: ConnectionKey,
    /// The challenge of this connection; room proofs are over it.
    pub nonce: [u8; 32],
    /// Bytes that the relay queues for a receiver before it closes it (`Welcome`).
    pub queue_bytes: u32,
    /// Largest frame it takes, in bytes.
    pub frame_bytes_max: u32,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Nothing but time passed: a deadline of `poll_timeout` was reached.
    Wake,
    /// A link is open and admitted.
    LinkUp(LinkUp),
    /// A link is gone; what was sent on it last may or may not have arrived.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A frame came (never `Challenge`, `Welcome` or `Pong`, which the shell answers itself).
    Frame {
        /// On which link.
        link: LinkId,
        /// What came.
        frame: ServerFrame,
    },
    /// The socket has taken what was given out before: `queued_bytes` are still waiting in the shell.
    LinkDrained {
        /// The link.
        link: LinkId,
        /// Bytes that wait in the shell's queue for this link.
        queued_bytes: u64,
    },
    /// This batch, and every one before it, survives a crash now.
    Persisted(Token),
    /// The shell looked at the folder.
    Seen(Vec<Seen>),
    /// The first complete scan since the start is over (or a later complete one): everything was `Seen`.
    Scanned {
        /// Whether the root, its marker and every subfolder could be read.
        complete: bool,
    },
    /// The root vanished, is unreadable, was re-mounted, or lost its marker: stand still.
    RootLost {
        /// What the shell found, for people.
        why: String,
    },
    /// The root is there again, as it was.
    RootBack,
    /// An action in the folder ended.
    Acted {
        /// Which.
        action: ActionId,
        /// How.
        outcome: Outcome,
    },
    /// A person or program asks for something.
    Command(RequestId, Command),
}
