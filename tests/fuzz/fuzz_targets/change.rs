//! An Automerge change as a malicious member may make it: looked at in bounded time, never a panic that gets out.
#![no_main]

mod framed;

use framed::framed;
use libfuzzer_sys::fuzz_target;
use weft_agent_core::files::inspect_change;

fuzz_target!(
    // Automerge may panic on a malformed change; what is tested is that the panic stays inside. The fuzzer's hook would
    // end the process for one that is caught, so it goes; a panic that gets out still ends it.
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| {
        // As it is, and with the framing of a change (magic, checksum of the rest, type, length) put around it.
        let _facts = inspect_change(bytes);
        let facts = inspect_change(&framed(1, bytes));
        if let Ok(facts) = facts {
            assert!(facts.ops <= 1 << 20);
        }
    }
);
