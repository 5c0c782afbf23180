//! What peers say to each other about what they hold: the bodies of ephemeral envelopes.
//!
//! Invariant: none of these changes what is true; losing, repeating or reordering them costs time only.
//! Spec: docs/sync.md#messages.

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use crate::frontier::{Frontier, Range};
use crate::id::{EpochId, PieceId};

/// A frontier of more chains than this travels only in answers; elsewhere its digest stands for it.
pub const FRONTIER_INLINE_CHAINS_MAX: usize = 256;
/// Most ranges in one pull.
pub const RANGES_PER_PULL_MAX: usize = 4096;
/// Most pieces asked for at once.
pub const PIECES_PER_WANT_MAX: usize = 64;
/// Most addresses or relays a beacon names.
pub const ADDRESSES_MAX: usize = 16;
/// Longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Longest envelope that is offered, in bytes: with what stands around it, it fits an envelope.
pub const OFFER_BYTES_MAX: usize = 448 * 1024;

/// What a device says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The epoch it seals under, if it has one.
    pub epoch: EpochId,
    /// Digest of its frontier.
    pub digest: [u8; 32],
    /// The frontier, unless it is long.
    pub frontier: Option<Frontier>,
    /// Bytes of large files that it lacks: of versions that its files hold now, and that are whole neither in its folder
    /// nor in its store. At least 1 while it has not judged all that it holds, and so cannot tell.
    pub lacks: u64,
}

/// One relay of the workspace's list: last writer wins, by (stamp, present).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayEntry {
    /// Its URL.
    pub url: String,
    /// Wall time of the last change, in milliseconds.
    pub stamp_ms: u64,
    /// Whether it is to be used.
    pub present: bool,
}

/// An ephemeral message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Where I am, and how to reach me.
    Beacon {
        /// What I hold.
        statement: Statement,
        /// My LAN addresses.
        lan: Vec<String>,
        /// The relays I know of.
        relays: Vec<RelayEntry>,
    },
    /// Who holds more than I, or less?
    Query {
        /// Names the question.
        nonce: [u8; 16],
        /// What I hold.
        statement: Statement,
        /// Everybody is to answer, whatever others said.
        all: bool,
    },
    /// To the asker.
    Answer {
        /// The question's.
        nonce: [u8; 16],
        /// What I hold; the frontier is always there.
        statement: Statement,
    },
    /// I have what I asked for; no more answers.
    Enough {
        /// The question's.
        nonce: [u8; 16],
    },
    /// Send me these, up to `credit` bytes; or, with no ranges, go on with what I asked under this nonce.
    Credit {
        /// Names the pull.
        nonce: [u8; 16],
        /// What is asked for.
        ranges: Vec<Range>,
        /// How many more bytes may be sent.
        credit: u64,
    },
    /// Send me these pieces.
    Want {
        /// Names the request.
        nonce: [u8; 16],
        /// The pieces.
        pieces: Vec<PieceId>,
    },
    /// Of the pieces you want I do not have these.
    Have {
        /// The request's.
        nonce: [u8; 16],
        /// The pieces that are not here.
        absent: Vec<PieceId>,
    },
    /// A key packet, for whoever finds a slot in it.
    KeyPacket(Bytes),
    /// A checkpoint's sealed envelope, for whoever lacks much of what it covers.
    Offer(Bytes),
}

impl Wire for Statement {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).item(&self.epoch).item(&self.digest).optional(self.frontier.as_ref()).uint(self.lacks);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "statement")?;
        let (epoch, digest, frontier) = (reader.item()?, reader.item()?, reader.optional()?);
        Ok(Self { epoch, digest, frontier, lacks: reader.uint()? })
    }
}

impl Wire for RelayEntry {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).text(&self.url).uint(self.stamp_ms).bool(self.present);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "relay")?;
        let url = reader.text_up_to(ADDRESS_BYTES_MAX, "relay URL")?.to_owned();
        Ok(Self { url, stamp_ms: reader.uint()?, present: reader.bool()? })
    }
}

/// The kinds of messages, as they stand in envelope headers.
pub mod kind {
    /// [`super::Message::Beacon`].
    pub const BEACON: u8 = 17;
    /// [`super::Message::Query`].
    pub const QUERY: u8 = 18;
    /// [`super::Message::Answer`].
    pub const ANSWER: u8 = 19;
    /// [`super::Message::Enough`].
    pub const ENOUGH: u8 = 20;
    /// [`super::Message::Credit`].
    pub const CREDIT: u8 = 21;
    /// [`super::Message::Want`].
    pub const WANT: u8 = 22;
    /// [`super::Message::Have`].
    pub const HAVE: u8 = 23;
    /// [`super::Message::KeyPacket`].
    pub const KEY_PACKET: u8 = 24;
    /// [`super::Message::Offer`].
    pub const OFFER: u8 = 25;
}

