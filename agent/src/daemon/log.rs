//! The daemon's own log: a file of bounded size beside the state, for people who look for a fault.
//!
//! Invariant: at most two files of 4 MiB; no key, link, token, file name or content is ever written to it.

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
    open: Mutex<(File, u64)>,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Rotating> {
        let file = durable::append(path)?;
        let size = file.metadata()?.len();
        Ok(Rotating { path: path.to_path_buf(), open: Mutex::new((file, size)) })
    }
}

struct Line<'a>(&'a Rotating);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 >= FILE_BYTES_MAX {
            std::fs::rename(&self.0.path, self.0.path.with_extension("log.old"))?;
            *open = (durable::append(&self.0.path)?, 0);
        }
        let written = open.0.write(bytes)?;
        open.1 += written as u64;
        Ok(written)
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
        logs.with_writer(io::stderr).try_init()
    } else {
        let writer = Rotating::open(path)?;
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).try_init()
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
}
