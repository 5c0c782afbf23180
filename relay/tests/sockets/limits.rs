//! Garbage, size, number and speed: every bound has a name, and holds.

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use weft_relay::{Config, Settings};

use crate::client::{Came, Client, DEADLINE, key, relay, roomy, within};

#[tokio::test]
async fn what_is_no_frame_is_named_and_ends_the_connection() {
    let relay = relay(roomy()).await;
    let whole = ClientFrame::Leave { room: weft_protocol::id::RoomId([1; 32]) }.encode();
    let truncated = whole.slice(..whole.len() - 1);
    let garbage = Bytes::from_static(&[0xff; 100]);
    for message in [
        Message::Binary(garbage),
        Message::Binary(truncated),
        Message::Binary(Bytes::new()),
        Message::Text("hello".into()),
    ] {
        let mut client = Client::connect(relay.addr, 1).await;
        client.ws.send(message).await.unwrap();
        assert_eq!(client.refused().await, Code::Malformed);
        assert_eq!(client.came().await, Came::Closed(Some(Code::Malformed)));
    }
}

#[tokio::test]
async fn a_kind_from_the_future_is_named_and_the_connection_goes_on() {
    let relay = relay(roomy()).await;
    let mut client = Client::connect(relay.addr, 1).await;
    client.bytes(Bytes::from_static(&[0x81, 0x18, 0x30])).await;
    assert_eq!(client.refused().await, Code::UnknownKind);
    client.send(ClientFrame::Ping { number: 1 }).await;
    assert_eq!(client.frame().await, ServerFrame::Pong { number: 1 });
}

