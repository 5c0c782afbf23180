//! The servers that are measured beside each other, each in a process of its own.
//!
//! Invariant: all of them run on one thread, and none of them is this process, so that `/proc/PID/stat` tells what a server
//! alone has cost. Why three: the bare loop is the least that WebSockets can cost, NATS is what one would run otherwise.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::e2e::{Process, Relay};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The real `weft-relay`, every check on, the limits raised that one loading process would meet.
    Relay,
    /// A tuned tokio-tungstenite loop without any check.
    Bare,
    /// The real `nats-server`, over WebSocket.
    Nats,
}

/// The flags of a relay that one process loads with thousands of clients from one address. Every check stays on.
pub const RAISED: &[&str] = &[
    "--connections-max=30000",
    "--connections-per-ip-max=30000",
    "--token-requests-per-minute=4000000",
    "--messages-per-second=1000000",
    "--bytes-per-second=2000000000",
    "--room-peers-max=51",
];

/// A running server; killed when dropped.
pub struct Served {
    address: String,
    pid: u32,
    // Held for its Drop only.
    _process: Box<dyn std::any::Any + Send>,
}

impl Served {
    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Contender {
    /// As the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Contender::Relay => "weft-relay",
            Contender::Bare => "bare loop",
            Contender::Nats => "nats-server",
        }
    }

    /// Starts it; its log goes into `folder` under the number of the run. `relay` is the relay's binary, `bare` the program
    /// that is the bare loop when it is given `--be-bare ADDR`.
    pub fn start(self, folder: &Path, run: usize, relay: &Path, bare: &Path) -> Result<Served> {
        let log = folder.join(format!("{run}-{}.log", self.name()));
        match self {
            Contender::Relay => {
                // One thread, as the others: cost is what is compared, not how it spreads.
                let flags: Vec<String> = RAISED.iter().map(|&flag| flag.to_owned()).collect();
                let relay = Relay::start_with(relay, &log, 0, &flags, &[("TOKIO_WORKER_THREADS", "1")])?;
                Ok(Served { address: relay.address().to_owned(), pid: relay.pid(), _process: Box::new(relay) })
            }
            Contender::Bare => {
                let port = free_port()?;
                let mut command = Command::new(bare);
                command.arg("--be-bare").arg(format!("127.0.0.1:{port}"));
                started(command, &log, port)
            }
            Contender::Nats => {
                let (port, plain) = (free_port()?, free_port()?);
                let config = folder.join(format!("{run}-nats.conf"));
                let text = format!(
                    "listen: \"127.0.0.1:{plain}\"\nmax_connections: 30000\n\
                     websocket {{ listen: \"127.0.0.1:{port}\", no_tls: true, compression: false }}\n"
                );
                std::fs::write(&config, text).context("the configuration of nats-server cannot be written")?;
                let mut command = Command::new("nats-server");
                command.arg("-c").arg(&config).env("GOMAXPROCS", "1");
                started(command, &log, port)
            }
        }
    }
}

fn started(command: Command, log: &Path, port: u16) -> Result<Served> {
    let mut process = Process::spawn(command, log)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        if let Some(status) = process.ended()? {
            bail!("a server ended with {status}:\n{}", process.output());
        }
        if Instant::now() > deadline {
            bail!("a server does not listen:\n{}", process.output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Served { address: address.to_string(), pid: process.pid(), _process: Box::new(process) })
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no address")?.port())
}

/// The relay's binary beside this program.
pub fn relay_beside() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let relay = own.with_file_name(format!("weft-relay{}", std::env::consts::EXE_SUFFIX));
    if !relay.is_file() {
        bail!("{} is not there: build weft-relay with the same profile, or name it with --relay", relay.display());
    }
    Ok(relay)
}
