//! One process for all workspaces of a home: it owns them, serves the command line, and serves the LAN.
//!
//! Invariant: at most one daemon a home (the pid file is a lock that the system releases when the process ends, however
//! it ends); the socket is for its owner only.
//! Spec: docs/architecture.md#one-task-owns-one-thing.

pub(crate) mod answer;
pub(crate) mod enrol;
mod export;
mod invites;
pub(crate) mod log;
mod members;
mod people;
mod relays;
mod repair;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod space;
mod verify;
pub(crate) mod wire;
pub(crate) mod wires;
