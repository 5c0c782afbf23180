//! What must hold in the end, after everything was healed and time has passed.
//!
//! Each oracle is one function over the world. Spec: docs/simulation.md#oracles.

mod documents;

use std::collections::{BTreeMap, BTreeSet};

use weft_agent_core::id::RootKey;
use weft_agent_core::membership::Role;
use weft_agent_core::store::{Read, Table};
use weft_agent_core::workspace::command::State;

use super::folder::{Folder, Node};
use super::host::{Host, Phase};
use super::machine::Machine;
use super::witness::{Fate, Violation, hex, markers, member_name};
use super::world::World;
use super::world::malice::is_forged;

type Verdict = Result<(), Violation>;

fn broken(oracle: &'static str, detail: String) -> Verdict {
    Err(Violation { oracle, detail })
}

/// The hosts that are members in the end.
pub fn members<M>(world: &World<M>) -> impl Iterator<Item = (usize, &Host<M>)> {
    let void = |index: usize| is_void(world, index);
    world.hosts.iter().enumerate().filter(move |(index, host)| host.phase == Phase::Active && !void(*index))
}

/// Whether a host is none of the members that the founder, whom nobody removes, sees: whoever let it in was removed at the
/// same time.
pub fn is_void<M>(world: &World<M>, index: usize) -> bool {
    if world.case.profile.removals == 0 && world.case.profile.former == 0 {
        return false;
    }
    let founder = world.hosts.first().and_then(|host| host.status.as_ref());
    let name = member_name(index);
    founder.is_some_and(|status| status.members.iter().all(|member| member.name != name))
}

/// Whether every member says that nothing is left to do, and no shell has anything under way.
pub fn settled<M>(world: &World<M>) -> bool {
    // Whoever left while nobody was there was heard by nobody: the last member waits for it with good reason. But whoever was
    // removed by somebody who was being removed may still be in.
    let is_in = |host: &&Host<M>| {
        let knows = host.status.as_ref().is_some_and(|status| status.state != State::Left);
        host.phase == Phase::Active || host.phase == Phase::Left && host.machine.is_some() && knows
    };
    let alone = world.hosts.iter().filter(is_in).count() <= 1;
    world.hosts.iter().enumerate().all(|(index, host)| match host.phase {
        Phase::Active if is_void(world, index) => true,
        Phase::Outside => !host.waits_for_link,
        Phase::Joining => false,
        Phase::Left => true,
        Phase::Active => {
            let idle = host.jobs.is_empty() && host.told.is_empty() && host.dirty.is_empty() && !host.missed;
            idle && host.admitted && host.status.as_ref().is_some_and(|status| status.settled || alone)
        }
    })
}

/// What a host that is not settled says of itself.
pub fn unsettled<M>(world: &World<M>) -> String {
    let mut lines = Vec::new();
    for (index, host) in world.hosts.iter().enumerate() {
        let Some(status) = &host.status else {
            lines.push(format!("h{index} {:?}: no status", host.phase));
            continue;
        };
        lines.push(format!(
            "h{index} {:?} {:?}: settled {}, gap {}, send {}, receive {}, halt {:?}, links {}, problems {:?}, jobs {}, told {}, dirty {}, missed {}",
            host.phase,
            status.state,
            status.settled,
            status.frontier_gap,
            status.pending_send,
            status.pending_receive,
            status.halt,
            status.links.len(),
            status.problems,
            host.jobs.len(),
            host.told.len(),
            host.dirty.len(),
            host.missed,
        ));
    }
    lines.join("\n")
}

/// Every oracle of the end.
///
/// # Errors
/// The first that does not hold.
pub fn check<M: Machine>(world: &World<M>) -> Verdict {
    healthy(world)?;
    same_folders(world)?;
    nothing_forged(world)?;
    nothing_lost(world)?;
    nothing_twice(world)?;
    documents::same(world)?;
    same_rows(world, "ops", Table::Ops, 32)?;
    same_rows(world, "frontier", Table::Envelopes, 32)?;
    same_members(world)
}

/// What an honest agent refuses, or is refused, because two things happened at once: a peer left or took its own place
/// while something was on its way to it, and a newcomer spoke before its welcome came.
const RACES: [&str; 4] = ["no-such-peer", "not-in-room", "replaced", "unknown device"];

