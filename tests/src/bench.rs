//! What the benchmarks share: a client of the relay's protocol, figures, and the cost of a process.
//!
//! A benchmark prints its figures and never judges them: on a busy machine a limit would only tell that it was busy.

mod client;
mod cost;
mod figures;

pub use client::Client;
pub use cost::{Cost, files_kib};
pub use figures::Figures;
