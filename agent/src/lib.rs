//! The agent's shell: disks, sockets, clocks and people around the pure machine of `weft_agent_core`.
//!
//! Read in this order: `host` (the thread that owns a workspace), `engine` (the only user of the core's machine),
//! `folder` (what is looked at and written in a folder), `link` (one connection to a relay), `account` (who we are to relays that ask), `lan` (peers without one),
//! `daemon` (one process for all workspaces) and [`cli`] (what people type).
//!
//! Invariant: nothing here decides what is synced; it looks, stores, sends and writes what the core asks for.
//! Spec: docs/architecture.md.

mod account;
mod blob;
pub mod cli;
mod clock;
mod config;
mod daemon;
mod durable;
mod engine;
mod export;
mod folder;
mod home;
mod host;
mod keychain;
mod lan;
mod link;
mod nearest;
mod store;
