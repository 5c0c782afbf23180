//! Tests of the whole: what the crates promise together.
//!
//! [`e2e`] drives the real binaries over real sockets and folders; [`mod@bench`] measures them; [`sim`] runs the very cores
//! that ship in a seeded world of virtual time.

pub mod bench;
pub mod e2e;
pub mod sim;
