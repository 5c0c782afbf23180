//! What an operator sees of a relay that runs: refusals in the log, marks that lead from one view to another, metrics, alerts.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use weft_protocol::admission::DidKey;
use weft_protocol::code::Code;
use weft_relay::{Config, Server};

use crate::client::{Came, Client, Who, http, key, now_s, post_token, post_token_with, roomy, upgrade_with, within};
use crate::process::Process;

fn did(seed: u8) -> String {
    DidKey::Ed25519(key(seed).verifying_key().to_bytes()).to_string()
}

async fn becomes(what: &str, mut test: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !test().await {
            tokio::task::yield_now().await
        }
    })
    .await;
}

/// A relay whose admin port is open.
async fn administered(config: Config) -> (crate::client::Relay, std::net::SocketAddr) {
    let server = Server::bind(Config { admin_listen: Some("127.0.0.1:0".parse().unwrap()), ..config }).await.unwrap();
    let admin = server.admin_addr().unwrap();
    (crate::client::run(server), admin)
}

async fn mark(admin: std::net::SocketAddr, query: &str) -> String {
    let (status, answer) = http(admin, "GET", &format!("/mark?{query}"), "", "").await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["mark"].as_str().unwrap().to_owned()
}

/// The value of a series; `None` if it is not there.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// An operator who was told nothing sees in the metrics that clients are refused by the block file, in the log by which line
/// of it and under which marks; and no DID or address is in either.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_is_found_from_metrics_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked");
    std::fs::write(&file, format!("# people\n{}\n192.0.2.0/24\n", did(1))).unwrap();
    let blocked = ["--block-file", file.to_str().unwrap(), "--trusted-proxy", "127.0.0.1"];
    let more = ["--log-format", "json", "--token-requests-per-minute", "100000", "--admin-listen", "127.0.0.1:0"];
    let relay = Process::start(&[&blocked[..], &more].concat());
    let admin = relay.admin();
    let ask = async |seed: u8, from: &str| {
        let who = Who::new(relay.addr, seed);
        let (jwt, body) = who.request(now_s());
        post_token_with(relay.addr, &jwt, &body, &format!("X-Forwarded-For: {from}\r\n")).await
    };
    assert_eq!(ask(1, "198.51.100.7").await.unwrap_err().code(), Code::NotAllowed);
    assert_eq!(ask(2, "192.0.2.9").await.unwrap_err().code(), Code::NotAllowed);
    let token = ask(2, "198.51.100.8").await.unwrap().token;
    let offer = weft_protocol::admission::subprotocol::offer(&token);
    let refused = upgrade_with(relay.addr, &offer, "192.0.2.9").await.unwrap_err();
    assert_eq!(refused.1.code(), Code::NotAllowed);
    assert_eq!(post_token(relay.addr, "garbage", "{}").await.unwrap_err().code(), Code::Malformed);

    let metrics = http(admin, "GET", "/metrics", "", "").await.1;
    for (series, expected) in [
        ("weft_relay_not_allowed_total{why=\"blocked-did\"}", 1.0),
        ("weft_relay_not_allowed_total{why=\"blocked-address\"}", 2.0),
        ("weft_relay_refusals_total{code=\"malformed\"}", 1.0),
        ("weft_relay_blocked_dids", 1.0),
        ("weft_relay_blocked_networks", 1.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series} in {metrics}");
    }
    let lines = || -> Vec<Value> {
        let lines = relay.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
        let refused = |line: &Value| line["fields"]["message"] == "refused";
        lines.into_iter().filter(refused).map(|line| line["fields"].clone()).collect()
    };
    becomes("the lines of the log", async || lines().len() == 4).await;
    let lines = lines();
    let by = |why: &str| lines.iter().filter(|line| line["why"] == why).collect::<Vec<_>>();
    let (dids, addresses) = (by("blocked-did"), by("blocked-address"));
    assert_eq!((dids.len(), addresses.len()), (1, 2), "{lines:?}");
    assert_eq!((&dids[0]["block_file_line"], &addresses[0]["block_file_line"]), (&2.into(), &3.into()));
    assert_eq!(dids[0]["did"], mark(admin, &format!("did={}", did(1))).await);
    assert_eq!(dids[0]["address"], mark(admin, "address=198.51.100.7").await);
    for line in addresses {
        assert_eq!(line["address"], mark(admin, "address=192.0.2.9").await);
    }
    for name in [&did(1), &did(2), "192.0.2", "198.51.100"] {
        assert!(!relay.log().contains(name) && !metrics.contains(name), "{name} in {}{metrics}", relay.log());
    }
    assert_eq!(http(admin, "GET", "/mark", "", "").await.0, 400);
    assert_eq!(http(admin, "GET", "/mark?address=nonsense", "", "").await.0, 400);
}

/// However often a client is refused, the log stays short, and another kind of refusal is still seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_does_not_fill_the_log() {
    let relay = Process::start(&["--token-requests-per-minute", "1000000"]);
    for _ in 0..200 {
        post_token(relay.addr, "garbage", "{}").await.unwrap_err();
    }
    assert_eq!(post_token(relay.addr, &"x".repeat(5000), "{}").await.unwrap_err().code(), Code::TooLarge);
    becomes("the other refusal", async || relay.log().contains("too-large")).await;
    let lines = relay.log().matches("refused").count();
    assert!(lines <= 30, "{lines} lines: {}", relay.log());
}

