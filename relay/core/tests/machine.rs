//! The machine under orderly use, at its bounds, and under noise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::{room_id, sign_connect, sign_room};
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};
use weft_relay_core::{Admission, ConnId, Input, Lists, Output, Proofs, Relay, Settings};

/// A machine and what it has said to each connection.
struct World {
    relay: Relay,
    now_ms: u64,
    said: BTreeMap<ConnId, Vec<ServerFrame>>,
    closed: BTreeMap<ConnId, Code>,
    pauses: Vec<(ConnId, u64)>,
    asked: Vec<(ConnId, String)>,
    /// What the operator was told.
    refused: Vec<(ConnId, Code)>,
    proofs: BTreeMap<ConnId, Proofs>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn admission(seed: u8) -> Admission {
    Admission {
        identity: [seed; 32],
        device: RelayDevice([seed; 16]),
        connection: ConnectionKey(key(seed).verifying_key().to_bytes()),
        audience: Audience::parse("relay.example:443").unwrap(),
    }
}

impl World {
    fn new(settings: Settings) -> Self {
        let relay = Relay::new(settings, [42; 32]);
        let (said, closed) = (BTreeMap::new(), BTreeMap::new());
        let proofs = BTreeMap::new();
        Self { relay, now_ms: 0, said, closed, pauses: vec![], asked: vec![], refused: vec![], proofs }
    }

    fn input(&mut self, input: Input) {
        self.relay.handle(self.now_ms, input);
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send { conn, frame } => self.hear(conn, frame),
                Output::FanOut { frame, conns } => {
                    conns.into_iter().for_each(|conn| self.hear(conn, frame.clone()));
                }
                Output::Pause { conn, until_ms } => self.pauses.push((conn, until_ms)),
                Output::VerifyToken { conn, token } => self.asked.push((conn, token)),
                Output::Refused { conn, code, .. } => self.refused.push((conn, code)),
                Output::Subscribe { .. } | Output::Unsubscribe { .. } | Output::FabricSend { .. } => {
                    panic!("one relay alone has no fabric")
                }
                Output::Close { conn, code, .. } => {
                    assert_eq!(self.closed.insert(conn, code), None, "closed twice");
                }
            }
        }
    }

    fn hear(&mut self, conn: ConnId, frame: Bytes) {
        assert!(!self.closed.contains_key(&conn), "a frame after the close");
        self.said.entry(conn).or_default().push(ServerFrame::decode(frame).unwrap());
    }

    fn heard(&mut self, conn: ConnId) -> Vec<ServerFrame> {
        self.said.remove(&conn).unwrap_or_default()
    }

    fn frame(&mut self, conn: ConnId, frame: ClientFrame) {
        self.message(conn, frame.encode());
    }

    fn message(&mut self, conn: ConnId, message: Bytes) {
        if let Some(proofs) = self.relay.proofs(conn) {
            self.proofs.entry(conn).or_insert(proofs);
        }
        let Some(proofs) = self.proofs.get_mut(&conn) else { return };
        let frame = proofs.check(message);
        self.input(Input::FrameReceived { conn, frame });
    }

    /// Opens and proves; the seed names DID, device and key.
    fn connect(&mut self, number: u64, seed: u8) -> (ConnId, [u8; 32]) {
        let conn = ConnId(number);
        self.input(Input::ConnectionOpened { conn, admission: admission(seed), token: "t".into() });
        let [ServerFrame::Challenge { nonce }] = self.heard(conn)[..] else { panic!("no challenge") };
        let audience = admission(seed).audience;
        let signature = sign_connect(&key(seed), &audience, &nonce, "t");
        let connection = admission(seed).connection;
        self.frame(conn, ClientFrame::Prove { audience: audience.to_string(), connection, signature });
        assert!(matches!(self.heard(conn)[..], [ServerFrame::Welcome { .. }]));
        (conn, nonce)
    }

    fn join(&mut self, (conn, nonce): (ConnId, [u8; 32]), seed: u8, room: u8) -> RoomId {
        let public = key(room).verifying_key().to_bytes();
        let proof = sign_room(&key(room), &admission(seed).audience, &nonce, &admission(seed).connection);
        self.frame(conn, ClientFrame::Join { room: room_id(&public), key: public, proof });
        room_id(&public)
    }

    fn error(&mut self, conn: ConnId) -> Code {
        let heard = self.heard(conn);
        let Some(ServerFrame::Error { code, .. }) = heard.last() else { panic!("{heard:?}") };
        assert_eq!(self.refused.last(), Some(&(conn, *code)), "the operator was not told");
        *code
    }

    /// Lets time pass to the next deadline.
    fn wake(&mut self) {
        self.now_ms = self.relay.poll_timeout().unwrap().max(self.now_ms);
        self.input(Input::Wake);
    }
}

