//! Words, passes, further devices and the recovery key, with the real programs.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use weft_agent_core::identity::RootSecret;
use weft_tests::e2e::{Agent, LONG, Ran, Stage, wait, wait_same, wait_settled, wait_text};

/// A text of a JSON object.
fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What is wrong, and what is to be remembered, of the workspace and of the agent.
fn problems(agent: &Agent) -> Result<String> {
    let all = agent.run(["status", "--json"])?.json()?;
    let of_agent = all.get("reminders").map(ToString::to_string).unwrap_or_default();
    let status = agent.status()?.0;
    let of_workspace =
        ["problems", "reminders"].map(|key| status.get(key).map(ToString::to_string).unwrap_or_default());
    Ok(of_workspace.concat() + &of_agent)
}

/// The words of an agent that has not confirmed them, and the pass to its one workspace.
fn words(agent: &Agent) -> Result<(String, String)> {
    let all = agent.run(["identity", "words", "--show", "--json"])?.expect_code(0)?.json()?;
    let pass = all.pointer("/workspaces/0/pass").and_then(Value::as_str).map(str::to_owned);
    Ok((text(&all, "words"), pass.ok_or_else(|| anyhow!("no pass in {all}"))?))
}

fn confirm(agent: &Agent, words: &str) -> Result<Ran> {
    agent.run_input(["identity", "words", "-"], words)
}

fn recover(agent: &Agent, pass: &str, words: &str) -> Result<Ran> {
    let folder = agent.folder().to_string_lossy().into_owned();
    agent.run_input(["identity", "recover", "-", &folder, "--merge"], &format!("{pass}\n{words}\n"))
}

/// Whether any file below a folder holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> Result<Option<String>> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = holds(&entry.path(), bytes)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() {
            // A file of the running agent may vanish between the two calls.
            let held = std::fs::read(entry.path()).unwrap_or_default();
            if held.windows(bytes.len()).any(|window| window == bytes) {
                return Ok(Some(entry.path().display().to_string()));
            }
        }
    }
    Ok(None)
}

/// The words are printed when asked for and nowhere else; whoever has not got them confirms nothing; once they are
/// confirmed no file holds them or the key, and `status` stops reminding. What needs the root key asks for them.
#[test]
fn confirmed_words_are_on_no_computer() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ensure!(problems(&ada)?.contains("weft identity words"), "{}", problems(&ada)?);
    let refused = ada.run(["identity", "words"])?.expect_code(2)?;
    ensure!(refused.stderr.contains("--show") && !refused.stdout.contains("weft-pass"), "{refused:?}");
    let (words, _) = words(&ada)?;
    let root = RootSecret::from_words(&words)?;
    let entropy = *root.entropy().expose();
    ensure!(holds(ada.home(), &entropy)?.is_some(), "they are here before");

    let other = RootSecret::from_entropy(&weft_agent_core::secret::Secret::new([7; 32])).words().to_string();
    for wrong in ["", "legal winner", other.as_str()] {
        let refused = confirm(&ada, wrong)?.expect_code(2)?;
        ensure!(!refused.stderr.contains("erased here"), "{refused:?}");
    }
    ensure!(holds(ada.home(), &entropy)?.is_some(), "what was not confirmed is kept");
    confirm(&ada, &format!("{}\n", words.to_uppercase()))?.expect_code(0)?;
    ensure!(!problems(&ada)?.contains("weft identity words"), "{}", problems(&ada)?);
    let again = ada.run(["identity", "words", "--json"])?.expect_code(0)?.json()?;
    ensure!(again.get("words") == Some(&Value::Null), "{again}");

    // Another workspace takes the words, the right ones, and leaves none behind.
    let second = stage.root().join("second").to_string_lossy().into_owned();
    std::fs::create_dir_all(&second)?;
    let asked = ada.run(["init", &second])?.expect_code(2)?;
    ensure!(asked.stderr.contains("24 words"), "{asked:?}");
    ada.run_input(["init", &second], &other)?.expect_code(2)?;
    ada.run_input(["init", &second], &words)?.expect_code(0)?;
    ada.stop()?;
    ada.revive()?;
    wait_settled(&[&ada])?;
    ada.stop()?;
    let first_words = words.split(' ').take(3).collect::<Vec<_>>().join(" ");
    for secret in
        [entropy.as_slice(), root.kem_secret().expose(), &root.signing_key().to_bytes(), first_words.as_bytes()]
    {
        ensure!(holds(stage.root(), secret)?.is_none(), "left in {:?}", holds(stage.root(), secret)?);
    }
    Ok(())
}

