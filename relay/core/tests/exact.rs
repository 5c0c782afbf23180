//! What docs/protocol.md says about the corners of a connection: kinds that are not known, frames before the proof, bounds.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::sign_connect;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};
use weft_protocol::limits::{AUDIENCE_BYTES_MAX, PAYLOAD_BYTES_MAX, TOKEN_BYTES_MAX};
use weft_relay_core::{Admission, ConnId, Input, Output, Proofs, Relay, Settings};

const CONN: ConnId = ConnId(1);

/// One connection to a relay.
struct World {
    relay: Relay,
    proofs: Proofs,
    nonce: [u8; 32],
}

/// What came back: the codes of errors, and whether the connection was closed.
#[derive(Debug, PartialEq)]
struct Answer(Vec<Code>, Option<Code>);

impl World {
    fn challenged() -> Self {
        let mut relay = Relay::new(Settings::default(), [42; 32]);
        let admission = Admission {
            identity: [1; 32],
            device: RelayDevice([1; 16]),
            connection: ConnectionKey(key().verifying_key().to_bytes()),
            audience: audience(),
        };
        relay.handle(0, Input::ConnectionOpened { conn: CONN, admission, token: "t".into() });
        let Some(Output::Send { frame, .. }) = relay.poll_output() else { panic!("no challenge") };
        let Ok(ServerFrame::Challenge { nonce }) = ServerFrame::decode(frame) else { panic!("no challenge") };
        let proofs = relay.proofs(CONN).unwrap();
        Self { relay, proofs, nonce }
    }

    fn proven() -> Self {
        let mut world = Self::challenged();
        let prove = world.prove(audience().as_str());
        assert_eq!(world.bytes(prove.encode()), Answer(vec![], None));
        world
    }

    fn prove(&self, named: &str) -> ClientFrame {
        let signature = sign_connect(&key(), &audience(), &self.nonce, "t");
        let connection = ConnectionKey(key().verifying_key().to_bytes());
        ClientFrame::Prove { audience: named.to_owned(), connection, signature }
    }

    fn bytes(&mut self, message: impl Into<Bytes>) -> Answer {
        let frame = self.proofs.check(message.into());
        self.relay.handle(0, Input::FrameReceived { conn: CONN, frame });
        let mut answer = Answer(vec![], None);
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send { frame, .. } => {
                    if let Ok(ServerFrame::Error { code, .. }) = ServerFrame::decode(frame) {
                        answer.0.push(code);
                    }
                }
                Output::Close { code, .. } => answer.1 = Some(code),
                Output::FanOut { .. }
                | Output::Pause { .. }
                | Output::VerifyToken { .. }
                | Output::Subscribe { .. }
                | Output::Unsubscribe { .. }
                | Output::FabricSend { .. }
                | Output::Refused { .. } => {}
            }
        }
        answer
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn audience() -> Audience {
    Audience::parse("relay.example:443").unwrap()
}

/// `[kind, 0, 0, ...]`
fn header(kind: u8, fields: u8) -> Vec<u8> {
    let items = fields + 1;
    let mut bytes = if items < 24 { vec![0x80 + items] } else { vec![0x98, items] };
    if kind >= 24 {
        bytes.push(0x18);
    }
    bytes.push(kind);
    bytes.extend(vec![0; fields.into()]);
    bytes
}

fn refused(code: Code) -> Answer {
    Answer(vec![code], code.ends_connection().then_some(code))
}

/// Before and after the proof: a kind that is not known is named and changes nothing, whatever stands behind it; what is no
/// header ends the connection.
#[test]
fn an_unknown_kind_is_named_and_the_connection_goes_on_before_the_proof_too() {
    for mut world in [World::challenged(), World::proven()] {
        for message in [header(0, 0), header(8, 3), header(64, 31), header(65, 1), header(200, 2)] {
            assert_eq!(world.bytes(message.clone()), refused(Code::UnknownKind), "{message:?}");
        }
        assert_eq!(world.bytes([header(48, 2), vec![0xff; 100]].concat()), refused(Code::UnknownKind));
    }
    let mut world = World::challenged();
    world.bytes(header(48, 0));
    let prove = world.prove(audience().as_str());
    assert_eq!(world.bytes(prove.encode()), Answer(vec![], None));
    for message in
        [header(64, 32), vec![0x80], vec![], vec![0x81, 0x61, 0x61], vec![0x81, 0x20], vec![0x9f, 0x18, 48, 0xff]]
    {
        for mut world in [World::challenged(), World::proven()] {
            assert_eq!(world.bytes(message.clone()), refused(Code::Malformed), "{message:?}");
        }
    }
}