impl Message {
    /// Its kind, as it stands in the envelope's header.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Message::Beacon { .. } => kind::BEACON,
            Message::Query { .. } => kind::QUERY,
            Message::Answer { .. } => kind::ANSWER,
            Message::Enough { .. } => kind::ENOUGH,
            Message::Credit { .. } => kind::CREDIT,
            Message::Want { .. } => kind::WANT,
            Message::Have { .. } => kind::HAVE,
            Message::KeyPacket(_) => kind::KEY_PACKET,
            Message::Offer(_) => kind::OFFER,
        }
    }

    /// Its body.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Message::Beacon { statement, lan, relays } => {
                w.array(3).item(statement).array(lan.len());
                for address in lan {
                    w.text(address);
                }
                w.list(relays);
            }
            Message::Query { nonce, statement, all } => {
                w.array(3).item(nonce).item(statement).bool(*all);
            }
            Message::Answer { nonce, statement } => {
                w.array(2).item(nonce).item(statement);
            }
            Message::Enough { nonce } => {
                w.array(1).item(nonce);
            }
            Message::Credit { nonce, ranges, credit } => {
                w.array(3).item(nonce).list(ranges).uint(*credit);
            }
            Message::Want { nonce, pieces } | Message::Have { nonce, absent: pieces } => {
                w.array(2).item(nonce).list(pieces);
            }
            Message::KeyPacket(packet) | Message::Offer(packet) => {
                w.array(1).bytes(packet);
            }
        }
        w.into_bytes()
    }

    /// Decodes the body of an envelope of this kind; `None` if the kind is none of these.
    pub fn from_body(message_kind: u8, body: &[u8]) -> Option<Decoded<Self>> {
        let decoded = match message_kind {
            kind::BEACON => Self::beacon(&mut Reader::new(body)),
            kind::QUERY => Self::query(&mut Reader::new(body)),
            kind::ANSWER => Self::answer(&mut Reader::new(body)),
            kind::ENOUGH => Self::enough(&mut Reader::new(body)),
            kind::CREDIT => Self::credit(&mut Reader::new(body)),
            kind::WANT => Self::pieces(&mut Reader::new(body)).map(|(nonce, pieces)| Message::Want { nonce, pieces }),
            kind::HAVE => Self::pieces(&mut Reader::new(body)).map(|(nonce, absent)| Message::Have { nonce, absent }),
            kind::KEY_PACKET => Self::key_packet(&mut Reader::new(body)),
            kind::OFFER => Self::offer(&mut Reader::new(body)),
            _ => return None,
        };
        Some(decoded.and_then(
            |message| {
                if message.to_body() == body { Ok(message) } else { Err(DecodeError::NotDeterministic) }
            },
        ))
    }

    fn beacon(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(3, "beacon")?;
        let statement = r.item()?;
        let mut lan = Vec::new();
        for _ in 0..r.array_up_to(ADDRESSES_MAX, "LAN addresses")? {
            lan.push(r.text_up_to(ADDRESS_BYTES_MAX, "LAN address")?.to_owned());
        }
        Ok(Message::Beacon { statement, lan, relays: r.list(ADDRESSES_MAX, "relays")? })
    }
    fn query(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(3, "query")?;
        Ok(Message::Query { nonce: r.item()?, statement: r.item()?, all: r.bool()? })
    }
    fn answer(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(2, "answer")?;
        Ok(Message::Answer { nonce: r.item()?, statement: r.item()? })
    }
    fn enough(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(1, "enough")?;
        Ok(Message::Enough { nonce: r.item()? })
    }
    fn credit(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(3, "credit")?;
        let nonce = r.item()?;
        Ok(Message::Credit { nonce, ranges: r.list(RANGES_PER_PULL_MAX, "ranges")?, credit: r.uint()? })
    }
    fn pieces(r: &mut Reader<'_>) -> Decoded<([u8; 16], Vec<PieceId>)> {
        r.array(2, "pieces")?;
        Ok((r.item()?, r.list(PIECES_PER_WANT_MAX, "pieces")?))
    }
    fn key_packet(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(1, "key packet")?;
        Ok(Message::KeyPacket(Bytes::copy_from_slice(r.bytes_up_to(256 * 1024, "key packet")?)))
    }
    fn offer(r: &mut Reader<'_>) -> Decoded<Self> {
        r.array(1, "offer")?;
        Ok(Message::Offer(Bytes::copy_from_slice(r.bytes_up_to(OFFER_BYTES_MAX, "offer")?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_round_trips_and_none_takes_trailing_bytes() {
        let frontier = Some(Frontier::default());
        let statement = Statement { epoch: EpochId([1; 16]), digest: [2; 32], frontier, lacks: 300 };
        let messages = [
            Message::Beacon {
                statement: statement.clone(),
                lan: vec!["ws://127.0.0.1:1".into()],
                relays: vec![RelayEntry { url: "ws://relay".into(), stamp_ms: 5, present: true }],
            },
            Message::Query { nonce: [3; 16], statement: statement.clone(), all: true },
            Message::Answer { nonce: [3; 16], statement },
            Message::Enough { nonce: [3; 16] },
            Message::Credit { nonce: [3; 16], ranges: vec![], credit: 7 },
            Message::Want { nonce: [3; 16], pieces: vec![PieceId([4; 32])] },
            Message::Have { nonce: [3; 16], absent: vec![] },
            Message::KeyPacket(Bytes::from_static(b"packet")),
            Message::Offer(Bytes::from_static(b"envelope")),
        ];
        for message in messages {
            let mut body = message.to_body();
            assert_eq!(Message::from_body(message.kind(), &body), Some(Ok(message.clone())));
            body.push(0);
            assert_eq!(Message::from_body(message.kind(), &body), Some(Err(DecodeError::NotDeterministic)));
        }
        assert_eq!(Message::from_body(1, &[]), None);
    }
}
