//! One process for all workspaces of a home: it owns them, serves the command line, and serves the LAN.
//!
//! Invariant: at most one daemon a home (by a lock beside the data, which the system releases when the process ends,
//! however it ends); the socket is for its owner only.
//! Spec: docs/architecture.md#one-task-owns-one-thing.

mod again;
pub(crate) mod answer;
mod door;
pub(crate) mod enrol;
mod export;
mod invites;
pub(crate) mod log;
mod members;
mod moved;
mod people;
mod relays;
mod repair;
pub(crate) mod report;
mod resume;
pub(crate) mod run;
pub(crate) mod space;
mod verify;
pub(crate) mod wire;
pub(crate) mod wires;
