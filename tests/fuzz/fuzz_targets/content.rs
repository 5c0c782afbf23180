//! The plain body of an envelope by a member, who may be malicious: accepted in one spelling only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::content::{Content, Manifest};
use weft_protocol::cbor;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(content) = cbor::from_bytes::<Content>(bytes) {
        assert_eq!(cbor::to_bytes(&content), bytes);
        // The hint is what batches are cut by: it may not be far below the truth.
        assert!(content.size_hint() + 64 * content.documents.len() + 64 >= bytes.len() / 2);
    }
    if let Ok(manifest) = cbor::from_bytes::<Manifest>(bytes) {
        assert_eq!(cbor::to_bytes(&manifest), bytes);
    }
});
