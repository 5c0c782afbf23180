//! `weft demo`: the whole thing on one machine, in seconds, with nothing left behind.
//!
//! A relay in this process, two agents of their own in a temporary folder, and between them and the relay a tap that
//! keeps what passes, so that what the relay saw can be shown.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_protocol::admission::Audience;
use weft_relay::{Config, Server};

use super::Ended;
use super::question::{self, Listening};
use super::status::{list, text};
use super::term::{self, Style, paint};
use crate::daemon::wire::Failure;

/// Everything must be done in this time.
const DEMO_MAX: Duration = Duration::from_secs(60);
/// Bytes the tap keeps.
const TAP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The file everybody edits.
const NOTE: &str = "plan.md";
const FIRST: &str = "# Harvest\n\nApples first.\n\nPears when the rain is over.\n";
const ANN: &str = "# Harvest festival\n\nApples first.\n\nPears when the rain is over.\n";
const BOB: &str = "# Harvest\n\nApples first.\n\nPears when the rain is over, and plums.\n";

type Tap = Arc<Mutex<Vec<u8>>>;

struct Agent {
    name: &'static str,
    home: PathBuf,
    folder: PathBuf,
}

impl Agent {
    fn new(base: &Path, name: &'static str) -> std::io::Result<Agent> {
        let agent = Agent { name, home: base.join(format!("{name}-home")), folder: base.join(name).join("notes") };
        std::fs::create_dir_all(&agent.folder)?;
        Ok(agent)
    }

    fn run(&self, args: &[&str]) -> Result<Output, Failure> {
        let program = std::env::current_exe()?;
        Ok(Command::new(program)
            .args(["--home".as_ref(), self.home.as_os_str(), "-C".as_ref(), self.folder.as_os_str()])
            .args(args)
            .env_remove("WEFT_HOME")
            .env("WEFT_LAN", "off")
            .env("WEFT_DEFAULT_RELAY", "")
            .output()?)
    }