/// A refusal on a connection is seen too: by its code, its connection's number and its DID's mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_frame_is_logged_under_marks() {
    let relay = Process::start(&["--room-peers-max", "2", "--admin-listen", "127.0.0.1:0"]);
    let mut clients = Vec::new();
    for seed in 1..=2 {
        let mut client = Client::connect(relay.addr, seed).await;
        client.join(&key(100)).await;
        clients.push(client);
    }
    let mut late = Client::connect(relay.addr, 3).await;
    let join = late.join_frame(&key(100));
    late.send(join).await;
    assert_eq!(late.refused().await, Code::RoomFull);
    let admin = relay.admin();
    let mark = mark(admin, &format!("did={}", did(3))).await;
    becomes("the line", async || {
        relay
            .log()
            .lines()
            .any(|line| line.contains("room-full") && line.contains(&mark) && line.contains("connection=2"))
    })
    .await;
    let metrics = http(admin, "GET", "/metrics", "", "").await.1;
    assert_eq!(value(&metrics, "weft_relay_frame_refusals_total{code=\"room-full\"}"), Some(1.0));
}

/// The mark that the page of rooms shows is what closes its DID's connections.
#[tokio::test]
async fn kick_takes_the_mark_that_rooms_shows() {
    let (relay, admin) = administered(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    a.join(&key(100)).await;
    let (_, rooms) = http(admin, "GET", "/rooms", "", "").await;
    let rooms: Value = serde_json::from_str(&rooms).unwrap();
    let shown = rooms["rooms"][0]["peers"][0]["did"].as_str().unwrap();
    assert_eq!(shown, mark(admin, &format!("did={}", did(1))).await);
    assert_eq!(http(admin, "POST", "/kick?did=000000000000", "", "").await.1, r#"{"kicked":0}"#);
    assert_eq!(http(admin, "POST", &format!("/kick?did={shown}"), "", "").await.1, r#"{"kicked":1}"#);
    assert_eq!(a.refused().await, Code::NotAllowed);
    assert_eq!(a.came().await, Came::Closed(Some(Code::NotAllowed)));
    b.join(&key(100)).await;
}

/// What runs, since when, with what, and under which limits.
#[tokio::test]
async fn metrics_show_version_process_and_limits() {
    let (_relay, admin) = administered(Config { connections_max: 77, connections_per_ip_max: 66, ..roomy() }).await;
    let metrics = http(admin, "GET", "/metrics", "", "").await.1;
    let version = format!("weft_relay_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    for (series, expected) in [
        (version.as_str(), 1.0),
        ("weft_relay_connections_max", 77.0),
        ("weft_relay_connections_per_ip_max", 66.0),
        ("weft_relay_token_requests_per_minute", 10_000.0),
        ("weft_relay_room_peers_max", 50.0),
        ("weft_relay_rooms_per_connection_max", 64.0),
        ("weft_relay_queue_bytes_max", 4_194_304.0),
        ("weft_relay_queue_frames_max", 8192.0),
        ("weft_relay_fabric_configured", 0.0),
        // There before anything went wrong, so that the first time is seen.
        ("weft_relay_reloads_total{result=\"failed\"}", 0.0),
        ("weft_relay_refusals_total{code=\"wrong-audience\"}", 0.0),
        ("weft_relay_closes_total{code=\"resync\"}", 0.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series} in {metrics}");
    }
    let started = value(&metrics, "process_start_time_seconds").unwrap();
    assert!(started > 1.5e9 && started <= now_s() as f64 + 1.0);
    for series in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
    {
        assert!(value(&metrics, series).is_some_and(|value| value >= 0.0), "{series} in {metrics}");
    }
}

/// The metrics that the documentation and the alerts name are there on a relay that has just started, each labelled one too.
#[tokio::test]
async fn what_the_alerts_and_the_documentation_name_is_there() {
    let (_relay, admin) = administered(roomy()).await;
    let metrics = http(admin, "GET", "/metrics", "", "").await.1;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = BTreeSet::new();
    for file in ["docs/operating.md", "docker/prometheus/alerts.yaml", "docker/prometheus/alerts-test.yaml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for begin in ["weft_relay_", "process_"] {
            for (at, _) in text.match_indices(begin) {
                let rest = &text[at..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                named.insert(rest[..end].to_owned());
            }
        }
    }
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        let there =
            metrics.lines().any(|line| line.strip_prefix(&*name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        assert!(there, "{name} is not in {metrics}");
    }
}

/// A relay behind a proxy that speaks TLS, started as the README says: agents are let in under the URL that they dial, and the
/// relay's own document names it with `wss://`, whatever its port.
#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_the_public_url_is_what_agents_dial() {
    for (url, dialled, id) in [
        ("wss://relay.example.org", "wss://relay.example.org:443", "did:web:relay.example.org"),
        ("wss://relay.example.org:8443", "wss://relay.example.org:8443", "did:web:relay.example.org%3A8443"),
        ("ws://relay.example.org:8080", "ws://relay.example.org:8080", "did:web:relay.example.org%3A8080"),
    ] {
        let relay = Process::start(&["--public-url", url, "--trusted-proxy", "127.0.0.1"]);
        let document = http(relay.addr, "GET", "/.well-known/did.json", "", "").await.1;
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!((&document["id"], &document["service"][0]["serviceEndpoint"]), (&id.into(), &dialled.into()));
        let audience = weft_protocol::admission::Audience::from_url(url).unwrap();
        let who = Who { audience, ..Who::new(relay.addr, 1) };
        let (jwt, body) = who.request(now_s());
        let asked = post_token_with(relay.addr, &jwt, &body, "X-Forwarded-For: 192.0.2.7\r\n").await;
        let token = asked.unwrap().token;
        let offer = weft_protocol::admission::subprotocol::offer(&token);
        upgrade_with(relay.addr, &offer, "192.0.2.7").await.unwrap();
        assert_eq!(Who::new(relay.addr, 1).token(relay.addr).await.unwrap_err().code(), Code::WrongAudience);
    }
}
