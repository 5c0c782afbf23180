//! A key packet from anybody who knows the room.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::key_packet::KeyPacket;
use weft_agent_core::nack::Nack;
use weft_agent_core::secret::Secret;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(nack) = Nack::parse(bytes) {
        assert_eq!(nack.bytes(), bytes);
        let _judged = nack.verify(&WorkspaceId([7; 32]), &[1; 32]);
    }
    if let Ok(packet) = KeyPacket::parse(bytes) {
        assert_eq!(packet.to_bytes().as_ref(), bytes);
        // Opening costs a key exchange a slot; a few tell as much as thousands.
        if bytes.len() < 2048 {
            let _opened = packet.open(&WorkspaceId([7; 32]), &[&Secret::new([9; 32])]);
        }
    }
});
