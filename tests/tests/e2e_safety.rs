//! What must never become a delete, an overwrite or a write outside: copied, read-only, vanished and emptied folders.

use anyhow::{Result, ensure};
use weft_tests::e2e::{Agent, LONG, Stage, snapshot, wait, wait_same, wait_text};

const NOBODY: u32 = 65_534;

fn filled(stage: &Stage, relay: &weft_tests::e2e::Relay) -> Result<Vec<Agent>> {
    let team = stage.team(relay, &["ada", "ben"])?;
    if let Some(ada) = team.first() {
        for number in 0..60 {
            ada.write(&format!("notes/{number}.md"), format!("note {number}\n"))?;
        }
    }
    wait("sixty notes everywhere", LONG, || {
        for agent in &team {
            if snapshot(agent.folder())?.len() != 60 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    wait_same(&team.iter().collect::<Vec<_>>())?;
    Ok(team)
}

fn wait_halted(agent: &Agent) -> Result<()> {
    wait("the workspace to halt", LONG, || Ok((agent.status()?.state() == "halted").then_some(())))
}

/// When most files go at once, nobody else loses any; the agent says so, and `--restore` brings them back.
#[test]
fn a_mass_delete_halts_and_can_be_restored() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    std::fs::remove_dir_all(ben.folder().join("notes"))?;
    wait_halted(ben)?;
    let status = ben.run_here(["status"])?;
    ensure!(status.code == 3, "status of a halted workspace needs attention: {status:?}");
    ensure!(status.stdout.contains("weft resume"), "it names the command that answers: {status:?}");
    assert_eq!(snapshot(ada.folder())?.len(), 60, "nobody else lost anything");
    ben.run_here(["resume", "--restore"])?.expect_code(0)?;
    assert_eq!(wait_same(&[ada, ben])?.len(), 60);
    Ok(())
}

/// A mass delete that was meant is carried out everywhere once the person says so.
#[test]
fn a_mass_delete_can_be_accepted() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    std::fs::remove_dir_all(ben.folder().join("notes"))?;
    wait_halted(ben)?;
    ben.run_here(["resume", "--accept-deletes"])?.expect_code(0)?;
    wait("the deletes to arrive", LONG, || Ok(snapshot(ada.folder())?.is_empty().then_some(())))?;
    Ok(())
}

/// A folder that vanishes halts; when it is back, everything goes on as if nothing had been.
#[test]
fn a_vanished_folder_halts_and_goes_on_when_it_is_back() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let away = stage.root().join("away");
    std::fs::rename(ben.folder(), &away)?;
    wait_halted(ben)?;
    ada.write("meanwhile.md", "while it was away\n")?;
    assert!(!ben.folder().exists(), "nothing is written into a folder that is not there");
    std::fs::rename(&away, ben.folder())?;
    wait("the workspace to go on", LONG, || Ok((ben.status()?.state() == "active").then_some(())))?;
    wait_text(ben, "meanwhile.md", "while it was away\n")?;
    assert_eq!(wait_same(&[ada, ben])?.len(), 61);
    Ok(())
}

/// A folder that comes back empty and without its marker (an unmounted disk) is not taken for a delete.
#[test]
fn an_emptied_folder_without_its_marker_is_no_delete() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let away = stage.root().join("away");
    std::fs::rename(ben.folder(), &away)?;
    std::fs::create_dir(ben.folder())?;
    wait_halted(ben)?;
    assert_eq!(snapshot(ada.folder())?.len(), 60);
    assert!(snapshot(ben.folder())?.is_empty(), "nothing is written into a folder that is not ours");
    Ok(())
}

/// The same while the agent is not running: it halts as soon as it looks.
#[test]
fn deletes_made_while_stopped_halt_too() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = filled(&stage, &relay)?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ben.stop()?;
    std::fs::remove_dir_all(ben.folder().join("notes"))?;
    ben.revive()?;
    wait_halted(ben)?;
    assert_eq!(snapshot(ada.folder())?.len(), 60);
    Ok(())
}

