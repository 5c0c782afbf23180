//! Everything a person may do to what somebody else made and that does not count in the end.

use std::collections::BTreeSet;

use super::world::{Dice, Node, Replica, World};
use crate::content::{Content, DocumentName};
use crate::files::is_of_versions;
use crate::id::ChainId;

impl Replica {
    fn files_here(&self) -> Vec<String> {
        let files = self.folder.iter().filter(|(_, node)| matches!(node, Node::File { .. }));
        files.map(|(path, _)| path.to_string()).collect()
    }

    fn folders_here(&self) -> Vec<String> {
        let folders = self.folder.iter().filter(|(_, node)| matches!(node, Node::Folder));
        folders.map(|(path, _)| path.to_string()).collect()
    }

    /// Does something to what is there, marked.
    fn does(&mut self, dice: &mut Dice, mark: &str) -> String {
        self.run();
        let (files, folders) = (self.files_here(), self.folders_here());
        let file = files.get(dice.roll(files.len().max(1))).cloned().unwrap_or_else(|| "none".into());
        let folder = folders.get(dice.roll(folders.len().max(1))).cloned();
        let beside = |name: String| match file.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{name}"),
            None => name,
        };
        let done = match dice.roll(8) {
            _ if files.is_empty() => 0,
            deed => deed,
        };
        let within = folder.as_deref().map(|folder| format!("{folder}/")).unwrap_or_default();
        match done {
            0 => self.write(&format!("{within}{mark}.md"), format!("{mark} one\n{mark} two\n")),
            1 => self.write(&file, format!("\0{mark}")),
            2 => self.rename(&file, &beside(format!("{mark}.md"))),
            3 => self.remove(&file),
            4 => self.make_executable(&file),
            5 if folder.is_some() => self.rename(&within[..within.len() - 1], mark),
            _ if self.text(&file).contains('\0') => self.write(&file, format!("{mark} one\n{mark} two\n")),
            _ => {
                let text = self.text(&file);
                let middle = text.find('\n').map_or(text.len(), |at| at + 1);
                self.write(&file, format!("{}{mark}\n{}", &text[..middle], &text[middle..]));
            }
        }
        self.scan();
        self.run();
        format!("{mark}: {done} {file} {within}")
    }

    /// Does what is to be done in the folder, or a part of it.
    fn goes_on(&mut self, dice: &mut Dice) {
        if dice.roll(2) == 0 {
            self.run();
        } else {
            (0..dice.roll(4)).for_each(|_| {
                self.act();
            });
        }
    }

    /// Hears this, and goes on.
    fn hears(&mut self, said: &[(ChainId, Content)], dice: &mut Dice) {
        for (chain, content) in said {
            assert!(self.receive(*chain, content).is_empty());
        }
        self.goes_on(dice);
    }

    /// Looks and acts until nothing more comes of it.
    fn comes_to_rest(&mut self) {
        for _ in 0..3 {
            self.scan();
            self.run();
        }
    }

    /// What is here of what was written by the one or ones of this name.
    fn marks(&self, name: &str) -> BTreeSet<String> {
        let texts: Vec<String> = self.files_here().iter().map(|path| self.text(path)).collect();
        let marks = (0..6).map(|number| format!("{name}{number}"));
        marks.filter(|mark| texts.iter().any(|text| text.contains(mark))).collect()
    }
}

impl World {
    /// The second and the third tell one another what they make of what they heard, until nothing more comes of it.
    fn exchange(&mut self) {
        for (from, to) in [(1, 2), (2, 1)].repeat(3) {
            self.replicas[from].scan();
            self.replicas[from].run();
            let said = self.take_back(from);
            self.give(to, &said);
        }
    }
}

/// Three with the same files, of every kind, and these besides.
fn begun(more: &[(&str, &str)]) -> World {
    let mut world = World::new(3);
    world.replicas[0].write("d/a.md", "one\ntwo\n");
    world.replicas[0].write("d/b.bin", [0, 1, 2]);
    world.replicas[0].write("d/sub/c.md", "three\nfour\n");
    for (path, text) in more {
        world.replicas[0].write(path, *text);
    }
    world.settle();
    world.collect();
    world
}

/// The documents that something was said of.
fn named(said: &[(ChainId, Content)]) -> BTreeSet<DocumentName> {
    said.iter().flat_map(|(_, content)| &content.documents).map(|(name, _)| name.clone()).collect()
}

/// What of a content is in documents that are built anew, and what stays: versions always do.
fn parted(content: Content, documents: &BTreeSet<DocumentName>) -> (Content, Content) {
    let concerned = |name: &DocumentName| documents.contains(name) && !is_of_versions(name);
    let (gone, stays) = content.documents.into_iter().partition(|(name, _)| concerned(name));
    (Content { documents: gone }, Content { documents: stays })
}

