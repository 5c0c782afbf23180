//! Files as people really have them: odd names, empty, large, saved in every editor's way.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weft_tests::e2e::{Agent, Editor, Entry, LONG, Stage, wait, wait_same, wait_same_within, wait_text};

fn two(team: &[Agent]) -> (&Agent, &Agent) {
    match team {
        [one, other] => (one, other),
        _ => unreachable!("a team of two"),
    }
}

/// Names in many scripts, with spaces, emoji, leading dashes and dots, and both forms of an accent arrive as they are.
#[test]
fn names_of_every_script_arrive() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let names = [
        "grüße.md",
        "ein ordner/mit leerzeichen.md",
        "日本語/設定.mdx",
        "عربي/ملف.md",
        "עברית.md",
        "🎉 party 🎉.md",
        "-starts-with-a-dash.md",
        "--help",
        ".hidden/notes.md",
        "a'quote\"and$dollar.md",
        "many.dots...md",
        "percent%20encoded.md",
        "no extension",
        "line\nbreak.md",
        "Cafe\u{301}-decomposed.md",
    ];
    for name in names {
        ada.write(name, format!("the file called {name}\n"))?;
    }
    wait("all names", LONG, || Ok(names.iter().all(|name| ben.folder().join(name).is_file()).then_some(())))?;
    let same = wait_same(&[ada, ben])?;
    for name in names {
        assert!(same.contains_key(name), "{name:?}");
    }
    Ok(())
}

/// Empty files and files without a last line end arrive as they are; a file can become empty, and full again.
#[test]
fn empty_files_arrive() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    ada.write("empty.md", "")?;
    ada.write("deep/empty.bin", "")?;
    ada.write("no-end.md", "no line end")?;
    wait_text(ben, "empty.md", "")?;
    wait_text(ben, "no-end.md", "no line end")?;
    ben.write("no-end.md", "")?;
    wait_text(ada, "no-end.md", "")?;
    ada.write("no-end.md", "full again\n")?;
    wait_text(ben, "no-end.md", "full again\n")?;
    let same = wait_same(&[ada, ben])?;
    assert!(matches!(same.get("deep/empty.bin"), Some(Entry::File(0, _))));
    Ok(())
}

/// Carriage returns, a byte order mark and bytes that are no text come out as they went in.
#[test]
fn bytes_stay_as_they_are() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let texts: [(&str, &[u8]); 5] = [
        ("dos.txt", b"one\r\ntwo\r\n"),
        ("mixed.txt", b"one\r\ntwo\nthree\r"),
        ("bom.txt", b"\xef\xbb\xbfone\ntwo\n"),
        ("latin1.txt", b"gr\xfc\xdfe\n"),
        ("nul.bin", b"a\0b\0c"),
    ];
    for (name, bytes) in texts {
        ada.write(name, bytes)?;
    }
    wait("all of them", LONG, || Ok(texts.iter().all(|(name, _)| ben.folder().join(name).is_file()).then_some(())))?;
    wait_same(&[ada, ben])?;
    for (name, bytes) in texts {
        assert_eq!(std::fs::read(ben.folder().join(name))?, bytes, "{name}");
    }
    // An edit in the middle keeps the file's own line ends.
    ben.write("dos.txt", "one\r\nand a half\r\ntwo\r\n")?;
    wait_text(ada, "dos.txt", "one\r\nand a half\r\ntwo\r\n")?;
    Ok(())
}

/// However an editor saves, the text arrives, nothing of its temporary files stays on the other side, and an edit that
/// comes back is not lost.
#[test]
fn every_way_of_saving_works() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let mut expected = Vec::new();
    for editor in Editor::ALL {
        let name = format!("{editor:?}.md");
        let mut text = format!("written by {editor:?}\n");
        ada.write(&name, &text)?;
        wait_text(ben, &name, &text)?;
        for round in 0..3 {
            text.push_str(&format!("round {round}, {}\n", "more words ".repeat(40)));
            editor.save(&ada.folder().join(&name), &text)?;
            wait_text(ben, &name, &text)?;
            text.push_str(&format!("answer {round}\n"));
            editor.save(&ben.folder().join(&name), &text)?;
            wait_text(ada, &name, &text)?;
        }
        expected.push(name);
    }
    let same = wait_same(&[ada, ben])?;
    expected.sort();
    assert_eq!(same.into_keys().collect::<Vec<_>>(), expected, "no temporary file of an editor is left");
    Ok(())
}

