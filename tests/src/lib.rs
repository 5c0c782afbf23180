//! Tests that need more than one part: the simulator, and what the end-to-end tests share.
pub mod sim;
