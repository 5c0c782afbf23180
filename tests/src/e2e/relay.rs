//! The real relay as a child process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::binaries::binaries;
use super::process::Process;
use super::wait::{SHORT, wait};

/// What it prints once it accepts connections, before the address.
const LISTENING: &str = "weft-relay listening on ws://";

/// A running `weft-relay`; killed when dropped.
pub struct Relay {
    process: Process,
    program: PathBuf,
    address: String,
    url: String,
    log: PathBuf,
    flags: Vec<String>,
}

impl Relay {
    /// Starts it on `port` of 127.0.0.1 (0: a free one) with more `flags`, and waits until it listens. `log` must be new.
    pub fn start(log: &Path, port: u16, flags: &[String]) -> Result<Self> {
        Self::start_program(&binaries()?.relay, log, port, flags)
    }

    /// As [`Relay::start`], with another program that takes `--listen` and prints the same line.
    pub fn start_program(program: &Path, log: &Path, port: u16, flags: &[String]) -> Result<Self> {
        Self::start_with(program, log, port, flags, &[])
    }

    /// As [`Relay::start_program`], with variables of its own.
    pub fn start_with(
        program: &Path,
        log: &Path,
        port: u16,
        flags: &[String],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).args(flags);
        // What the developer's shell has set is not this test's configuration.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        let mut process = Process::spawn(command, log)?;
        let address = wait("the relay to listen", SHORT, || {
            let output = process.output();
            if let Some(address) = address(&output) {
                return Ok(Some(address));
            }
            if let Some(status) = process.ended()? {
                bail!("the relay ended with {status}:\n{output}");
            }
            Ok(None)
        })?;
        let url = format!("ws://{address}");
        let (program, log) = (program.to_path_buf(), log.to_path_buf());
        Ok(Self { process, program, address, url, log, flags: flags.to_vec() })
    }

    /// `ws://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM; waits until it has drained and ended.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        self.process.terminate(Duration::from_secs(60))
    }

    /// Ends it if it runs, and starts another at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        let port = self.address.rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
        // A log of its own: the old one already holds a line that says where it listens.
        let log = self.log.with_extension(format!("{}.log", self.process.pid()));
        *self = Self::start_program(&self.program, &log, port, &self.flags)?;
        Ok(())
    }
}

/// The address in the line that names one, once the line is whole.
fn address(output: &str) -> Option<String> {
    let (complete, _) = output.rsplit_once('\n')?;
    let (_, rest) = complete.split_once(LISTENING)?;
    let address: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    (!address.is_empty()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address is taken from a whole line only: half a port number would be another port.
    #[test]
    fn half_a_line_is_no_address() {
        assert_eq!(address("weft-relay listening on ws://127.0.0.1:80"), None);
        assert_eq!(address("weft-relay listening on ws://127.0.0.1:8080\nand more").as_deref(), Some("127.0.0.1:8080"));
    }
}
