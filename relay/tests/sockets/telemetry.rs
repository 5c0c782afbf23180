//! Traces reach a collector, and hold no secret.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use weft_protocol::admission::DidKey;
use weft_protocol::code::Code;

use crate::client::{Client, Who, now_s, post_token, within};
use crate::process::Process;

/// A collector that keeps what it is sent.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeps = kept.clone();
    let take = async move |body: Bytes| keeps.lock().unwrap().extend_from_slice(&body);
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, kept)
}

/// A relay tells its collector of a token request, a refusal by its code, and an upgrade; the last of it when it stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_spans_without_secrets() {
    let (url, kept) = collector().await;
    let mut relay = Process::start(&["--otlp-endpoint", &url]);
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    let token = post_token(relay.addr, &jwt, &body).await.unwrap().token;
    let mut client = Client::challenged(relay.addr, who, &token).await;
    client.prove(&token).await;
    client.frame().await;
    let (room, _, _) = client.join(&crate::client::key(100)).await;
    assert_eq!(post_token(relay.addr, &jwt, &body).await.unwrap_err().code(), Code::Replayed);
    drop(client);
    relay.terminate();
    let ended = async {
        while relay.ended().is_none() {
            tokio::task::yield_now().await;
        }
    };
    within("the relay to end", ended).await;

    let bytes = kept.lock().unwrap().clone();
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    for part in ["weft-relay", "token", "upgrade", "code", "ok", "replayed"] {
        assert!(has(part.as_bytes()), "{part} was not sent");
    }
    let did = DidKey::Ed25519(crate::client::key(1).verifying_key().to_bytes()).to_string();
    let signature = jwt.rsplit_once('.').unwrap().1;
    for secret in [&*token, signature, &*did, &*room.to_string(), "127.0.0.1"] {
        assert!(!has(secret.as_bytes()), "{secret} was sent");
    }
    assert!(!has(&room.0));
}
