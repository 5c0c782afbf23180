//! What is sealed to one device or to a lobby: knocks, answers, slots, notices.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_agent_core::envelope::{open_direct, open_lobby, seal_lobby};
use weft_agent_core::epoch::{Epoch, Lobby};
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::secret::Secret;

const WORKSPACE: WorkspaceId = WorkspaceId([7; 32]);

static LOBBY: LazyLock<Lobby> =
    LazyLock::new(|| Epoch::generate(&WORKSPACE, &mut ChaCha20Rng::seed_from_u64(1)).lobby());

fuzz_target!(|bytes: &[u8]| {
    // Nobody can make these without the keys.
    assert!(open_lobby(&WORKSPACE, &LOBBY, bytes).is_none());
    assert!(open_direct(&WORKSPACE, &Secret::new([9; 32]), bytes).is_err());
    if let Some(sealed) = seal_lobby(&WORKSPACE, &LOBBY, bytes, &mut ChaCha20Rng::seed_from_u64(2)) {
        assert_eq!(open_lobby(&WORKSPACE, &LOBBY, sealed.bytes()).as_deref(), Some(bytes));
    }
});
