//! The refusals that no other file provokes, and that there is none which nobody provokes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use weft_protocol::admission::DidKey;
use weft_protocol::admission::jwt::METHOD;
use weft_protocol::admission::token::ErrorAnswer;
use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_protocol::limits::JWT_LIFETIME_S_MAX;
use weft_relay::{Config, Settings};

use crate::client::{Came, Client, Who, http, key, now_s, post_token, relay, roomy};

/// A JWT of `who`, valid for `lifetime_s`, with an algorithm in its header that need not be the one it is signed by.
fn jwt(who: &Who, algorithm: &str, lifetime_s: u64) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(serde_json::json!({ "alg": algorithm, "typ": "JWT" }));
    let now_s = now_s();
    let claims = part(serde_json::json!({
        "iss": DidKey::Ed25519(who.did.verifying_key().to_bytes()).to_string(),
        "aud": who.audience.did_web(),
        "lxm": METHOD,
        "iat": now_s,
        "exp": now_s + lifetime_s,
        "jti": URL_SAFE_NO_PAD.encode(crate::client::random::<16>()),
    }));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(who.did.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

async fn asked_with(who: &Who, addr: std::net::SocketAddr, jwt: &str) -> Option<Code> {
    post_token(addr, jwt, &who.request_with(jwt)).await.err().map(|error| error.code())
}

#[tokio::test]
async fn a_jwt_may_not_live_longer_than_two_minutes() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    assert_eq!(asked_with(&who, relay.addr, &jwt(&who, "EdDSA", JWT_LIFETIME_S_MAX)).await, None);
    let longer = jwt(&who, "EdDSA", JWT_LIFETIME_S_MAX + 1);
    assert_eq!(asked_with(&who, relay.addr, &longer).await, Some(Code::LifetimeTooLong));
}

/// Neither algorithms that nobody should use, nor one that is not the key's.
#[tokio::test]
async fn only_the_algorithm_of_the_dids_key_is_taken() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    for algorithm in ["none", "None", "HS256", "RS256", "EdDSA2", "", "ES256", "ES256K"] {
        let found = asked_with(&who, relay.addr, &jwt(&who, algorithm, 60)).await;
        assert_eq!(found, Some(Code::UnsupportedAlgorithm), "{algorithm}");
    }
}

#[tokio::test]
async fn a_connection_is_in_so_many_rooms_and_one_more_after_it_left_one() {
    let settings = Settings { rooms_per_connection_max: 2, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    let (room, _, _) = client.join(&key(100)).await;
    client.join(&key(101)).await;
    let third = client.join_frame(&key(102));
    client.send(third).await;
    assert_eq!(client.refused().await, Code::TooManyRooms);
    // In already: not one more.
    client.join(&key(101)).await;
    client.send(weft_protocol::frame::ClientFrame::Leave { room }).await;
    client.join(&key(102)).await;
}

#[tokio::test]
async fn who_never_proves_the_key_is_closed() {
    let settings = Settings { handshake_ms_max: 200, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let who = Who::new(relay.addr, 1);
    let token = who.token(relay.addr).await.unwrap();
    let mut client = Client::challenged(relay.addr, who, &token).await;
    assert_eq!(client.refused().await, Code::HandshakeTimeout);
    assert_eq!(client.came().await, Came::Closed(Some(Code::HandshakeTimeout)));
}

#[tokio::test]
async fn a_session_that_nobody_renews_ends() {
    let settings = Settings { session_ms: 300, ..Settings::default() };
    let relay = relay(Config { settings, ..roomy() }).await;
    let mut client = Client::connect(relay.addr, 1).await;
    assert_eq!(client.refused().await, Code::SessionExpired);
    assert_eq!(client.came().await, Came::Closed(Some(Code::SessionExpired)));
}

#[tokio::test]
async fn where_nothing_is_there_is_a_name_for_that() {
    let relay = relay(roomy()).await;
    for (method, path) in [("GET", "/nowhere"), ("GET", "/v1/token"), ("POST", "/v1/connect"), ("GET", "/metrics")] {
        let (status, body) = http(relay.addr, method, path, "", "").await;
        let answer: ErrorAnswer = serde_json::from_str(&body).unwrap();
        assert_eq!((status, answer.code()), (404, Code::NotFound), "{method} {path}");
    }
}

#[tokio::test]
async fn a_relay_that_stops_lets_nobody_into_a_room() {
    let mut relay = relay(roomy()).await;
    let mut client = Client::connect(relay.addr, 1).await;
    relay.stop.take().unwrap().send(()).unwrap();
    assert!(matches!(client.frame().await, ServerFrame::Restarting { .. }));
    let join = client.join_frame(&key(100));
    client.send(join).await;
    assert_eq!(client.refused().await, Code::Draining);
    assert_eq!(client.came().await, Came::Closed(Some(Code::Draining)));
}

/// Every code is compared with what came over a socket in some test of this folder.
#[test]
fn no_refusal_is_without_a_test() {
    let tests = [
        include_str!("admission.rs"),
        include_str!("atproto.rs"),
        include_str!("dids.rs"),
        include_str!("hard_times.rs"),
        include_str!("identity.rs"),
        include_str!("limits.rs"),
        include_str!("operating.rs"),
        include_str!("passing.rs"),
        include_str!("refusals.rs"),
        include_str!("shutdown.rs"),
        include_str!("watching.rs"),
    ];
    for code in Code::ALL {
        // The relay's own failure: nothing that a client does leads to it.
        if *code == Code::Internal {
            continue;
        }
        let name = format!("Code::{code:?}");
        let named = |text: &str| {
            text.match_indices(&name).any(|(at, _)| !text[at + name.len()..].starts_with(char::is_alphanumeric))
        };
        assert!(tests.iter().any(|text| named(text)), "{name} has no test");
    }
}
