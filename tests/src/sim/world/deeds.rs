//! What users do in their folders, and which markers must survive it.
//!
//! Invariant: a marker is required in the end from the moment a user wrote it until a user who had it before them
//! removed it. Spec: docs/simulation.md#oracles.

use bytes::Bytes;
use weft_agent_core::disk::RelPath;

use super::{Step, World};
use crate::sim::dice::Dice;
use crate::sim::folder::Node;
use crate::sim::machine::Machine;
use crate::sim::plan::Deed;
use crate::sim::witness::{CANARY, markers};

/// Few names, so that hosts often choose the same: plain, differing in letter case, composed and decomposed Unicode.
const NAMES: [&str; 10] =
    ["a.md", "b.md", "Plan.md", "plan.md", "ü.md", "u\u{308}.md", "日本.txt", "c d.md", "e", "f.md"];
const FOLDERS: [&str; 4] = ["", "x/", "x/y/", "z/"];
const WORDS: [&str; 8] = ["one", "two", "three", "fünf", "- [ ] task", "# head", "日", ""];

impl<M: Machine> World<M> {
    /// A user does something; nothing, if there is nothing to do it to.
    pub(super) fn deed(&mut self, index: usize, deed: Deed, pick: u64) {
        let mut dice = Dice::new(pick, "deed", 0);
        // Who writes a whole file anew, or under another name, has made what is in it their own.
        let anew = matches!(deed, Deed::SlowSave | Deed::Rename | Deed::RenameFolder);
        let deed = if anew && self.shows_forged(index) { Deed::Insert } else { deed };
        // Whoever lies is gone in the end, and the others would wait for the pieces for ever.
        let lost = self.case.profile.malice > 0 && index == self.case.profile.liar();
        let deed = if lost && deed == Deed::Blob { Deed::Binary } else { deed };
        let changed = match deed {
            Deed::Create => self.create(index, &mut dice),
            Deed::Insert | Deed::DropLine | Deed::Replace => self.edit(index, deed, &mut dice),
            Deed::SlowSave => self.slow_save(index, &mut dice),
            Deed::Rename => {
                let Some(from) = self.choose(index, &mut dice, |node| matches!(node, Node::File { .. })) else {
                    return;
                };
                self.rename(index, &from, &new_path(&mut dice, ""))
            }
            Deed::RenameFolder => {
                let Some(from) = self.choose(index, &mut dice, |node| *node == Node::Folder) else { return };
                let to = RelPath::new(&format!("{CANARY}-moved{}", dice.below(4)));
                self.rename(index, &from, &to)
            }
            Deed::Delete => {
                let Some(path) = self.choose(index, &mut dice, |node| matches!(node, Node::File { .. })) else {
                    return;
                };
                self.remove(index, &path)
            }
            Deed::DeleteFolder => {
                let Some(path) = self.choose(index, &mut dice, |node| *node == Node::Folder) else { return };
                self.remove(index, &path)
            }
            Deed::Recreate => {
                let Some(path) = self.choose(index, &mut dice, is_text) else { return };
                let gone = self.remove(index, &path);
                let text = self.text(index, &mut dice);
                self.write(index, &path, Bytes::from(text));
                gone
            }
            Deed::MakeFolder => {
                let path = RelPath::new(&format!("{CANARY}-folder{}", dice.below(3)));
                path.into_iter()
                    .filter(|path| self.hosts.get_mut(index).is_some_and(|host| host.folder.make_folder(path)))
                    .collect()
            }
            Deed::Binary => {
                let mut bytes = vec![0, 159, 146, 150];
                bytes.extend(self.witness.marker(index, self.now_us).into_bytes());
                bytes.extend(dice.bytes32());
                let path = RelPath::new(&format!("{CANARY}-{}.png", dice.below(3)));
                path.into_iter().flat_map(|path| self.write(index, &path, Bytes::from(bytes.clone()))).collect()
            }
            Deed::Blob => {
                let mut bytes = vec![0xff; 260 * 1024 + dice.index(200 * 1024)];
                for (at, byte) in bytes.iter_mut().enumerate().skip(1) {
                    *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
                }
                bytes.extend(self.witness.marker(index, self.now_us).into_bytes());
                let path = RelPath::new(&format!("{CANARY}-{}.mov", dice.below(2)));
                path.into_iter().flat_map(|path| self.write(index, &path, Bytes::from(bytes.clone()))).collect()
            }
            Deed::Empty => {
                let Some(path) = new_path(&mut dice, "-empty") else { return };
                self.write(index, &path, Bytes::new())
            }
            Deed::Mode => {
                let Some(path) = self.choose(index, &mut dice, |node| matches!(node, Node::File { .. })) else {
                    return;
                };
                let now_us = self.now_us;
                let Some(host) = self.hosts.get_mut(index) else { return };
                let value = !matches!(host.folder.get(&path), Some(Node::File { executable: true, .. }));
                host.folder.set_executable(&path, value, now_us);
                vec![path]
            }
        };
        if !changed.is_empty() {
            self.note(|| format!("h{index} user: {deed:?} {changed:?}"));
            self.touched(index, changed);
        }
    }

