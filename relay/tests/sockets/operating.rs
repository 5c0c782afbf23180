//! What an operator does: configuration, admin port, reloading, TLS, proxies, policies.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use weft_protocol::admission::proof::auth_proof;
use weft_protocol::admission::{DidKey, subprotocol};
use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_relay::{Config, PolicyConfig, Server, TlsFiles};

use crate::client::{
    Came, Client, Who, http, key, now_s, post_token_bytes, post_token_with, relay, roomy, upgrade_request,
    upgrade_with, within,
};
use crate::process::Process;

fn binary(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft-relay")).args(args).envs(environment.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn flags_go_before_the_environment_and_both_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(
        &file,
        "room_peers_max = 10\nqueue_frames_max = 100\nconnections_max = 7\nauth_token = \"correct horse battery\"\n",
    )
    .unwrap();
    let args = ["--config", file.to_str().unwrap(), "--room-peers-max", "30", "--print-config"];
    let output = binary(&args, &[("WEFT_RELAY_ROOM_PEERS_MAX", "20"), ("WEFT_RELAY_QUEUE_FRAMES_MAX", "200")]);
    let printed = said(&output);
    for line in ["room_peers_max = 30", "queue_frames_max = 200", "connections_max = 7", "auth_token = \"(hidden)\""] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
    assert!(!printed.contains("horse"));
}

#[test]
fn check_config_points_at_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("listen = \"127.0.0.1:0\"\n\nlisten_port = 1\n", vec!["line 3", "listen_port"]),
        ("messages_per_second = 0\n", vec!["line 1", "messages_per_second"]),
        ("nats = [\"nats://127.0.0.1:4222\"]\n", vec!["token_keys", "openssl rand"]),
        ("listen = \"0.0.0.0:0\"\ndevelopment = true\n", vec!["development", "loopback"]),
        ("tls_certificate = \"/nowhere\"\ntls_key = \"/nowhere\"\n", vec!["/nowhere"]),
        ("block_file = \"/nowhere\"\n", vec!["block_file"]),
        ("did_ca = \"/nowhere\"\n", vec!["did_ca", "/nowhere"]),
        (
            &format!(
                "nats = [\"nats://127.0.0.1:1\"]\nnats_ca = \"/nowhere\"\ntoken_keys = [\"{}\"]\n",
                "ab".repeat(32)
            ),
            vec!["nats_ca", "/nowhere"],
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = binary(&["check-config", "--config", path], &[]);
        assert!(!output.status.success(), "{text}");
        for word in words {
            assert!(said(&output).contains(word), "{word} is not in {}", said(&output));
        }
        // What the check refuses does not start either.
        assert!(!binary(&["--config", path], &[]).status.success(), "{text}");
    }
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\n").unwrap();
    let good = binary(&["check-config", "--config", path], &[]);
    assert!(good.status.success() && !said(&good).contains("warning"));
    // What is surely not meant is said, though it starts.
    std::fs::write(&file, "trusted_proxies = [\"0.0.0.0/0\"]\nallow_dids = [\"did:key:alice\"]\n").unwrap();
    let odd = binary(&["check-config", "--config", path], &[]);
    assert!(odd.status.success());
    for word in ["warning", "0.0.0.0/0 is every address", "(did:key:alice) is no DID"] {
        assert!(said(&odd).contains(word), "{word} is not in {}", said(&odd));
    }
}

#[test]
fn learn_says_what_the_page_says() {
    let learned = said(&binary(&["learn"], &[]));
    assert_eq!(learned.trim_end(), weft_relay::learn::text().trim_end());
    let unreached = binary(&["--listen", "127.0.0.1:1", "health"], &[]);
    assert!(!unreached.status.success() && said(&unreached).contains("not healthy"));
}

