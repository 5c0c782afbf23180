//! Rows of the log that people read.
//!
//! Invariant: a row that this version of Weft does not know decodes to `None` and is skipped, never an error: the log
//! explains, nothing is decided by it. Spec: docs/files.md#log.

use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::disk::{PATH_BYTES_MAX, RelPath};
use crate::files::{LogEntry, LogEvent};

impl Wire for RelPath {
    fn encode(&self, writer: &mut Writer) {
        writer.text(self.as_str());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        Self::new(reader.text_up_to(PATH_BYTES_MAX, "path")?).ok_or(DecodeError::Invalid("path"))
    }
}

impl Wire for LogEntry {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.wall_ms).optional(self.device.as_ref());
        match &self.what {
            LogEvent::Created(path) => writer.array(2).uint(1).item(path),
            LogEvent::Edited(path) => writer.array(2).uint(2).item(path),
            LogEvent::Moved { from, to } => writer.array(3).uint(3).item(from).item(to),
            LogEvent::Deleted(path) => writer.array(2).uint(4).item(path),
            LogEvent::KeptEdited(path) => writer.array(2).uint(5).item(path),
            LogEvent::Clash { path, shown_as } => writer.array(3).uint(6).item(path).item(shown_as),
            LogEvent::StaleBuffer(path) => writer.array(2).uint(7).item(path),
            LogEvent::NotCarried { path, why } => writer.array(3).uint(8).text(path).text(why),
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "log entry")?;
        let (wall_ms, device) = (reader.uint()?, reader.optional()?);
        let len = reader.array_up_to(3, "log event")?;
        let what = match (reader.uint()?, len) {
            (1, 2) => LogEvent::Created(reader.item()?),
            (2, 2) => LogEvent::Edited(reader.item()?),
            (3, 3) => LogEvent::Moved { from: reader.item()?, to: reader.item()? },
            (4, 2) => LogEvent::Deleted(reader.item()?),
            (5, 2) => LogEvent::KeptEdited(reader.item()?),
            (6, 3) => LogEvent::Clash { path: reader.item()?, shown_as: reader.item()? },
            (7, 2) => LogEvent::StaleBuffer(reader.item()?),
            (8, 3) => LogEvent::NotCarried {
                path: reader.text_up_to(4 * PATH_BYTES_MAX, "path")?.to_owned(),
                why: reader.text_up_to(1024, "reason")?.to_owned(),
            },
            _ => return Err(DecodeError::Invalid("log event")),
        };
        Ok(Self { wall_ms, device, what })
    }
}

/// The value of a row of [`crate::store::Table::Log`].
#[must_use]
pub fn encode_log(entry: &LogEntry) -> Vec<u8> {
    cbor::to_bytes(entry)
}

/// The entry in a row of [`crate::store::Table::Log`]; `None` if this version of Weft does not know it.
#[must_use]
pub fn decode_log(value: &[u8]) -> Option<LogEntry> {
    cbor::from_bytes(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DeviceId;

    /// Every kind of entry comes back as it was written; an unknown one is skipped.
    #[test]
    fn entries_round_trip() {
        let path = || RelPath::new("a/b.md").unwrap();
        let events = [
            LogEvent::Created(path()),
            LogEvent::Edited(path()),
            LogEvent::Moved { from: path(), to: path() },
            LogEvent::Deleted(path()),
            LogEvent::KeptEdited(path()),
            LogEvent::Clash { path: path(), shown_as: path() },
            LogEvent::StaleBuffer(path()),
            LogEvent::NotCarried { path: "x".into(), why: "y".into() },
        ];
        for what in events {
            for device in [None, Some(DeviceId([1; 16]))] {
                let entry = LogEntry { wall_ms: 5, device, what: what.clone() };
                assert_eq!(decode_log(&encode_log(&entry)), Some(entry));
            }
        }
        assert_eq!(decode_log(&[0x83, 0x00, 0xf6, 0x82, 0x18, 0x63, 0x00]), None);
    }
}
