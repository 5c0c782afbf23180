//! Who may be here is asked again and again: a token, a session and a room end with the place on the list.

use std::net::SocketAddr;

use weft_protocol::admission::{DidKey, subprotocol};
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_relay::{Config, PolicyConfig, Reloader, Server};

use crate::client::{Came, Client, Relay, Who, http, key, now_s, post_token, relay, roomy, run, upgrade, upgrade_with};

fn did(seed: u8) -> String {
    DidKey::Ed25519(key(seed).verifying_key().to_bytes()).to_string()
}

/// A relay that lets these in, and the means to change that.
async fn listed(seeds: &[u8]) -> (Relay, impl Fn(&[u8]) + use<>) {
    let allow = |seeds: &[u8]| PolicyConfig {
        allow_dids: Some(seeds.iter().map(|&seed| did(seed)).collect()),
        ..PolicyConfig::default()
    };
    let server = Server::bind(Config { policy: allow(seeds), ..roomy() }).await.unwrap();
    let reloader: Reloader = server.reloader();
    let change = move |seeds: &[u8]| reloader.reload(&Config { policy: allow(seeds), ..roomy() }).unwrap();
    (run(server), change)
}

/// Why an upgrade with this token is refused.
async fn refused(addr: SocketAddr, token: &str) -> Code {
    upgrade(addr, &subprotocol::offer(token)).await.unwrap_err().1.code()
}

#[tokio::test]
async fn a_token_is_good_for_one_connection() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    let token = who.token(relay.addr).await.unwrap();
    let mut client = Client::challenged(relay.addr, who, &token).await;
    assert_eq!(refused(relay.addr, &token).await, Code::BadToken);
    client.prove(&token).await;
    assert!(matches!(client.frame().await, ServerFrame::Welcome { .. }));
    // Not for a longer session either, nor for another connection once it renewed one.
    let next = client.who.token(relay.addr).await.unwrap();
    client.send(ClientFrame::Refresh { token: next.clone() }).await;
    assert!(matches!(client.frame().await, ServerFrame::Refreshed { .. }));
    assert_eq!(refused(relay.addr, &next).await, Code::BadToken);
    client.send(ClientFrame::Refresh { token: next }).await;
    assert_eq!(client.refused().await, Code::BadToken);
    assert_eq!(client.came().await, Came::Closed(Some(Code::BadToken)));
    assert_eq!(refused(relay.addr, &token).await, Code::BadToken);
}

/// Taken off the list, a DID is out: its sessions end, and the tokens that it asked for before are worth nothing.
#[tokio::test]
async fn who_is_taken_off_the_list_is_out_and_stays_out() {
    let (relay, change) = listed(&[1, 2]).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(relay.addr, 1).await;
        client.join(&key(100)).await;
        clients.push(client);
    }
    let mut other = Client::connect(relay.addr, 2).await;
    other.join(&key(101)).await;
    let kept = Who::new(relay.addr, 1).token(relay.addr).await.unwrap();
    change(&[2]);
    for client in &mut clients {
        loop {
            match client.came().await {
                Came::Frame(ServerFrame::Error { code, .. }) => {
                    assert!(matches!(code, Code::NotAllowed | Code::Replaced))
                }
                Came::Frame(_) => {}
                Came::Closed(code) => break assert_eq!(code, Some(Code::NotAllowed)),
            }
        }
    }
    assert_eq!(refused(relay.addr, &kept).await, Code::NotAllowed);
    assert_eq!(Who::new(relay.addr, 1).token(relay.addr).await.unwrap_err().code(), Code::NotAllowed);
    // The others do not notice, and a place that is given back counts again.
    other.send(ClientFrame::Ping { number: 1 }).await;
    assert_eq!(other.frame().await, ServerFrame::Pong { number: 1 });
    change(&[1, 2]);
    Client::connect(relay.addr, 1).await.join(&key(100)).await;
}

