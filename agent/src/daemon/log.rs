//! The daemon's own log: a file of bounded size beside the state, for people who look for a fault.
//!
//! Invariant: at most two files of 4 MiB; no key, link, token, file name or content is ever written to it. A line that
//! cannot be written, to a full disk or a terminal that is gone, is dropped and counted: a log stops nobody's work.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::durable;

/// A file is put away as `.old` at this size.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

struct Rotating {
    path: PathBuf,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    size: u64,
    /// Lines that could not be written.
    dropped: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Rotating> {
        let file = durable::append(path)?;
        let size = file.metadata()?.len();
        Ok(Rotating { path: path.to_path_buf(), open: Mutex::new(Open { file, size, dropped: 0 }) })
    }
}

impl Open {
    fn line(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.size >= FILE_BYTES_MAX {
            match std::fs::rename(path, path.with_extension("log.old")) {
                // It was put away before, and no new one could be made.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            (self.file, self.size) = (durable::append(path)?, 0);
        }
        if self.dropped > 0 {
            let gap = format!("{} lines are missing here: they could not be written\n", self.dropped);
            self.file.write_all(gap.as_bytes())?;
            self.size += gap.len() as u64;
            self.dropped = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

struct Line<'a>(&'a Rotating);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.line(&self.0.path, bytes).is_err() {
            open.dropped += 1;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, which may be gone: what it does not take is dropped.
struct Terminal;

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _hung_up = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

/// Begins logging to `path`, and to the terminal too if asked.
pub(crate) fn begin(path: &Path, filter: &str, terminal: bool) -> anyhow::Result<()> {
    // What the libraries below say is about addresses and names; only their warnings are kept.
    let filter = if filter.contains('=') || filter.contains(',') {
        filter.to_owned()
    } else {
        format!("warn,weft={filter},weft_agent={filter},weft_agent_core={filter},weft_relay={filter}")
    };
    let filter = EnvFilter::try_new(filter)?;
    if terminal {
        // Colours are for people at a terminal (https://no-color.org); in a file or a journal they are noise.
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
        logs.log_internal_errors(false).with_writer(|| Terminal).try_init()
    } else {
        let writer = Rotating::open(path)?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        log.log_internal_errors(false).with_writer(writer).try_init()
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full file is put away and the next line goes to a new one.
    #[test]
    fn the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let rotating = Rotating::open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..11 {
            rotating.make_writer().write_all(&line).unwrap();
        }
        let sizes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes <= 2 * FILE_BYTES_MAX + (1 << 20), "{sizes}");
        assert!(path.with_extension("log.old").exists());
    }

    /// A disk that takes nothing stops nobody: lines are dropped, and the first one that is written again says how many.
    #[test]
    fn what_cannot_be_written_is_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let rotating = Rotating::open(&path).unwrap();
        // The device that is always full.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut rotating.open.lock().unwrap().file, full);
        for _ in 0..3 {
            rotating.make_writer().write_all(b"a line\n").unwrap();
        }
        rotating.open.lock().unwrap().file = good;
        rotating.make_writer().write_all(b"another\n").unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("3 lines are missing") && written.ends_with("another\n"), "{written}");
    }

    /// A log that cannot be put away, or not be made anew, takes no more than its bound, and no one down with it.
    #[test]
    fn a_log_that_cannot_be_put_away_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let rotating = Rotating::open(&path).unwrap();
        std::fs::create_dir_all(path.with_extension("log.old").join("in the way")).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..9 {
            rotating.make_writer().write_all(&line).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= FILE_BYTES_MAX + (1 << 20));
    }
}