/// What does not count where members are removed while they, or others who do not know it, go on writing.
const VOID: [&str; 2] = ["beyond the cut of its author's removal", "built on something that does not count"];

/// Nobody has a problem, refused anything, or waits for anybody.
fn healthy<M: Machine>(world: &World<M>) -> Verdict {
    for (index, host) in members(world) {
        let Some(status) = &host.status else {
            return broken("healthy", format!("host {index} gives no status"));
        };
        if world.case.profile.has_liar() {
            blames_nobody_else(world, index, &status.problems)?;
            continue;
        }
        let told = |problem: &&String| world.case.profile.damages == 0 || !problem.contains("damaged");
        if status.problems.iter().any(|problem| told(&problem)) {
            return broken("healthy", format!("host {index} has problems: {:?}", status.problems));
        }
        if world.case.profile.lies > 0 {
            // What relays lied about was refused, for whatever reason.
            continue;
        }
        let removes = world.case.profile.removals > 0;
        let known = |reason: &str| RACES.contains(&reason) || (removes && VOID.contains(&reason));
        if status.rejected.keys().any(|reason| !known(reason)) {
            return broken("healthy", format!("host {index} refused: {:?}", status.rejected));
        }
    }
    Ok(())
}

/// Where a member lies people may be told so, of that one alone. Where who was removed does, nobody may be able to tell who
/// it was.
fn blames_nobody_else<M: Machine>(world: &World<M>, index: usize, problems: &[String]) -> Verdict {
    let (profile, all) = (&world.case.profile, 0..world.hosts.len());
    let liar = member_name(profile.liar());
    let blames = |problem: &&String| {
        let honest = all.clone().any(|other| other != profile.liar() && problem.contains(&member_name(other)));
        !problem.contains(&liar) && (honest || profile.former == 0)
    };
    match problems.iter().find(blames) {
        Some(problem) => broken("blame", format!("host {index} is told: {problem}")),
        None => Ok(()),
    }
}

/// Nothing of a liar's checkpoint is left, and whoever was shown any of it is told whose it was.
fn nothing_forged<M: Machine>(world: &World<M>) -> Verdict {
    let liar = member_name(world.case.profile.liar());
    for (index, host) in members(world).filter(|_| world.case.profile.poison) {
        if let Some((path, _)) = host.folder.iter().find(|(path, node)| is_forged(path, node)) {
            return broken("forged", format!("host {index} holds what a liar forged, at {path}"));
        }
        let problems = host.status.as_ref().map(|status| status.problems.as_slice()).unwrap_or_default();
        if host.was_shown_forged && !problems.iter().any(|problem| problem.contains(&liar)) {
            return broken("blame", format!("host {index} was shown what a liar forged, and is not told whose it was"));
        }
    }
    Ok(())
}

/// All members' folders are the same, byte for byte.
fn same_folders<M: Machine>(world: &World<M>) -> Verdict {
    let mut hosts = members(world);
    let Some((first_index, first)) = hosts.next() else { return Ok(()) };
    for (index, host) in hosts {
        if let Some(difference) = difference(&first.folder, &host.folder) {
            return broken("folders", format!("hosts {first_index} and {index}: {difference}"));
        }
    }
    Ok(())
}

/// Where two folders differ; `None` if nowhere.
#[must_use]
pub fn difference(one: &Folder, other: &Folder) -> Option<String> {
    let paths: BTreeSet<_> = one.iter().chain(other.iter()).map(|(path, _)| path).collect();
    for path in paths {
        let (left, right) = (one.get(path), other.get(path));
        let same = match (left, right) {
            (Some(Node::File { bytes, executable, .. }), Some(Node::File { bytes: b, executable: e, .. })) => {
                bytes == b && executable == e
            }
            (left, right) => left == right,
        };
        if !same {
            return Some(format!("{path}: {} against {}", describe(left), describe(right)));
        }
    }
    None
}

fn describe(node: Option<&Node>) -> String {
    match node {
        None => "nothing".to_owned(),
        Some(Node::Folder) => "a folder".to_owned(),
        Some(Node::Symlink(target)) => format!("a link to {target}"),
        Some(Node::File { bytes, executable, .. }) => {
            let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(400)).unwrap_or_default()).into_owned();
            format!("a file of {} bytes (executable {executable}): {text:?}", bytes.len())
        }
    }
}

