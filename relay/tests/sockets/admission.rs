//! Who gets in, and who is refused by which name.

use weft_protocol::admission::Audience;
use weft_protocol::admission::subprotocol;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_relay::Config;

use crate::client::{Came, Client, Who, http, now_s, post_token, relay, roomy, upgrade};

fn code(result: Result<impl std::fmt::Debug, weft_protocol::admission::token::ErrorAnswer>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn a_wrong_clock_is_told_the_relays_time_and_gets_in_with_it() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    for (offset, expected) in [(-1000i64, Code::Expired), (1000, Code::NotYetValid)] {
        let (jwt, body) = who.request(now_s().saturating_add_signed(offset));
        let error = post_token(relay.addr, &jwt, &body).await.unwrap_err();
        assert_eq!(error.code(), expected);
        let (jwt, body) = who.request(error.relay_time_ms / 1000);
        post_token(relay.addr, &jwt, &body).await.unwrap();
    }
}

#[tokio::test]
async fn a_jwt_is_good_once_for_its_key_and_its_audience() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    post_token(relay.addr, &jwt, &body).await.unwrap();
    assert_eq!(code(post_token(relay.addr, &jwt, &body).await), Code::Replayed);

    // A JWT made for another relay, in a request for this one.
    let elsewhere = Who { audience: Audience::parse("relay.example:443").unwrap(), ..Who::new(relay.addr, 1) };
    let jwt = elsewhere.jwt(now_s());
    assert_eq!(code(post_token(relay.addr, &jwt, &who.request_with(&jwt)).await), Code::WrongAudience);
    // A request for a relay that this one is not.
    let (jwt, body) = elsewhere.request(now_s());
    assert_eq!(code(post_token(relay.addr, &jwt, &body).await), Code::WrongAudience);

    // A JWT with another's name on it.
    let other = Who::new(relay.addr, 2).jwt(now_s());
    let ours = who.jwt(now_s());
    let mixed = format!("{}.{}", other.rsplit_once('.').unwrap().0, ours.rsplit_once('.').unwrap().1);
    assert_eq!(code(post_token(relay.addr, &mixed, &who.request_with(&mixed)).await), Code::BadSignature);
    // A connection key that did not sign this request.
    let jwt = who.jwt(now_s());
    assert_eq!(code(post_token(relay.addr, &jwt, &body).await), Code::WrongAudience);
    let foreign = who.request_with(&who.jwt(now_s()));
    assert_eq!(code(post_token(relay.addr, &jwt, &foreign).await), Code::BadSignature);

    assert_eq!(code(post_token(relay.addr, "garbage", &foreign).await), Code::Malformed);
    assert_eq!(code(post_token(relay.addr, &jwt, "{}").await), Code::Malformed);
    assert_eq!(code(post_token(relay.addr, &jwt, &"x".repeat(2000)).await), Code::TooLarge);
    assert_eq!(code(post_token(relay.addr, &"x".repeat(5000), &foreign).await), Code::TooLarge);
}

#[tokio::test]
async fn token_requests_and_refusals_are_limited_an_address() {
    let relay = relay(Config { token_requests_per_minute: 2, ..Config::default() }).await;
    let who = Who::new(relay.addr, 1);
    for _ in 0..2 {
        who.token(relay.addr).await.unwrap();
    }
    let error = who.token(relay.addr).await.unwrap_err();
    assert_eq!(error.code(), Code::RateLimited);
    assert!(error.retry_after_ms.is_some_and(|ms| (1..=60_000).contains(&ms)));
    for _ in 0..2 {
        assert_eq!(code(post_token(relay.addr, "garbage", "{}").await), Code::Malformed);
    }
    assert_eq!(code(post_token(relay.addr, "garbage", "{}").await), Code::RateLimited);
}

#[tokio::test]
async fn the_upgrade_needs_our_version_and_a_token_of_ours() {
    let (here, there) = (relay(roomy()).await, relay(roomy()).await);
    let foreign = Who::new(there.addr, 1).token(there.addr).await.unwrap();
    for (offer, expected) in [
        ("weft.v9, weft.token.x".to_owned(), Code::UnsupportedVersion),
        ("weft.v1".to_owned(), Code::BadToken),
        (subprotocol::offer("garbage"), Code::BadToken),
        (subprotocol::offer(&foreign), Code::BadToken),
    ] {
        let (status, error) = upgrade(here.addr, &offer).await.unwrap_err();
        assert_eq!((error.code(), status), (expected, expected.http_status()), "{offer}");
    }
    let (status, _) = http(here.addr, "GET", "/v1/connect", "", "").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_stolen_token_is_useless() {
    let relay = relay(roomy()).await;
    let token = Who::new(relay.addr, 1).token(relay.addr).await.unwrap();
    // The thief knows the token, not the connection key.
    let mut thief = Client::challenged(relay.addr, Who::new(relay.addr, 1), &token).await;
    thief.prove(&token).await;
    assert_eq!(thief.refused().await, Code::BadProof);
    assert_eq!(thief.came().await, Came::Closed(Some(Code::BadProof)));
}

#[tokio::test]
async fn nothing_is_read_before_the_proof() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    let token = who.token(relay.addr).await.unwrap();
    let mut client = Client::challenged(relay.addr, who, &token).await;
    client.send(ClientFrame::Ping { number: 1 }).await;
    assert_eq!(client.refused().await, Code::Malformed);
    assert_eq!(client.came().await, Came::Closed(Some(Code::Malformed)));
}

