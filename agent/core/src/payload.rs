//! The plain bytes inside a seal: codec (1) ‖ length (4, big-endian) ‖ data ‖ zeros.
//!
//! Invariant: opening never makes more memory than the format's bound or than the frame's own header declares, and
//! nothing but zeros follows the data. Spec: docs/sealing.md#body.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// Bytes before the data.
pub(crate) const HEAD_LEN: usize = 5;
/// Compression level: zstd's default; at 256 KiB of text it takes about as long as sealing and storing.
const LEVEL: i32 = 3;
/// Shorter data is not worth a frame header.
const COMPRESS_FROM_BYTES: usize = 128;

/// Why the bytes inside a seal were refused; whoever sealed them is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Lengths that do not fit, an unknown codec, or padding that is not zeros.
    #[error("the sealed content is malformed")]
    Malformed,
    /// It would be larger than allowed once decompressed.
    #[error("the sealed content is larger than the format allows")]
    TooLarge,
    /// It does not decompress to what it declares.
    #[error("the sealed content does not decompress")]
    BadCompression,
}

thread_local! {
    // Making a context costs more than compressing a small body. Holds no state between uses.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compressed(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    let out = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        slot.as_mut()?.compress(plain).ok()
    })?;
    (out.len() < plain.len()).then_some(out)
}

fn decompressed(data: &[u8], len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        slot.as_mut()?.decompress(data, len).ok()
    })
}

/// Packs without padding: the caller adds zeros up to the length it wants.
pub(crate) fn pack(plain: &[u8], compress: bool) -> Vec<u8> {
    let packed = compress.then(|| compressed(plain)).flatten();
    let (codec, data) = packed.as_deref().map_or((0, plain), |data| (1, data));
    let mut out = Vec::with_capacity(HEAD_LEN + crate::padding::padded_len(data.len() + 1024));
    out.push(codec);
    // Callers bound what they seal far below 4 GiB; a wrong length could not be opened, never be misread.
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Unpacks; the result has at most `max` bytes.
pub(crate) fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, PayloadError> {
    let (head, rest) = packed.split_first_chunk::<HEAD_LEN>().ok_or(PayloadError::Malformed)?;
    let [codec, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    let (data, zeros) = rest.split_at_checked(length).ok_or(PayloadError::Malformed)?;
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(PayloadError::Malformed);
    }
    match codec {
        0 if data.len() > max => Err(PayloadError::TooLarge),
        0 => Ok(data.to_vec()),
        1 => {
            let declared = zstd::zstd_safe::get_frame_content_size(data).ok().flatten();
            let declared = declared.ok_or(PayloadError::BadCompression)?;
            let len = usize::try_from(declared).ok().filter(|len| *len <= max).ok_or(PayloadError::TooLarge)?;
            let plain = decompressed(data, len).ok_or(PayloadError::BadCompression)?;
            if plain.len() != len {
                return Err(PayloadError::BadCompression);
            }
            Ok(plain)
        }
        _ => Err(PayloadError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is packed unpacks, with any padding of zeros; a bomb is refused before it is inflated.
    #[test]
    fn packs_and_refuses_bombs() {
        for plain in [vec![], vec![1; 10], vec![2; 100_000]] {
            for compress in [false, true] {
                let mut packed = pack(&plain, compress);
                packed.extend_from_slice(&[0; 77]);
                assert_eq!(unpack(&packed, 100_000), Ok(plain.clone()));
                packed.push(1);
                assert_eq!(unpack(&packed, 100_000), Err(PayloadError::Malformed));
            }
        }
        let bomb = pack(&vec![0; 64 << 20], true);
        assert!(bomb.len() < 10_000);
        assert_eq!(unpack(&bomb, 1 << 20), Err(PayloadError::TooLarge));
        assert_eq!(unpack(&[1, 0, 0, 0, 1, 9], 10), Err(PayloadError::BadCompression));
        assert_eq!(unpack(&[0, 0, 0, 0], 10), Err(PayloadError::Malformed));
        assert_eq!(unpack(&[0, 0xff, 0xff, 0xff, 0xff, 1], 10), Err(PayloadError::Malformed));
    }
}
