//! A membership operation as any peer may send it: accepted in one spelling only, and the same one when said again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::op::{Genesis, OpBody, SignedOp};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(op) = SignedOp::parse(&WorkspaceId([7; 32]), bytes) {
        assert_eq!(op.bytes().as_ref(), bytes);
        let _judged = op.verify(&[1; 32]);
    }
    if let Ok(genesis) = Genesis::parse(bytes) {
        assert_eq!(genesis.bytes().as_ref(), bytes);
    }
    if let Some((kind, body)) = bytes.split_first()
        && let Ok(op) = OpBody::from_bytes(u64::from(*kind), body)
    {
        assert_eq!(op.to_bytes(), body);
        assert_eq!(op.kind(), u64::from(*kind));
    }
});
