//! The record by which an account says which member it is, bound both ways: it stands in the account's repository, and the
//! member's root key signed the account's DID in it.
//!
//! The signature is public and kept: with it the members of every workspace are told, also of those that come later, without
//! the words.
//!
//! Invariant: what is shown as attested was read back from the account's server and verified at the time that is shown. It
//! authorises nothing.
//! Spec: docs/sealing.md#attestation.

use atrium_api::com::atproto::repo::{get_record, put_record};
use atrium_api::types::string::{AtIdentifier, Nsid, RecordKey};
use atrium_api::types::{TryFromUnknown, TryIntoUnknown};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use weft_agent_core::attestation;
use weft_agent_core::id::RootKey;
use weft_agent_core::identity::LocalIdentity;
use weft_protocol::admission::DidKey;

use super::{Account, AccountError, Fault, Profile, fault, profile_in};
use crate::clock;
use crate::home::{Home, identity};

/// The record's collection.
pub(super) const COLLECTION: &str = "dev.weft.identity";

/// An attestation that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attested {
    /// The member's `did:key`.
    pub(crate) root: String,
    /// Where the record is.
    pub(crate) uri: String,
    pub(crate) verified_ms: u64,
    /// The root's over the account's DID, as in the record.
    #[serde(default)]
    pub(crate) signature: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    #[serde(rename = "$type")]
    kind: String,
    root: String,
    signature: String,
    created_at: String,
}

/// A root key as a DID.
pub(crate) fn root_did(root: &[u8; 32]) -> String {
    DidKey::Ed25519(*root).to_string()
}

impl Record {
    pub(super) fn new(identity: &LocalIdentity, did: &str) -> Option<Record> {
        let root = identity.root.as_ref()?;
        let signature = attestation::sign(root, did);
        let now = jiff::Timestamp::from_millisecond(i64::try_from(clock::wall_ms()).ok()?).ok()?;
        Some(Record {
            kind: COLLECTION.to_owned(),
            root: root_did(&root.public().sign.0),
            signature: URL_SAFE_NO_PAD.encode(signature),
            created_at: now.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string(),
        })
    }

    /// Whether it names this root.
    pub(super) fn names(&self, root: &[u8; 32]) -> bool {
        self.kind == COLLECTION && self.root == root_did(root)
    }

    /// Whether this root says that it is that DID.
    pub(super) fn holds(&self, root: &[u8; 32], did: &str) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(&self.signature);
        self.names(root) && signature.is_ok_and(|signature| attestation::holds(&RootKey(*root), did, &signature))
    }
}

/// What the members of this home's workspaces are to be told: the account that is logged in, if it was attested to the
/// identity of this home, with its root's signature.
pub(crate) fn to_say(home: &Home) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let Some(profile) = profile_in(&home.account_file())? else { return Ok(None) };
    let (Some(attested), Some(identity)) = (&profile.attested, identity::load(&home.identity_file())?) else {
        return Ok(None);
    };
    let signature = URL_SAFE_NO_PAD.decode(&attested.signature)?;
    let holds = attestation::holds(&identity.root_public.sign, &profile.did, &signature);
    Ok(holds.then_some((profile.did, signature)))
}

impl Account {
    /// Publishes in the account's repository which member it is, reads that back and verifies it.
    pub(crate) async fn attest(&self, identity: &LocalIdentity) -> Result<Profile, AccountError> {
        let mut state = self.state.lock().await;
        let mut profile = self.profile()?.ok_or(AccountError::None)?;
        let record = Record::new(identity, &profile.did).ok_or(AccountError::NoRoot)?;
        let root = identity.root_public.sign.0;
        let wrong = |what: &'static str| std::io::Error::other(format!("{what} cannot be named in a record"));
        let collection: Nsid = COLLECTION.parse().map_err(|_| wrong("the kind"))?;
        // One record a root, so that a second identity of a person does not replace the first.
        let key = record.root.trim_start_matches("did:key:").to_owned();
        let rkey: RecordKey = key.parse().map_err(|_| wrong("the root"))?;
        let repo: AtIdentifier = profile.did.parse().map_err(|_| wrong("the DID"))?;
        let input = put_record::InputData {
            collection: collection.clone(),
            record: record.clone().try_into_unknown().map_err(|_| wrong("the attestation"))?,
            repo: repo.clone(),
            rkey: rkey.clone(),
            swap_commit: None,
            swap_record: None,
            validate: None,
        };
        let mut secrets = self.loaded(&mut state).await?;
        let mut renewed = false;
        let uri = loop {
            let client = self.client(&profile.pds, &secrets.access)?;
            match client.service.com.atproto.repo.put_record(input.clone().into()).await.map_err(fault) {
                Ok(answer) => break answer.data.uri,
                Err(Fault::Stale) if !renewed => {
                    secrets = self.renew(&mut state, &profile).await?;
                    renewed = true;
                }
                Err(fault) => return Err(fault.at(&profile.pds)),
            }
        };
        // As anybody would: without a session.
        let asked = get_record::ParametersData { cid: None, collection, repo, rkey };
        let client = self.client(&profile.pds, "")?;
        let found = client.service.com.atproto.repo.get_record(asked.into()).await.map_err(fault);
        let found = found.map_err(|fault| fault.at(&profile.pds))?;
        let not = |why| AccountError::NotPublished { pds: profile.pds.clone(), why };
        let published = Record::try_from_unknown(found.data.value).map_err(|_| not("another kind of record"))?;
        if !published.holds(&root, &profile.did) {
            return Err(not("the signature does not verify"));
        }
        let uri = uri.chars().filter(|c| !c.is_control()).take(2048).collect();
        profile.attested =
            Some(Attested { root: published.root, uri, verified_ms: clock::wall_ms(), signature: published.signature });
        self.keep(&profile)?;
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::OsRandom;

    /// An attestation holds for its root and its DID, and for no other; without the root secret there is none.
    #[test]
    fn an_attestation_holds_both_ways_only() {
        let mut identity = LocalIdentity::generate(&mut OsRandom, "ada", "here");
        let root = identity.root_public.sign.0;
        let record = Record::new(&identity, "did:plc:a").unwrap();
        assert!(record.holds(&root, "did:plc:a") && record.root.starts_with("did:key:z6Mk"));
        assert!(!record.holds(&root, "did:plc:b"));
        let other = LocalIdentity::generate(&mut OsRandom, "ben", "here").root_public.sign.0;
        assert!(!record.holds(&other, "did:plc:a"));
        assert!(!Record { root: root_did(&other), ..record.clone() }.holds(&other, "did:plc:a"));
        assert!(!Record { signature: "AAAA".to_owned(), ..record }.holds(&root, "did:plc:a"));
        identity.root = None;
        assert!(Record::new(&identity, "did:plc:a").is_none());
    }
}
