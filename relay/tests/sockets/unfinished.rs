//! Messages that never end and answers that nobody reads: they take a bounded room, and end.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use weft_protocol::admission::subprotocol;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::limits::{FRAGMENTS_MAX, FRAME_BYTES_MAX};
use weft_relay::{Config, Server};

use crate::client::{Came, Client, Who, http, key, relay, roomy, run, upgrade_with, within};
use crate::hard_times::RAISED;
use crate::process::Process;

const MIB: usize = 1 << 20;

/// A part of a message; the first one is binary.
fn part(len: usize, first: bool, last: bool) -> Message {
    let kind = if first { Data::Binary } else { Data::Continue };
    Message::Frame(Frame::message(vec![0; len], OpCode::Data(kind), last))
}

/// Bytes of unfinished messages, as the admin port says.
async fn unfinished(admin: SocketAddr) -> usize {
    let (_, metrics) = http(admin, "GET", "/metrics", "", "").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("weft_relay_unfinished_bytes "));
    line.unwrap().parse().unwrap()
}

async fn becomes(admin: SocketAddr, bytes: usize) {
    within("so much to be unfinished", async { while unfinished(admin).await != bytes {} }).await;
}

/// Many connections of one address that each hold the rest of a large message back take no more than an address may; meanwhile
/// others go on with large messages of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_takes_little_memory_by_messages_that_it_never_ends() {
    let relay = Process::start(&[RAISED, &["--trusted-proxy=127.0.0.2", "--bytes-per-second=1000000000"]].concat());
    let mut holding = Vec::new();
    for seed in 0..100 {
        holding.push(Client::connect(relay.addr, seed).await);
    }
    let (mut a, mut b) = (elsewhere(relay.addr, 200).await, elsewhere(relay.addr, 201).await);
    let (room, from, _) = a.join(&key(100)).await;
    b.join(&key(100)).await;
    a.frame().await;
    let mut rounds = 0u8;
    let mut exchange = async |count: u8| {
        for _ in 0..count {
            rounds = rounds.wrapping_add(1);
            let payload = Bytes::from(vec![rounds; MIB / 2]);
            a.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
            assert_eq!(b.frame().await, ServerFrame::Deliver { room, from, payload });
        }
    };
    exchange(20).await;
    let before = relay.rss_kib();
    let mut sending = tokio::task::JoinSet::new();
    for mut client in holding {
        sending.spawn(async move {
            // Most are never taken; the relay goes on not reading them.
            let _ = client.ws.send(part(MIB - 100, true, false)).await;
            let _ = client.ws.send(part(50, false, false)).await;
            std::future::pending::<()>().await;
        });
    }
    let mut most = 0;
    for _ in 0..20 {
        exchange(10).await;
        most = most.max(relay.rss_kib());
    }
    println!("{before} KiB before, {most} KiB at most");
    assert!(most < before + 48 * 1024, "{before} KiB before, {most} KiB at most");
}

/// Connected and proven from behind a proxy, hence from another network.
async fn elsewhere(addr: SocketAddr, seed: u8) -> Client {
    let who = Who::new(addr, seed);
    let token = who.token(addr).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(addr).await.unwrap();
    let ws = crate::client::upgrade_on(stream, addr, &subprotocol::offer(&token), "192.0.2.1").await.unwrap();
    proven(Client { ws, who, nonce: [0; 32] }, &token).await
}

async fn proven(mut client: Client, token: &str) -> Client {
    let ServerFrame::Challenge { nonce } = client.frame().await else { panic!("no challenge") };
    client.nonce = nonce;
    client.prove(token).await;
    assert!(matches!(client.frame().await, ServerFrame::Welcome { .. }));
    client
}

