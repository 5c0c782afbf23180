//! Talking to the daemon, and starting it.
//!
//! Invariant: an agent that a command started goes on only if the command is one after which people expect that it does
//! ([`super::After`]), and it did not fail.
//! Spec: docs/using.md#which-commands-start-the-agent

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Context, Ended, term};
use crate::daemon::answer::build_id;
use crate::daemon::run;
use crate::daemon::wire::{Answer, Failure, LINE_BYTES_MAX, Request};
use crate::home::Home;
use crate::home::lock::{self, Holder};

/// A daemon must be there within this time.
const START_MAX: Duration = Duration::from_secs(15);
/// A daemon must be gone within this time.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Whether this command started the daemon.
static STARTED: AtomicBool = AtomicBool::new(false);

/// A connection to the daemon.
pub(crate) struct Client {
    reading: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a daemon that runs: where the lock of the data says that it answers, else where it should.
    fn connect(home: &Home) -> Option<Client> {
        let said = lock::said(&home.lock_file()).and_then(|holder| holder.socket);
        let stream = said
            .and_then(|socket| UnixStream::connect(socket).ok())
            .or_else(|| UnixStream::connect(home.socket()).ok())?;
        Some(Client { reading: BufReader::new(stream) })
    }

    /// Connects and learns who answers. `None`: nobody, or one that is just ending; then it has ended.
    fn greet(home: &Home) -> Result<Option<(Client, Value)>, Failure> {
        let Some(mut client) = Self::connect(home) else { return Ok(None) };
        match client.ask(&Request::Hello) {
            Ok(hello) => Ok(Some((client, hello))),
            Err(failure) => {
                let deadline = Instant::now() + STOP_MAX;
                while holder(home).is_some() {
                    if Instant::now() > deadline {
                        return Err(failure);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(None)
            }
        }
    }

    /// Connects to a daemon that runs; exit code 4 if there is none.
    pub(crate) fn running(home: &Home) -> Result<Client, Failure> {
        Self::connect(home).ok_or_else(|| match holder(home) {
            Some(holder) => unreachable_agent(home, &holder),
            None => Failure::not_running("the agent is not running; start it with `weft start`"),
        })
    }

    /// Connects; starts the daemon if there is none, and a new one in the place of an older one.
    pub(crate) fn ready(home: &Home) -> Result<Client, Failure> {
        let mut ran_before = false;
        if let Some((client, hello)) = Self::greet(home)? {
            if !is_older(&hello) {
                return Ok(client);
            }
            ran_before = true;
            term::note("the agent is of an older version; restarting it");
            shut_down(home, client)?;
        }
        spawn(home, false)?;
        // In the place of one that ran before, it goes on in any case.
        STARTED.fetch_or(!ran_before, Ordering::AcqRel);
        Self::connect(home).ok_or_else(|| Failure::new("the agent ended as soon as it started; see `weft doctor`"))
    }

    /// Asks, and gives the last answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Value, Failure> {
        self.ask_each(request, &mut |_| {})
    }

    /// Asks, gives every item to `each`, and then the last answer.
    pub(crate) fn ask_each(&mut self, request: &Request, each: &mut dyn FnMut(Value)) -> Result<Value, Failure> {
        let mut line = serde_json::to_vec(request).map_err(|error| Failure::new(error.to_string()))?;
        line.push(b'\n');
        let ended = |_| Failure::not_running("the agent ended; start it with `weft start`");
        self.reading.get_mut().write_all(&line).map_err(ended)?;
        loop {
            let mut line = Vec::new();
            let bound = LINE_BYTES_MAX as u64;
            if (&mut self.reading).take(bound).read_until(b'\n', &mut line).map_err(ended)? == 0 {
                return Err(Failure::new("the agent hung up; see `weft doctor`"));
            }
            let answer = serde_json::from_slice(&line).map_err(|_| {
                Failure::new("the agent answered in an unknown form; restart it: weft stop, weft start")
            })?;
            match answer {
                Answer::Item { item } => each(item),
                Answer::Done { value } => return Ok(value),
                Answer::Failed { message, exit, code } => return Err(Failure { message, exit, code: code.into() }),
            }
        }
    }
}

/// Whether a daemon is older than this program (or another build of the same version).
fn is_older(hello: &Value) -> bool {
    let theirs = hello.get("version").and_then(Value::as_str).unwrap_or_default();
    let parts = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    let ours = env!("CARGO_PKG_VERSION");
    match parts(theirs).cmp(&parts(ours)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => hello.get("build").and_then(Value::as_str) != Some(&build_id()),
        std::cmp::Ordering::Greater => false,
    }
}

fn spawn(home: &Home, no_lan: bool) -> Result<(), Failure> {
    home.prepare().map_err(|error| Failure::new(error.to_string()))?;
    let mut command = Command::new(std::env::current_exe()?);
    if home.moved {
        command.arg("--home").arg(&home.shown);
    }
    command.args(["start", "--foreground", "--detached"]);
    if no_lan {
        command.arg("--no-lan");
    }
    // The root, so that no file system is kept busy; its own group, so that Ctrl-C here does not end it.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    // With a heap for each thread the process would keep a quarter more of what the first import needed.
    command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_TRIM_THRESHOLD_", "131072");
    let deadline = Instant::now() + START_MAX;
    let mut child = command.spawn()?;
    while Client::greet(home)?.is_none() {
        if let Some(status) = child.try_wait()? {
            let mut why = String::new();
            if let Some(stderr) = child.stderr.as_mut() {
                stderr.take(4096).read_to_string(&mut why)?;
            }
            let why = why.trim().trim_start_matches("error: ").to_owned();
            // Another command started it at the same time, or one that was killed is not gone yet, or one was started by
            // another environment and is just coming up.
            if why.contains(run::ALREADY_RUNS) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                child = command.spawn()?;
                continue;
            }
            return Err(Failure::new(if why.is_empty() { format!("the agent ended at once ({status})") } else { why }));
        }
        if Instant::now() > deadline {
            return Err(Failure::new("the agent does not answer; see `weft doctor`"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An agent has the home, and cannot be talked to.
fn unreachable_agent(home: &Home, holder: &Holder) -> Failure {
    Failure::attention(format!(
        "an agent runs for this home ({holder}) but cannot be reached from here; try again in a moment. If it stays so, end \
         that process and start the agent anew; its log is {}",
        home.log_file().display()
    ))
}

fn shut_down(home: &Home, mut client: Client) -> Result<(), Failure> {
    client.ask(&Request::Shutdown)?;
    drop(client);
    let deadline = Instant::now() + STOP_MAX;
    while let Some(holder) = holder(home) {
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "the agent ({holder}) is still busy storing what it has; try again in a moment"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether this command started the daemon.
pub(crate) fn has_started() -> bool {
    STARTED.load(Ordering::Acquire)
}

/// Ends the daemon if this command started it.
pub(crate) fn stop_started(home: &Home) {
    if STARTED.swap(false, Ordering::AcqRel)
        && let Some(client) = Client::connect(home)
        && let Err(failure) = shut_down(home, client)
    {
        term::note(&failure.message);
    }
}

/// The daemon that has the home, whether or not it answers.
pub(crate) fn holder(home: &Home) -> Option<Holder> {
    lock::holder(&home.lock_file())
}

/// `weft start`.
pub(crate) fn start(context: &Context, no_lan: bool, foreground: bool, detached: bool) -> Ended {
    if foreground {
        if detached {
            // A session of our own: the terminal that started us may close.
            let _already_leader = rustix::process::setsid();
        }
        run::run(&context.home, &run::Options { no_lan, foreground: !detached })?;
        return Ok(0);
    }
    if let Some((client, hello)) = Client::greet(&context.home)? {
        if !is_older(&hello) {
            if context.json {
                term::say(&hello.to_string());
            } else {
                term::say(&format!("The agent runs already (process {}).", hello.get("pid").unwrap_or(&Value::Null)));
            }
            return Ok(0);
        }
        shut_down(&context.home, client)?;
    }
    spawn(&context.home, no_lan)?;
    let hello = Client::running(&context.home)?.ask(&Request::Hello)?;
    if context.json {
        term::say(&hello.to_string());
    } else {
        term::say(&format!("The agent runs (process {}).", hello.get("pid").unwrap_or(&Value::Null)));
    }
    Ok(0)
}

/// `weft stop`.
pub(crate) fn stop(context: &Context) -> Ended {
    let Some(client) = Client::connect(&context.home) else {
        if let Some(holder) = holder(&context.home) {
            return Err(unreachable_agent(&context.home, &holder));
        }
        term::say("The agent is not running.");
        return Ok(0);
    };
    shut_down(&context.home, client)?;
    term::say("The agent has stopped.");
    Ok(0)
}
