//! Deterministic CBOR: one value, one encoding.
//!
//! Invariant: [`from_bytes`] accepts a byte string only if [`to_bytes`] of what it decoded gives the same bytes
//! again. Why: signatures and hashes are over received bytes, and two encodings of one value are the seed of
//! many attacks; minicbor by itself accepts trailing bytes, non-minimal integers and indefinite lengths.
//! Spec: docs/protocol.md#encoding, RFC 8949 section 4.2.1 (core deterministic encoding), arrays only, no maps.

use minicbor::decode::Error as CborError;
pub use minicbor::{Decoder, Encoder, data::Type};

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not CBOR, truncated, or of another shape than expected.
    #[error("malformed CBOR: {0}")]
    Malformed(&'static str),
    /// A value stands where the format allows none (a number out of range, an array of the wrong length).
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Longer than the format allows.
    #[error("{what} is {len} long, more than the {max} the format allows")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// Its length as it stood in the bytes.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// Another encoding of the value than the deterministic one, or bytes after its end.
    #[error("not the deterministic encoding")]
    NotDeterministic,
}

impl From<CborError> for DecodeError {
    fn from(error: CborError) -> Self {
        if error.is_end_of_input() {
            DecodeError::Malformed("truncated")
        } else if error.is_type_mismatch() {
            DecodeError::Malformed("unexpected type")
        } else {
            DecodeError::Malformed("not CBOR")
        }
    }
}

/// What a decoder gives.
pub type Decoded<T> = Result<T, DecodeError>;

/// Writes CBOR items into a growing buffer; writing to memory cannot fail.
pub struct Writer(Encoder<Vec<u8>>);

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// A `Vec` takes every byte it is given, so these results are always `Ok`.
fn written<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok(), "writing to memory cannot fail");
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self(Encoder::new(Vec::new()))
    }
    /// Begins an array of exactly `len` items.
    pub fn array(&mut self, len: usize) -> &mut Self {
        written(self.0.array(len as u64));
        self
    }
    /// An unsigned number.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        written(self.0.u64(value));
        self
    }
    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        written(self.0.bytes(value));
        self
    }
    /// A text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        written(self.0.str(value));
        self
    }
    /// A truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        written(self.0.bool(value));
        self
    }
    /// Nothing where something optional may stand.
    pub fn null(&mut self) -> &mut Self {
        written(self.0.null());
        self
    }
    /// One value with its own [`Wire`] shape.
    pub fn item<T: Wire>(&mut self, value: &T) -> &mut Self {
        value.encode(self);
        self
    }
    /// An array of values.
    pub fn list<T: Wire>(&mut self, values: &[T]) -> &mut Self {
        self.array(values.len());
        for value in values {
            value.encode(self);
        }
        self
    }
    /// The value, or null.
    pub fn optional<T: Wire>(&mut self, value: Option<&T>) -> &mut Self {
        match value {
            Some(value) => self.item(value),
            None => self.null(),
        }
    }
    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