/// Whoever lost the computer comes back on an empty one: with the words and the pass that was printed with them, or with one
/// that another member makes. All files are there, and they are the same member.
#[test]
fn words_bring_back_what_was_lost() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let big: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
    team[0].write("before.md", "written before\n")?;
    team[0].write("deep/big.txt", &big)?;
    wait_same(&[&team[0], &team[1]])?;
    let (words, pass) = words(&team[0])?;
    confirm(&team[0], &words)?.expect_code(0)?;
    let ben = team.remove(1);
    let mut lost = team.remove(0);
    lost.kill()?;
    ben.write("since.md", "while ada was away\n")?;

    let wrong = stage.agent("eve")?;
    let refused =
        recover(&wrong, &pass, &RootSecret::from_entropy(&weft_agent_core::secret::Secret::new([7; 32])).words())?;
    ensure!(refused.code == 2 && refused.stderr.contains("another member"), "{refused:?}");

    let here = stage.agent("ada-again")?;
    recover(&here, &pass, &words)?.expect_code(0)?;
    wait_text(&here, "since.md", "while ada was away\n")?;
    wait_text(&here, "deep/big.txt", &big)?;
    let third = stage.agent("ada-third")?;
    let by_ben = text(&ben.run_here(["invite", "--for", "ada", "--json"])?.expect_code(0)?.json()?, "pass");
    recover(&third, &by_ben, &words)?.expect_code(0)?;
    third.write("third.md", "and from a third\n")?;
    here.write("before.md", "written before, and after\n")?;
    wait_text(&ben, "third.md", "and from a third\n")?;
    wait_text(&ben, "before.md", "written before, and after\n")?;
    wait_same(&[&ben, &here, &third])?;
    assert_eq!(ben.status()?.members(), 2, "the same member: {}", ben.status()?.0);
    let shown = here.run(["identity", "--json"])?.expect_code(0)?.json()?;
    ensure!(shown.pointer("/member/name") == Some(&Value::from("ada")), "{shown}");
    ensure!(shown.pointer("/member/has_root") == Some(&Value::Bool(false)), "{shown}");
    let entropy = *RootSecret::from_words(&words)?.entropy().expose();
    ensure!(holds(here.home(), &entropy)?.is_none(), "words that were typed in are kept nowhere");
    Ok(())
}

/// `weft devices add`, run as a program that a person looks at.
struct Adding {
    child: Child,
    lines: BufReader<ChildStdout>,
    pass: String,
}

fn add_device(agent: &Agent, args: &[&str]) -> Result<Adding> {
    let mut command = agent.command();
    command.arg("-C").arg(agent.folder()).args(["devices", "add", "--json"]).args(args);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let pass = text(&serde_json::from_str(&line).with_context(|| format!("no pass: {line:?}"))?, "pass");
    Ok(Adding { child, lines, pass })
}

impl Adding {
    /// Its exit code, what else it printed, and what it said to people.
    fn ended(mut self) -> Result<Ran> {
        wait("weft devices add to end", LONG, || Ok(self.child.try_wait()?.map(|_| ())))?;
        let mut stdout = String::new();
        while self.lines.read_line(&mut stdout)? > 0 {}
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().context("no errors")?, &mut stderr)?;
        let code = self.child.wait()?.code().unwrap_or(-1);
        Ok(Ran { code, stdout, stderr })
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn join_by_pass(agent: &Agent, pass: &str) -> Result<Ran> {
    agent.run(["join", pass, &agent.folder().to_string_lossy(), "--merge"])
}

/// The four words on a line of their own.
fn four_words(said: &str) -> Option<String> {
    let lines = said.lines().map(str::trim);
    lines
        .filter(|line| line.split(' ').count() == 4 && line.chars().all(|c| c.is_ascii_lowercase() || c == ' '))
        .map(str::to_owned)
        .next()
}

/// A second device is let in by the first: both show the same words, it gets the files and can write, it is the same member,
/// and `devices` says who let it in. Elsewhere it needs the words. Revoked, it comes back by the words only.
#[test]
fn another_device_is_let_in_revoked_and_brought_back() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.write("note.md", "hello\n")?;
    let (words, _) = words(ada)?;
    confirm(ada, &words)?.expect_code(0)?;
    let phone = stage.agent("phone")?;

