//! An account elsewhere that a member says is theirs: the DID, and the root's signature over it.
//!
//! Invariant: what is shown of a membership is a well-formed DID that this member's root signed. Why: any device of a member
//! may make the op, also a stolen one, and the text is chosen by whoever makes it. It authorises nothing.
//! Spec: docs/sealing.md#attestation.

use std::collections::BTreeMap;

use crate::id::RootKey;
use crate::identity::RootSecret;
use crate::sign::{Context, NO_WORKSPACE, SIGNATURE_LEN, sign as sign_with, verify};

/// Longest DID, in bytes: what an op carries.
pub const DID_BYTES_MAX: usize = 256;

/// Whether a text is a DID as the AT Protocol has them (`did:method:id`): ASCII that changes no line it is printed in.
#[must_use]
pub fn is_did(text: &str) -> bool {
    let Some((method, id)) = text.strip_prefix("did:").and_then(|rest| rest.split_once(':')) else { return false };
    let in_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'%' | b'-');
    text.len() <= DID_BYTES_MAX
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_lowercase())
        && id.bytes().all(in_id)
        && id.bytes().last().is_some_and(|byte| !matches!(byte, b':' | b'%'))
}

/// The root's word that it is this DID. Public, and good in every workspace.
#[must_use]
pub fn sign(root: &RootSecret, did: &str) -> [u8; SIGNATURE_LEN] {
    sign_with(root.signing_key(), Context::Attest, &NO_WORKSPACE, &[did.as_bytes()])
}

/// Whether this root said that it is this DID.
#[must_use]
pub fn holds(root: &RootKey, did: &str, proof: &[u8]) -> bool {
    let proof = <&[u8; SIGNATURE_LEN]>::try_from(proof).ok();
    is_did(did)
        && proof.is_some_and(|proof| verify(&root.0, Context::Attest, &NO_WORKSPACE, &[did.as_bytes()], proof).is_ok())
}

/// Of what a member's ops name: the DIDs that its root signed, and how many others there are.
#[must_use]
pub fn sound(root: &RootKey, attested: &BTreeMap<String, Vec<u8>>) -> (Vec<String>, usize) {
    let sound: Vec<String> =
        attested.iter().filter(|(did, proof)| holds(root, did, proof)).map(|(did, _)| did.clone()).collect();
    let others = attested.len() - sound.len();
    (sound, others)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn root(seed: u8) -> RootSecret {
        RootSecret::generate(&mut ChaCha20Rng::from_seed([seed; 32]))
    }

    /// Only what a terminal prints as it stands is a DID.
    #[test]
    fn a_did_is_harmless_text() {
        for fine in ["did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:a.example", "did:web:localhost%3A80:u:a_b-c"] {
            assert!(is_did(fine), "{fine}");
        }
        let long = format!("did:web:{}", "a".repeat(DID_BYTES_MAX));
        for wrong in [
            "did:plc:",
            "did:plc",
            "did::a",
            "did:PLC:a",
            "plc:a",
            "did:plc:a:",
            "did:web:a%",
            "did:plc:a b",
            "did:plc:a\u{1b}[2J",
            "did:plc:a\n",
            "did:plc:\u{202e}a",
            "did:web:é.example",
            "did:web:a.example#key",
            "did:web:a/b",
            "",
            long.as_str(),
        ] {
            assert!(!is_did(wrong), "{wrong:?}");
        }
    }

    /// A signature is good for its root and its DID alone; of others nothing is given but their number.
    #[test]
    fn what_the_root_did_not_sign_is_counted_only() {
        let (ada, ben) = (root(1), root(2));
        let key = ada.public().sign;
        let odd = "did:plc:a\u{1b}[2J";
        let attested = BTreeMap::from([
            ("did:plc:ada".to_owned(), sign(&ada, "did:plc:ada").to_vec()),
            ("did:plc:ben".to_owned(), sign(&ben, "did:plc:ben").to_vec()),
            ("did:plc:other".to_owned(), sign(&ada, "did:plc:ada").to_vec()),
            ("did:plc:short".to_owned(), vec![7; 8]),
            (odd.to_owned(), sign(&ada, odd).to_vec()),
        ]);
        assert_eq!(sound(&key, &attested), (vec!["did:plc:ada".to_owned()], 4));
    }
}
