//! What members' accounts said when they were last asked; kept in this home, and in no workspace.
//!
//! Invariant: a time of verification is that of an answer that this computer verified itself. What is here can be had anew by
//! asking, so a damaged file is begun anew. Spec: docs/sealing.md#attestation.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::verify::Said;
use crate::durable;

/// Accounts remembered; then those that were asked the longest ago make way.
const SEEN_MAX: usize = 4096;

/// What is known of one account and one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The member's `did:key`.
    pub(crate) root: String,
    pub(crate) did: String,
    /// What the account calls itself.
    #[serde(default)]
    pub(crate) handle: Option<String>,
    /// When it last said that it is this member.
    #[serde(default)]
    pub(crate) verified_ms: Option<u64>,
    /// The last time it did not, if that is later.
    #[serde(default)]
    pub(crate) failed: Option<Failed>,
}

/// Why an account was not verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) at_ms: u64,
    /// It answered, and does not say that it is this member; else nobody answered.
    pub(crate) denied: bool,
    pub(crate) why: String,
}

impl Seen {
    /// When it was last asked.
    fn asked_ms(&self) -> u64 {
        self.failed.as_ref().map(|failed| failed.at_ms).max(self.verified_ms).unwrap_or(0)
    }
}

/// By member and account.
type All = BTreeMap<(String, String), Seen>;

/// What is known of all accounts.
pub(crate) struct SeenAccounts {
    file: PathBuf,
    all: Mutex<All>,
}

impl SeenAccounts {
    /// As the file has it.
    pub(crate) fn load(file: &Path) -> io::Result<SeenAccounts> {
        let bytes = durable::read_if_there(file)?;
        let list: Vec<Seen> = bytes.map_or_else(Vec::new, |bytes| {
            serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "what members' accounts said is damaged; they can be asked again");
                Vec::new()
            })
        });
        let all = list.into_iter().map(|seen| ((seen.root.clone(), seen.did.clone()), seen)).collect();
        Ok(SeenAccounts { file: file.to_path_buf(), all: Mutex::new(all) })
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, root: &str, did: &str) -> Option<Seen> {
        self.lock().get(&(root.to_owned(), did.to_owned())).cloned()
    }

    /// When an account was last asked; 0: never.
    pub(crate) fn asked_ms(&self, root: &str, did: &str) -> u64 {
        self.of(root, did).map_or(0, |seen| seen.asked_ms())
    }

    /// Keeps what an account said now, durably.
    pub(crate) fn note(&self, root: &str, did: &str, now_ms: u64, said: Result<Said, String>) -> io::Result<Seen> {
        let mut all = self.lock();
        let key = (root.to_owned(), did.to_owned());
        let fresh =
            || Seen { root: root.to_owned(), did: did.to_owned(), handle: None, verified_ms: None, failed: None };
        let mut seen = all.get(&key).cloned().unwrap_or_else(fresh);
        match said {
            Ok(Said::Yes { handle }) => (seen.handle, seen.verified_ms, seen.failed) = (handle, Some(now_ms), None),
            Ok(Said::No(why)) => seen.failed = Some(Failed { at_ms: now_ms, denied: true, why: why.to_owned() }),
            // Whoever does not answer takes nothing back.
            Err(why) if seen.failed.as_ref().is_some_and(|failed| failed.denied) => {
                tracing::info!(why, "an account that did not say which member it is cannot be asked");
            }
            Err(why) => seen.failed = Some(Failed { at_ms: now_ms, denied: false, why }),
        }
        all.insert(key.clone(), seen.clone());
        while all.len() > SEEN_MAX {
            let oldest = all.iter().filter(|(other, _)| **other != key).min_by_key(|(_, seen)| seen.asked_ms());
            let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) else { break };
            all.remove(&oldest);
        }
        let list: Vec<&Seen> = all.values().collect();
        durable::replace(&self.file, &serde_json::to_vec(&list).map_err(io::Error::other)?)?;
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes() -> Result<Said, String> {
        Ok(Said::Yes { handle: Some("a.example".to_owned()) })
    }

    /// The last verification stays when nobody answers, and is contradicted by an answer only; a denial lasts until the
    /// account says otherwise. All of it survives a restart.
    #[test]
    fn only_an_answer_changes_what_an_account_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.json");
        let note = |at: u64, said| SeenAccounts::load(&file).unwrap().note("did:key:a", "did:plc:a", at, said).unwrap();
        let seen = note(1, yes());
        assert_eq!((seen.verified_ms, seen.failed), (Some(1), None));
        let seen = note(2, Err("gone".to_owned()));
        assert_eq!((seen.verified_ms, seen.handle.as_deref()), (Some(1), Some("a.example")));
        assert_eq!(seen.failed.map(|failed| (failed.at_ms, failed.denied)), Some((2, false)));
        let seen = note(3, Ok(Said::No("no record")));
        assert_eq!(seen.failed.map(|failed| (failed.at_ms, failed.denied)), Some((3, true)));
        let seen = note(4, Err("gone".to_owned()));
        assert_eq!(seen.failed.map(|failed| (failed.at_ms, failed.denied)), Some((3, true)));
        let seen = note(5, yes());
        assert_eq!((seen.verified_ms, seen.failed), (Some(5), None));
        assert_eq!(SeenAccounts::load(&file).unwrap().asked_ms("did:key:a", "did:plc:a"), 5);
        assert_eq!(SeenAccounts::load(&file).unwrap().of("did:key:b", "did:plc:a"), None);
        std::fs::write(&file, b"{half").unwrap();
        assert_eq!(SeenAccounts::load(&file).unwrap().asked_ms("did:key:a", "did:plc:a"), 0);
    }

    /// However many there are, the list is bounded, and what was asked last is in it.
    #[test]
    fn the_list_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.json");
        let many: Vec<Seen> = (0..SEEN_MAX as u64)
            .map(|n| Seen {
                root: format!("did:key:{n}"),
                did: "did:plc:a".to_owned(),
                handle: None,
                verified_ms: Some(n + 10),
                failed: None,
            })
            .collect();
        std::fs::write(&file, serde_json::to_vec(&many).unwrap()).unwrap();
        let accounts = SeenAccounts::load(&file).unwrap();
        // The clock was put back: it stays all the same.
        accounts.note("did:key:new", "did:plc:a", 1, yes()).unwrap();
        assert!(accounts.of("did:key:new", "did:plc:a").is_some() && accounts.of("did:key:0", "did:plc:a").is_none());
        assert_eq!(accounts.lock().len(), SEEN_MAX);
    }
}