    // Where nobody can be asked whether the words are the same, nobody is let in.
    let adding = add_device(ada, &[])?;
    let pass = adding.pass.clone();
    let declined = join_by_pass(&phone, &pass)?;
    let refused = adding.ended()?.expect_code(2)?;
    ensure!(refused.stderr.contains("--yes"), "{refused:?}");
    ensure!(declined.stdout.contains("Waiting"), "{declined:?}");
    ensure!(!phone.folder().join("note.md").exists());
    phone.run_here(["leave", "--yes"])?.expect_code(0)?;

    let adding = add_device(ada, &["--yes"])?;
    let joined = join_by_pass(&phone, &adding.pass)?.expect_code(0)?;
    let added = adding.ended()?.expect_code(0)?;
    let (here, there) = (four_words(&added.stderr), four_words(&joined.stderr));
    ensure!(here.is_some() && here == there, "{added:?} {joined:?}");
    wait_text(&phone, "note.md", "hello\n")?;
    phone.write("phone.md", "from the phone\n")?;
    wait_text(ben, "phone.md", "from the phone\n")?;
    wait_same(&[ada, ben, &phone])?;
    assert_eq!(ben.status()?.members(), 2);
    let shown = phone.run(["identity", "--json"])?.expect_code(0)?.json()?;
    ensure!(shown.pointer("/member/name") == Some(&Value::from("ada")), "{shown}");
    let listed = ben.run_here(["devices"])?.expect_code(0)?.stdout;
    ensure!(listed.contains("let in by"), "{listed}");

    // In another workspace nobody knows who let it in: its words vouch for it.
    let elsewhere = stage.root().join("elsewhere").to_string_lossy().into_owned();
    let asked = phone.run(["init", &elsewhere])?.expect_code(2)?;
    ensure!(asked.stderr.contains("24 words"), "{asked:?}");

    let id = text(&phone.status()?.0, "device");
    ada.run_here(["devices", "revoke", &id, "--yes"])?.expect_code(0)?;
    wait("the phone to know that it is out", LONG, || {
        Ok((phone.status()?.state() == "left" && problems(&phone)?.contains("revoked this device")).then_some(()))
    })
    .with_context(|| phone.report())?;
    ada.write("since.md", "while the phone was out\n")?;
    phone.run_here(["leave", "--yes"])?.expect_code(0)?;
    let again = add_device(ada, &["--yes"])?;
    join_by_pass(&phone, &again.pass)?;
    let refused = again.ended()?;
    ensure!(refused.code != 0 && refused.stderr.contains("by your words only"), "{refused:?}");
    phone.run_here(["leave", "--yes"])?.expect_code(0)?;
    let pass = text(&ben.run_here(["invite", "--for", "ada", "--json"])?.expect_code(0)?.json()?, "pass");
    recover(&phone, &pass, &words)?.expect_code(0)?;
    wait_text(&phone, "since.md", "while the phone was out\n")?;
    assert_eq!(text(&phone.status()?.0, "device"), id, "the same device");
    phone.write("back.md", "here I am again\n")?;
    wait_text(ben, "back.md", "here I am again\n")?;
    Ok(())
}

/// Coming back while nobody is there waits, also through a restart, and finishes by itself.
#[test]
fn coming_back_while_nobody_is_there_finishes_by_itself() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    team[1].write("note.md", "by ben\n")?;
    wait_same(&[&team[0], &team[1]])?;
    let (words, pass) = words(&team[0])?;
    let mut ben = team.remove(1);
    ben.stop()?;
    team.remove(0).kill()?;
    let mut here = stage.agent("ada-again")?;
    let waits = recover(&here, &pass, &words)?.expect_code(0)?;
    ensure!(waits.stdout.contains("this finishes by itself"), "{waits:?}");
    here.kill()?;
    here.revive()?;
    ben.revive()?;
    wait_text(&here, "note.md", "by ben\n")?;
    Ok(())
}

