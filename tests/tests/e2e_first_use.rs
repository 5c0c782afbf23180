//! The first hour with Weft: what a person types wrong, pastes in part, interrupts or looks at, with the real programs.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::e2e::{Agent, LONG, Stage, wait, wait_settled};

/// `weft` on a terminal: `script` makes one, passes on what is typed, and gives what is shown.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A shell command line in which `$WEFT` is the program.
    fn run(agent: &Agent, line: &str) -> Result<Terminal> {
        let weft = agent.command();
        let mut command = Command::new("script");
        for (name, value) in weft.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("WEFT", weft.get_program()).env("TERM", "dumb").env("SHELL", "/bin/sh").current_dir(agent.home());
        command.args(["-qefc", line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("this test needs `script` (of util-linux)")?;
        let (keys, mut out) = (child.stdin.take().context("no keys")?, child.stdout.take().context("no screen")?);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let screen = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
                screen.extend_from_slice(bytes.get(..read).unwrap_or_default());
            }
        });
        Ok(Terminal { child, keys, shown })
    }
    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
    fn wait_for(&self, text: &str) -> Result<()> {
        wait(text, LONG, || Ok(self.screen().contains(text).then_some(()))).with_context(|| self.screen())
    }
    fn keys(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(self.keys.flush()?)
    }
    /// Its exit code, when it has ended by itself.
    fn ended(&mut self) -> Result<i32> {
        let status = wait("the command to end", LONG, || Ok(self.child.try_wait()?)).with_context(|| self.screen())?;
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = (self.child.kill(), self.child.wait());
    }
}

const CTRL_C: &str = "\u{3}";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The error object on the last line of standard error.
fn error_of(stderr: &str) -> Result<Value> {
    let last = stderr.trim().lines().last().context("nothing on standard error")?;
    let said: Value = serde_json::from_str(last).with_context(|| format!("not JSON: {last:?}"))?;
    said.get("error").cloned().context("no error in it")
}

/// Ctrl-C ends at a question for a line, at one for a secret, and at yes or no; the terminal shows again what is typed, and
/// nothing was done.
#[test]
fn ctrl_c_ends_at_every_question() -> Result<()> {
    let stage = Stage::open()?;
    let agent = stage.agent("ada")?;
    agent.init(&[])?;
    let mut line = Terminal::run(&agent, "exec $WEFT join")?;
    line.wait_for("Paste the link")?;
    line.keys(CTRL_C)?;
    ensure!(line.ended()? == 130, "{}", line.screen());

    let export = agent.home().join("none.age");
    std::fs::write(&export, "x")?;
    // The shell outlives it, and says how the terminal is left.
    let mut secret =
        Terminal::run(&agent, "trap : INT; $WEFT import none.age there; echo code=$?; stty -a | grep -o '.echo '")?;
    secret.wait_for("passphrase:")?;
    secret.keys(CTRL_C)?;
    secret.wait_for("code=130")?;
    secret.ended()?;
    ensure!(secret.screen().contains(" echo") && !secret.screen().contains("-echo"), "{}", secret.screen());

    let folder = agent.folder().to_string_lossy().into_owned();
    let mut yes_or_no = Terminal::run(&agent, &format!("exec $WEFT -C '{folder}' leave"))?;
    yes_or_no.wait_for("[y/N]")?;
    yes_or_no.keys(CTRL_C)?;
    ensure!(yes_or_no.ended()? == 130, "{}", yes_or_no.screen());
    wait_settled(&[&agent])
}

/// `weft up` ends at Ctrl-C, and with a second one at its question too; the agent that it started ends with it. Started again
/// it gives the same link.
#[test]
fn up_leaves_nothing_behind_and_uses_its_link_again() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let agent = Agent::idle(stage.root(), "ada")?;
    let folder = agent.folder().to_string_lossy().into_owned();
    let mut links = Vec::new();
    for _ in 0..2 {
        let mut up = Terminal::run(&agent, &format!("exec $WEFT up '{folder}' --relay {}", relay.url()))?;
        up.wait_for("Ctrl-C ends")?;
        up.keys(CTRL_C)?;
        up.wait_for("Go on syncing in the background?")?;
        up.keys(CTRL_C)?;
        ensure!(up.ended()? == 0, "{}", up.screen());
        ensure!(agent.run(["status"])?.code == 4, "an agent was left behind: {}", up.screen());
        let screen = up.screen();
        ensure!(screen.contains("weft join -"), "{screen}");
        let link = screen.split_whitespace().find(|word| word.starts_with("weft:")).context("no link")?;
        links.push(link.to_owned());
    }
    ensure!(links.first() == links.last(), "{links:?}");
    Ok(())
}

