//! Three relays behind one name are restarted one after another while everybody writes.
//!
//! Each client does what an agent does at this level: told to come back after a while, it connects to the next relay then;
//! whenever it may have missed something (it came in, or was told to reconcile) it asks the others for all that they wrote.
//! `WEFT_TEST_ROLLING` says how many clients (100); 2,000 is the number to try by hand, with `ulimit -n 8192`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use tokio::sync::watch;
use weft_protocol::admission::Audience;
use weft_protocol::frame::{ClientFrame, PeerId, ServerFrame};
use weft_protocol::id::RoomId;

use crate::client::{Came, Client, Who, http, random, within};
use crate::hard_times::{RAISED, number};
use crate::nats::Nats;
use crate::process::Process;

/// Members of a room, spread over the relays.
const MEMBERS: u64 = 5;
/// Over which the clients of a relay come back.
const SPREAD_MS: u64 = 3_000;
const BUCKET_MS: u64 = 500;

/// What somebody knows: for each author the numbers of what they wrote.
type Known = BTreeMap<u64, BTreeSet<u64>>;

#[derive(Default)]
struct Seen {
    known: Mutex<Known>,
    /// Moments at which it set out to another relay after it had been told to.
    returns: Mutex<Vec<Instant>>,
    told: Mutex<u64>,
    /// Connections that ended without a word before.
    cut: Mutex<u64>,
}

/// `asks`: everybody answers with all that they wrote.
fn payload(asks: bool, author: u64, numbers: impl IntoIterator<Item = u64>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(u8::from(asks));
    out.put_u64(author);
    numbers.into_iter().for_each(|number| out.put_u64(number));
    out.freeze()
}

struct Member {
    number: u64,
    seen: Arc<Seen>,
    written: u64,
}

impl Member {
    fn room_key(&self) -> SigningKey {
        let mut seed = [0xbb; 32];
        seed[..8].copy_from_slice(&(self.number / MEMBERS).to_be_bytes());
        SigningKey::from_bytes(&seed)
    }

    /// In at a relay and in the room, unless that relay is about to stop or gone.
    async fn enter(&self, addr: SocketAddr) -> Option<(Client, RoomId)> {
        // A relay that is not there refuses the connection.
        drop(tokio::net::TcpStream::connect(addr).await.ok()?);
        let audience = Audience::from_url("ws://relay.example").unwrap();
        let entering = async move {
            let who = Who { audience, ..Who::new(addr, (self.number % 251) as u8) };
            let token = who.token(addr).await.unwrap();
            let mut client = Client::challenged(addr, who, &token).await;
            client.prove(&token).await;
            let frame = client.join_frame(&self.room_key());
            client.send(frame).await;
            loop {
                match client.came().await {
                    Came::Frame(ServerFrame::Joined { room, .. }) => return Some((client, room)),
                    Came::Frame(ServerFrame::Welcome { .. }) => {}
                    Came::Frame(_) | Came::Closed(_) => return None,
                }
            }
        };
        // The test's client panics where a relay stops in the middle of the handshake; that is no more than another try.
        use futures_util::FutureExt as _;
        std::panic::AssertUnwindSafe(entering).catch_unwind().await.ok().flatten()
    }

    /// Lives until `end`, writing while `writing`.
    async fn live(mut self, relays: [SocketAddr; 3], mut writing: watch::Receiver<bool>, end: watch::Receiver<bool>) {
        let mut at = self.number as usize;
        while !*end.borrow() {
            let Some((client, room)) = self.enter(relays[at % 3]).await else {
                at += 1;
                let [jitter] = random::<1>();
                tokio::time::sleep(Duration::from_millis(50 + u64::from(jitter))).await;
                continue;
            };
            self.stay(client, room, &mut writing, end.clone()).await;
            at += 1;
        }
    }

