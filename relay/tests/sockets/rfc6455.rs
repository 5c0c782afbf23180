//! RFC 6455 against the real socket, frame by frame: what is allowed works, what is not ends the connection with a reason.
//!
//! (Autobahn's suite, of which these are the cases by kind, needs Python 2.)

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::limits::FRAME_BYTES_MAX;

use crate::client::{Client, relay, roomy, within};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// One masked frame, as clients send them.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A connection past its `Welcome`, as a bare socket.
struct Raw(TcpStream);

impl Raw {
    async fn connect(addr: std::net::SocketAddr) -> Self {
        Self(Client::connect(addr, 1).await.ws.into_inner())
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed already, rightly.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        within("a frame", self.0.read_exact(&mut head)).await.ok()?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let len = match head[1] {
            126 => u64::from(self.0.read_u16().await.unwrap()),
            127 => self.0.read_u64().await.unwrap(),
            len => u64::from(len),
        };
        let mut payload = vec![0; len as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((head[0], payload))
    }

    async fn answers(&mut self, number: u64) {
        let (first, payload) = self.next().await.unwrap();
        assert_eq!(first, FIN | BINARY);
        assert_eq!(ServerFrame::decode(payload.into()), Ok(ServerFrame::Pong { number }));
    }
}

fn ping(number: u64) -> Vec<u8> {
    ClientFrame::Ping { number }.encode().to_vec()
}

#[tokio::test]
async fn what_is_allowed_works() {
    let relay = relay(roomy()).await;
    let mut raw = Raw::connect(relay.addr).await;
    // A message of one frame, byte by byte.
    for byte in frame(FIN | BINARY, &ping(1)) {
        raw.send(&[byte]).await;
    }
    raw.answers(1).await;
    // Two messages in one write.
    raw.send(&[frame(FIN | BINARY, &ping(2)), frame(FIN | BINARY, &ping(3))].concat()).await;
    raw.answers(2).await;
    raw.answers(3).await;
    // Fragments, empty ones too, with a ping in between, which is answered first and with its own payload.
    let message = ping(70_000);
    let (head, tail) = message.split_at(2);
    let parts =
        [frame(BINARY, head), frame(FIN | PING, b"between"), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, tail)];
    raw.send(&parts.concat()).await;
    assert_eq!(raw.next().await, Some((FIN | PONG, b"between".to_vec())));
    raw.answers(70_000).await;
    // Pings of every size there may be; pongs nobody asked for.
    for payload in [vec![], vec![0xff; 125]] {
        raw.send(&frame(FIN | PONG, b"nobody asked")).await;
        raw.send(&frame(FIN | PING, &payload)).await;
        assert_eq!(raw.next().await, Some((FIN | PONG, payload)));
    }
    raw.send(&frame(FIN | BINARY, &ping(5))).await;
    raw.answers(5).await;
}

#[tokio::test]
async fn what_is_not_allowed_ends_the_connection_with_a_reason() {
    let relay = relay(roomy()).await;
    let unmasked = [&[FIN | BINARY, 2][..], &[0, 0]].concat();
    let huge = [&[FIN | BINARY, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let over = [&[FIN | BINARY, 0x80 | 127][..], &(FRAME_BYTES_MAX as u64 + 1).to_be_bytes(), &[0; 4]].concat();
    let two_halves = [
        frame(BINARY, &vec![0; FRAME_BYTES_MAX / 2 + 1]),
        frame(FIN | CONTINUATION, &vec![0; FRAME_BYTES_MAX / 2 + 1]),
    ];
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("reserved bit 1", frame(FIN | 0x40 | BINARY, b""), Code::Malformed),
        ("reserved bit 2", frame(FIN | 0x20 | BINARY, b""), Code::Malformed),
        ("reserved bit 3", frame(FIN | 0x10 | BINARY, b""), Code::Malformed),
        ("reserved data opcode", frame(FIN | 3, b""), Code::Malformed),
        ("reserved control opcode", frame(FIN | 11, b""), Code::Malformed),
        ("a ping in fragments", frame(PING, b"a"), Code::Malformed),
        ("a ping that is too long", frame(FIN | PING, &[0; 126]), Code::Malformed),
        ("not masked", unmasked, Code::Malformed),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"a"), Code::Malformed),
        ("a message within a message", [frame(BINARY, b"a"), frame(FIN | BINARY, b"b")].concat(), Code::Malformed),
        ("text", frame(FIN | TEXT, b"hello"), Code::Malformed),
        ("text that is none", frame(FIN | TEXT, &[0xce, 0xba, 0xff]), Code::Malformed),
        ("an endless length", huge, Code::TooLarge),
        ("one byte too much", over, Code::TooLarge),
        ("too much in fragments", two_halves.concat(), Code::TooLarge),
    ];
    for (about, bytes, code) in cases {
        let mut raw = Raw::connect(relay.addr).await;
        raw.send(&bytes).await;
        let (first, payload) = raw.next().await.unwrap_or_else(|| panic!("{about}: no word"));
        assert_eq!(first, FIN | BINARY, "{about}");
        let said = ServerFrame::decode(payload.into()).unwrap();
        assert!(matches!(&said, ServerFrame::Error { code: found, .. } if *found == code), "{about}: {said:?}");
        let (first, payload) = raw.next().await.unwrap_or_else(|| panic!("{about}: no close"));
        assert_eq!(first, FIN | CLOSE, "{about}");
        assert_eq!(payload[..2], code.close_code().to_be_bytes(), "{about}");
        assert_eq!(raw.next().await, None, "{about}");
    }
}

#[tokio::test]
async fn whoever_closes_is_let_go() {
    let relay = relay(roomy()).await;
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    for payload in [
        vec![],
        with(1000, b""),
        with(1001, b"going"),
        with(4999, &[b'a'; 123]),
        with(1000, &[0xff]),
        with(1005, b""),
        vec![3],
    ] {
        let mut raw = Raw::connect(relay.addr).await;
        raw.send(&frame(FIN | CLOSE, &payload)).await;
        // A close, or a reason first where the payload was wrong; then the end.
        let mut last = None;
        while let Some((first, _)) = raw.next().await {
            last = Some(first);
        }
        assert_eq!(last, Some(FIN | CLOSE), "{payload:?}");
    }
    // Half a frame, then nothing more: the end is noticed.
    let mut raw = Raw::connect(relay.addr).await;
    raw.send(&frame(FIN | BINARY, &ping(1))[..3]).await;
    raw.0.shutdown().await.unwrap();
    assert_eq!(raw.next().await, None);
    let gone = async {
        while relay.watch.figures().connections > 0 {
            tokio::task::yield_now().await
        }
    };
    within("all to be gone", gone).await;
}
