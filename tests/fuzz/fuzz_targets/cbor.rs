//! What a CBOR reader accepts, it accepts in one spelling only; claimed lengths allocate nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_protocol::cbor::{self, Reader};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(number) = cbor::from_bytes::<u64>(bytes) {
        assert_eq!(cbor::to_bytes(&number), bytes);
    }
    if let Ok(id) = cbor::from_bytes::<weft_protocol::id::RoomId>(bytes) {
        assert_eq!(cbor::to_bytes(&id), bytes);
    }
    // Every reader in turn, as the first byte says, until one refuses.
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut reader = Reader::new(rest);
    for turn in 0..64u8 {
        let before = reader.position();
        let read = match choice.wrapping_add(turn) % 8 {
            0 => reader.array_up_to(1 << 20, "array").map(drop),
            1 => reader.uint().map(drop),
            2 => reader.bytes_up_to(1 << 20, "bytes").map(drop),
            3 => reader.text_up_to(1 << 20, "text").map(drop),
            4 => reader.list::<u64>(1 << 20, "numbers").map(drop),
            5 => reader.optional::<u64>().map(drop),
            6 => reader.bool().map(drop),
            _ => reader.fixed::<32>("id").map(drop),
        };
        assert!(reader.position() >= before && reader.position() <= rest.len());
        if read.is_err() {
            break;
        }
    }
});
