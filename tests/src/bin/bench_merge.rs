//! Coming back: a device with offline edits against others', and a room full of devices that all edit.
//!
//! The first: two agents, one text; one of them is paused while each edits lines of its own `--edits` times; the time goes
//! from `weft resume` to two equal folders. The second, with `--devices`: so many agents on one relay, each of which edits
//! a file of its own and one line of a file that all share, `--edits` times; the time goes from the first save to the last
//! folder being the same.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use weft_tests::bench::Figures;
use weft_tests::e2e::{Agent, Editor, Stage, wait_same};

#[derive(Parser)]
#[command(about = "A device comes back with offline edits; or a room in which everybody edits")]
struct Arguments {
    /// Edits on each side, or by each device.
    #[arg(long, default_value_t = 100)]
    edits: u32,
    /// How often the first is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measure a room of so many devices instead.
    #[arg(long)]
    devices: Option<usize>,
}

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// So that each save is an edit of its own: longer than an agent waits for more of a burst.
const BETWEEN: Duration = Duration::from_millis(120);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.devices {
        Some(devices) => crowd(devices, arguments.edits),
        None => back(arguments.edits, arguments.rounds),
    }
}

/// A text in which each side has its own half, one line an edit.
fn text(edits: u32, mine: &dyn Fn(u32) -> String, theirs: &dyn Fn(u32) -> String) -> String {
    (0..edits).map(&mine).chain((0..edits).map(&theirs)).collect()
}

fn line(side: &str, round: u32, number: u32) -> String {
    format!("{:<79}\n", format!("{side} {number:04}, round {round}"))
}

fn back(edits: u32, rounds: u32) -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { bail!("no team") };
    let whole = |round| text(edits, &|number| line("ada", round, number), &|number| line("ben", round, number));
    ada.write("text.md", whole(0))?;
    wait_same(&[ada, ben])?;
    let mut figures = Figures::new()?;
    for round in 1..=rounds {
        ben.run_here(["pause"])?.expect_code(0)?;
        for edit in 0..edits {
            let done = |number| if number <= edit { round } else { round - 1 };
            let by_ada = text(edits, &|n| line("ada", done(n), n), &|n| line("ben", round - 1, n));
            let by_ben = text(edits, &|n| line("ada", round - 1, n), &|n| line("ben", done(n), n));
            Editor::AtomicRename.save(&ada.folder().join("text.md"), &by_ada)?;
            Editor::AtomicRename.save(&ben.folder().join("text.md"), &by_ben)?;
            std::thread::sleep(BETWEEN);
        }
        let wanted = whole(round);
        let started = Instant::now();
        ben.run_here(["resume"])?.expect_code(0)?;
        for agent in [ada, ben] {
            holds(agent, &wanted, started)?;
        }
        figures.record(started.elapsed());
    }
    println!("{edits} offline edits against {edits} of another's, resume -> both folders equal: {}", figures.line());
    Ok(())
}

/// Looks every millisecond: that is the resolution of the figures.
fn holds(agent: &Agent, wanted: &str, started: Instant) -> Result<()> {
    let path = agent.folder().join("text.md");
    while !std::fs::read(&path).is_ok_and(|bytes| bytes == wanted.as_bytes()) {
        ensure!(started.elapsed() < PATIENCE, "it never came:\n{}", agent.report());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn crowd(devices: usize, edits: u32) -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let names: Vec<String> = (0..devices).map(|number| format!("d{number:02}")).collect();
    let team = stage.team(&relay, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let Some(first) = team.first() else { bail!("no team") };
    let shared = |done: &dyn Fn(usize) -> u32| -> String {
        (0..devices).map(|device| line("shared", done(device), device as u32)).collect()
    };
    first.write("shared.md", shared(&|_| 0))?;
    let all: Vec<&Agent> = team.iter().collect();
    wait_same(&all)?;
    let started = Instant::now();
    for edit in 1..=edits {
        for (number, agent) in team.iter().enumerate() {
            agent.write(&format!("own-{number}.md"), line("own", edit, number as u32))?;
            let path = agent.folder().join("shared.md");
            let before = std::fs::read_to_string(&path)?;
            let after = before.replace(&line("shared", edit - 1, number as u32), &line("shared", edit, number as u32));
            Editor::AtomicRename.save(&path, &after)?;
        }
    }
    let saved = started.elapsed();
    wait_same(&all)?;
    let whole = started.elapsed();
    let text = first.read("shared.md")?;
    let kept = (0..devices).filter(|number| text.contains(&line("shared", edits, *number as u32))).count();
    let sizes: Vec<u64> = team.iter().filter_map(|agent| resident(agent.pid()?)).collect();
    let largest = sizes.iter().max().copied().unwrap_or_default() / 1024;
    println!(
        "{devices} devices, {edits} edits each of an own and of a shared file: saved in {:.1} s, all folders equal after {:.1} s; \
         {kept} of {devices} last lines are there; the largest agent has {largest} MB",
        saved.as_secs_f64(),
        whole.as_secs_f64()
    );
    Ok(())
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