#[test]
fn who_does_not_prove_or_renew_or_speak_is_closed_by_the_name_of_the_deadline() {
    let mut world = World::new(Settings { session_ms: 1000, idle_ms_max: 500, ..Settings::default() });
    world.input(Input::ConnectionOpened { conn: ConnId(0), admission: admission(1), token: "t".into() });
    world.wake();
    assert_eq!(world.closed[&ConnId(0)], Code::HandshakeTimeout);
    let (silent, _) = world.connect(1, 1);
    world.wake();
    assert_eq!(world.closed[&silent], Code::Idle);
    let (busy, _) = world.connect(2, 2);
    while !world.closed.contains_key(&busy) {
        world.input(Input::Alive { conn: busy });
        world.now_ms += 100;
        world.input(Input::Wake);
    }
    assert_eq!(world.closed[&busy], Code::SessionExpired);
    assert_eq!(world.relay.poll_timeout(), None);
}

#[test]
fn a_session_renewed_with_the_same_admission_goes_on() {
    let mut world = World::new(Settings { session_ms: 1000, ..Settings::default() });
    let (conn, _) = world.connect(0, 1);
    world.now_ms = 800;
    world.frame(conn, ClientFrame::Refresh { token: "new".into() });
    assert_eq!(world.asked, vec![(conn, "new".to_owned())]);
    world.input(Input::TokenVerified { conn, result: Ok(admission(1)) });
    assert!(matches!(world.heard(conn)[..], [ServerFrame::Refreshed { .. }]));
    world.now_ms = 1500;
    world.input(Input::Wake);
    assert!(world.closed.is_empty());
    // An answer nobody asked for changes nothing; another's admission ends it.
    world.input(Input::TokenVerified { conn, result: Err(Code::Expired) });
    world.frame(conn, ClientFrame::Refresh { token: "other".into() });
    world.input(Input::TokenVerified { conn, result: Ok(admission(2)) });
    assert_eq!(world.closed[&conn], Code::BadToken);
}

#[test]
fn a_queue_past_its_bound_closes_its_owner_alone_and_the_room_is_told() {
    let mut world = World::new(Settings { queue_bytes_max: 3000, ..Settings::default() });
    let (writer, slow, quick) = (world.connect(0, 1), world.connect(1, 2), world.connect(2, 3));
    let mut room = RoomId([0; 32]);
    for (conn, seed) in [(writer, 1), (slow, 2), (quick, 3)] {
        room = world.join(conn, seed, 100);
    }
    for _ in 0..10 {
        world.frame(writer.0, ClientFrame::Publish { room, payload: Bytes::from(vec![0; 1000]) });
        for conn in [writer.0, quick.0] {
            let (bytes, frames) = world.relay.queued(conn).unwrap();
            world.input(Input::QueueDrained { conn, bytes: bytes - 64 * frames, frames });
        }
    }
    assert_eq!(world.closed, BTreeMap::from([(slow.0, Code::Resync)]));
    let delivered = |frames: &[ServerFrame]| frames.iter().filter(|f| matches!(f, ServerFrame::Deliver { .. })).count();
    let (quick, slow) = (world.heard(quick.0), world.heard(slow.0));
    assert_eq!(delivered(&quick), 10);
    assert_eq!(delivered(&slow), 2);
    assert_eq!(quick.iter().filter(|f| matches!(f, ServerFrame::PeerLeft { .. })).count(), 1);
    assert_eq!(world.relay.figures().resyncs, 1);
}

