//! Golden vectors: `protocol/vectors/*.json`, one case a file, most of them invalid.
//!
//! A case is `{about, type, input, expect}`; `expect` is the result, or `{"refused": name}`. Another client is right about a
//! case if it gets the same. Frames are checked in both directions: decoded, and encoded again to the same bytes.

#![allow(clippy::disallowed_methods, reason = "the vectors are files; the ban is for the core itself")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use weft_protocol::admission::audience::AudienceError;
use weft_protocol::admission::did_key::DidKeyError;
use weft_protocol::admission::jwt::Unverified;
use weft_protocol::admission::proof::{room_id, sign_connect, sign_room, verify_connect, verify_room};
use weft_protocol::admission::token::TokenRequest;
use weft_protocol::admission::{Audience, DidKey, subprotocol};
use weft_protocol::frame::{ClientFrame, FrameError, Peer, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, unhex};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &Value) -> Bytes {
    let text = text.as_str().unwrap();
    text.as_bytes().chunks(2).map(|pair| unhex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0]).collect()
}

fn fixed<const N: usize>(text: &Value) -> [u8; N] {
    unhex(text.as_str().unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn refused(name: &str) -> Value {
    json!({ "refused": name })
}

fn client_frame(frame: &ClientFrame) -> Value {
    match frame {
        ClientFrame::Prove { audience, connection, signature } => {
            json!({"kind": "prove", "audience": audience, "connection": connection.to_string(), "signature": hex(signature)})
        }
        ClientFrame::Join { room, key, proof } => {
            json!({"kind": "join", "room": room.to_string(), "key": hex(key), "proof": hex(proof)})
        }
        ClientFrame::Leave { room } => json!({"kind": "leave", "room": room.to_string()}),
        ClientFrame::Publish { room, payload } => {
            json!({"kind": "publish", "room": room.to_string(), "payload": hex(payload)})
        }
        ClientFrame::Send { room, to, payload } => {
            json!({"kind": "send", "room": room.to_string(), "to": to.to_string(), "payload": hex(payload)})
        }
        ClientFrame::Refresh { token } => json!({"kind": "refresh", "token": token}),
        ClientFrame::Ping { number } => json!({"kind": "ping", "number": number}),
    }
}

fn server_frame(frame: &ServerFrame) -> Value {
    match frame {
        ServerFrame::Challenge { nonce } => json!({"kind": "challenge", "nonce": hex(nonce)}),
        ServerFrame::Welcome { session_ms, queue_bytes, frame_bytes_max, rooms_max } => json!({
            "kind": "welcome", "session_ms": session_ms, "queue_bytes": queue_bytes,
            "frame_bytes_max": frame_bytes_max, "rooms_max": rooms_max,
        }),
        ServerFrame::Joined { room, you, peers } => {
            let peer = |p: &Peer| json!({"peer": p.peer.to_string(), "device": p.device.to_string()});
            let peers: Vec<Value> = peers.iter().map(peer).collect();
            json!({"kind": "joined", "room": room.to_string(), "you": you.to_string(), "peers": peers})
        }
        ServerFrame::PeerJoined { room, peer } => json!({
            "kind": "peer-joined", "room": room.to_string(),
            "peer": peer.peer.to_string(), "device": peer.device.to_string(),
        }),
        ServerFrame::PeerLeft { room, peer } => {
            json!({"kind": "peer-left", "room": room.to_string(), "peer": peer.to_string()})
        }
        ServerFrame::Deliver { room, from, payload } => {
            json!({"kind": "deliver", "room": room.to_string(), "from": from.to_string(), "payload": hex(payload)})
        }
        ServerFrame::Resync { room } => json!({"kind": "resync", "room": room.to_string()}),
        ServerFrame::Refreshed { session_ms } => json!({"kind": "refreshed", "session_ms": session_ms}),
        ServerFrame::Restarting { after_ms } => json!({"kind": "restarting", "after_ms": after_ms}),
        ServerFrame::Error { code, room, message, retry_after_ms } => json!({
            "kind": "error", "code": code.number(), "room": room.map(|room| room.to_string()),
            "message": message, "retry_after_ms": retry_after_ms,
        }),
        ServerFrame::Pong { number } => json!({"kind": "pong", "number": number}),
    }
}

fn frame<T>(
    input: &Value,
    decode: fn(Bytes) -> Result<T, FrameError>,
    encode: fn(&T) -> Bytes,
    describe: fn(&T) -> Value,
) -> Value {
    let bytes = bytes(&input["hex"]);
    match decode(bytes.clone()) {
        Ok(frame) => {
            assert_eq!(encode(&frame), bytes, "encoded again to other bytes");
            json!({ "is": describe(&frame) })
        }
        Err(error) => refused(error.code().name()),
    }
}

fn jwt(input: &Value) -> Value {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text_of_jwt = format!("{}.{}.AA", part(&input["header"]), part(&input["claims"]));
    let audience = Audience::parse(text(&input["audience"])).unwrap().did_web();
    let now_s = input["now_s"].as_u64().unwrap();
    match Unverified::parse(&text_of_jwt).and_then(|jwt| jwt.check(|aud| aud == audience, now_s)) {
        Ok(checked) => json!({"issuer": checked.issuer, "jti": checked.jti, "expires_s": checked.expires_s}),
        Err(error) => refused(error.code().name()),
    }
}

fn outcome(kind: &str, input: &Value) -> Value {
    let seed = |name: &str| SigningKey::from_bytes(&fixed(&input[name]));
    let audience = || Audience::parse(text(&input["audience"])).unwrap();
    match kind {
        "client-frame" => frame(input, ClientFrame::decode, ClientFrame::encode, client_frame),
        "server-frame" => frame(input, ServerFrame::decode, ServerFrame::encode, server_frame),
        "audience" => match Audience::from_url(text(&input["url"])) {
            Ok(audience) => json!({"audience": audience.as_str(), "did": audience.did_web()}),
            Err(AudienceError::Scheme) => refused("scheme"),
            Err(AudienceError::UserInfo) => refused("user-info"),
            Err(AudienceError::Host) => refused("host"),
            Err(AudienceError::Port) => refused("port"),
            Err(other) => panic!("{other:?}"),
        },
        "did-key" => match DidKey::parse(text(&input["did"])) {
            Ok(key) => {
                assert_eq!(key.to_string(), text(&input["did"]));
                match key {
                    DidKey::Ed25519(key) => json!({"ed25519": hex(&key)}),
                    DidKey::Secp256k1(key) => json!({"secp256k1": hex(&key)}),
                    DidKey::P256(key) => json!({"p256": hex(&key)}),
                    other => panic!("{other:?}"),
                }
            }
            Err(DidKeyError::Method) => refused("method"),
            Err(DidKeyError::Encoding) => refused("encoding"),
            Err(DidKeyError::KeyType) => refused("key-type"),
            Err(other) => panic!("{other:?}"),
        },
        "subprotocol" => match subprotocol::parse(text(&input["value"])) {
            Ok(token) => json!({ "token": token }),
            Err(error) => refused(error.code().name()),
        },
        "jwt" => jwt(input),
        "token-request" => {
            let (request, jwt) = TokenRequest::self_signed(
                &seed("did_seed"),
                &seed("connection_seed"),
                &audience(),
                RelayDevice(fixed(&input["device"])),
                input["now_s"].as_u64().unwrap(),
                &fixed(&input["jti"]),
            );
            assert_eq!(request.verify(&jwt), Ok(()));
            json!({"jwt": jwt, "body": request.to_json()})
        }
        "connect-proof" => {
            let (key, nonce, token) = (seed("connection_seed"), fixed(&input["nonce"]), text(&input["token"]));
            let signature = sign_connect(&key, &audience(), &nonce, token);
            let connection = ConnectionKey(key.verifying_key().to_bytes());
            assert_eq!(verify_connect(&connection, &audience(), &nonce, token, &signature), Ok(()));
            json!({"connection": connection.to_string(), "signature": hex(&signature)})
        }
        "room-proof" => {
            let (key, nonce) = (seed("room_seed"), fixed(&input["nonce"]));
            let connection = ConnectionKey(seed("connection_seed").verifying_key().to_bytes());
            let public = key.verifying_key().to_bytes();
            let room = room_id(&public);
            let proof = sign_room(&key, &audience(), &nonce, &connection);
            assert_eq!(verify_room(&room, &public, &audience(), &nonce, &connection, &proof), Ok(()));
            json!({"room": room.to_string(), "key": hex(&public), "proof": hex(&proof)})
        }
        other => panic!("a vector of unknown type {other}"),
    }
}

#[test]
fn every_vector_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let outcome = outcome(text(&case["type"]), &case["input"]);
        assert_eq!(outcome, case["expect"], "{}: {}", path.display(), case["about"]);
        count += 1;
    }
    assert!(count >= 95, "only {count} vectors were found");
}
