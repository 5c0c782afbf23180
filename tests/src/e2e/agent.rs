//! One person at one computer: a home, a daemon, and folders.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::binaries::binaries;
use super::process::Process;
use super::wait::{SHORT, wait};

/// How long any command may take that has no deadline of its own. `join` itself waits up to 20 s for somebody.
const COMMAND: Duration = Duration::from_secs(90);

/// A person with a running agent; killed when dropped.
pub struct Agent {
    name: String,
    home: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    as_user: Option<u32>,
    program: PathBuf,
    restarts: u32,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Fails, with everything it wrote, unless it ended with `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "exit code {} instead of {code}\n{}\n{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }
    /// Standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:?}"))
    }
}

/// One workspace of `weft status --json`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// A number at a JSON pointer below the workspace; 0 if it is not there.
    #[must_use]
    pub fn number(&self, pointer: &str) -> u64 {
        self.0.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }
    /// Whether there is nothing to send, receive, write or look at.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.0.get("settled").and_then(Value::as_bool).unwrap_or(false)
    }
    /// Where the workspace is in its life, in lower case.
    #[must_use]
    pub fn state(&self) -> String {
        self.0.get("state").and_then(Value::as_str).unwrap_or_default().to_lowercase()
    }
    /// How many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.0.get("members").and_then(Value::as_array).map_or(0, Vec::len)
    }
    /// How many peers are reachable now.
    #[must_use]
    pub fn connected_peers(&self) -> usize {
        let peers = self.0.get("peers").and_then(Value::as_array);
        peers.map_or(0, |peers| peers.iter().filter(|peer| peer.get("connected") == Some(&Value::Bool(true))).count())
    }
}

impl Agent {
    /// Starts an agent whose home, folder and log are below `root`, and waits until it answers.
    pub fn start(root: &Path, name: &str) -> Result<Self> {
        Self::prepare(root, name, None)?.started()
    }

    /// As [`Agent::start`], but as another user of this computer (needs root). For what root may do and people may not.
    pub fn start_as(root: &Path, name: &str, user: u32) -> Result<Self> {
        Self::prepare(root, name, Some(user))?.started()
    }

    /// A home without a daemon: whatever command needs one starts it by itself; end it with [`Agent::end_background`].
    pub fn idle(root: &Path, name: &str) -> Result<Self> {
        Self::prepare(root, name, None)
    }

    fn prepare(root: &Path, name: &str, as_user: Option<u32>) -> Result<Self> {
        let base = root.join(name);
        let (home, folder) = (base.join("h"), base.join("notes"));
        std::fs::create_dir_all(&home).context("no home")?;
        std::fs::create_dir_all(&folder).context("no folder")?;
        let mut program = binaries()?.weft.clone();
        if let Some(user) = as_user {
            // The build folder may be closed to that user, and so may be the stage.
            let copy = base.join("weft");
            std::fs::copy(&program, &copy).context("the program cannot be copied")?;
            program = copy;
            open_to(root, user)?;
            for path in [&base, &home, &folder] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).context("chown")?;
            }
        }
        let log = root.join(format!("{name}.log"));
        Ok(Self { name: name.to_owned(), home, folder, log, process: None, as_user, program, restarts: 0 })
    }

    fn started(mut self) -> Result<Self> {
        self.revive()?;
        Ok(self)
    }

    /// Starts the daemon (again) in the foreground of a child process, and waits until it answers.
    pub fn revive(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let mut command = self.command();
        command.args(["start", "--foreground"]);
        let mut process = Process::spawn(command, &self.log)?;
        self.restarts += 1;
        wait("the agent to answer", SHORT, || {
            if let Some(status) = process.ended()? {
                bail!("the agent of {} ended with {status}:\n{}", self.name, process.output());
            }
            Ok((self.run(["status", "--json"])?.code != 4).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// kill -9 of the daemon.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => bail!("{} does not run", self.name),
        }
    }

    /// `weft stop`, and waits until the daemon has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.run(["stop"])?.expect_code(0)?;
        if let Some(mut process) = self.process.take() {
            wait("the agent to end after weft stop", SHORT, || process.ended())?;
        }
        Ok(())
    }

    /// Display name of the member.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What `WEFT_HOME` is for this agent.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
    /// The folder that is shared.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The daemon's process id, if this guard started it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// `weft` with this agent's home, from the stage, without arguments yet.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // What the developer's shell has set is not this test's configuration.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        command.env("WEFT_HOME", &self.home).env("WEFT_LAN", "off").env("WEFT_KEYCHAIN", "off").env("HOME", &self.home);
        command.current_dir(&self.home);
        if let Some(user) = self.as_user {
            use std::os::unix::process::CommandExt as _;
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs a command to its end; fails if it takes longer than any should.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        let mut command = self.command();
        command.args(args);
        run(command, COMMAND)
    }

    /// Runs a command with `input` on its standard input.
    pub fn run_input<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &str) -> Result<Ran> {
        let mut command = self.command();
        command.args(args);
        run_with(command, Some(input), COMMAND)
    }

    /// Runs a command about this agent's folder.
    pub fn run_here<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        let mut command = self.command();
        command.arg("-C").arg(&self.folder).args(args);
        run(command, COMMAND)
    }

    /// `weft init` of the folder, named `notes`, with these relays.
    pub fn init(&self, relays: &[&str]) -> Result<()> {
        let mut command = self.command();
        command.arg("init").arg(&self.folder).args(["--name", "notes", "--as", &self.name, "--yes"]);
        for relay in relays {
            command.args(["--relay", relay]);
        }
        run(command, COMMAND)?.expect_code(0)?;
        Ok(())
    }

    /// A link for one more writer.
    pub fn invite(&self) -> Result<String> {
        let ran = self.run_here(["invite", "--json"])?.expect_code(0)?;
        let link = ran.json()?.get("link").and_then(Value::as_str).map(str::to_owned);
        link.ok_or_else(|| anyhow!("no link in {}", ran.stdout))
    }

    /// `weft join`; done when the workspace is joined, or when it says that nobody answers yet.
    pub fn join(&self, link: &str) -> Result<()> {
        self.join_merging(link, false)
    }

    /// `weft join` of a folder that may hold files already (`--merge`).
    pub fn join_merging(&self, link: &str, merge: bool) -> Result<()> {
        let mut command = self.command();
        command.arg("join").arg(link).arg(&self.folder).args(["--as", &self.name]);
        if merge {
            command.arg("--merge");
        }
        run(command, COMMAND)?.expect_code(0)?;
        Ok(())
    }

    /// The workspace of this agent's folder as `weft status --json` shows it.
    pub fn status(&self) -> Result<Status> {
        let ran = self.run(["status", "--json"])?;
        let all = ran.json()?;
        let workspaces =
            all.get("workspaces").and_then(Value::as_array).ok_or_else(|| anyhow!("no workspaces: {all}"))?;
        let folder = self.folder.to_string_lossy();
        let mine = workspaces.iter().find(|one| one.get("path").and_then(Value::as_str) == Some(folder.as_ref()));
        mine.cloned().map(Status).ok_or_else(|| anyhow!("{folder} is not among {all}"))
    }

    /// Why it is not settled, or `None` if it is.
    pub fn not_settled(&self) -> Result<Option<String>> {
        let status = self.status()?;
        let there = status.settled() && status.state() == "active";
        Ok((!there).then(|| format!("{}: {}", self.name, status.0)))
    }

    /// Waits until at least `peers` others are reachable.
    pub fn wait_connected(&self, peers: usize) -> Result<()> {
        wait("peers to be connected", super::wait::LONG, || {
            Ok((self.status()?.connected_peers() >= peers).then_some(()))
        })
        .with_context(|| self.report())
    }

    /// `weft flush`: done when at least one peer holds all that was edited here.
    pub fn flush(&self) -> Result<()> {
        self.run_here(["flush", "--timeout", "60s"])?.expect_code(0)?;
        Ok(())
    }

    /// Ends a daemon that a command started by itself, and waits until it answers no more.
    pub fn end_background(&self) -> Result<()> {
        let ran = self.run(["stop"])?;
        ensure!(ran.code == 0 || ran.code == 4, "weft stop: {ran:?}");
        wait("the background agent to end", SHORT, || Ok((self.run(["status", "--json"])?.code == 4).then_some(())))
    }

    /// Writes a file of the folder as a program would that knows nothing of editors.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let at = self.folder.join(path);
        if let Some(parent) = at.parent() {
            std::fs::create_dir_all(parent).context("no folder for the file")?;
        }
        std::fs::write(&at, bytes).with_context(|| format!("{path} cannot be written"))
    }

    /// The text of a file of the folder.
    pub fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.folder.join(path)).with_context(|| format!("{path} of {}", self.name))
    }

    /// Its status and the end of its log, for a failing test.
    #[must_use]
    pub fn report(&self) -> String {
        let status = self.status().map_or_else(|error| format!("{error:#}"), |status| status.0.to_string());
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.iter().rev().take(30).rev().copied().collect::<Vec<_>>().join("\n");
        format!("status: {status}\nlog:\n{tail}")
    }
}

/// Lets `user` pass through the stage's folder.
fn open_to(root: &Path, user: u32) -> Result<()> {
    std::os::unix::fs::chown(root, Some(user), Some(user)).context("the stage cannot be given to another user")
}

/// Runs a command to its end with a deadline, its output read as it comes so that no full pipe can stop it.
pub(super) fn run(command: Command, deadline: Duration) -> Result<Ran> {
    run_with(command, None, deadline)
}

/// As [`run`], with a few bytes on standard input.
fn run_with(mut command: Command, input: Option<&str>, deadline: Duration) -> Result<Ran> {
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes()).context("a command does not read its input")?;
    }
    let stdout = child.stdout.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes)
        })
    });
    let stderr = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes)
        })
    });
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().context("a command cannot be waited for")? {
            break status;
        }
        if Instant::now() > end {
            child.kill().context("a command cannot be killed")?;
            child.wait().context("a command cannot be waited for")?;
            bail!("{command:?} took more than {} s", deadline.as_secs());
        }
        // Between two looks only.
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = |reader: Option<std::thread::JoinHandle<std::io::Result<Vec<u8>>>>| -> Result<String> {
        let Some(reader) = reader else { return Ok(String::new()) };
        let bytes = reader.join().map_err(|_| anyhow!("a reader panicked"))?.context("a pipe broke")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Ran { code: status.code().unwrap_or(-1), stdout: text(stdout)?, stderr: text(stderr)? })
}