/// An only owner without a recovery key is warned. With one, whoever has it names another owner and removes the first, with
/// no owner's help; nothing else does.
#[test]
fn the_recovery_key_replaces_an_owner() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (mut ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    let folder = ada.folder().to_string_lossy().into_owned();
    let args = ["init", &folder, "--name", "notes", "--as", "ada", "--relay", relay.url(), "--recovery-key", "--json"];
    let made = ada.run(args)?.expect_code(0)?.json()?;
    let key = text(&made, "recovery_key");
    assert_eq!(key.split(' ').count(), 24);
    ensure!(!problems(&ada)?.contains("only owner"), "{}", problems(&ada)?);
    ben.join(&ada.invite()?)?;
    wait_settled(&[&ada, &ben])?;
    let (own, _) = words(&ada)?;
    let deeds: [&[&str]; 2] = [
        &["members", "role", "ben", "owner", "--recovery-key"],
        &["members", "remove", "ada", "--yes", "--recovery-key"],
    ];
    let with_key = |deed: &[&str], words: &str| {
        let here = ben.folder().to_string_lossy().into_owned();
        ben.run_input(["-C", here.as_str()].iter().chain(deed).copied(), words)
    };
    ensure!(with_key(deeds[0], "")?.code == 2, "it is asked for");
    let refused = with_key(deeds[0], &own)?.expect_code(1)?;
    ensure!(refused.stderr.contains("not this workspace's recovery key"), "{refused:?}");
    for deed in deeds {
        with_key(deed, &key)?.expect_code(0)?;
    }
    wait("the first owner to be out", LONG, || Ok((ada.status()?.state() == "left").then_some(())))
        .with_context(|| ada.report())?;
    ben.write("mine.md", "owned by ben\n")?;
    wait_settled(&[&ben])?;
    ensure!(!problems(&ben)?.contains("only owner"), "{}", problems(&ben)?);
    ada.stop()?;
    let first = key.split(' ').take(3).collect::<Vec<_>>().join(" ");
    ensure!(holds(stage.root(), first.as_bytes())?.is_none(), "the key is kept nowhere");

    let lone = stage.agent("lone")?;
    let ran = lone.run(["init", &lone.folder().to_string_lossy(), "--as", "lone"])?.expect_code(0)?;
    ensure!(ran.stderr.contains("only owner") && problems(&lone)?.contains("only owner"), "{ran:?}");
    Ok(())
}

/// A pass that is none, was cut short, or is an invite link is refused before anything begins.
#[test]
fn nonsense_begins_nothing() -> Result<()> {
    let stage = Stage::open()?;
    let eve = stage.agent("eve")?;
    for (given, why) in [("weft:abc\n", "not a pass"), ("weft-pass:AQAA\n", "Copy it again, whole"), ("", "not a pass")]
    {
        let refused = eve.run_input(["identity", "recover", "-", "there"], given)?.expect_code(2)?;
        ensure!(refused.stderr.contains(why), "{refused:?}");
    }
    let refused = eve.run(["join", "weft-pass:AQAA", "there"])?.expect_code(2)?;
    ensure!(refused.stderr.contains("Copy it again, whole"), "{refused:?}");
    let all = eve.run(["status", "--json"])?.json()?;
    ensure!(all.get("workspaces").and_then(Value::as_array).is_some_and(Vec::is_empty), "something began: {all}");
    Ok(())
}

