//! A checkpoint by a member, who may be malicious: its body, its packs, a saved document, and the offer of it.
#![no_main]

mod framed;

use framed::framed;
use libfuzzer_sys::fuzz_target;
use weft_agent_core::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, FOLLOWING_MAX, Pack};
use weft_agent_core::files::inspect_saved;
use weft_agent_core::message::{Message, kind};
use weft_protocol::cbor;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = cbor::from_bytes::<Checkpoint>(bytes) {
        assert_eq!(cbor::to_bytes(&checkpoint), bytes);
        assert!(checkpoint.manifest.len <= CHECKPOINT_BYTES_MAX);
    }
    if let Ok(pack) = cbor::from_bytes::<Pack>(bytes) {
        assert_eq!(cbor::to_bytes(&pack), bytes);
        assert!(pack.following() <= FOLLOWING_MAX);
    }
    if let Some(Ok(offer)) = Message::from_body(kind::OFFER, bytes) {
        assert_eq!(offer.to_body(), bytes);
    }
    // As it is, and with the framing of a saved document (magic, checksum of the rest, type, length) put around it.
    let _saved = inspect_saved(bytes);
    let _saved = inspect_saved(&framed(0, bytes));
});
