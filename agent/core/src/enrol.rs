//! How a further device of a member gets in: by the member's words, or by another device of theirs.
//!
//! A *pass* leads it to a *door*: a room that members with the keys are in too. There it asks, sealed to whoever has the
//! door's keys, and is answered, sealed to it, with the whole history of the membership and the epoch's secrets. Why not
//! an invite: a member is in already; what is new is a device, and only its member vouches for that. Invariant: neither
//! pass nor door lets anybody in. By words, the device's op was signed by the root before anything was asked; by another
//! device, that device's person has compared four words first. Spec: docs/sealing.md#enrolment.

mod answer;
mod pass;
mod request;

pub use answer::{EnrolError, EnrolOpener, Enrolled, Refusal, make_enrol_answer, make_refusal, open_refusal};
pub use pass::{PASS_BYTES_MAX, PASS_SCHEME, Pass, PassError, Way};
pub(crate) use pass::{PASS_OPS_MAX, PASS_URLS_MAX};
pub use request::{EnrolRequest, open_request, parse_request, seal_request};

use crate::epoch::{Epoch, RoomKey};
use crate::hash;
use crate::id::WorkspaceId;
use crate::identity::DevicePublic;
use crate::secret::Secret;

/// What everybody who has a door's secret can do: meet in its room, read requests, seal answers.
#[derive(Debug, Clone)]
pub struct DoorKeys {
    /// Pre-shared key of request and answer.
    pub psk: Secret,
    /// X25519 secret that requests are sealed to.
    pub kem: Secret,
    /// Where to ask.
    pub room: RoomKey,
}

impl DoorKeys {
    /// Of a pass' secret.
    #[must_use]
    pub fn new(workspace: &WorkspaceId, secret: &Secret) -> Self {
        let derive = |label: &[u8]| hash::derive(&workspace.0, secret.expose(), &[label]);
        Self { psk: derive(b"enrol-psk"), kem: derive(b"enrol-kem"), room: RoomKey::from_seed(&derive(b"enrol-room")) }
    }

    /// The door of an epoch that opens a lobby: its members, and no others, can make a pass to it.
    #[must_use]
    pub fn of_epoch(epoch: &Epoch) -> Self {
        Self::new(epoch.workspace(), &epoch.door())
    }
}

/// The four words that both devices show when one lets the other in. They say which keys asked, at which door.
#[must_use]
pub fn pairing_words(door: &DoorKeys, device: &DevicePublic) -> String {
    crate::identity::four_words(&hash::h("pairing-words", &[&door.room.id.0, &device.sign, &device.kem]))
}
