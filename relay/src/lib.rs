//! The relay: sockets, HTTP and WebSockets around the pure machine of `weft-relay-core`.
//!
//! A connection's way in: `accept` (gates before parsing) → `http` (token request, upgrade) → `admit` (who is it) →
//! `connection` (one task, one WebSocket) → `hub` (the machine and everybody's mailbox). [`Server`] ties them together and is
//! what the `weft-relay` binary and an agent that serves its LAN both run.
//!
//! Invariant: this crate links nothing that could open an envelope, and no log line holds a token, a payload or a whole
//! room id. Spec: docs/protocol.md.

mod accept;
mod admit;
mod audiences;
mod config;
mod connection;
mod did;
mod http;
mod hub;
mod mailbox;
mod server;
mod tokens;
mod websocket;

pub use self::config::Config;
pub use self::server::{Server, ServerError, Watch};
pub use weft_relay_core::{Figures, Settings};
