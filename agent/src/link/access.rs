//! What each relay may know of us: by which identity we come, and the secret its operator gave us.
//!
//! Invariant: a relay learns an account's DID only if it asks for named people and the person did not forbid it, or if the
//! person said so; links on the local network never do. A relay's secret is in the keychain and in this process's memory.
//! Spec: docs/using.md#relays-that-ask-who-you-are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use weft_protocol::admission::Audience;
use zeroize::Zeroizing;

use crate::account::Account;
use crate::durable;
use crate::keychain::{Keychain, Place};

/// Relays with settings of their own; more than anybody has, so that the file stays small.
const RELAYS_MAX: usize = 256;
/// Shorter secrets are refused by relays.
const SECRET_CHARS_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 4096;

/// By which identity we come to a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Identity {
    /// A pseudonym; the account if the relay asks for named people.
    #[default]
    Auto,
    /// A pseudonym, whatever it asks.
    Pseudonym,
    /// The account.
    Account,
}

impl Identity {
    /// As people write it.
    pub(crate) fn parse(text: &str) -> Option<Identity> {
        match text {
            "auto" => Some(Identity::Auto),
            "pseudonym" => Some(Identity::Pseudonym),
            "account" => Some(Identity::Account),
            _ => None,
        }
    }
}

/// The settings of one relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    #[serde(default)]
    pub(crate) identity: Identity,
    /// Whether the keychain holds a secret for it.
    #[serde(default)]
    pub(crate) secret: bool,
}

#[derive(Default)]
struct State {
    settings: BTreeMap<String, Setting>,
    secrets: BTreeMap<String, Zeroizing<String>>,
    /// Those that asked for named people and took the account.
    named: BTreeSet<String>,
}

/// The settings of all relays of one home.
pub(crate) struct Access {
    file: PathBuf,
    keychain: Arc<Keychain>,
    pub(crate) account: Arc<Account>,
    state: Mutex<State>,
}

fn secret_name(audience: &Audience) -> String {
    format!("relay {audience}")
}

