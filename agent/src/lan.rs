//! Peers without a relay: this agent serves the relay protocol itself and finds others on the network.
//!
//! Invariant: what is said on the network names nobody: a random instance name and tags that only holders of a workspace
//! can compute, both changing every hour.
//! Spec: docs/sync.md#lan.

pub(crate) mod addresses;
pub(crate) mod mdns;
pub(crate) mod serve;
pub(crate) mod tag;
