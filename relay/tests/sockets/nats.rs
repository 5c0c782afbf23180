//! Several relays over a real nats-server: they are one while it is there, go on alone while it is not, and are one again.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use weft_protocol::admission::{Audience, subprotocol};
use weft_protocol::frame::{ClientFrame, PeerId, ServerFrame};
use weft_protocol::id::RoomId;
use weft_relay::{Config, NatsConfig, Server, ServerError};

use crate::client::{Client, Relay, Who, http, key, relay, roomy, upgrade, within};
use crate::process::Process;

/// A nats-server on a port of its own; killed when dropped.
pub(crate) struct Nats {
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Nats {
    pub(crate) async fn start(args: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut nats = Self { port, args: args.iter().map(|&arg| arg.to_owned()).collect(), child: None };
        nats.run().await;
        nats
    }

    async fn run(&mut self) {
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("nats-server is needed: Debian has it as a package"));
        let addr = SocketAddr::from(([127, 0, 0, 1], self.port));
        let up = async {
            while tokio::net::TcpStream::connect(addr).await.is_err() {
                tokio::task::yield_now().await
            }
        };
        within("nats-server", up).await;
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn config(&self) -> NatsConfig {
        NatsConfig { urls: vec![self.url()], ..NatsConfig::default() }
    }

    async fn relay(&self) -> Relay {
        self.relay_at(self.config()).await
    }

    /// By another way than straight.
    async fn relay_at(&self, nats: NatsConfig) -> Relay {
        // A writer may fill every buffer on the way.
        let mut config = Config { nats: Some(nats), token_keys: vec![[1; 32]], ..roomy() };
        (config.settings.bytes_per_second, config.settings.bytes_burst) = (u32::MAX, u32::MAX);
        (config.settings.messages_per_second, config.settings.messages_burst) = (1_000_000, 1_000_000);
        // And a reader has what was held up all at once.
        config.settings.queue_bytes_max = 256 << 20;
        let relay = relay(config).await;
        connected(&relay, true).await;
        relay
    }
}

async fn connected(relay: &Relay, up: bool) {
    let until = async {
        while relay.watch.figures().fabric_up != up {
            tokio::task::yield_now().await
        }
    };
    within(if up { "NATS" } else { "NATS to be gone" }, until).await;
}

impl Client {
    /// Reads until a frame is as wanted; gives it and what came before it.
    async fn until(&mut self, wanted: impl Fn(&ServerFrame) -> bool) -> (ServerFrame, Vec<ServerFrame>) {
        let mut before = Vec::new();
        loop {
            let frame = self.frame().await;
            if wanted(&frame) {
                return (frame, before);
            }
            before.push(frame);
        }
    }

    async fn publish(&mut self, room: RoomId, text: &'static str) {
        self.send(ClientFrame::Publish { room, payload: Bytes::from_static(text.as_bytes()) }).await;
    }

    async fn hears(&mut self, text: &'static str) -> PeerId {
        let is =
            |frame: &ServerFrame| matches!(frame, ServerFrame::Deliver { payload, .. } if payload == text.as_bytes());
        let ServerFrame::Deliver { from, .. } = self.until(is).await.0 else { unreachable!() };
        from
    }