/// Who finds no room waits, is not cut off, and gets through as soon as there is some; other networks do not wait.
#[tokio::test]
async fn a_message_that_finds_no_room_waits_for_it() {
    let config = Config {
        unfinished_bytes_max: 4 * MIB,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        admin_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..roomy()
    };
    let server = Server::bind(config).await.unwrap();
    let admin = server.admin_addr().unwrap();
    let relay = run(server);
    let from = async |seed: u8, client: &str| {
        let who = Who::new(relay.addr, seed);
        let token = who.token(relay.addr).await.unwrap();
        let ws = upgrade_with(relay.addr, &subprotocol::offer(&token), client).await.unwrap();
        proven(Client { ws, who, nonce: [0; 32] }, &token).await
    };
    // A network gets as much as is free for others: half of it.
    let (mut one, mut two) = (from(1, "192.0.2.1").await, from(2, "192.0.2.2").await);
    for holding in [&mut one, &mut two] {
        within("a part", holding.ws.send(part(10, true, false))).await.unwrap();
    }
    becomes(admin, 2 * MIB).await;
    let (mut waiting, mut other) = (from(3, "192.0.2.3").await, from(4, "203.0.113.1").await);
    let (room, peer, _) = waiting.join(&key(100)).await;
    let (_, peer_other, _) = other.join(&key(100)).await;
    assert!(matches!(waiting.frame().await, ServerFrame::PeerJoined { .. }));
    let payload = Bytes::from(vec![7; 100_000]);
    let publish = ClientFrame::Publish { room, payload: payload.clone() };
    waiting.send(publish.clone()).await;
    // Small messages and those of others pass meanwhile.
    other.send(publish.clone()).await;
    assert_eq!(waiting.frame().await, ServerFrame::Deliver { room, from: peer_other, payload: payload.clone() });
    one.ws.send(Message::Ping(Bytes::new())).await.unwrap();
    assert_eq!(unfinished(admin).await, 2 * MIB);
    drop(two);
    assert_eq!(other.frame().await, ServerFrame::Deliver { room, from: peer, payload });
    // A message that ends, in however many parts, is one, and gives its room back.
    let rest = publish.encode();
    let halves = [rest.slice(..50_000), rest.slice(50_000..)];
    for (at, half) in halves.into_iter().enumerate() {
        let kind = if at == 0 { Data::Binary } else { Data::Continue };
        waiting.ws.send(Message::Frame(Frame::message(half, OpCode::Data(kind), at == 1))).await.unwrap();
    }
    assert!(matches!(other.frame().await, ServerFrame::Deliver { .. }));
    drop(one);
    becomes(admin, 0).await;
}

/// A message that grows beyond a frame's size is refused by the header of the part that is too much, and one of parts without
/// end and without content by their number.
#[tokio::test]
async fn a_message_in_parts_is_bounded_in_size_and_number() {
    let relay = relay(roomy()).await;
    let mut large = Client::connect(relay.addr, 1).await;
    within("a part", large.ws.send(part(FRAME_BYTES_MAX, true, false))).await.unwrap();
    within("a part", large.ws.send(part(1, false, false))).await.unwrap();
    assert_eq!(large.refused().await, Code::TooLarge);
    assert_eq!(large.came().await, Came::Closed(Some(Code::TooLarge)));
    let mut endless = Client::connect(relay.addr, 2).await;
    for at in 0..=FRAGMENTS_MAX {
        endless.ws.feed(part(0, at == 0, false)).await.unwrap();
    }
    within("the parts", endless.ws.flush()).await.unwrap();
    assert_eq!(endless.refused().await, Code::Malformed);
    assert_eq!(endless.came().await, Came::Closed(Some(Code::Malformed)));
}

/// A client that asks on and on and reads no answer is cut off.
#[tokio::test]
async fn answers_that_nobody_reads_end_by_a_deadline() {
    let relay = relay(Config { header_ms_max: 500, ..roomy() }).await;
    let mut stream = TcpStream::connect(relay.addr).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", relay.addr).repeat(100);
    // Blocks once nobody reads on either side, and fails once the relay has given up.
    within("being cut off", async { while stream.write_all(request.as_bytes()).await.is_ok() {} }).await;
    assert_eq!(http(relay.addr, "GET", "/health/live", "", "").await.0, 200);
}