/// What only looks says that no agent runs, and starts none; what only needs an answer ends the agent that it started; what
/// fails leaves none behind; what begins something leaves one, and says so.
#[test]
fn no_agent_is_left_behind_unasked() -> Result<()> {
    let stage = Stage::open()?;
    let agent = Agent::idle(stage.root(), "ada")?;
    let folder = agent.folder().to_string_lossy().into_owned();
    let runs = || Ok::<bool, anyhow::Error>(agent.run(["status", "--json"])?.code != 4);
    for looks in [
        &["log"][..],
        &["members"],
        &["devices"],
        &["invites"],
        &["requests"],
        &["relays"],
        &["peers"],
        &["status"],
        &["flush"],
        &["pause"],
        &["resume"],
    ] {
        let ran = agent.run_here(looks)?;
        ensure!(ran.code == 4 && ran.stderr.contains("weft start"), "{looks:?}: {ran:?}");
    }
    for (args, code) in [
        (&["identity"][..], 0),
        (&["join", "weft:AgAB"], 2),
        (&["init", "/"], 2),
        (&["init", folder.as_str(), "--relay", "nonsense"], 2),
        (&["invite"], 2),
        (&["demo", "--no-such"], 2),
    ] {
        let ran = agent.run_here(args)?;
        ensure!(ran.code == code, "{args:?}: {ran:?}");
        ensure!(!runs()?, "{args:?} left an agent behind: {ran:?}");
    }
    let outcome = (|| {
        let made = agent.run(["init", folder.as_str(), "--as", "ada"])?.expect_code(0)?;
        ensure!(made.stderr.contains("runs in the background from now on"), "{made:?}");
        ensure!(runs()?, "{made:?}");
        Ok(())
    })();
    agent.end_background()?;
    outcome
}

/// A dead relay is said at once, and the workspace made; one that answers in another way, or is none, is refused with what was
/// probably meant, and nothing is made. `status` and `doctor` say the same.
#[test]
fn a_wrong_relay_is_said_at_once() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let agent = stage.agent("ada")?;
    let folder = agent.folder().to_string_lossy().into_owned();
    let secure = relay.url().replacen("ws://", "wss://", 1);
    let refused = agent.run(["init", &folder, "--relay", &secure])?.expect_code(2)?;
    ensure!(refused.stderr.contains(&format!("answers without TLS: did you mean {}?", relay.url())), "{refused:?}");
    ensure!(!agent.folder().join(".weft").exists(), "nothing is made of it");
    let refused = agent.run(["init", &folder, "--relay", "relay.example.org"])?.expect_code(2)?;
    ensure!(refused.stderr.contains("relay.example.org"), "{refused:?}");

    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let dead = format!("ws://127.0.0.1:{free}");
    let made = agent.run(["init", &folder, "--relay", &dead, "--as", "ada"])?.expect_code(0)?;
    ensure!(made.stderr.contains("nothing listens at 127.0.0.1"), "{made:?}");
    wait("status to say it too", LONG, || {
        Ok(agent.run_here(["status"])?.stdout.contains("nothing listens at").then_some(()))
    })?;
    let doctor = agent.run(["doctor"])?.expect_code(3)?;
    ensure!(doctor.stdout.contains("nothing listens at"), "{doctor:?}");

    let refused = agent.run_here(["relays", "add", &secure])?.expect_code(2)?;
    ensure!(refused.stderr.contains("did you mean ws://"), "{refused:?}");
    agent.run_here(["relays", "add", relay.url()])?.expect_code(0)?;
    agent.run_here(["relays", "remove", &dead])?.expect_code(0)?;
    // Words that are not confirmed, and an owner who is alone, are to be remembered; the installation is well.
    wait("doctor to be content", LONG, || Ok((agent.run(["doctor"])?.code == 0).then_some(())))
        .with_context(|| agent.report())?;
    let doctor = agent.run(["doctor"])?.expect_code(0)?;
    ensure!(doctor.stdout.contains("remember: ") && doctor.stdout.contains("weft identity words"), "{doctor:?}");
    let shown = agent.run_here(["relays"])?.expect_code(0)?;
    ensure!(shown.stdout.contains(relay.url()) && !shown.stdout.contains("lan "), "{shown:?}");
    Ok(())
}

