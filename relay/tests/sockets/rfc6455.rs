//! RFC 6455 against the real socket, frame by frame: what is allowed works, what is not ends the connection with a reason.
//!
//! The cases are those of Autobahn's suite, family by family (the suite itself needs Python 2): each row names its family. Where
//! Autobahn expects an echo, a row expects the answer to a frame of Weft, which is as good a proof that the message arrived whole.
//! Weft speaks in binary messages; text, well-formed or not, is refused. Compression (12 and 13) is not offered.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::limits::FRAME_BYTES_MAX;
use weft_relay::{Config, Settings};

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
}

fn ping(number: u64) -> Vec<u8> {
    ClientFrame::Ping { number }.encode().to_vec()
}

/// What has to come, in this order.
#[derive(Debug, Clone)]
enum Expect {
    /// The answer to `ping(number)`.
    Answer(u64),
    /// The answer to a message of [`sized`], which was decoded whole.
    Whole,
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// An error by name, its close code, the end.
    Refused(Code),
    /// A close and the end; an error may come before it.
    Closed,
    /// The close code comes back, and then the end.
    Echoed(u16),
}
use Expect::{Answer, Closed, Echoed, Pong, Refused, Whole};

struct Case {
    family: &'static str,
    about: String,
    /// Written one after another, each in a write of its own.
    writes: Vec<Vec<u8>>,
    expect: Vec<Expect>,
}

fn case(family: &'static str, about: impl Into<String>, writes: Vec<Vec<u8>>, expect: Vec<Expect>) -> Case {
    Case { family, about: about.into(), writes, expect }
}

/// A message of exactly `len` bytes that is answered by name: a publish to a room that nobody is in.
fn sized(len: usize) -> Vec<u8> {
    let room = weft_protocol::id::RoomId([1; 32]);
    let header = ClientFrame::Publish { room, payload: bytes::Bytes::new() }.encode().len();
    ClientFrame::Publish { room, payload: vec![0x2a; len - header].into() }.encode().to_vec()
}

/// One message in fragments of `len` bytes.
fn fragments(message: &[u8], len: usize) -> Vec<Vec<u8>> {
    let count = message.len().div_ceil(len);
    let first = |at: usize| (if at == 0 { BINARY } else { CONTINUATION }) | (if at + 1 == count { FIN } else { 0 });
    message.chunks(len).enumerate().map(|(at, part)| frame(first(at), part)).collect()
}

/// The same bytes in writes of `len`.
fn chopped(bytes: &[u8], len: usize) -> Vec<Vec<u8>> {
    bytes.chunks(len).map(<[u8]>::to_vec).collect()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

fn binary(message: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, message)
}

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [36, 125, 126, 127, 128, 65_535, 65_536] {
        let message = binary(&sized(len));
        cases.push(case("1 framing", format!("{len} bytes"), vec![message.clone()], vec![Whole]));
        cases.push(case("1 framing", format!("{len} bytes, 997 a write"), chopped(&message, 997), vec![Whole]));
    }
    cases.push(case("1 framing", "nothing in it", vec![binary(b"")], vec![Refused(Code::Malformed)]));
    cases.push(case("1 framing", "byte by byte", chopped(&binary(&ping(1)), 1), vec![Answer(1)]));
    let two = [binary(&ping(2)), binary(&ping(3))].concat();
    cases.push(case("1 framing", "two in one write", vec![two], vec![Answer(2), Answer(3)]));
    // Longer ways to say a length than needed are not the relay's business (RFC 6455 leaves them to the sender).
    let unmasked = vec![FIN | BINARY, 2, 0, 0];
    cases.push(case("1 framing", "not masked", vec![unmasked], vec![Refused(Code::Malformed)]));
    cases
}

