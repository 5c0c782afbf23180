//! What holds for every frame and for every heap of bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use weft_protocol::admission::jwt::Unverified;
use weft_protocol::admission::token::TokenRequest;
use weft_protocol::admission::{Audience, DidKey, subprotocol};
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame, deliver};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

fn room() -> impl Strategy<Value = RoomId> {
    any::<[u8; 32]>().prop_map(RoomId)
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn long() -> impl Strategy<Value = [u8; 64]> {
    vec(any::<u8>(), 64).prop_map(|bytes| bytes.try_into().unwrap())
}

fn peer() -> impl Strategy<Value = Peer> {
    any::<([u8; 16], [u8; 16])>().prop_map(|(peer, device)| Peer { peer: PeerId(peer), device: RelayDevice(device) })
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        ("[a-z.:0-9]{0,200}", any::<[u8; 32]>(), long()).prop_map(|(audience, key, signature)| {
            ClientFrame::Prove { audience, connection: ConnectionKey(key), signature }
        }),
        (room(), any::<[u8; 32]>(), long()).prop_map(|(room, key, proof)| ClientFrame::Join { room, key, proof }),
        room().prop_map(|room| ClientFrame::Leave { room }),
        (room(), payload()).prop_map(|(room, payload)| ClientFrame::Publish { room, payload }),
        (room(), any::<[u8; 16]>(), payload()).prop_map(|(room, to, payload)| ClientFrame::Send {
            room,
            to: PeerId(to),
            payload
        }),
        "[a-zA-Z0-9._-]{0,500}".prop_map(|token| ClientFrame::Refresh { token }),
        any::<u64>().prop_map(|number| ClientFrame::Ping { number }),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|nonce| ServerFrame::Challenge { nonce }),
        any::<(u64, u32, u32, u32)>().prop_map(|(session_ms, queue_bytes, frame_bytes_max, rooms_max)| {
            ServerFrame::Welcome { session_ms, queue_bytes, frame_bytes_max, rooms_max }
        }),
        (room(), any::<[u8; 16]>(), vec(peer(), 0..60)).prop_map(|(room, you, peers)| ServerFrame::Joined {
            room,
            you: PeerId(you),
            peers
        }),
        (room(), peer()).prop_map(|(room, peer)| ServerFrame::PeerJoined { room, peer }),
        (room(), any::<[u8; 16]>()).prop_map(|(room, peer)| ServerFrame::PeerLeft { room, peer: PeerId(peer) }),
        (room(), any::<[u8; 16]>(), payload()).prop_map(|(room, from, payload)| ServerFrame::Deliver {
            room,
            from: PeerId(from),
            payload
        }),
        room().prop_map(|room| ServerFrame::Resync { room }),
        any::<u64>().prop_map(|session_ms| ServerFrame::Refreshed { session_ms }),
        any::<u64>().prop_map(|after_ms| ServerFrame::Restarting { after_ms }),
        (any::<u16>(), proptest::option::of(room()), "\\PC{0,100}", any::<Option<u64>>()).prop_map(
            |(code, room, message, retry_after_ms)| ServerFrame::Error {
                code: Code::from_number(code),
                room,
                message,
                retry_after_ms
            }
        ),
        any::<u64>().prop_map(|number| ServerFrame::Pong { number }),
    ]
}

proptest! {
    /// Encoding and decoding are inverse, and a decoded payload shares the message's memory.
    #[test]
    fn client_frames_round_trip(frame in client_frame()) {
        let bytes = frame.encode();
        let again = ClientFrame::decode(bytes.clone());
        if let Ok(ClientFrame::Publish { payload, .. }) = &again && !payload.is_empty() {
            prop_assert!(bytes.as_ptr_range().contains(&payload.as_ptr()));
        }
        prop_assert_eq!(again, Ok(frame));
    }

    #[test]
    fn server_frames_round_trip(frame in server_frame()) {
        prop_assert_eq!(ServerFrame::decode(frame.encode()), Ok(frame));
    }

    /// The shared encoding of a delivery is the encoding of the frame.
    #[test]
    fn a_shared_delivery_is_a_deliver_frame(room in room(), from in any::<[u8; 16]>(), payload in payload()) {
        let frame = ServerFrame::Deliver { room, from: PeerId(from), payload: payload.clone() };
        prop_assert_eq!(deliver(&room, &PeerId(from), &payload), frame.encode());
    }

    /// One encoding a value: whatever decodes is exactly what encoding gives. Flipping bits of good frames reaches deeper
    /// than noise.
    #[test]
    fn what_decodes_has_no_other_encoding(frame in client_frame(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = ClientFrame::decode(Bytes::from(bytes.clone())) {
            prop_assert_eq!(other.encode(), Bytes::from(bytes));
        }
    }

    /// Nothing panics, whatever comes.
    #[test]
    fn garbage_is_refused_quietly(bytes in vec(any::<u8>(), 0..400), text in "\\PC{0,200}") {
        let _ = ClientFrame::decode(Bytes::from(bytes.clone()));
        let _ = ServerFrame::decode(Bytes::from(bytes.clone()));
        let _ = TokenRequest::from_json(&bytes);
        for text in [text.clone(), String::from_utf8_lossy(&bytes).into_owned()] {
            let _ = Audience::parse(&text);
            let _ = Audience::from_url(&format!("wss://{text}"));
            let _ = DidKey::parse(&format!("did:key:z{text}"));
            let _ = subprotocol::parse(&format!("weft.v1, weft.token.{text}"));
            let _ = Unverified::parse(&text).map(|jwt| jwt.check(|_| true, 1000).is_ok());
        }
    }

    /// A normal audience is a fixed point.
    #[test]
    fn normalising_an_audience_twice_changes_nothing(host in "[a-zA-Z0-9.-]{1,40}", port in 1u16..) {
        if let Ok(audience) = Audience::from_url(&format!("wss://{host}:{port}")) {
            prop_assert_eq!(Audience::parse(audience.as_str()), Ok(audience));
        }
    }
}
