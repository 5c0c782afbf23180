//! The real binary in a process of its own.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;

/// A running relay; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// Lines of its standard output behind the first.
    out: Mutex<Lines<BufReader<ChildStdout>>>,
    log: tempfile::NamedTempFile,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_weft-relay")), "127.0.0.1:0", args)
    }

    /// With variables in its environment.
    pub(crate) fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-relay"));
        command.envs(environment.iter().copied());
        Self::run(command, "127.0.0.1:0", args)
    }

    /// At an address that is known.
    pub(crate) fn start_at(addr: SocketAddr, args: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_weft-relay")), &addr.to_string(), args)
    }

    /// With so many open files at most.
    pub(crate) fn start_limited(files: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_weft-relay")]);
        Self::run(command, "127.0.0.1:0", args)
    }

    fn run(mut command: Command, listen: &str, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = command
            .args(["--listen", listen])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(Ok(line)) = out.next() else {
            let _ = child.kill();
            panic!("the relay did not start: {}", std::fs::read_to_string(log.path()).unwrap_or_default());
        };
        let addr = line.strip_prefix("weft-relay listening on ws://").unwrap().parse().unwrap();
        Self { child, addr, out: Mutex::new(out), log }
    }

    /// Its admin port, if it was started with one; asked for once.
    pub(crate) fn admin(&self) -> SocketAddr {
        let line = self.out.lock().unwrap().next().unwrap().unwrap();
        line.strip_prefix("weft-relay admin on http://").unwrap().parse().unwrap()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Its memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Its processor time so far, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// A signal by its name (`-HUP`).
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}
