//! What passes in a lobby: a question that names nobody, and the key packet that answers it.
//!
//! Ask: [0, nonce16, epoch16], the epoch that whoever asks seals under. Keys: [1, key packet]. Invariant: neither says who
//! speaks, and a key packet opens only for those it is for. Why: those who were removed can read a lobby for ever.
//! Spec: docs/sealing.md#lobby.

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::EpochId;

/// Longest key packet that is said in a lobby, in bytes: 2,048 devices and their roots.
const PACKET_BYTES_MAX: usize = 480 * 1024;

/// A message of a lobby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LobbyMessage {
    /// Somebody missed keys.
    Ask {
        /// Spreads the answers in time.
        nonce: [u8; 16],
        /// What it seals under; zeros if it has none.
        epoch: EpochId,
    },
    /// The present epoch, for everybody who belongs.
    Keys(Bytes),
}

impl Wire for LobbyMessage {
    fn encode(&self, writer: &mut Writer) {
        match self {
            LobbyMessage::Ask { nonce, epoch } => writer.array(3).uint(0).bytes(nonce).item(epoch),
            LobbyMessage::Keys(packet) => writer.array(2).uint(1).bytes(packet),
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let fields = reader.array_up_to(3, "lobby message")?;
        match (reader.uint()?, fields) {
            (0, 3) => Ok(LobbyMessage::Ask { nonce: reader.item()?, epoch: reader.item()? }),
            (1, 2) => {
                Ok(LobbyMessage::Keys(Bytes::copy_from_slice(reader.bytes_up_to(PACKET_BYTES_MAX, "key packet")?)))
            }
            _ => Err(DecodeError::Invalid("lobby message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_protocol::cbor::{from_bytes, to_bytes};

    /// Both come back; another shape, or a byte more, does not.
    #[test]
    fn lobby_messages_round_trip() {
        let ask = LobbyMessage::Ask { nonce: [1; 16], epoch: EpochId([2; 16]) };
        for message in [ask, LobbyMessage::Keys(Bytes::from_static(b"packet"))] {
            let mut bytes = to_bytes(&message);
            assert_eq!(from_bytes(&bytes), Ok(message));
            bytes.push(0);
            assert!(from_bytes::<LobbyMessage>(&bytes).is_err());
        }
        assert!(from_bytes::<LobbyMessage>(&[0x82, 0, 0x41, 1]).is_err());
        assert!(from_bytes::<LobbyMessage>(&[0x82, 2, 0x41, 1]).is_err());
    }
}
