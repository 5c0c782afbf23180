//! What a relay costs: fan-out from one to many, many small rooms, idle connections.
//!
//! The relay is the library of `weft-relay` in a process of its own. Every check is on; its rate and per-address limits are raised, because all clients are this one process
//! on one address. The writers are held back so that no queue overflows: a writer is at most `WINDOW` messages ahead of what its
//! receivers have got together.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_relay::{Config, Server};
use weft_tests::bench::{Client, Cost, Figures};
use weft_tests::e2e::{Relay, Stage};

/// Messages that a writer may be ahead of its receivers.
const WINDOW: u64 = 256;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// One writer to many peers.
    FanOut,
    /// Many rooms of a few, all writing.
    Rooms,
    /// Connections that say nothing.
    Idle,
}

#[derive(Parser)]
#[command(about = "What a relay costs: fan-out, many rooms, idle connections")]
struct Arguments {
    /// What to measure; everything if not said.
    #[arg(long)]
    what: Option<What>,
    /// Receivers of the fan-out.
    #[arg(long, default_value_t = 50)]
    receivers: u64,
    /// Messages of the fan-out.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Rooms.
    #[arg(long, default_value_t = 200)]
    rooms: u64,
    /// Members of each room, all of whom write.
    #[arg(long, default_value_t = 5)]
    members: u64,
    /// Messages that each of them writes.
    #[arg(long, default_value_t = 500)]
    each: u64,
    /// Idle connections, each in one room of five.
    #[arg(long, default_value_t = 10_000)]
    idle: u64,
    /// A relay that runs elsewhere (host:port); its cost is not measured then.
    #[arg(long)]
    relay: Option<String>,
    /// Be the relay that is measured, at this address.
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
}

/// The relay with the limits raised that one process with thousands of clients would meet first; every check stays on.
fn raised(listen: SocketAddr) -> Config {
    let mut config = Config {
        listen,
        connections_max: 20_000,
        connections_per_ip_max: 20_000,
        token_requests_per_minute: 1_000_000,
        ..Config::default()
    };
    config.settings.messages_per_second = 1_000_000;
    config.settings.messages_burst = 1_000_000;
    config.settings.bytes_per_second = 4_000_000_000;
    config.settings.bytes_burst = 4_000_000_000;
    config.settings.room_peers_max = 51;
    config
}

/// Runs that relay in this process, on one thread, until it is killed.
fn serve(listen: SocketAddr) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let server = Server::bind(raised(listen)).await?;
        println!("weft-relay listening on ws://{}", server.local_addr());
        server.run(std::future::pending()).await;
        Ok(())
    })
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(listen) = arguments.listen {
        return serve(listen);
    }
    let stage = Stage::open()?;
    println!("the relay runs on one thread, with raised limits: {:?}", raised(SocketAddr::from(([127, 0, 0, 1], 0))));
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let wanted = |what: What| arguments.what.is_none_or(|one| one == what);
    for what in [What::FanOut, What::Rooms, What::Idle] {
        if !wanted(what) {
            continue;
        }
        // A fresh process for each, so that none inherits the other's memory.
        let own = match &arguments.relay {
            Some(_) => None,
            None => {
                Some(Relay::start_program(&program, &stage.root().join(format!("relay-{}.log", what as u8)), 0, &[])?)
            }
        };
        let address = match (&own, &arguments.relay) {
            (Some(relay), _) => relay.address().to_owned(),
            (None, Some(address)) => address.clone(),
            (None, None) => bail!("no relay"),
        };
        let pid = own.as_ref().map(Relay::pid);
        match what {
            What::FanOut => runtime.block_on(fan_out(&address, pid, &arguments))?,
            What::Rooms => runtime.block_on(rooms(&address, pid, &arguments))?,
            What::Idle => runtime.block_on(idle(&address, pid, &arguments))?,
        }
    }
    Ok(())
}

fn room_key(number: u64) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(format!("room {number} of {}", std::process::id()).as_bytes()).as_bytes())
}

/// What was delivered so far, and a bell for writers that wait for it.
#[derive(Default)]
struct Delivered {
    count: AtomicU64,
    bell: Notify,
}

impl Delivered {
    fn add(&self, every: u64) {
        if self.count.fetch_add(1, Ordering::AcqRel).is_multiple_of(every) {
            self.bell.notify_waiters();
        }
    }
    async fn at_least(&self, count: u64) {
        while self.count.load(Ordering::Acquire) < count {
            let rung = self.bell.notified();
            if self.count.load(Ordering::Acquire) >= count {
                return;
            }
            // The bell may have rung a moment before we listened.
            drop(tokio::time::timeout(Duration::from_millis(5), rung).await);
        }
    }
}

fn report(name: &str, pid: Option<u32>, before: Option<Cost>, deliveries: u64, time: Duration) -> Result<()> {
    let rate = deliveries as f64 / time.as_secs_f64();
    print!("{name}: {deliveries} deliveries in {:.2} s ({rate:.0}/s)", time.as_secs_f64());
    if let (Some(pid), Some(before)) = (pid, before) {
        let after = Cost::of(pid)?;
        let per_million = (after.cpu_s - before.cpu_s) / deliveries as f64 * 1e6;
        print!(", {per_million:.3} server CPU s per million, {:.1} MB", after.rss_kib as f64 / 1024.0);
    }
    println!();
    Ok(())
}

