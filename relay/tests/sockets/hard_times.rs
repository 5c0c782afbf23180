//! Those who want to do harm, or have no luck, against the real socket: bounds hold, the error has its name, others go on.
//!
//! Beside `limits.rs`: there each bound by itself, here many clients at once. What takes long takes a few in a usual run, and more
//! if the environment says so: `WEFT_TEST_JOINS` (20,000), `WEFT_TEST_IDLE` (200).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use weft_protocol::admission::token::ErrorAnswer;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_relay::{Config, Settings, TlsFiles};

use crate::client::{Client, DEADLINE, key, relay, roomy, within};
use crate::process::Process;

/// Flags of a relay that one test process loads from one address.
pub(crate) const RAISED: &[&str] = &[
    "--connections-max=30000",
    "--connections-per-ip-max=30000",
    "--token-requests-per-minute=4000000",
    "--messages-per-second=1000000",
];

/// Joins that are on their way before their answers are read.
const JOINS_AT_ONCE: u64 = 50;

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

async fn answers(client: &mut Client, number: u64) {
    client.send(ClientFrame::Ping { number }).await;
    loop {
        if client.frame().await == (ServerFrame::Pong { number }) {
            return;
        }
    }
}

/// Reads until the other side ends the connection; what it said.
async fn until_cut(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = within("being cut off", stream.read_to_end(&mut said)).await;
    said
}

/// A client that floods is read no faster than its rate, is not cut off for it, and a pair beside it exchanges at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_read_at_its_rate_and_disturbs_nobody() {
    let settings = Settings { messages_per_second: 200, messages_burst: 100, ..Settings::default() };
    let (rate, burst) = (u64::from(settings.messages_per_second), u64::from(settings.messages_burst));
    let relay = relay(Config { settings, ..roomy() }).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    let (room, from, _) = a.join(&key(100)).await;
    b.join(&key(100)).await;
    a.frame().await;
    let mut flooder = Client::connect(relay.addr, 3).await;
    let (flooded, _, _) = flooder.join(&key(101)).await;
    let before = relay.watch.figures().received;
    let started = Instant::now();
    let flood = tokio::spawn(async move {
        let payload = Bytes::from(vec![7; 4096]);
        loop {
            // Blocks once the relay reads no more; ended from outside.
            let frame = ClientFrame::Publish { room: flooded, payload: payload.clone() };
            if flooder.ws.send(Message::Binary(frame.encode())).await.is_err() {
                return;
            }
        }
    });
    let mut exchanged = 0;
    // As long as it takes the flood to be well beyond its burst.
    while relay.watch.figures().received - before - exchanged < 2 * burst {
        let payload = Bytes::from(exchanged.to_be_bytes().to_vec());
        a.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
        assert_eq!(b.frame().await, ServerFrame::Deliver { room, from, payload });
        exchanged += 1;
    }
    let read = relay.watch.figures().received - before;
    let allowed = 2 * (burst + rate * (started.elapsed().as_millis() as u64 + 1_000) / 1_000);
    assert!(read <= allowed, "{read} frames were read, {allowed} allowed");
    assert!(!flood.is_finished(), "the flood was cut off");
    flood.abort();
    assert_eq!(relay.watch.figures().resyncs, 0);
}

/// Headers that never end, bodies that stop, TLS that never speaks: each is cut off by its deadline, and meanwhile others get in.
#[tokio::test]
async fn who_drips_bytes_is_cut_off_and_others_get_in() {
    let relay_of = async |tls| relay(Config { tls, header_ms_max: 500, ..roomy() }).await;
    let plain = relay_of(None).await;
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.path().join("cert"), key: folder.path().join("key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let tls = relay_of(Some(files)).await;

    let mut cut = tokio::task::JoinSet::new();
    for addr in [plain.addr, tls.addr] {
        for said in [&b""[..], b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", &[22, 3, 1]] {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(said).await.unwrap();
            cut.spawn(async move { until_cut(stream).await });
        }
    }
    // A byte now and then is no header either.
    let (mut dripping, mut writer) = TcpStream::connect(plain.addr).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        writer.write_all(b"GET / HTTP/1.1\r\nX-Drip: ").await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            every.tick().await;
        }
    });
    cut.spawn(async move {
        let mut said = Vec::new();
        let _ = within("the drip to be cut off", dripping.read_to_end(&mut said)).await;
        said
    });
    // Not disturbed by any of them.
    let mut client = Client::connect(plain.addr, 1).await;
    answers(&mut client, 1).await;
    while let Some(said) = cut.join_next().await {
        assert!(!said.unwrap().starts_with(b"HTTP/1.1 200"));
    }
    within("the drip to end", drip).await.unwrap();

    let mut half = TcpStream::connect(plain.addr).await.unwrap();
    half.write_all(b"POST /v1/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{\"half")
        .await
        .unwrap();
    let said = String::from_utf8(until_cut(half).await).unwrap();
    let answer: ErrorAnswer = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(answer.code(), Code::HandshakeTimeout);
    answers(&mut client, 2).await;
}

