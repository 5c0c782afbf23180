//! Folders that are never shared, whatever is asked.
//!
//! Invariant: refused before anything is written. Why: a home folder holds keys and caches; one workspace inside
//! another would sync its own marker.

use std::path::{Path, PathBuf};

use super::marker;

/// Why a folder is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("{} is the whole file system; choose a folder in it", .0.display())]
    Root(PathBuf),
    #[error("{} is a home folder; choose a folder in it", .0.display())]
    Home(PathBuf),
    #[error("{} holds .ssh, and private keys are not for sharing; choose another folder", .0.display())]
    Keys(PathBuf),
    #[error("{} lies inside the workspace {}; one workspace cannot hold another", inner.display(), outer.display())]
    Nested { inner: PathBuf, outer: PathBuf },
    #[error("{} holds the agent's own data; choose another folder", .0.display())]
    Agent(PathBuf),
    #[error("{} is not a folder", .0.display())]
    NotFolder(PathBuf),
}

/// Checks a canonical path. `agent` are folders of the agent itself.
pub(crate) fn check(path: &Path, user_home: Option<&Path>, agent: &[PathBuf]) -> Result<(), Refusal> {
    if path.parent().is_none() {
        return Err(Refusal::Root(path.to_path_buf()));
    }
    if path.exists() && !path.is_dir() {
        return Err(Refusal::NotFolder(path.to_path_buf()));
    }
    if user_home.is_some_and(|home| home == path || home.starts_with(path)) {
        return Err(Refusal::Home(path.to_path_buf()));
    }
    if path.join(".ssh").exists() {
        return Err(Refusal::Keys(path.to_path_buf()));
    }
    if agent.iter().any(|own| own.starts_with(path) || path.starts_with(own)) {
        return Err(Refusal::Agent(path.to_path_buf()));
    }
    for outer in path.ancestors().skip(1) {
        if outer.join(marker::DIR).join("marker.toml").exists() {
            return Err(Refusal::Nested { inner: path.to_path_buf(), outer: outer.to_path_buf() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Each kind of folder that must never be shared is refused by name; an ordinary one is not.
    #[test]
    fn dangerous_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let home = root.join("home/ann");
        fs::create_dir_all(home.join("notes/deep")).unwrap();
        fs::create_dir_all(home.join("secret/.ssh")).unwrap();
        let check = |path: &Path| check(path, Some(&home), &[home.join("agent")]);
        assert!(matches!(check(Path::new("/")), Err(Refusal::Root(_))));
        assert!(matches!(check(&home), Err(Refusal::Home(_))));
        assert!(matches!(check(&root.join("home")), Err(Refusal::Home(_))), "above the home folder is worse");
        assert!(matches!(check(&home.join("secret")), Err(Refusal::Keys(_))));
        assert!(matches!(check(&home.join("agent/x")), Err(Refusal::Agent(_))));
        assert_eq!(check(&home.join("notes")), Ok(()));
        fs::create_dir(home.join("notes/.weft")).unwrap();
        fs::write(home.join("notes/.weft/marker.toml"), "").unwrap();
        assert!(matches!(check(&home.join("notes/deep")), Err(Refusal::Nested { .. })));
    }
}
