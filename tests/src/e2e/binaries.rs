//! The programs under test, built with the profile of the test that runs them.
//!
//! Cargo builds the binaries of other packages for no test, so the first test of a run asks it to. When everything is
//! built already (after `cargo test --workspace`, say), that takes a moment.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The agent, `weft`.
    pub weft: PathBuf,
    /// The relay, `weft-relay`.
    pub relay: PathBuf,
}

/// Builds them once a process. `WEFT_BIN_DIR` names a folder with both, for programs built elsewhere (release, musl).
pub fn binaries() -> Result<&'static Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<Binaries> {
    if let Some(folder) = std::env::var_os("WEFT_BIN_DIR") {
        return found(Path::new(&folder));
    }
    let folder = profile_folder()?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => return Err(anyhow!("this program is in no target folder")),
    };
    let target = folder.parent().context("the target folder has no parent")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--bin", "weft", "--bin", "weft-relay", "--profile", profile, "--target-dir"])
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .context("cargo cannot be started")?;
    ensure!(output.status.success(), "the binaries do not build:\n{}", String::from_utf8_lossy(&output.stderr));
    found(&folder)
}

fn found(folder: &Path) -> Result<Binaries> {
    let binaries = Binaries {
        weft: folder.join(format!("weft{}", std::env::consts::EXE_SUFFIX)),
        relay: folder.join(format!("weft-relay{}", std::env::consts::EXE_SUFFIX)),
    };
    for path in [&binaries.weft, &binaries.relay] {
        ensure!(path.is_file(), "{} is not there", path.display());
    }
    Ok(binaries)
}

/// The folder of this program's profile: `target/ci` for `target/ci/deps/e2e_story-…` and for `target/ci/bench_…`.
fn profile_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let folder = program.parent().context("this program is in no folder")?;
    if folder.file_name().is_some_and(|name| name == "deps") {
        return Ok(folder.parent().context("deps is in no folder")?.to_path_buf());
    }
    Ok(folder.to_path_buf())
}
