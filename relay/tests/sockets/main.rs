//! A relay with real sockets on loopback, spoken to by a client written from the protocol crate alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

mod admission;
mod atproto;
mod client;
mod dids;
mod hard_times;
mod identity;
mod limits;
mod nats;
mod operating;
mod passing;
mod process;
mod refusals;
mod rfc6455;
mod rolling;
mod secrets;
mod shutdown;
#[cfg(feature = "opentelemetry")]
mod telemetry;
mod unfinished;
mod watching;