#[tokio::test]
async fn a_session_is_renewed_by_a_token_for_the_same_key_only() {
    let relay = relay(roomy()).await;
    let mut client = Client::connect(relay.addr, 1).await;
    let token = client.who.token(relay.addr).await.unwrap();
    client.send(ClientFrame::Refresh { token }).await;
    assert!(matches!(client.frame().await, ServerFrame::Refreshed { session_ms } if session_ms > 0));
    let token = Who::new(relay.addr, 1).token(relay.addr).await.unwrap();
    client.send(ClientFrame::Refresh { token }).await;
    assert_eq!(client.refused().await, Code::BadToken);
    assert_eq!(client.came().await, Came::Closed(Some(Code::BadToken)));
}

#[tokio::test]
async fn a_relay_with_a_public_url_answers_to_it_alone() {
    let public = Audience::from_url("wss://relay.example").unwrap();
    let relay = relay(Config { audiences: vec![public.clone()], ..roomy() }).await;
    assert_eq!(code(Who::new(relay.addr, 1).token(relay.addr).await), Code::WrongAudience);
    Who { audience: public, ..Who::new(relay.addr, 1) }.token(relay.addr).await.unwrap();
}

#[tokio::test]
async fn the_page_says_what_a_relay_learns() {
    let relay = relay(roomy()).await;
    let (status, text) = http(relay.addr, "GET", "/", "", "").await;
    assert!(status == 200 && text.contains("cannot learn"));
    let (_, json) = http(relay.addr, "GET", "/", "Accept: application/json\r\n", "").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["protocol"], "weft.v1");
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(http(relay.addr, "GET", path, "", "").await.0, 200);
    }
    assert_eq!(http(relay.addr, "GET", "/nowhere", "", "").await.0, 404);
}

/// What was used is remembered by each process for itself: relays that share their keys take a JWT once each, as docs/protocol.md
/// says.
#[tokio::test]
async fn each_relay_remembers_for_itself_which_jwts_were_used() {
    let public = Audience::from_url("wss://relay.example").unwrap();
    let config = || Config { audiences: vec![public.clone()], token_keys: vec![[1; 32]], ..roomy() };
    let (one, two) = (relay(config()).await, relay(config()).await);
    let who = Who { audience: public.clone(), ..Who::new(one.addr, 1) };
    let (jwt, body) = who.request(now_s());
    for relay in [&one, &two] {
        post_token(relay.addr, &jwt, &body).await.unwrap();
        assert_eq!(code(post_token(relay.addr, &jwt, &body).await), Code::Replayed);
    }
}

/// Keys and signatures may be written in either case; members that are not known, and other schemes than Bearer, are refused.
#[tokio::test]
async fn the_body_of_a_token_request_is_read_strictly() {
    let relay = relay(roomy()).await;
    let who = Who::new(relay.addr, 1);
    let request = || who.request(now_s());
    let upper = |body: &str| {
        let mut json: serde_json::Value = serde_json::from_str(body).unwrap();
        for member in ["connection", "device", "signature"] {
            json[member] = json[member].as_str().unwrap().to_uppercase().into();
        }
        json.to_string()
    };
    let (jwt, body) = request();
    post_token(relay.addr, &jwt, &upper(&body)).await.unwrap();
    let (jwt, body) = request();
    let more = body.replacen('{', "{\"more\":1,", 1);
    assert_eq!(code(post_token(relay.addr, &jwt, &more).await), Code::Malformed);
    let twice = body.replacen('{', "{\"device\":\"00000000000000000000000000000000\",", 1);
    assert_eq!(code(post_token(relay.addr, &jwt, &twice).await), Code::Malformed);
    for scheme in ["bearer ", "Bearer  ", "Basic ", ""] {
        let headers = format!("Authorization: {scheme}{jwt}\r\n");
        let (status, answer) = http(relay.addr, "POST", "/v1/token", &headers, &body).await;
        assert!(status == 400 && answer.contains("malformed"), "{scheme}: {answer}");
    }
    // None of those used the JWT up.
    post_token(relay.addr, &jwt, &body).await.unwrap();
}