#[test]
fn rooms_a_connection_and_peers_a_room_are_bounded() {
    let mut world = World::new(Settings { rooms_per_connection_max: 2, room_peers_max: 2, ..Settings::default() });
    let (a, b, c) = (world.connect(0, 1), world.connect(1, 2), world.connect(2, 3));
    world.join(a, 1, 100);
    world.join(a, 1, 101);
    world.join(a, 1, 102);
    assert_eq!(world.error(a.0), Code::TooManyRooms);
    // Joining again is no third room.
    world.join(a, 1, 101);
    assert!(matches!(world.heard(a.0)[..], [ServerFrame::Joined { .. }]));
    world.join(b, 2, 100);
    world.join(c, 3, 100);
    assert_eq!(world.error(c.0), Code::RoomFull);
    assert_eq!(world.relay.figures().rooms, 2);
}

#[test]
fn above_the_rate_reading_pauses_and_feeding_on_regardless_is_refused() {
    let mut world = World::new(Settings { messages_per_second: 10, messages_burst: 5, ..Settings::default() });
    let (conn, _) = world.connect(0, 1);
    for number in 0..4 {
        world.frame(conn, ClientFrame::Ping { number });
    }
    assert_eq!(world.pauses, vec![]);
    world.frame(conn, ClientFrame::Ping { number: 4 });
    assert_eq!(world.pauses, vec![(conn, 100)]);
    assert_eq!(world.heard(conn).len(), 5);
    for number in 0..30 {
        world.frame(conn, ClientFrame::Ping { number });
    }
    assert_eq!(world.error(conn), Code::RateLimited);
    assert!(world.closed.is_empty());
}

/// Lists hold for those who are in, those who are half in, and those whose token was looked at a moment before.
#[test]
fn new_lists_close_those_whom_they_leave_out_and_let_them_in_nowhere() {
    let mut world = World::new(Settings::default());
    let (staying, going) = (world.connect(0, 1), world.connect(1, 2));
    world.join(staying, 1, 100);
    world.join(going, 2, 100);
    world.heard(staying.0);
    let halfway = ConnId(2);
    world.input(Input::ConnectionOpened { conn: halfway, admission: admission(2), token: "t".into() });
    let lists = Lists { allowed: Some([[1; 32], [3; 32]].into()), blocked: [[3; 32]].into() };
    world.input(Input::ListsChanged { lists: lists.into() });
    assert_eq!(world.closed, BTreeMap::from([(going.0, Code::NotAllowed), (halfway, Code::NotAllowed)]));
    assert!(matches!(world.heard(staying.0)[..], [ServerFrame::PeerLeft { .. }]));
    for (number, seed) in [(3, 2), (4, 3), (5, 4)] {
        let admission = admission(seed);
        world.input(Input::ConnectionOpened { conn: ConnId(number), admission, token: "t".into() });
        assert_eq!(world.closed[&ConnId(number)], Code::NotAllowed);
    }
    world.input(Input::ListsChanged { lists: Lists::default().into() });
    world.connect(6, 2);
    assert_eq!(world.relay.figures().connections, 2);
}

/// Pings of the WebSocket rest on the same rate as frames, and keep a connection alive.
#[test]
fn control_frames_count_against_the_rate() {
    let mut world = World::new(Settings { messages_per_second: 10, messages_burst: 5, ..Settings::default() });
    let (conn, _) = world.connect(0, 1);
    for _ in 0..4 {
        world.input(Input::ControlReceived { conn, bytes: 0 });
    }
    assert_eq!(world.pauses, vec![]);
    world.input(Input::ControlReceived { conn, bytes: 125 });
    assert_eq!(world.pauses, vec![(conn, 100)]);
    world.frame(conn, ClientFrame::Ping { number: 1 });
    assert_eq!(world.pauses, vec![(conn, 100), (conn, 200)]);
}

