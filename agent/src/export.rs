//! What an export file holds, record by record, sealed with a passphrase in the format of age.
//!
//! A record is kind1 ‖ length4 (big-endian) ‖ bytes. In order: a header, the genesis, ops, epochs, pieces, envelopes, then
//! the files of the folder (a file is its head and its chunks), and the end. Invariant: whoever reads holds one record at a
//! time, of at most [`RECORD_BYTES_MAX`]; a file that was cut short has no end and is refused.
//! Spec: docs/sealing.md#export.

pub(crate) mod age;
pub(crate) mod unpack;

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// The layout of the records.
pub(crate) const FORMAT: u32 = 1;
/// Longest record, in bytes: an envelope or a piece is at most half of it.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a file in one record.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Header = 1,
    Genesis = 2,
    Op = 3,
    Epoch = 4,
    Piece = 5,
    Envelope = 6,
    File = 7,
    Chunk = 8,
    End = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [
            Kind::Header,
            Kind::Genesis,
            Kind::Op,
            Kind::Epoch,
            Kind::Piece,
            Kind::Envelope,
            Kind::File,
            Kind::Chunk,
            Kind::End,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The first record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) relays: Vec<String>,
}

/// Before a file's chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileHead {
    pub(crate) path: String,
    pub(crate) executable: bool,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Writes one record.
pub(crate) fn write_record(out: &mut dyn Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len as usize <= RECORD_BYTES_MAX);
    let len = len.ok_or_else(|| invalid("a record is longer than an export may hold"))?;
    out.write_all(&[kind as u8])?;
    out.write_all(&len.to_be_bytes())?;
    out.write_all(bytes)
}

/// Reads one record. A file that ends without an end is an error.
pub(crate) fn read_record(from: &mut dyn Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof { invalid("the export was cut short") } else { error }
    })?;
    let [kind, len @ ..] = head;
    let kind = Kind::from_byte(kind).ok_or_else(|| invalid("the export is of a newer weft: upgrade"))?;
    let len = u32::from_be_bytes(len) as usize;
    if len > RECORD_BYTES_MAX {
        return Err(invalid("the export is damaged: a record is too long"));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok((kind, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records come back in order; a stream that was cut anywhere, or claims a long record, is refused.
    #[test]
    fn records_come_back_whole_or_not_at_all() {
        let mut out = Vec::new();
        for (kind, bytes) in [(Kind::Header, &b"head"[..]), (Kind::Chunk, &[7; 1000]), (Kind::End, &[])] {
            write_record(&mut out, kind, bytes).unwrap();
        }
        let mut from = out.as_slice();
        assert_eq!(read_record(&mut from).unwrap(), (Kind::Header, b"head".to_vec()));
        assert_eq!(read_record(&mut from).unwrap(), (Kind::Chunk, vec![7; 1000]));
        assert_eq!(read_record(&mut from).unwrap(), (Kind::End, Vec::new()));
        assert!(read_record(&mut from).unwrap_err().to_string().contains("cut short"));
        for cut in [3, 8, 200] {
            let mut from = &out[..cut];
            assert!((0..3).any(|_| read_record(&mut from).is_err()), "{cut}");
        }
        assert!(write_record(&mut out, Kind::Chunk, &vec![0; RECORD_BYTES_MAX + 1]).is_err());
        assert!(read_record(&mut &[Kind::Chunk as u8, 0xff, 0xff, 0xff, 0xff][..]).is_err());
        assert!(read_record(&mut &[0, 0, 0, 0, 0][..]).unwrap_err().to_string().contains("upgrade"));
    }
}
