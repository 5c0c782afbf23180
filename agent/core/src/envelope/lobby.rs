//! In a lobby: ver, suite, class 3, nonce (24) ‖ ciphertext under a message key of the lobby's seal key, padded.
//!
//! Ex-members can read a lobby: only what names nobody and proves itself passes there (asks, key packets, notices).
//! Spec: docs/sealing.md#lobby.

use rand_core::CryptoRng;

use super::{BODY_BYTES_MAX, Class, ENVELOPE_BYTES_MAX, PREAMBLE_LEN, Sealed};
use crate::cipher::{self, TAG_LEN};
use crate::epoch::Lobby;
use crate::hash;
use crate::id::WorkspaceId;
use crate::padding::{is_padded_len, padded_len};
use crate::payload;
use crate::secret::random_bytes;

/// preamble and nonce.
const HEAD_LEN: usize = PREAMBLE_LEN + 24;

/// Seals a message for a lobby. `None` if it does not fit 512 KiB.
#[must_use]
pub fn seal_lobby(workspace: &WorkspaceId, lobby: &Lobby, message: &[u8], rng: &mut dyn CryptoRng) -> Option<Sealed> {
    let random = random_bytes::<24>(rng);
    let mut nonce = [0; 24];
    let derived = hash::k(lobby.seal.expose(), &[b"nonce", &random, message]);
    nonce.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
    let mut bytes = Class::Lobby.preamble().to_vec();
    bytes.extend_from_slice(&nonce);
    let mut packed = payload::pack(message, true);
    let total = padded_len(HEAD_LEN + TAG_LEN + packed.len());
    if total > ENVELOPE_BYTES_MAX || message.len() > BODY_BYTES_MAX {
        return None;
    }
    packed.resize(total - HEAD_LEN - TAG_LEN, 0);
    let aad = [bytes.as_slice(), &workspace.0].concat();
    let (key, _) = hash::message_key(&lobby.seal, &nonce);
    bytes.extend_from_slice(&cipher::seal_once(&key, &aad, packed));
    Some(Sealed::new(bytes))
}

/// Opens a message of a lobby; `None` if it is not one of this lobby's.
#[must_use]
pub fn open_lobby(workspace: &WorkspaceId, lobby: &Lobby, bytes: &[u8]) -> Option<Vec<u8>> {
    let shaped = Class::of(bytes) == Some(Class::Lobby) && is_padded_len(bytes.len());
    if !shaped || bytes.len() > ENVELOPE_BYTES_MAX {
        return None;
    }
    let (head, sealed) = bytes.split_at_checked(HEAD_LEN)?;
    let nonce: [u8; 24] = head.get(PREAMBLE_LEN..)?.try_into().ok()?;
    let (key, _) = hash::message_key(&lobby.seal, &nonce);
    let packed = cipher::open_once(&key, &[head, &workspace.0].concat(), sealed)?;
    payload::unpack(&packed, BODY_BYTES_MAX).ok()
}
