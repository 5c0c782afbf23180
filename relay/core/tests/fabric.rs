//! Two machines with a fabric between them that loses what it likes: nothing is lost unseen, and peer lists converge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::{room_id, sign_connect, sign_room};
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};
use weft_relay_core::fabric::{BEAT_MS, HELLO_MS, LINGER_MS, NODE_EXPIRES_MS, SUBSCRIBE_MS_MAX};
use weft_relay_core::{Admission, ConnId, Input, Output, Proofs, Relay, Settings};

/// Several relays, the clients of each, and what the fabric carries.
struct World {
    relays: Vec<Relay>,
    now_ms: u64,
    subscribed: Vec<BTreeSet<RoomId>>,
    /// Whether subscriptions are answered at once.
    prompt: bool,
    under_way: VecDeque<(usize, RoomId, Bytes)>,
    said: BTreeMap<(usize, ConnId), Vec<ServerFrame>>,
    proofs: BTreeMap<(usize, ConnId), (Proofs, [u8; 32], u8)>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

impl World {
    fn new(relays: usize) -> Self {
        let settings =
            Settings { several_relays: true, idle_ms_max: 1 << 40, session_ms: 1 << 40, ..Settings::default() };
        let mut world = Self {
            relays: (0..relays).map(|at| Relay::new(settings.clone(), [at as u8; 32])).collect(),
            now_ms: 0,
            subscribed: vec![BTreeSet::new(); relays],
            prompt: true,
            under_way: VecDeque::new(),
            said: BTreeMap::new(),
            proofs: BTreeMap::new(),
        };
        for at in 0..relays {
            world.input(at, Input::FabricUp);
        }
        world
    }

    fn input(&mut self, at: usize, input: Input) {
        self.relays[at].handle(self.now_ms, input);
        let mut subscribed = Vec::new();
        while let Some(output) = self.relays[at].poll_output() {
            match output {
                Output::Send { conn, frame } => self.hear(at, conn, frame),
                Output::FanOut { frame, conns } => {
                    conns.into_iter().for_each(|conn| self.hear(at, conn, frame.clone()))
                }
                Output::Subscribe { room } => {
                    self.subscribed[at].insert(room);
                    subscribed.push(room);
                }
                Output::Unsubscribe { room } => assert!(self.subscribed[at].remove(&room)),
                Output::FabricSend { room, message } => self.under_way.push_back((at, room, message)),
                Output::Close { .. } | Output::Pause { .. } | Output::VerifyToken { .. } | Output::Refused { .. } => {}
            }
        }
        if self.prompt {
            for room in subscribed {
                self.input(at, Input::Subscribed { room });
            }
        }
    }

    fn hear(&mut self, at: usize, conn: ConnId, frame: Bytes) {
        let frame = ServerFrame::decode(frame).unwrap();
        if let ServerFrame::Challenge { nonce } = frame {
            let proofs = self.relays[at].proofs(conn).unwrap();
            self.proofs.entry((at, conn)).or_insert((proofs, nonce, 0)).1 = nonce;
        } else {
            self.said.entry((at, conn)).or_default().push(frame);
        }
    }

    fn heard(&mut self, at: usize, conn: ConnId) -> Vec<ServerFrame> {
        self.said.remove(&(at, conn)).unwrap_or_default()
    }

    /// The fabric delivers everything, but what `lose` says.
    fn carry(&mut self, mut lose: impl FnMut() -> bool) -> bool {
        let mut lost = false;
        while let Some((from, room, message)) = self.under_way.pop_front() {
            for at in 0..self.relays.len() {
                if at != from && self.subscribed[at].contains(&room) {
                    if lose() {
                        lost = true;
                    } else {
                        self.input(at, Input::FabricReceived { room, message: message.clone() });
                    }
                }
            }
        }
        lost
    }

    fn pass_ms(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            let next = self.relays.iter().filter_map(Relay::poll_timeout).min().filter(|&at| at <= until_ms);
            let Some(next) = next else { break };
            self.now_ms = next.max(self.now_ms);
            for at in 0..self.relays.len() {
                self.input(at, Input::Wake);
            }
            self.carry(|| false);
        }
        self.now_ms = until_ms;
    }

    fn frame(&mut self, at: usize, conn: ConnId, frame: ClientFrame) {
        let (proofs, _, _) = self.proofs.get_mut(&(at, conn)).unwrap();
        let frame = proofs.check(frame.encode());
        self.input(at, Input::FrameReceived { conn, frame });
    }

    fn connect(&mut self, at: usize, number: u64, seed: u8) -> ConnId {
        let conn = ConnId(number);
        let audience = Audience::parse("relay.example:443").unwrap();
        let connection = ConnectionKey(key(seed).verifying_key().to_bytes());
        let admission =
            Admission { identity: [seed; 32], device: RelayDevice([seed; 16]), connection, audience: audience.clone() };
        self.input(at, Input::ConnectionOpened { conn, admission, token: "t".into() });
        let stored = self.proofs.get_mut(&(at, conn)).unwrap();
        stored.2 = seed;
        let signature = sign_connect(&key(seed), &audience, &stored.1, "t");
        self.frame(at, conn, ClientFrame::Prove { audience: audience.to_string(), connection, signature });
        self.heard(at, conn);
        conn
    }

