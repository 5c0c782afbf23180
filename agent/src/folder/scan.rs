//! Walking the folder: every path that is to be carried, with its stat, without reading a file.
//!
//! Invariant: a listing that could not see everything says so, and then nothing is concluded from what it lacks.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType};
use weft_agent_core::disk::{RelPath, Stat};

use super::at;
use super::ignore::{Rules, TEMP_PREFIX};
use super::marker;

/// Folders deeper than this are not carried; paths are bounded anyway.
const DEPTH_MAX: usize = 256;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    File { stat: Stat, executable: bool },
    Symlink,
    Folder,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: BTreeMap<RelPath, Entry>,
    /// Folders that could not be read, with the reason.
    pub(crate) unreadable: Vec<(String, String)>,
    /// Names that cannot be carried: path (lossily) and why.
    pub(crate) not_carried: Vec<(String, String)>,
    /// Git repositories inside, which stay out.
    pub(crate) repositories: Vec<String>,
    /// Paths that the rules keep out (a folder counts once).
    pub(crate) ignored: u64,
    /// Files with more than one name.
    pub(crate) linked: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Unfinished writes: what a crash left, if nobody writes now.
    pub(crate) litter: Vec<RelPath>,
}

impl Listing {
    /// Number of files and links.
    pub(crate) fn files(&self) -> u64 {
        self.entries.values().filter(|entry| !matches!(entry, Entry::Folder)).count() as u64
    }
    /// The largest file.
    pub(crate) fn largest(&self) -> Option<(&RelPath, u64)> {
        let sizes = self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File { stat, .. } => Some((path, stat.size)),
            Entry::Symlink | Entry::Folder => None,
        });
        sizes.max_by_key(|(_, size)| *size)
    }
}

/// Lists everything below `under` (the whole root, if `None`), not `under` itself. `enter` is told of every folder before
/// it is read: one that is watched from then on misses nothing that comes into it.
pub(crate) fn list(
    root: &Path,
    rules: &mut Rules,
    under: Option<&RelPath>,
    enter: &mut dyn FnMut(&RelPath),
) -> std::io::Result<Listing> {
    let root_fd = at::open_root(root)?;
    let mut listing = Listing::default();
    let start = match under {
        Some(path) => at::open_folder(&root_fd, path)?,
        None => root_fd,
    };
    Walk { rules, listing: &mut listing, enter }.walk(&start, under.map_or("", RelPath::as_str), 0);
    Ok(listing)
}

struct Walk<'a> {
    rules: &'a mut Rules,
    listing: &'a mut Listing,
    enter: &'a mut dyn FnMut(&RelPath),
}

impl Walk<'_> {
    fn walk(&mut self, dir: &OwnedFd, at_path: &str, depth: usize) {
        let mut names = Vec::new();
        let read = Dir::read_from(dir).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
            }
            Ok(())
        });
        if let Err(error) = read {
            let error = std::io::Error::from(error);
            self.listing.unreadable.push((at_path.to_owned(), error.to_string()));
            return;
        }
        names.sort_unstable();
        for name in names {
            self.step(dir, at_path, &name, depth);
        }
    }

    fn step(&mut self, dir: &OwnedFd, at_path: &str, name: &[u8], depth: usize) {
        let joined = |name: &str| if at_path.is_empty() { name.to_owned() } else { format!("{at_path}/{name}") };
        let Ok(name) = std::str::from_utf8(name) else {
            let lossy = joined(&String::from_utf8_lossy(name));
            self.listing.not_carried.push((lossy, "its name is not UTF-8; rename it".to_owned()));
            return;
        };
        let text = joined(name);
        let meta = match at::meta(dir, name) {
            Ok(Some(meta)) => meta,
            Ok(None) => return,
            Err(error) => {
                self.listing.unreadable.push((text, error.to_string()));
                return;
            }
        };
        if name.starts_with(TEMP_PREFIX) {
            self.listing.litter.extend(RelPath::new(&text));
            return;
        }
        let is_folder = meta.kind == FileType::Directory;
        if self.rules.ignored_itself(&text, is_folder) {
            // Our own marker is nobody's concern.
            self.listing.ignored += u64::from(text != marker::DIR);
            if is_folder && name != ".git" && self.rules.is_nested_repository(&text) {
                self.listing.repositories.push(text);
            }
            return;
        }
        let Some(path) = RelPath::new(&text).filter(|_| depth < DEPTH_MAX) else {
            self.listing.not_carried.push((text, "its path is too long; move or shorten it".to_owned()));
            return;
        };
        match meta.kind {
            FileType::Directory => match at::open_folder(dir, &name_path(name, &path)) {
                Ok(inner) => {
                    (self.enter)(&path);
                    self.listing.entries.insert(path, Entry::Folder);
                    self.walk(&inner, &text, depth + 1);
                }
                Err(error) if super::look::is_absence(&error) => {}
                Err(error) => self.listing.unreadable.push((text, error.to_string())),
            },
            FileType::Symlink => {
                self.listing.entries.insert(path, Entry::Symlink);
            }
            FileType::RegularFile => {
                self.listing.bytes = self.listing.bytes.saturating_add(meta.stat.size);
                self.listing.linked += u64::from(meta.is_linked);
                self.listing.entries.insert(path, Entry::File { stat: meta.stat, executable: meta.mode & 0o100 != 0 });
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.listing.not_carried.push((text, "it is neither file, folder nor link".to_owned()))
            }
        }
    }
}

/// A name is a path of one part; it was checked as the end of `path`.
fn name_path(name: &str, path: &RelPath) -> RelPath {
    RelPath::new(name).unwrap_or_else(|| path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;

    /// Files, folders and links are listed, ignored ones counted, links not followed, odd names named.
    #[test]
    fn lists_what_is_carried() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("node_modules/x")).unwrap();
        fs::create_dir_all(root.join("repo/.git")).unwrap();
        fs::write(root.join("a/b/note.md"), "hello").unwrap();
        fs::write(root.join("a/big"), [0; 9]).unwrap();
        fs::write(root.join("a/.weft-tmp-0"), "unfinished").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        fs::write(root.join(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"bad\xff")), "").unwrap();
        let mut entered = Vec::new();
        let listing = list(root, &mut Rules::new(root), None, &mut |path| entered.push(path.clone())).unwrap();
        let paths: Vec<_> = listing.entries.keys().map(RelPath::as_str).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/note.md", "a/big", "out"]);
        assert_eq!(entered.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((listing.files(), listing.bytes, listing.ignored), (3, 14, 2));
        assert_eq!(listing.largest().unwrap().0.as_str(), "a/big");
        assert_eq!(listing.repositories, ["repo"]);
        assert_eq!(listing.not_carried.len(), 1);
        assert_eq!(listing.litter.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["a/.weft-tmp-0"]);
        let under = list(root, &mut Rules::new(root), RelPath::new("a/b").as_ref(), &mut |_| {}).unwrap();
        assert_eq!(under.entries.keys().map(RelPath::as_str).collect::<Vec<_>>(), ["a/b/note.md"]);
        assert!(
            list(root, &mut Rules::new(root), RelPath::new("out").as_ref(), &mut |_| {}).is_err(),
            "a link is no folder"
        );
    }
}
