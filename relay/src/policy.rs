//! Who may come in: everybody, or those who know a secret, or those on a list, less those on the block list.
//!
//! Invariant: all that is set has to be fulfilled, and a file that cannot be read changes nothing.
//! Spec: docs/protocol.md#token.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::verify_auth_proof;
use weft_protocol::code::Code;

use crate::admit::Refusal;
use crate::config::PolicyConfig;
use crate::options::value::{Did, Network};

/// Lines of a block file that are read; a longer file is refused whole rather than read in part.
const BLOCK_ENTRIES_MAX: usize = 100_000;
/// Bytes of it.
const BLOCK_BYTES_MAX: u64 = 16 << 20;

/// What decides, of one moment.
#[derive(Default)]
pub(crate) struct Policy {
    auth_token: Option<String>,
    allowed: Option<BTreeSet<String>>,
    pub(crate) blocked: Blocked,
}

/// Who may not come in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocked {
    dids: BTreeSet<String>,
    networks: Vec<IpNet>,
}

/// A block file that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BlockFileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It has a line that is neither a DID nor a network.
    #[error("line {0} is neither a DID nor an address or network; # starts a comment")]
    Line(usize),
    /// It is too long.
    #[error("has more than {BLOCK_ENTRIES_MAX} lines or 16 MiB")]
    TooLong,
}

impl Policy {
    pub(crate) fn new(config: &PolicyConfig) -> Result<Self, BlockFileError> {
        let blocked = config.block_file.as_deref().map(Blocked::read).transpose()?.unwrap_or_default();
        let allowed = config.allow_dids.as_ref().map(|dids| dids.iter().cloned().collect());
        Ok(Self { auth_token: config.auth_token.clone(), allowed, blocked })
    }

    /// The same, with another block list.
    pub(crate) fn with(&self, blocked: Blocked) -> Self {
        Self { auth_token: self.auth_token.clone(), allowed: self.allowed.clone(), blocked }
    }

    /// Whether a secret, and a place on a list, are asked for.
    pub(crate) fn asks_for(&self) -> (bool, bool) {
        (self.auth_token.is_some(), self.allowed.is_some())
    }

    /// Whether a request may go on to have its DID resolved; `proof` is what came in the header.
    pub(crate) fn admits(
        &self,
        did: &str,
        ip: IpAddr,
        proof: Option<&str>,
        audience: &Audience,
        jwt: &str,
    ) -> Result<(), Refusal> {
        if let Some(secret) = &self.auth_token
            && !proof.is_some_and(|proof| verify_auth_proof(secret, audience, jwt, proof))
        {
            let message = "this relay asks for a secret: ask its operator, and set it beside the relay's address";
            return Err(Refusal::new(Code::NotAllowed, message));
        }
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(did)) {
            let message = "this relay admits certain DIDs only: ask its operator to add yours";
            return Err(Refusal::new(Code::NotAllowed, message));
        }
        if self.blocked.has_did(did) || self.blocked.has_ip(ip) {
            let message = "the operator of this relay has blocked this DID or address: ask them why";
            return Err(Refusal::new(Code::NotAllowed, message));
        }
        Ok(())
    }
}

impl Blocked {
    /// Reads a file: a DID, address or network a line, `#` starts a comment.
    pub(crate) fn read(path: &Path) -> Result<Self, BlockFileError> {
        if std::fs::metadata(path)?.len() > BLOCK_BYTES_MAX {
            return Err(BlockFileError::TooLong);
        }
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, BlockFileError> {
        let mut blocked = Self::default();
        for (at, line) in text.lines().enumerate() {
            if at >= BLOCK_ENTRIES_MAX {
                return Err(BlockFileError::TooLong);
            }
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            if let Ok(did) = entry.parse::<Did>() {
                blocked.dids.insert(did.0);
            } else if let Ok(network) = entry.parse::<Network>() {
                blocked.networks.push(network.0);
            } else {
                return Err(BlockFileError::Line(at + 1));
            }
        }
        Ok(blocked)
    }

    pub(crate) fn has_did(&self, did: &str) -> bool {
        self.dids.contains(did)
    }

    pub(crate) fn has_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    pub(crate) fn dids(&self) -> impl Iterator<Item = &str> {
        self.dids.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::admission::proof::auth_proof;

    use super::*;

    fn code(policy: &Policy, did: &str, proof: Option<&str>) -> Option<Code> {
        let audience = Audience::parse("relay.example:443").unwrap();
        let ip = "192.0.2.7".parse().unwrap();
        policy.admits(did, ip, proof, &audience, "jwt").err().map(|refusal| refusal.code)
    }

    #[test]
    fn secret_and_lists_must_all_be_fulfilled() {
        let audience = Audience::parse("relay.example:443").unwrap();
        let proof = auth_proof("a secret of length", &audience, "jwt");
        let policy = Policy {
            auth_token: Some("a secret of length".into()),
            allowed: Some(["did:key:a".to_owned(), "did:key:b".to_owned()].into()),
            blocked: Blocked::parse("did:key:b # who").unwrap(),
        };
        assert_eq!(code(&policy, "did:key:a", Some(&proof)), None);
        assert_eq!(code(&policy, "did:key:a", None), Some(Code::NotAllowed));
        assert_eq!(code(&policy, "did:key:a", Some("a secret of length")), Some(Code::NotAllowed));
        assert_eq!(code(&policy, "did:key:b", Some(&proof)), Some(Code::NotAllowed));
        assert_eq!(code(&policy, "did:key:c", Some(&proof)), Some(Code::NotAllowed));
        assert_eq!(code(&Policy::default(), "did:key:c", None), None);
    }

    #[test]
    fn a_block_file_is_taken_whole_or_named_by_its_line() {
        let blocked = Blocked::parse("# people\n\ndid:web:a.example\n192.0.2.0/24 # net\n2001:db8::1\n").unwrap();
        assert!(blocked.has_did("did:web:a.example") && !blocked.has_did("did:web:a"));
        assert!(blocked.has_ip("192.0.2.9".parse().unwrap()) && blocked.has_ip("::ffff:192.0.2.9".parse().unwrap()));
        assert!(blocked.has_ip("2001:db8::1".parse().unwrap()) && !blocked.has_ip("2001:db8::2".parse().unwrap()));
        assert!(matches!(Blocked::parse("did:key:a\nnonsense"), Err(BlockFileError::Line(2))));
    }
}
