//! What one relay tells the others about a room: frames to pass on, and who is with it.
//!
//! Layout: `CBOR [kind, node, life, number, field...]`, and the payload behind it, as in frames. The header of a frame takes at
//! most 64 bytes, so that the largest payload fits into a message of 1 MiB, which is what NATS allows by default.
//! Spec: docs/protocol.md#several-relays.

use bytes::{BufMut, Bytes, BytesMut};
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};
use weft_protocol::frame::{Peer, PeerId};
use weft_protocol::id::RelayDevice;
use weft_protocol::limits::{JOINED_PEERS_MAX, PAYLOAD_BYTES_MAX};

const FRAME: u64 = 1;
const FRAME_TO: u64 = 2;
const PEERS: u64 = 3;

/// One life of a relay process; drawn at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 8]);

/// A peer at another relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemotePeer {
    /// Its name and device.
    pub peer: Peer,
    /// The first half of its DID's hash: by it a device that came in at two relays is noticed.
    pub identity: [u8; 16],
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A frame for everybody in the room, or for one.
    Frame {
        /// Who sent it.
        from: PeerId,
        /// For whom, if not for all.
        to: Option<PeerId>,
        /// What is passed on.
        payload: Bytes,
    },
    /// Who is with the sender now: all of them.
    Peers {
        /// In order of arrival.
        peers: Vec<RemotePeer>,
        /// The one that has just come in, if that is why this is said.
        entered: Option<PeerId>,
        /// Asks the others to say theirs.
        hello: bool,
    },
}

/// A numbered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose.
    pub node: NodeId,
    /// Which time that this relay has been in the room; grows.
    pub life: u32,
    /// Which message of that life, from 0.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

/// Bytes that are no message; relays of another version, or something else on the subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message between relays: {0}")]
pub struct MessageError(#[from] DecodeError);

impl Wire for RemotePeer {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.peer.peer).item(&self.peer.device).bytes(&self.identity);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "remote peer")?;
        let (peer, device): (PeerId, RelayDevice) = (reader.item()?, reader.item()?);
        Ok(Self { peer: Peer { peer, device }, identity: reader.fixed("identity")? })
    }
}

impl Message {
    fn header(&self) -> Vec<u8> {
        let (kind, fields) = match &self.body {
            Body::Frame { to: None, .. } => (FRAME, 1),
            Body::Frame { to: Some(_), .. } => (FRAME_TO, 2),
            Body::Peers { .. } => (PEERS, 3),
        };
        let mut w = Writer::new();
        w.array(4 + fields).uint(kind).bytes(&self.node.0).uint(u64::from(self.life)).uint(self.number);
        match &self.body {
            Body::Frame { from, to, .. } => {
                w.item(from);
                if let Some(to) = to {
                    w.item(to);
                }
            }
            Body::Peers { peers, entered, hello } => {
                w.list(peers).optional(entered.as_ref()).uint(u64::from(*hello));
            }
        }
        w.into_bytes()
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let header = self.header();
        let payload = if let Body::Frame { payload, .. } = &self.body { payload.as_ref() } else { &[] };
        let mut out = BytesMut::with_capacity(header.len() + payload.len());
        out.put_slice(&header);
        out.put_slice(payload);
        out.freeze()
    }

    /// From bytes; a payload is a slice of them.
    ///
    /// # Errors
    /// [`MessageError`] for everything but the one encoding.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let mut r = Reader::new(bytes);
        let items = r.array_up_to(8, "message")?;
        let kind = r.uint()?;
        let (node, life) = (NodeId(r.fixed("node")?), r.uint_up_to(u64::from(u32::MAX), "life")? as u32);
        let number = r.uint()?;
        let body = match (kind, items) {
            (FRAME, 5) | (FRAME_TO, 6) => {
                let from = r.item()?;
                let to = if kind == FRAME_TO { Some(r.item()?) } else { None };
                Body::Frame { from, to, payload: bytes.slice(r.position()..) }
            }
            (PEERS, 7) => {
                let peers = r.list(JOINED_PEERS_MAX, "peers")?;
                let entered = r.optional()?;
                Body::Peers { peers, entered, hello: r.uint_up_to(1, "hello")? == 1 }
            }
            _ => return Err(DecodeError::Invalid("kind of message").into()),
        };
        let message = Self { node, life, number, body };
        let behind = bytes.strip_prefix(message.header().as_slice()).ok_or(DecodeError::NotDeterministic)?;
        let payload_len = if let Body::Frame { payload, .. } = &message.body { payload.len() } else { 0 };
        if behind.len() != payload_len || payload_len > PAYLOAD_BYTES_MAX {
            return Err(DecodeError::Invalid("length of a message").into());
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_protocol::limits::FRAME_BYTES_MAX;

    use super::*;

    fn remote(seed: u8) -> RemotePeer {
        let peer = Peer { peer: PeerId([seed; 16]), device: RelayDevice([seed; 16]) };
        RemotePeer { peer, identity: [seed; 16] }
    }

    #[test]
    fn every_message_round_trips_and_the_largest_fits_into_one_of_nats() {
        let largest = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
        let (from, to) = (PeerId([1; 16]), Some(PeerId([2; 16])));
        for body in [
            Body::Frame { from, to: None, payload: Bytes::new() },
            Body::Frame { from, to, payload: largest },
            Body::Peers { peers: vec![], entered: None, hello: true },
            Body::Peers { peers: vec![remote(1), remote(2)], entered: Some(from), hello: false },
        ] {
            let message = Message { node: NodeId([9; 8]), life: u32::MAX, number: u64::MAX, body };
            let bytes = message.encode();
            assert!(bytes.len() <= FRAME_BYTES_MAX);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let name = || any::<[u8; 16]>().prop_map(PeerId);
        let there = any::<([u8; 16], [u8; 16], [u8; 16])>().prop_map(|(peer, device, identity)| RemotePeer {
            peer: Peer { peer: PeerId(peer), device: RelayDevice(device) },
            identity,
        });
        let payload = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let frame = (name(), proptest::option::of(name()), payload);
        let peers = (proptest::collection::vec(there, 0..60), proptest::option::of(name()), any::<bool>());
        prop_oneof![
            frame.prop_map(|(from, to, payload)| Body::Frame { from, to, payload }),
            peers.prop_map(|(peers, entered, hello)| Body::Peers { peers, entered, hello }),
        ]
    }

    proptest! {
        /// Whatever a relay says, another one reads the same, and reads nothing if a byte is missing at the end of a list.
        #[test]
        fn what_is_said_is_what_is_read(node in any::<[u8; 8]>(), life in any::<u32>(), number in any::<u64>(), body in any_body()) {
            let message = Message { node: NodeId(node), life, number, body };
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes), Ok(message.clone()));
            if matches!(message.body, Body::Peers { .. }) {
                prop_assert!(Message::decode(&bytes.slice(..bytes.len() - 1)).is_err());
            }
        }

        /// Bytes from elsewhere give an error or the value of which they are the one encoding.
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0usize..90, byte in any::<u8>()) {
            let body = Body::Peers { peers: vec![remote(1)], entered: Some(PeerId([3; 16])), hello: false };
            let mut bytes = Message { node: NodeId([9; 8]), life: 3, number: 70_000, body }.encode().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let bytes = Bytes::from(bytes);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