impl Access {
    /// Reads the settings; a damaged file is an error, since overwriting it would forget a "pseudonym only".
    pub(crate) fn load(file: PathBuf, keychain: Arc<Keychain>, account: Arc<Account>) -> io::Result<Access> {
        let settings = match durable::read_if_there(&file)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::other(format!("{} is damaged ({error}); put it right or remove it", file.display()))
            })?,
            None => BTreeMap::new(),
        };
        Ok(Access { file, keychain, account, state: Mutex::new(State { settings, ..State::default() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn setting(&self, audience: &Audience) -> Setting {
        self.lock().settings.get(audience.as_str()).copied().unwrap_or_default()
    }

    /// Whether the account is used from the first request on.
    pub(crate) fn comes_named(&self, audience: &Audience) -> bool {
        let state = self.lock();
        match state.settings.get(audience.as_str()).copied().unwrap_or_default().identity {
            Identity::Auto => state.named.contains(audience.as_str()),
            Identity::Pseudonym => false,
            Identity::Account => true,
        }
    }

    /// A relay that asked for named people took the account, or does not any more.
    pub(crate) fn learn_named(&self, audience: &Audience, named: bool) {
        let mut state = self.lock();
        if named {
            state.named.insert(audience.to_string());
        } else {
            state.named.remove(audience.as_str());
        }
    }

    /// The account is another one now.
    pub(crate) fn forget_named(&self) {
        self.lock().named.clear();
    }

    /// The secret for a relay, if one was given.
    pub(crate) async fn secret(&self, audience: &Audience) -> io::Result<Option<Zeroizing<String>>> {
        {
            let state = self.lock();
            if let Some(secret) = state.secrets.get(audience.as_str()) {
                return Ok(Some(secret.clone()));
            }
            if !state.settings.get(audience.as_str()).is_some_and(|setting| setting.secret) {
                return Ok(None);
            }
        }
        let (keychain, name) = (Arc::clone(&self.keychain), secret_name(audience));
        let found = tokio::task::spawn_blocking(move || keychain.get(&name)).await.map_err(io::Error::other)??;
        let Some(secret) = found.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()).map(Zeroizing::new) else {
            return Ok(None);
        };
        self.lock().secrets.insert(audience.to_string(), secret.clone());
        Ok(Some(secret))
    }

    fn change(&self, audience: &Audience, change: impl FnOnce(&mut Setting)) -> io::Result<()> {
        let mut state = self.lock();
        let mut settings = state.settings.clone();
        let mut setting = settings.remove(audience.as_str()).unwrap_or_default();
        change(&mut setting);
        if setting != Setting::default() {
            if settings.len() >= RELAYS_MAX {
                return Err(io::Error::other("too many relays have settings of their own; set some back to auto"));
            }
            settings.insert(audience.to_string(), setting);
        }
        durable::replace(&self.file, &serde_json::to_vec_pretty(&settings)?)?;
        state.settings = settings;
        Ok(())
    }

    pub(crate) fn set_identity(&self, audience: &Audience, identity: Identity) -> io::Result<()> {
        self.change(audience, |setting| setting.identity = identity)?;
        self.lock().named.remove(audience.as_str());
        Ok(())
    }

    /// Keeps a relay's secret, or forgets it. Blocks.
    pub(crate) fn set_secret(&self, audience: &Audience, secret: Option<&str>) -> io::Result<Option<Place>> {
        let name = secret_name(audience);
        let place = match secret {
            Some(secret) => {
                if secret.chars().count() < SECRET_CHARS_MIN || secret.len() > SECRET_BYTES_MAX {
                    return Err(io::Error::other("a relay's secret has 16 characters or more"));
                }
                Some(self.keychain.set(&name, secret.as_bytes())?)
            }
            None => {
                self.keychain.forget(&name)?;
                None
            }
        };
        self.change(audience, |setting| setting.secret = secret.is_some())?;
        let mut state = self.lock();
        match secret {
            Some(secret) => state.secrets.insert(audience.to_string(), Zeroizing::new(secret.to_owned())),
            None => state.secrets.remove(audience.as_str()),
        };
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(dir: &std::path::Path) -> Access {
        let keychain = Arc::new(Keychain::new(dir.join("secrets"), false));
        let account = Arc::new(Account::new(dir.join("account.json"), Arc::clone(&keychain), None));
        Access::load(dir.join("relays.json"), keychain, account).unwrap()
    }

    /// Settings and secrets survive a restart, the secret is not in the settings, and what is set back is forgotten.
    #[tokio::test]
    async fn settings_and_secrets_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let relay = Audience::parse("relay.example:443").unwrap();
        let first = access(dir.path());
        assert!(first.secret(&relay).await.unwrap().is_none());
        assert!(first.set_secret(&relay, Some("too short")).is_err());
        first.set_secret(&relay, Some("sixteen characters")).unwrap();
        first.set_identity(&relay, Identity::Account).unwrap();
        let again = access(dir.path());
        assert_eq!(again.secret(&relay).await.unwrap().unwrap().as_str(), "sixteen characters");
        assert!(again.comes_named(&relay));
        assert!(!std::fs::read_to_string(dir.path().join("relays.json")).unwrap().contains("sixteen"));
        again.set_secret(&relay, None).unwrap();
        again.set_identity(&relay, Identity::Auto).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("relays.json")).unwrap(), "{}");
        assert!(again.secret(&relay).await.unwrap().is_none());
    }

    /// A relay that asked for people is met by name from then on; one that may only know a pseudonym never is.
    #[test]
    fn names_are_for_relays_that_ask_and_may() {
        let dir = tempfile::tempdir().unwrap();
        let relay = Audience::parse("relay.example:443").unwrap();
        let access = access(dir.path());
        assert!(!access.comes_named(&relay));
        access.learn_named(&relay, true);
        assert!(access.comes_named(&relay));
        access.forget_named();
        assert!(!access.comes_named(&relay));
        access.learn_named(&relay, true);
        access.set_identity(&relay, Identity::Pseudonym).unwrap();
        access.learn_named(&relay, true);
        assert!(!access.comes_named(&relay));
    }
}
