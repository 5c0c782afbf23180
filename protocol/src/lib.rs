//! What an agent and a relay must agree on, and nothing else.
//!
//! Read in this order: [`limits`] (every bound of the wire, with its reason), [`id`] (names of rooms and keys),
//! [`cbor`] (the one encoding of everything), [`frame`] (what travels, by direction), [`admission`] (how a client
//! gets in: token request, token, challenge, room proof) and [`code`] (every way to be refused).
//!
//! Invariant: this crate holds no state and does no input or output; every decoder is total (garbage gives an error,
//! never a panic) and accepts exactly one encoding of each value.
//! Spec: docs/protocol.md.

pub mod admission;
pub mod cbor;
pub mod code;
pub mod frame;
pub mod id;
pub mod limits;
