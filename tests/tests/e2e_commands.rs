//! The commands as people and programs use them: exit codes, advice, and what happens without a daemon.

use anyhow::{Result, ensure};
use weft_tests::e2e::{Agent, Ran, Stage, wait_settled};

/// A refusal ends with its code, says something on standard error, and never shows a panic.
fn refused(ran: &Ran, code: i32) -> Result<()> {
    ensure!(ran.code == code, "exit code {} instead of {code}: {ran:?}", ran.code);
    ensure!(!ran.stderr.trim().is_empty(), "it must say why: {ran:?}");
    ensure!(!ran.stderr.contains("panicked"), "{ran:?}");
    Ok(())
}

/// What cannot be meant is refused with exit code 2 and a sentence.
#[test]
fn bad_usage_is_refused() -> Result<()> {
    let stage = Stage::open()?;
    let agent = Agent::idle(stage.root(), "ada")?;
    for args in [
        &["no-such-command"][..],
        &["status", "--no-such-flag"],
        &["invite", "--uses", "-1"],
        &["invite", "--uses", "0"],
        &["resume", "--restore", "--accept-deletes"],
        &["invite", "--for", "Ben", "--expires", "1h"],
        &["completions", "no-such-shell"],
    ] {
        refused(&agent.run(args)?, 2)?;
    }
    Ok(())
}

/// What parses but means nothing is refused with a sentence, and changes nothing.
#[test]
fn values_that_mean_nothing_are_refused() -> Result<()> {
    let stage = Stage::open()?;
    let agent = stage.agent("ada")?;
    agent.init(&[])?;
    for args in [
        &["invite", "--role", "emperor"][..],
        &["invite", "--role", "owner"],
        &["invite", "--expires", "yesterday"],
        &["flush", "--timeout", "soon"],
        &["invites", "revoke", "zz"],
        &["relays", "add", "not a url"],
        &["relays", "add", "ftp://example.org"],
        &["config", "set", "no-such-setting", "1"],
    ] {
        let ran = agent.run_here(args)?;
        ensure!(ran.code == 1 || ran.code == 2, "{args:?}: {ran:?}");
        refused(&ran, ran.code)?;
    }
    wait_settled(&[&agent])
}

/// A bad flag stops the relay at once, with a sentence.
#[test]
fn the_relay_refuses_bad_flags() -> Result<()> {
    for args in [
        &["--no-such-flag"][..],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1:0", "--public-url", "not a url"],
        &["--listen", "127.0.0.1:0", "--token-key", "abc"],
    ] {
        let mut command = std::process::Command::new(&weft_tests::e2e::binaries()?.relay);
        let output = command.args(args).stdin(std::process::Stdio::null()).output()?;
        ensure!(!output.status.success(), "{args:?} was accepted");
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!stderr.trim().is_empty() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
    Ok(())
}

/// A link that is damaged, in any place, is refused as such.
#[test]
fn a_damaged_link_is_refused() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    let link = ada.invite()?;
    let ben = stage.agent("ben")?;
    let half: String = link.chars().take(link.len() / 2).collect();
    for damaged in
        ["", "weft:", "weft:!!!!", "https://example.org/", half.as_str(), &link.replacen("weft:", "weft:A", 1)]
    {
        let ran = ben.run(["join", damaged, &ben.folder().to_string_lossy(), "--as", "ben"])?;
        ensure!(ran.code == 1 || ran.code == 2, "{damaged:?}: {ran:?}");
        refused(&ran, ran.code)?;
    }
    Ok(())
}

/// Folders that nobody wants to share by mistake are refused: the root, the home, one with keys for other computers.
#[test]
fn dangerous_folders_are_refused() -> Result<()> {
    let stage = Stage::open()?;
    let agent = stage.agent("ada")?;
    std::fs::create_dir(agent.folder().join(".ssh"))?;
    for folder in [std::path::Path::new("/"), agent.home(), agent.folder()] {
        let ran = agent.run(["init", &folder.to_string_lossy(), "--yes"])?;
        ensure!(ran.code == 1 || ran.code == 2, "{}: {ran:?}", folder.display());
        refused(&ran, ran.code)?;
    }
    Ok(())
}

/// Without a daemon, reading commands say so with exit code 4; `init` starts one by itself; `start` when it runs says
/// so and is content; `stop` ends it.
#[test]
fn the_background_agent_starts_and_stops() -> Result<()> {
    let stage = Stage::open()?;
    let agent = Agent::idle(stage.root(), "ada")?;
    refused(&agent.run(["status"])?, 4)?;
    let outcome = (|| {
        agent.init(&[])?;
        agent.run(["start"])?.expect_code(0)?;
        wait_settled(&[&agent])?;
        let status = agent.run(["status", "--json"])?.expect_code(0)?.json()?;
        ensure!(status.pointer("/agent/pid").and_then(serde_json::Value::as_u64).is_some(), "no process id: {status}");
        ensure!(agent.folder().join(".weft/.gitignore").is_file(), "the marker keeps itself out of version control");
        ensure!(std::fs::read_to_string(agent.folder().join(".weft/.gitignore"))?.trim() == "*");
        Ok(())
    })();
    agent.end_background()?;
    outcome
}

/// `flush` without anybody to flush to is not done, and says so with exit code 3.
#[test]
fn a_flush_with_nobody_there_is_not_done() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ada.write("a.md", "a\n")?;
    let ran = ada.run_here(["flush", "--timeout", "1s"])?;
    ensure!(ran.code == 3, "{ran:?}");
    Ok(())
}

/// `weft demo` needs nothing, ends well, and leaves nothing running.
#[test]
fn the_demo_works() -> Result<()> {
    let stage = Stage::open()?;
    let agent = Agent::idle(stage.root(), "ada")?;
    let ran = agent.run(["demo"])?.expect_code(0)?;
    ensure!(!ran.stdout.trim().is_empty(), "it tells the story: {ran:?}");
    refused(&agent.run(["status"])?, 4)
}
