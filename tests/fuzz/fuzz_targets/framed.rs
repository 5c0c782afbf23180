//! The framing of an Automerge chunk, put around what the fuzzer made: without it hardly anything gets past the checksum.

use sha2::Digest as _;

/// Magic (4), checksum (4, of what follows), chunk type, length (LEB128), data.
pub fn framed(chunk_type: u8, data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![chunk_type];
    let mut len = data.len();
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        chunk.push(if len == 0 { byte } else { byte | 0x80 });
        if len == 0 {
            break;
        }
    }
    chunk.extend_from_slice(data);
    let checksum = sha2::Sha256::digest(&chunk);
    let mut framed = vec![0x85, 0x6f, 0x4a, 0x83];
    framed.extend_from_slice(&checksum[..4]);
    framed.extend_from_slice(&chunk);
    framed
}