    fn choose(&self, index: usize, dice: &mut Dice, wanted: impl Fn(&Node) -> bool) -> Option<RelPath> {
        let host = self.hosts.get(index)?;
        let paths: Vec<&RelPath> = host.folder.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path).collect();
        paths.get(dice.index(paths.len())).map(|path| (*path).clone())
    }

    fn content(&self, index: usize, path: &RelPath) -> Bytes {
        match self.hosts.get(index).and_then(|host| host.folder.get(path)) {
            Some(Node::File { bytes, .. }) => bytes.clone(),
            Some(Node::Symlink(_) | Node::Folder) | None => Bytes::new(),
        }
    }

    /// Puts a whole file; what was in it before and is not now was removed by this user.
    fn write(&mut self, index: usize, path: &RelPath, bytes: Bytes) -> Vec<RelPath> {
        let before = self.content(index, path);
        let now_us = self.now_us;
        let Some(host) = self.hosts.get_mut(index) else { return Vec::new() };
        let executable = matches!(host.folder.get(path), Some(Node::File { executable: true, .. }));
        if host.folder.put(path, bytes.clone(), executable, now_us) {
            self.witness.removed(&before, &bytes);
            let mut changed = vec![path.clone()];
            let mut above = path.parent();
            while let Some(folder) = above {
                above = folder.parent();
                changed.push(folder);
            }
            return changed;
        }
        // Something else is in the way: the content never was.
        for number in markers(&bytes) {
            if !markers(&before).contains(&number) {
                self.witness.excuse(number);
            }
        }
        Vec::new()
    }

    fn line(&mut self, index: usize, dice: &mut Dice) -> String {
        let word = WORDS.get(dice.index(WORDS.len())).copied().unwrap_or("");
        let marker = self.witness.marker(index, self.now_us);
        // Two lines that share how they begin or end would be merged inside the marker when both replace one line.
        let hash = blake3::hash(marker.as_bytes()).to_hex();
        let (begin, end) = (hash.get(..16).unwrap_or_default(), hash.get(16..32).unwrap_or_default());
        format!("{begin} {word} {marker} {end}")
    }

    fn text(&mut self, index: usize, dice: &mut Dice) -> String {
        let lines: Vec<String> = (0..dice.between(1, 5)).map(|_| self.line(index, dice)).collect();
        let end = if dice.chance(850) { "\n" } else { "" };
        lines.join("\n") + end
    }

    fn create(&mut self, index: usize, dice: &mut Dice) -> Vec<RelPath> {
        let Some(path) = new_path(dice, "") else { return Vec::new() };
        if self.hosts.get(index).is_some_and(|host| host.folder.get(&path).is_some()) {
            return self.edit(index, Deed::Insert, dice);
        }
        let text = self.text(index, dice);
        self.write(index, &path, Bytes::from(text))
    }

    fn edit(&mut self, index: usize, deed: Deed, dice: &mut Dice) -> Vec<RelPath> {
        let Some(path) = self.choose(index, dice, is_text) else {
            return if deed == Deed::Insert { self.create_anywhere(index, dice) } else { Vec::new() };
        };
        let before = String::from_utf8_lossy(&self.content(index, &path)).into_owned();
        let mut lines: Vec<String> = before.split('\n').map(str::to_owned).collect();
        let at = dice.index(lines.len());
        if deed == Deed::DropLine {
            lines.remove(at);
        } else {
            let new = self.line(index, dice);
            match lines.get_mut(at) {
                Some(line) if deed == Deed::Replace => *line = new,
                Some(_) | None => lines.insert(at, new),
            }
        }
        self.write(index, &path, Bytes::from(lines.join("\n")))
    }

    fn create_anywhere(&mut self, index: usize, dice: &mut Dice) -> Vec<RelPath> {
        let Some(path) = new_path(dice, "-new") else { return Vec::new() };
        let text = self.text(index, dice);
        self.write(index, &path, Bytes::from(text))
    }

    /// An editor that truncates first: for a moment the file is empty.
    fn slow_save(&mut self, index: usize, dice: &mut Dice) -> Vec<RelPath> {
        let Some(path) = self.choose(index, dice, is_text) else { return Vec::new() };
        let before = self.content(index, &path);
        let line = self.line(index, dice);
        let bytes = Bytes::from([&before[..], line.as_bytes(), b"\n"].concat());
        let now_us = self.now_us;
        if let Some(host) = self.hosts.get_mut(index) {
            host.folder.put(&path, Bytes::new(), false, now_us);
            host.saving += 1;
        }
        let delay_us = dice.between(100, 20_000);
        self.after(delay_us, Step::SaveRest { host: index, path: path.clone(), bytes, before });
        vec![path]
    }

    /// The rest of a slow save. An editor that finds another file there meanwhile gives up.
    pub(super) fn save_rest(&mut self, index: usize, path: &RelPath, bytes: Bytes, before: &Bytes) {
        let now_us = self.now_us;
        let Some(host) = self.hosts.get_mut(index) else { return };
        host.saving = host.saving.saturating_sub(1);
        let still = matches!(host.folder.get(path), Some(Node::File { bytes, .. }) if bytes.is_empty());
        if still && host.folder.put(path, bytes.clone(), false, now_us) {
            self.note(|| format!("h{index} user: saved the rest of {path}"));
            self.touched(index, [path.clone()]);
            return;
        }
        self.witness.removed(before, b"");
        self.witness.removed(&bytes, b"");
    }

    fn rename(&mut self, index: usize, from: &RelPath, to: &Option<RelPath>) -> Vec<RelPath> {
        let (Some(to), Some(host)) = (to, self.hosts.get_mut(index)) else { return Vec::new() };
        let mut changed: Vec<RelPath> = host.folder.inside(from).map(|(path, _)| path.clone()).collect();
        if !host.folder.rename(from, to) {
            return Vec::new();
        }
        changed.push(from.clone());
        changed.extend(host.folder.inside(to).map(|(path, _)| path.clone()));
        changed.extend([Some(to.clone()), to.parent()].into_iter().flatten());
        changed
    }

    fn remove(&mut self, index: usize, path: &RelPath) -> Vec<RelPath> {
        let Some(host) = self.hosts.get_mut(index) else { return Vec::new() };
        let inside = host.folder.inside(path).map(|(path, _)| path.clone());
        let paths: Vec<RelPath> = inside.chain([path.clone()]).collect();
        for path in paths {
            let before = self.content(index, &path);
            self.witness.removed(&before, b"");
        }
        self.hosts.get_mut(index).map(|host| host.folder.remove(path)).unwrap_or_default()
    }
}

fn new_path(dice: &mut Dice, suffix: &str) -> Option<RelPath> {
    let folder = FOLDERS.get(dice.index(FOLDERS.len())).copied().unwrap_or("");
    let name = NAMES.get(dice.index(NAMES.len())).copied().unwrap_or("a.md");
    RelPath::new(&format!("{folder}{CANARY}{suffix}-{name}"))
}

fn is_text(node: &Node) -> bool {
    matches!(node, Node::File { bytes, .. } if core::str::from_utf8(bytes).is_ok())
}
