//! What makes a workspace stand still, and how it goes on: lost markers, moved folders, folders that cannot be read, full
//! disks. Nothing is lost meanwhile, nothing is claimed that is not so.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use weft_tests::e2e::{Agent, LONG, Stage, wait, wait_same, wait_text};

const NOBODY: u32 = 65_534;

fn problems(agent: &Agent) -> Result<String> {
    Ok(agent.status()?.0.get("problems").map(ToString::to_string).unwrap_or_default())
}

fn wait_state(agent: &Agent, state: &str) -> Result<()> {
    let mut last = String::new();
    wait("the workspace's state", LONG, || {
        let status = agent.status()?;
        last = status.0.to_string();
        Ok((status.state() == state).then_some(()))
    })
    .with_context(|| format!("not {state}: {last}"))
}

/// Thirty notes, and the team that has them.
fn filled(stage: &Stage, relay: &weft_tests::e2e::Relay) -> Result<Vec<Agent>> {
    let team = stage.team(relay, &["ada", "ben"])?;
    if let Some(ada) = team.first() {
        for number in 0..30 {
            ada.write(&format!("notes/{number}.md"), format!("note {number}\n"))?;
        }
    }
    wait_same(&team.iter().collect::<Vec<_>>())?;
    Ok(team)
}

/// `git clean -fdx` removes the hidden marker as well: the folder is known again, its marker made anew, and edits go on, both
/// while the agent runs and when it was removed while it did not.
#[test]
fn a_removed_marker_is_made_again() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    for round in 0..2 {
        if round == 1 {
            ben.stop()?;
        }
        std::fs::remove_dir_all(ben.folder().join(".weft"))?;
        let text = format!("written after round {round}\n");
        ben.write("after.md", &text)?;
        if round == 1 {
            ben.revive()?;
        }
        wait_text(ada, "after.md", &text)?;
        ensure!(ben.folder().join(".weft/marker.toml").exists(), "the marker is back");
    }
    wait_same(&[ada, ben])?;
    Ok(())
}

/// An agent that starts before its folder is there halts, says so to `resume` instead of claiming that it goes on, and goes
/// on by itself once the folder is there.
#[test]
fn resume_says_that_it_is_still_halted() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ben.stop()?;
    let away = stage.root().join("away");
    std::fs::rename(ben.folder(), &away)?;
    std::fs::create_dir(ben.folder())?;
    ben.revive()?;
    wait_state(ben, "halted")?;
    for args in [&["resume"][..], &["resume", "--restore"], &["resume", "--accept-deletes"]] {
        let said = ben.run_here(args)?;
        ensure!(said.code == 3 && said.stderr.contains("still halted") && said.stderr.contains("is empty"), "{said:?}");
    }
    let flushed = ben.run_here(["flush", "--timeout", "1s"])?;
    ensure!(flushed.code == 3, "nothing is claimed to be held: {flushed:?}");
    ada.write("meanwhile.md", "while it was not mounted\n")?;
    std::fs::remove_dir(ben.folder())?;
    std::fs::rename(&away, ben.folder())?;
    wait_text(ben, "meanwhile.md", "while it was not mounted\n")?;
    ben.run_here(["resume"])?.expect_code(0)?;
    wait_same(&[ada, ben])?;
    // A mass delete has to be answered, and `resume` without an answer says which answers there are.
    std::fs::remove_dir_all(ben.folder().join("notes"))?;
    wait_state(ben, "halted")?;
    let said = ben.run_here(["resume"])?;
    ensure!(
        said.code == 3 && said.stderr.contains("--restore") && said.stderr.contains("--accept-deletes"),
        "{said:?}"
    );
    ben.run_here(["resume", "--restore"])?.expect_code(0)?;
    wait_same(&[ada, ben])?;
    Ok(())
}