fn pings() -> Vec<Case> {
    let control = |opcode: u8, payload: &[u8]| frame(FIN | opcode, payload);
    let mut cases = Vec::new();
    for payload in [&b""[..], b"Hello, world!", &[0x00, 0xff, 0xfe, 0xfd], &[0xfe; 125]] {
        let about = format!("a ping of {}", payload.len());
        cases.push(case("2 pings", about, vec![control(PING, payload)], vec![Pong(payload.to_vec())]));
    }
    let long = vec![control(PING, &[0xfe; 126])];
    cases.push(case("2 pings", "a ping of 126", long, vec![Refused(Code::Malformed)]));
    let bytewise = chopped(&control(PING, &[0xfe; 125]), 1);
    cases.push(case("2 pings", "a ping byte by byte", bytewise, vec![Pong(vec![0xfe; 125])]));
    for payload in [&b""[..], b"unsolicited"] {
        let writes = vec![control(PONG, payload), binary(&ping(1))];
        cases.push(case("2 pings", "a pong that nobody asked for", writes, vec![Answer(1)]));
    }
    let writes = vec![control(PONG, b"unsolicited"), control(PING, b"ping")];
    cases.push(case("2 pings", "a pong, then a ping", writes, vec![Pong(b"ping".to_vec())]));
    for len in [usize::MAX, 1] {
        let payloads: Vec<Vec<u8>> = (0..10).map(|at| format!("payload-{at}").into_bytes()).collect();
        let all = payloads.iter().flat_map(|payload| control(PING, payload)).collect::<Vec<_>>();
        let writes = chopped(&all, len.min(all.len()));
        cases.push(case("2 pings", "ten pings", writes, payloads.into_iter().map(Pong).collect()));
    }
    cases
}

fn reserved_bits_and_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8u8 {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            let wrong = frame(FIN | bits << 4 | opcode, b"");
            let writes = vec![binary(&ping(1)), wrong, binary(&ping(2))];
            let about = format!("bits {bits:03b} on opcode {opcode}, after a message");
            cases.push(case("3 reserved bits", about, writes, vec![Answer(1), Refused(Code::Malformed)]));
        }
    }
    for opcode in (3..8).chain(11..16) {
        for payload in [&b""[..], b"reserved"] {
            let writes = vec![binary(&ping(1)), frame(FIN | opcode, payload), frame(FIN | PING, b"")];
            let about = format!("opcode {opcode}, {} bytes", payload.len());
            cases.push(case("4 opcodes", about, writes, vec![Answer(1), Refused(Code::Malformed)]));
        }
    }
    cases
}

fn fragmentation() -> Vec<Case> {
    let family = "5 fragmentation";
    let message = ping(70_000);
    let (head, tail) = message.split_at(2);
    let between = || frame(FIN | PING, b"between");
    let (first, last) = (frame(BINARY, head), frame(FIN | CONTINUATION, tail));
    let pong = Pong(b"between".to_vec());
    let mut cases = vec![
        case(
            family,
            "a ping in fragments",
            vec![frame(PING, b"a"), frame(FIN | CONTINUATION, b"b")],
            vec![Refused(Code::Malformed)],
        ),
        case(
            family,
            "a pong in fragments",
            vec![frame(PONG, b"a"), frame(FIN | CONTINUATION, b"b")],
            vec![Refused(Code::Malformed)],
        ),
        case(family, "in two", vec![first.clone(), last.clone()], vec![Answer(70_000)]),
        case(family, "in two, one write", vec![[first.clone(), last.clone()].concat()], vec![Answer(70_000)]),
        case(family, "in two, byte by byte", chopped(&[first.clone(), last.clone()].concat(), 1), vec![Answer(70_000)]),
        case(
            family,
            "a ping in between",
            vec![first.clone(), between(), last.clone()],
            vec![pong.clone(), Answer(70_000)],
        ),
        case(
            family,
            "a pong in between",
            vec![first.clone(), frame(FIN | PONG, b"x"), last.clone()],
            vec![Answer(70_000)],
        ),
        case(
            family,
            "empty fragments and pings between them",
            vec![frame(BINARY, b""), between(), frame(CONTINUATION, head), between(), frame(FIN | CONTINUATION, tail)],
            vec![pong.clone(), pong.clone(), Answer(70_000)],
        ),
        case(
            family,
            "the same, byte by byte",
            chopped(&[frame(BINARY, head), between(), frame(CONTINUATION, b""), between(), last.clone()].concat(), 1),
            vec![pong.clone(), pong, Answer(70_000)],
        ),
        case(
            family,
            "a message within a message",
            vec![frame(BINARY, b"a"), frame(FIN | BINARY, b"b")],
            vec![Refused(Code::Malformed)],
        ),
        case(family, "a text within a message", vec![first, frame(FIN | TEXT, b"b")], vec![Refused(Code::Malformed)]),
    ];
    for opcode in [CONTINUATION, FIN | CONTINUATION] {
        let alone = vec![frame(opcode, b"a"), frame(FIN | BINARY, &ping(1))];
        cases.push(case(family, "a continuation of nothing", alone, vec![Refused(Code::Malformed)]));
        let after = vec![binary(&ping(1)), frame(opcode, b"a")];
        cases.push(case(
            family,
            "a continuation after a whole message",
            after,
            vec![Answer(1), Refused(Code::Malformed)],
        ));
    }
    cases
}

