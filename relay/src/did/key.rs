//! `did:key`, and verification by each key type.

use k256::ecdsa::signature::Verifier as _;
use weft_protocol::admission::DidKey;
use weft_protocol::admission::jwt::{Algorithm, Unverified};
use weft_protocol::code::Code;

/// A public key, with the one JWT algorithm it is used with.
pub(crate) struct SigningKeyOf(pub(super) DidKey);

impl SigningKeyOf {
    pub(crate) fn from_did_key(did: &str) -> Result<Self, Code> {
        DidKey::parse(did).map(Self).map_err(|_| Code::UnknownDid)
    }

    /// Verifies with this key; a JWT of another algorithm is refused as such. High-S signatures, which some signers
    /// make, are normalised first.
    pub(crate) fn verify(&self, jwt: &Unverified<'_>) -> Result<(), Code> {
        let (message, signature) = jwt.signed_parts();
        let verified = match (self.0, jwt.algorithm()) {
            (DidKey::Ed25519(key), Algorithm::EdDsa) => return jwt.verify_ed25519(&key).map_err(|error| error.code()),
            (DidKey::Secp256k1(key), Algorithm::Es256k) => {
                let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&key).map_err(|_| Code::UnknownDid)?;
                let signature = k256::ecdsa::Signature::from_slice(signature).map_err(|_| Code::BadSignature)?;
                key.verify(message, &signature.normalize_s())
            }
            (DidKey::P256(key), Algorithm::Es256) => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&key).map_err(|_| Code::UnknownDid)?;
                let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| Code::BadSignature)?;
                key.verify(message, &signature.normalize_s())
            }
            _ => return Err(Code::UnsupportedAlgorithm),
        };
        verified.map_err(|_| Code::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use k256::ecdsa::signature::Signer as _;

    use super::*;

    fn jwt(alg: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode("{}"));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())))
    }

    #[test]
    fn secp256k1_verifies_in_both_s_forms_and_no_other_algorithm_does() {
        let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let public: [u8; 33] = key.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap();
        let ours = SigningKeyOf(DidKey::Secp256k1(public));
        let low = jwt("ES256K", |m| {
            let signature: k256::ecdsa::Signature = key.sign(m);
            signature.to_bytes().to_vec()
        });
        let high = jwt("ES256K", |m| {
            let signature: k256::ecdsa::Signature = key.sign(m);
            let (r, s) = signature.split_scalars();
            k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s.as_ref()).to_bytes()).unwrap().to_bytes().to_vec()
        });
        assert_eq!(ours.verify(&Unverified::parse(&low).unwrap()), Ok(()));
        assert_eq!(ours.verify(&Unverified::parse(&high).unwrap()), Ok(()));
        let other = jwt("ES256K", |_| vec![1; 64]);
        assert_eq!(ours.verify(&Unverified::parse(&other).unwrap()), Err(Code::BadSignature));
        let eddsa = jwt("EdDSA", |_| vec![1; 64]);
        assert_eq!(ours.verify(&Unverified::parse(&eddsa).unwrap()), Err(Code::UnsupportedAlgorithm));
    }
}
