//! What a relay reads from NATS: accepted in one spelling only, and whatever it says, the bookkeeping of a room bears it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weft_relay_core::fabric::{Link, Message, NodeId};

/// Peers that are believed of one relay.
const PEERS_MAX: usize = 50;

fuzz_target!(|parts: Vec<Vec<u8>>| {
    let mut link = Link::new(NodeId([0; 8]), 1, 0);
    for (at, part) in parts.into_iter().enumerate() {
        let bytes = Bytes::from(part);
        let Ok(message) = Message::decode(&bytes) else { continue };
        assert_eq!(message.encode(), bytes);
        let now_ms = at as u64 * 1_000;
        link.receive(now_ms, message, PEERS_MAX);
        link.expire(now_ms);
        assert!(link.elsewhere().count() <= PEERS_MAX * 64);
    }
});