#[test]
fn a_drain_tells_everybody_then_closes_all_within_its_time_and_lets_nobody_in() {
    let mut world = World::new(Settings { drain_ms: 800, ..Settings::default() });
    let conns: Vec<_> = (0..20).map(|n| world.connect(n, n as u8 + 1)).collect();
    world.join(conns[0], 1, 100);
    world.input(Input::Drain);
    for (conn, _) in &conns {
        assert!(matches!(world.heard(*conn).last(), Some(ServerFrame::Restarting { after_ms }) if *after_ms > 0));
    }
    world.join(conns[1], 2, 100);
    assert_eq!(world.error(conns[1].0), Code::Draining);
    world.input(Input::ConnectionOpened { conn: ConnId(99), admission: admission(99), token: "t".into() });
    assert_eq!(world.closed[&ConnId(99)], Code::Draining);
    let mut waves = BTreeSet::new();
    while world.relay.figures().connections > 0 {
        world.wake();
        waves.insert(world.now_ms);
    }
    assert!(world.now_ms <= 800 && waves.len() > 1, "{waves:?}");
    assert!(world.closed.values().all(|code| *code == Code::Draining));
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    Join(u8, u8),
    Leave(u8, u8),
    Publish(u8, u8, usize),
    Send(u8, u8),
    Noise(u8, Vec<u8>),
    Drained(u8),
    Close(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (who, room) = (0u8..6, 100u8..103);
    prop_oneof![
        3 => who.clone().prop_map(Step::Open),
        6 => (who.clone(), room.clone()).prop_map(|(w, r)| Step::Join(w, r)),
        2 => (who.clone(), room.clone()).prop_map(|(w, r)| Step::Leave(w, r)),
        6 => (who.clone(), room.clone(), 0usize..600).prop_map(|(w, r, n)| Step::Publish(w, r, n)),
        3 => (who.clone(), room).prop_map(|(w, r)| Step::Send(w, r)),
        1 => (who.clone(), proptest::collection::vec(any::<u8>(), 0..60)).prop_map(|(w, b)| Step::Noise(w, b)),
        3 => who.clone().prop_map(Step::Drained),
        1 => who.prop_map(Step::Close),
        2 => (0u64..40_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever clients do: queues stay within their bound, a delivery reaches only those who are in its room by their own
    /// `Joined` and have not left it, and when all are gone nothing is left behind. The same inputs give the same outputs.
    #[test]
    fn no_order_of_events_breaks_the_rules(steps in proptest::collection::vec(step(), 1..120)) {
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(run(&steps));
        }
        prop_assert_eq!(&told[0], &told[1]);
    }
}

fn run(steps: &[Step]) -> Vec<String> {
    let settings = Settings { queue_bytes_max: 4000, room_peers_max: 3, ..Settings::default() };
    let mut world = World::new(settings);
    let mut here: BTreeMap<u8, (ConnId, [u8; 32])> = BTreeMap::new();
    let mut inside: BTreeSet<(ConnId, RoomId)> = BTreeSet::new();
    let mut last_peer = PeerId([0; 16]);
    let mut log = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let id = |room: u8| room_id(&key(room).verifying_key().to_bytes());
        match step {
            // Two numbers share a DID and device, so that places are taken over.
            Step::Open(who) if !here.contains_key(who) => {
                here.insert(*who, world.connect(number as u64, who / 2 + 1));
            }
            Step::Open(_) => {}
            Step::Pass(ms) => {
                world.now_ms += ms;
                world.input(Input::Wake);
            }
            Step::Join(who, room) => {
                if let Some(conn) = here.get(who) {
                    world.join(*conn, who / 2 + 1, *room);
                }
            }
            Step::Leave(who, room) => {
                if let Some((conn, _)) = here.get(who) {
                    inside.remove(&(*conn, id(*room)));
                    world.frame(*conn, ClientFrame::Leave { room: id(*room) });
                }
            }
            Step::Publish(who, room, len) => {
                if let Some((conn, _)) = here.get(who) {
                    world.frame(*conn, ClientFrame::Publish { room: id(*room), payload: vec![0; *len].into() });
                }
            }
            Step::Send(who, room) => {
                if let Some((conn, _)) = here.get(who) {
                    world.frame(*conn, ClientFrame::Send { room: id(*room), to: last_peer, payload: Bytes::new() });
                }
            }
            Step::Noise(who, bytes) => {
                if let Some((conn, _)) = here.get(who) {
                    world.message(*conn, bytes.clone().into());
                }
            }
            Step::Drained(who) => {
                if let Some((bytes, frames)) = here.get(who).and_then(|(conn, _)| world.relay.queued(*conn)) {
                    world.input(Input::QueueDrained { conn: here[who].0, bytes: bytes - 64 * frames, frames });
                }
            }
            Step::Close(who) => {
                if let Some((conn, _)) = here.get(who) {
                    world.input(Input::ConnectionClosed { conn: *conn });
                    inside.retain(|(c, _)| c != conn);
                    here.remove(who);
                }
            }
        }
        for (conn, frames) in std::mem::take(&mut world.said) {
            for frame in frames {
                log.push(format!("{conn:?} {frame:?}"));
                match frame {
                    ServerFrame::Joined { room, you, peers } => {
                        assert!(peers.len() < 3 && peers.iter().all(|p| p.peer != you));
                        last_peer = you;
                        inside.insert((conn, room));
                    }
                    ServerFrame::Deliver { room, .. } | ServerFrame::PeerJoined { room, .. } => {
                        assert!(inside.contains(&(conn, room)), "{conn:?} heard of a room it is not in");
                    }
                    ServerFrame::Error { code: Code::Replaced, room: Some(room), .. } => {
                        inside.remove(&(conn, room));
                    }
                    _ => {}
                }
            }
        }
        let closed = world.closed.clone();
        here.retain(|_, (conn, _)| !closed.contains_key(conn));
        inside.retain(|(conn, _)| !closed.contains_key(conn));
        for (conn, _) in here.values() {
            let (bytes, frames) = world.relay.queued(*conn).unwrap();
            assert!(bytes <= 4000 || frames == 1, "{bytes} bytes in {frames} frames");
        }
    }
    for (conn, _) in here.into_values() {
        world.input(Input::ConnectionClosed { conn });
    }
    let figures = world.relay.figures();
    assert_eq!((figures.connections, figures.rooms, world.relay.poll_timeout()), (0, 0, None));
    log
}

/// A restart makes no storm: two thousand clients are asked back evenly over the whole time there is, and are closed in
/// waves of about the same size.
#[test]
fn a_drain_spreads_closes_and_returns() {
    let mut world = World::new(Settings::default());
    for number in 0..2_000 {
        world.input(Input::ConnectionOpened { conn: ConnId(number), admission: admission(1), token: "t".into() });
    }
    world.said.clear();
    world.input(Input::Drain);
    let mut returns = [0u32; 10];
    for heard in world.said.values() {
        let [ServerFrame::Restarting { after_ms }] = heard[..] else { panic!("{heard:?}") };
        returns[((after_ms - 1) / 1_000) as usize] += 1;
    }
    assert!(returns.iter().all(|count| (120..=280).contains(count)), "{returns:?}");
    let mut waves = Vec::new();
    while world.closed.len() < 2_000 {
        let before = world.closed.len();
        world.wake();
        waves.push(world.closed.len() - before);
    }
    assert_eq!(waves.len(), 8);
    assert!(waves.iter().all(|count| (170..=330).contains(count)), "{waves:?}");
}