/// The relay's memory after many rooms were entered and left is what it was after the first few of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_after_many_joins_is_what_it_was_before() {
    let joins = number("WEFT_TEST_JOINS", 20_000);
    let relay = Process::start(RAISED);
    let mut client = Client::connect(relay.addr, 1).await;
    let mut done = 0u64;
    let mut churn = async |count: u64| {
        for _ in 0..count.div_ceil(JOINS_AT_ONCE) {
            for _ in 0..JOINS_AT_ONCE {
                done += 1;
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&done.to_be_bytes());
                let join = client.join_frame(&SigningKey::from_bytes(&seed));
                let ClientFrame::Join { room, .. } = join else { unreachable!() };
                for frame in [join, ClientFrame::Leave { room }] {
                    client.ws.feed(Message::Binary(frame.encode())).await.unwrap();
                }
            }
            client.ws.flush().await.unwrap();
            for _ in 0..JOINS_AT_ONCE {
                assert!(matches!(client.frame().await, ServerFrame::Joined { peers, .. } if peers.is_empty()));
            }
        }
    };
    churn(1_000).await;
    // Whole connections come and go too.
    for seed in 2..100 {
        Client::connect(relay.addr, seed).await.join(&key(200)).await;
    }
    let before = relay.rss_kib();
    churn(joins).await;
    for seed in 2..200 {
        Client::connect(relay.addr, seed).await.join(&key(200)).await;
    }
    let after = relay.rss_kib();
    println!("{joins} joins: {before} KiB before, {after} KiB after");
    assert!(after < before + 8 * 1024, "{before} KiB before {joins} joins, {after} KiB after");
}

/// Without a free descriptor the relay waits instead of spinning, those inside go on, and who waited outside is let in as soon as
/// somebody leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_file_descriptors_nobody_inside_notices_and_places_are_taken_as_they_come_free() {
    let relay = Process::start_limited(64, RAISED);
    let mut inside = Client::connect(relay.addr, 1).await;
    inside.join(&key(100)).await;
    // More than there are descriptors; the system holds those that were not accepted.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(TcpStream::connect(relay.addr).await.unwrap());
    }
    let spent = async {
        let mut number = 0;
        while !relay.log().contains("cannot accept") {
            number += 1;
            answers(&mut inside, number).await;
        }
    };
    within("the descriptors to run out", spent).await;
    let (ticks, since) = (relay.cpu_ticks(), Instant::now());
    // Backing off: it takes a while until it was refused a few times more.
    let refused = || relay.log().matches("cannot accept").count();
    let first = refused();
    let again = async {
        while refused() < first + 2 {
            answers(&mut inside, 1_000).await;
        }
    };
    within("the next tries", again).await;
    println!("two more tries took {:?} and {} ticks", since.elapsed(), relay.cpu_ticks() - ticks);
    assert!(since.elapsed() >= Duration::from_millis(40), "it spins: {:?}", since.elapsed());
    drop(waiting);
    // Everybody is let in again.
    within("a place", Client::connect(relay.addr, 2)).await.join(&key(100)).await;
    answers(&mut inside, 2_000).await;
}

/// So many idle connections: each answers, and together they take no more memory than is said in docs/operating.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_cheap_and_alive() {
    let count = number("WEFT_TEST_IDLE", 200);
    let relay = Process::start(RAISED);
    drop(enter(relay.addr, 0..20).await);
    let before = relay.rss_kib();
    let mut clients = enter(relay.addr, 0..count).await;
    let grown = relay.rss_kib().saturating_sub(before);
    println!("{count} idle connections: {:.2} KiB each", grown as f64 / count as f64);
    assert!(grown <= 24 * count.max(200), "{grown} KiB for {count} connections");
    for client in &mut clients {
        answers(client, 1).await;
    }
}

/// Many clients, five to a room, several at a time.
async fn enter(addr: SocketAddr, numbers: std::ops::Range<u64>) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut entering = tokio::task::JoinSet::new();
    let one = |number: u64| async move {
        let mut client = Client::connect(addr, (number % 251) as u8).await;
        let mut seed = [0xaa; 32];
        seed[..8].copy_from_slice(&(number / 5).to_be_bytes());
        client.join(&SigningKey::from_bytes(&seed)).await;
        client
    };
    for number in numbers {
        if entering.len() >= 16 {
            clients.push(entering.join_next().await.unwrap().unwrap());
        }
        entering.spawn(one(number));
    }
    let rest = async {
        while let Some(client) = entering.join_next().await {
            clients.push(client.unwrap());
        }
    };
    tokio::time::timeout(DEADLINE, rest).await.unwrap();
    clients
}