async fn fan_out(address: &str, pid: Option<u32>, arguments: &Arguments) -> Result<()> {
    let key = room_key(0);
    let mut writer = Client::connect(address, 0).await?;
    let (room, _) = writer.join(&key).await?;
    let delivered = Arc::new(Delivered::default());
    let mut tasks = tokio::task::JoinSet::new();
    let epoch = Instant::now();
    for number in 1..=arguments.receivers {
        let mut client = Client::connect(address, number).await?;
        client.join(&key).await?;
        let (delivered, messages) = (Arc::clone(&delivered), arguments.messages);
        tasks.spawn(async move {
            let mut got = 0;
            let mut times = Vec::new();
            while got < messages {
                if let ServerFrame::Deliver { payload, .. } = client.next().await? {
                    got += 1;
                    delivered.add(64);
                    if got % 16 == 0
                        && let Some(sent) = payload.first_chunk::<8>()
                    {
                        times.push(epoch.elapsed().saturating_sub(Duration::from_micros(u64::from_be_bytes(*sent))));
                    }
                }
            }
            anyhow::Ok(times)
        });
    }
    let before = pid.map(Cost::of).transpose()?;
    let started = Instant::now();
    let (mut sink, mut stream) = writer.into_socket().split();
    // Who reads nothing is closed sooner or later.
    let drain = tokio::spawn(async move { while stream.next().await.is_some_and(|message| message.is_ok()) {} });
    let mut payload = vec![7; 1024];
    for sent in 0..arguments.messages {
        let now = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(stamp) = payload.first_chunk_mut::<8>() {
            *stamp = now.to_be_bytes();
        }
        let frame = ClientFrame::Publish { room, payload: Bytes::copy_from_slice(&payload) };
        sink.feed(Message::Binary(frame.encode())).await.context("publish")?;
        if sent % 32 == 31 {
            sink.flush().await.context("publish")?;
            delivered.at_least((sent + 1).saturating_sub(WINDOW) * arguments.receivers).await;
        }
    }
    sink.flush().await.context("publish")?;
    let mut figures = Figures::new()?;
    while let Some(times) = tasks.join_next().await {
        times.context("a receiver")??.into_iter().for_each(|time| figures.record(time));
    }
    let time = started.elapsed();
    drain.abort();
    let name = format!("one writer to {} peers, 1 KB", arguments.receivers);
    report(&name, pid, before, arguments.messages * arguments.receivers, time)?;
    println!("  time of a message, saturated: {}", figures.line());
    Ok(())
}

async fn rooms(address: &str, pid: Option<u32>, arguments: &Arguments) -> Result<()> {
    let delivered = Arc::new(Delivered::default());
    let mut clients = Vec::new();
    for number in 0..arguments.rooms {
        let key = room_key(1_000_000 + number);
        for member in 0..arguments.members {
            let mut client = Client::connect(address, 100_000 + number * arguments.members + member).await?;
            let (room, _) = client.join(&key).await?;
            clients.push((client, room));
        }
    }
    let before = pid.map(Cost::of).transpose()?;
    let started = Instant::now();
    let (each, expected) = (arguments.each, arguments.each * arguments.members.saturating_sub(1));
    let mut tasks = tokio::task::JoinSet::new();
    for (client, room) in clients {
        let delivered = Arc::clone(&delivered);
        tasks.spawn(async move {
            let (mut sink, mut stream) = client.into_socket().split();
            let mine = Arc::new(Delivered::default());
            let (got, all) = (Arc::clone(&mine), delivered);
            let reading = tokio::spawn(async move {
                let mut left = expected;
                while left > 0 {
                    let Message::Binary(bytes) =
                        stream.next().await.context("the relay hung up")?.context("receive")?
                    else {
                        continue;
                    };
                    if matches!(ServerFrame::decode(bytes), Ok(ServerFrame::Deliver { .. })) {
                        left -= 1;
                        got.add(8);
                        all.add(1024);
                    }
                }
                anyhow::Ok(stream)
            });
            let payload = Bytes::from(vec![9; 500]);
            for sent in 0..each {
                let frame = ClientFrame::Publish { room, payload: payload.clone() };
                sink.feed(Message::Binary(frame.encode())).await.context("publish")?;
                if sent % 8 == 7 {
                    sink.flush().await.context("publish")?;
                    // The others of the room write as much as we do: what came in tells how far everybody is.
                    let others = expected / each.max(1);
                    mine.at_least((sent + 1).saturating_sub(64) * others).await;
                }
            }
            sink.flush().await.context("publish")?;
            let stream = reading.await.context("a reader")??;
            // Kept until everybody is done: an early leaver would make the others' frames fewer.
            anyhow::Ok((sink, stream))
        });
    }
    let mut held = Vec::new();
    while let Some(done) = tasks.join_next().await {
        held.push(done.context("a client")??);
    }
    let time = started.elapsed();
    let deliveries = arguments.rooms * arguments.members * expected;
    report(
        &format!("{} rooms of {}, all writing 500 B", arguments.rooms, arguments.members),
        pid,
        before,
        deliveries,
        time,
    )
}

async fn idle(address: &str, pid: Option<u32>, arguments: &Arguments) -> Result<()> {
    // What a relay holds before the first connection is not a connection's.
    let before = pid.map(Cost::of).transpose()?;
    let mut clients = Vec::new();
    for number in 0..arguments.idle {
        let mut client = Client::connect(address, 1_000_000 + number).await?;
        client.join(&room_key(2_000_000 + number / 5)).await?;
        clients.push(client);
    }
    let Some(pid) = pid else { bail!("the memory of a relay elsewhere cannot be seen") };
    let after = Cost::of(pid)?;
    let grown = after.rss_kib.saturating_sub(before.map_or(0, |before| before.rss_kib));
    println!(
        "{} idle connections: {:.2} KB each ({:.1} MB in all)",
        arguments.idle,
        grown as f64 / arguments.idle.max(1) as f64,
        after.rss_kib as f64 / 1024.0
    );
    drop(clients);
    Ok(())
}