    fn join(&mut self, at: usize, conn: ConnId, room: u8) -> RoomId {
        let (_, nonce, seed) = self.proofs[&(at, conn)];
        let public = key(room).verifying_key().to_bytes();
        let audience = Audience::parse("relay.example:443").unwrap();
        let connection = ConnectionKey(key(seed).verifying_key().to_bytes());
        let proof = sign_room(&key(room), &audience, &nonce, &connection);
        self.frame(at, conn, ClientFrame::Join { room: room_id(&public), key: public, proof });
        room_id(&public)
    }

    /// Two clients at two relays who know of each other.
    fn pair() -> (Self, RoomId, ConnId, ConnId) {
        let mut world = Self::new(2);
        let (a, b) = (world.connect(0, 1, 1), world.connect(1, 2, 2));
        let room = world.join(0, a, 100);
        world.join(1, b, 100);
        world.carry(|| false);
        world.pass_ms(BEAT_MS);
        world.said.clear();
        (world, room, a, b)
    }
}

fn payloads(frames: &[ServerFrame]) -> Vec<Bytes> {
    let payload = |frame: &ServerFrame| {
        if let ServerFrame::Deliver { payload, .. } = frame { Some(payload.clone()) } else { None }
    };
    frames.iter().filter_map(payload).collect()
}

#[test]
fn peers_at_two_relays_see_and_hear_each_other_and_part() {
    let mut world = World::new(2);
    let (a, b) = (world.connect(0, 1, 1), world.connect(1, 2, 2));
    let room = world.join(0, a, 100);
    world.carry(|| false);
    assert!(matches!(&world.heard(0, a)[..], [ServerFrame::Joined { peers, .. }] if peers.is_empty()));
    world.join(1, b, 100);
    world.carry(|| false);
    let [ServerFrame::PeerJoined { peer: peer_b, .. }] = world.heard(0, a)[..] else { panic!("A does not see B") };
    // B is told of A in either way.
    let heard = world.heard(1, b);
    let ServerFrame::Joined { you, .. } = heard[0] else { panic!("{heard:?}") };
    assert_eq!(you, peer_b.peer);
    let [_, ServerFrame::PeerJoined { peer: peer_a, .. }] = heard[..] else { panic!("{heard:?}") };

    world.frame(0, a, ClientFrame::Publish { room, payload: Bytes::from_static(b"all") });
    world.frame(1, b, ClientFrame::Send { room, to: peer_a.peer, payload: Bytes::from_static(b"one") });
    world.carry(|| false);
    assert_eq!(payloads(&world.heard(1, b)), ["all"]);
    assert_eq!(payloads(&world.heard(0, a)), ["one"]);

    world.input(0, Input::ConnectionClosed { conn: a });
    world.carry(|| false);
    assert_eq!(world.heard(1, b), [ServerFrame::PeerLeft { room, peer: peer_a.peer }]);
    // The room lingers at A's relay, then its subscription goes.
    world.pass_ms(LINGER_MS - 1);
    assert!(world.subscribed[0].contains(&room));
    world.pass_ms(1);
    assert!(!world.subscribed[0].contains(&room) && world.subscribed[1].contains(&room));
}

#[test]
fn a_join_is_answered_once_the_subscription_stands_or_is_late() {
    let mut world = World::new(1);
    world.prompt = false;
    let (a, b) = (world.connect(0, 1, 1), world.connect(0, 2, 2));
    let room = world.join(0, a, 100);
    assert!(world.heard(0, a).is_empty());
    world.input(0, Input::Subscribed { room });
    assert!(matches!(world.heard(0, a)[..], [ServerFrame::Joined { .. }]));
    let late = world.join(0, b, 101);
    world.pass_ms(SUBSCRIBE_MS_MAX);
    assert!(matches!(world.heard(0, b)[..], [ServerFrame::Joined { .. }]));
    world.input(0, Input::Subscribed { room: late });
    assert_eq!(world.heard(0, b), [ServerFrame::Resync { room: late }]);
}

#[test]
fn cut_off_members_are_told_go_on_and_reconcile_afterwards() {
    let (mut world, room, a, b) = World::pair();
    let c = world.connect(0, 3, 3);
    world.join(0, c, 100);
    world.carry(|| false);
    world.said.clear();
    world.input(0, Input::FabricDown);
    assert!(matches!(world.heard(0, a)[..], [ServerFrame::PeerLeft { .. }]));
    world.frame(0, a, ClientFrame::Publish { room, payload: Bytes::from_static(b"local") });
    assert!(payloads(&world.heard(0, c)).contains(&Bytes::from_static(b"local")));
    // A new member does not wait for what is away.
    let d = world.connect(0, 4, 4);
    world.join(0, d, 100);
    assert!(matches!(world.heard(0, d)[..], [ServerFrame::Joined { .. }]));
    world.said.clear();
    world.input(0, Input::FabricUp);
    world.carry(|| false);
    let (at_a, at_b) = (world.heard(0, a), world.heard(1, b));
    assert!(at_a.contains(&ServerFrame::Resync { room }), "{at_a:?}");
    assert!(at_a.iter().any(|frame| matches!(frame, ServerFrame::PeerJoined { .. })), "{at_a:?}");
    assert!(at_b.contains(&ServerFrame::Resync { room }), "{at_b:?}");
}

