//! An export file: records, sealed with a passphrase in the format of age.
//!
//! What the records are, and in which order: [`weft_agent_core::export`]. Invariant: whoever reads holds one record at a
//! time; a file that was cut short has no end and is refused. Spec: docs/sealing.md#export.

pub(crate) mod age;
pub(crate) mod unpack;

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use weft_agent_core::export::{HEAD_BYTES, Kind, parse_record_head, record_head};

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
    let head = record_head(kind, bytes.len());
    out.write_all(&head.ok_or_else(|| invalid("a record is longer than an export may hold"))?)?;
    out.write_all(bytes)
}

/// Reads one record. A file that ends without an end is an error.
pub(crate) fn read_record(from: &mut dyn Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof { invalid("the export was cut short") } else { error }
    })?;
    let (kind, len) = parse_record_head(head).map_err(|error| invalid(&error.to_string()))?;
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok((kind, bytes))
}

#[cfg(test)]
mod tests {
    use weft_agent_core::export::RECORD_BYTES_MAX;

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
