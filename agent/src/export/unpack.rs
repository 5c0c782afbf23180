//! Taking the files out of an export.
//!
//! Invariant: an export is read to its end before anything is written, so that one that was cut short, or a wrong
//! passphrase, leaves nothing behind; nothing is written outside of the folder that was named, whatever the paths in it
//! say. Spec: docs/sealing.md#export.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weft_agent_core::disk::RelPath;
use weft_agent_core::export::{FORMAT, Kind};

use super::age::Opening;
use super::{FileHead, Header, read_record};
use crate::folder::{at, ignore, marker};

/// An export that is being read.
pub(crate) type Source = Opening<BufReader<File>>;

/// Opens an export and reads it to its end once.
pub(crate) fn open_whole(file: &Path, passphrase: &str) -> anyhow::Result<Source> {
    let open = || Opening::begin(BufReader::new(File::open(file)?), passphrase);
    let mut whole = open()?;
    while read_record(&mut whole)?.0 != Kind::End {}
    Ok(open()?)
}

/// The first record.
pub(crate) fn read_header(from: &mut Source) -> anyhow::Result<Header> {
    let (kind, bytes) = read_record(from)?;
    let header: Header =
        serde_json::from_slice(&bytes).map_err(|_| anyhow::anyhow!("the export is damaged: no header"))?;
    if kind != Kind::Header || header.format != FORMAT {
        anyhow::bail!("the export is of another version of weft");
    }
    Ok(header)
}

/// What came of taking the files out.
pub(crate) struct Unpacked {
    /// The workspace's name when the export was made.
    pub(crate) name: String,
    /// How many files there are.
    pub(crate) files: u64,
    /// Those that could not be put in place, and why.
    pub(crate) left_out: Vec<String>,
}

/// Puts the files of an export into an empty folder, which is made if it is not there. Takes no words: what is there then is
/// no workspace.
pub(crate) fn files_only(file: &Path, dir: &Path, passphrase: &str) -> anyhow::Result<Unpacked> {
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        anyhow::bail!("{} is not empty; name another folder", dir.display());
    }
    let mut from = open_whole(file, passphrase)?;
    let header = read_header(&mut from)?;
    let mut next = read_record(&mut from)?;
    while !matches!(next.0, Kind::File | Kind::End) {
        next = read_record(&mut from)?;
    }
    std::fs::create_dir_all(dir)?;
    let (files, left_out) = write_back(&mut from, next, dir)?;
    Ok(Unpacked { name: header.name, files, left_out })
}

/// Writes the files of the exported folder over those of the workspace, where they differ: edits that no envelope held.
/// How many there are, and which could not be put there.
pub(crate) fn write_back(
    from: &mut Source,
    mut next: (Kind, Vec<u8>),
    dir: &Path,
) -> anyhow::Result<(u64, Vec<String>)> {
    let mut files = 0;
    let mut left_out = Vec::new();
    while next.0 == Kind::File {
        let head: FileHead = serde_json::from_slice(&next.1)?;
        let path = RelPath::new(&head.path).ok_or_else(|| anyhow::anyhow!("the export is damaged: a path"))?;
        let mut aside = tempfile::Builder::new().prefix(ignore::TEMP_PREFIX).tempfile_in(dir)?;
        loop {
            next = read_record(from)?;
            if next.0 != Kind::Chunk {
                break;
            }
            aside.write_all(&next.1)?;
        }
        // Ours, and never part of what is shared.
        if head.path.split('/').next() == Some(marker::DIR) {
            continue;
        }
        files += 1;
        let mode = if head.executable { 0o755 } else { 0o644 };
        aside.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        if let Err(error) = put(dir, &path, aside) {
            // A folder where the file was, say: it must not keep the rest out.
            left_out.push(format!("{path} ({error})"));
        }
    }
    if next.0 != Kind::End {
        anyhow::bail!("the export is damaged: its order");
    }
    Ok((files, left_out))
}

/// Puts a file in place unless an equal one is there. Links in the middle of a path are never followed.
fn put(dir: &Path, path: &RelPath, aside: tempfile::NamedTempFile) -> anyhow::Result<()> {
    let root = at::open_root(dir)?;
    let mut above = Vec::new();
    let mut parent = path.parent();
    while let Some(folder) = parent {
        parent = folder.parent();
        above.push(folder);
    }
    for folder in above.iter().rev() {
        at::make_folder(&root, folder)?;
    }
    let to = at::open_parent(&root, path)?;
    if let Ok((there, _)) = at::open_file(&to, path.name())
        && same(there, File::open(aside.path())?)?
    {
        return Ok(());
    }
    rustix::fs::renameat(rustix::fs::CWD, aside.path(), &to, path.name())?;
    let _moved = aside.into_temp_path().keep();
    Ok(())
}

fn same(one: File, other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one).bytes(), BufReader::new(other).bytes());
    loop {
        match (one.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(true),
            (here, there) if here == there => {}
            _ => return Ok(false),
        }
    }
}