/// Every marker that a member's user wrote and nobody removed is somewhere in the folder.
fn nothing_lost<M: Machine>(world: &World<M>) -> Verdict {
    let Some((_, host)) = members(world).next() else { return Ok(()) };
    let mut found = BTreeSet::new();
    for (_, node) in host.folder.iter() {
        if let Node::File { bytes, .. } = node {
            found.extend(markers(bytes));
        }
    }
    let active: BTreeSet<usize> = members(world).map(|(index, _)| index).collect();
    for (number, marker) in world.witness.markers.iter().enumerate() {
        if marker.fate == Fate::Live && active.contains(&marker.host) && !found.contains(&number) {
            let when = marker.at_us / 1000;
            return broken(
                "lost",
                format!("marker {number:06}, written at host {} at {when} ms, is gone", marker.host),
            );
        }
    }
    Ok(())
}

/// No line stands twice in one file, where nothing but crashes and broken connections happened: every line is written once, and
/// what our own writes brought is never entered as an edit.
fn nothing_twice<M: Machine>(world: &World<M>) -> Verdict {
    let profile = &world.case.profile;
    if profile.restores > 0 || profile.removals > 0 || profile.has_liar() || profile.lies > 0 {
        return Ok(());
    }
    for (index, host) in members(world) {
        for (path, node) in host.folder.iter() {
            let Node::File { bytes, .. } = node else { continue };
            if let Some(pair) = markers(bytes).windows(2).find(|pair| pair.first() == pair.last()) {
                return broken(
                    "twice",
                    format!("marker {:06} stands twice in {path} of host {index}", pair.first().copied().unwrap_or(0)),
                );
            }
        }
    }
    Ok(())
}

/// All members hold the same rows of a table, by the last `key_bytes` of their keys: ops stand in order of arrival.
fn same_rows<M: Machine>(world: &World<M>, oracle: &'static str, table: Table, key_bytes: usize) -> Verdict {
    let rows = |host: &Host<M>| -> BTreeMap<Vec<u8>, [u8; 32]> {
        let rows = host.disk.store.scan(table, &[], None, usize::MAX);
        let name = |key: &[u8]| key.get(key.len().saturating_sub(key_bytes)..).unwrap_or_default().to_vec();
        rows.into_iter().map(|(key, value)| (name(&key), *blake3::hash(&value).as_bytes())).collect()
    };
    let mut hosts = members(world);
    let Some((first_index, first)) = hosts.next() else { return Ok(()) };
    let first_rows = rows(first);
    for (index, host) in hosts {
        let rows = rows(host);
        let differs = |key: &&Vec<u8>| first_rows.get(*key) != rows.get(*key);
        if let Some(key) = first_rows.keys().chain(rows.keys()).find(differs) {
            let (left, right) = (first_rows.contains_key(key), rows.contains_key(key));
            let detail = format!("hosts {first_index} ({left}) and {index} ({right}) differ at {}", hex(key));
            return broken(oracle, detail);
        }
    }
    Ok(())
}

/// All members see the same members: those who joined, and of those who left at most the ones whose word of it reached
/// nobody.
fn same_members<M: Machine>(world: &World<M>) -> Verdict {
    let seen = |host: &Host<M>| -> Vec<(RootKey, String, Role)> {
        let members = host.status.as_ref().map(|status| status.members.as_slice()).unwrap_or_default();
        let mut seen: Vec<_> = members.iter().map(|member| (member.root, member.name.clone(), member.role)).collect();
        seen.sort();
        seen
    };
    let present = members(world).count();
    let left = world.hosts.iter().filter(|host| host.phase == Phase::Left).count();
    let mut first: Option<Vec<(RootKey, String, Role)>> = None;
    for (index, host) in members(world) {
        let members = seen(host);
        if members.len() < present || members.len() > present + left {
            let count = members.len();
            return broken("members", format!("host {index} sees {count} members; {present} joined, {left} left"));
        }
        if *first.get_or_insert_with(|| members.clone()) != members {
            return broken("members", format!("host {index} sees other members than the first: {members:?}"));
        }
    }
    Ok(())
}
