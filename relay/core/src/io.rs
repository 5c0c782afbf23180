//! What goes into a relay and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::admission::Audience;
use weft_protocol::code::Code;
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

use crate::checked::CheckedFrame;
use crate::lists::Lists;

/// A connection, as numbered by the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What a relay token says: verified by the shell, which holds the signing keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who: a hash of the DID, so that no DID stays in memory.
    pub identity: [u8; 32],
    /// Which of their devices.
    pub device: RelayDevice,
    /// The key the token is bound to.
    pub connection: ConnectionKey,
    /// The audience the token was given for.
    pub audience: Audience,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A client connected and showed a token that the shell verified; it is challenged next.
    ConnectionOpened {
        /// Its number.
        conn: ConnId,
        /// What its token says.
        admission: Admission,
        /// The token itself; its hash is part of the proof.
        token: String,
    },
    /// One whole binary message.
    FrameReceived {
        /// From whom.
        conn: ConnId,
        /// The message, as this connection's [`Proofs`](crate::Proofs) checked it.
        frame: CheckedFrame,
    },
    /// A message that is no frame: text, too large to be read, or never finished.
    Unreadable {
        /// From whom.
        conn: ConnId,
        /// What it was.
        code: Code,
    },
    /// Some bytes came, if not a whole frame.
    Alive {
        /// From whom.
        conn: ConnId,
    },
    /// A ping or pong of the WebSocket came. It counts against the rate like any message.
    ControlReceived {
        /// From whom.
        conn: ConnId,
        /// Its payload.
        bytes: usize,
    },
    /// The connection is gone.
    ConnectionClosed {
        /// Which.
        conn: ConnId,
    },
    /// Frames left the queue for the socket.
    QueueDrained {
        /// Whose.
        conn: ConnId,
        /// Their bytes.
        bytes: usize,
        /// How many.
        frames: usize,
    },
    /// Answers [`Output::VerifyToken`].
    TokenVerified {
        /// Whose.
        conn: ConnId,
        /// What the token says, or why it is none.
        result: Result<Admission, Code>,
    },
    /// The operator's lists are these from now on; those whom they leave out are closed.
    ListsChanged {
        /// The new ones, whole.
        lists: Arc<Lists>,
    },
    /// An operator wants this connection gone.
    Kick {
        /// Which.
        conn: ConnId,
    },
    /// The fabric is connected; subscriptions from before stand again.
    FabricUp,
    /// The fabric is cut off.
    FabricDown,
    /// Answers [`Output::Subscribe`]: from now on everything said in the room arrives.
    Subscribed {
        /// Which.
        room: RoomId,
    },
    /// Another relay said something in a room.
    FabricReceived {
        /// Where.
        room: RoomId,
        /// What.
        message: Bytes,
    },
    /// The time of `poll_timeout` has come.
    Wake,
    /// Stop: tell everybody, then close in waves.
    Drain,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Queue a frame for one client.
    Send {
        /// To whom.
        conn: ConnId,
        /// The message.
        frame: Bytes,
    },
    /// Queue one frame for several clients: the same bytes for each.
    FanOut {
        /// The message.
        frame: Bytes,
        /// To whom.
        conns: Vec<ConnId>,
    },
    /// Read nothing more from a client before `until_ms`: it is above its rate.
    Pause {
        /// Whom.
        conn: ConnId,
        /// Until when.
        until_ms: u64,
    },
    /// Verify a token; answer with [`Input::TokenVerified`].
    VerifyToken {
        /// Whose.
        conn: ConnId,
        /// The token.
        token: String,
    },
    /// Subscribe to what other relays say in a room; answer with [`Input::Subscribed`].
    Subscribe {
        /// Which.
        room: RoomId,
    },
    /// Nobody is in the room any more.
    Unsubscribe {
        /// Which.
        room: RoomId,
    },
    /// Tell the other relays. If it cannot be sent it may be dropped: its number shows that it is missing.
    FabricSend {
        /// Where.
        room: RoomId,
        /// What.
        message: Bytes,
    },
    /// Tell the operator that something was refused; the client is told by itself.
    Refused {
        /// To whom.
        conn: ConnId,
        /// Hash of their DID.
        identity: [u8; 32],
        /// Why.
        code: Code,
    },
    /// Close a client. The machine has forgotten it already.
    Close {
        /// Whom.
        conn: ConnId,
        /// Why; gives the WebSocket close code.
        code: Code,
        /// Whether what is queued is to be thrown away (a slow consumer) instead of written first.
        discard_queue: bool,
    },
}
