//! The agent's decisions, without its input and output.
pub mod content;
pub mod disk;
pub mod files;
pub mod id;
pub mod membership;
pub mod store;
pub mod time;
pub mod workspace;
