//! The loads that are put on a server: one writer to many, many small rooms, a quiet pace, connections that say nothing.
//!
//! Invariant: every load is bounded in messages, and its writers are held back so that no queue overflows: a writer is never
//! more than a window ahead of what its receivers have got. What was measured is from the moment that all are in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Contender, Cost, Figures, Peer, PeerReader, PeerWriter, Served};

/// Messages that the writer of the fan-out may be ahead of its receivers.
const WINDOW: u64 = 256;
/// Messages that each member of a room may be ahead of what the others sent.
const ROOM_WINDOW: u64 = 64;
/// Clients that enter at the same time.
const ENTERING: usize = 16;

/// What a load did to a server.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Messages that arrived, one a receiver.
    pub deliveries: u64,
    /// How long it took.
    pub time: Duration,
    /// Processor seconds of the server.
    pub cpu_s: f64,
    /// Delivery times in milliseconds: P50, P95, P99.
    pub delivery_ms: [f64; 3],
}

impl Loaded {
    /// Processor seconds of the server for a million deliveries.
    #[must_use]
    pub fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s / self.deliveries.max(1) as f64 * 1e6
    }
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

/// Enters clients `0..count`, several at a time; `room` tells where each belongs. In order of their numbers.
async fn enter(contender: Contender, address: &str, count: u64, room: impl Fn(u64) -> u64) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    let mut entering = JoinSet::new();
    let mut next = 0;
    while peers.len() < usize::try_from(count)? {
        while next < count && entering.len() < ENTERING {
            let (address, room, number) = (address.to_owned(), room(next), next);
            entering.spawn(async move { (number, Peer::enter(contender, &address, room, number).await) });
            next += 1;
        }
        let (number, peer) = entering.join_next().await.context("nobody enters")??;
        peers.push((number, peer?));
    }
    peers.sort_by_key(|(number, _)| *number);
    Ok(peers.into_iter().map(|(_, peer)| peer).collect())
}

/// Reads `messages`, counts each, and keeps the time of every `sample`th. A payload begins with when it was written.
async fn read(
    mut reader: PeerReader,
    messages: u64,
    sample: u64,
    epoch: Instant,
    delivered: Arc<Delivered>,
) -> Result<(Vec<Duration>, PeerReader)> {
    let (mut got, mut times) = (0, Vec::new());
    while got < messages {
        reader
            .next(|payload| {
                got += 1;
                delivered.add(64);
                if got % sample == 0
                    && let Some(sent) = payload.first_chunk::<8>()
                {
                    times.push(epoch.elapsed().saturating_sub(Duration::from_micros(u64::from_be_bytes(*sent))));
                }
            })
            .await?;
    }
    Ok((times, reader))
}

fn stamped(bytes: usize, epoch: Instant) -> Bytes {
    let mut payload = vec![7; bytes.max(8)];
    let now = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
    if let Some(stamp) = payload.first_chunk_mut::<8>() {
        *stamp = now.to_be_bytes();
    }
    payload.into()
}

/// One writer to `receivers` others, `bytes` a message. `pace`: the time between messages; without one, as fast as it goes.
pub async fn fan_out(
    contender: Contender,
    server: &Served,
    receivers: u64,
    messages: u64,
    bytes: usize,
    pace: Option<Duration>,
) -> Result<Loaded> {
    let mut peers = enter(contender, server.address(), receivers + 1, |_| 0).await?;
    let (mut writer, mut own) = peers.pop().context("nobody entered")?.split();
    // Who reads nothing is closed sooner or later.
    let drain = tokio::spawn(async move { while own.next(|_| ()).await.is_ok() {} });
    let delivered = Arc::new(Delivered::default());
    let epoch = Instant::now();
    let (mut reading, mut writers) = (JoinSet::new(), Vec::new());
    for peer in peers {
        let (quiet, reader) = peer.split();
        writers.push(quiet);
        let sample = if pace.is_some() { 1 } else { 16 };
        reading.spawn(read(reader, messages, sample, epoch, delivered.clone()));
    }
    let before = Cost::of(server.pid())?;
    let started = Instant::now();
    let mut next = tokio::time::Instant::now();
    for sent in 1..=messages {
        writer.feed(&stamped(bytes, epoch)).await?;
        if let Some(pace) = pace {
            writer.flush().await?;
            next += pace;
            tokio::time::sleep_until(next).await;
        } else if sent % 32 == 0 {
            writer.flush().await?;
            delivered.at_least(sent.saturating_sub(WINDOW) * receivers).await;
        }
    }
    writer.flush().await?;
    let mut figures = Figures::new()?;
    while let Some(done) = reading.join_next().await {
        done.context("a receiver")??.0.into_iter().for_each(|time| figures.record(time));
    }
    let time = started.elapsed();
    drain.abort();
    loaded(server, before, messages * receivers, time, &figures)
}

