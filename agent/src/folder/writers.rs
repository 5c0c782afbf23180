//! Which files other programs have open for writing.
//!
//! A write replaces a file by exchange: whatever a program that has the old one open writes from then on goes into a file
//! that nobody sees any more. So this is asked before an exchange, and again before what was replaced is removed. Invariant:
//! an answer is a hint that can be late or missing (programs of other users, mappings without an open descriptor); what
//! depends on it also compares what is in the file. Answered from `/proc`, where programs of one's own user show what they
//! have open; where there is none, nobody is known to write.
//! Spec: docs/files.md#open-files.

use std::collections::{BTreeMap, BTreeSet};

/// A file as the system names it: device and inode.
pub(crate) type FileId = (u64, u64);

/// A descriptor of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    process: String,
    descriptor: String,
}

/// Who has these files open for writing, of all programs that we may look at but ourselves.
#[cfg(target_os = "linux")]
pub(crate) fn find(wanted: &BTreeSet<FileId>) -> BTreeMap<FileId, Vec<Holder>> {
    let mut found: BTreeMap<FileId, Vec<Holder>> = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    let own = std::process::id().to_string();
    let names = |path: &str| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    for process in names("/proc").into_iter().filter(|name| is_number(name) && *name != own) {
        for descriptor in names(&format!("/proc/{process}/fd")) {
            let holder = Holder { process: process.clone(), descriptor };
            if let Some(id) = holder.file().filter(|id| wanted.contains(id) && holder.writes()) {
                found.entry(id).or_default().push(holder);
            }
        }
    }
    found
}
#[cfg(not(target_os = "linux"))]
pub(crate) fn find(_wanted: &BTreeSet<FileId>) -> BTreeMap<FileId, Vec<Holder>> {
    BTreeMap::new()
}

impl Holder {
    /// Whether it still has this file open for writing.
    pub(crate) fn holds(&self, id: FileId) -> bool {
        self.file() == Some(id) && self.writes()
    }
    fn file(&self) -> Option<FileId> {
        let stat = rustix::fs::stat(format!("/proc/{}/fd/{}", self.process, self.descriptor)).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }
    fn writes(&self) -> bool {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", self.process, self.descriptor));
        let flags = info.ok().and_then(|info| {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
            u32::from_str_radix(&flags, 8).ok()
        });
        // The access mode is in the last two bits: 0 reads only.
        flags.is_some_and(|flags| flags & 3 != 0)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A program that has a file open for writing is found as long as it has, one that reads it is not.
    #[test]
    fn programs_that_write_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        std::fs::write(&file, "").unwrap();
        let stat = rustix::fs::stat(&file).unwrap();
        let id = (stat.st_dev, stat.st_ino);
        let wanted = BTreeSet::from([id]);
        let program = |mode: &str| {
            let script = format!("exec 3{mode}\"$0\"; echo ready; read end");
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .arg(&file)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = [0; 6];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
            child
        };
        let mut reader = program("<");
        assert_eq!(find(&wanted), BTreeMap::new());
        let mut writer = program(">>");
        let found = find(&wanted);
        let holder = found[&id].first().unwrap().clone();
        assert!(holder.holds(id));
        for child in [&mut reader, &mut writer] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert!(!holder.holds(id));
        assert_eq!(find(&wanted), BTreeMap::new());
    }
}
