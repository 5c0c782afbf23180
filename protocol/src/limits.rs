//! Every bound of the wire, in one place, each with its reason.
//!
//! Invariant: a number that both sides must agree on, or that an implementer must know, stands here and nowhere else.
//! Those marked *format* may not be lowered by any relay, because sealed things are sized by them; the others are
//! defaults that an operator may change, and `Welcome` tells a client what it needs to know of them.
//! Spec: docs/protocol.md#limits.

/// Largest frame, header and payload, in bytes (*format*). An envelope is at most 512 KiB and a piece 256 KiB, both
/// padded; twice the former leaves room for growth without a second format.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Room kept for the header of a frame that carries a payload, in bytes (*format*). A `Publish` header is shorter
/// than the `Deliver` header it becomes, so the bound is on the payload: what fits in comes out.
pub const FRAME_HEADER_BYTES_MAX: usize = 64;

/// Largest payload of `Publish`, `Send` and `Deliver`, in bytes (*format*).
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES_MAX;

/// Bytes queued for one client before it is closed with `resync`. Told in `Welcome`: senders of bulk grant and ask
/// for at most half of it. Four largest frames; a 1 Mbit/s link drains it in half a minute.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Frames queued for one client before it is closed with `resync`. Small frames cost more memory than their bytes
/// say; at the most a full room may send (49 peers, 100 a second each) this is well over a second of silence.
pub const QUEUE_FRAMES_MAX: usize = 8192;

/// What one queued frame counts for beyond its bytes: the reference and the allocation behind it.
pub const QUEUE_FRAME_OVERHEAD_BYTES: usize = 64;

/// Peers a room, ourselves included. A publish costs one delivery a peer, and teams that share a folder are smaller.
pub const ROOM_PEERS_MAX: usize = 50;

/// Peers that a `Joined` frame may list at all, in case an operator raises [`ROOM_PEERS_MAX`] (*format*). At 34 bytes
/// each they stay far below a frame.
pub const JOINED_PEERS_MAX: usize = 4096;

/// Rooms one connection may be in at once. An agent listens to the current epoch's room, the last three, the
/// lobbies and the rooms of open invites of one workspace; a knock costs one each.
pub const ROOMS_PER_CONNECTION_MAX: usize = 64;

/// Messages a second from one connection, as back-pressure on reading. An agent that seals every 50 ms sends 20.
pub const MESSAGES_PER_SECOND: u32 = 100;

/// Messages that may come at once after silence: reconnecting asks, answers and fetches in a burst.
pub const MESSAGES_BURST: u32 = 200;

/// What one `Join` counts for in messages: the relay verifies a signature for it, about 50 microseconds.
pub const JOIN_COST_MESSAGES: u32 = 4;

/// Debt of a rate limit beyond which a frame is refused by name instead of reading being paused, in milliseconds. It
/// stands only against whoever feeds frames past the pause.
pub const RATE_DEBT_MS_MAX: u64 = 2_000;

/// Bytes a second from one connection, as back-pressure on reading.
pub const BYTES_PER_SECOND: u32 = 16 << 20;

/// Bytes that may come at once after silence.
pub const BYTES_BURST: u32 = 32 << 20;

/// Connections from one address. An office or a carrier's NAT is one address; a /64 is one site of IPv6.
pub const CONNECTIONS_PER_IP_MAX: usize = 256;

/// Connections in all. Ten thousand idle ones cost about 90 MB.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Token requests a minute from one address, refused ones included. One a connection an hour is normal use.
pub const TOKEN_REQUESTS_PER_MINUTE: u32 = 60;

/// Leading bits of an IPv6 address that count as one address: the smallest block that providers hand out.
pub const IPV6_PREFIX_BITS: u8 = 64;

/// Leading bits of an IPv4 address that count as one network where networks share a total ...
pub const IPV4_NETWORK_BITS: u8 = 24;

/// ... and of an IPv6 address: what a customer usually gets whole, so that its 65,536 sites are one party.
pub const IPV6_NETWORK_BITS: u8 = 48;

/// How long a client may take from the TCP connection to its whole HTTP header, in milliseconds.
pub const HEADER_MS_MAX: u64 = 10_000;

/// How long a client may take from `Challenge` to `Prove`, in milliseconds; a 2G round trip is about 1 s.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

