//! Sealing a stream with a passphrase, in the format of age (C2SP, age-encryption.org/v1, recipient type scrypt), so that
//! `age -d` opens it too.
//!
//! Header: version, `-> scrypt` salt log2(N), the wrapped file key, `---` MAC. Payload: nonce16, then chunks of 64 KiB, each
//! ChaCha20-Poly1305 with an 11-byte counter and a flag for the last one. Invariant: nothing is given out that was not
//! authenticated, and a stream without its last chunk is an error; one chunk is in memory at a time.
//! Why not the crate of that name: it brings seventy others, for key types that are not used here.
//! Spec: docs/sealing.md#export.

use std::io::{self, BufRead, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hkdf::Hkdf;
use hmac::Mac;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::engine::random;

const VERSION: &str = "age-encryption.org/v1";
/// log2 of scrypt's N: 128 MiB and about half a second for whoever tries a passphrase.
const LOG_N: u8 = 17;
/// More than this takes more than 1 GiB: not made here, and refused.
const LOG_N_MAX: u8 = 20;
/// Plain bytes in a chunk.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// Longest line of a header.
const LINE_BYTES_MAX: u64 = 128;

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn derive(file_key: &[u8], salt: &[u8], info: &[u8]) -> io::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(salt), file_key).expand(info, key.as_mut());
    expanded.map_err(|_| invalid("no key can be derived"))?;
    Ok(key)
}

fn wrapping(passphrase: &str, salt: &[u8], log_n: u8) -> io::Result<ChaCha20Poly1305> {
    let salt = [b"age-encryption.org/v1/scrypt".as_slice(), salt].concat();
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| invalid("scrypt cannot be set up"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, key.as_mut()).map_err(|_| invalid("scrypt failed"))?;
    Ok(cipher(&key))
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&(*key).into())
}

fn mac_of(file_key: &[u8], header: &str) -> io::Result<hmac::Hmac<Sha256>> {
    let key = derive(file_key, &[], b"header")?;
    let mut mac = <hmac::Hmac<Sha256> as KeyInit>::new_from_slice(key.as_ref()).map_err(|_| invalid("no MAC"))?;
    mac.update(header.as_bytes());
    Ok(mac)
}

/// Counts chunks and says which is the last.
struct Nonces(u64);

impl Nonces {
    fn next(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        let (_, counter) = nonce.split_at_mut(3);
        counter.iter_mut().zip(self.0.to_be_bytes()).for_each(|(to, from)| *to = from);
        if let Some(flag) = nonce.last_mut() {
            *flag = u8::from(last);
        }
        self.0 += 1;
        nonce.into()
    }
}

