//! The token that anybody may present, before anything about it is verified.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_protocol::admission::jwt::Unverified;
use weft_protocol::admission::token::TokenRequest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = TokenRequest::from_json(bytes) {
        // What was accepted can be said again, and means the same.
        let again = TokenRequest::from_json(request.to_json().as_bytes()).expect("our own spelling is accepted");
        assert_eq!(again.to_json(), request.to_json());
        let _judged = request.verify("");
    }
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(token) = Unverified::parse(text) {
        // Neither may panic, whatever it claims; the result is for the caller to judge.
        drop(token.check(|_| true, 1_700_000_000));
        drop(token.verify_ed25519(&[7; 32]));
    }
});
