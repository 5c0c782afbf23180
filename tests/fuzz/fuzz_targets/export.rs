//! An export file by whoever knows its passphrase: its records, one by one, and the membership that it begins with.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_agent_core::export::{Beginning, HEAD_BYTES, Kind, RECORD_BYTES_MAX, parse_record_head, record_head};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::op::{Genesis, Policy};

/// A workspace to put ops and keys behind.
static GENESIS: LazyLock<Genesis> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let identity = LocalIdentity::generate(&mut rng, "ada", "laptop");
    Genesis::found(&identity, "notes", Policy::default(), None, &mut rng).expect("a root founds")
});

fuzz_target!(|bytes: &[u8]| {
    // As it is; and with a beginning that is right, so that what follows is looked at.
    read(None, bytes);
    read(Beginning::new(Kind::Genesis, GENESIS.bytes()).ok(), bytes);
});

fn read(mut beginning: Option<Beginning>, mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
        let Ok((kind, len)) = parse_record_head(*head) else { return };
        assert!(len <= RECORD_BYTES_MAX);
        assert_eq!(record_head(kind, len), Some(*head));
        let Some((record, rest)) = rest.split_at_checked(len) else { return };
        bytes = rest;
        match &mut beginning {
            None => beginning = Beginning::new(kind, record).ok(),
            Some(begun) => {
                let workspace = begun.workspace();
                let taken = begun.push(kind, record);
                assert_eq!(begun.workspace(), workspace);
                if !matches!(taken, Ok(true)) {
                    return;
                }
            }
        }
    }
}
