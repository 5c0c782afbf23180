//! Settings: `config.toml`, over it `WEFT_*` from the environment.
//!
//! Invariant: an unknown key, wherever it comes from, is an error that names the known ones; what `weft config set`
//! writes keeps the person's comments and order.
//! Spec: docs/using.md#settings.

use std::path::{Path, PathBuf};

use toml_edit::DocumentMut;

use crate::durable;
use crate::nearest::did_you_mean;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    Port,
}

/// One setting: its key, what it takes, its default, and a sentence about it.
struct Known {
    key: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        key: "default_relay",
        kind: Kind::Text,
        default: "",
        about: "Relay for new workspaces (ws:// or wss://); empty: none",
    },
    Known { key: "lan", kind: Kind::Switch, default: "on", about: "Serve and find peers on the local network" },
    Known {
        key: "lan_port",
        kind: Kind::Port,
        default: "0",
        about: "Port served on the local network; 0: chosen once and kept",
    },
    Known {
        key: "lan_loopback",
        kind: Kind::Switch,
        default: "off",
        about: "Offer loopback addresses too (several agents on one machine)",
    },
    Known {
        key: "ca_file",
        kind: Kind::Text,
        default: "",
        about: "PEM file of further certificate authorities for wss://",
    },
    Known {
        key: "plc_url",
        kind: Kind::Text,
        default: "https://plc.directory",
        about: "Directory of did:plc that `weft members verify` asks",
    },
    Known {
        key: "private_accounts",
        kind: Kind::Switch,
        default: "off",
        about: "Let `weft members verify` ask servers on this machine and in private networks too",
    },
    Known {
        key: "keychain",
        kind: Kind::Switch,
        default: "on",
        about: "Keep passwords and secrets of relays in the system's keychain; off: in files for you only",
    },
    Known {
        key: "log",
        kind: Kind::Text,
        default: "info",
        about: "What the agent's log holds: error, warn, info, debug or a filter",
    },
];

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("there is no setting {key:?}{} The settings are {}", did_you_mean(key, KNOWN.iter().map(|known| known.key)), known_keys())]
    Unknown { key: String },
    #[error("{key} cannot be {value:?}: it takes {takes}")]
    Value { key: String, value: String, takes: &'static str },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
}

fn known_keys() -> String {
    KNOWN.iter().map(|known| known.key).collect::<Vec<_>>().join(", ")
}

fn find(key: &str) -> Result<&'static Known, ConfigError> {
    KNOWN.iter().find(|known| known.key == key).ok_or_else(|| ConfigError::Unknown { key: key.to_owned() })
}

/// The value in the form it is kept in.
fn check(known: &Known, value: &str) -> Result<String, ConfigError> {
    let wrong = |takes| ConfigError::Value { key: known.key.to_owned(), value: value.to_owned(), takes };
    match known.kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Switch => match value {
            "on" | "true" | "yes" | "1" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" => Ok("off".to_owned()),
            _ => Err(wrong("on or off")),
        },
        Kind::Port => value.parse::<u16>().map(|port| port.to_string()).map_err(|_| wrong("a port from 0 to 65535")),
    }
}

/// The settings of one agent.
pub(crate) struct Config {
    path: PathBuf,
    file: DocumentMut,
    env: Vec<(&'static str, String)>,
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        Self::load_with(path, &|name| std::env::var(name).ok())
    }