/// A folder that was moved is named with the command that takes it, which refuses every folder that is not it, and copies.
#[test]
fn a_moved_folder_is_named_and_taken() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let (old, new) = (ben.folder().to_path_buf(), ben.folder().with_file_name("moved here"));
    let mv = |from: Option<&Path>, to: &Path| {
        let mut args = vec![OsStr::new("move")];
        args.extend(from.map(Path::as_os_str));
        args.push(to.as_os_str());
        ben.run(args)
    };
    let other = stage.root().join("other");
    std::fs::create_dir(&other)?;
    std::fs::write(other.join("x.md"), "x\n")?;
    let copied = Command::new("cp").arg("-a").arg(&old).arg(stage.root().join("copy")).status()?;
    ensure!(copied.success());
    let said = mv(None, &stage.root().join("copy"))?;
    ensure!(said.code == 2 && said.stderr.contains("is a copy"), "{said:?}");
    std::fs::remove_dir_all(stage.root().join("copy"))?;
    std::fs::rename(&old, &new)?;
    wait("the new place to be named", LONG, || Ok(problems(ben)?.contains("weft move").then_some(())))?;
    let named = problems(ben)?;
    ensure!(named.contains("moved here"), "{named}");
    for (from, to) in [(None, &other), (Some(&old), &other), (Some(&other), &new)] {
        let said = mv(from.map(PathBuf::as_path), to)?;
        ensure!(said.code == 2, "{from:?} {to:?}: {said:?}");
    }
    ensure!(std::fs::read_dir(&other)?.count() == 1, "nothing is written into a folder that is not it");
    mv(None, &new)?.expect_code(0)?;
    ada.write("after.md", "after the move\n")?;
    let arrives = |dir: &Path| {
        let at = dir.join("after.md");
        wait("an edit to arrive at the new place", LONG, || Ok(std::fs::read(&at).is_ok().then_some(())))
    };
    arrives(&new)?;
    std::fs::write(new.join("back.md"), "from the new place\n")?;
    wait_text(ada, "back.md", "from the new place\n")?;
    ensure!(!old.exists(), "nothing is made at the old place");
    // Back again, by both names, and with the marker lost on the way.
    std::fs::rename(&new, &old)?;
    std::fs::remove_dir_all(old.join(".weft"))?;
    mv(Some(&new), &old)?.expect_code(0)?;
    wait_same(&[ada, ben])?;
    Ok(())
}

/// A folder and a file that cannot be read are named and left as they are, here and elsewhere; all else goes on. Once they
/// can be read, or are ignored, they are not named any more.
#[test]
fn what_cannot_be_read_stops_nothing_else() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    // Root may read everything, so as root the agent runs as somebody else.
    let root = rustix::process::geteuid().is_root();
    let ben = if root { Agent::start_as(stage.root(), "ben", NOBODY)? } else { stage.agent("ben")? };
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    for path in ["held/in/a.md", "held/b.md", "c.md", "d.md"] {
        ada.write(path, "one\n")?;
    }
    ben.join(&ada.invite()?)?;
    wait_text(&ben, "held/in/a.md", "one\n")?;
    wait_same(&[&ada, &ben])?;
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(ben.folder().join(path), std::fs::Permissions::from_mode(mode))
    };
    // Closed from the first moment: a file is looked at as soon as it is written.
    std::fs::DirBuilder::new().mode(0o000).create(ben.folder().join("pgdata"))?;
    let mut secret = std::fs::OpenOptions::new();
    let mut secret = secret.write(true).create_new(true).mode(0o000).open(ben.folder().join("secret.md"))?;
    std::io::Write::write_all(&mut secret, b"not for the agent\n")?;
    drop(secret);
    for path in ["held/in", "c.md"] {
        mode(path, 0o000)?;
    }
    for name in ["pgdata", "secret.md", "held/in", "c.md"] {
        wait("what cannot be read to be named", LONG, || Ok(problems(&ben)?.contains(name).then_some(())))?;
    }
    // Others edit, and so does Ben, what can be read and what cannot.
    ada.write("d.md", "one\ntwo\n")?;
    ada.write("held/in/a.md", "one\nby Ada\n")?;
    ada.write("c.md", "one\nby Ada\n")?;
    wait_text(&ben, "d.md", "one\ntwo\n")?;
    ben.write("held/b.md", "one\nby Ben\n")?;
    wait_text(&ada, "held/b.md", "one\nby Ben\n")?;
    // What is in there is nobody else's: it is not called in sync, while all else goes on.
    ensure!(ben.status()?.state() == "halted", "{}", ben.report());
    ensure!(!ada.folder().join("secret.md").exists(), "a file that could not be read");
    // Its name may be there, as an empty folder; what is in it cannot.
    let below = std::fs::read_dir(ada.folder().join("pgdata")).map_or(0, Iterator::count);
    ensure!(below == 0, "what is in a folder that could not be read");
    ensure!(ada.read("held/in/a.md")? == "one\nby Ada\n", "nothing was deleted elsewhere");
    for path in ["secret.md", "held/in", "c.md"] {
        mode(path, 0o755)?;
    }
    wait_text(&ben, "held/in/a.md", "one\nby Ada\n")?;
    wait_text(&ben, "c.md", "one\nby Ada\n")?;
    wait_text(&ada, "secret.md", "not for the agent\n")?;
    ben.write(".weftignore", "pgdata/\n")?;
    wait("nothing to be named any more", LONG, || Ok((!problems(&ben)?.contains("cannot be read")).then_some(())))?;
    wait_same(&[&ada, &ben])?;
    mode("pgdata", 0o700)?;
    Ok(())
}

