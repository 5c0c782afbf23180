//! Links against a real relay, in this process and over real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use weft_agent_core::identity::DeviceKeys;
use weft_agent_core::workspace::input::{Input, LinkKind, LinkUp};
use weft_agent_core::workspace::output::Rank;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::{room_id, sign_room};
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::RoomId;

use super::access::Access;
use super::{LinkEnv, Links, transport};
use crate::account::Account;
use crate::engine::OsRandom;
use crate::host::inbox::{Inbox, Task};
use crate::keychain::Keychain;
use crate::lan::serve::Serving;

const PATIENCE: Duration = Duration::from_secs(20);

struct Side {
    inbox: Arc<Inbox>,
    links: Arc<Links>,
    seen: Vec<Input>,
}

impl Side {
    fn new() -> Side {
        let tls = transport::tls(None).unwrap();
        let device = DeviceKeys::generate(&mut OsRandom);
        let nowhere = std::path::PathBuf::from("/nonexistent/weft");
        let keychain = Arc::new(Keychain::new(nowhere.clone(), false));
        let account = Arc::new(Account::new(nowhere.join("account.json"), Arc::clone(&keychain), None));
        let access = Arc::new(Access::load(nowhere.join("relays.json"), keychain, account).unwrap());
        let env = Arc::new(LinkEnv { device, tls, runtime: tokio::runtime::Handle::current(), access });
        let inbox = Arc::new(Inbox::default());
        Side { links: Links::new(env, Arc::clone(&inbox)), inbox, seen: Vec::new() }
    }
    /// Waits for an input that `wanted` takes.
    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Input) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.iter().position(|input| wanted(input).is_some()) {
                return wanted(&self.seen.remove(at)).unwrap();
            }
            assert!(Instant::now() < deadline, "{what} did not come: {:?}", self.links.health());
            let inbox = Arc::clone(&self.inbox);
            let waiting = move || {
                inbox.wait(Duration::from_millis(50));
                std::iter::from_fn(|| inbox.next()).map(|(task, _)| task).collect::<Vec<_>>()
            };
            let round = tokio::task::spawn_blocking(waiting).await.unwrap();
            self.seen.extend(round.into_iter().filter_map(|task| match task {
                Task::Input(input) => Some(input),
                Task::Rows(_) | Task::Damage(_) | Task::Stored(_) | Task::Stop => None,
            }));
        }
    }
    async fn up(&mut self) -> LinkUp {
        let up = |input: &Input| if let Input::LinkUp(up) = input { Some(up.clone()) } else { None };
        self.wait("a link", up).await
    }
    async fn enter(&mut self, up: &LinkUp, key: &SigningKey) -> RoomId {
        let audience = Audience::parse(&up.audience).unwrap();
        let public = key.verifying_key().to_bytes();
        let room = room_id(&public);
        let proof = sign_room(key, &audience, &up.nonce, &up.connection);
        self.links.send(up.link, Rank::Control, &ClientFrame::Join { room, key: public, proof });
        let joined =
            |input: &Input| matches!(input, Input::Frame { frame: ServerFrame::Joined { .. }, .. }).then_some(());
        self.wait("the room", joined).await;
        room
    }
}

/// Two links are admitted, meet in a room, pass frames whole and in order, and an end is said once.
#[tokio::test(flavor = "multi_thread")]
async fn links_pass_frames_through_a_relay() {
    let relay = Serving::start(0, true).await.unwrap();
    let url = format!("ws://127.0.0.1:{}", relay.port);
    let (mut ann, mut bob) = (Side::new(), Side::new());
    ann.links.set(&[(url.clone(), LinkKind::Lan)]);
    bob.links.set(&[(url.clone(), LinkKind::Lan)]);
    let (ann_up, bob_up) = (ann.up().await, bob.up().await);
    let key = SigningKey::from_bytes(&[9; 32]);
    let room = ann.enter(&ann_up, &key).await;
    bob.enter(&bob_up, &key).await;
    for n in 0..50u8 {
        let payload = Bytes::from(vec![n; 20_000]);
        ann.links.send(ann_up.link, Rank::Bulk, &ClientFrame::Publish { room, payload });
    }
    for n in 0..50u8 {
        let payload = |input: &Input| {
            let Input::Frame { frame: ServerFrame::Deliver { payload, .. }, .. } = input else { return None };
            Some(payload.clone())
        };
        assert_eq!(bob.wait("a frame", payload).await, vec![n; 20_000]);
    }
    let drained = |input: &Input| matches!(input, Input::LinkDrained { .. }).then_some(());
    ann.wait("room for more bulk", drained).await;
    // What is live counts too: a core that is never told would think the socket full.
    for n in 0..5u8 {
        let payload = Bytes::from(vec![n; 20_000]);
        ann.links.send(ann_up.link, Rank::Live, &ClientFrame::Publish { room, payload });
    }
    ann.wait("room after live frames", drained).await;
    ann.links.close(ann_up.link, "test");
    let down = |input: &Input| if let Input::LinkDown { link } = input { Some(*link) } else { None };
    assert_eq!(ann.wait("the end", down).await, ann_up.link);
    let again = ann.up().await;
    assert_ne!(again.link, ann_up.link, "a link id is never used twice");
    assert_ne!(again.connection, ann_up.connection, "a connection key is fresh");
    ann.links.shutdown();
    bob.links.shutdown();
    relay.end().await;
}

/// When this computer's address is another one, a link that went out from the old one is given up at once and made anew; one
/// whose address is still there stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_the_address_it_went_out_from() {
    let relay = Serving::start(0, true).await.unwrap();
    let mut side = Side::new();
    side.links.set(&[(format!("ws://127.0.0.1:{}", relay.port), LinkKind::Relay)]);
    let first = side.up().await;
    side.links.network_changed(&[std::net::IpAddr::from([127, 0, 0, 1])].into());
    let room = SigningKey::from_bytes(&[9; 32]);
    side.enter(&first, &room).await;
    side.links.network_changed(&[std::net::IpAddr::from([10, 0, 0, 7])].into());
    let down = |input: &Input| if let Input::LinkDown { link } = input { Some(*link) } else { None };
    assert_eq!(side.wait("the end", down).await, first.link);
    assert_ne!(side.up().await.link, first.link);
    side.links.shutdown();
    relay.end().await;
}

/// An address where nobody answers is tried again and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_says_why() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let side = Side::new();
    side.links.set(&[(format!("ws://127.0.0.1:{port}"), LinkKind::Relay)]);
    let deadline = Instant::now() + PATIENCE;
    while side.links.health().iter().all(|(_, health)| health.why.is_none()) {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(side.links.health().iter().all(|(_, health)| !health.up));
    side.links.shutdown();
}