/// `rooms` rooms of `members`, all of whom write `each` messages of `bytes`.
pub async fn rooms(
    contender: Contender,
    server: &Served,
    (rooms, members): (u64, u64),
    each: u64,
    bytes: usize,
) -> Result<Loaded> {
    let peers = enter(contender, server.address(), rooms * members, |number| number / members).await?;
    let others = members.saturating_sub(1);
    let epoch = Instant::now();
    let before = Cost::of(server.pid())?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for peer in peers {
        tasks.spawn(async move {
            let (writer, reader) = peer.split();
            let mine = Arc::new(Delivered::default());
            let reading = tokio::spawn(read(reader, each * others, 16, epoch, mine.clone()));
            let writer = write_held_back(writer, &mine, (each, others), bytes, epoch).await?;
            let (times, reader) = reading.await.context("a reader")??;
            anyhow::Ok((times, writer, reader))
        });
    }
    let mut figures = Figures::new()?;
    // Kept until everybody is done: an early leaver would make the others' messages fewer.
    let mut held = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (times, writer, reader) = done.context("a member")??;
        times.into_iter().for_each(|time| figures.record(time));
        held.push((writer, reader));
    }
    loaded(server, before, rooms * members * each * others, started.elapsed(), &figures)
}

async fn write_held_back(
    mut writer: PeerWriter,
    mine: &Delivered,
    (each, others): (u64, u64),
    bytes: usize,
    epoch: Instant,
) -> Result<PeerWriter> {
    for sent in 1..=each {
        writer.feed(&stamped(bytes, epoch)).await?;
        if sent % 8 == 0 {
            writer.flush().await?;
            // The others of the room write as much as we do: what came in tells how far everybody is.
            mine.at_least(sent.saturating_sub(ROOM_WINDOW) * others).await;
        }
    }
    writer.flush().await?;
    Ok(writer)
}

fn loaded(server: &Served, before: Cost, deliveries: u64, time: Duration, figures: &Figures) -> Result<Loaded> {
    let cpu_s = Cost::of(server.pid())?.cpu_s - before.cpu_s;
    let delivery_ms = [0.5, 0.95, 0.99].map(|quantile| figures.quantile_ms(quantile));
    Ok(Loaded { deliveries, time, cpu_s, delivery_ms })
}

/// Bytes of memory that the server has for each of `count` connections, five to a room, that say nothing.
pub async fn idle(contender: Contender, server: &Served, count: u64) -> Result<f64> {
    // What a server holds after its first connections is not a connection's.
    let warm = enter(contender, server.address(), 20, |number| u64::MAX - number / 5).await?;
    let before = Cost::of(server.pid())?;
    let held = enter_more(contender, server.address(), count).await?;
    let after = Cost::of(server.pid())?;
    drop((warm, held));
    Ok(after.rss_kib.saturating_sub(before.rss_kib) as f64 * 1024.0 / count.max(1) as f64)
}

/// As [`enter`], under numbers that no others have.
async fn enter_more(contender: Contender, address: &str, count: u64) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    let mut entering = JoinSet::new();
    for number in 0..count {
        if entering.len() >= ENTERING {
            let entered: Result<Peer> = entering.join_next().await.context("nobody enters")??;
            peers.push(entered?);
        }
        let address = address.to_owned();
        entering.spawn(async move { Peer::enter(contender, &address, number / 5, 1_000_000 + number).await });
    }
    while let Some(entered) = entering.join_next().await {
        peers.push(entered??);
    }
    Ok(peers)
}
