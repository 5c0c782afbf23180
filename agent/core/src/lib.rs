//! The agent's decisions, without its input and output.
mod cipher;
pub mod content;
pub mod disk;
pub mod envelope;
pub mod epoch;
pub mod files;
pub mod hash;
pub mod id;
pub mod identity;
pub mod invite;
pub mod invite_link;
pub mod key_packet;
pub mod keyring;
pub mod knock;
pub mod membership;
pub mod op;
pub mod padding;
pub mod payload;
pub mod piece;
pub mod secret;
pub mod setup;
pub mod sign;
pub mod store;
#[cfg(test)]
mod tests;
pub mod time;
pub mod workspace;
pub mod wrap;
