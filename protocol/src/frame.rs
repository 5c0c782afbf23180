//! What travels between an agent and a relay, by direction.
//!
//! A frame is one binary WebSocket message: a small CBOR header that the relay reads, and for some kinds opaque bytes
//! behind it that it never looks into. The codecs are in `frame/`.
//!
//! Invariant: a frame has one encoding; a payload is a slice of the message it came in (never copied by decoding), and
//! the bytes of a `Deliver` do not depend on who receives them, so one encoding is shared by a whole room.
//! Spec: docs/protocol.md#frames.

mod client;
mod header;
mod server;

use bytes::Bytes;

use crate::code::Code;
use crate::id::{ConnectionKey, RelayDevice, RoomId};

pub use self::header::FrameError;
pub use self::server::deliver;

crate::byte_id!(
    /// A peer in a room, as named by the relay it is connected to: unique among all relays of a fabric, never reused.
    PeerId,
    16
);

/// Another connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// How to send to it.
    pub peer: PeerId,
    /// Its device as this relay knows it.
    pub device: RelayDevice,
}

/// From the client to the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Answers `Challenge`; nothing else is read before it.
    Prove {
        /// The audience that was dialled: lower-case host:port.
        audience: String,
        /// The connection's public key, as named in the token.
        connection: ConnectionKey,
        /// Ed25519 over context `connect` and [audience, nonce, BLAKE3(token)].
        signature: [u8; 64],
    },
    /// Enters a room.
    Join {
        /// The room.
        room: RoomId,
        /// The room's public key, whose hash is the room id.
        key: [u8; 32],
        /// Ed25519 by that key over context `room` and [audience, nonce, connection key, room id].
        proof: [u8; 64],
    },
    /// Leaves a room.
    Leave {
        /// The room.
        room: RoomId,
    },
    /// To everybody else in the room.
    Publish {
        /// The room.
        room: RoomId,
        /// Sealed bytes.
        payload: Bytes,
    },
    /// To one peer of the room.
    Send {
        /// The room.
        room: RoomId,
        /// Whom.
        to: PeerId,
        /// Sealed bytes.
        payload: Bytes,
    },
    /// Renews the session with a new token for the same connection key.
    Refresh {
        /// The token.
        token: String,
    },
    /// Answered by `Pong` with the same number.
    Ping {
        /// Any number.
        number: u64,
    },
}

/// From the relay to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// The first frame of every connection.
    Challenge {
        /// Fresh for this connection.
        nonce: [u8; 32],
    },
    /// The proof was good.
    Welcome {
        /// How long the session lasts, in milliseconds, before it must be renewed.
        session_ms: u64,
        /// Bytes queued for this client before it is closed with `resync`.
        queue_bytes: u32,
        /// Largest frame, in bytes.
        frame_bytes_max: u32,
        /// Rooms this connection may be in at once.
        rooms_max: u32,
    },
    /// The room is entered; peers that were there.
    Joined {
        /// The room.
        room: RoomId,
        /// Our own name there.
        you: PeerId,
        /// The others.
        peers: Vec<Peer>,
    },
    /// A peer entered.
    PeerJoined {
        /// The room.
        room: RoomId,
        /// Who.
        peer: Peer,
    },
    /// A peer is gone.
    PeerLeft {
        /// The room.
        room: RoomId,
        /// Who.
        peer: PeerId,
    },
    /// Bytes from a peer.
    Deliver {
        /// The room.
        room: RoomId,
        /// From whom.
        from: PeerId,
        /// Sealed bytes.
        payload: Bytes,
    },
    /// Frames of this room were lost on the way here: reconcile.
    Resync {
        /// The room.
        room: RoomId,
    },
    /// The session was renewed.
    Refreshed {
        /// How long it lasts from now, in milliseconds.
        session_ms: u64,
    },
    /// The relay is about to restart: reconnect after this, elsewhere or here.
    Restarting {
        /// Milliseconds to wait, already jittered for this client.
        after_ms: u64,
    },
    /// Something was refused; the connection stays unless the code says otherwise.
    Error {
        /// Why.
        code: Code,
        /// Which room it was about.
        room: Option<RoomId>,
        /// A sentence for people that says what to do.
        message: String,
        /// When to try again, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// Answers `Ping`.
    Pong {
        /// The number of the ping.
        number: u64,
    },
}
