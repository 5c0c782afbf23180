//! An Automerge change as a malicious member may make it: looked at in bounded time, never a panic that gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::files::inspect_change;

fuzz_target!(
    // Automerge may panic on a malformed change; what is tested is that the panic stays inside. The fuzzer's hook would
    // end the process for one that is caught, so it goes; a panic that gets out still ends it.
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| {
        // As it is, and with the framing of a change (magic, checksum of the rest, type, length) put around it.
        let _facts = inspect_change(bytes);
        let facts = inspect_change(&framed(bytes));
        if let Ok(facts) = facts {
            assert!(facts.ops <= 1 << 20);
        }
    }
);

/// Magic (4), checksum (4, of what follows), chunk type 1, length (LEB128), data.
fn framed(data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![1u8];
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
