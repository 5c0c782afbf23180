//! Random scripts on three replicas, random delivery, random crashes: equal folders, nothing lost.

use std::collections::BTreeSet;

use super::world::{Dice, Node, World};
use crate::files::Resume;

/// How many scripts run when nobody asks for more with `WEFT_SEEDS`; `WEFT_SEED` runs a single one.
const SEEDS: u64 = 300;
/// Steps of one script.
const DEEDS: u32 = 60;

/// A word that no merge can cut in two: it begins and ends like no other, and is one word to the diff.
fn marker(number: u32) -> String {
    let edge = char::from_u32(0x4e00 + number).unwrap();
    format!("{edge}mark{number}{edge}")
}

/// The markers in a text. People may end up with two on one line, as when one replaced the line that another removed.
fn markers(text: &str) -> BTreeSet<String> {
    (1..=DEEDS).map(marker).filter(|marker| text.contains(marker)).collect()
}

fn files(world: &World, at: usize) -> Vec<String> {
    let is_file = |(path, node): (&crate::disk::RelPath, &Node)| match node {
        Node::File { .. } => Some(path.to_string()),
        Node::Link(_) | Node::Folder => None,
    };
    world.replicas[at].folder.iter().filter_map(is_file).collect()
}

/// One random deed of a person; markers that it removes go to `removed`.
fn deed(world: &mut World, at: usize, dice: &mut Dice, next: &mut u32, removed: &mut BTreeSet<String>) {
    let all = files(world, at);
    let pick = (!all.is_empty()).then(|| all[dice.roll(all.len())].clone());
    *next += 1;
    let mark = marker(*next);
    let folders = ["", "x/", "y/", "x/z/"];
    let fresh = format!("{}n{}.md", folders[dice.roll(4)], dice.roll(6));
    let replica = &mut world.replicas[at];
    let is_folder = |replica: &super::world::Replica, path: &str| {
        replica.folder.get(&super::world::path(path)) == Some(&Node::Folder)
    };
    match (dice.roll(10), pick) {
        (0 | 1, _) | (_, None) => {
            if !replica.folder.contains_key(&super::world::path(&fresh)) {
                replica.write(&fresh, format!("{mark}\nbody\n"));
            }
        }
        (2..=6, Some(path)) => {
            let text = replica.text(&path);
            let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
            lines.insert(dice.roll(lines.len() + 1), mark);
            replica.write(&path, lines.join("\n") + "\n");
        }
        (7, Some(path)) => {
            let text = replica.text(&path);
            let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
            if !lines.is_empty() {
                removed.extend(markers(&lines.remove(dice.roll(lines.len()))));
                replica.write(&path, lines.join("\n") + "\n");
            }
        }
        (8, Some(path)) => {
            if !is_folder(replica, &fresh) && !replica.folder.contains_key(&super::world::path(&fresh)) {
                replica.rename(&path, &fresh);
            }
        }
        (_, Some(path)) => {
            if dice.roll(3) == 0 {
                removed.extend(markers(&replica.text(&path)));
                replica.remove(&path);
            }
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(3);
    let (mut next, mut removed) = (0, BTreeSet::new());
    for _ in 0..DEEDS {
        let at = dice.roll(3);
        match dice.roll(8) {
            0..=2 => deed(&mut world, at, &mut dice, &mut next, &mut removed),
            3 => {
                world.replicas[at].scan();
                world.replicas[at].resume(Resume::AcceptDeletes);
            }
            4 | 5 => {
                world.collect();
                let missing = world.missing(at);
                if !missing.is_empty() {
                    world.deliver(at, missing[dice.roll(missing.len())]);
                }
            }
            6 => {
                for _ in 0..dice.roll(5) {
                    world.replicas[at].act();
                }
            }
            _ => {
                if dice.roll(4) == 0 {
                    world.replicas[at].act_and_crash();
                } else {
                    world.replicas[at].wait();
                    world.replicas[at].resume(Resume::AcceptDeletes);
                }
            }
        }
    }
    world.settle();
    world.assert_equal();
    let mut left = BTreeSet::new();
    for path in files(&world, 0) {
        left.extend(markers(&world.replicas[0].text(&path)));
    }
    for number in 1..=next {
        let mark = marker(number);
        let written = world_has_written(&world, &mark);
        assert!(!written || left.contains(&mark) || removed.contains(&mark), "seed {seed}: {mark} is lost");
    }
}

/// Whether a marker ever left its author: a deed may have come to nothing (its name was taken).
fn world_has_written(world: &World, mark: &str) -> bool {
    let needle = mark.as_bytes();
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    world.sent.iter().flat_map(|(_, content)| &content.documents).flat_map(|(_, items)| items).any(|item| match item {
        crate::content::Item::Version { bytes: crate::content::VersionBytes::Inline(bytes), .. } => holds(bytes),
        crate::content::Item::Change(bytes) => holds(bytes),
        crate::content::Item::Version { .. } | crate::content::Item::Founded { .. } => false,
    })
}

/// Whatever people do and however it travels, all folders become equal and no line is lost that nobody removed.
#[test]
#[allow(clippy::disallowed_methods, reason = "which scripts run is asked of whoever runs the test")]
fn replicas_converge_and_lose_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (only, count) = (number("WEFT_SEED"), number("WEFT_SEEDS").unwrap_or(SEEDS));
    for seed in only.map_or(1..=count, |seed| seed..=seed) {
        let result = std::panic::catch_unwind(|| run(seed));
        if let Err(error) = result {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(error);
        }
    }
}
