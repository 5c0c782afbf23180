//! The two ciphers, in place: ChaCha20-Poly1305 for messages (each key is used once, so its nonce is zero), and
//! XChaCha20-Poly1305 where one key seals more than one thing. Spec: docs/sealing.md#ciphers.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};

use crate::secret::Secret;

/// Bytes of a tag.
pub(crate) const TAG_LEN: usize = 16;

/// Seals a message under a key that is used for nothing else.
pub(crate) fn seal_once(key: &Secret, aad: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new(&(*key.expose()).into());
    // Fails only above 256 GiB; an empty result could not be opened.
    match cipher.encrypt_inout_detached(&[0; 12].into(), aad, message.as_mut_slice().into()) {
        Ok(tag) => message.extend_from_slice(&tag),
        Err(_) => message.clear(),
    }
    message
}

/// The reverse of [`seal_once`].
pub(crate) fn open_once(key: &Secret, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (body, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_LEN)?)?;
    let tag: [u8; TAG_LEN] = tag.try_into().ok()?;
    let mut message = body.to_vec();
    let cipher = ChaCha20Poly1305::new(&(*key.expose()).into());
    cipher.decrypt_inout_detached(&[0; 12].into(), aad, message.as_mut_slice().into(), &tag.into()).ok()?;
    Some(message)
}

/// nonce (24) ‖ ciphertext of a 32-byte secret.
pub(crate) fn seal_secret(key: &Secret, nonce: [u8; 24], aad: &[u8], secret: &Secret) -> [u8; 72] {
    let mut out = [0; 72];
    let (head, rest) = out.split_at_mut(24);
    let (body, tail) = rest.split_at_mut(32);
    head.copy_from_slice(&nonce);
    body.copy_from_slice(secret.expose());
    let cipher = XChaCha20Poly1305::new(&(*key.expose()).into());
    match cipher.encrypt_inout_detached(&nonce.into(), aad, (&mut *body).into()) {
        Ok(tag) => tail.copy_from_slice(&tag),
        Err(_) => body.fill(0),
    }
    out
}

/// The reverse of [`seal_secret`].
pub(crate) fn open_secret(key: &Secret, aad: &[u8], sealed: &[u8; 72]) -> Option<Secret> {
    let (nonce, rest) = sealed.split_first_chunk::<24>()?;
    let (body, tag) = rest.split_first_chunk::<32>()?;
    let tag: [u8; TAG_LEN] = tag.try_into().ok()?;
    let mut plain = zeroize::Zeroizing::new(*body);
    let cipher = XChaCha20Poly1305::new(&(*key.expose()).into());
    cipher.decrypt_inout_detached(&(*nonce).into(), aad, plain.as_mut_slice().into(), &tag.into()).ok()?;
    Some(Secret::new(*plain))
}