/// Those of one's own relay come first in `Joined`, those known elsewhere behind them; and who is back after the fabric was cut
/// has the name from before.
#[test]
fn joined_lists_those_here_and_those_known_elsewhere_under_names_that_last() {
    let (mut world, _, a, _) = World::pair();
    let c = world.connect(1, 3, 3);
    world.join(1, c, 100);
    let heard = world.heard(1, c);
    let [ServerFrame::Joined { peers, .. }] = &heard[..] else { panic!("{heard:?}") };
    let devices: Vec<u8> = peers.iter().map(|peer| peer.device.0[0]).collect();
    assert_eq!(devices, [2, 1]);
    world.carry(|| false);
    world.said.clear();
    world.input(0, Input::FabricDown);
    let left = |frame: &ServerFrame| if let ServerFrame::PeerLeft { peer, .. } = frame { Some(*peer) } else { None };
    let left: BTreeSet<PeerId> = world.heard(0, a).iter().filter_map(left).collect();
    world.input(0, Input::FabricUp);
    world.carry(|| false);
    let back =
        |frame: &ServerFrame| if let ServerFrame::PeerJoined { peer, .. } = frame { Some(peer.peer) } else { None };
    let back: BTreeSet<PeerId> = world.heard(0, a).iter().filter_map(back).collect();
    assert_eq!((left.len(), &left), (2, &back));
}

/// Where the list of peers was lost on its way, a frame comes from a peer that was never announced, and `Resync` behind it.
#[test]
fn a_frame_may_come_from_a_peer_that_was_not_announced() {
    let mut world = World::new(2);
    let (a, b) = (world.connect(0, 1, 1), world.connect(1, 2, 2));
    let room = world.join(0, a, 100);
    world.carry(|| false);
    world.join(1, b, 100);
    world.carry(|| true);
    let c = world.connect(0, 3, 3);
    world.join(0, c, 100);
    world.carry(|| false);
    world.said.clear();
    world.frame(1, b, ClientFrame::Publish { room, payload: Bytes::from_static(b"early") });
    // Later than a hello's answers would have come.
    world.now_ms += HELLO_MS;
    world.carry(|| false);
    let heard = world.heard(0, a);
    assert!(matches!(&heard[..], [ServerFrame::Deliver { .. }, ServerFrame::Resync { .. }]), "{heard:?}");
}

#[test]
fn a_relay_that_died_takes_its_peers_with_it() {
    let (mut world, _, _, b) = World::pair();
    world.relays.remove(0);
    world.subscribed.remove(0);
    let said = world.said.remove(&(1, b));
    assert_eq!(said, None);
    // What was relay 1 is relay 0 now.
    world.pass_ms(NODE_EXPIRES_MS);
    assert!(matches!(world.heard(0, b)[..], [ServerFrame::PeerLeft { .. }]));
}

#[test]
fn a_device_that_comes_in_at_another_relay_takes_its_place() {
    let mut world = World::new(2);
    let old = world.connect(0, 1, 1);
    world.join(0, old, 100);
    world.carry(|| false);
    world.pass_ms(BEAT_MS);
    world.said.clear();
    let new = world.connect(1, 2, 1);
    world.join(1, new, 100);
    world.carry(|| false);
    let heard = world.heard(0, old);
    assert!(heard.iter().any(|frame| matches!(frame, ServerFrame::Error { code: Code::Replaced, .. })), "{heard:?}");
    let elsewhere = world.relays[1].rooms(0, 1)[0].elsewhere;
    assert_eq!(elsewhere, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the fabric loses: a member misses nothing without a Resync after it, once a beat has passed.
    #[test]
    fn nothing_is_lost_unseen(losses in proptest::collection::vec(any::<bool>(), 1..60)) {
        let (mut world, room, a, b) = World::pair();
        let mut losses = losses.into_iter();
        for number in 0..20u8 {
            world.frame(0, a, ClientFrame::Publish { room, payload: Bytes::from(vec![number]) });
            let lost = world.carry(|| losses.next().unwrap_or(false));
            let heard = world.heard(1, b);
            prop_assert_eq!(payloads(&heard).is_empty(), lost);
            if lost {
                // The tail beat, and one second in which Resync may be held back.
                world.pass_ms(2_000);
                let heard = world.heard(1, b);
                prop_assert!(heard.contains(&ServerFrame::Resync { room }), "{heard:?}");
            }
        }
        world.pass_ms(NODE_EXPIRES_MS);
        prop_assert_eq!(world.relays[1].rooms(0, 1)[0].elsewhere, 1);
    }
}
