//! Golden vectors of what relays tell each other: `vectors/*.json`, one case a file, most of them invalid.
//!
//! A case is `{about, type, input, expect}`; `expect` is the message, or `{"refused": true}`. What is accepted encodes to the
//! same bytes again. Why: relays of two versions meet over one NATS while they are rolled.

#![allow(clippy::disallowed_methods, reason = "the vectors are files; the ban is for the core itself")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use weft_protocol::id::unhex;
use weft_relay_core::fabric::{Body, Message};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().chunks(2).map(|pair| unhex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0]).collect()
}

fn shown(message: &Message) -> Value {
    let mut value = match &message.body {
        Body::Frame { from, to, payload } => {
            json!({"kind": "frame", "from": hex(&from.0), "to": to.map(|to| hex(&to.0)), "payload": hex(payload)})
        }
        Body::Peers { peers, entered, hello } => {
            let peers: Vec<Value> = peers
                .iter()
                .map(|p| json!({"peer": hex(&p.peer.peer.0), "device": hex(&p.peer.device.0), "identity": hex(&p.identity)}))
                .collect();
            json!({"kind": "peers", "peers": peers, "entered": entered.map(|peer| hex(&peer.0)), "hello": hello})
        }
    };
    value["node"] = json!(hex(&message.node.0));
    value["life"] = json!(message.life);
    value["number"] = json!(message.number);
    value
}

#[test]
fn every_vector_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let (mut good, mut bad) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let input = bytes(case["input"].as_str().unwrap());
        let found = match Message::decode(&input) {
            Ok(message) => {
                good += 1;
                assert_eq!(message.encode(), input, "{}", path.display());
                shown(&message)
            }
            Err(_) => {
                bad += 1;
                json!({"refused": true})
            }
        };
        assert_eq!(found, case["expect"], "{}", path.display());
    }
    assert!(good >= 7 && bad >= 18, "{good} good and {bad} bad vectors were found");
}
