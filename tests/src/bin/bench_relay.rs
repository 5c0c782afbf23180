//! What a relay costs, beside a bare WebSocket loop and a `nats-server`: processor time of a delivery, its time, memory of an
//! idle connection.
//!
//! Servers take turns within every round, each in a fresh process on one thread, so that whatever else the machine does falls
//! on all of them. Compare by ratio. Every check of the relay is on; its rate and per-address limits are raised, because all
//! clients are this one process on one address.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;
use weft_tests::bench::load::{fan_out, idle, rooms};
use weft_tests::bench::{Contender, RAISED, bare, relay_beside};

/// Descriptors that a process needs besides its connections.
const SPARE_DESCRIPTORS: u64 = 200;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum What {
    /// One writer to many peers, as fast as it goes.
    FanOut,
    /// Many rooms of a few, all writing, as fast as it goes.
    Rooms,
    /// One writer to many peers at a pace that any server bears: how long a delivery takes.
    Paced,
    /// Connections that say nothing.
    Idle,
}

impl What {
    const ALL: [What; 4] = [What::FanOut, What::Rooms, What::Paced, What::Idle];

    fn title(self, arguments: &Arguments) -> String {
        match self {
            What::FanOut => {
                format!("one writer to {} peers, 1 KB: server CPU s per million deliveries", arguments.receivers)
            }
            What::Rooms => format!(
                "{} rooms of {}, all writing 500 B: server CPU s per million deliveries",
                arguments.rooms, arguments.members
            ),
            What::Paced => {
                format!("one writer to {} peers, 1 KB, 100 a second: P95 of a delivery, ms", arguments.receivers)
            }
            What::Idle => format!("{} idle connections: KB of server memory each", arguments.idle),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    Relay,
    Bare,
    Nats,
}

#[derive(Parser)]
#[command(about = "What a relay costs, beside a bare WebSocket loop and a nats-server")]
struct Arguments {
    /// What to measure; everything if not said
    #[arg(long)]
    what: Vec<What>,
    /// Which servers; all three if not said
    #[arg(long)]
    only: Vec<Only>,
    /// How often; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Receivers of the fan-out
    #[arg(long, default_value_t = 50)]
    receivers: u64,
    /// Messages of the fan-out
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Rooms
    #[arg(long, default_value_t = 200)]
    rooms: u64,
    /// Members of each room, all of whom write
    #[arg(long, default_value_t = 5)]
    members: u64,
    /// Messages that each of them writes
    #[arg(long, default_value_t = 250)]
    each: u64,
    /// Idle connections, five to a room
    #[arg(long, default_value_t = 10_000)]
    idle: u64,
    /// Longest that one measurement may take, in seconds
    #[arg(long, default_value_t = 180)]
    seconds_max: u64,
    /// The relay's binary; the one beside this program if not said
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Be the bare loop, at this address
    #[arg(long, hide = true)]
    be_bare: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(listen) = arguments.be_bare {
        return bare::serve(listen);
    }
    allow_descriptors(arguments.idle.max(arguments.rooms * arguments.members) + SPARE_DESCRIPTORS)?;
    let relay = arguments.relay.clone().map_or_else(relay_beside, Ok)?;
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    println!("relay: {} {}", relay.display(), RAISED.join(" "));
    let mut contenders: Vec<Contender> = arguments.only.iter().map(|&only| only.into()).collect();
    if contenders.is_empty() {
        contenders = vec![Contender::Relay, Contender::Bare, Contender::Nats];
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut measured: BTreeMap<(What, Contender), Vec<f64>> = BTreeMap::new();
    let mut run = 0;
    for what in What::ALL.into_iter().filter(|what| arguments.what.is_empty() || arguments.what.contains(what)) {
        println!("\n{}", what.title(&arguments));
        for round in 1..=arguments.rounds.max(1) {
            for &contender in &contenders {
                run += 1;
                // A fresh process each time, so that none inherits another's memory.
                let server = contender.start(folder.path(), run, &relay, &own)?;
                let bound = Duration::from_secs(arguments.seconds_max);
                let (value, line) = runtime
                    .block_on(async { timeout(bound, measure(what, contender, &server, &arguments)).await })
                    .with_context(|| format!("{} took longer than {} s", contender.name(), bound.as_secs()))??;
                println!("  round {round}  {:<12} {line}", contender.name());
                measured.entry((what, contender)).or_default().push(value);
            }
        }
    }
    table(&measured, &arguments);
    Ok(())
}

impl From<Only> for Contender {
    fn from(only: Only) -> Self {
        match only {
            Only::Relay => Contender::Relay,
            Only::Bare => Contender::Bare,
            Only::Nats => Contender::Nats,
        }
    }
}

/// The figure that counts, and a line that says more.
async fn measure(
    what: What,
    contender: Contender,
    server: &weft_tests::bench::Served,
    arguments: &Arguments,
) -> Result<(f64, String)> {
    let loaded = match what {
        What::FanOut => fan_out(contender, server, arguments.receivers, arguments.messages, 1024, None).await?,
        What::Rooms => rooms(contender, server, (arguments.rooms, arguments.members), arguments.each, 500).await?,
        What::Paced => {
            let pace = Duration::from_millis(10);
            fan_out(contender, server, arguments.receivers, arguments.messages.min(500), 1024, Some(pace)).await?
        }
        What::Idle => {
            let bytes = idle(contender, server, arguments.idle).await?;
            return Ok((bytes / 1000.0, format!("{:.2} KB", bytes / 1000.0)));
        }
    };
    let [p50, p95, p99] = loaded.delivery_ms;
    let line = format!(
        "{:.3} CPU s per million; {} deliveries in {:.2} s ({:.0}/s); a delivery P50 {p50:.2} P95 {p95:.2} P99 {p99:.2} ms",
        loaded.cpu_s_per_million(),
        loaded.deliveries,
        loaded.time.as_secs_f64(),
        loaded.deliveries as f64 / loaded.time.as_secs_f64(),
    );
    Ok((if what == What::Paced { p95 } else { loaded.cpu_s_per_million() }, line))
}

fn table(measured: &BTreeMap<(What, Contender), Vec<f64>>, arguments: &Arguments) {
    println!("\nmedians, and the relay's ratio to each");
    for what in What::ALL {
        let of = |contender| measured.get(&(what, contender)).map(|values| median(values));
        let relay = of(Contender::Relay);
        let cells: Vec<String> = [Contender::Relay, Contender::Bare, Contender::Nats]
            .into_iter()
            .filter_map(|contender| {
                let value = of(contender)?;
                let ratio =
                    relay.filter(|_| contender != Contender::Relay).map(|relay| format!(" ({:.2} x)", relay / value));
                Some(format!("{} {value:.2}{}", contender.name(), ratio.unwrap_or_default()))
            })
            .collect();
        if !cells.is_empty() {
            println!("  {}\n    {}", what.title(arguments), cells.join("   "));
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Raises the limit of open files for this process and its children, as far as it may.
fn allow_descriptors(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let may = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        may >= needed,
        "{needed} open files are needed and {may} allowed: raise `ulimit -Hn`, or take fewer with --idle"
    );
    if limit.current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })
            .context("the limit of open files cannot be raised")?;
    }
    Ok(())
}
