//! What a relay decides, without sockets, clocks or randomness of its own.
//!
//! [`Relay`] is the machine: connections prove themselves, join rooms and have frames passed on. Its contract is
//!
//! ```text
//! handle(now_ms, input)        one mutation ...
//! poll_output() -> Option      ... drained to None before the next
//! poll_timeout() -> Option     when to send Input::Wake
//! ```
//!
//! It is made of one concern a file: [`room`] (who is where), [`queue`] (what a slow client may owe), [`bucket`] (rates),
//! `connection` (handshake, session, deadlines), [`checked`] (frames verified before they come in),
//! [`lists`] (who may be here), [`fabric`] (rooms that span several relays), and stands beside small ones that act before
//! a connection exists: [`gate`] (connections an address) and [`once`] (a JWT and a token are used once), both shared out to
//! networks by [`shares`], as is the memory of messages of which a part has come ([`unfinished`], by what [`meter`] sees
//! of them). The shell `weft-relay` and the simulator run this same code.
//!
//! Invariant: nothing here reads a payload, a clock or a socket, and the same inputs give the same outputs.
//! Spec: docs/protocol.md.

pub mod bucket;
pub mod checked;
mod connection;
mod draw;
pub mod fabric;
pub mod gate;
pub mod io;
pub mod lists;
mod marks;
pub mod meter;
pub mod once;
pub mod queue;
mod relay;
pub mod room;
pub mod settings;
pub mod shares;
pub mod unfinished;

pub use self::checked::{CheckedFrame, Proofs};
pub use self::io::{Admission, ConnId, Input, Output};
pub use self::lists::Lists;
pub use self::marks::Marks;
pub use self::relay::{Figures, PeerView, Relay, RoomView};
pub use self::settings::Settings;