/// A DID that is blocked does not come back with the tokens that it put by, one every few seconds.
#[tokio::test]
async fn who_is_blocked_does_not_come_back_with_an_older_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked");
    std::fs::write(&file, "").unwrap();
    let policy = PolicyConfig { block_file: Some(file.clone()), ..PolicyConfig::default() };
    let config = Config { policy, ..roomy() };
    let server = Server::bind(config.clone()).await.unwrap();
    let reloader = server.reloader();
    let relay = run(server);
    let who = Who::new(relay.addr, 1);
    let tokens = [who.token(relay.addr).await.unwrap(), who.token(relay.addr).await.unwrap()];
    // Connected and not proven yet.
    let mut halfway = Client::challenged(relay.addr, who, &tokens[0]).await;
    std::fs::write(&file, did(1)).unwrap();
    reloader.reload(&config).unwrap();
    assert_eq!(halfway.refused().await, Code::NotAllowed);
    assert_eq!(halfway.came().await, Came::Closed(Some(Code::NotAllowed)));
    assert_eq!(refused(relay.addr, &tokens[1]).await, Code::NotAllowed);
}

/// An address that is blocked is out too, behind a proxy as well, and others behind that proxy stay.
#[tokio::test]
async fn who_comes_from_a_blocked_address_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked");
    std::fs::write(&file, "").unwrap();
    let policy = PolicyConfig { block_file: Some(file.clone()), ..PolicyConfig::default() };
    let config = Config { policy, trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..roomy() };
    let server = Server::bind(config.clone()).await.unwrap();
    let reloader = server.reloader();
    let relay = run(server);
    let from = async |client: &str| {
        let who = Who::new(relay.addr, 1);
        let token = who.token(relay.addr).await.unwrap();
        let ws = upgrade_with(relay.addr, &subprotocol::offer(&token), client).await.unwrap();
        let mut client = Client { ws, who, nonce: [0; 32] };
        assert!(matches!(client.frame().await, ServerFrame::Challenge { .. }));
        client
    };
    let (mut blocked, mut other) = (from("192.0.2.7").await, from("198.51.100.7").await);
    std::fs::write(&file, "192.0.2.0/24\n").unwrap();
    reloader.reload(&config).unwrap();
    assert_eq!(blocked.refused().await, Code::NotAllowed);
    assert_eq!(blocked.came().await, Came::Closed(Some(Code::NotAllowed)));
    other.send(ClientFrame::Ping { number: 1 }).await;
    assert_eq!(other.refused().await, Code::Malformed);
}

/// Nobody learns from a relay who is on its list: before a DID is proven the answer is the same whether it is on it or not.
#[tokio::test]
async fn a_forged_jwt_does_not_tell_who_is_on_the_list() {
    let (relay, _) = listed(&[1]).await;
    let mut answers = Vec::new();
    for seed in [1, 2] {
        let who = Who::new(relay.addr, seed);
        // The name is theirs, the signature is not.
        let (theirs, ours) = (who.jwt(now_s()), Who::new(relay.addr, 3).jwt(now_s()));
        let forged = format!("{}.{}", theirs.rsplit_once('.').unwrap().0, ours.rsplit_once('.').unwrap().1);
        let error = post_token(relay.addr, &forged, &who.request_with(&forged)).await.unwrap_err();
        answers.push((error.code, error.message, error.retry_after_ms));
    }
    assert_eq!(answers[0].0, Code::BadSignature.name());
    assert_eq!(answers[0], answers[1]);
    // Nor from a JWT that was overheard after its use.
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    post_token(relay.addr, &jwt, &body).await.unwrap();
    assert_eq!(post_token(relay.addr, &jwt, &body).await.unwrap_err().code(), Code::Replayed);
    // Those who prove themselves are told.
    assert_eq!(Who::new(relay.addr, 2).token(relay.addr).await.unwrap_err().code(), Code::NotAllowed);
    assert_eq!(http(relay.addr, "GET", "/", "", "").await.0, 200);
}
