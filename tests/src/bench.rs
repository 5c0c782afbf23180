//! What the benchmarks share: clients of what is measured, figures, and the cost of a process.
//!
//! A benchmark prints its figures and never judges them: on a busy machine a limit would only tell that it was busy.

pub mod bare;
mod client;
mod contender;
mod cost;
mod figures;
pub mod load;
mod peer;

pub use client::Client;
pub use contender::{Contender, RAISED, Served, relay_beside};
pub use cost::{Cost, files_kib};
pub use figures::Figures;
pub use peer::{Peer, PeerReader, PeerWriter};
