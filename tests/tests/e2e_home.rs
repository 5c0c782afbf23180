//! The agent's home: one agent at a time has it, whatever the environment says, and every environment finds that agent.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use weft_tests::e2e::{Agent, LONG, Process, SHORT, Stage, wait};

/// `weft` as somebody of this home runs it, with or without a folder for run-time files.
fn weft(agent: &Agent, runtime: Option<&Path>) -> Command {
    let mut command = agent.command();
    command.env_remove("WEFT_HOME");
    for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    if let Some(runtime) = runtime {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command
}

fn ran(mut command: Command, args: &[&str]) -> Result<Output> {
    command.args(args).output().context("weft cannot be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An agent that was started where `XDG_RUNTIME_DIR` is set is found from where it is not: there is no second one, `start`
/// and `status` name its process, `stop` ends it. The same the other way round.
#[test]
fn two_environments_share_one_agent() -> Result<()> {
    let stage = Stage::open()?;
    let ada = Agent::idle(stage.root(), "ada")?;
    let runtime = stage.root().join("run");
    std::fs::create_dir(&runtime)?;
    for (first, second) in [(Some(runtime.as_path()), None), (None, Some(runtime.as_path()))] {
        let mut start = weft(&ada, first);
        start.args(["start", "--foreground"]);
        let mut agent = Process::spawn(start, &stage.root().join("agent.log"))?;
        let pid = agent.pid().to_string();
        wait("the agent to be found", SHORT, || {
            let found = ran(weft(&ada, second), &["status", "--json"])?;
            Ok((found.status.code() == Some(0) && text(&found.stdout).contains(&pid)).then_some(()))
        })?;
        let again = ran(weft(&ada, second), &["start"])?;
        ensure!(again.status.success() && text(&again.stdout).contains(&pid), "it is the same agent: {again:?}");
        let refused = ran(weft(&ada, second), &["start", "--foreground"])?;
        ensure!(!refused.status.success(), "a second agent started: {refused:?}");
        ensure!(text(&refused.stderr).contains(&format!("process {pid}")), "it names the process: {refused:?}");
        let stopped = ran(weft(&ada, second), &["stop"])?;
        ensure!(stopped.status.success() && text(&stopped.stdout).contains("has stopped"), "{stopped:?}");
        wait("the agent to end", SHORT, || agent.ended())?;
        let gone = ran(weft(&ada, first), &["status"])?;
        ensure!(gone.status.code() == Some(4), "{gone:?}");
    }
    Ok(())
}

/// What a killed agent leaves behind holds nothing up, even when its process number is another process's by now, as after
/// the restart of a container.
#[test]
fn a_dead_agents_lock_is_nobodys() -> Result<()> {
    let stage = Stage::open()?;
    let mut ada = stage.agent("ada")?;
    ada.init(&[])?;
    ada.kill()?;
    let lock = ada.home().join("data/agent.lock");
    let said = std::fs::read_to_string(&lock)?;
    ensure!(said.contains("pid ") && said.contains("socket "), "{said:?}");
    let taken = said.replace("pid ", &format!("pid {}\nwas ", std::process::id()));
    std::fs::write(&lock, taken)?;
    ensure!(ada.run(["status"])?.code == 4, "nobody runs");
    ensure!(ada.run(["stop"])?.expect_code(0)?.stdout.contains("not running"), "nobody is there to stop");
    ada.revive()?;
    wait("the workspace to be there", LONG, || Ok((ada.status()?.state() == "active").then_some(())))
}

/// Two homes whose data leads to one replica: the second agent leaves it alone and says who has it, and takes over when
/// the first has ended.
#[test]
fn a_replica_is_one_agents() -> Result<()> {
    let stage = Stage::open()?;
    let mut ada = stage.agent("ada")?;
    ada.init(&[])?;
    let pid = ada.pid().context("it runs")?;
    let mut twin = Agent::idle(stage.root(), "twin")?;
    for name in ["config", "data"] {
        std::fs::create_dir_all(twin.home().join(name))?;
        for entry in std::fs::read_dir(ada.home().join(name))? {
            let entry = entry?;
            let (to, name) = (twin.home().join(name), entry.file_name());
            if entry.file_type()?.is_dir() || name == "identity" || name == "workspaces.json" {
                std::os::unix::fs::symlink(entry.path(), to.join(name))?;
            }
        }
    }
    twin.revive()?;
    let held = wait("the second agent to say who has the replica", LONG, || {
        let status = twin.run(["status"])?;
        Ok(status.stdout.contains("another agent has this workspace open").then_some(status))
    })?;
    ensure!(held.code == 3 && held.stdout.contains(&format!("process {pid}")), "{held:?}");
    ensure!(ada.status()?.state() == "active", "the first goes on");
    ada.stop()?;
    wait("the second to take over", LONG, || {
        Ok((!twin.run(["status"])?.stdout.contains("another agent has this")).then_some(()))
    })
}
