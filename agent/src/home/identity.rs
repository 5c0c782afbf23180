//! The identity file: who this agent is, for its owner's eyes only.
//!
//! Invariant: created once, durable before first use, mode 0600; never replaced because it could not be read. Why: a
//! second identity in its place would lose access to every workspace.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weft_agent_core::identity::{DeviceCert, LocalIdentity};
use zeroize::Zeroizing;

use crate::durable;
use crate::engine::OsRandom;
use crate::home::Home;

/// Reads the identity, or makes one with this display name on first use. A name given later replaces the name.
pub(crate) fn load_or_create(path: &Path, name: Option<&str>) -> anyhow::Result<LocalIdentity> {
    if let Some(mut identity) = load(path)? {
        if let Some(name) = name.filter(|name| *name != identity.name) {
            identity.name = name.to_owned();
            save(path, &identity)?;
        }
        return Ok(identity);
    }
    let name = name.map_or_else(user_name, str::to_owned);
    let identity = LocalIdentity::generate(&mut OsRandom, &name, &host_label());
    durable::create_new(path, &identity.to_bytes())?;
    Ok(identity)
}

/// Keeps an identity, durably; what stood there before is written over.
pub(crate) fn save(path: &Path, identity: &LocalIdentity) -> std::io::Result<()> {
    durable::replace_erasing(path, &identity.to_bytes())
}

/// Who this agent is, also while it waits to be let in as a device.
pub(crate) fn current(home: &Home) -> anyhow::Result<Option<LocalIdentity>> {
    match load(&home.identity_file())? {
        Some(identity) => Ok(Some(identity)),
        None => load(&home.pairing_file()),
    }
}

/// This device was let in as one of the member that `cert` names: keeps that.
pub(crate) fn take_certificate(home: &Home, cert: &DeviceCert, name: &str) -> anyhow::Result<()> {
    let Some(identity) = current(home)? else { anyhow::bail!("the identity file is gone; restore it from a backup") };
    let known = identity.root_public == cert.root() && identity.name == name;
    if !known {
        // One that was certified before keeps its certificate: it may be by the root, which is worth more.
        let cert = if identity.root_public == cert.root() { &identity.cert } else { cert };
        let certified = identity.certified(cert.clone(), name);
        let certified = certified.ok_or_else(|| anyhow::anyhow!("the certificate is another device's"))?;
        save(&home.identity_file(), &certified)?;
    }
    Ok(durable::remove_erasing(&home.pairing_file())?)
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

    /// The keys of a device that was let in become the identity, once; an identity that is there already only learns its
    /// name, and another device's certificate changes nothing.
    #[test]
    fn keys_that_were_certified_become_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(dir.path())).unwrap();
        home.prepare().unwrap();
        let ada = LocalIdentity::generate(&mut OsRandom, "ada", "desk");
        let phone = LocalIdentity::provisional(&mut OsRandom, "someone", "phone");
        save(&home.pairing_file(), &phone).unwrap();
        assert!(load(&home.identity_file()).unwrap().is_none());
        assert_eq!(current(&home).unwrap().unwrap().device.id(), phone.device.id());
        assert!(take_certificate(&home, &ada.cert, "ada").is_err());
        let cert = DeviceCert::by_device(&ada.device, ada.root_public, phone.device.public());
        for name in ["ada", "ada", "ada l."] {
            take_certificate(&home, &cert, name).unwrap();
            let kept = load(&home.identity_file()).unwrap().unwrap();
            assert_eq!((kept.root_public, kept.name.as_str(), kept.label.as_str()), (ada.root_public, name, "phone"));
        }
        assert!(!home.pairing_file().exists());
    }
}