fn export(agent: &Agent, file: &Path, passphrase: &str) -> Result<Ran> {
    let (folder, file) = (agent.folder().to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    agent.run_input(["-C", &folder, "export", &file], passphrase)
}

fn import(agent: &Agent, file: &Path, passphrase: &str, words: &str) -> Result<Ran> {
    let (folder, file) = (agent.folder().to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    agent.run_input(["import", &file, &folder], &format!("{passphrase}\n{words}\n"))
}

/// What only one computer ever had comes back from an export, with nobody there: every file, byte by byte. Without the
/// passphrase, with other words or a file that was cut short nothing begins.
#[test]
fn an_export_brings_back_what_only_one_computer_had() -> Result<()> {
    let stage = Stage::open()?;
    let mut lone = stage.agent("lone")?;
    lone.init(&[])?;
    let big: Vec<u8> = (0..3_000_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    lone.write("note.md", "only here\n")?;
    lone.write("deep/er/big.bin", &big)?;
    lone.write("empty", "")?;
    lone.write("run.sh", "#!/bin/sh\n")?;
    std::fs::set_permissions(lone.folder().join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    wait_settled(&[&lone])?;
    lone.write("note.md", "only here, edited\n")?;
    wait_settled(&[&lone])?;
    let (words, _) = words(&lone)?;
    confirm(&lone, &words)?.expect_code(0)?;
    let file = stage.root().join("notes.age");
    let inside = export(&lone, &lone.folder().join("notes.age"), "correct horse")?.expect_code(2)?;
    ensure!(inside.stderr.contains("outside"), "{inside:?}");
    export(&lone, &file, "short")?.expect_code(2)?;
    export(&lone, &file, "correct horse")?.expect_code(0)?;
    export(&lone, &file, "correct horse")?.expect_code(2)?;
    for secret in [&b"only here"[..], b"note.md", RootSecret::from_words(&words)?.entropy().expose()] {
        ensure!(!std::fs::read(&file)?.windows(secret.len()).any(|window| window == secret), "it is sealed");
    }
    let before = weft_tests::e2e::snapshot(lone.folder())?;
    lone.kill()?;

    let here = stage.agent("here")?;
    let wrong = import(&here, &file, "correct pony", &words)?.expect_code(1)?;
    ensure!(wrong.stderr.contains("passphrase is wrong"), "{wrong:?}");
    let other = RootSecret::from_entropy(&weft_agent_core::secret::Secret::new([7; 32])).words().to_string();
    let wrong = import(&here, &file, "correct horse", &other)?;
    ensure!(wrong.code != 0 && wrong.stderr.contains("did not belong to this workspace"), "{wrong:?}");
    let bytes = std::fs::read(&file)?;
    let cut = stage.root().join("cut.age");
    for len in [1000, bytes.len() - 1000] {
        std::fs::write(&cut, &bytes[..len])?;
        let wrong = import(&here, &cut, "correct horse", &words)?.expect_code(1)?;
        ensure!(wrong.stderr.contains("cut short"), "{wrong:?}");
    }
    ensure!(!here.run(["status", "--json"])?.stdout.contains("notes"), "nothing began");

    // Whoever lost the words too still has the files.
    let out = stage.root().join("taken out");
    let take_out = |passphrase: &str| {
        let (file, out) = (file.to_string_lossy().into_owned(), out.to_string_lossy().into_owned());
        here.run_input(["import", &file, &out, "--files-only"], passphrase)
    };
    let wrong = take_out("correct pony")?.expect_code(1)?;
    ensure!(wrong.stderr.contains("passphrase is wrong") && !out.exists(), "{wrong:?}");
    let taken = take_out("correct horse")?.expect_code(0)?;
    ensure!(taken.stdout.contains("4 files of") && taken.stdout.contains("no workspace"), "{taken:?}");
    let without = weft_tests::e2e::snapshot(&out)?;
    ensure!(before == without, "{}", weft_tests::e2e::differences(&before, &without));
    let again = take_out("correct horse")?.expect_code(1)?;
    ensure!(again.stderr.contains("is not empty"), "{again:?}");
    ensure!(!here.run(["status", "--json"])?.stdout.contains("notes"), "nothing began");

    import(&here, &file, "correct horse", &words)?.expect_code(0)?;
    let after = weft_tests::e2e::snapshot(here.folder())?;
    ensure!(before == after, "{}", weft_tests::e2e::differences(&before, &after));
    wait("all four to be taken in", LONG, || Ok((here.status()?.number("/files") == 4).then_some(())))
        .with_context(|| here.report())?;
    Ok(())
}

/// A team's workspace comes back from an export with its history and keys; when the others come online they meet: the same
/// member, one device more, and edits flow both ways.
#[test]
fn an_export_meets_the_others_again() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let big: Vec<u8> = (0..400_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    team[0].write("note.md", "one\ntwo\nthree\n")?;
    team[0].write("big.bin", &big)?;
    wait_same(&[&team[0], &team[1]])?;
    team[1].write("note.md", "one\ntwo by ben\nthree\n")?;
    wait_text(&team[0], "note.md", "one\ntwo by ben\nthree\n")?;
    let mut ben = team.remove(1);
    let mut ada = team.remove(0);
    ben.stop()?;
    ada.write("late.md", "nobody else has this\n")?;
    let (words, _) = words(&ada)?;
    wait("ada to have read it", LONG, || Ok((ada.status()?.number("/files") == 3).then_some(())))?;
    let file = stage.root().join("notes.age");
    export(&ada, &file, "correct horse")?.expect_code(0)?;
    ada.kill()?;
    let here = stage.agent("here")?;
    import(&here, &file, "correct horse", &words)?.expect_code(0)?;
    assert_eq!(here.read("note.md")?, "one\ntwo by ben\nthree\n");
    assert_eq!(here.read("late.md")?, "nobody else has this\n");
    here.write("note.md", "one by ada\ntwo by ben\nthree\n")?;
    ben.revive()?;
    ben.write("note.md", "one\ntwo by ben\nthree by ben\n")?;
    wait_text(&here, "note.md", "one by ada\ntwo by ben\nthree by ben\n")?;
    wait_text(&ben, "late.md", "nobody else has this\n")?;
    wait_same(&[&ben, &here])?;
    assert_eq!(ben.status()?.members(), 2);
    Ok(())
}
