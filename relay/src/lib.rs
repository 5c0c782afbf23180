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
mod check;
mod config;
mod connection;
mod did;
pub mod health;
mod http;
mod hub;
pub mod learn;
mod mailbox;
mod metrics;
mod nats;
pub mod options;
mod policy;
mod process;
mod rates;
mod reading;
mod refusals;
mod server;
#[cfg(feature = "opentelemetry")]
pub mod telemetry;
mod tls;
mod tokens;
mod websocket;

pub use self::config::{Config, DidConfig, NatsConfig, PolicyConfig, TlsFiles};
pub use self::did::{CacheTimes, DidAnswer, DidClient, DidClientError, Lookup, LookupFuture, SystemLookup, is_global};
pub use self::nats::NatsError;
pub use self::policy::BlockFileError;
pub use self::server::{Reloader, Server, ServerError, Watch};
pub use self::tls::TlsError;
pub use weft_relay_core::{Figures, Settings};
