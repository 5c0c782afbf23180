//! The ways in which editors save a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// How a program puts a new text into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Editor {
    /// Truncates the file, then writes it (nano, many scripts).
    TruncateAndWrite,
    /// Overwrites from the start, then cuts the rest off (some office programs).
    WriteInPlace,
    /// Writes a temporary file beside it and renames it over (Emacs, VS Code on some systems, most tools).
    AtomicRename,
    /// Vim with `backupcopy=no`: tries out a file called 4913, moves the original to a backup with `~`, writes a new
    /// file, removes the backup.
    Vim,
    /// Writes in many small pieces, as a program does that streams.
    Streaming,
}

impl Editor {
    /// All of them.
    pub const ALL: [Editor; 5] =
        [Editor::TruncateAndWrite, Editor::WriteInPlace, Editor::AtomicRename, Editor::Vim, Editor::Streaming];

    /// Saves `text` at `path` in this way.
    pub fn save(self, path: &Path, text: &str) -> Result<()> {
        self.try_save(path, text).with_context(|| format!("{self:?} cannot save {}", path.display()))
    }

    fn try_save(self, path: &Path, text: &str) -> std::io::Result<()> {
        let beside = |suffix: &str| {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(suffix);
            path.with_file_name(name)
        };
        match self {
            Editor::TruncateAndWrite => std::fs::write(path, text),
            Editor::WriteInPlace => {
                let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
                file.write_all(text.as_bytes())?;
                file.set_len(text.len() as u64)?;
                file.sync_all()
            }
            Editor::AtomicRename => {
                let temporary = beside(".tmp");
                std::fs::write(&temporary, text)?;
                std::fs::rename(&temporary, path)
            }
            Editor::Vim => {
                let probe = path.with_file_name("4913");
                drop(File::create(&probe)?);
                std::fs::remove_file(&probe)?;
                let backup = beside("~");
                std::fs::rename(path, &backup)?;
                let mut file = File::create(path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                std::fs::remove_file(&backup)
            }
            Editor::Streaming => {
                let mut file = File::create(path)?;
                for piece in text.as_bytes().chunks(64) {
                    file.write_all(piece)?;
                    file.flush()?;
                }
                Ok(())
            }
        }
    }
}
