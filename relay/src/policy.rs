//! Who may come in: everybody, or those who know a secret, or those on a list, less those on the block list.
//!
//! Invariant: all that is set has to be fulfilled, and a file that cannot be read changes nothing.
//! Spec: docs/protocol.md#token.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::verify_auth_proof;

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
    auth_tokens: Vec<String>,
    allowed: Option<BTreeSet<String>>,
    pub(crate) blocked: Blocked,
}

/// What the operator set that keeps a client out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// The secret was not known.
    Secret,
    /// The DID is not on the list of those that may come in.
    NotListed,
    /// The block file names the DID, on this line.
    BlockedDid(usize),
    /// The block file names the address or its network, on this line.
    BlockedAddress(usize),
}

impl Barrier {
    /// Names of all, for metrics.
    pub(crate) const NAMES: [&'static str; 4] = ["secret", "not-listed", "blocked-did", "blocked-address"];

    /// Its name in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        let [secret, not_listed, did, address] = Self::NAMES;
        match self {
            Barrier::Secret => secret,
            Barrier::NotListed => not_listed,
            Barrier::BlockedDid(_) => did,
            Barrier::BlockedAddress(_) => address,
        }
    }

    /// The line of the block file.
    pub(crate) fn line(self) -> Option<usize> {
        match self {
            Barrier::BlockedDid(line) | Barrier::BlockedAddress(line) => Some(line),
            Barrier::Secret | Barrier::NotListed => None,
        }
    }
}

/// Who may not come in, each with the line that says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocked {
    dids: BTreeMap<String, usize>,
    networks: Vec<(IpNet, usize)>,
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
        Ok(Self { auth_tokens: config.auth_tokens.clone(), allowed, blocked })
    }

    /// The same, with another block list.
    pub(crate) fn with(&self, blocked: Blocked) -> Self {
        Self { auth_tokens: self.auth_tokens.clone(), allowed: self.allowed.clone(), blocked }
    }

    /// Whether a secret, and a place on a list, are asked for.
    pub(crate) fn asks_for(&self) -> (bool, bool) {
        (!self.auth_tokens.is_empty(), self.allowed.is_some())
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
        let knows = |secret: &String| proof.is_some_and(|proof| verify_auth_proof(secret, audience, jwt, proof));
        if !self.auth_tokens.is_empty() && !self.auth_tokens.iter().any(knows) {
            let message = "this relay asks for a secret: ask its operator, and set it beside the relay's address";
            return Err(Refusal::barred(Barrier::Secret, message));
        }
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(did)) {
            let message = "this relay admits certain DIDs only: ask its operator to add yours";
            return Err(Refusal::barred(Barrier::NotListed, message));
        }
        if let Some(barrier) = self.blocked.did(did).or_else(|| self.blocked.address(ip)) {
            let message = "the operator of this relay has blocked this DID or address: ask them why";
            return Err(Refusal::barred(barrier, message));
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
                blocked.dids.entry(did.0).or_insert(at + 1);
            } else if let Ok(network) = entry.parse::<Network>() {
                blocked.networks.push((network.0, at + 1));
            } else {
                return Err(BlockFileError::Line(at + 1));
            }
        }
        Ok(blocked)
    }

    /// What names this DID.
    pub(crate) fn did(&self, did: &str) -> Option<Barrier> {
        self.dids.get(did).map(|line| Barrier::BlockedDid(*line))
    }

    /// What names this address.
    pub(crate) fn address(&self, ip: IpAddr) -> Option<Barrier> {
        let ip = ip.to_canonical();
        let found = self.networks.iter().find(|(network, _)| network.contains(&ip));
        found.map(|(_, line)| Barrier::BlockedAddress(*line))
    }

    pub(crate) fn dids(&self) -> impl Iterator<Item = &str> {
        self.dids.keys().map(String::as_str)
    }

    /// How many DIDs are named, and how many addresses and networks.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.dids.len(), self.networks.len())
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::admission::proof::auth_proof;
    use weft_protocol::code::Code;

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
            auth_tokens: vec!["another secret".into(), "a secret of length".into()],
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
        assert_eq!(blocked.did("did:web:a.example"), Some(Barrier::BlockedDid(3)));
        assert_eq!((blocked.did("did:web:a"), blocked.len()), (None, (1, 2)));
        for (ip, line) in
            [("192.0.2.9", Some(4)), ("::ffff:192.0.2.9", Some(4)), ("2001:db8::1", Some(5)), ("2001:db8::2", None)]
        {
            assert_eq!(blocked.address(ip.parse().unwrap()), line.map(Barrier::BlockedAddress), "{ip}");
        }
        assert!(matches!(Blocked::parse("did:key:a\nnonsense"), Err(BlockFileError::Line(2))));
    }
}