/// Somebody does this and that, which does not count in the end; a person who does not know does this and that to it, unsent.
/// Whatever it was, all that the person wrote is still in their folder, and others come to have the same.
#[test]
fn what_a_person_wrote_survives_whatever_falls() {
    for seed in 0..1_000 {
        let mut dice = Dice(seed * 7_919 + 12_345);
        let mut world = begun(&[("e.md", "five\nsix\n")]);
        let mut told = format!("seed {seed}");
        let counts = world.said();
        for number in 0..=dice.roll(2) {
            told += &format!("; {}", world.replicas[0].does(&mut dice, &format!("forged{number}")));
        }
        let forged = world.take_back(0);
        world.replicas[1].hears(&forged, &mut dice);
        let one = &mut world.replicas[1];
        one.published.clear();
        for number in 0..=dice.roll(3) {
            told += &format!("; {}", one.does(&mut dice, &format!("mine{number}")));
        }
        let documents = named(&forged);
        let (gone, stays): (Vec<Content>, Vec<Content>) =
            one.published.drain(..).map(|content| parted(content, &documents)).unzip();
        let before = one.marks("mine");
        told += &format!("; had {:?}", one.picture());
        one.rebuild_these(&documents, &counts, &gone);
        one.comes_to_rest();
        told += &format!("; has {:?}", one.picture());
        assert!(one.files.settled() && one.halts.is_empty(), "{told}");
        assert!(one.marks("mine").is_superset(&before), "{told}");
        let chain: ChainId = one.identity.chain;
        let mut said: Vec<(ChainId, Content)> = stays.into_iter().map(|content| (chain, content)).collect();
        said.extend(world.take_back(1));
        world.give(2, &said);
        world.replicas[2].scan();
        world.replicas[2].run();
        assert_eq!(world.replicas[2].picture(), world.replicas[1].picture(), "{told}");
    }
}

