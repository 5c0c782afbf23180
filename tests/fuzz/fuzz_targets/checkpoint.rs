//! A checkpoint by a member, who may be malicious: its body, its packs, a saved document, and the offer of it.
#![no_main]

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
    let _saved = inspect_saved(&framed(bytes));
});

/// Magic (4), checksum (4, of what follows), chunk type 0, length (LEB128), data.
fn framed(data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0u8];
    let mut len = data.len();
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        chunk.push(if len == 0 { byte } else { byte | 0x80 });
        if len == 0 {
            break;
        }
    }
    chunk.extend_from_slice(data);
    let checksum = sha2::Sha256::digest(&chunk);
    let mut framed = vec![0x85, 0x6f, 0x4a, 0x83];
    framed.extend_from_slice(&checksum[..4]);
    framed.extend_from_slice(&chunk);
    framed
}

use sha2::Digest as _;
