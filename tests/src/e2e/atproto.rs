//! The reference servers of the AT Protocol (a PDS and a PLC directory) as a child process, with accounts made on demand.
//!
//! The programs come from npm, into the target folder, once. Node 20 and npm are needed: without them this fails, it does not
//! pass. The relay's own tests include this file too, so it needs nothing but the standard library, `anyhow` and
//! `serde_json`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const PACKAGE: &str = include_str!("../../atproto/package.json");
const SCRIPT: &str = include_str!("../../atproto/serve.mjs");

fn npm(folder: &Path, args: &[&str]) -> Result<bool> {
    let ran = Command::new("npm").args(args).current_dir(folder).stdout(Stdio::null()).stdin(Stdio::null()).status();
    Ok(ran.context("npm is needed to install the reference servers: install Node 20")?.success())
}

/// The folder with the reference servers: `tmp/atproto` of the target folder that this program is in.
fn installed() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    // target/PROFILE/deps/NAME-HASH
    let deps = program.ancestors().find(|above| above.file_name().is_some_and(|name| name == "deps"));
    let target = deps.and_then(Path::parent).and_then(Path::parent).context("no target folder")?;
    let folder = target.join("tmp/atproto");
    std::fs::create_dir_all(&folder)?;
    // Tests that run at the same time install once.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    std::fs::write(folder.join("serve.mjs"), SCRIPT)?;
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|of| of == PACKAGE) {
        return Ok(folder);
    }
    std::fs::write(folder.join("package.json"), PACKAGE)?;
    ensure!(npm(&folder, &["install", "--ignore-scripts", "--no-audit", "--no-fund"])?, "npm install failed");
    // Newer npm runs no script that was not approved; older ones do not know the word.
    npm(&folder, &["install-scripts", "approve", "better-sqlite3"])?;
    ensure!(npm(&folder, &["rebuild", "better-sqlite3"])?, "better-sqlite3 could not be built");
    std::fs::write(mark, PACKAGE)?;
    Ok(folder)
}

/// An account at the PDS.
#[derive(Debug, Clone)]
pub struct AtAccount {
    /// Its `did:plc`.
    pub did: String,
    /// Its handle, `NAME.test`.
    pub handle: String,
    /// An app password.
    pub password: String,
    /// A session's token, for requests that a test makes itself.
    pub access: String,
}

/// The running servers; they end with this guard.
pub struct AtNetwork {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    plc: String,
    pds: String,
}

impl Drop for AtNetwork {
    fn drop(&mut self) {
        // The end of its input has it tidy up.
        self.input = None;
        drop(self.child.wait());
    }
}

impl AtNetwork {
    /// Installs them if needed, starts them and waits until they serve.
    pub fn start() -> Result<Self> {
        let mut child = Command::new("node")
            .arg("serve.mjs")
            .current_dir(installed()?)
            .env("LOG_ENABLED", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node is needed to run the reference servers: install Node 20")?;
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut network = Self { child, input, lines, plc: String::new(), pds: String::new() };
        let ready = network.line("plc")?;
        (network.plc, network.pds) = (text(&ready, "plc")?, text(&ready, "pds")?);
        Ok(network)
    }

    /// The next line of JSON that has `key`; the servers log between them.
    fn line(&mut self, key: &str) -> Result<Value> {
        for line in self.lines.by_ref() {
            let line = line.context("the reference servers hung up")?;
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value.get(key).is_some()
            {
                return Ok(value);
            }
        }
        bail!("the reference servers ended")
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        writeln!(self.input.as_mut().context("no input")?, "{command}").context("the reference servers hung up")?;
        let mut line = self.line("answer")?;
        let answer = line.get_mut("answer").map(Value::take).unwrap_or_default();
        ensure!(answer.get("failed").is_none(), "{command}: {answer}");
        Ok(answer)
    }

    /// URL of the PLC directory.
    #[must_use]
    pub fn plc(&self) -> &str {
        &self.plc
    }

    /// URL of the PDS.
    #[must_use]
    pub fn pds(&self) -> &str {
        &self.pds
    }

    /// A new account with an app password.
    pub fn account(&mut self, name: &str) -> Result<AtAccount> {
        let made = self.ask(&format!("account {name}"))?;
        let of = |key: &str| text(&made, key);
        Ok(AtAccount { did: of("did")?, handle: of("handle")?, password: of("password")?, access: of("access")? })
    }

    /// Gives an account another signing key, at its PDS and in the PLC directory.
    pub fn rotate(&mut self, did: &str) -> Result<()> {
        self.ask(&format!("rotate {did}")).map(drop)
    }

    /// Takes an account's app password back, which ends its sessions.
    pub fn revoke(&mut self, did: &str) -> Result<()> {
        self.ask(&format!("revoke {did}")).map(drop)
    }

    /// Ends the PDS; the PLC directory goes on.
    pub fn stop_pds(&mut self) -> Result<()> {
        self.ask("stop-pds").map(drop)
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}
