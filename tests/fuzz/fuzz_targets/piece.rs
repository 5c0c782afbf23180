//! Pieces and manifests of blobs, as any holder may serve them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_agent_core::content::{Manifest, PieceRef};
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::piece::{Chunker, check_manifest, open_inner_manifest, open_piece, piece_id, seal_piece};

static CHUNKER: LazyLock<Chunker> = LazyLock::new(|| Chunker::new(&WorkspaceId([7; 32])));

fuzz_target!(|bytes: &[u8]| {
    // Any bytes under their own id: what opens has the length that was promised.
    let claimed = PieceRef { id: piece_id(bytes), len: bytes.len() as u32, key: [1; 32] };
    if let Ok(plain) = open_piece(&claimed, bytes) {
        assert_eq!(plain.len(), bytes.len());
    }
    // What is cut and sealed opens to what it was.
    let cut: Vec<&[u8]> = CHUNKER.pieces(bytes).collect();
    assert_eq!(cut.concat(), bytes);
    if let Some(first) = cut.first() {
        let (piece, sealed) = seal_piece(first, &mut ChaCha20Rng::seed_from_u64(1)).expect("a cut piece fits");
        assert_eq!(open_piece(&piece, sealed.bytes()).as_deref(), Ok(*first));
    }
    // An inner manifest from opened pieces: bounded, and its lengths add up.
    let outer = Manifest { len: bytes.len() as u64, depth: 1, pieces: Vec::new() };
    if let Ok(inner) = open_inner_manifest(&outer, bytes) {
        assert!(check_manifest(&inner).is_ok());
        assert_eq!(inner.pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>(), inner.len);
    }
});
