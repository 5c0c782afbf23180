//! Paths from peers: what is accepted stays below the root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::disk::{RelPath, is_name};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Some(path) = RelPath::new(text) {
        assert_eq!(path.as_str(), text);
        assert!(!text.starts_with('/') && !text.contains('\0'));
        assert!(text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        assert!(is_name(path.name()));
        if let Some(parent) = path.parent() {
            assert_eq!(parent.join(path.name()), Some(path));
        }
    }
});
