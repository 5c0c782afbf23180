//! A configuration file, and what is wrong with one: the line and the key, never a value.
//!
//! Invariant: no text made here holds a value of the file. Why: a file holds secrets, what is wrong with it goes to a log,
//! and a parser's own message shows the line, with the good key that stands beside the bad one.
//! Spec: docs/operating.md#configure-it.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Options;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    line: usize,
    key: Option<String>,
    problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.problem)
    }
}

fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The options in the text of a file.
pub(super) fn parse(text: &str) -> Result<Options, Fault> {
    let table = DeTable::parse(text).map_err(|error| {
        // What the grammar misses; such a message quotes signs of TOML and nothing else.
        let line = line(text, error.span().map_or(0, |span| span.start));
        Fault { line, key: None, problem: format!("this is no TOML: {}", error.message()) }
    })?;
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let entry = table.get_ref().iter().find(|(key, value)| key.span().contains(&at) || value.span().contains(&at));
        let at = entry.and_then(|(key, value)| bad_element(text, key.get_ref(), value.get_ref())).unwrap_or(at);
        let key = entry.map(|(key, _)| key.get_ref().to_string());
        Fault { line: line(text, at), key, problem: without_value(error.message()) }
    })
}

/// Where in a list the entry begins that cannot be taken: an error tells only where the list does.
fn bad_element(text: &str, key: &str, value: &DeValue<'_>) -> Option<usize> {
    let bad = |element: &&Spanned<DeValue<'_>>| {
        let alone = text.get(element.span()).map(|alone| format!("{key} = [{alone}]"));
        alone.is_some_and(|alone| toml::from_str::<Options>(&alone).is_err())
    };
    Some(value.as_array()?.iter().find(bad)?.span().start)
}

/// The line on which a file sets `key`.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let found = table.get_ref().keys().find(|found| found.get_ref() == key)?;
    Some(line(text, found.span().start))
}

/// What is expected, in the place of a message that shows what was found (`invalid type: string "…", expected …`).
fn without_value(message: &str) -> String {
    if message.starts_with("unknown field") {
        return "there is no such option: `weft-relay --help` lists them".to_owned();
    }
    let shows_value = ["invalid type", "invalid value", "invalid length", "unknown variant"]
        .iter()
        .any(|begin| message.starts_with(begin));
    if !shows_value {
        return message.to_owned();
    }
    // The last one: the value may hold these words too.
    match message.rsplit_once(", expected ").map(|(_, expected)| expected) {
        Some("u64") => "a whole number is needed".to_owned(),
        Some("a sequence") => "a list like [\"…\", \"…\"] is needed".to_owned(),
        Some(expected) => format!("{expected} is needed"),
        None => "a value of another kind is needed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_told_by_line_and_key() {
        for (text, expected) in [
            ("listen = \"127.0.0.1:1\"\nlisten_on = 1\n", "line 2: listen_on: there is no such option"),
            ("\n\nroom_peers_max = 1\n", "line 3: room_peers_max: a number from 2 to 4096 is needed"),
            ("room_peers_max = -1\n", "line 1: room_peers_max: a whole number is needed"),
            ("public_urls = [\"relay.example\"]\n", "line 1: public_urls: a relay address begins with ws://, wss://"),
            ("token_keys = [\n\"abc\"]\n", "line 2: token_keys: a token key is 64 hexadecimal digits"),
            ("trusted_proxies = [\"10.0.0.0/99\"]", "line 1: trusted_proxies: an address or a network like 10.0.0.0/8"),
            ("allow_dids = [\"alice\"]", "line 1: allow_dids: a DID like did:plc"),
            ("log_format = \"xml\"", "line 1: log_format: `text` or `json` is needed"),
            ("listen = \"here\"", "line 1: listen: invalid socket address syntax"),
            ("listen = ", "line 1: this is no TOML: "),
            ("auth_token = 'a secret of length", "line 1: this is no TOML: "),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{text:?}: {fault}");
        }
        assert_eq!(line_of("listen = \"a\"\n\nnats = []\n", "nats"), Some(3));
        assert_eq!(line_of("listen = \"a\"\n", "nats"), None);
    }

    /// Whatever is wrong with a value, beside it or in its shape: what is told holds neither it nor its neighbours.
    #[test]
    fn no_value_is_told() {
        let good = "5ec2e7".repeat(11)[..64].to_owned();
        // A path is told: it is what to look at.
        for key in Options::KEYS.iter().filter(|key| !key.ends_with("_file")) {
            for value in [
                format!("\"{good}\""),
                format!("[\"{good}\", \"5ec2e7-bad\"]"),
                format!("[[\"{good}\"]]"),
                format!("{{ a = \"{good}\" }}"),
                format!("\"{good}, expected {good}\""),
                format!("[\"{good}\", 5]"),
                "52768".to_owned(),
                "5.2768".to_owned(),
                "true".to_owned(),
                format!("\"{good}"),
                format!("'{good}' {good}"),
                good.clone(),
                format!("[\"{good}\"\n\"5ec2e7\"]"),
            ] {
                let text = format!("# {good}\n{key} = {value}\n");
                let told = match parse(&text) {
                    Err(fault) => fault.to_string(),
                    Ok(options) => match options.to_config() {
                        Err(error) => error.to_string(),
                        Ok(_) => continue,
                    },
                };
                assert!(!told.contains("5ec2e7") && !told.contains("2768"), "{text}{told}");
            }
        }
    }
}