    async fn sees(&mut self, peer: PeerId) {
        self.until(|frame| matches!(frame, ServerFrame::PeerJoined { peer: seen, .. } if seen.peer == peer)).await;
    }
}

/// Two clients at two relays who see each other.
async fn pair(a: &Relay, b: &Relay) -> (Client, PeerId, Client, PeerId, RoomId) {
    let (mut alice, mut bob) = (Client::connect(a.addr, 1).await, Client::connect(b.addr, 2).await);
    let (room, alices, _) = alice.join(&key(100)).await;
    let (_, bobs, there) = bob.join(&key(100)).await;
    alice.sees(bobs).await;
    if there.is_empty() {
        bob.sees(alices).await;
    }
    (alice, alices, bob, bobs, room)
}

#[tokio::test]
async fn rooms_meet_across_relays_for_all_and_for_one() {
    let nats = Nats::start(&[]).await;
    let (a, b, c) = (nats.relay().await, nats.relay().await, nats.relay().await);
    let (mut alice, alices, mut bob, bobs, room) = pair(&a, &b).await;
    let mut carol = Client::connect(c.addr, 3).await;
    let (_, carols, _) = carol.join(&key(100)).await;
    alice.sees(carols).await;
    bob.sees(carols).await;
    alice.publish(room, "for all").await;
    assert_eq!(bob.hears("for all").await, alices);
    assert_eq!(carol.hears("for all").await, alices);
    bob.send(ClientFrame::Send { room, to: alices, payload: Bytes::from_static(b"for one") }).await;
    bob.publish(room, "after").await;
    assert_eq!(alice.hears("for one").await, bobs);
    let one = |frame: &ServerFrame| matches!(frame, ServerFrame::Deliver { payload, .. } if payload == &b"for one"[..]);
    let after = |frame: &ServerFrame| matches!(frame, ServerFrame::Deliver { payload, .. } if payload == &b"after"[..]);
    assert!(!carol.until(after).await.1.iter().any(one));
    // The largest payload passes too.
    let largest = Bytes::from(vec![7; weft_protocol::limits::PAYLOAD_BYTES_MAX]);
    alice.send(ClientFrame::Publish { room, payload: largest.clone() }).await;
    bob.until(|frame| matches!(frame, ServerFrame::Deliver { payload, .. } if *payload == largest)).await;
    drop(alice);
    bob.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: alices }).await;
}

#[tokio::test]
async fn a_token_of_one_relay_is_good_at_the_other() {
    let nats = Nats::start(&[]).await;
    let audience = Audience::from_url("wss://relay.example").unwrap();
    let config = || Config {
        nats: Some(nats.config()),
        token_keys: vec![[1; 32]],
        audiences: vec![audience.clone()],
        ..roomy()
    };
    let (a, b) = (relay(config()).await, relay(config()).await);
    let who = Who { audience: audience.clone(), ..Who::new(a.addr, 1) };
    let token = who.token(a.addr).await.unwrap();
    drop(upgrade(b.addr, &subprotocol::offer(&token)).await.unwrap());
    let refused = Server::bind(Config { token_keys: Vec::new(), ..config() }).await;
    assert!(matches!(refused, Err(ServerError::Config { key: "token_keys", .. })));
}

#[tokio::test]
async fn without_nats_local_rooms_go_on_and_afterwards_all_reconcile() {
    let mut nats = Nats::start(&[]).await;
    let (a, b) = (nats.relay().await, nats.relay().await);
    let (mut alice, alices, mut bob, bobs, room) = pair(&a, &b).await;
    let mut near = Client::connect(a.addr, 3).await;
    near.join(&key(100)).await;
    nats.kill();
    // Told at once.
    alice.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: bobs }).await;
    bob.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: alices }).await;
    alice.publish(room, "near").await;
    near.hears("near").await;
    assert_eq!(http(a.addr, "GET", "/health/ready", "", "").await.0, 200);
    // Who comes in meanwhile does not wait.
    let mut late = Client::connect(b.addr, 4).await;
    late.join(&key(100)).await;
    nats.run().await;
    find_each_other((&mut alice, alices), (&mut bob, bobs)).await;
    alice.publish(room, "again").await;
    bob.hears("again").await;
    late.hears("again").await;
}

#[tokio::test]
async fn a_paused_nats_stops_nobody_and_what_it_held_arrives() {
    let nats = Nats::start(&[]).await;
    let (a, b) = (nats.relay().await, nats.relay().await);
    let (mut alice, _, mut bob, _, room) = pair(&a, &b).await;
    let mut near = Client::connect(a.addr, 3).await;
    near.join(&key(100)).await;
    nats.signal("-STOP");
    for _ in 0..20 {
        alice.publish(room, "held").await;
        near.hears("held").await;
    }
    nats.signal("-CONT");
    bob.hears("held").await;
}

fn process(nats: &Nats) -> Process {
    Process::start(&["--nats", &nats.url(), "--token-key", &"01".repeat(32)])
}