/// Silence after which the relay closes, in milliseconds. Any byte is life.
pub const IDLE_MS_MAX: u64 = 90_000;

/// Silence after which a client should send `Ping`, in milliseconds: three tries before [`IDLE_MS_MAX`], and below
/// the 60 s after which common proxies cut an idle connection.
pub const PING_AFTER_MS: u64 = 25_000;

/// Largest message that needs no room of its own while it comes in, in bytes: it fits into what a connection keeps anyway.
pub const MESSAGE_SMALL_BYTES_MAX: usize = 4096;

/// Frames that one WebSocket message may come in: a message of the largest size in parts of 128 bytes.
pub const FRAGMENTS_MAX: u32 = 8192;

/// How long a message may take from its room being there to its last byte, in milliseconds; the largest envelope then needs
/// 70 kbit/s.
pub const MESSAGE_MS_MAX: u64 = 60_000;

/// Bytes of all messages of which a part has come. A network has no more of them than are free for others, and there are
/// bounds for one DID and one address; above any of these the relay waits before it reads the message.
pub const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// Of these, of one DID: eight devices that send the largest message at once.
pub const UNFINISHED_BYTES_PER_DID_MAX: usize = 8 << 20;

/// Of these, from one address: an office in which sixteen do.
pub const UNFINISHED_BYTES_PER_IP_MAX: usize = 16 << 20;

/// How long one flush of a socket may take before the relay gives the connection up, in milliseconds.
pub const FLUSH_MS_MAX: u64 = 30_000;

/// How long the closing handshake may take, in milliseconds.
pub const CLOSE_MS_MAX: u64 = 2_000;

/// Life of a relay token, in milliseconds: it is used at once, for one connection key.
pub const TOKEN_MS: u64 = 30_000;

/// Longest life (`exp` - `iat`) of a JWT that asks for a token, in seconds.
pub const JWT_LIFETIME_S_MAX: u64 = 120;

/// How far a client's clock may be off before its JWT is refused, in seconds.
pub const JWT_LEEWAY_S: u64 = 5;

/// Largest JWT, in bytes. Ours have about 400; service-auth tokens about 600.
pub const JWT_BYTES_MAX: usize = 4096;

/// Longest `jti` of a JWT, in bytes; it is kept until the JWT expires.
pub const JTI_BYTES_MAX: usize = 128;

/// Longest DID, in bytes (the DID specification names none; ATProto says 2,048).
pub const DID_BYTES_MAX: usize = 2048;

/// Largest body of a token request, in bytes: three hexadecimal strings.
pub const TOKEN_REQUEST_BYTES_MAX: usize = 1024;

/// Largest relay token, in bytes. It travels in a header line, and proxies cap those at 8 KiB.
pub const TOKEN_BYTES_MAX: usize = 2048;

/// Session length in milliseconds, before it is renewed in-band ...
pub const SESSION_MS: u64 = 3_600_000;

/// ... give or take this many hundredths, so that clients of one restart do not renew together.
pub const SESSION_JITTER_PERCENT: u64 = 10;

/// Longest audience, in bytes: a DNS name of 253, a colon and five digits, rounded up.
pub const AUDIENCE_BYTES_MAX: usize = 272;

/// Longest sentence in an `Error` frame or answer, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 512;

/// JWTs remembered against replay, in all. Each stands until it expires, at most 125 s; at the per-address limit
/// that is 125 an address. A network holds no more of them than are free for others.
pub const REPLAY_ENTRIES_MAX: usize = 1 << 18;

/// Relay tokens whose use is remembered, in all: each stands for its 30 s, so two thousand connections a second fit. A network
/// holds no more of them than are free for others.
pub const TOKENS_USED_MAX: usize = 1 << 16;

/// Addresses whose rates are remembered at once; quiet ones are forgotten. A network has no more of them than are free for
/// others, and requests of further ones are refused.
pub const RATE_ADDRESSES_MAX: usize = 1 << 16;

/// Within this time a restarting relay asks its clients to spread their return, in milliseconds.
pub const RESTART_SPREAD_MS: u64 = 10_000;

/// Longest a drain may take before the process ends anyway, in milliseconds; container runtimes kill after 10 s.
pub const DRAIN_MS_MAX: u64 = 8_000;
