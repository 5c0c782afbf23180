//! A folder in memory: what users edit, and what the shell looks at and acts in.
//!
//! Invariant: an action changes something only if what it expects is there, compared by content at the very moment; a
//! user's edit may land at any other moment. Spec: docs/simulation.md#folder.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::disk::{Expect, FolderAction, RelPath, Stat, Unfinished};
use weft_agent_core::id::VersionHash;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// Its content.
        bytes: Bytes,
        /// Its execute bit.
        executable: bool,
        /// Its stat.
        stat: Stat,
        /// The hash of its content, once asked for.
        hash: Option<VersionHash>,
    },
    /// A symbolic link.
    Symlink(String),
    /// A folder.
    Folder,
}

/// New content that the shell has already read or put together.
#[derive(Debug, Clone)]
pub enum Ready {
    /// A file's bytes.
    Bytes(Bytes),
    /// A link's target.
    Symlink(String),
}

/// The paths of an action that has no outcome yet: what was there before, and the stat of what it left there.
pub type Undo = Vec<(RelPath, Option<Node>, Stat)>;

/// A folder.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    nodes: BTreeMap<RelPath, Node>,
    inodes: u64,
    /// What our last write at each path left, where it replaced something: the real shell keeps what was replaced beside the
    /// file until the outcome is stored, and so knows after a crash that the write took place.
    written: BTreeMap<RelPath, VersionHash>,
}

/// How an action went in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// Done.
    Done(Stat),
    /// Something else is there; look at this path to say what.
    Differs(RelPath),
    /// The disk refused.
    Failed(String),
}

