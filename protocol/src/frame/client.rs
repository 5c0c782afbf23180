//! Encoding of what a client sends. Spec: docs/protocol.md#client-frames.

use bytes::Bytes;

use super::header::{begin, fields, finish, header, join, payload};
use super::{ClientFrame, FrameError};
use crate::limits::{AUDIENCE_BYTES_MAX, TOKEN_BYTES_MAX};

const PROVE: u64 = 1;
const JOIN: u64 = 2;
const LEAVE: u64 = 3;
const PUBLISH: u64 = 4;
const SEND: u64 = 5;
const REFRESH: u64 = 6;
const PING: u64 = 7;

impl ClientFrame {
    fn header(&self) -> Vec<u8> {
        match self {
            ClientFrame::Prove { audience, connection, signature } => header(PROVE, 3, |w| {
                w.text(audience).item(connection).bytes(signature);
            }),
            ClientFrame::Join { room, key, proof } => header(JOIN, 3, |w| {
                w.item(room).bytes(key).bytes(proof);
            }),
            ClientFrame::Leave { room } => header(LEAVE, 1, |w| {
                w.item(room);
            }),
            ClientFrame::Publish { room, .. } => header(PUBLISH, 1, |w| {
                w.item(room);
            }),
            ClientFrame::Send { room, to, .. } => header(SEND, 2, |w| {
                w.item(room).item(to);
            }),
            ClientFrame::Refresh { token } => header(REFRESH, 1, |w| {
                w.text(token);
            }),
            ClientFrame::Ping { number } => header(PING, 1, |w| {
                w.uint(*number);
            }),
        }
    }

    fn payload(&self) -> Option<&Bytes> {
        match self {
            ClientFrame::Publish { payload, .. } | ClientFrame::Send { payload, .. } => Some(payload),
            ClientFrame::Prove { .. }
            | ClientFrame::Join { .. }
            | ClientFrame::Leave { .. }
            | ClientFrame::Refresh { .. }
            | ClientFrame::Ping { .. } => None,
        }
    }

    /// The one encoding, as one message. Whoever sends keeps payloads within
    /// [`PAYLOAD_BYTES_MAX`](crate::limits::PAYLOAD_BYTES_MAX), or the relay refuses.
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
            PROVE => {
                fields(found, 3)?;
                ClientFrame::Prove {
                    audience: r.text_up_to(AUDIENCE_BYTES_MAX, "audience")?.to_owned(),
                    connection: r.item()?,
                    signature: r.fixed("signature")?,
                }
            }
            JOIN => {
                fields(found, 3)?;
                ClientFrame::Join { room: r.item()?, key: r.fixed("room key")?, proof: r.fixed("room proof")? }
            }
            LEAVE => {
                fields(found, 1)?;
                ClientFrame::Leave { room: r.item()? }
            }
            PUBLISH => {
                fields(found, 1)?;
                let room = r.item()?;
                ClientFrame::Publish { room, payload: payload(&bytes, r.position())? }
            }
            SEND => {
                fields(found, 2)?;
                let (room, to) = (r.item()?, r.item()?);
                ClientFrame::Send { room, to, payload: payload(&bytes, r.position())? }
            }
            REFRESH => {
                fields(found, 1)?;
                ClientFrame::Refresh { token: r.text_up_to(TOKEN_BYTES_MAX, "token")?.to_owned() }
            }
            PING => {
                fields(found, 1)?;
                ClientFrame::Ping { number: r.uint()? }
            }
            other => return Err(FrameError::UnknownKind(other)),
        };
        finish(&bytes, &frame.header(), frame.payload().map(Bytes::len))?;
        Ok(frame)
    }
}