fn text() -> Vec<Case> {
    let family = "6 UTF-8";
    let mut cases = Vec::new();
    let texts: [&[u8]; 14] = [
        b"",
        b"Hello, world!",
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes(),
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
        "\u{10ffff}".as_bytes(),
        &[0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xf8, 0x88, 0x80, 0x80, 0x80],
        &[0xfe],
        &[0xff],
        &[0x80],
        &[0xc0, 0xaf],
        &[0xe0, 0x80, 0x80],
        &[0xed, 0xbf, 0xbf],
    ];
    for text in texts {
        let whole = vec![frame(FIN | TEXT, text)];
        cases.push(case(family, format!("text {text:x?}"), whole, vec![Refused(Code::Malformed)]));
        if text.len() > 1 {
            // Cut within a character, and the rest never comes: a wrong text is refused early or waited for, never taken.
            let parts = vec![frame(TEXT, &text[..1]), frame(FIN | CONTINUATION, &text[1..])];
            cases.push(case(family, format!("in fragments {text:x?}"), parts, vec![Refused(Code::Malformed)]));
        }
    }
    let truncated = vec![frame(FIN | TEXT, &[0xce, 0xba, 0xe1])];
    cases.push(case(family, "an unfinished character", truncated, vec![Refused(Code::Malformed)]));
    cases
}

fn closing() -> Vec<Case> {
    let family = "7 closing";
    let normal = || close(1000, b"");
    let mut cases = vec![
        case(family, "after a message", vec![binary(&ping(1)), normal()], vec![Answer(1), Echoed(1000)]),
        case(family, "twice", vec![normal(), normal()], vec![Echoed(1000)]),
        case(family, "a ping behind it", vec![normal(), frame(FIN | PING, b"x")], vec![Echoed(1000)]),
        case(family, "a message behind it", vec![normal(), binary(&ping(1))], vec![Echoed(1000)]),
        case(
            family,
            "within a message",
            vec![frame(BINARY, &[0]), normal(), frame(FIN | CONTINUATION, &[0])],
            vec![Echoed(1000)],
        ),
        case(
            family,
            "after 256 KiB",
            vec![binary(&sized(256 << 10)), normal(), frame(FIN | PING, b"x")],
            vec![Whole, Echoed(1000)],
        ),
        case(family, "without a code", vec![frame(FIN | CLOSE, b"")], vec![Closed]),
        case(family, "half a code", vec![frame(FIN | CLOSE, &[3])], vec![Closed]),
        case(family, "with a reason", vec![close(1000, b"Hello World!")], vec![Echoed(1000)]),
        case(family, "with a reason of 123 bytes", vec![close(1000, &[b'*'; 123])], vec![Echoed(1000)]),
        case(family, "with a reason of 124 bytes", vec![close(1000, &[b'*'; 124])], vec![Closed]),
        case(family, "in fragments", vec![frame(CLOSE, &[3, 232])], vec![Closed]),
        case(
            family,
            "with a reason that is no UTF-8",
            vec![close(1000, &[0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xed, 0xa0])],
            vec![Closed],
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case(family, format!("code {code}"), vec![close(code, b"")], vec![Echoed(code)]));
    }
    // Codes that nobody may send.
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(family, format!("code {code}"), vec![close(code, b"")], vec![Closed]));
    }
    cases
}

fn limits() -> Vec<Case> {
    let family = "9 limits";
    let mut cases = Vec::new();
    for len in [64 << 10, 256 << 10, FRAME_BYTES_MAX - weft_protocol::limits::FRAME_HEADER_BYTES_MAX] {
        let message = sized(len);
        cases.push(case(family, format!("{len} bytes"), vec![binary(&message)], vec![Whole]));
        for part in [256, 1 << 10, 4 << 10, 64 << 10] {
            cases.push(case(
                family,
                format!("{len} bytes in parts of {part}"),
                vec![fragments(&message, part).concat()],
                vec![Whole],
            ));
        }
        cases.push(case(family, format!("{len} bytes, 2,048 a write"), chopped(&binary(&message), 2048), vec![Whole]));
    }
    let announced = |len: u64| [&[FIN | BINARY, 0x80 | 127][..], &len.to_be_bytes(), &[0; 4]].concat();
    cases.push(case(family, "an endless length", vec![announced(u64::MAX)], vec![Refused(Code::TooLarge)]));
    let one_more = vec![announced(FRAME_BYTES_MAX as u64 + 1)];
    cases.push(case(family, "one byte too much", one_more, vec![Refused(Code::TooLarge)]));
    let halves = fragments(&vec![0; FRAME_BYTES_MAX + 2], FRAME_BYTES_MAX / 2 + 1);
    cases.push(case(family, "too much in fragments", halves, vec![Refused(Code::TooLarge)]));
    let many: Vec<u8> = (0..1_000).flat_map(|number| binary(&ping(number))).collect();
    cases.push(case(family, "a thousand small messages", vec![many], (0..1_000).map(Answer).collect()));
    let auto = vec![fragments(&sized(65_536), 1_300).concat()];
    cases.push(case("10 misc", "65,536 bytes in parts of 1,300", auto, vec![Whole]));
    cases
}