    async fn stay(
        &mut self,
        mut client: Client,
        room: RoomId,
        writing: &mut watch::Receiver<bool>,
        mut end: watch::Receiver<bool>,
    ) {
        let all = |member: &Self| 1..=member.written;
        if !self.say(&mut client, room, None, payload(true, self.number, all(self))).await {
            return;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut due: Option<tokio::time::Instant> = None;
        loop {
            let came = tokio::select! {
                came = client.came() => came,
                _ = tick.tick(), if *writing.borrow() => {
                    self.written += 1;
                    self.seen.known.lock().unwrap().entry(self.number).or_default().insert(self.written);
                    if !self.say(&mut client, room, None, payload(false, self.number, [self.written])).await {
                        return;
                    }
                    continue;
                }
                () = async { tokio::time::sleep_until(due.unwrap()).await }, if due.is_some() => {
                    self.seen.returns.lock().unwrap().push(Instant::now());
                    return;
                }
                _ = end.changed() => return,
            };
            let answer = match came {
                Came::Frame(ServerFrame::Restarting { after_ms }) => {
                    *self.seen.told.lock().unwrap() += 1;
                    due = Some(tokio::time::Instant::now() + Duration::from_millis(after_ms));
                    None
                }
                Came::Frame(ServerFrame::Resync { .. }) => Some((None, payload(true, self.number, all(self)))),
                Came::Frame(ServerFrame::PeerJoined { peer, .. }) => {
                    Some((Some(peer.peer), payload(false, self.number, all(self))))
                }
                Came::Frame(ServerFrame::Deliver { from, payload: said, .. }) => {
                    self.hear(said).then(|| (Some(from), payload(false, self.number, all(self))))
                }
                Came::Frame(_) => None,
                Came::Closed(_) => {
                    match due {
                        // Closed in its wave: it still comes back when it was told to, not with all others of the wave.
                        Some(due) => {
                            tokio::time::sleep_until(due).await;
                            self.seen.returns.lock().unwrap().push(Instant::now());
                        }
                        None => *self.seen.cut.lock().unwrap() += 1,
                    }
                    return;
                }
            };
            if let Some((to, answer)) = answer
                && !self.say(&mut client, room, to, answer).await
            {
                return;
            }
        }
    }

    /// Takes in what somebody wrote; whether they ask.
    fn hear(&self, mut said: Bytes) -> bool {
        let (asks, author) = (said.get_u8() == 1, said.get_u64());
        let mut known = self.seen.known.lock().unwrap();
        let theirs = known.entry(author).or_default();
        while said.has_remaining() {
            theirs.insert(said.get_u64());
        }
        asks
    }

    /// Whether it could still be said.
    async fn say(&self, client: &mut Client, room: RoomId, to: Option<PeerId>, payload: Bytes) -> bool {
        let frame = match to {
            Some(to) => ClientFrame::Send { room, to, payload },
            None => ClientFrame::Publish { room, payload },
        };
        let message = tokio_tungstenite::tungstenite::Message::Binary(frame.encode());
        futures_util::SinkExt::send(&mut client.ws, message).await.is_ok()
    }
}

async fn ready(addr: SocketAddr) {
    let up = async {
        while tokio::net::TcpStream::connect(addr).await.is_err()
            || http(addr, "GET", "/health/ready", "", "").await.0 != 200
        {
            tokio::task::yield_now().await;
        }
    };
    within("a relay to be ready", up).await;
}

/// Nothing that anybody wrote is missing anywhere in the end, nobody was cut off without a word, and the returns to the other relays are
/// spread over the time that was asked for: no moment has a multiple of its share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing_and_makes_no_storm() {
    let members = number("WEFT_TEST_ROLLING", 100) / MEMBERS * MEMBERS;
    let nats = Nats::start(&[]).await;
    let (url, token_key, spread) = (nats.url(), "01".repeat(32), format!("--restart-spread-ms={SPREAD_MS}"));
    let mut args: Vec<&str> = RAISED.to_vec();
    args.extend(["--nats", &url, "--token-key", &token_key, "--public-url", "ws://relay.example", &spread]);
    args.push("--drain-ms-max=4000");
    let mut relays = [(); 3].map(|()| Process::start(&args));
    let addrs = [0, 1, 2].map(|at: usize| relays[at].addr);
    for addr in addrs {
        ready(addr).await;
    }

    let (writing, writing_seen) = watch::channel(true);
    let (end, end_seen) = watch::channel(false);
    let mut seen = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..members {
        let of_one = Arc::new(Seen::default());
        seen.push(of_one.clone());
        let member = Member { number, seen: of_one, written: 0 };
        tasks.spawn(member.live(addrs, writing_seen.clone(), end_seen.clone()));
    }
    // Everybody has heard all others of their room.
    let met = || (0..members).all(|number| seen[number as usize].known.lock().unwrap().len() as u64 == MEMBERS);
    becomes("all to meet", Duration::from_secs(60 + members / 10), met).await;

    let begun = Instant::now();
    for at in 0..3 {
        relays[at].terminate();
        becomes("a relay to end", Duration::from_secs(30), || relays[at].ended().is_some()).await;
        relays[at] = Process::start_at(addrs[at], &args);
        ready(addrs[at]).await;
    }
    let rolled = begun.elapsed();
    // Those who were told last come back last.
    let back = || seen.iter().all(|one| one.returns.lock().unwrap().len() as u64 >= *one.told.lock().unwrap());
    becomes("all to be back", Duration::from_secs(60), back).await;
    writing.send(false).unwrap();

    let complete = || {
        let wrote = |author: u64| seen[author as usize].known.lock().unwrap().get(&author).cloned().unwrap_or_default();
        (0..members).all(|number| {
            let first = number / MEMBERS * MEMBERS;
            (first..first + MEMBERS).all(|author| {
                let theirs = wrote(author);
                seen[number as usize].known.lock().unwrap().get(&author) == Some(&theirs)
            })
        })
    };
    becomes("everybody to know everything", Duration::from_secs(60 + members / 10), complete).await;
    end.send(true).unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(30), async { while tasks.join_next().await.is_some() {} }).await;

    let total: usize =
        seen.iter().map(|one| one.known.lock().unwrap().values().map(BTreeSet::len).sum::<usize>()).sum();
    let told: u64 = seen.iter().map(|one| *one.told.lock().unwrap()).sum();
    let cut: u64 = seen.iter().map(|one| *one.cut.lock().unwrap()).sum();
    println!(
        "{members} clients, {total} messages known, three restarts in {rolled:?}, told {told} times, cut off {cut} times"
    );
    assert!(told >= members, "not everybody was told: {told}");
    assert_eq!(cut, 0, "somebody was cut off without a word");
    let mut histogram: BTreeMap<u64, usize> = BTreeMap::new();
    for at in seen.iter().flat_map(|one| one.returns.lock().unwrap().clone()) {
        *histogram.entry(at.duration_since(begun).as_millis() as u64 / BUCKET_MS).or_default() += 1;
    }
    for (bucket, count) in &histogram {
        println!("{:>6} ms {count:>5} {}", bucket * BUCKET_MS, "#".repeat((count * 60).div_ceil(members as usize)));
    }
    // All clients may have gathered at two relays: half of them return over one spread.
    let share = members * BUCKET_MS / SPREAD_MS / 2;
    let most = histogram.values().copied().max().unwrap_or_default() as u64;
    assert!(most <= 3 * share + 10, "{most} came back within {BUCKET_MS} ms, {share} are their share");
}

async fn becomes(what: &str, deadline: Duration, mut test: impl FnMut() -> bool) {
    let until = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while !test() {
            every.tick().await;
        }
    };
    tokio::time::timeout(deadline, until).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
