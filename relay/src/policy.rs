//! Who may come in: everybody, or those who know a secret, or those on a list, less those on the block list.
//!
//! Invariant: all that is set has to be fulfilled, and a file that cannot be read changes nothing. The secret and the address
//! are asked about before an identity is proven, the lists of DIDs after it, and by the machine too ([`Lists`]).
//! Spec: docs/protocol.md#token.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::{hash, verify_auth_proof};
use weft_relay_core::Lists;

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
    /// What the machine goes by.
    pub(crate) lists: Arc<Lists>,
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
    dids: BTreeMap<[u8; 32], usize>,
    networks: Networks,
}

/// Networks by the length of their prefix: an address is looked up once a length, however many networks there are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Networks(BTreeMap<(bool, u8), BTreeMap<IpNet, usize>>);

impl Networks {
    fn insert(&mut self, network: IpNet, line: usize) {
        let network = network.trunc();
        let kind = (network.addr().is_ipv6(), network.prefix_len());
        self.0.entry(kind).or_default().entry(network).or_insert(line);
    }

    /// The line of a network that the address is in.
    fn line(&self, ip: IpAddr) -> Option<usize> {
        let ip = ip.to_canonical();
        self.0.iter().find_map(|(&(v6, len), networks)| {
            let around = (v6 == ip.is_ipv6()).then(|| IpNet::new(ip, len).ok()).flatten()?;
            networks.get(&around.trunc()).copied()
        })
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

/// The name under which a DID stands in lists and connections.
fn identity(did: &str) -> [u8; 32] {
    hash("relay-identity", &[did.as_bytes()])
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
        let allowed = config.allow_dids.as_ref().map(|dids| dids.iter().map(|did| identity(did)).collect());
        Ok(Self::of(config.auth_tokens.clone(), allowed, blocked))
    }

    fn of(auth_tokens: Vec<String>, allowed: Option<BTreeSet<[u8; 32]>>, blocked: Blocked) -> Self {
        let lists = Arc::new(Lists { allowed, blocked: blocked.dids.keys().copied().collect() });
        Self { auth_tokens, lists, blocked }
    }

    /// The same, with another block list.
    pub(crate) fn with(&self, blocked: Blocked) -> Self {
        Self::of(self.auth_tokens.clone(), self.lists.allowed.clone(), blocked)
    }

    /// Whether a secret, and a place on a list, are asked for.
    pub(crate) fn asks_for(&self) -> (bool, bool) {
        (!self.auth_tokens.is_empty(), self.lists.allowed.is_some())
    }

    /// Whether a request may go on to have its DID resolved; `proof` is what came in the header.
    pub(crate) fn admits_request(
        &self,
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
        self.admits_ip(ip)
    }

    /// Whether an address may be here.
    pub(crate) fn admits_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        let Some(line) = self.blocked.networks.line(ip) else { return Ok(()) };
        let message = "the operator of this relay has blocked this address: ask them why";
        Err(Refusal::barred(Barrier::BlockedAddress(line), message))
    }

    /// Whether a DID that was proven may be here.
    pub(crate) fn admits_did(&self, identity: &[u8; 32]) -> Result<(), Refusal> {
        if self.lists.admit(identity) {
            return Ok(());
        }
        if let Some(line) = self.blocked.dids.get(identity) {
            let message = "the operator of this relay has blocked this DID: ask them why";
            return Err(Refusal::barred(Barrier::BlockedDid(*line), message));
        }
        let message = "this relay admits certain DIDs only: ask its operator to add yours";
        Err(Refusal::barred(Barrier::NotListed, message))
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

    /// Its entries with the numbers of their lines, comments left out.
    pub(crate) fn lines(path: &Path) -> Result<Vec<(usize, String)>, BlockFileError> {
        Self::read(path)?;
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, entry(line).to_owned()));
        Ok(lines.filter(|(_, entry)| !entry.is_empty()).collect())
    }

    fn parse(text: &str) -> Result<Self, BlockFileError> {
        let mut blocked = Self::default();
        for (at, line) in text.lines().enumerate() {
            if at >= BLOCK_ENTRIES_MAX {
                return Err(BlockFileError::TooLong);
            }
            let entry = entry(line);
            if entry.is_empty() {
                continue;
            }
            if let Ok(did) = entry.parse::<Did>() {
                blocked.dids.entry(identity(&did.0)).or_insert(at + 1);
            } else if let Ok(network) = entry.parse::<Network>() {
                blocked.networks.insert(network.0, at + 1);
            } else {
                return Err(BlockFileError::Line(at + 1));
            }
        }
        Ok(blocked)
    }

    /// How many DIDs are named, and how many addresses and networks.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.dids.len(), self.networks.len())
    }
}

/// A line without its comment.
fn entry(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use weft_protocol::admission::proof::auth_proof;
    use weft_protocol::code::Code;

    use super::*;

    fn code(policy: &Policy, did: &str, proof: Option<&str>) -> Option<Code> {
        let audience = Audience::parse("relay.example:443").unwrap();
        let ip = "192.0.2.7".parse().unwrap();
        let admitted = policy.admits_request(ip, proof, &audience, "jwt");
        admitted.and_then(|()| policy.admits_did(&identity(did))).err().map(|refusal| refusal.code)
    }

    #[test]
    fn secret_and_lists_must_all_be_fulfilled() {
        let audience = Audience::parse("relay.example:443").unwrap();
        let proof = auth_proof("a secret of length", &audience, "jwt");
        let secrets = vec!["another secret".into(), "a secret of length".into()];
        let allowed = Some([identity("did:key:a"), identity("did:key:b")].into());
        let policy = Policy::of(secrets, allowed, Blocked::parse("did:key:b # who").unwrap());
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
        assert_eq!(blocked.len(), (1, 2));
        let policy = Policy::of(Vec::new(), None, blocked);
        let barrier = |admitted: Result<(), Refusal>| admitted.err().and_then(|refusal| refusal.barrier);
        let by_did = |did: &str| barrier(policy.admits_did(&identity(did)));
        assert_eq!(by_did("did:web:a.example"), Some(Barrier::BlockedDid(3)));
        assert_eq!(by_did("did:web:a"), None);
        for (ip, line) in
            [("192.0.2.9", Some(4)), ("::ffff:192.0.2.9", Some(4)), ("2001:db8::1", Some(5)), ("2001:db8::2", None)]
        {
            assert_eq!(barrier(policy.admits_ip(ip.parse().unwrap())), line.map(Barrier::BlockedAddress), "{ip}");
        }
        assert!(matches!(Blocked::parse("did:key:a\nnonsense"), Err(BlockFileError::Line(2))));
    }
}