/// A program that empties a file, is held up, and then writes it made one edit: what somebody else wrote into that text
/// meanwhile stays where it belongs. The pause is the fault here, so it is a sleep.
#[test]
fn a_save_that_is_held_up_is_one_edit() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    let begun = "one\n\ntwo\n\nthree\n";
    ada.write("notes.md", begun)?;
    wait_same(&[ada, ben])?;
    ada.flush()?;
    let changes = ada.status()?.number("/changes");
    // Neither knows of the other's edit.
    ada.stop()?;
    ada.write("notes.md", begun.replace("three", "three by Ada"))?;
    let theirs = begun.replace("one", "one by Ben");
    let mut open = std::fs::File::create(ben.folder().join("notes.md"))?;
    std::thread::sleep(Duration::from_millis(500));
    let (half, rest) = theirs.split_at(theirs.len() / 2);
    open.write_all(half.as_bytes())?;
    std::thread::sleep(Duration::from_millis(150));
    open.write_all(rest.as_bytes())?;
    drop(open);
    wait("Ben's edit to be taken in", LONG, || Ok((ben.status()?.number("/changes") > changes).then_some(())))?;
    ada.revive()?;
    for agent in [&*ada, ben] {
        wait_text(agent, "notes.md", &theirs.replace("three", "three by Ada"))?;
    }
    let log = ada.run_here(["log"])?.expect_code(0)?.stdout;
    assert_eq!(log.matches("edited notes.md").count(), 2, "one edit each: {log}");
    Ok(())
}

/// A file that was emptied is empty everywhere, though a look waits for what may be written into it; a flush does as well.
#[test]
fn an_emptied_file_is_emptied_everywhere() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ada.write("notes.md", "to be forgotten\n")?;
    wait_same(&[ada, ben])?;
    ada.write("notes.md", "")?;
    ada.flush()?;
    ada.kill()?;
    wait_text(ben, "notes.md", "")?;
    Ok(())
}

/// Two people write into one file at the same time, many times, each in another place: every line of both is there in
/// the end, once.
#[test]
fn two_people_write_into_one_file() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let middle = "untouched line\n".repeat(40);
    ada.write("both.md", format!("top\n{middle}bottom\n"))?;
    wait_text(ben, "both.md", &format!("top\n{middle}bottom\n"))?;
    for round in 0..10 {
        // Each reads what is there and saves it with a line more, as an editor that reloads would.
        let here = ada.read("both.md")?;
        Editor::AtomicRename.save(&ada.folder().join("both.md"), &format!("ada {round}\n{here}"))?;
        let here = ben.read("both.md")?;
        Editor::AtomicRename.save(&ben.folder().join("both.md"), &format!("{here}ben {round}\n"))?;
    }
    wait("all lines of both", LONG, || {
        let text = ada.read("both.md").unwrap_or_default();
        let all = (0..10).all(|round| {
            [format!("ada {round}\n"), format!("ben {round}\n")]
                .iter()
                .all(|line| text.matches(line.as_str()).count() == 1)
        });
        Ok(all.then_some(()))
    })?;
    wait_same(&[ada, ben])?;
    assert_eq!(ada.read("both.md")?.matches("untouched line").count(), 40);
    Ok(())
}

/// A large binary file travels in pieces while small edits go on, and the edits do not wait for it.
/// 8 MB here; `WEFT_LARGE_MB=100` for the long form.
#[test]
fn a_large_file_does_not_hold_up_text() -> Result<()> {
    let megabytes: usize = std::env::var("WEFT_LARGE_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let mut bytes = vec![0; megabytes * 1_000_000];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    ada.write("film.bin", &bytes)?;
    for round in 0..20 {
        ada.write("text.md", format!("round {round}\n"))?;
        wait_text(ben, "text.md", &format!("round {round}\n"))?;
    }
    let deadline = LONG + std::time::Duration::from_secs(megabytes as u64 * 2);
    wait("the large file", deadline, || {
        let there = std::fs::metadata(ben.folder().join("film.bin"));
        Ok(there.is_ok_and(|there| there.len() == bytes.len() as u64).then_some(()))
    })?;
    wait_same_within(&[ada, ben], deadline)?;
    assert!(std::fs::read(ben.folder().join("film.bin"))? == bytes, "byte for byte");
    Ok(())
}

/// The execute bit and symbolic links travel; a link that leads out of the folder is never followed.
#[test]
fn links_and_modes_travel() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let (ada, ben) = two(&team);
    let outside = stage.root().join("outside.txt");
    std::fs::write(&outside, "outside\n")?;
    ada.write("run.sh", "#!/bin/sh\necho hi\n")?;
    std::fs::set_permissions(ada.folder().join("run.sh"), std::fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink("run.sh", ada.folder().join("link"))?;
    std::os::unix::fs::symlink(&outside, ada.folder().join("out"))?;
    wait("the link and the mode", LONG, || {
        let link = std::fs::read_link(ben.folder().join("link")).is_ok_and(|target| target.as_os_str() == "run.sh");
        let mode =
            std::fs::metadata(ben.folder().join("run.sh")).is_ok_and(|file| file.permissions().mode() & 0o100 != 0);
        Ok((link && mode).then_some(()))
    })?;
    wait_same(&[ada, ben])?;
    assert_eq!(std::fs::read_to_string(&outside)?, "outside\n", "nothing outside the root is written");
    Ok(())
}
