//! The identity file: who this agent is, for its owner's eyes only.
//!
//! Invariant: created once, durable before first use, mode 0600; never replaced because it could not be read. Why: a
//! second identity in its place would lose access to every workspace.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weft_agent_core::identity::LocalIdentity;
use zeroize::Zeroizing;

use crate::durable;
use crate::engine::OsRandom;

/// Reads the identity, or makes one with this display name on first use. A name given later replaces the name.
pub(crate) fn load_or_create(path: &Path, name: Option<&str>) -> anyhow::Result<LocalIdentity> {
    if let Some(mut identity) = load(path)? {
        if let Some(name) = name.filter(|name| *name != identity.name) {
            identity.name = name.to_owned();
            durable::replace(path, &Zeroizing::new(identity.to_bytes().to_vec()))?;
        }
        return Ok(identity);
    }
    let name = name.map_or_else(user_name, str::to_owned);
    let identity = LocalIdentity::generate(&mut OsRandom, &name, &host_label());
    durable::create_new(path, &Zeroizing::new(identity.to_bytes().to_vec()))?;
    Ok(identity)
}

/// Reads the identity, if there is one.
pub(crate) fn load(path: &Path) -> anyhow::Result<Option<LocalIdentity>> {
    let Some(bytes) = durable::read_if_there(path)?.map(Zeroizing::new) else { return Ok(None) };
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        tracing::warn!("the identity file was readable by others; it is closed to them now");
    }
    let identity = LocalIdentity::from_bytes(&bytes).map_err(|_| {
        anyhow::anyhow!(
            "{} is damaged; restore it from a backup, or move it away and join your workspaces again",
            path.display()
        )
    })?;
    Ok(Some(identity))
}

/// The operating system's name for the person.
pub(crate) fn user_name() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|key| std::env::var(key).ok().filter(|name| !name.trim().is_empty()))
        .or_else(|| account(&std::fs::read_to_string("/etc/passwd").ok()?, rustix::process::getuid().as_raw()))
        .unwrap_or_else(|| "someone".to_owned())
}

/// The account's name in a list of accounts; services and containers often have it nowhere else.
fn account(list: &str, user: u32) -> Option<String> {
    let user = user.to_string();
    list.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next().filter(|name| !name.is_empty())?;
        (parts.nth(1) == Some(user.as_str())).then(|| name.to_owned())
    })
}

/// The label of this device: the host's name without its domain.
pub(crate) fn host_label() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let short = host.split('.').next().unwrap_or_default().trim().to_owned();
    if short.is_empty() { "device".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name is found by the user's number, whatever else is in the list.
    #[test]
    fn an_account_is_found_by_its_number() {
        let list = "root:x:0:0:root:/root:/bin/sh\n\n:x:7:7\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
        assert_eq!(account(list, 1000).as_deref(), Some("ann"));
        assert_eq!(account(list, 0).as_deref(), Some("root"));
        assert_eq!(account(list, 7), None);
    }
}
