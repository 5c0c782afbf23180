//! Certificates from peers, and the files that hold who we are (a disk may hand back anything).
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::epoch::Epoch;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::identity::{DeviceCert, LocalIdentity, clean_name};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(cert) = DeviceCert::parse(bytes) {
        assert_eq!(cert.bytes(), bytes);
    }
    if let Ok(identity) = LocalIdentity::from_bytes(bytes) {
        assert_eq!(identity.to_bytes().as_slice(), bytes);
    }
    if let Ok(epoch) = Epoch::from_bytes(&WorkspaceId([7; 32]), bytes) {
        assert_eq!(epoch.to_bytes().as_slice(), bytes);
    }
    if let Ok(text) = core::str::from_utf8(bytes) {
        // Cleaning a clean name changes nothing.
        let clean = clean_name(text);
        assert_eq!(clean_name(&clean), clean);
    }
});
