//! What a joiner shows, what is kept of it while it waits, the link it came by, and the pass of a further device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_agent_core::enrol::Pass;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::knock::{Admission, JoinRequest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(admission) = Admission::parse(bytes) {
        assert_eq!(admission.bytes(), bytes);
        let _judged = admission.verify(&WorkspaceId([7; 32]), &[1; 32]);
    }
    if let Ok(request) = weft_protocol::cbor::from_bytes::<JoinRequest>(bytes) {
        assert_eq!(weft_protocol::cbor::to_bytes(&request), bytes);
        let _known = request.device();
    }
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(link) = InviteLink::parse(text)
    {
        // A link that was accepted leads to the same place when it is passed on.
        let again = InviteLink::parse(&link.to_text()).expect("our own spelling is accepted");
        assert_eq!(again.to_text(), link.to_text());
    }
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(pass) = Pass::parse(text)
    {
        let again = Pass::parse(&pass.to_text()).expect("our own spelling is accepted");
        assert_eq!(again.to_text(), pass.to_text());
    }
});