/// The same while a third writes, too, whose work counts and is heard now and then; what falls is heard bit by bit.
#[test]
fn what_a_person_wrote_survives_among_others() {
    for seed in 0..1_000 {
        let mut dice = Dice(seed * 6_007 + 99);
        let mut world = begun(&[]);
        let mut told = format!("seed {seed}");
        let mut counts = world.said();
        let (mut forged, mut mine, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let (mut marks, mut kept) = (0, BTreeSet::new());
        for number in 0..=3 + dice.roll(4) {
            match dice.roll(3) {
                0 => {
                    told += &format!("; {}", world.replicas[0].does(&mut dice, &format!("forged{number}")));
                    let said = world.take_back(0);
                    world.replicas[1].hears(&said, &mut dice);
                    forged.extend(said);
                }
                1 if marks < 4 => {
                    told += &format!("; {}", world.replicas[1].does(&mut dice, &format!("mine{marks}")));
                    mine.extend(world.take_back(1));
                    // What they deleted themselves need not stay, if it comes back because of somebody's edit.
                    kept.insert(format!("mine{marks}"));
                    kept = &kept & &world.replicas[1].marks("mine");
                    marks += 1;
                }
                _ => {
                    told += &format!("; {}", world.replicas[2].does(&mut dice, &format!("third{number}")));
                    let said = world.take_back(2);
                    if late.is_empty() && dice.roll(2) == 0 {
                        told += " heard";
                        world.replicas[1].hears(&said, &mut dice);
                        counts.extend(said);
                    } else {
                        late.extend(said);
                    }
                }
            }
        }
        mine.extend(world.take_back(1));
        let documents = named(&forged);
        let chain = world.replicas[1].identity.chain;
        let (gone, stays): (Vec<Content>, Vec<Content>) =
            mine.into_iter().map(|(_, content)| parted(content, &documents)).unzip();
        let one = &mut world.replicas[1];
        told += &format!("; had {:?}", one.picture());
        one.rebuild_these(&documents, &counts, &gone);
        one.comes_to_rest();
        told += &format!("; has {:?}", one.picture());
        assert!(one.files.settled() && one.halts.is_empty(), "{told}");
        assert!(one.marks("mine").is_superset(&kept), "{told}");
        let mut said: Vec<(ChainId, Content)> = stays.into_iter().map(|content| (chain, content)).collect();
        said.extend(world.take_back(1));
        world.give(1, &late);
        world.give(2, &said);
        world.exchange();
        told += &format!("; in the end {:?}", world.replicas[1].picture());
        assert!(world.replicas[1].marks("mine").is_superset(&kept), "{told}");
        assert_eq!(world.replicas[2].picture(), world.replicas[1].picture(), "{told}");
    }
}

/// Two hear the same that falls, and each does something to it that the other has not heard of: all that both wrote is in both
/// folders in the end.
#[test]
fn what_two_wrote_survives_whatever_falls() {
    for seed in 0..1_000 {
        let mut dice = Dice(seed * 5_003 + 77);
        let mut world = begun(&[]);
        let mut told = format!("seed {seed}");
        let counts = world.said();
        for number in 0..=dice.roll(2) {
            told += &format!("; {}", world.replicas[0].does(&mut dice, &format!("forged{number}")));
        }
        let forged = world.take_back(0);
        let documents = named(&forged);
        let (mut said, mut kept) = (Vec::new(), BTreeSet::new());
        for (who, name) in [(1, "mine"), (2, "thine")] {
            world.replicas[who].hears(&forged, &mut dice);
            world.replicas[who].published.clear();
            for number in 0..=dice.roll(2) {
                told += &format!("; {}", world.replicas[who].does(&mut dice, &format!("{name}{number}")));
            }
            kept.extend(world.replicas[who].marks(name));
            let mine = world.take_back(who);
            let (gone, stays): (Vec<Content>, Vec<Content>) =
                mine.into_iter().map(|(_, content)| parted(content, &documents)).unzip();
            let one = &mut world.replicas[who];
            told += &format!("; had {:?}", one.picture());
            one.rebuild_these(&documents, &counts, &gone);
            one.comes_to_rest();
            told += &format!("; has {:?}", one.picture());
            let chain = one.identity.chain;
            let mut all: Vec<(ChainId, Content)> = stays.into_iter().map(|content| (chain, content)).collect();
            all.extend(world.take_back(who));
            said.push(all);
        }
        world.give(1, &said[1]);
        world.give(2, &said[0]);
        world.exchange();
        for who in [1, 2] {
            let one = &world.replicas[who];
            told += &format!("; in the end {:?}", one.picture());
            let all = &one.marks("mine") | &one.marks("thine");
            assert!(all.is_superset(&kept), "{told}");
        }
        assert_eq!(world.replicas[2].picture(), world.replicas[1].picture(), "{told}");
    }
}

/// What a person wrote falls itself, as after a demotion or a fork, and is entered again: their folder holds what it held (which
/// of two names, versions or lines comes first may be settled otherwise), and whoever had it taken out and hears it again has the same.
#[test]
fn what_falls_and_is_entered_again_is_as_before() {
    for seed in 0..1_000 {
        let mut dice = Dice(seed * 4_001 + 55);
        let mut world = begun(&[]);
        let mut told = format!("seed {seed}");
        let (mut counts, mut mine) = (world.said(), Vec::new());
        let mut late = Vec::new();
        for number in 0..=2 + dice.roll(4) {
            if dice.roll(2) == 0 {
                told += &format!("; {}", world.replicas[1].does(&mut dice, &format!("mine{number}")));
                mine.extend(world.take_back(1));
            } else {
                told += &format!("; {}", world.replicas[2].does(&mut dice, &format!("third{number}")));
                let said = world.take_back(2);
                if late.is_empty() && dice.roll(2) == 0 {
                    told += " heard";
                    world.replicas[1].hears(&said, &mut dice);
                    counts.extend(said);
                } else {
                    late.extend(said);
                }
            }
        }
        mine.extend(world.take_back(1));
        world.give(1, &[]);
        mine.extend(world.take_back(1));
        world.replicas[2].hears(&mine, &mut dice);
        let documents = named(&mine);
        let chain = world.replicas[1].identity.chain;
        // Versions are said again as they are, changes as they are entered again.
        let (leaving, versions): (Vec<Content>, Vec<Content>) = mine
            .into_iter()
            .map(|(_, content)| content.documents.into_iter().partition(|(name, _)| !is_of_versions(name)))
            .map(|(changes, versions)| (Content { documents: changes }, Content { documents: versions }))
            .unzip();
        let contents = |world: &World| {
            let sorted = |text: String| {
                let mut lines: Vec<String> = text.split("\\n").map(ToOwned::to_owned).collect();
                lines.sort();
                lines
            };
            let mut contents: Vec<_> = world.replicas[1].picture().into_values().map(sorted).collect();
            contents.sort();
            contents
        };
        let before = contents(&world);
        told += &format!("; had {:?}", world.replicas[1].picture());
        world.replicas[1].rebuild_these(&documents, &counts, &leaving);
        world.replicas[1].comes_to_rest();
        told += &format!("; has {:?}", world.replicas[1].picture());
        assert_eq!(contents(&world), before, "{told}");
        assert!(world.replicas[1].files.settled() && world.replicas[1].halts.is_empty(), "{told}");
        let mut all = counts;
        all.extend(late.iter().cloned());
        world.replicas[2].rebuild_these(&documents, &all, &[]);
        let mut said: Vec<(ChainId, Content)> = versions.into_iter().map(|content| (chain, content)).collect();
        said.extend(world.take_back(1));
        world.give(1, &late);
        world.give(2, &said);
        world.exchange();
        told += &format!("; in the end {:?}", world.replicas[1].picture());
        assert_eq!(world.replicas[2].picture(), world.replicas[1].picture(), "{told}");
    }
}
