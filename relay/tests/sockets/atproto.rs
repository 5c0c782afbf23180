//! An account at the reference PDS, with its DID at the reference PLC server, gets into a room; after its key was rotated the
//! old token is worth nothing and a new one is.

#[path = "../../../tests/src/e2e/atproto.rs"]
#[allow(missing_docs, dead_code, unreachable_pub, reason = "shared with the end-to-end tests, which use all of it")]
mod network;

use std::net::SocketAddr;

use weft_protocol::admission::jwt::METHOD;
use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_relay::{Config, DidConfig};

use crate::client::{Client, Who, http, key, post_token, relay, roomy};
use network::{AtAccount, AtNetwork};

async fn service_auth(network: &AtNetwork, account: &AtAccount, who: &Who, lxm: &str) -> String {
    let pds: SocketAddr = network.pds().strip_prefix("http://").unwrap().parse().unwrap();
    let aud = who.audience.did_web().replace('%', "%25");
    let path = format!("/xrpc/com.atproto.server.getServiceAuth?aud={aud}&lxm={lxm}");
    let (status, body) = http(pds, "GET", &path, &format!("Authorization: Bearer {}\r\n", account.access), "").await;
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_a_real_pds_gets_into_a_room_until_its_key_is_rotated() {
    let started = tokio::task::spawn_blocking(|| {
        let mut network = AtNetwork::start().unwrap();
        let alice = network.account("alice").unwrap();
        (network, alice)
    });
    let (mut network, alice) = started.await.unwrap();
    let did = DidConfig { plc_url: network.plc().to_owned(), ..DidConfig::default() };
    let relay = relay(Config { did, ..roomy() }).await;
    let who = Who::new(relay.addr, 1);
    let jwt = service_auth(&network, &alice, &who, METHOD).await;
    let token = post_token(relay.addr, &jwt, &who.request_with(&jwt)).await.unwrap().token;
    let mut client = Client::challenged(relay.addr, who, &token).await;
    client.prove(&token).await;
    assert!(matches!(client.frame().await, ServerFrame::Welcome { .. }));
    client.join(&key(100)).await;

    let who = Who::new(relay.addr, 1);
    let other = service_auth(&network, &alice, &who, "com.atproto.repo.uploadBlob").await;
    let refused = post_token(relay.addr, &other, &who.request_with(&other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::WrongMethod);

    let old = service_auth(&network, &alice, &who, METHOD).await;
    network.rotate(&alice.did).unwrap();
    let new = service_auth(&network, &alice, &who, METHOD).await;
    assert!(post_token(relay.addr, &new, &who.request_with(&new)).await.is_ok());
    let refused = post_token(relay.addr, &old, &who.request_with(&old)).await.unwrap_err();
    assert_eq!(refused.code(), Code::BadSignature);
    assert!(alice.did.starts_with("did:plc:"));
}
