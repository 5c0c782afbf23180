//! What a relay reads from anybody: accepted in one spelling only.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weft_protocol::frame::ClientFrame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = ClientFrame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.encode(), bytes);
    }
});