/// Reads CBOR items from bytes that may be hostile.
pub struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }
    /// An array of exactly `len` items.
    pub fn array(&mut self, len: usize, what: &'static str) -> Decoded<()> {
        match self.0.array()? {
            Some(found) if found == len as u64 => Ok(()),
            _ => Err(DecodeError::Invalid(what)),
        }
    }
    /// The length of an array of at most `max` items. Never allocate by it alone.
    pub fn array_up_to(&mut self, max: usize, what: &'static str) -> Decoded<usize> {
        match self.0.array()? {
            Some(len) if len <= max as u64 => Ok(len as usize),
            Some(len) => Err(DecodeError::TooLong { what, len, max: max as u64 }),
            None => Err(DecodeError::NotDeterministic),
        }
    }
    /// An unsigned number.
    pub fn uint(&mut self) -> Decoded<u64> {
        Ok(self.0.u64()?)
    }
    /// An unsigned number of at most `max`.
    pub fn uint_up_to(&mut self, max: u64, what: &'static str) -> Decoded<u64> {
        match self.0.u64()? {
            value if value <= max => Ok(value),
            _ => Err(DecodeError::Invalid(what)),
        }
    }
    /// A byte string of at most `max` bytes, borrowed.
    pub fn bytes_up_to(&mut self, max: usize, what: &'static str) -> Decoded<&'a [u8]> {
        let bytes = self.0.bytes()?;
        if bytes.len() > max {
            return Err(DecodeError::TooLong { what, len: bytes.len() as u64, max: max as u64 });
        }
        Ok(bytes)
    }
    /// A byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self, what: &'static str) -> Decoded<[u8; N]> {
        self.0.bytes()?.try_into().map_err(|_| DecodeError::Invalid(what))
    }
    /// A text of at most `max` bytes, borrowed.
    pub fn text_up_to(&mut self, max: usize, what: &'static str) -> Decoded<&'a str> {
        let text = self.0.str()?;
        if text.len() > max {
            return Err(DecodeError::TooLong { what, len: text.len() as u64, max: max as u64 });
        }
        Ok(text)
    }
    /// A truth value.
    pub fn bool(&mut self) -> Decoded<bool> {
        Ok(self.0.bool()?)
    }
    /// Whether null stands next; consumes it if so.
    pub fn is_null(&mut self) -> Decoded<bool> {
        if self.0.datatype()? == Type::Null {
            self.0.null()?;
            return Ok(true);
        }
        Ok(false)
    }
    /// The type of what stands next.
    pub fn peek(&self) -> Decoded<Type> {
        Ok(self.0.datatype()?)
    }
    /// One value with its own [`Wire`] shape.
    pub fn item<T: Wire>(&mut self) -> Decoded<T> {
        T::decode(self)
    }
    /// An array of at most `max` values. Memory grows with what was really there, not with what a length claims.
    pub fn list<T: Wire>(&mut self, max: usize, what: &'static str) -> Decoded<Vec<T>> {
        let len = self.array_up_to(max, what)?;
        let mut values = Vec::with_capacity(len.min(64));
        for _ in 0..len {
            values.push(T::decode(self)?);
        }
        Ok(values)
    }
    /// A value, or null.
    pub fn optional<T: Wire>(&mut self) -> Decoded<Option<T>> {
        if self.is_null()? {
            return Ok(None);
        }
        T::decode(self).map(Some)
    }
    /// How many bytes were read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.0.position()
    }
}

/// A value with exactly one encoding.
pub trait Wire: Sized {
    /// Writes the value.
    fn encode(&self, writer: &mut Writer);
    /// Reads the value; need not check for the deterministic form, [`from_bytes`] does.
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self>;
}

/// The one encoding of `value`.
#[must_use]
pub fn to_bytes<T: Wire>(value: &T) -> Vec<u8> {
    let mut writer = Writer::new();
    value.encode(&mut writer);
    writer.into_bytes()
}

/// Decodes the whole of `bytes`, and refuses any but their one encoding.
pub fn from_bytes<T: Wire>(bytes: &[u8]) -> Decoded<T> {
    let value = T::decode(&mut Reader::new(bytes))?;
    if to_bytes(&value) != bytes {
        return Err(DecodeError::NotDeterministic);
    }
    Ok(value)
}

impl Wire for u64 {
    fn encode(&self, writer: &mut Writer) {
        writer.uint(*self);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.uint()
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.fixed("byte string of another length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_encoding() {
        assert_eq!(from_bytes::<u64>(&[0x17]), Ok(23));
        // 23 in two bytes, in three, and with a byte after its end.
        for other in [&[0x18, 0x17][..], &[0x19, 0x00, 0x17], &[0x17, 0x00]] {
            assert_eq!(from_bytes::<u64>(other), Err(DecodeError::NotDeterministic));
        }
        assert_eq!(from_bytes::<u64>(&[]), Err(DecodeError::Malformed("truncated")));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // An array that claims 2^32 items and holds none.
        let bytes = [0x9a, 0xff, 0xff, 0xff, 0xff];
        let error = Reader::new(&bytes).list::<u64>(1 << 33, "numbers").map(|_| ());
        assert_eq!(error, Err(DecodeError::Malformed("truncated")));
    }
}
