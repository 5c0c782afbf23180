//! Names of things: fixed-size byte strings that never mix, because each is its own type.
//!
//! Invariant: an id prints as lower-case hexadecimal, whole with `{}` and as its first four bytes with `{:?}`, so that
//! logs can name a room without giving it away. Spec: docs/protocol.md#ids.

/// Declares an id: a newtype over `[u8; N]` with ordering, CBOR, hexadecimal printing and parsing.
#[macro_export]
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// From bytes of any length; `None` if the length is another.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
            /// From `2 * LEN` hexadecimal digits.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                $crate::id::unhex::<$len>(text).map(Self)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("…)")
            }
        }

        impl $crate::cbor::Wire for $name {
            fn encode(&self, writer: &mut $crate::cbor::Writer) {
                writer.bytes(&self.0);
            }
            fn decode(reader: &mut $crate::cbor::Reader<'_>) -> $crate::cbor::Decoded<Self> {
                reader.fixed(stringify!($name)).map(Self)
            }
        }
    };
}

/// Parses `2 * N` lower- or upper-case hexadecimal digits.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).ok()?;
        if pair.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

byte_id!(
    /// What peers meet in at a relay: the hash of an Ed25519 key that only holders of the epoch can derive.
    RoomId,
    32
);

byte_id!(
    /// The public half of the Ed25519 key pair that a client makes fresh for every connection.
    ConnectionKey,
    32
);

byte_id!(
    /// A device as one relay sees it: 16 bytes that are stable for that relay and mean nothing at another.
    RelayDevice,
    16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_debug_abbreviates() {
        let id = RoomId([0xab; 32]);
        assert_eq!(RoomId::from_hex(&id.to_string()), Some(id));
        assert_eq!(format!("{id:?}"), "RoomId(abababab…)");
        assert_eq!(RoomId::from_hex("ab"), None);
        assert_eq!(unhex::<1>("+f"), None);
    }
}