/// Three relays, a client at each. One relay is killed without a word, then NATS, then both come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_and_nats_are_killed_and_all_find_each_other_again() {
    let mut nats = Nats::start(&[]).await;
    let (a, b) = (nats.relay().await, nats.relay().await);
    let c = process(&nats);
    let (mut alice, alices, mut bob, bobs, room) = pair(&a, &b).await;
    let mut carol = Client::connect(c.addr, 3).await;
    let (_, carols, _) = carol.join(&key(100)).await;
    alice.sees(carols).await;
    bob.sees(carols).await;
    drop(c);
    // No goodbye: the silence tells.
    for client in [&mut alice, &mut bob] {
        client.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: carols }).await;
    }
    nats.kill();
    alice.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: bobs }).await;
    nats.run().await;
    let c = process(&nats);
    let mut carol = Client::connect(c.addr, 3).await;
    let (_, carols, there) = carol.join(&key(100)).await;
    alice.sees(carols).await;
    bob.sees(carols).await;
    // Her relay passes a frame on only to relays that it has heard of itself.
    let mut unseen = vec![alices, bobs];
    unseen.retain(|other| !there.iter().any(|peer| peer.peer == *other));
    while !unseen.is_empty() {
        if let ServerFrame::PeerJoined { peer, .. } = carol.frame().await {
            unseen.retain(|other| *other != peer.peer);
        }
    }
    carol.publish(room, "back").await;
    assert_eq!(alice.hears("back").await, carols);
    assert_eq!(bob.hears("back").await, carols);
}

/// A way to NATS that can be held up, in either direction, without being closed.
struct Way {
    port: u16,
    /// What the relay says is held, what NATS says is held.
    held: tokio::sync::watch::Sender<(bool, bool)>,
}

impl Way {
    async fn to(nats: &Nats) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, seen) = tokio::sync::watch::channel((false, false));
        let nats = nats.port;
        tokio::spawn(async move {
            while let Ok((relay, _)) = listener.accept().await {
                let Ok(nats) = tokio::net::TcpStream::connect(("127.0.0.1", nats)).await else { continue };
                let ((from_relay, to_relay), (from_nats, to_nats)) = (relay.into_split(), nats.into_split());
                tokio::spawn(Self::pass(from_relay, to_nats, seen.clone(), |held| held.0));
                tokio::spawn(Self::pass(from_nats, to_relay, seen.clone(), |held| held.1));
            }
        });
        Self { port, held }
    }

    async fn pass(
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        mut held: tokio::sync::watch::Receiver<(bool, bool)>,
        is_held: impl Fn(&(bool, bool)) -> bool,
    ) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buffer = vec![0; 64 << 10];
        loop {
            if held.wait_for(|held| !is_held(held)).await.is_err() {
                return;
            }
            let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
            // What was read a moment before waits too.
            if held.wait_for(|held| !is_held(held)).await.is_err() || to.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
    }

    fn config(&self) -> NatsConfig {
        NatsConfig { urls: vec![format!("nats://127.0.0.1:{}", self.port)], ..NatsConfig::default() }
    }
}

/// Both are told to reconcile, and see each other again, in whichever order their relays came back.
async fn find_each_other(alice: (&mut Client, PeerId), bob: (&mut Client, PeerId)) {
    for (client, other) in [(alice.0, bob.1), (bob.0, alice.1)] {
        let (mut told, mut seen) = (false, false);
        while !(told && seen) {
            match client.frame().await {
                ServerFrame::Resync { .. } => told = true,
                ServerFrame::PeerJoined { peer, .. } if peer.peer == other => seen = true,
                _ => {}
            }
        }
    }
}

/// One relay is cut off from NATS without any connection being closed: both sides notice by the silence, go on by themselves, and are
/// told to reconcile when the network is whole again.
#[tokio::test]
async fn a_partition_is_noticed_by_its_silence_and_healed() {
    let nats = Nats::start(&[]).await;
    let way = Way::to(&nats).await;
    let (a, b) = (nats.relay().await, nats.relay_at(way.config()).await);
    let (mut alice, alices, mut bob, bobs, room) = pair(&a, &b).await;
    way.held.send((true, true)).unwrap();
    alice.publish(room, "into the void").await;
    alice.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: bobs }).await;
    bob.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: alices }).await;
    let mut near = Client::connect(b.addr, 3).await;
    near.join(&key(100)).await;
    bob.publish(room, "near").await;
    near.hears("near").await;
    assert_eq!(http(b.addr, "GET", "/health/ready", "", "").await.0, 200);
    way.held.send((false, false)).unwrap();
    find_each_other((&mut alice, alices), (&mut bob, bobs)).await;
    alice.publish(room, "again").await;
    bob.hears("again").await;
    near.hears("again").await;
}

