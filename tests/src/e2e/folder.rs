//! What a folder holds, and how two differ.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file: its length and the hash of its bytes.
    File(u64, [u8; 32]),
    /// A symbolic link: its target.
    Symlink(String),
}

/// Files and links by their path below the folder, with `/` between its parts; `.weft` is left out.
pub type Snapshot = BTreeMap<String, Entry>;

/// What is below `root` now. What disappears while we look is left out.
pub fn snapshot(root: &Path) -> Result<Snapshot> {
    let mut found = Snapshot::new();
    look(root, "", &mut found)?;
    Ok(found)
}

fn look(folder: &Path, prefix: &str, found: &mut Snapshot) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    };
    for entry in entries {
        let entry = entry.context("a folder cannot be read to its end")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if prefix.is_empty() && name == ".weft" {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            look(&entry.path(), &path, found)?;
        } else if kind.is_symlink() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                found.insert(path, Entry::Symlink(target.to_string_lossy().into_owned()));
            }
        } else if let Ok(bytes) = std::fs::read(entry.path()) {
            found.insert(path, Entry::File(bytes.len() as u64, *blake3::hash(&bytes).as_bytes()));
        }
    }
    Ok(())
}

/// At most eight differences, in words.
#[must_use]
pub fn differences(left: &Snapshot, right: &Snapshot) -> String {
    let mut words: Vec<String> = Vec::new();
    for (path, entry) in left {
        match right.get(path) {
            None => words.push(format!("{path:?} is missing")),
            Some(other) if other != entry => words.push(format!("{path:?} is {other:?} instead of {entry:?}")),
            Some(_) => {}
        }
    }
    words.extend(right.keys().filter(|path| !left.contains_key(*path)).map(|path| format!("{path:?} is too many")));
    let total = words.len();
    words.truncate(8);
    format!("{total} differences: {}", words.join(", "))
}
