//! What membership costs: a removal at 10, 50 and 150 devices, and histories of many ops.
//!
//! Prints one line a figure: bytes that leave (op and key packet), time to make them, time for another device to open and
//! take them in; time to take in and to evaluate a history. `cargo run --profile ci -p weft-tests --bin bench_members`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_agent_core::epoch::Epoch;
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::invite::InviteSecret;
use weft_agent_core::key_packet::{KeyPacket, recipients};
use weft_agent_core::knock::Admission;
use weft_agent_core::membership::{OpSet, Role, evaluate, evaluate_anew};
use weft_agent_core::op::ops::{self, Author};
use weft_agent_core::op::{Cut, Genesis, OpSigner, Policy, SignedOp};

struct Team {
    rng: ChaCha20Rng,
    founder: LocalIdentity,
    people: Vec<LocalIdentity>,
    set: OpSet,
    epoch: Epoch,
}

fn author<'a>(set: &OpSet, who: &'a LocalIdentity) -> Author<'a> {
    Author { workspace: set.workspace(), parents: set.heads(), signer: OpSigner::Device(&who.device), wall_ms: 1 }
}

impl Team {
    fn of(people: usize) -> Result<Self> {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let founder = LocalIdentity::generate(&mut rng, "Ada", "laptop");
        let genesis = Genesis::found(&founder, "notes", Policy::default(), None, &mut rng).context("genesis")?;
        let mut set = OpSet::new(genesis);
        let (op, epoch) = ops::epoch(&author(&set, &founder), &evaluate(&set), &[], &mut rng).context("epoch")?;
        set.insert(op)?;
        let secret = InviteSecret::generate(&mut rng);
        let op = ops::invite(&author(&set, &founder), &secret, Role::Writer, u64::MAX, u32::MAX, false);
        let invite = op.id();
        set.insert(op)?;
        let key = secret.keys(&set.workspace()).sign;
        let mut team = Self { rng, founder, people: Vec::new(), set, epoch };
        for number in 1..people {
            let who = LocalIdentity::generate(&mut team.rng, &format!("Person {number}"), "desk");
            let admission = Admission::make(&team.set.workspace(), invite, &key, &who);
            let by = author(&team.set, &team.founder);
            let op = ops::welcome(&by, invite, admission, Role::Writer, &team.epoch, &mut team.rng);
            team.set.insert(op.context("welcome")?)?;
            team.people.push(who);
        }
        Ok(team)
    }
}

fn removal(devices: usize) -> Result<()> {
    let mut team = Team::of(devices)?;
    let (Some(gone), Some(other)) = (team.people.last().cloned(), team.people.first().cloned()) else {
        return Ok(());
    };
    let state = evaluate(&team.set);
    let begun = Instant::now();
    let by = author(&team.set, &team.founder);
    let root = gone.root_public.sign;
    let (op, epoch) = ops::remove(&by, &state, root, Cut::default(), &[&team.epoch], &mut team.rng).context("op")?;
    team.set.insert(op.clone())?;
    let after = evaluate(&team.set);
    let packet = KeyPacket::make(&epoch, &recipients(&after), &op, &mut team.rng).context("packet")?.to_bytes();
    let made = begun.elapsed();
    let begun = Instant::now();
    let opened = KeyPacket::parse(&packet)?.open(&team.set.workspace(), &[other.device.kem_secret()])?;
    ensure!(opened.epoch.id() == epoch.id(), "another epoch");
    let opened = begun.elapsed();
    ensure!(
        KeyPacket::parse(&packet)?.open(&team.set.workspace(), &[gone.device.kem_secret()]).is_err(),
        "the removed one holds the new key"
    );
    println!(
        "removal at {devices} devices: op {} bytes, key packet {} bytes; made in {:.2} ms, opened by another in {:.2} ms",
        op.bytes().len(),
        packet.len(),
        made.as_secs_f64() * 1e3,
        opened.as_secs_f64() * 1e3
    );
    Ok(())
}

/// A history of so many ops: roles given and taken by the founder; with `together`, others mint epochs at the same time, so
/// that every second op stands on two heads.
fn history(ops_wanted: usize, together: bool) -> Result<()> {
    let mut team = Team::of(50)?;
    let mut number = 0u32;
    while team.set.len() < ops_wanted {
        number += 1;
        let who = team.people.get(number as usize % 49).cloned().context("somebody")?;
        let role = if (number / 49).is_multiple_of(2) { Role::Admin } else { Role::Writer };
        let state = evaluate(&team.set);
        let by = author(&team.set, &team.founder);
        let root = who.root_public.sign;
        let made = ops::role(&by, &state, root, role, Cut::default(), &[&team.epoch], &mut team.rng);
        let other =
            team.people.get((number as usize + 7) % 49).filter(|_| together).map(|other| {
                ops::epoch(&author(&team.set, other), &state, &[&team.epoch], &mut team.rng).context("epoch")
            });
        team.set.insert(made.context("role")?.0)?;
        if let Some(other) = other {
            team.set.insert(other?.0)?;
        }
    }
    let all: Vec<SignedOp> = team.set.ops().cloned().collect();
    let before = resident();
    let begun = Instant::now();
    let mut set = OpSet::new(team.set.genesis().clone());
    for op in &all {
        set.insert(op.clone())?;
    }
    let taken = begun.elapsed();
    let memory = resident().saturating_sub(before);
    let begun = Instant::now();
    let state = evaluate_anew(&set);
    let evaluated = begun.elapsed();
    ensure!(evaluate(&set).as_ref() == state.as_ref(), "another state");
    println!(
        "history of {} ops{}, {} members: taken in, verified and judged in {:.2} s ({:.0} us an op), {} MB; evaluated anew in {:.1} ms",
        all.len(),
        if together { ", two at a time" } else { "" },
        state.members.len(),
        taken.as_secs_f64(),
        taken.as_secs_f64() * 1e6 / all.len() as f64,
        memory >> 20,
        evaluated.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Memory of this process, in bytes; zero where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = status.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096
}

fn main() -> Result<()> {
    for devices in [10, 50, 150] {
        removal(devices)?;
    }
    for ops in [1_000, 5_000, 20_000] {
        history(ops, false)?;
        history(ops, true)?;
    }
    Ok(())
}
