//! A seeded world in one thread: hosts, links, disks and folders around the very cores that ship.
//!
//! Invariant: a run is a function of its case (`plan::Case`, itself a function of a seed): the same case gives the same
//! digest, on every machine. Time is virtual and jumps to the next deadline.
//! Spec: docs/simulation.md.

pub mod dice;
pub mod disk;
pub mod folder;
pub mod machine;
pub mod plan;
pub mod profile;
pub mod wire;
