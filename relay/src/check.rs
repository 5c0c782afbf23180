//! What can be said of a configuration before anything is served by it: which of the files that it names cannot be used, and
//! what in it is surely not meant.
//!
//! Invariant: a file that would fail later (root certificates are read at the first use) fails here, at the start and in
//! `check-config` alike. Spec: docs/operating.md#configure-it.

use std::path::Path;

use ipnet::IpNet;
use weft_protocol::admission::DidKey;

use crate::config::Config;
use crate::did::is_resolvable;
use crate::policy::Blocked;
use crate::server::ServerError;
use crate::tls::certificates;

/// Reads the files that nothing else reads at the start.
///
/// # Errors
/// [`ServerError::Config`], naming key and file.
pub(crate) fn files(config: &Config) -> Result<(), ServerError> {
    let roots = |key, path: &Path| {
        certificates(path).map(drop).map_err(|error| ServerError::Config { key, problem: error.to_string() })
    };
    config.did.ca.as_deref().map_or(Ok(()), |path| roots("did_ca", path))?;
    let Some(nats) = &config.nats else { return Ok(()) };
    nats.ca.as_deref().map_or(Ok(()), |path| roots("nats_ca", path))?;
    if let Some(path) = &nats.credentials {
        std::fs::read_to_string(path).map_err(|error| ServerError::Config {
            key: "nats_credentials",
            problem: format!("cannot read {}: {error}", path.display()),
        })?;
    }
    Ok(())
}

impl Config {
    /// What starts, but is surely not meant: a sentence each. Only with `show_dids` do they hold DIDs, which no log does.
    #[must_use]
    pub fn warnings(&self, show_dids: bool) -> Vec<String> {
        let shown = |did: &str| if show_dids { format!(" ({did})") } else { String::new() };
        let mut warnings = Vec::new();
        for network in self.trusted_proxies.iter().filter(|network| network.prefix_len() == 0) {
            warnings.push(format!(
                "trusted_proxies: {network} is every address, so that anybody can say which address they come from, and \
                 no block and no limit of an address holds: list the networks of your proxies alone"
            ));
        }
        if self.policy.allow_dids.as_ref().is_some_and(Vec::is_empty) {
            warnings
                .push("allow_dids: the list is empty, so nobody may come in; leave it out to let everybody in".into());
        }
        for (at, did) in self.policy.allow_dids.iter().flatten().enumerate().filter(|(_, did)| !is_did(did)) {
            let (number, did) = (at + 1, shown(did));
            warnings
                .push(format!("allow_dids: entry {number}{did} is no DID that can be resolved, so it lets nobody in"));
        }
        // One that cannot be read is an error elsewhere.
        let blocked = self.policy.block_file.as_deref().and_then(|path| Blocked::lines(path).ok()).unwrap_or_default();
        for (line, entry) in blocked {
            if entry.starts_with("did:") && !is_did(&entry) {
                let did = shown(&entry);
                warnings
                    .push(format!("block_file: line {line}{did} is no DID that can be resolved, so it blocks nobody"));
            } else if entry.parse::<IpNet>().is_ok_and(|network| network.prefix_len() == 0) {
                warnings.push(format!("block_file: line {line}: {entry} is every address, so nobody may come in"));
            }
        }
        warnings
    }
}

fn is_did(did: &str) -> bool {
    DidKey::parse(did).is_ok() || is_resolvable(did)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicyConfig;

    #[test]
    fn what_is_surely_not_meant_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("blocked");
        std::fs::write(&file, "192.0.2.0/24\ndid:web:a.example\ndid:plc:short\n::/0\n").unwrap();
        let did = |did: &str| did.to_owned();
        let allow_dids = vec![
            did("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
            did("did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
            did("did:web:a.example%3A8443:u"),
            did("did:key:nonsense"),
            did("did:example:alice"),
        ];
        let config = Config {
            trusted_proxies: ["0.0.0.0/0", "10.0.0.0/8", "::/0"].map(|text| text.parse().unwrap()).to_vec(),
            policy: PolicyConfig { allow_dids: Some(allow_dids), block_file: Some(file), ..PolicyConfig::default() },
            ..Config::default()
        };
        let warnings = config.warnings(true);
        let words =
            ["0.0.0.0/0", "::/0", "did:key:nonsense", "did:example:alice", "line 3 (did:plc:short)", "line 4: ::/0"];
        assert_eq!(warnings.len(), words.len(), "{warnings:?}");
        assert!(warnings.iter().zip(words).all(|(warning, word)| warning.contains(word)), "{warnings:?}");
        assert_eq!(Config::default().warnings(true), Vec::<String>::new());
        let nobody = PolicyConfig { allow_dids: Some(vec![]), ..PolicyConfig::default() };
        assert_eq!(Config { policy: nobody, ..Config::default() }.warnings(true).len(), 1);
    }
}