/// A relay whose admin port is open.
async fn administered(config: Config) -> (crate::client::Relay, SocketAddr) {
    let server = Server::bind(Config { admin_listen: Some("127.0.0.1:0".parse().unwrap()), ..config }).await.unwrap();
    let admin = server.admin_addr().unwrap();
    (crate::client::run(server), admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_a_running_relay() {
    let relay = relay(roomy()).await;
    let listen = relay.addr.to_string();
    let asked = tokio::task::spawn_blocking(move || binary(&["--listen", &listen, "health"], &[]));
    assert!(asked.await.unwrap().status.success());
}

#[tokio::test]
async fn metrics_and_rooms_show_numbers_and_no_names() {
    let (relay, admin) = administered(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    let (room, _, _) = a.join(&key(100)).await;
    b.join(&key(100)).await;
    a.frame().await;
    a.send(weft_protocol::frame::ClientFrame::Publish { room, payload: vec![7; 500].into() }).await;
    assert!(matches!(b.frame().await, ServerFrame::Deliver { .. }));
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    let again = crate::client::post_token(relay.addr, &jwt, &body).await;
    assert!(again.is_ok() && crate::client::post_token(relay.addr, &jwt, &body).await.is_err());
    let (status, metrics) = http(admin, "GET", "/metrics", "", "").await;
    assert_eq!(status, 200);
    for line in [
        "weft_relay_connections 2",
        "weft_relay_rooms 1",
        "weft_relay_delivered_frames_total 1",
        "weft_relay_refusals_total{code=\"replayed\"} 1",
        "weft_relay_fanout_seconds_bucket",
        "weft_relay_queue_bytes ",
        "weft_relay_did_cache_entries 0",
        "weft_relay_fabric_connected 0",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let (_, rooms) = http(admin, "GET", "/rooms", "", "").await;
    let parsed: serde_json::Value = serde_json::from_str(&rooms).unwrap();
    assert_eq!(parsed["rooms"][0]["peers"].as_array().unwrap().len(), 2);
    let names = [room.to_string(), DidKey::Ed25519(key(1).verifying_key().to_bytes()).to_string()];
    for name in &names {
        assert!(!rooms.contains(&name[..12]) && !metrics.contains(&name[..12]));
    }
    // The public port shows none of it.
    assert_eq!(http(relay.addr, "GET", "/metrics", "", "").await.0, 404);
}

/// Web pages reach a port on loopback through the browser of its operator: one that was made to lead here by its name, and
/// one that sends blindly, get nothing and do nothing.
#[tokio::test]
async fn the_admin_port_serves_no_web_page() {
    let (relay, admin) = administered(Config { admin_hosts: vec!["relay-1".into()], ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    let ask = async |request: &str, lines: String| {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for request in ["GET /metrics", "GET /rooms", "POST /kick?connection=0", "GET /health/ready"] {
        assert_eq!(ask(request, "Host: evil.example\r\n".into()).await, 403, "{request}");
        assert_eq!(ask(request, format!("Host: {admin}\r\nOrigin: http://evil.example\r\n")).await, 403, "{request}");
    }
    for host in ["localhost:7018".to_owned(), "relay-1".to_owned(), admin.to_string()] {
        assert_eq!(ask("GET /metrics", format!("Host: {host}\r\n")).await, 200, "{host}");
    }
    // Nobody was kicked.
    client.join(&key(100)).await;
}

#[tokio::test]
async fn an_operator_kicks_a_connection_or_a_did() {
    let (relay, admin) = administered(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    a.join(&key(100)).await;
    let (_, rooms) = http(admin, "GET", "/rooms", "", "").await;
    let rooms: serde_json::Value = serde_json::from_str(&rooms).unwrap();
    let conn = rooms["rooms"][0]["peers"][0]["connection"].as_u64().unwrap();
    assert_eq!(http(admin, "POST", &format!("/kick?connection={conn}"), "", "").await.1, r#"{"kicked":1}"#);
    assert_eq!(a.refused().await, Code::NotAllowed);
    assert_eq!(a.came().await, Came::Closed(Some(Code::NotAllowed)));
    let did = DidKey::Ed25519(key(2).verifying_key().to_bytes());
    assert_eq!(http(admin, "POST", &format!("/kick?did={did}"), "", "").await.1, r#"{"kicked":1}"#);
    assert_eq!(b.refused().await, Code::NotAllowed);
    assert_eq!(http(admin, "POST", "/kick", "", "").await.0, 400);
    assert_eq!(http(admin, "GET", "/kick?connection=1", "", "").await.0, 404);
}

#[tokio::test]
async fn policies_ask_for_all_that_is_set() {
    let did = DidKey::Ed25519(key(1).verifying_key().to_bytes()).to_string();
    let secret = "a secret of some length";
    let policy = PolicyConfig { auth_tokens: vec![secret.into()], allow_dids: Some(vec![did]), block_file: None };
    let relay = relay(Config { policy, ..roomy() }).await;
    let ask = |seed: u8, with: Option<&'static str>| async move {
        let who = Who::new(relay.addr, seed);
        let (jwt, body) = who.request(now_s());
        let header = with.map(|secret| format!("Weft-Auth: {}\r\n", auth_proof(secret, &who.audience, &jwt)));
        post_token_with(relay.addr, &jwt, &body, &header.unwrap_or_default()).await.map_err(|error| error.code())
    };
    assert!(ask(1, Some(secret)).await.is_ok());
    assert_eq!(ask(1, None).await.err(), Some(Code::NotAllowed));
    assert_eq!(ask(1, Some("another secret of length")).await.err(), Some(Code::NotAllowed));
    assert_eq!(ask(2, Some(secret)).await.err(), Some(Code::NotAllowed));
    let (_, page) = http(relay.addr, "GET", "/", "", "").await;
    assert!(page.contains("certain DIDs that know its secret") && !page.contains(secret));
}

async fn becomes(what: &str, mut test: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !test().await {
            tokio::task::yield_now().await
        }
    })
    .await;
}

/// Writes a file so that its change is seen, whatever the file system's clock.
fn write_later(path: &Path, text: &str, seconds: u64) {
    std::fs::write(path, text).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
}

#[tokio::test]
async fn a_changed_block_file_closes_and_keeps_out_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked");
    std::fs::write(&file, "# nobody\n").unwrap();
    let policy = PolicyConfig { block_file: Some(file.clone()), ..PolicyConfig::default() };
    let (relay, admin) = administered(Config { policy, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    write_later(&file, &format!("{}\n", DidKey::Ed25519(key(1).verifying_key().to_bytes())), 10);
    assert_eq!(client.refused().await, Code::NotAllowed);
    let refused = Who::new(relay.addr, 1).token(relay.addr).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotAllowed);
    write_later(&file, "nonsense\n", 20);
    becomes("a failed reload", async || {
        http(admin, "GET", "/metrics", "", "").await.1.contains("reloads_total{result=\"failed\"} 1")
    })
    .await;
    assert!(Who::new(relay.addr, 1).token(relay.addr).await.is_err());
    assert!(Who::new(relay.addr, 2).token(relay.addr).await.is_ok());
}

/// The binary takes a changed list of DIDs at a SIGHUP, and keeps what it has when the file is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_has_the_file_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let did = |seed: u8| DidKey::Ed25519(key(seed).verifying_key().to_bytes()).to_string();
    let write = |text: String| std::fs::write(&file, text).unwrap();
    write(format!("allow_dids = [\"{}\"]\ntoken_requests_per_minute = 1000000\n", did(1)));
    let relay = Process::start(&["--config", file.to_str().unwrap()]);
    let let_in = async |seed: u8| Who::new(relay.addr, seed).token(relay.addr).await.is_ok();
    assert!(let_in(1).await && !let_in(2).await);
    write(format!("allow_dids = [\"{}\"]\ntoken_requests_per_minute = 1000000\n", did(2)));
    relay.signal("-HUP");
    becomes("the new list", async || let_in(2).await && !let_in(1).await).await;
    write("allow_dids = [\"nobody\"]\n".to_owned());
    relay.signal("-HUP");
    becomes("the complaint", async || relay.log().contains("was not taken")).await;
    assert!(let_in(2).await && !let_in(1).await);
}

#[tokio::test]
async fn token_keys_rotate_without_a_restart() {
    let config = Config { token_keys: vec![[1; 32]], ..roomy() };
    let server = Server::bind(config.clone()).await.unwrap();
    let reloader = server.reloader();
    let relay = crate::client::run(server);
    let old = Who::new(relay.addr, 1).token(relay.addr).await.unwrap();
    reloader.reload(&Config { token_keys: vec![[2; 32], [1; 32]], ..config.clone() }).unwrap();
    drop(upgrade_with(relay.addr, &subprotocol::offer(&old), "").await.unwrap());
    let over = Config { token_keys: vec![[2; 32], [1; 32]], token_keys_old_until_s: Some(now_s() - 1), ..config };
    reloader.reload(&over).unwrap();
    assert_eq!(upgrade_with(relay.addr, &subprotocol::offer(&old), "").await.unwrap_err().1.code(), Code::BadToken);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_limits() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let config = Config {
        trusted_proxies: proxies,
        connections_per_ip_max: 1,
        token_requests_per_minute: 2,
        ..Config::default()
    };
    let relay = relay(config).await;
    let token = async |client: &str| {
        let who = Who::new(relay.addr, 1);
        let (jwt, body) = who.request(now_s());
        post_token_with(relay.addr, &jwt, &body, &format!("X-Forwarded-For: 6.6.6.6, {client}\r\n")).await
    };
    let first = token("192.0.2.1").await.unwrap().token;
    let second = token("192.0.2.1").await.unwrap().token;
    assert_eq!(token("192.0.2.1").await.err().map(|error| error.code()), Some(Code::RateLimited));
    let other = token("192.0.2.2").await.unwrap().token;
    let from = |client: &str| format!("192.0.2.9, {client}");
    let open = upgrade_with(relay.addr, &subprotocol::offer(&first), &from("192.0.2.1")).await.unwrap();
    let refused = upgrade_with(relay.addr, &subprotocol::offer(&second), &from("192.0.2.1")).await.unwrap_err();
    assert_eq!(refused.1.code(), Code::TooManyConnections);
    drop(upgrade_with(relay.addr, &subprotocol::offer(&other), &from("192.0.2.2")).await.unwrap());
    drop(open);
}

/// A client behind a proxy cannot take its address out of what the relay reads: one byte above 0x7f in a header of its own, to
/// which the proxy appends, hid it from blocks and from its limits.
#[tokio::test]
async fn no_byte_hides_a_client_behind_its_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, "192.0.2.66\n").unwrap();
    let config = Config {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        policy: PolicyConfig { block_file: Some(blocked), ..PolicyConfig::default() },
        connections_per_ip_max: 1,
        token_requests_per_minute: 2,
        ..Config::default()
    };
    let relay = relay(config).await;
    let token = async |header: &[u8]| {
        let who = Who::new(relay.addr, 1);
        let (jwt, body) = who.request(now_s());
        post_token_bytes(relay.addr, &jwt, &body, header).await.map_err(|error| error.code())
    };
    assert_eq!(token(b"X-Forwarded-For: \xff, 192.0.2.66\r\n").await.err(), Some(Code::NotAllowed));
    assert_eq!(token(b"X-Forwarded-For: \xff\r\nX-Forwarded-For: 192.0.2.66\r\n").await.err(), Some(Code::NotAllowed));
    let first = token(b"X-Forwarded-For: \xff, 192.0.2.1\r\n").await.unwrap().token;
    let second = token(b"X-Forwarded-For: \xc3\xbc, 192.0.2.1\r\n").await.unwrap().token;
    assert_eq!(token(b"X-Forwarded-For: \xff, 192.0.2.1\r\n").await.err(), Some(Code::RateLimited));
    let connect = async |token: &str, forwarded: &[u8]| {
        let mut request = format!("ws://{}/v1/connect", relay.addr).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", subprotocol::offer(token).parse().unwrap());
        request.headers_mut().insert("x-forwarded-for", HeaderValue::from_bytes(forwarded).unwrap());
        upgrade_request(relay.addr, request).await.map_err(|(_, error)| error.code())
    };
    assert_eq!(connect(&first, b"\xff, 192.0.2.66").await.err(), Some(Code::NotAllowed));
    let _open = connect(&first, b"\xff, 192.0.2.1").await.unwrap();
    assert_eq!(connect(&second, b"\xff, 192.0.2.1").await.err(), Some(Code::TooManyConnections));
    // A proxy that does not say who the client is gets nothing, and not the limits of its own address.
    assert_eq!(token(b"X-Forwarded-For: 192.0.2.1, \xff\r\n").await.err(), Some(Code::Malformed));
    assert_eq!(connect(&second, b"unknown").await.err(), Some(Code::Malformed));
    // What comes from the proxy itself is one client, with the limits of one.
    let own = token(b"").await.unwrap().token;
    let _its_own = upgrade_with(relay.addr, &subprotocol::offer(&own), "").await.unwrap();
    let more = token(b"").await.unwrap().token;
    let refused = upgrade_with(relay.addr, &subprotocol::offer(&more), "").await.unwrap_err();
    assert_eq!(refused.1.code(), Code::TooManyConnections);
}

/// A certificate for localhost; its PEM and its key's.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The certificate that a relay shows, and its answer to a GET; `None` if `trusted` did not sign it.
async fn over_tls(addr: SocketAddr, trusted: &str) -> Option<String> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may come without a close_notify.
    let _ = within("an answer over TLS", stream.read_to_end(&mut answer)).await;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn tls_is_served_and_a_new_certificate_taken_while_running() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let (first, first_key) = certificate();
    std::fs::write(&files.certificate, &first).unwrap();
    std::fs::write(&files.key, &first_key).unwrap();
    let relay = relay(Config { tls: Some(files.clone()), ..roomy() }).await;
    assert!(over_tls(relay.addr, &first).await.unwrap().starts_with("HTTP/1.1 200"));
    let (second, second_key) = certificate();
    assert!(over_tls(relay.addr, &second).await.is_none());
    // A certificate without its key is not taken.
    write_later(&files.certificate, &second, 10);
    assert!(over_tls(relay.addr, &first).await.is_some());
    write_later(&files.key, &second_key, 20);
    becomes("the new certificate", async || over_tls(relay.addr, &second).await.is_some()).await;
    // What is no TLS gets nowhere, and disturbs nobody.
    let mut plain = TcpStream::connect(relay.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("being cut off", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn the_relays_own_did_resolves_to_what_was_dialled() {
    let relay = relay(roomy()).await;
    let (status, document) = http(relay.addr, "GET", "/.well-known/did.json", "", "").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["id"], format!("did:web:127.0.0.1%3A{}", relay.addr.port()));
    assert_eq!(document["service"][0]["serviceEndpoint"], format!("ws://{}", relay.addr));
}
