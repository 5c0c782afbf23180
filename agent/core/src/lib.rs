//! The agent's decisions, without its input and output.
pub mod content;
pub mod disk;
pub mod files;
pub mod id;
pub mod identity;
pub mod membership;
pub mod setup;
pub mod store;
pub mod time;
pub mod workspace;
