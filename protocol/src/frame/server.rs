//! Encoding of what a relay sends. Spec: docs/protocol.md#server-frames.

use bytes::Bytes;

use super::header::{begin, fields, finish, header, join, payload};
use super::{FrameError, Peer, PeerId, ServerFrame};
use crate::cbor::{Decoded, Reader, Wire, Writer};
use crate::id::RoomId;
use crate::limits::{JOINED_PEERS_MAX, MESSAGE_BYTES_MAX};

// Another range than the client's kinds, so that a frame sent back to its sender is never taken for an answer.
const CHALLENGE: u64 = 65;
const WELCOME: u64 = 66;
const JOINED: u64 = 67;
const PEER_JOINED: u64 = 68;
const PEER_LEFT: u64 = 69;
const DELIVER: u64 = 70;
const RESYNC: u64 = 71;
const REFRESHED: u64 = 72;
const RESTARTING: u64 = 73;
const ERROR: u64 = 74;
const PONG: u64 = 75;

impl Wire for Peer {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.peer).item(&self.device);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "peer")?;
        Ok(Peer { peer: reader.item()?, device: reader.item()? })
    }
}

fn deliver_header(room: &RoomId, from: &PeerId) -> Vec<u8> {
    header(DELIVER, 2, |w| {
        w.item(room).item(from);
    })
}

/// One `Deliver` frame for any number of receivers: the same bytes for each, made with one copy of the payload.
#[must_use]
pub fn deliver(room: &RoomId, from: &PeerId, payload: &[u8]) -> Bytes {
    join(&deliver_header(room, from), payload)
}

impl ServerFrame {
    fn header(&self) -> Vec<u8> {
        match self {
            ServerFrame::Challenge { nonce } => header(CHALLENGE, 1, |w| {
                w.bytes(nonce);
            }),
            ServerFrame::Welcome { session_ms, queue_bytes, frame_bytes_max, rooms_max } => header(WELCOME, 4, |w| {
                w.uint(*session_ms)
                    .uint(u64::from(*queue_bytes))
                    .uint(u64::from(*frame_bytes_max))
                    .uint(u64::from(*rooms_max));
            }),
            ServerFrame::Joined { room, you, peers } => header(JOINED, 3, |w| {
                w.item(room).item(you).list(peers);
            }),
            ServerFrame::PeerJoined { room, peer } => header(PEER_JOINED, 2, |w| {
                w.item(room).item(peer);
            }),
            ServerFrame::PeerLeft { room, peer } => header(PEER_LEFT, 2, |w| {
                w.item(room).item(peer);
            }),
            ServerFrame::Deliver { room, from, .. } => deliver_header(room, from),
            ServerFrame::Resync { room } => header(RESYNC, 1, |w| {
                w.item(room);
            }),
            ServerFrame::Refreshed { session_ms } => header(REFRESHED, 1, |w| {
                w.uint(*session_ms);
            }),
            ServerFrame::Restarting { after_ms } => header(RESTARTING, 1, |w| {
                w.uint(*after_ms);
            }),
            ServerFrame::Error { code, room, message, retry_after_ms } => header(ERROR, 4, |w| {
                w.item(code).optional(room.as_ref()).text(message).optional(retry_after_ms.as_ref());
            }),
            ServerFrame::Pong { number } => header(PONG, 1, |w| {
                w.uint(*number);
            }),
        }
    }

    fn payload(&self) -> Option<&Bytes> {
        if let ServerFrame::Deliver { payload, .. } = self { Some(payload) } else { None }
    }

    /// The one encoding, as one message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let header = self.header();
        match self.payload() {
            Some(payload) => join(&header, payload),
            None => Bytes::from(header),
        }
    }

    /// Decodes one message; a payload is a slice of it.
    ///
    /// # Errors
    /// [`FrameError`], naming an unknown kind, a frame that is too large, or what is wrong in the header.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let (mut r, found, kind) = begin(&bytes)?;
        let frame = match kind {
            CHALLENGE => {
                fields(found, 1)?;
                ServerFrame::Challenge { nonce: r.fixed("nonce")? }
            }
            WELCOME => {
                fields(found, 4)?;
                ServerFrame::Welcome {
                    session_ms: r.uint()?,
                    queue_bytes: small(&mut r, "queue bytes")?,
                    frame_bytes_max: small(&mut r, "frame bytes")?,
                    rooms_max: small(&mut r, "rooms")?,
                }
            }
            JOINED => {
                fields(found, 3)?;
                ServerFrame::Joined { room: r.item()?, you: r.item()?, peers: r.list(JOINED_PEERS_MAX, "peers")? }
            }
            PEER_JOINED => {
                fields(found, 2)?;
                ServerFrame::PeerJoined { room: r.item()?, peer: r.item()? }
            }
            PEER_LEFT => {
                fields(found, 2)?;
                ServerFrame::PeerLeft { room: r.item()?, peer: r.item()? }
            }
            DELIVER => {
                fields(found, 2)?;
                let (room, from) = (r.item()?, r.item()?);
                ServerFrame::Deliver { room, from, payload: payload(&bytes, r.position())? }
            }
            RESYNC => {
                fields(found, 1)?;
                ServerFrame::Resync { room: r.item()? }
            }
            REFRESHED => {
                fields(found, 1)?;
                ServerFrame::Refreshed { session_ms: r.uint()? }
            }
            RESTARTING => {
                fields(found, 1)?;
                ServerFrame::Restarting { after_ms: r.uint()? }
            }
            ERROR => {
                fields(found, 4)?;
                ServerFrame::Error {
                    code: r.item()?,
                    room: r.optional()?,
                    message: r.text_up_to(MESSAGE_BYTES_MAX, "message")?.to_owned(),
                    retry_after_ms: r.optional()?,
                }
            }
            PONG => {
                fields(found, 1)?;
                ServerFrame::Pong { number: r.uint()? }
            }
            other => return Err(FrameError::UnknownKind(other)),
        };
        finish(&bytes, &frame.header(), frame.payload().map(Bytes::len))?;
        Ok(frame)
    }
}

fn small(reader: &mut Reader<'_>, what: &'static str) -> Decoded<u32> {
    Ok(reader.uint_up_to(u64::from(u32::MAX), what)? as u32)
}