impl Folder {
    /// What is at a path.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Node> {
        self.nodes.get(path)
    }
    /// What became of a write at this path that was to replace something and leave this, when the agent ended; `None`: the
    /// folder it was in is elsewhere now.
    #[must_use]
    pub fn unfinished(&self, path: &RelPath, leaves: VersionHash) -> Option<Unfinished> {
        let took_place = self.written.get(path) == Some(&leaves);
        self.has_parent(path).then_some(Unfinished { leaves, took_place })
    }
    /// Everything, in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Node)> {
        self.nodes.iter()
    }
    /// Everything inside a folder, in path order.
    pub fn inside(&self, path: &RelPath) -> impl Iterator<Item = (&RelPath, &Node)> {
        let (start, prefix) = (path.clone(), format!("{path}/"));
        self.nodes
            .range(start.clone()..)
            .take_while(move |(found, _)| found.as_str().starts_with(start.as_str()))
            .filter(move |(found, _)| found.as_str().starts_with(&prefix))
    }
    /// Puts a file; folders above are made. False if something other than a file is in the way.
    pub fn put(&mut self, path: &RelPath, bytes: Bytes, executable: bool, now_us: u64) -> bool {
        if matches!(self.nodes.get(path), Some(Node::Folder | Node::Symlink(_))) || !self.make_parents(path) {
            return false;
        }
        self.inodes += 1;
        let stat = stat(now_us, bytes.len(), self.inodes);
        self.nodes.insert(path.clone(), Node::File { bytes, executable, stat, hash: None });
        true
    }
    /// Makes a folder and those above it. False if something else is in the way.
    pub fn make_folder(&mut self, path: &RelPath) -> bool {
        match self.nodes.get(path) {
            Some(Node::Folder) => true,
            Some(_) => false,
            None => {
                let made = self.make_parents(path);
                if made {
                    self.nodes.insert(path.clone(), Node::Folder);
                }
                made
            }
        }
    }
    fn has_parent(&self, path: &RelPath) -> bool {
        path.parent().is_none_or(|parent| self.nodes.get(&parent) == Some(&Node::Folder))
    }
    fn make_parents(&mut self, path: &RelPath) -> bool {
        path.parent().is_none_or(|parent| self.make_folder(&parent))
    }
    /// Moves a file, or a folder with everything in it, to a path where nothing is. Returns whether it did.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> bool {
        let inside_itself = to.as_str().starts_with(&format!("{from}/"));
        if from == to || inside_itself || self.nodes.contains_key(to) || !self.nodes.contains_key(from) {
            return false;
        }
        if !self.make_parents(to) {
            return false;
        }
        let moved: Vec<RelPath> = self.inside(from).map(|(path, _)| path.clone()).collect();
        if let Some(node) = self.nodes.remove(from) {
            self.nodes.insert(to.clone(), node);
        }
        for path in moved {
            let new = path.as_str().strip_prefix(from.as_str()).and_then(|rest| RelPath::new(&format!("{to}{rest}")));
            if let (Some(node), Some(new)) = (self.nodes.remove(&path), new) {
                self.nodes.insert(new, node);
            }
        }
        true
    }
    /// Removes a file, or a folder with everything in it. Returns the paths that are gone.
    pub fn remove(&mut self, path: &RelPath) -> Vec<RelPath> {
        let mut gone: Vec<RelPath> = self.inside(path).map(|(path, _)| path.clone()).collect();
        gone.push(path.clone());
        gone.retain(|path| self.nodes.remove(path).is_some());
        gone
    }
    /// Sets the execute bit of a file. Returns whether there is one.
    pub fn set_executable(&mut self, path: &RelPath, value: bool, now_us: u64) -> bool {
        if let Some(Node::File { executable, stat, .. }) = self.nodes.get_mut(path) {
            *executable = value;
            stat.ctime_ns = nanos(now_us);
            return true;
        }
        false
    }
    /// The hash of a file's content, computed once.
    pub fn hash(&mut self, path: &RelPath, hasher: impl Fn(&[u8]) -> VersionHash) -> Option<VersionHash> {
        match self.nodes.get_mut(path) {
            Some(Node::File { bytes, hash, .. }) => Some(*hash.get_or_insert_with(|| hasher(bytes))),
            Some(Node::Symlink(_) | Node::Folder) | None => None,
        }
    }
    fn matches(&mut self, path: &RelPath, expect: &Expect, hasher: impl Fn(&[u8]) -> VersionHash) -> bool {
        match (self.nodes.get(path), expect) {
            (None, Expect::Absent) | (Some(Node::Folder), Expect::Folder) => true,
            (Some(Node::Symlink(found)), Expect::Symlink(target)) => found == target,
            (Some(Node::File { .. }), Expect::File(wanted)) => self.hash(path, hasher) == Some(*wanted),
            (Some(Node::Folder | Node::File { .. } | Node::Symlink(_)) | None, _) => false,
        }
    }
    /// Does what the core asks, as the real shell does. With `blind`, whatever it expects is taken to be there.
    pub fn act(
        &mut self,
        action: &FolderAction,
        ready: Option<Ready>,
        now_us: u64,
        blind: bool,
        hasher: impl Fn(&[u8]) -> VersionHash,
    ) -> (Acted, Undo) {
        let failed = |why: &str| (Acted::Failed(why.to_owned()), Undo::new());
        match action {
            FolderAction::MakeFolder { path } => {
                if !self.has_parent(path) {
                    return failed("its folder is gone");
                }
                let before = self.nodes.get(path).cloned();
                if self.make_folder(path) {
                    (Acted::Done(Stat::default()), vec![(path.clone(), before, self.stat(path))])
                } else if before.is_some() {
                    (Acted::Differs(path.clone()), Undo::new())
                } else {
                    failed("not a folder")
                }
            }
            FolderAction::Write { path, expect, hash, executable, .. } => {
                if !self.has_parent(path) {
                    return failed("its folder is gone");
                }
                if !blind && !self.matches(path, expect, hasher) {
                    return (Acted::Differs(path.clone()), Undo::new());
                }
                let before = self.nodes.get(path).cloned();
                match ready {
                    Some(Ready::Symlink(target)) => {
                        if !self.make_parents(path) {
                            return failed("not a folder");
                        }
                        self.nodes.insert(path.clone(), Node::Symlink(target));
                    }
                    Some(Ready::Bytes(bytes)) => {
                        if matches!(before, Some(Node::Symlink(_))) {
                            self.nodes.remove(path);
                        }
                        if !self.put(path, bytes, *executable, now_us) {
                            return failed("not a folder");
                        }
                        if let Some(Node::File { hash: known, .. }) = self.nodes.get_mut(path) {
                            *known = Some(*hash);
                        }
                    }
                    None => return failed("a piece is missing"),
                }
                self.written.remove(path);
                if before.is_some() {
                    self.written.insert(path.clone(), *hash);
                }
                (Acted::Done(self.stat(path)), vec![(path.clone(), before, self.stat(path))])
            }
            FolderAction::Move { from, to, expect } => {
                if !self.has_parent(to) {
                    return failed("its folder is gone");
                }
                if !self.matches(from, expect, hasher) || self.nodes.contains_key(to) {
                    return (Acted::Differs(from.clone()), Undo::new());
                }
                if self.rename(from, to) {
                    (Acted::Done(self.stat(to)), Undo::new())
                } else {
                    failed("cannot be moved there")
                }
            }
            FolderAction::Remove { path, expect, .. } => {
                if !blind && !self.matches(path, expect, hasher) {
                    return (Acted::Differs(path.clone()), Undo::new());
                }
                if self.inside(path).next().is_some() {
                    return (Acted::Done(Stat::default()), Undo::new());
                }
                let before = self.nodes.remove(path);
                (Acted::Done(Stat::default()), vec![(path.clone(), before, self.stat(path))])
            }
            FolderAction::SetExecutable { path, executable } => {
                if self.set_executable(path, *executable, now_us) {
                    (Acted::Done(self.stat(path)), Undo::new())
                } else {
                    (Acted::Differs(path.clone()), Undo::new())
                }
            }
        }
    }
    /// A crash before the action was synced: what was there before is there again, unless a user changed it since.
    pub fn undo(&mut self, undo: Undo) {
        for (path, before, left) in undo {
            let at_home = path.parent().is_none_or(|parent| self.nodes.get(&parent) == Some(&Node::Folder));
            if self.stat(&path) != left || !at_home || self.inside(&path).next().is_some() {
                continue;
            }
            self.written.remove(&path);
            match before {
                Some(node) => self.nodes.insert(path, node),
                None => self.nodes.remove(&path),
            };
        }
    }
    /// The stat of a file; zero for anything else.
    #[must_use]
    pub fn stat(&self, path: &RelPath) -> Stat {
        match self.nodes.get(path) {
            Some(Node::File { stat, .. }) => *stat,
            Some(Node::Symlink(_) | Node::Folder) | None => Stat::default(),
        }
    }
}