    fn load_with(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let broken = |why: String| ConfigError::File { path: path.to_path_buf(), why };
        let bytes = durable::read_if_there(path).map_err(|error| broken(error.to_string()))?.unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|_| broken("not UTF-8".to_owned()))?;
        let file: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| broken(error.to_string()))?;
        for (key, item) in file.iter() {
            let known = find(key)?;
            let value = plain(item).ok_or_else(|| broken(format!("{key} must be a text, a number or true/false")))?;
            check(known, &value)?;
        }
        let mut from_env = Vec::new();
        for known in KNOWN {
            if let Some(value) = env(&format!("WEFT_{}", known.key.to_uppercase())) {
                from_env.push((known.key, check(known, &value)?));
            }
        }
        Ok(Config { path: path.to_path_buf(), file, env: from_env })
    }

    /// The value in force: environment, file, default.
    pub(crate) fn get(&self, key: &str) -> Result<String, ConfigError> {
        let known = find(key)?;
        if let Some((_, value)) = self.env.iter().find(|(name, _)| *name == key) {
            return Ok(value.clone());
        }
        match self.file.get(key).and_then(plain) {
            Some(value) => check(known, &value),
            None => Ok(known.default.to_owned()),
        }
    }
    pub(crate) fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default()
    }
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.text(key) == "on"
    }
    pub(crate) fn port(&self, key: &str) -> u16 {
        self.text(key).parse().unwrap_or(0)
    }

    /// Sets a key in the file, durably.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let known = find(key)?;
        let value = check(known, value)?;
        let item = match known.kind {
            Kind::Port => toml_edit::value(value.parse::<i64>().unwrap_or(0)),
            Kind::Text | Kind::Switch => toml_edit::value(value),
        };
        // Replacing only the value keeps the comment that stands before the key.
        match self.file.get_mut(key).and_then(toml_edit::Item::as_value_mut) {
            Some(old) => {
                let decor = old.decor().clone();
                if let Some(mut new) = item.as_value().cloned() {
                    *new.decor_mut() = decor;
                    *old = new;
                }
            }
            None => {
                self.file.insert(key, item);
            }
        }
        durable::replace(&self.path, self.file.to_string().as_bytes())
            .map_err(|error| ConfigError::File { path: self.path.clone(), why: error.to_string() })
    }

    /// Every setting: key, value in force, where it comes from, what it is for.
    pub(crate) fn list(&self) -> Vec<(&'static str, String, &'static str, &'static str)> {
        KNOWN
            .iter()
            .map(|known| {
                let source = if self.env.iter().any(|(name, _)| *name == known.key) {
                    "environment"
                } else if self.file.contains_key(known.key) {
                    "config.toml"
                } else {
                    "default"
                };
                (known.key, self.text(known.key), source, known.about)
            })
            .collect()
    }
}

fn plain(item: &toml_edit::Item) -> Option<String> {
    let value = item.as_value()?;
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    value
        .as_integer()
        .map(|number| number.to_string())
        .or_else(|| value.as_bool().map(|switch| if switch { "on" } else { "off" }.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, env: &[(&str, &str)]) -> (tempfile::TempDir, Result<Config, ConfigError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let loaded = Config::load_with(&path, &find);
        (dir, loaded)
    }

    /// Environment over file over default; and every source is checked.
    #[test]
    fn sources_override_in_order() {
        let (_dir, loaded) = config("lan = false\nlan_port = 4000\n", &[("WEFT_LAN_PORT", "5000")]);
        let loaded = loaded.unwrap();
        assert!(!loaded.is_on("lan"));
        assert_eq!(loaded.port("lan_port"), 5000);
        assert_eq!(loaded.text("log"), "info");
        assert!(matches!(config("", &[("WEFT_LAN", "maybe")]).1, Err(ConfigError::Value { .. })));
    }

    /// An unknown key in the file, or given to get and set, is refused and the known ones are named.
    #[test]
    fn unknown_keys_are_errors() {
        let (_dir, loaded) = config("lan_prot = 1\n", &[]);
        let error = loaded.err().unwrap().to_string();
        assert!(error.contains("lan_prot") && error.contains("lan_port"), "{error}");
        let (_dir, loaded) = config("", &[]);
        assert!(matches!(loaded.unwrap().set("nonsense", "1"), Err(ConfigError::Unknown { .. })));
    }

    /// Setting a key keeps the comments around it, and what is set is what is read next time.
    #[test]
    fn set_keeps_comments() {
        let (dir, loaded) = config("# mine\nlan = \"on\" # always\n", &[]);
        let mut loaded = loaded.unwrap();
        loaded.set("lan", "no").unwrap();
        loaded.set("lan_port", "7000").unwrap();
        let text = std::fs::read_to_string(dir.path().join("config.toml")).unwrap();
        assert!(text.contains("# mine") && text.contains("# always") && text.contains("\"off\""), "{text}");
        let again = Config::load_with(&dir.path().join("config.toml"), &|_| None).unwrap();
        assert_eq!(again.port("lan_port"), 7000);
    }
}
