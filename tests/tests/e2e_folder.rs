//! What happens in the folder while others' edits are written into it: crashes, programs that have a file open, moves.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Result, ensure};
use weft_tests::e2e::{LONG, Stage, wait, wait_same};

/// An agent is killed while others' lines are written into its folder, its user goes on writing, and it is killed again at
/// once: no line stands twice, and none is lost.
#[test]
fn lines_written_around_two_kills_stand_once() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    let files: Vec<String> = (0..6).map(|number| format!("{number}.md")).collect();
    for file in &files {
        ada.write(file, (0..30).map(|line| format!("line {line} of {file}\n")).collect::<String>())?;
    }
    wait_same(&[ada, ben])?;
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut add = |agent: &weft_tests::e2e::Agent, file: &str, line: String, at: usize| -> Result<()> {
        let text = agent.read(file)?;
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.insert(at % lines.len(), &line);
        // As editors save: another file takes its place.
        let aside = agent.folder().join(format!("{file}~"));
        std::fs::write(&aside, lines.join("\n"))?;
        std::fs::rename(&aside, agent.folder().join(file))?;
        wanted.push((file.to_owned(), line));
        Ok(())
    };
    for round in 0..8 {
        ada.kill()?;
        for (number, file) in files.iter().enumerate() {
            for line in 0..3 {
                add(ben, file, format!("ben {round} {number} {line}"), 7 * line + round)?;
            }
            add(ada, file, format!("ada {round} {number}"), 11 + round)?;
        }
        // Takes in what was just saved; it cannot be held by anybody while the other agent is dead.
        ben.run_here(["flush", "--timeout", "1s"])?;
        let before: Vec<String> = files.iter().map(|file| ada.read(file)).collect::<Result<_>>()?;
        ada.revive()?;
        // At another moment each time: as soon as so many files got what others wrote.
        let so_many = round % files.len() + 1;
        wait("others' lines to be written", LONG, || {
            let written =
                files.iter().zip(&before).filter(|(file, before)| ada.read(file).is_ok_and(|now| now != **before));
            Ok((written.count() >= so_many).then_some(()))
        })?;
        ada.kill()?;
        for (number, file) in files.iter().enumerate() {
            add(ada, file, format!("ada late {round} {number}"), 23 + round)?;
        }
        ada.revive()?;
        ada.kill()?;
        ada.revive()?;
        wait_same(&[ada, ben])?;
    }
    for file in &files {
        let text = ada.read(file)?;
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        text.lines().for_each(|line| *count.entry(line).or_default() += 1);
        let twice: Vec<_> = count.iter().filter(|(line, count)| **count > 1 && !line.is_empty()).collect();
        ensure!(twice.is_empty(), "{file}: {twice:?}");
        for (_, line) in wanted.iter().filter(|(wanted, _)| wanted == file) {
            ensure!(count.contains_key(line.as_str()), "{file}: {line:?} is lost");
        }
    }
    Ok(())
}

/// A program has a log open and goes on writing to it after somebody else's edit of that log arrived: everything that either
/// wrote is in it.
#[test]
fn what_a_program_writes_into_an_open_file_is_kept() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.write("app.log", "start\n")?;
    wait_same(&[ada, ben])?;
    // A program of its own: what the agent itself has open is no question.
    let mut program = std::process::Command::new("sh")
        .args(["-c", "exec 3>>\"$0\"; while read line; do echo \"$line\" >&3; done"])
        .arg(ada.folder().join("app.log"))
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let Some(mut says) = program.stdin.take() else { unreachable!("it was piped") };
    writeln!(says, "one")?;
    wait("the program's first line", LONG, || Ok((ben.read("app.log")? == "start\none\n").then_some(())))?;
    ben.write("app.log", "# ben was here\nstart\none\n")?;
    wait("ben's line", LONG, || Ok(ada.read("app.log")?.starts_with("# ben").then_some(())))?;
    for line in 0..5 {
        writeln!(says, "later {line}")?;
    }
    drop(says);
    program.wait()?;
    let all = "# ben was here\nstart\none\nlater 0\nlater 1\nlater 2\nlater 3\nlater 4\n";
    wait("all lines at both", LONG, || Ok((ada.read("app.log")? == all && ben.read("app.log")? == all).then_some(())))?;
    let same = wait_same(&[ada, ben])?;
    assert_eq!(same.len(), 1, "{same:?}");
    Ok(())
}

/// A folder is made, and at once another is moved into it: that is a move, and meets what others wrote meanwhile. Nothing
/// halts, though most files went.
#[test]
fn a_folder_moved_into_a_new_one_is_moved() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    for number in 0..40 {
        ada.write(&format!("lib/{}/{number}.md", number % 5), format!("note {number}\n").repeat(5))?;
    }
    wait_same(&[ada, ben])?;
    ben.stop()?;
    ben.write("lib/1/1.md", "note 1\n".repeat(5) + "ben, offline\n")?;
    std::fs::create_dir_all(ada.folder().join("archive/2026"))?;
    std::fs::rename(ada.folder().join("lib"), ada.folder().join("archive/2026/library"))?;
    ben.revive()?;
    let moved = "archive/2026/library/1/1.md";
    wait("ben's edit where the note is now", LONG, || {
        ensure!(ada.status()?.state() != "halted", "the move was taken for a mass delete");
        Ok(ada.read(moved).is_ok_and(|text| text.ends_with("ben, offline\n")).then_some(()))
    })?;
    let same = wait_same(&[ada, ben])?;
    assert_eq!(same.len(), 40, "{same:?}");
    Ok(())
}

/// A build tool makes its output beside the old one and puts it in its place, again and again: nothing halts.
#[test]
fn a_build_that_swaps_its_output_is_no_mass_delete() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    for build in 0..3 {
        for number in 0..100 {
            ada.write(&format!("out.made/{number}.js"), format!("// build {build}\n{number}\n"))?;
        }
        let out = ada.folder().join("out");
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        std::fs::rename(ada.folder().join("out.made"), &out)?;
        wait("the build on the other side", LONG, || {
            ensure!(ada.status()?.state() != "halted", "build {build} was taken for a mass delete");
            let last = ben.read("out/99.js").unwrap_or_default();
            Ok(last.starts_with(&format!("// build {build}\n")).then_some(()))
        })?;
        let same = wait_same(&[ada, ben])?;
        assert_eq!(same.len(), 100, "{:?}", same.keys());
    }
    Ok(())
}