impl Raw {
    async fn expect(&mut self, expect: &Expect, about: &str) {
        let word = async |raw: &mut Self| raw.next().await.unwrap_or_else(|| panic!("{about}: no word"));
        match expect {
            Answer(number) => {
                let (first, payload) = word(self).await;
                assert_eq!(first, FIN | BINARY, "{about}");
                assert_eq!(ServerFrame::decode(payload.into()), Ok(ServerFrame::Pong { number: *number }), "{about}");
            }
            Pong(payload) => assert_eq!(word(self).await, (FIN | PONG, payload.clone()), "{about}"),
            Whole => {
                let said = ServerFrame::decode(word(self).await.1.into()).unwrap();
                assert!(matches!(&said, ServerFrame::Error { code: Code::NotInRoom, .. }), "{about}: {said:?}");
            }
            Refused(code) => {
                let (first, payload) = word(self).await;
                assert_eq!(first, FIN | BINARY, "{about}");
                let said = ServerFrame::decode(payload.into()).unwrap();
                assert!(matches!(&said, ServerFrame::Error { code: found, .. } if found == code), "{about}: {said:?}");
                let (first, payload) = word(self).await;
                assert_eq!((first, &payload[..2]), (FIN | CLOSE, &code.close_code().to_be_bytes()[..]), "{about}");
                assert_eq!(self.next().await, None, "{about}");
            }
            Closed => {
                let mut last = None;
                while let Some((first, _)) = self.next().await {
                    last = Some(first);
                }
                assert_eq!(last, Some(FIN | CLOSE), "{about}");
            }
            Echoed(code) => {
                let (first, payload) = word(self).await;
                assert_eq!((first, &payload[..2]), (FIN | CLOSE, &code.to_be_bytes()[..]), "{about}");
                assert_eq!(self.next().await, None, "{about}");
            }
        }
    }
}

/// Every family has rows, and every row comes out as it says, each on a connection of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_comes_out_as_it_should() {
    let free = Settings { messages_per_second: 1_000_000, messages_burst: 1_000_000, ..Settings::default() };
    let relay = relay(Config { settings: free, connections_per_ip_max: 10_000, ..roomy() }).await;
    let cases = [framing(), pings(), reserved_bits_and_opcodes(), fragmentation(), text(), closing(), limits()];
    let mut families = std::collections::BTreeMap::<_, usize>::new();
    let mut running = tokio::task::JoinSet::new();
    for case in cases.into_iter().flatten() {
        *families.entry(case.family).or_default() += 1;
        if running.len() >= 8 {
            let _: () = running.join_next().await.unwrap().unwrap();
        }
        let addr = relay.addr;
        running.spawn(async move {
            let about = format!("{}: {}", case.family, case.about);
            let mut raw = Raw::connect(addr).await;
            for bytes in &case.writes {
                raw.send(bytes).await;
            }
            for expect in &case.expect {
                raw.expect(expect, &about).await;
            }
        });
    }
    while let Some(ran) = running.join_next().await {
        ran.unwrap();
    }
    println!("{families:?}");
    let named = [
        "1 framing",
        "10 misc",
        "2 pings",
        "3 reserved bits",
        "4 opcodes",
        "5 fragmentation",
        "6 UTF-8",
        "7 closing",
        "9 limits",
    ];
    assert_eq!(families.into_keys().collect::<Vec<_>>(), named);
    // And none of them left anything behind.
    let gone = async {
        while relay.watch.figures().connections > 0 {
            tokio::task::yield_now().await
        }
    };
    within("all to be gone", gone).await;
}

#[tokio::test]
async fn half_a_frame_and_then_the_end_is_noticed() {
    let relay = relay(roomy()).await;
    let mut raw = Raw::connect(relay.addr).await;
    raw.send(&binary(&ping(1))[..3]).await;
    raw.0.shutdown().await.unwrap();
    assert_eq!(raw.next().await, None);
    let gone = async {
        while relay.watch.figures().connections > 0 {
            tokio::task::yield_now().await
        }
    };
    within("all to be gone", gone).await;
}