/// NATS gives up a relay that takes nothing any more. Its members are told to reconcile once it is back, and the others never notice.
#[tokio::test]
async fn a_relay_that_is_too_slow_for_nats_is_told_what_it_missed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, "max_pending: 2MB\nwrite_deadline: \"1s\"\n").unwrap();
    let nats = Nats::start(&["-c", file.to_str().unwrap()]).await;
    let way = Way::to(&nats).await;
    let (a, b) = (nats.relay().await, nats.relay_at(way.config()).await);
    let (mut alice, _, mut bob, bobs, room) = pair(&a, &b).await;
    let mut near = Client::connect(a.addr, 3).await;
    near.join(&key(100)).await;
    way.held.send((false, true)).unwrap();
    // More than NATS and all sockets on the way hold.
    let payload = Bytes::from(vec![7; 512 << 10]);
    for _ in 0..64 {
        alice.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
        near.until(|frame| matches!(frame, ServerFrame::Deliver { .. })).await;
    }
    // Bob's relay could still speak; that it is not heard any more shows that NATS has given it up.
    alice.until(|frame| *frame == ServerFrame::PeerLeft { room, peer: bobs }).await;
    way.held.send((false, false)).unwrap();
    bob.until(|frame| *frame == ServerFrame::Resync { room }).await;
    // Whoever is told asks the others, who are heard again.
    let heard = async {
        loop {
            alice.publish(room, "after").await;
            let is = |frame: &ServerFrame| matches!(frame, ServerFrame::Deliver { payload, .. } if payload == "after".as_bytes());
            if tokio::time::timeout(std::time::Duration::from_millis(500), bob.until(is)).await.is_ok() {
                return;
            }
        }
    };
    within("being heard again", heard).await;
}

#[tokio::test]
async fn nats_asks_for_its_token() {
    let nats = Nats::start(&["--auth", "a token of some length"]).await;
    let with = |token: &str| Config {
        nats: Some(NatsConfig { token: Some(token.to_owned()), ..nats.config() }),
        token_keys: vec![[1; 32]],
        ..roomy()
    };
    let good = relay(with("a token of some length")).await;
    connected(&good, true).await;
    let bad = relay(with("another token of length")).await;
    let (mut one, mut two) = (Client::connect(bad.addr, 1).await, Client::connect(bad.addr, 2).await);
    let (room, _, _) = one.join(&key(100)).await;
    two.join(&key(100)).await;
    one.publish(room, "alone").await;
    two.hears("alone").await;
    assert!(!bad.watch.figures().fabric_up);
}

#[tokio::test]
async fn nats_asks_for_the_user_and_password_of_the_url() {
    let nats = Nats::start(&["--user", "relay", "--pass", "a password: of length"]).await;
    let with =
        |who: &str| NatsConfig { urls: vec![format!("nats://{who}@127.0.0.1:{}", nats.port)], ..NatsConfig::default() };
    let (a, b) = (
        nats.relay_at(with("relay:a%20password%3A%20of%20length")).await,
        nats.relay_at(with("relay:a%20password%3A%20of%20length")).await,
    );
    let (mut alice, _, mut bob, _, room) = pair(&a, &b).await;
    alice.publish(room, "known to NATS").await;
    bob.hears("known to NATS").await;
}

#[tokio::test]
async fn nats_may_speak_tls_with_a_certificate_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, secret) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&secret, made.signing_key.serialize_pem()).unwrap();
    let (cert_arg, key_arg) = (cert.to_str().unwrap(), secret.to_str().unwrap());
    let nats = Nats::start(&["--tls", "--tlscert", cert_arg, "--tlskey", key_arg]).await;
    let with =
        |ca| Config { nats: Some(NatsConfig { ca: Some(ca), ..nats.config() }), token_keys: vec![[1; 32]], ..roomy() };
    let (a, b) = (relay(with(cert.clone())).await, relay(with(cert.clone())).await);
    connected(&a, true).await;
    connected(&b, true).await;
    let (mut alice, _, mut bob, _, room) = pair(&a, &b).await;
    alice.publish(room, "sealed twice").await;
    bob.hears("sealed twice").await;
    assert!(matches!(Server::bind(with(secret)).await, Err(ServerError::Config { key: "nats_ca", .. })));
}
