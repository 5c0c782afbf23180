//! Every way a relay refuses something, and how a connection ends.
//!
//! Invariant: numbers and names never change their meaning and are never used again; a number that this build does
//! not know decodes to [`Code::Unknown`] and keeps its number. Why: a client of today must survive a relay of next year.
//! Spec: docs/protocol.md#codes.

use crate::cbor::{Decoded, Reader, Wire, Writer};

/// Close codes that applications may define start here (RFC 6455 section 7.4.2).
const CLOSE_CODE_BASE: u16 = 4000;
/// Numbers fit into the range of private close codes.
const NUMBER_MAX: u16 = 999;

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $status:literal, $ends:literal; )*) => {
        /// Why something was refused, or why a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $( $(#[$doc])* $name, )*
            /// A code this build does not know, by its number (0 to 65,535).
            Unknown(u16),
        }

        impl Code {
            /// All known codes, by number.
            pub const ALL: &'static [Code] = &[ $( Code::$name, )* ];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $( Code::$name => $number, )* Code::Unknown(number) => number }
            }
            /// The code of a number; never fails.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number { $( $number => Code::$name, )* other => Code::Unknown(other) }
            }
            /// The stable name, for JSON, logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Code::$name => $text, )* Code::Unknown(_) => "unknown" }
            }
            /// The code of a name; `None` for a name this build does not know.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $text => Some(Code::$name), )* _ => None }
            }
            /// The HTTP status that an answer with this code has.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $( Code::$name => $status, )* Code::Unknown(_) => 400 }
            }
            /// Whether a frame with this code is the connection's last.
            #[must_use]
            pub const fn ends_connection(self) -> bool {
                match self { $( Code::$name => $ends, )* Code::Unknown(_) => false }
            }
        }
    };
}

codes! {
    /// Bytes that cannot be decoded, or a frame that does not belong there.
    Malformed = 1, "malformed", 400, true;
    /// A frame kind that this relay does not know.
    UnknownKind = 2, "unknown-kind", 400, false;
    /// No protocol version in common.
    UnsupportedVersion = 3, "unsupported-version", 400, true;
    /// Larger than the limit.
    TooLarge = 4, "too-large", 413, true;
    /// The handshake took too long.
    HandshakeTimeout = 5, "handshake-timeout", 408, true;
    /// Nothing came for longer than the idle deadline, a message did not end in time, or nothing could be written.
    Idle = 6, "idle", 408, true;
    /// The relay failed; not the client's fault.
    Internal = 7, "internal", 500, true;

    /// The JWT's or token's time is over; the answer carries the relay's time.
    Expired = 10, "expired", 401, true;
    /// The JWT's time has not come; the answer carries the relay's time.
    NotYetValid = 11, "not-yet-valid", 401, true;
    /// The JWT lives longer than allowed.
    LifetimeTooLong = 12, "lifetime-too-long", 401, true;
    /// Made for another relay, or the relay does not know itself by the name that was dialled.
    WrongAudience = 13, "wrong-audience", 401, true;
    /// The JWT was made for another method.
    WrongMethod = 14, "wrong-method", 401, true;
    /// The JWT's algorithm is not one of EdDSA, ES256K, ES256, or does not fit the DID's key.
    UnsupportedAlgorithm = 15, "unsupported-algorithm", 401, true;
    /// The DID does not exist, names no usable key, or is of a method this relay does not resolve.
    UnknownDid = 16, "unknown-did", 401, true;
    /// The DID could not be resolved now.
    DidUnreachable = 17, "did-unreachable", 503, true;
    /// A signature does not verify.
    BadSignature = 18, "bad-signature", 401, true;
    /// The JWT was used before.
    Replayed = 19, "replayed", 401, true;
    /// The relay's policy does not let this DID in.
    NotAllowed = 20, "not-allowed", 403, true;
    /// The relay token is missing, forged, used before, or bound to another connection key or audience.
    BadToken = 21, "bad-token", 401, true;

    /// The proof of the connection key does not verify.
    BadProof = 30, "bad-proof", 401, true;
    /// The session was not renewed in time.
    SessionExpired = 31, "session-expired", 401, true;
    /// The room's proof does not verify, or the room id is not the hash of the key.
    BadRoomProof = 32, "bad-room-proof", 403, false;
    /// Not in that room.
    NotInRoom = 33, "not-in-room", 404, false;
    /// No such peer in that room, or it has left.
    NoSuchPeer = 34, "no-such-peer", 404, false;
    /// The room holds as many peers as it may.
    RoomFull = 35, "room-full", 403, false;
    /// The connection is in as many rooms as it may.
    TooManyRooms = 36, "too-many-rooms", 403, false;
    /// A newer connection of the same DID and device took the place in the room.
    Replaced = 37, "replaced", 409, false;
    /// The client read too slowly and its queue overflowed: reconnect and reconcile.
    Resync = 38, "resync", 503, true;

    /// Too many requests; try again after the time given.
    RateLimited = 40, "rate-limited", 429, false;
    /// The relay is about to stop; try again after the time given, or elsewhere.
    Draining = 41, "draining", 503, true;
    /// The relay has as many connections as it may, in all or from this address.
    TooManyConnections = 42, "too-many-connections", 503, true;
    /// Nothing is served at that path or with that HTTP method.
    NotFound = 43, "not-found", 404, false;
}

impl Code {
    /// The WebSocket close code: 1009 and 1012 where RFC 6455 and its registry have one, else 4000 plus the number.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        const TOO_LARGE: u16 = Code::TooLarge.number();
        const DRAINING: u16 = Code::Draining.number();
        match self.number() {
            TOO_LARGE => 1009,
            DRAINING => 1012,
            number if number > NUMBER_MAX => CLOSE_CODE_BASE,
            number => CLOSE_CODE_BASE + number,
        }
    }

    /// What a WebSocket close code says; `None` for codes that are not ours.
    #[must_use]
    pub const fn from_close_code(close_code: u16) -> Option<Self> {
        match close_code {
            1009 => Some(Code::TooLarge),
            1012 => Some(Code::Draining),
            CLOSE_CODE_BASE..=4999 => Some(Code::from_number(close_code - CLOSE_CODE_BASE)),
            _ => None,
        }
    }
}

impl core::fmt::Display for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if let Code::Unknown(number) = self {
            return write!(f, "unknown({number})");
        }
        f.write_str(self.name())
    }
}

impl Wire for Code {
    fn encode(&self, writer: &mut Writer) {
        writer.uint(u64::from(self.number()));
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let number = reader.uint_up_to(u64::from(u16::MAX), "code")?;
        Ok(Self::from_number(number as u16))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_names_and_close_codes_are_unique_and_round_trip() {
        let mut numbers = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut closes = BTreeSet::new();
        for &code in Code::ALL {
            assert!(numbers.insert(code.number()) && names.insert(code.name()) && closes.insert(code.close_code()));
            assert!(code.number() <= NUMBER_MAX);
            assert_eq!(Code::from_number(code.number()), code);
            assert_eq!(Code::from_name(code.name()), Some(code));
            assert_eq!(Code::from_close_code(code.close_code()), Some(code));
        }
    }

    #[test]
    fn a_code_from_the_future_keeps_its_number() {
        let bytes = crate::cbor::to_bytes(&Code::Unknown(777));
        assert_eq!(crate::cbor::from_bytes::<Code>(&bytes), Ok(Code::Unknown(777)));
        assert_eq!(Code::from_close_code(4777), Some(Code::Unknown(777)));
        assert_eq!(Code::from_close_code(1000), None);
    }
}
