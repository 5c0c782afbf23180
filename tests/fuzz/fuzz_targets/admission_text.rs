//! Names in text: audiences, URLs, DIDs, subprotocol headers, hexadecimal ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_protocol::admission::{Audience, DidKey, subprotocol};
use weft_protocol::id::RoomId;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(audience) = Audience::parse(text) {
        // One audience, one spelling: proofs are signed over it.
        assert_eq!(audience.as_str(), text);
        drop(audience.did_web());
    }
    drop(Audience::from_url(text));
    if let Ok(key) = DidKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(token) = subprotocol::parse(text) {
        assert!(text.contains(token));
    }
    if let Some(room) = RoomId::from_hex(text) {
        assert_eq!(room.to_string(), text.to_lowercase());
    }
});
