//! Tests of the whole: what the crates promise together.
//!
//! [`e2e`] drives the real binaries over real sockets and folders; [`bench`] measures them.

pub mod bench;
pub mod e2e;
