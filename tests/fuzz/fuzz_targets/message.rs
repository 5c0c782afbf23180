//! What peers say to reconcile: beacons, queries, credit, wants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::message::Message;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first() else { return };
    for kind in [*kind, 17 + kind % 8] {
        if let Some(Ok(message)) = Message::from_body(kind, body) {
            assert_eq!(message.to_body(), body);
            assert_eq!(message.kind(), kind);
        }
    }
});
