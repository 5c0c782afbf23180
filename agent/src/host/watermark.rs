//! The highest place on our chain that may have been sealed, kept outside the database.
//!
//! Invariant: durable before the next input is handled, never lowered. Why: a database restored from a backup would
//! otherwise seal other content under a number that peers already know.

use std::io;
use std::path::{Path, PathBuf};

use weft_agent_core::setup::Watermark;

use crate::durable;

/// The file of one workspace.
pub(crate) struct WatermarkFile {
    path: PathBuf,
    last: Watermark,
}

impl WatermarkFile {
    /// Reads it; none is zero. One that cannot be read is an error: zero in its place would allow a second sealing.
    pub(crate) fn open(path: &Path) -> io::Result<WatermarkFile> {
        let last = match durable::read_if_there(path)? {
            None => Watermark::default(),
            Some(bytes) => parse(&bytes).ok_or_else(|| {
                io::Error::other(format!(
                    "{} is damaged; restore it, or leave and join the workspace again",
                    path.display()
                ))
            })?,
        };
        Ok(WatermarkFile { path: path.to_path_buf(), last })
    }
    pub(crate) fn last(&self) -> Watermark {
        self.last
    }
    /// Raises it, durably.
    pub(crate) fn raise(&mut self, to: Watermark) -> io::Result<()> {
        if to <= self.last {
            return Ok(());
        }
        durable::replace(&self.path, format!("{} {}\n", to.incarnation, to.seq).as_bytes())?;
        self.last = to;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Option<Watermark> {
    let (incarnation, seq) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
    Some(Watermark { incarnation: incarnation.parse().ok()?, seq: seq.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It only rises, survives, and a damaged one is not taken for none.
    #[test]
    fn rises_survives_and_is_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermarks/w");
        let mut file = WatermarkFile::open(&path).unwrap();
        assert_eq!(file.last(), Watermark::default());
        file.raise(Watermark { incarnation: 2, seq: 9 }).unwrap();
        file.raise(Watermark { incarnation: 2, seq: 3 }).unwrap();
        assert_eq!(WatermarkFile::open(&path).unwrap().last(), Watermark { incarnation: 2, seq: 9 });
        std::fs::write(&path, "2").unwrap();
        assert!(WatermarkFile::open(&path).is_err());
    }
}