    fn must(&self, args: &[&str]) -> Result<String, Failure> {
        let output = self.run(args)?;
        if !output.status.success() {
            let what = args.first().copied().unwrap_or_default();
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("weft {what} failed: {}", why.trim().trim_start_matches("error: "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn status(&self) -> Result<Value, Failure> {
        let output = self.run(&["status", "--json"])?;
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Ok(list(&all, "workspaces").first().cloned().unwrap_or(Value::Null))
    }

    fn note(&self) -> String {
        std::fs::read_to_string(self.folder.join(NOTE)).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.run(&["stop"]);
    }
}

/// `weft demo`.
pub(crate) fn run() -> Ended {
    let clock = Clock { began: Instant::now(), listening: question::listen() };
    let base = tempfile::Builder::new().prefix("weft-demo-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let tap = Tap::default();
    let url = runtime.block_on(relay(Arc::clone(&tap)))?;
    let result = play(base.path(), &url, &tap, &clock);
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// How long it takes, and whether it was interrupted: then its agents must end too.
struct Clock {
    began: Instant,
    listening: Listening,
}

fn play(base: &Path, url: &str, tap: &Tap, clock: &Clock) -> Ended {
    let ended = tell(base, url, tap, clock);
    // What Ctrl-C ended failed for no other reason.
    clock.listening.check().and(ended)
}

fn tell(base: &Path, url: &str, tap: &Tap, clock: &Clock) -> Ended {
    let (ann, bob) = (Agent::new(base, "ann")?, Agent::new(base, "bob")?);
    step(&format!("A relay on {url}: it forwards sealed bytes and keeps nothing."));
    std::fs::write(ann.folder.join(NOTE), FIRST)?;
    ann.must(&["init", "--name", "notes", "--relay", url, "--as", "Ann"])?;
    step("Ann shares a folder with one file and invites Bob:");
    show(FIRST, "");
    let invited: Value = serde_json::from_str(&ann.must(&["invite", "--json"])?).unwrap_or(Value::Null);
    let folder = bob.folder.to_string_lossy().into_owned();
    bob.must(&["join", text(&invited, "link"), &folder, "--as", "Bob"])?;
    wait(clock, "Bob did not receive the file", || Ok(bob.note() == FIRST))?;
    step("Bob has joined and has the file.");
    settle(clock, &[&ann, &bob])?;

    ann.must(&["pause"])?;
    bob.must(&["pause"])?;
    std::fs::write(ann.folder.join(NOTE), ANN)?;
    std::fs::write(bob.folder.join(NOTE), BOB)?;
    step("Both go offline and edit the same file. Ann:");
    show(ANN, FIRST);
    step("Bob:");
    show(BOB, FIRST);
    // The agents take the edits in while offline; only then is coming back online a merge.
    for agent in [&ann, &bob] {
        wait(clock, "an offline edit was not taken in", || {
            let entries = agent.must(&["log", "--json"])?;
            Ok(entries.lines().any(|line| line.contains("\"edited\"")))
        })?;
    }
    let back = Instant::now();
    ann.must(&["resume"])?;
    bob.must(&["resume"])?;
    let merged = |note: &str| note.contains("festival") && note.contains("plums");
    wait(clock, "the edits did not meet", || Ok(merged(&ann.note()) && ann.note() == bob.note()))?;
    step(&format!("Back online, merged on both after {:.1} s:", back.elapsed().as_secs_f64()));
    show(&ann.note(), FIRST);
    saw(tap)?;
    drop((ann, bob));
    step(&format!(
        "Done in {:.0} s; everything of this demo is deleted. Your turn: weft up",
        clock.began.elapsed().as_secs_f64()
    ));
    Ok(0)
}

fn step(text: &str) {
    term::say(&format!("\n{} {text}", paint(Style::Green, "▸")));
}

/// A text, with the lines that `before` lacks marked.
fn show(text: &str, before: &str) {
    for line in text.lines() {
        let fresh = !before.is_empty() && !before.lines().any(|old| old == line);
        let bar = paint(Style::Dim, "  │");
        if fresh {
            term::say(&format!("{bar} {}", paint(Style::Cyan, line)));
        } else {
            term::say(&format!("{bar} {line}"));
        }
    }
}

fn saw(tap: &Tap) -> Result<(), Failure> {
    let seen = tap.lock().unwrap_or_else(PoisonError::into_inner);
    let words = ["Harvest", "festival", "Apples", "plums", NOTE, "notes"];
    let found = words.iter().find(|word| seen.windows(word.len()).any(|window| window == word.as_bytes()));
    if let Some(word) = found {
        return Err(Failure::new(format!("the relay saw the word {word:?}; please report this")));
    }
    step(&format!("What the relay saw: {} of this kind,", term::bytes(seen.len() as u64)));
    let middle = seen.len() / 2;
    for row in seen.get(middle..).unwrap_or_default().chunks(24).take(4) {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        term::say(&paint(Style::Dim, &format!("  │ {}", hex.join(" "))));
    }
    term::say("  and none of: Harvest, festival, Apples, plums, plan.md, notes.");
    Ok(())
}

fn settle(clock: &Clock, agents: &[&Agent]) -> Result<(), Failure> {
    for agent in agents {
        let late = format!("{} did not come to rest", agent.name);
        wait(clock, &late, || Ok(agent.status()?.get("settled") == Some(&Value::Bool(true))))?;
    }
    Ok(())
}

fn wait(clock: &Clock, late: &str, mut until: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    while !until()? {
        clock.listening.check()?;
        if clock.began.elapsed() > DEMO_MAX {
            return Err(Failure::new(format!("{late} in time; `weft doctor` checks this installation")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A relay behind a tap; gives the tap's URL.
async fn relay(tap: Tap) -> Result<String, Failure> {
    let front = TcpListener::bind("127.0.0.1:0").await?;
    let front_addr = front.local_addr()?;
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { listen, audiences: vec![Audience::from_addr(front_addr)], ..Config::default() };
    let server = Server::bind(config).await.map_err(|error| Failure::new(error.to_string()))?;
    let back_addr = server.local_addr();
    tokio::spawn(server.run(std::future::pending()));
    tokio::spawn(async move {
        while let Ok((client, _)) = front.accept().await {
            let tap = Arc::clone(&tap);
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(back_addr).await {
                    pass(client, server, &tap).await;
                }
            });
        }
    });
    Ok(format!("ws://{front_addr}"))
}

/// Passes bytes both ways, and keeps those towards the client, which WebSocket does not mask.
async fn pass(client: TcpStream, server: TcpStream, tap: &Tap) {
    let _faster = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let _ended = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _closed = to_server.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = from_server.read(&mut buffer).await {
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            {
                let mut seen = tap.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() + bytes.len() <= TAP_BYTES_MAX {
                    seen.extend_from_slice(bytes);
                }
            }
            if to_client.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _closed = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}
