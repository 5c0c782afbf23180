//! Envelopes: from outsiders (any bytes), from the network (a sealed one, altered), and from a malicious member (any
//! header, any body).
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_agent_core::envelope::{
    Draft, Header, Kind, SEVERAL_MAX, join_several, open_head, seal, split_several, verify_signed_header,
};
use weft_agent_core::epoch::Epoch;
use weft_agent_core::id::{ChainId, ChangeHash, Link, OpId, WorkspaceId};
use weft_agent_core::identity::DeviceKeys;
use weft_agent_core::keyring::Keyring;
use weft_protocol::cbor;

const WORKSPACE: WorkspaceId = WorkspaceId([7; 32]);

struct World {
    epoch: Epoch,
    device: DeviceKeys,
    keyring: Keyring,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let epoch = Epoch::generate(&WORKSPACE, &mut rng);
    let mut keyring = Keyring::new();
    assert!(keyring.insert(epoch.clone()));
    World { epoch, device: DeviceKeys::generate(&mut rng), keyring }
});

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    let mut rng = ChaCha20Rng::seed_from_u64(bytes.len() as u64);

    // Any bytes: refused, never opened.
    assert!(open_head(&WORKSPACE, &world.keyring, bytes).is_err());
    assert!(verify_signed_header(&WORKSPACE, &world.device.public(), bytes).is_err());

    // Any frame of several: what comes apart joins to the same bytes, within the bounds.
    if let Ok(envelopes) = split_several(bytes) {
        assert!((1..=SEVERAL_MAX).contains(&envelopes.len()));
        let envelopes: Vec<bytes::Bytes> = envelopes.into_iter().map(bytes::Bytes::copy_from_slice).collect();
        assert_eq!(join_several(&envelopes), bytes);
    }

    // Any header a member may write.
    if let Ok(header) = cbor::from_bytes::<Header>(bytes) {
        assert_eq!(cbor::to_bytes(&header), bytes);
    }

    // Any body comes out as it went in; the sealed form, altered in one place, does not open.
    let Some((choice, body)) = bytes.split_first() else { return };
    let draft = Draft {
        kind: Kind::Content,
        epoch: &world.epoch,
        chain: ChainId { device: world.device.id(), incarnation: 1 },
        seq: 1 + u64::from(*choice),
        prev: Link([3; 32]),
        op_heads: vec![OpId([4; 32])],
        body,
        leaf_changes: &[ChangeHash([5; 32])],
    };
    let Ok(sealed) = seal(draft, &WORKSPACE, &world.device, &mut rng) else { return };
    let wire = sealed.sealed.bytes().clone();
    let head = open_head(&WORKSPACE, &world.keyring, &wire).expect("our own opens");
    let head = head.verify(&world.device.public()).expect("our own verifies");
    assert_eq!(head.open_body(&world.keyring, &wire).expect("our own body opens"), body);
    let mut altered = wire.to_vec();
    let at = (usize::from(*choice) * 257 + body.len()) % altered.len();
    altered[at] ^= 1 << (choice % 8);
    let opens = open_head(&WORKSPACE, &world.keyring, &altered)
        .and_then(|head| head.verify(&world.device.public()))
        .and_then(|head| head.open_body(&world.keyring, &altered));
    assert!(opens.is_err(), "altered at {at} of {}", altered.len());
});
