//! A real `nats-server` (a Debian package) as a child process.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::wait::{SHORT, wait};

/// A running `nats-server`; killed when dropped.
pub struct Nats {
    port: u16,
    log: PathBuf,
    process: Process,
}

impl Nats {
    /// Starts one on a free port and waits until it takes connections.
    pub fn start(log: &Path) -> Result<Self> {
        // It takes no port 0, so one is looked for; nobody else on this machine asks for it by number.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("no free port")?.port();
        Ok(Self { port, log: log.to_path_buf(), process: run(port, log)? })
    }

    /// `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port, after [`Nats::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.process = run(self.port, &self.log)?;
        Ok(())
    }
}

fn run(port: u16, log: &Path) -> Result<Process> {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    let mut process = Process::spawn(command, log).context("nats-server is needed: Debian has it as a package")?;
    wait("nats-server to listen", SHORT, || {
        if let Some(status) = process.ended()? {
            bail!("nats-server ended with {status}:\n{}", process.output());
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
    })?;
    Ok(process)
}
