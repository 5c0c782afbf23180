//! What anybody with a pass can say at its door: a request of a device, and the answer to one.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_agent_core::enrol::{EnrolOpener, Pass, Way, open_refusal, open_request, parse_request};
use weft_agent_core::id::{OpId, RootKey, WorkspaceId};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::knock::ReplyKey;
use weft_agent_core::secret::Secret;
use weft_agent_core::sign::{Context, sign};
use weft_protocol::cbor;

const WORKSPACE: WorkspaceId = WorkspaceId([7; 32]);

struct Asking {
    identity: LocalIdentity,
    pass: Pass,
    reply: ReplyKey,
}

static ASKING: LazyLock<Asking> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let pass = Pass {
        way: Way::Device,
        workspace: WORKSPACE,
        secret: Secret::new([9; 32]),
        op_heads: vec![OpId([2; 32])],
        root: RootKey([3; 32]),
        urls: Vec::new(),
        name: "notes".into(),
    };
    Asking { identity: LocalIdentity::generate(&mut rng, "ada", "laptop"), pass, reply: ReplyKey::generate(&mut rng) }
});

fuzz_target!(|bytes: &[u8]| {
    let Asking { identity, pass, reply } = &*ASKING;
    // Nobody can make these without the door's keys.
    let door = pass.door();
    assert!(open_request(&WORKSPACE, &door, bytes).is_none());
    assert!(open_refusal(&WORKSPACE, &door, reply, bytes).is_none());
    // What is inside, as it is; and with the beginning of a request, and its signature, put around it.
    assert!(parse_request(&WORKSPACE, bytes).is_none(), "a signature was guessed");
    let device = identity.device.public();
    let mut writer = cbor::Writer::new();
    writer.array(5).uint(1).item(&device);
    let mut message = [writer.into_bytes().as_slice(), bytes].concat();
    let signature = sign(identity.device.signing_key(), Context::Enrol, &WORKSPACE, &[&message]);
    message.extend_from_slice(&signature);
    if let Some(request) = parse_request(&WORKSPACE, &message) {
        assert_eq!(request.device, device);
        assert!(request.op.is_none(), "an op that a root signed was guessed");
    }
    // A part of an answer, whole and in two halves of one answer.
    let mut opener = EnrolOpener::new(pass.clone(), reply.clone(), identity.device.clone());
    assert!(!matches!(opener.push(bytes), Ok(Some(_))));
    assert!(!matches!(opener.take(bytes), Ok(Some(_))));
    let (one, other) = bytes.split_at(bytes.len() / 2);
    for (index, half) in [(1u64, other), (0, one)] {
        let mut part = cbor::Writer::new();
        part.array(4).bytes(&[5; 16]).uint(index).uint(2).bytes(half);
        assert!(!matches!(opener.take(&part.into_bytes()), Ok(Some(_))), "a history was guessed");
    }
});
