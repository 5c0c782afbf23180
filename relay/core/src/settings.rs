//! What an operator may change of a relay's limits.
//!
//! The defaults are the constants of [`weft_protocol::limits`], where each has its reason.

use weft_protocol::limits;

/// Limits of one relay. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether rooms meet other relays over a fabric; the shell then acts on `Subscribe` and answers it.
    pub several_relays: bool,
    /// Queue of one client, in bytes.
    pub queue_bytes_max: usize,
    /// Queue of one client, in frames.
    pub queue_frames_max: usize,
    /// Peers a room.
    pub room_peers_max: usize,
    /// Rooms a connection.
    pub rooms_per_connection_max: usize,
    /// Messages a second a connection.
    pub messages_per_second: u32,
    /// Messages that may come at once.
    pub messages_burst: u32,
    /// Bytes a second a connection.
    pub bytes_per_second: u32,
    /// Bytes that may come at once.
    pub bytes_burst: u32,
    /// From `Challenge` to `Prove`.
    pub handshake_ms_max: u64,
    /// Silence before a connection is closed.
    pub idle_ms_max: u64,
    /// Session length, before its jitter.
    pub session_ms: u64,
    /// Time a drain's closes are spread over.
    pub drain_ms: u64,
    /// Time over which clients of a restarting relay come back.
    pub restart_spread_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            several_relays: false,
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
            queue_frames_max: limits::QUEUE_FRAMES_MAX,
            room_peers_max: limits::ROOM_PEERS_MAX,
            rooms_per_connection_max: limits::ROOMS_PER_CONNECTION_MAX,
            messages_per_second: limits::MESSAGES_PER_SECOND,
            messages_burst: limits::MESSAGES_BURST,
            bytes_per_second: limits::BYTES_PER_SECOND,
            bytes_burst: limits::BYTES_BURST,
            handshake_ms_max: limits::HANDSHAKE_MS_MAX,
            idle_ms_max: limits::IDLE_MS_MAX,
            session_ms: limits::SESSION_MS,
            drain_ms: limits::DRAIN_MS_MAX / 2,
            restart_spread_ms: limits::RESTART_SPREAD_MS,
        }
    }
}
