//! Tests of the whole: what the crates promise together.
//!
//! [`e2e`] drives the real binaries over real sockets and folders.

pub mod e2e;