#[test]
fn only_the_proof_comes_before_the_proof_and_it_comes_once() {
    let room = RoomId([1; 32]);
    for frame in [
        ClientFrame::Ping { number: 1 },
        ClientFrame::Leave { room },
        ClientFrame::Publish { room, payload: Bytes::new() },
        ClientFrame::Refresh { token: "t".into() },
    ] {
        assert_eq!(World::challenged().bytes(frame.encode()), refused(Code::Malformed));
    }
    let mut world = World::proven();
    let again = world.prove(audience().as_str());
    assert_eq!(world.bytes(again.encode()), refused(Code::Malformed));
}

/// A text above its bound is malformed; within it, another audience than the token's is a wrong one, whether or not it could be
/// one at all.
#[test]
fn texts_are_bounded_in_bytes() {
    let named = |text: String| {
        let mut world = World::challenged();
        let frame = world.prove(&text).encode();
        world.bytes(frame)
    };
    assert_eq!(named("a".repeat(AUDIENCE_BYTES_MAX + 1)), refused(Code::Malformed));
    for text in ["a".repeat(AUDIENCE_BYTES_MAX), "Relay.example:443".to_owned(), String::new(), "\u{fc}:1".to_owned()] {
        assert_eq!(named(text.clone()), refused(Code::WrongAudience), "{text}");
    }
    let refresh = |length| ClientFrame::Refresh { token: "a".repeat(length) }.encode();
    assert_eq!(World::proven().bytes(refresh(TOKEN_BYTES_MAX + 1)), refused(Code::Malformed));
    assert_eq!(World::proven().bytes(refresh(TOKEN_BYTES_MAX)), Answer(vec![], None));
}

#[test]
fn one_token_is_verified_at_a_time() {
    let mut world = World::proven();
    let refresh = || ClientFrame::Refresh { token: "t".into() }.encode();
    assert_eq!(world.bytes(refresh()), Answer(vec![], None));
    assert_eq!(world.bytes(refresh()), refused(Code::RateLimited));
    world.relay.handle(0, Input::TokenVerified { conn: CONN, result: Err(Code::Expired) });
    let closed = std::iter::from_fn(|| world.relay.poll_output())
        .any(|output| matches!(output, Output::Close { code: Code::Expired, .. }));
    assert!(closed);
}

/// A payload may be empty, and one byte more than it may have is too large, though the frame is not.
#[test]
fn a_payload_has_its_own_bound() {
    let room = RoomId([1; 32]);
    let publish = |length| ClientFrame::Publish { room, payload: vec![0; length].into() }.encode();
    for length in [0, PAYLOAD_BYTES_MAX] {
        assert_eq!(World::proven().bytes(publish(length)), refused(Code::NotInRoom));
    }
    assert_eq!(World::proven().bytes(publish(PAYLOAD_BYTES_MAX + 1)), refused(Code::TooLarge));
}

/// The number of a ping has 64 bits, and comes back as it is.
#[test]
fn a_ping_has_any_number() {
    let mut world = World::proven();
    for number in [0, 23, 24, u64::from(u32::MAX) + 1, u64::MAX] {
        let frame = world.proofs.check(ClientFrame::Ping { number }.encode());
        world.relay.handle(0, Input::FrameReceived { conn: CONN, frame });
        let Some(Output::Send { frame, .. }) = world.relay.poll_output() else { panic!("no pong") };
        assert_eq!(ServerFrame::decode(frame), Ok(ServerFrame::Pong { number }));
    }
}
