//! How a client gets in, and into a room: pure functions of bytes, keys, time and randomness.
//!
//! In the order of the handshake: [`audience`] (which relay is meant, as dialled), [`did_key`] (who asks), [`jwt`]
//! (their signed request), [`token`] (the HTTP exchange that trades it for a relay token), [`subprotocol`] (how the token
//! travels in the WebSocket upgrade), [`proof`] (fresh signatures over the relay's nonce: connection key, then rooms).
//!
//! Invariant: every signature names its context and the audience that was dialled, so that none can be shown to another
//! relay, for another purpose, or on another connection.
//! Spec: docs/protocol.md#admission.

pub mod audience;
pub mod did_key;
pub mod jwt;
pub mod proof;
pub mod subprotocol;
pub mod token;

pub use self::audience::Audience;
pub use self::did_key::DidKey;
