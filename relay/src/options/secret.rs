//! Secrets in files of their own: what container runtimes mount (`/run/secrets/…`), and what a unit keeps at mode 0600.
//!
//! Invariant: a secret stands in one place, the option or its file, and what is wrong with the file is told by key, path and
//! line, never by what it holds. Spec: docs/operating.md#secrets.

use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use super::OptionsError;

/// Bytes of such a file: some keys or URLs. More is another file.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// The option, or what its file holds: entries in lines, or with commas between them.
pub(super) fn list<T: FromStr<Err = String>>(
    key: &'static str,
    said: Option<Vec<T>>,
    file_key: &'static str,
    file: Option<&Path>,
) -> Result<Option<Vec<T>>, OptionsError> {
    let Some(path) = file else { return Ok(said) };
    let conflict = |problem| OptionsError::Conflict { key: file_key, problem };
    if said.is_some() {
        return Err(conflict(format!("{key} is set too: keep one of them")));
    }
    let text = read(path).map_err(|problem| conflict(format!("{}: {problem}", path.display())))?;
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let entry =
                entry.parse().map_err(|problem| conflict(format!("{}: line {}: {problem}", path.display(), at + 1)))?;
            entries.push(entry);
        }
    }
    if entries.is_empty() {
        return Err(conflict(format!("{}: the file is empty", path.display())));
    }
    Ok(Some(entries))
}

/// The option, or the one line of its file.
pub(super) fn one<T: FromStr<Err = String>>(
    key: &'static str,
    said: Option<T>,
    file_key: &'static str,
    file: Option<&Path>,
) -> Result<Option<T>, OptionsError> {
    let Some(path) = file else { return Ok(said) };
    let conflict = |problem: String| OptionsError::Conflict { key: file_key, problem };
    if said.is_some() {
        return Err(conflict(format!("{key} is set too: keep one of them")));
    }
    let text = read(path).map_err(|problem| conflict(format!("{}: {problem}", path.display())))?;
    text.trim().parse().map(Some).map_err(|problem| conflict(format!("{}: {problem}", path.display())))
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err("is too long for a file with secrets".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::value::{Secret, TokenKey};

    #[test]
    fn entries_come_from_lines_and_what_is_wrong_is_told_without_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (old, new) = ("0a".repeat(32), "0b".repeat(32));
        let read = || list::<TokenKey>("token_keys", None, "token_keys_file", Some(&path)).map(Option::unwrap);
        std::fs::write(&path, format!("{old}\r\n\n {new} \n")).unwrap();
        assert_eq!(read().unwrap(), [TokenKey([0x0a; 32]), TokenKey([0x0b; 32])]);
        std::fs::write(&path, format!("{old},{new}")).unwrap();
        assert_eq!(read().unwrap().len(), 2);
        for (text, words) in [
            (format!("{old}\n0b0b\n"), "line 2: a token key is 64 hexadecimal digits"),
            ("\n".to_owned(), "the file is empty"),
            ("x".repeat(70_000), "too long"),
        ] {
            std::fs::write(&path, text).unwrap();
            let told = read().unwrap_err().to_string();
            assert!(told.starts_with("token_keys_file: ") && told.contains(words), "{told}");
            assert!(told.contains(path.to_str().unwrap()) && !told.contains("0b0b") && !told.contains(&old), "{told}");
        }
        std::fs::remove_file(&path).unwrap();
        let told = read().unwrap_err().to_string();
        assert_eq!(told.matches(path.to_str().unwrap()).count(), 1, "{told}");

        std::fs::write(&path, "a secret with, a comma\n").unwrap();
        let secret = one::<Secret>("nats_token", None, "nats_token_file", Some(&path)).unwrap().unwrap();
        assert_eq!(secret.0, "a secret with, a comma");
        let both = one("nats_token", Some(secret), "nats_token_file", Some(&path)).unwrap_err().to_string();
        assert!(both.contains("nats_token is set too"), "{both}");
    }
}
