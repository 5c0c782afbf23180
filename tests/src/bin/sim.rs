//! The simulator's command: runs seeds, replays one with its trace, shrinks what fails.
//!
//! `cargo sim -- --seeds 0..1000 --jobs 2`, `cargo sim -- --seed 17 --trace`, `cargo sim -- --seed 17 --shrink`.
//! Spec: docs/simulation.md.

use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use weft_agent_core::workspace::Workspace;
use weft_tests::sim::plan::Case;
use weft_tests::sim::profile::NAMES;
use weft_tests::sim::run::{Figures, run, shrink};
use weft_tests::sim::sabotage::{self, Sabotage};
use weft_tests::sim::witness::Violation;

/// Runs the shipped cores in a seeded world of virtual time.
#[derive(Parser)]
struct Arguments {
    /// Run one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these seeds: A..B.
    #[arg(long, value_parser = range, default_value = "0..200")]
    seeds: Range<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only this kind of trouble, instead of the one each seed draws.
    #[arg(long)]
    profile: Option<String>,
    /// Print everything that happens (to standard error).
    #[arg(long)]
    trace: bool,
    /// Delete events of a failing case as long as it fails, and print what is left.
    #[arg(long)]
    shrink: bool,
    /// Run every seed twice and compare the digests.
    #[arg(long)]
    twice: bool,
    /// Switch a defence off.
    #[arg(long)]
    sabotage: Option<String>,
    /// Stop after so many failures.
    #[arg(long, default_value_t = 20)]
    failures: usize,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("give a range like 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(from)?..number(to)?)
}

/// What all runs came to.
#[derive(Default)]
struct Total {
    runs: u64,
    steps: u64,
    markers: u64,
    lost_batches: u64,
    overflows: u64,
    settle_ms_max: u64,
    deceived: u64,
    lied: u64,
    failed: Vec<(u64, Violation)>,
}

impl Total {
    fn add(&mut self, seed: u64, result: Result<Figures, Violation>) {
        self.runs += 1;
        match result {
            Ok(figures) => {
                self.steps += figures.steps;
                self.markers += figures.markers as u64;
                self.lost_batches += figures.lost_batches;
                self.overflows += figures.overflows;
                self.deceived += figures.deceived as u64;
                self.lied += figures.lied.iter().sum::<u64>();
                self.settle_ms_max = self.settle_ms_max.max(figures.settle_ms);
            }
            Err(violation) => self.failed.push((seed, violation)),
        }
    }
}

fn attempt(arguments: &Arguments, case: &Case, sabotage: Sabotage) -> Result<Figures, Violation> {
    let first = run::<Workspace>(case, sabotage, arguments.trace)?;
    if arguments.twice {
        let second = run::<Workspace>(case, sabotage, false)?;
        if second.digest != first.digest {
            return Err(Violation { oracle: "digest", detail: "the same case gave two digests".to_owned() });
        }
    }
    Ok(first)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let sabotage = match arguments.sabotage.as_deref() {
        None => Sabotage::default(),
        Some(name) => Sabotage::named(name)
            .ok_or_else(|| anyhow::anyhow!("no such defence: {name}; there are {}", sabotage::NAMES.join(", ")))?,
    };
    let profile = arguments.profile.as_deref();
    if let Some(name) = profile.filter(|name| !NAMES.contains(name)) {
        anyhow::bail!("no such profile: {name}; there are {}", NAMES.join(", "));
    }
    if !arguments.trace {
        // A panic is reported with its seed; its backtrace comes with --trace.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let (next, total, started) = (AtomicU64::new(seeds.start), Mutex::new(Total::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let Some(case) = Case::draw(seed, profile) else { return };
                    let result = attempt(&arguments, &case, sabotage);
                    if let Err(violation) = &result {
                        let name = case.profile.name;
                        let _ = writeln!(
                            std::io::stderr(),
                            "seed {seed} ({name}) breaks {}: {}",
                            violation.oracle,
                            violation.detail
                        );
                    }
                    if let Ok(mut total) = total.lock() {
                        total.add(seed, result);
                        if total.failed.len() >= arguments.failures {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let Ok(mut total) = total.into_inner() else { anyhow::bail!("a thread of the simulator died") };
    total.failed.sort_by_key(|(seed, _)| *seed);
    if arguments.shrink
        && let Some((seed, violation)) = total.failed.first()
        && let Some(case) = Case::draw(*seed, profile)
    {
        print_case(&shrink::<Workspace>(&case, sabotage, violation.oracle), violation.oracle)?;
    }
    print_total(&total, started.elapsed().as_secs_f64())?;
    Ok(if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_case(case: &Case, oracle: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "seed {} breaks {oracle} with {} events:", case.seed, case.events.len())?;
    for (index, seat) in case.seats.iter().enumerate() {
        writeln!(out, "  h{index} {seat:?}")?;
    }
    for event in &case.events {
        writeln!(out, "  {:>6} ms h{} {:?}", event.at_ms, event.host, event.what)?;
    }
    Ok(())
}

fn print_total(total: &Total, seconds: f64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let runs = total.runs.max(1);
    writeln!(
        out,
        "{} seeds in {seconds:.1} s ({:.1} ms a seed): {} steps, {} markers, {} batches lost to crashes, {} queues \
         overflowed, {} lies of relays, {} people deceived for a while, settled after at most {} ms, {} failed",
        total.runs,
        seconds * 1000.0 / runs as f64,
        total.steps,
        total.markers,
        total.lost_batches,
        total.overflows,
        total.lied,
        total.deceived,
        total.settle_ms_max,
        total.failed.len(),
    )?;
    if !total.failed.is_empty() {
        let mut oracles = std::collections::BTreeMap::<&str, Vec<u64>>::new();
        for (seed, violation) in &total.failed {
            oracles.entry(violation.oracle).or_default().push(*seed);
        }
        for (oracle, seeds) in oracles {
            writeln!(out, "  {oracle}: {seeds:?}")?;
        }
    }
    Ok(())
}