/// A copied folder carries another place's marker: it is refused with advice, not synced as the same device twice.
#[test]
fn a_copied_folder_is_refused() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.write("a.md", "a\n")?;
    wait_text(ben, "a.md", "a\n")?;
    let other = stage.agent("eve")?;
    copy(ada.folder(), other.folder())?;
    let ran = other.run_here(["init", &other.folder().to_string_lossy(), "--yes"])?;
    ensure!(ran.code != 0, "a copied folder was set up as if it were new: {ran:?}");
    ensure!(ran.stderr.contains("join"), "it says what to do instead: {ran:?}");
    // It can join afresh: its files meet those that are there.
    other.join_merging(&ada.invite()?, true)?;
    assert_eq!(wait_same(&[ada, ben, &other])?.len(), 1);
    Ok(())
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// In a folder that may not be written, nothing is lost and nothing stops: the agent says so, and writes once it may.
#[test]
fn a_read_only_folder_is_named_and_survived() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    // Root may write everywhere, so as root the agent runs as somebody else.
    let root = rustix::process::geteuid().is_root();
    let ben = if root { Agent::start_as(stage.root(), "ben", NOBODY)? } else { stage.agent("ben")? };
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ada.write("folder/a.md", "one\n")?;
    ben.join(&ada.invite()?)?;
    wait_text(&ben, "folder/a.md", "one\n")?;
    wait_same(&[&ada, &ben])?;
    let set = |mode: u32| std::fs::set_permissions(ben.folder().join("folder"), std::fs::Permissions::from_mode(mode));
    set(0o555)?;
    ada.write("folder/a.md", "one\ntwo\n")?;
    ada.write("elsewhere.md", "this can be written\n")?;
    wait_text(&ben, "elsewhere.md", "this can be written\n")?;
    wait("the problem to be named", LONG, || {
        let status = ben.status()?;
        let problems = status.0.get("problems").map(ToString::to_string).unwrap_or_default();
        Ok(problems.contains("folder").then_some(()))
    })?;
    assert_eq!(ben.read("folder/a.md")?, "one\n");
    set(0o755)?;
    wait_text(&ben, "folder/a.md", "one\ntwo\n")?;
    wait_same(&[&ada, &ben])?;
    Ok(())
}

/// What is ignored stays at home: version control, secrets, editor litter, and what `.weftignore` names.
#[test]
fn ignored_files_stay_at_home() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.write(".weftignore", "private/\n*.draft\n")?;
    wait_text(ben, ".weftignore", "private/\n*.draft\n")?;
    let home = [".git/config", ".env", "key.pem", "node_modules/x/index.js", "a.md.swp", "private/diary.md", "b.draft"];
    for path in home {
        ada.write(path, "stays at home\n")?;
    }
    ada.write("last.md", "written after the others\n")?;
    wait_text(ben, "last.md", "written after the others\n")?;
    ada.flush()?;
    for path in home {
        assert!(!ben.folder().join(path).exists(), "{path} must stay at home");
    }
    Ok(())
}

/// A copy with times, modes and all, as backup programs make it.
fn image(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
    Ok(())
}

/// A computer is put back to a backup, data and folder and all, when only somebody is there who cannot know better; so it
/// gives one number to two envelopes. Once all meet they have the same, nothing that a person wrote is missing, and `status`
/// says what happened, and how it goes on.
#[test]
fn a_backup_put_back_among_stale_peers_is_sorted_out() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben", "cleo"])?;
    let [ada, ben, cleo] = team.as_mut_slice() else { unreachable!("three were asked for") };
    let begun = "one\n\ntwo\n\nthree\n";
    ada.write("notes.md", begun)?;
    wait_same(&[ada, ben, cleo])?;
    ada.flush()?;
    ada.stop()?;
    ben.stop()?;
    let backup = stage.root().join("backup");
    std::fs::create_dir_all(&backup)?;
    image(ben.home(), &backup.join("home"))?;
    image(ben.folder(), &backup.join("folder"))?;
    // Ben writes, Cleo goes on with it, and nobody else sees it.
    ben.revive()?;
    wait_text(ben, "notes.md", begun)?;
    ben.write("notes.md", begun.replace("one", "one by Ben"))?;
    wait_text(cleo, "notes.md", &begun.replace("one", "one by Ben"))?;
    cleo.write("notes.md", begun.replace("one", "one by Ben and Cleo"))?;
    wait_text(ben, "notes.md", &begun.replace("one", "one by Ben and Cleo"))?;
    cleo.stop()?;
    ben.stop()?;
    // His computer goes back to before that, and meets Ada, who knows nothing of it.
    std::fs::remove_dir_all(ben.home())?;
    std::fs::remove_dir_all(ben.folder())?;
    image(&backup.join("home"), ben.home())?;
    image(&backup.join("folder"), ben.folder())?;
    ada.revive()?;
    ben.revive()?;
    wait_text(ben, "notes.md", begun)?;
    ben.write("notes.md", begun.replace("three", "three by Ben"))?;
    wait_text(ada, "notes.md", &begun.replace("three", "three by Ben"))?;
    cleo.revive()?;
    let whole = begun.replace("one", "one by Ben and Cleo").replace("three", "three by Ben");
    for agent in [&*ada, ben, cleo] {
        wait_text(agent, "notes.md", &whole)?;
    }
    wait_same(&[ada, ben, cleo])?;
    let told = ada.run(["status"])?.stdout;
    ensure!(told.contains("signed two different envelopes for one place"), "{told}");
    let told = ben.run(["status"])?.stdout;
    ensure!(told.contains("was copied"), "{told}");
    ben.write("more.md", "goes on\n")?;
    wait_text(ada, "more.md", "goes on\n")?;
    Ok(())
}