fn nanos(now_us: u64) -> i64 {
    (now_us * 1000) as i64 + 1
}

fn stat(now_us: u64, size: usize, inode: u64) -> Stat {
    Stat { mtime_ns: nanos(now_us), ctime_ns: nanos(now_us), size: size as u64, inode }
}

#[cfg(test)]
mod tests {
    use weft_agent_core::disk::{NewContent, Removal};

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }
    fn hash(bytes: &[u8]) -> VersionHash {
        VersionHash(*blake3::hash(bytes).as_bytes())
    }
    fn write(at: &str, expect: Expect, new: &'static [u8]) -> (FolderAction, Option<Ready>) {
        let content = NewContent::Bytes(Bytes::from_static(new));
        let action = FolderAction::Write { path: path(at), expect, content, hash: hash(new), executable: false };
        (action, Some(Ready::Bytes(Bytes::from_static(new))))
    }

    /// A write over anything but what it expects leaves the folder as it is.
    #[test]
    fn a_write_never_overwrites_what_it_did_not_expect() {
        let mut folder = Folder::default();
        assert!(folder.put(&path("a/b"), Bytes::from_static(b"mine"), false, 1));
        for expect in [Expect::Absent, Expect::File(hash(b"other")), Expect::Folder] {
            let (action, ready) = write("a/b", expect, b"theirs");
            let (acted, undo) = folder.act(&action, ready, 2, false, hash);
            assert_eq!((acted, undo), (Acted::Differs(path("a/b")), Undo::new()));
        }
        let (action, ready) = write("a/b", Expect::File(hash(b"mine")), b"theirs");
        let (acted, undo) = folder.act(&action, ready, 2, false, hash);
        assert!(matches!(acted, Acted::Done(stat) if stat.size == 6));
        folder.undo(undo);
        assert_eq!(folder.hash(&path("a/b"), hash), Some(hash(b"mine")));
    }

    /// A folder moves with everything in it and with nothing beside it.
    #[test]
    fn a_folder_moves_whole() {
        let mut folder = Folder::default();
        for name in ["a/x", "a/y/z", "a.md", "a0"] {
            assert!(folder.put(&path(name), Bytes::new(), false, 1));
        }
        assert!(!folder.rename(&path("a"), &path("a/y/a")));
        assert!(folder.rename(&path("a"), &path("b/c")));
        let found: Vec<&str> = folder.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, ["a.md", "a0", "b", "b/c", "b/c/x", "b/c/y", "b/c/y/z"]);
        assert_eq!(folder.remove(&path("b/c")).len(), 4);
    }

    /// A folder that is not empty stays when its removal is asked for.
    #[test]
    fn a_full_folder_is_not_removed() {
        let mut folder = Folder::default();
        assert!(folder.put(&path("a/x"), Bytes::new(), false, 1));
        let action = FolderAction::Remove { path: path("a"), expect: Expect::Folder, why: Removal::Deleted };
        assert_eq!(folder.act(&action, None, 2, false, hash).0, Acted::Done(Stat::default()));
        assert!(folder.get(&path("a/x")).is_some());
    }
}