/// Seals what is written to it.
pub(crate) struct Sealing<W: Write> {
    out: W,
    key: ChaCha20Poly1305,
    nonces: Nonces,
    plain: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealing<W> {
    /// Writes the header. Takes about half a second.
    pub(crate) fn begin(mut out: W, passphrase: &str) -> io::Result<Self> {
        let file_key = Zeroizing::new(random::<16>());
        let salt = random::<16>();
        let mut wrapped = file_key.to_vec();
        wrapping(passphrase, &salt, LOG_N)?
            .encrypt_in_place(&Nonce::default(), b"", &mut wrapped)
            .map_err(|_| invalid("the key cannot be wrapped"))?;
        let (salt, wrapped) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(&wrapped));
        let header = format!("{VERSION}\n-> scrypt {salt} {LOG_N}\n{wrapped}\n---");
        let mac = mac_of(file_key.as_ref(), &header)?.finalize().into_bytes();
        out.write_all(format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).as_bytes())?;
        let nonce = random::<16>();
        out.write_all(&nonce)?;
        let key = cipher(&*derive(file_key.as_ref(), &nonce, b"payload")?);
        Ok(Self { out, key, nonces: Nonces(0), plain: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.nonces.next(last);
        let sealed = self.key.encrypt_in_place(&nonce, b"", &mut *self.plain);
        sealed.map_err(|_| invalid("a chunk cannot be sealed"))?;
        self.out.write_all(&self.plain)?;
        self.plain.clear();
        Ok(())
    }

    /// Writes the last chunk; without it nobody takes the file for whole.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is sealed when more comes: only the last one may say that it is.
        if self.plain.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.get(..bytes.len().min(CHUNK - self.plain.len())).unwrap_or_default();
        self.plain.extend_from_slice(taken);
        Ok(taken.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what was sealed, chunk by chunk.
pub(crate) struct Opening<R: BufRead> {
    from: R,
    key: ChaCha20Poly1305,
    nonces: Nonces,
    plain: Zeroizing<Vec<u8>>,
    at: usize,
    ended: bool,
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(LINE_BYTES_MAX).read_line(&mut line).map_err(|_| not_an_export())?;
    line.strip_suffix('\n').map(str::to_owned).ok_or_else(not_an_export)
}

fn not_an_export() -> io::Error {
    invalid("this is not an export that a passphrase opens (a file in the format of age)")
}

impl<R: BufRead> Opening<R> {
    /// Reads the header. Takes about half a second. A wrong passphrase says so.
    pub(crate) fn begin(mut from: R, passphrase: &str) -> io::Result<Self> {
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| not_an_export());
        let (version, stanza) = (line(&mut from)?, line(&mut from)?);
        let mut parts = stanza.split(' ');
        let (arrow, kind, salt, log_n) = (parts.next(), parts.next(), parts.next(), parts.next());
        if version != VERSION || arrow != Some("->") || kind != Some("scrypt") || parts.next().is_some() {
            return Err(not_an_export());
        }
        let salt_bytes = decode(salt.unwrap_or_default())?;
        let log_n: u8 = log_n.and_then(|text| text.parse().ok()).ok_or_else(not_an_export)?;
        if salt_bytes.len() != 16 || !(1..=LOG_N_MAX).contains(&log_n) {
            return Err(not_an_export());
        }
        let (wrapped, end) = (line(&mut from)?, line(&mut from)?);
        let said = decode(end.strip_prefix("--- ").ok_or_else(not_an_export)?)?;
        let mut file_key = Zeroizing::new(decode(&wrapped)?);
        if file_key.len() != 16 + TAG {
            return Err(not_an_export());
        }
        wrapping(passphrase, &salt_bytes, log_n)?
            .decrypt_in_place(&Nonce::default(), b"", &mut *file_key)
            .map_err(|_| invalid("the passphrase is wrong"))?;
        let header = format!("{version}\n{stanza}\n{wrapped}\n---");
        mac_of(&file_key, &header)?.verify_slice(&said).map_err(|_| invalid("the export's header was changed"))?;
        let mut nonce = [0; 16];
        from.read_exact(&mut nonce)?;
        let key = cipher(&*derive(&file_key, &nonce, b"payload")?);
        Ok(Self { from, key, nonces: Nonces(0), plain: Zeroizing::new(Vec::new()), at: 0, ended: false })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        self.plain.clear();
        self.at = 0;
        (&mut self.from).take((CHUNK + TAG) as u64).read_to_end(&mut self.plain)?;
        let last = self.from.fill_buf()?.is_empty();
        let first = self.nonces.0 == 0;
        let nonce = self.nonces.next(last);
        let opened = self.key.decrypt_in_place(&nonce, b"", &mut *self.plain);
        opened.map_err(|_| invalid("the export is damaged, or was cut short"))?;
        if last && self.plain.is_empty() && !first {
            return Err(invalid("the export is damaged: its last part is empty"));
        }
        self.ended = last;
        Ok(())
    }
}

impl<R: BufRead> Read for Opening<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.plain.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let left = self.plain.get(self.at..).unwrap_or_default();
        let len = left.len().min(into.len());
        into.iter_mut().zip(left).for_each(|(to, from)| *to = *from);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut sealing = Sealing::begin(Vec::new(), "correct horse").unwrap();
        sealing.write_all(plain).unwrap();
        sealing.finish().unwrap()
    }

    fn opened(bytes: &[u8], passphrase: &str) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Opening::begin(bytes, passphrase)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// What was sealed comes back, whatever its length around chunks; not with another passphrase, not cut short, not with a
    /// bit changed, and not with a chunk more.
    #[test]
    fn a_stream_comes_back_whole_or_not_at_all() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            assert!(opened(&sealed(&plain), "correct horse").unwrap() == plain, "{len}");
        }
        let plain = vec![7; CHUNK + 100];
        let bytes = sealed(&plain);
        assert_eq!(opened(&bytes, "wrong").unwrap_err().to_string(), "the passphrase is wrong");
        let payload = bytes.len() - (16 + CHUNK + 100 + 2 * TAG);
        for cut in [bytes.len() - 1, bytes.len() - 100 - TAG, payload + 3, payload - 5, 40] {
            assert!(opened(&bytes[..cut], "correct horse").is_err(), "{cut}");
        }
        for at in [payload - 2, payload + 20, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, "correct horse").is_err(), "{at}");
        }
        assert!(opened(&[bytes.as_slice(), &[0; 32]].concat(), "correct horse").is_err());
        assert!(opened(b"weft", "correct horse").unwrap_err().to_string().contains("not an export"));
    }

    /// A file that `age` 1.1 made opens.
    #[test]
    fn a_file_by_age_opens() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(BY_AGE).unwrap();
        assert_eq!(opened(&bytes, "correct horse").unwrap(), b"made by another program\n");
    }

    /// `echo made by another program | age -p`, with that passphrase.
    const BY_AGE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBDL3AyaE1JWHdtaGFqMjdnU00zSTFBIDE4ClRNay9vUmRqcVl5VGI5dXNr\
        elBnZDZ3a2I0OE9pQXc4dktKdmMrRWdMaUUKLS0tIEgwNGhFMmN4cS9zR20ybVBmd0tWVHNodjRsMkdGemtUVVFlSnN2MExNejQK\
        PEnc5naxi3iXy1qd3LzDQiEuL9XfKugYY2HwQibfja71NwOOrclUp3bthWgfjsXmeouMqqnJbDc=";
}
