//! The keys of a DID document that may sign in.
//!
//! Those are the ATProto signing key (`#atproto`) and those listed under `authentication`; a document's other keys are for
//! other things. Keys are Multikey, or of the two older types that PLC still emits.

use serde::Deserialize;
use weft_protocol::admission::DidKey;
use weft_protocol::admission::did_key::multibase_base58;
use weft_protocol::admission::jwt::Unverified;
use weft_protocol::code::Code;

use super::key::SigningKeyOf;

/// Keys that are looked at; a document of 64 KiB could have hundreds, each worth a verification.
const KEYS_MAX: usize = 16;

/// What is kept of a DID document.
pub(crate) struct Document {
    keys: Vec<Named>,
}

struct Named {
    fragment: String,
    key: SigningKeyOf,
}

#[derive(Deserialize)]
struct DocumentIn {
    id: String,
    #[serde(default, rename = "verificationMethod")]
    methods: Vec<serde_json::Value>,
    #[serde(default)]
    authentication: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct MethodIn {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "publicKeyMultibase")]
    key: String,
}

impl Document {
    /// Reads the document of `did`.
    ///
    /// # Errors
    /// [`Code::UnknownDid`] if it is no document, or another DID's.
    pub(crate) fn parse(did: &str, json: &[u8]) -> Result<Self, Code> {
        let document: DocumentIn = serde_json::from_slice(json).map_err(|_| Code::UnknownDid)?;
        if document.id != did {
            return Err(Code::UnknownDid);
        }
        let fragment = |id: &str| match id.split_once('#') {
            Some((owner, fragment)) if owner.is_empty() || owner == did => Some(fragment.to_owned()),
            _ => None,
        };
        let referred = document.authentication.iter().filter_map(|entry| entry.as_str()).filter_map(fragment);
        let mut may_sign: Vec<String> = referred.collect();
        may_sign.push("atproto".to_owned());
        let embedded = document.authentication.iter().filter(|entry| entry.is_object()).map(|entry| (entry, true));
        let listed = document.methods.iter().map(|entry| (entry, false));
        let mut keys = Vec::new();
        for (entry, embedded) in embedded.chain(listed) {
            // A method of a kind that is not known is nobody's fault: the document has it for somebody else.
            let Ok(method) = MethodIn::deserialize(entry) else { continue };
            let Some(fragment) = fragment(&method.id) else { continue };
            let Some(key) = key(&method) else { continue };
            if (embedded || may_sign.contains(&fragment)) && keys.len() < KEYS_MAX {
                keys.push(Named { fragment, key: SigningKeyOf(key) });
            }
        }
        Ok(Self { keys })
    }

    /// Verifies by the key of that name; without one, by any that may sign.
    pub(crate) fn verify(&self, jwt: &Unverified<'_>, fragment: Option<&str>) -> Result<(), Code> {
        let mut found = Code::UnknownDid;
        for named in self.keys.iter().filter(|named| fragment.is_none_or(|wanted| wanted == named.fragment)) {
            match named.key.verify(jwt) {
                Ok(()) => return Ok(()),
                // A signature that is wrong says more than a key that is of another kind.
                Err(Code::UnsupportedAlgorithm) if found == Code::BadSignature => {}
                Err(code) => found = code,
            }
        }
        Err(found)
    }
}

fn key(method: &MethodIn) -> Option<DidKey> {
    let raw = |bytes: Vec<u8>| -> Option<[u8; 33]> {
        match bytes.as_slice() {
            [2 | 3, ..] => bytes.try_into().ok(),
            // Uncompressed: x, then y, whose lowest bit is its sign.
            [4, point @ ..] if point.len() == 64 => {
                let (x, y) = point.split_at(32);
                let sign = 2 + (y.last()? & 1);
                [&[sign][..], x].concat().try_into().ok()
            }
            _ => None,
        }
    };
    match method.kind.as_str() {
        "Multikey" | "Ed25519VerificationKey2020" => DidKey::parse(&format!("did:key:{}", method.key)).ok(),
        "EcdsaSecp256k1VerificationKey2019" => raw(multibase_base58(&method.key)?).map(DidKey::Secp256k1),
        "EcdsaSecp256r1VerificationKey2019" => raw(multibase_base58(&method.key)?).map(DidKey::P256),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str) -> Result<Vec<String>, Code> {
        let document = Document::parse("did:web:a.example", json.as_bytes())?;
        Ok(document.keys.into_iter().map(|named| named.fragment).collect())
    }

    #[test]
    fn only_keys_that_may_sign_in_are_taken() {
        let key = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
        let method =
            |id: &str| format!(r#"{{"id":"{id}","type":"Multikey","controller":"x","publicKeyMultibase":"{key}"}}"#);
        let json = format!(
            r##"{{"id":"did:web:a.example","verificationMethod":[{},{},{},{},{{"id":"#jwk","type":"JsonWebKey2020"}}],
            "authentication":["#login",{},"did:web:b.example#foreign"]}}"##,
            method("did:web:a.example#atproto"),
            method("did:web:a.example#atproto_label"),
            method("#login"),
            method("did:web:b.example#foreign"),
            method("#inside"),
        );
        assert_eq!(names(&json), Ok(vec!["inside".to_owned(), "atproto".to_owned(), "login".to_owned()]));
        assert_eq!(names(&json.replace("\"id\":\"did:web:a.example\"", "\"id\":\"did:web:c\"")), Err(Code::UnknownDid));
        assert_eq!(names("[]"), Err(Code::UnknownDid));
    }

    #[test]
    fn the_older_key_types_are_the_same_keys() {
        let secret = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let expected: [u8; 33] = secret.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap();
        for compress in [true, false] {
            let point = secret.verifying_key().to_sec1_point(compress);
            let method = MethodIn {
                id: "#atproto".into(),
                kind: "EcdsaSecp256k1VerificationKey2019".into(),
                key: weft_protocol::admission::did_key::to_multibase_base58(point.as_bytes()),
            };
            assert_eq!(super::key(&method), Some(DidKey::Secp256k1(expected)));
        }
    }
}
