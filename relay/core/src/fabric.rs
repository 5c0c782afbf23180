//! Rooms that span several relays: what relays tell each other, and how a lost message is noticed.
//!
//! Messages of a room travel over a fabric that may lose, delay or cut off, and never tells (NATS core). So each relay numbers
//! what it sends in a room, and repeats who is with it every few seconds: whoever sees a number missing tells its members
//! `Resync`, and they reconcile end to end. Peer lists and limits across relays are soft: right once the fabric has been
//! quiet for a beat.
//!
//! Invariant: a message that one relay sent and another, subscribed all along, did not get is noticed by the latter at the
//! next message or beat it gets. [`message`] is the encoding, [`link`] the bookkeeping of one room.
//! Spec: docs/protocol.md#several-relays.

pub mod link;
pub mod message;

pub use self::link::{Link, Told};
pub use self::message::{Body, Message, MessageError, NodeId, RemotePeer};

/// How often a relay repeats who is with it in a room, in milliseconds.
pub const BEAT_MS: u64 = 5_000;
/// How soon after a frame a beat follows, so that the loss of the last frame before a silence is seen, in milliseconds.
pub const TAIL_BEAT_MS: u64 = 500;
/// Silence after which another relay's peers count as gone: three beats, in milliseconds.
pub const NODE_EXPIRES_MS: u64 = 3 * BEAT_MS;
/// How long a room without members stays subscribed: a reconnecting client finds it warm, in milliseconds.
pub const LINGER_MS: u64 = 10_000;
/// How long a join waits for the fabric to say that the subscription stands, in milliseconds.
pub const SUBSCRIBE_MS_MAX: u64 = 2_000;
/// After we subscribed, relays that were there before answer within this time; their numbers then start where they are,
/// in milliseconds.
pub const HELLO_MS: u64 = 2_000;
/// At most one `Resync` a room in this time; gaps in between are told at its end, in milliseconds.
pub const RESYNC_EVERY_MS: u64 = 1_000;
/// Relays that are kept track of in a room; more are not listened to.
pub const NODES_MAX: usize = 64;
