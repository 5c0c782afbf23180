//! A relay with real sockets on loopback, spoken to by a client written from the protocol crate alone.

mod admission;
mod client;
mod limits;
mod passing;
mod shutdown;