/// A link that a mail wrapped and quoted lets in, from standard input; one that is cut or mistyped is refused as such, within
/// the command and before any agent or network is asked; so is a pass.
#[test]
fn links_survive_the_mail() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    let link = ada.invite()?;
    let lines: Vec<&str> = link.as_bytes().chunks(60).map(std::str::from_utf8).collect::<Result<_, _>>()?;
    let mail =
        format!("On Monday Ada wrote:\n> Hello Ben, this is the link:\n>\n> <{}>.\n\nSee you!\n", lines.join("\n> "));
    let ben = Agent::idle(stage.root(), "ben")?;
    let folder = ben.folder().to_string_lossy().into_owned();

    let cut = link.get(..link.len() - 9).context("short")?;
    let refused = ben.run_input(["join", "-", &folder], &format!("{cut}\n"))?.expect_code(2)?;
    ensure!(
        refused.stderr.contains("the link is incomplete") && refused.stderr.contains("characters are here"),
        "{refused:?}"
    );
    let at = link.len() - 20;
    let (before, after) = (link.get(..at).context("short")?, link.get(at + 1..).context("short")?);
    let other = if link.get(at..=at) == Some("x") { "y" } else { "x" };
    let mistyped = format!("{before}{other}{after}");
    let refused = ben.run(["join", &mistyped, &folder, "--json"])?.expect_code(2)?;
    let error = error_of(&refused.stderr)?;
    ensure!(text(&error, "code") == "link-mistyped" && text(&error, "message").contains("mistyped"), "{error}");
    ensure!(error.get("exit").and_then(Value::as_u64) == Some(2), "{error}");
    ensure!(ben.run(["status"])?.code == 4, "no agent was needed for that");

    let outcome = (|| {
        ben.run_input(["join", "-", &folder, "--as", "ben"], &mail)?.expect_code(0)?;
        wait("ben to be in", LONG, || Ok((ada.status()?.members() == 2).then_some(())))
    })();
    ben.end_background()?;
    outcome
}

/// Errors are objects with a stable code where JSON was asked for: of arguments, of the command, and of the agent.
#[test]
fn errors_are_json_for_programs() -> Result<()> {
    let stage = Stage::open()?;
    let idle = Agent::idle(stage.root(), "ben")?;
    let ada = stage.agent("ada")?;
    ada.init(&[])?;
    for (ran, code, exit) in [
        (idle.run(["status", "--json"])?, "not-running", 4),
        (idle.run(["no-such-command", "--json"])?, "usage", 2),
        (ada.run_here(["invite", "--expires", "soon", "--json"])?, "usage", 2),
        (ada.run(["-C", "/", "members", "--json"])?, "not-a-workspace", 2),
        (ada.run_here(["members", "role", "Adda", "reader", "--json"])?, "unknown-name", 2),
        (ada.run_here(["relays", "add", "nonsense", "--json"])?, "relay-wrong", 2),
        (ada.run_here(["flush", "--timeout", "1s", "--json"])?, "attention", 3),
    ] {
        let error = error_of(&ran.stderr)?;
        ensure!(ran.code == exit && text(&error, "code") == code, "{code}: {ran:?}");
        ensure!(!text(&error, "message").is_empty(), "{ran:?}");
    }
    let plain = ada.run_here(["members", "role", "Adda", "reader"])?.expect_code(2)?;
    ensure!(plain.stderr.starts_with("error: "), "{plain:?}");
    Ok(())
}

/// `help` is a command; unknown names are answered with the nearest; `log` takes a path however it is written, and a name in
/// any case.
#[test]
fn what_was_meant_is_found() -> Result<()> {
    let stage = Stage::open()?;
    let ada = stage.agent("ada")?;
    ada.init(&[])?;
    ada.write("sub/plan.md", "a plan\n")?;
    wait_settled(&[&ada])?;
    wait("the log to tell", LONG, || Ok(ada.run_here(["log"])?.stdout.contains("sub/plan.md").then_some(())))?;
    let help = ada.run(["help"])?.expect_code(0)?;
    ensure!(help.stdout.contains("Share a folder:"), "{help:?}");
    let help = ada.run(["help", "join"])?.expect_code(0)?;
    ensure!(help.stdout.contains("--merge"), "{help:?}");
    let absolute = ada.folder().join("sub/plan.md").to_string_lossy().into_owned();
    for path in ["sub/plan.md", "./sub/plan.md", "sub", "./", absolute.as_str()] {
        let log = ada.run_here(["log", path, "--by", "ADA"])?.expect_code(0)?;
        ensure!(log.stdout.contains("created sub/plan.md"), "{path}: {log:?}");
    }
    for (args, meant) in [
        (&["log", "sub/pln.md"][..], "did you mean \"sub/plan.md\"?"),
        (&["log", "--by", "adda"], "did you mean \"ada\"?"),
        (&["members", "role", "adda", "reader"], "did you mean \"ada\"?"),
        (&["members", "role", "ada", "redaer"], "did you mean \"reader\"?"),
        (&["config", "get", "lan_prot"], "did you mean \"lan_port\"?"),
        (&["stauts"], "status"),
    ] {
        let refused = ada.run_here(args)?.expect_code(2)?;
        ensure!(refused.stderr.contains(meant), "{args:?}: {refused:?}");
    }
    let elsewhere = ada.run(["-C", "/", "log"])?.expect_code(2)?;
    ensure!(elsewhere.stderr.contains(&format!("did you mean -C {}?", ada.folder().display())), "{elsewhere:?}");
    Ok(())
}