/// A small file system of its own, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where that is not allowed.
    fn tmpfs(at: &Path, size: &str) -> Result<Option<Mounted>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        std::fs::create_dir_all(at)?;
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        Ok(done.is_ok_and(|done| done.status.success()).then(|| Mounted(at.to_path_buf())))
    }
    /// Takes all the room there is.
    fn fill(&self) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filling"))?;
        while file.write_all(&[0x5a; 4096]).is_ok() {}
        Ok(())
    }
    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join("filling"))?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _lazily = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// The disk with the agent's data is full, is full again at the next start, has room, and is full once more: each time the
/// workspace says that the disk is full, and goes on by itself when there is room. No edit is lost.
#[test]
fn a_full_home_is_waited_out() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ada.write("a.md", "one\n")?;
    let Some(disk) = Mounted::tmpfs(&stage.root().join("ben/h"), "24m")? else {
        eprintln!("no file system can be mounted here; nothing was checked");
        return Ok(());
    };
    let mut ben = stage.agent("ben")?;
    ben.join(&ada.invite()?)?;
    wait_text(&ben, "a.md", "one\n")?;
    wait_same(&[&ada, &ben])?;
    for round in 0..3 {
        disk.fill()?;
        let text = format!("written while the disk was full, round {round}\n");
        for number in 0..40 {
            ben.write(&format!("full/{number}.md"), &text)?;
        }
        if round == 1 {
            ben.kill()?;
            ben.revive()?;
        }
        wait("the full disk to be named", LONG, || Ok(problems(&ben)?.contains("is full").then_some(())))?;
        let status = ben.run(["status"])?;
        ensure!(status.code == 3 && status.stdout.matches("is full").count() == 1, "one cause, one line: {status:?}");
        disk.empty()?;
        wait_text(&ada, "full/39.md", &text)?;
        wait_same(&[&ada, &ben])?;
    }
    Ok(())
}

/// The disk with the folder is full: what others write waits, is named in one line, and comes when there is room.
#[test]
fn a_full_folder_is_waited_out() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ada.write("a.md", "one\n")?;
    let Some(disk) = Mounted::tmpfs(&stage.root().join("ben/notes"), "4m")? else {
        eprintln!("no file system can be mounted here; nothing was checked");
        return Ok(());
    };
    std::fs::write(disk.0.join(".weftignore"), "filling\n")?;
    let ben = stage.agent("ben")?;
    ben.join_merging(&ada.invite()?, true)?;
    wait_text(&ben, "a.md", "one\n")?;
    wait_same(&[&ada, &ben])?;
    disk.fill()?;
    for number in 0..60 {
        ada.write(&format!("more/{number}.md"), format!("note {number}\n").repeat(400))?;
    }
    wait("the full disk to be named", LONG, || Ok(problems(&ben)?.contains("No space left").then_some(())))?;
    let status = ben.run(["status"])?;
    ensure!(status.stdout.lines().filter(|line| line.contains("No space left")).count() <= 2, "{status:?}");
    disk.empty()?;
    wait_same(&[&ada, &ben])?;
    Ok(())
}