#[tokio::test]
async fn the_largest_payload_passes_and_one_byte_more_than_a_frame_does_not() {
    let relay = relay(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    let (room, from, _) = a.join(&key(100)).await;
    b.join(&key(100)).await;
    a.frame().await;
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
    a.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
    assert_eq!(b.frame().await, ServerFrame::Deliver { room, from, payload });

    a.bytes(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).await;
    assert_eq!(a.refused().await, Code::TooLarge);
    assert_eq!(a.came().await, Came::Closed(Some(Code::TooLarge)));
    assert!(matches!(b.frame().await, ServerFrame::PeerLeft { .. }));
}

/// Small frames go through a buffer, large ones around it; the header's length field has three forms. Whatever the mix,
/// a receiver sees each frame whole and in order, pongs in between included.
#[tokio::test]
async fn frames_of_every_size_arrive_whole_and_in_order() {
    let free = Settings { messages_per_second: 1_000_000, messages_burst: 1_000_000, ..Settings::default() };
    let relay = relay(Config { settings: free, ..roomy() }).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    let (room, from, _) = a.join(&key(100)).await;
    b.join(&key(100)).await;
    a.frame().await;
    // A Deliver header takes 54 bytes: these payloads lie on both sides of 126, 8 KiB and 64 KiB.
    let sizes = [0, 71, 72, 8_137, 8_138, 8_139, 300_000, 1, 65_481, 65_482, 2, 20_000, 3];
    for (at, size) in sizes.into_iter().enumerate() {
        let payload = Bytes::from(vec![at as u8; size]);
        a.send(ClientFrame::Publish { room, payload }).await;
        b.ws.send(Message::Ping(Bytes::from_static(b"life"))).await.unwrap();
    }
    for (at, size) in sizes.into_iter().enumerate() {
        let payload = Bytes::from(vec![at as u8; size]);
        assert_eq!(b.frame().await, ServerFrame::Deliver { room, from, payload });
    }
}

#[tokio::test]
async fn the_fifty_first_peer_finds_the_room_full() {
    let relay = relay(roomy()).await;
    let mut clients = Vec::new();
    for seed in 0..50 {
        let mut client = Client::connect(relay.addr, seed).await;
        client.join(&key(100)).await;
        clients.push(client);
    }
    let mut late = Client::connect(relay.addr, 50).await;
    let join = late.join_frame(&key(100));
    late.send(join).await;
    assert_eq!(late.refused().await, Code::RoomFull);
    // A device that is in already comes in again with a new connection.
    let mut again = Client::connect(relay.addr, 0).await;
    assert_eq!(again.join(&key(100)).await.2.len(), 49);
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_resync_and_the_others_go_on() {
    let fast = Settings { messages_per_second: 1_000_000, messages_burst: 1_000_000, ..Settings::default() };
    let settings = Settings { bytes_per_second: u32::MAX, bytes_burst: u32::MAX, queue_bytes_max: 1 << 20, ..fast };
    let relay = relay(Config { settings, ..roomy() }).await;
    let (mut writer, mut slow, mut quick) = (
        Client::connect(relay.addr, 1).await,
        Client::connect(relay.addr, 2).await,
        Client::connect(relay.addr, 3).await,
    );
    let (room, _, _) = writer.join(&key(100)).await;
    let (_, peer_slow, _) = slow.join(&key(100)).await;
    quick.join(&key(100)).await;
    assert!(matches!(slow.frame().await, ServerFrame::PeerJoined { .. }));
    for _ in 0..2 {
        writer.frame().await;
    }
    // `slow` reads nothing while the others exchange more than its queue and all socket buffers hold.
    let payload = Bytes::from(vec![7; 256 << 10]);
    let flood = async {
        while relay.watch.figures().resyncs == 0 {
            writer.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
            assert!(matches!(quick.frame().await, ServerFrame::Deliver { .. }));
        }
    };
    tokio::time::timeout(DEADLINE, flood).await.expect("the slow reader was never closed");
    assert_eq!(quick.frame().await, ServerFrame::PeerLeft { room, peer: peer_slow });
    let ended = loop {
        match slow.came().await {
            Came::Frame(ServerFrame::Deliver { .. }) => {}
            Came::Frame(other) => panic!("{other:?}"),
            Came::Closed(code) => break code,
        }
    };
    assert_eq!(ended, Some(Code::Resync));
    writer.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
    assert!(matches!(quick.frame().await, ServerFrame::Deliver { .. }));
}

#[tokio::test]
async fn a_flood_is_slowed_down_not_dropped() {
    let settings = Settings { messages_per_second: 100, messages_burst: 10, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    let start = std::time::Instant::now();
    for number in 0..50 {
        client.send(ClientFrame::Ping { number }).await;
    }
    for number in 0..50 {
        assert_eq!(client.frame().await, ServerFrame::Pong { number });
    }
    // 50 and the proof, less the burst, at 100 a second.
    assert!(start.elapsed().as_millis() >= 350, "{:?}", start.elapsed());
}

/// A ping of the WebSocket is answered like a frame, and counts like one.
#[tokio::test]
async fn a_flood_of_pings_is_slowed_down_like_one_of_frames() {
    let settings = Settings { messages_per_second: 100, messages_burst: 10, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    let start = std::time::Instant::now();
    for number in 0..50u8 {
        client.ws.send(Message::Ping(Bytes::from(vec![number]))).await.unwrap();
    }
    client.send(ClientFrame::Ping { number: 1 }).await;
    assert_eq!(client.frame().await, ServerFrame::Pong { number: 1 });
    assert!(start.elapsed().as_millis() >= 350, "{:?}", start.elapsed());
}

/// A connection from an address of this machine, if the relay answers on it.
async fn served_from(relay: std::net::SocketAddr, from: &str) -> Option<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(relay).await.unwrap();
    let request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let asked = tokio::io::AsyncWriteExt::write_all(&mut stream, request).await;
    let read = within("an answer or the end", stream.read(&mut [0; 64])).await;
    (asked.is_ok() && read.is_ok_and(|len| len > 0)).then_some(stream)
}

/// The addresses of one /24 together do not take the last place, unless the operator says that they may.
#[tokio::test]
async fn one_network_leaves_places_for_others() {
    for (per_network, expected) in [(None, 6), (Some(9), 9)] {
        let (connections_max, connections_per_network_max) = (12, per_network);
        let relay = relay(Config { connections_max, connections_per_network_max, ..roomy() }).await;
        let mut open = Vec::new();
        for last in 1..=20 {
            open.extend(served_from(relay.addr, &format!("127.0.7.{last}")).await);
        }
        assert_eq!(open.len(), expected);
        for network in 8..11 {
            let stream = served_from(relay.addr, &format!("127.0.{network}.1")).await;
            open.push(stream.expect("another network finds a place"));
        }
    }
}

#[tokio::test]
async fn connections_above_an_addresss_share_are_turned_away_and_a_place_is_given_back() {
    let relay = relay(Config { connections_per_ip_max: 2, ..roomy() }).await;
    let first = TcpStream::connect(relay.addr).await.unwrap();
    let _second = TcpStream::connect(relay.addr).await.unwrap();
    let mut third = TcpStream::connect(relay.addr).await.unwrap();
    // End of file or a reset, but no service.
    let read = within("being turned away", third.read(&mut [0; 16])).await;
    assert!(!matches!(read, Ok(len) if len > 0));
    drop(first);
    let served = async {
        loop {
            let mut stream = TcpStream::connect(relay.addr).await.unwrap();
            let asked = tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").await;
            let mut answer = Vec::new();
            if asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok_and(|len| len > 0) {
                return;
            }
        }
    };
    within("a free place", served).await;
}

#[tokio::test]
async fn who_stays_silent_is_closed_and_told_why() {
    let settings = Settings { idle_ms_max: 200, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    assert_eq!(client.refused().await, Code::Idle);
    assert_eq!(client.came().await, Came::Closed(Some(Code::Idle)));
}
