//! What peers say to reconcile: beacons, queries, credit, wants; and what passes in a lobby.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::lobby_message::LobbyMessage;
use weft_agent_core::message::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = weft_protocol::cbor::from_bytes::<LobbyMessage>(bytes) {
        assert_eq!(weft_protocol::cbor::to_bytes(&message), bytes);
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    for kind in [*kind, 17 + kind % 8] {
        if let Some(Ok(message)) = Message::from_body(kind, body) {
            assert_eq!(message.to_body(), body);
            assert_eq!(message.kind(), kind);
        }
    }
});
