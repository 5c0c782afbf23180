//! A seeded world in one thread: hosts, links, disks and folders around the very cores that ship.
//!
//! Invariant: a run is a function of its case (`plan::Case`, itself a function of a seed): the same case gives the same
//! digest, on every machine. Time is virtual and jumps to the next deadline.
//! Spec: docs/simulation.md.

pub mod blob;
pub mod dice;
pub mod disk;
pub mod folder;
pub mod host;
pub mod machine;
pub mod malice;
pub mod oracle;
pub mod plan;
pub mod profile;
pub mod real;
pub mod run;
pub mod sabotage;
#[cfg(test)]
pub(crate) mod toy;
pub mod wire;
pub mod witness;
pub mod world;
