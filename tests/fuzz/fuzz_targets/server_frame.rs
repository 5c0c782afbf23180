//! What an agent reads from a relay that may be hostile: accepted in one spelling only.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weft_protocol::frame::ServerFrame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = ServerFrame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.encode(), bytes);
    }
});
