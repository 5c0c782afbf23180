//! `weft join`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_agent_core::enrol::{Pass, PassError};
use weft_agent_core::invite_link::{InviteLink, LinkError};
use zeroize::Zeroizing;

use super::args::Join;
use super::client::Client;
use super::question::SoFar;
use super::status::{ask_one, list, number, text};
use super::term::{self, Style};
use super::{Context, Ended, pair, question, share, words};
use crate::daemon::wire::{Failure, Request};

/// So long somebody may take to answer before the command ends and the agent goes on alone.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What is pasted for a link at most: the link, wrapped and quoted, and the mail around it.
pub(crate) const PASTED_BYTES_MAX: usize = 16 * 1024;

/// A refusal is told if nobody lets the joiner in within this.
const REFUSED_STANDS: Duration = Duration::from_secs(1);

/// `weft join`.
pub(crate) fn run(context: &Context, join: &Join) -> Ended {
    let given = match join.link.as_deref() {
        Some("-") | None => ask_link()?.to_string(),
        Some(link) => link.to_owned(),
    };
    // What is mistyped is said here, before anybody is asked.
    let link = match InviteLink::parse(&given) {
        Err(LinkError::APass) => return pair::join(context, join, &given),
        link => link?,
    };
    let (dir, holds_files) = folder_for(context, join.folder.as_deref(), &link.name, join.merge)?;
    if join.dry_run {
        return dry_run(context, &link, &dir, holds_files);
    }
    let mut client = Client::ready(&context.home)?;
    let words = words::if_certificate_needed(&mut client)?;
    let request = Request::Join { dir: dir.clone(), link: given, display_name: join.display_name.clone(), words };
    let made = client.ask(&request)?;
    let dir = made.get("path").and_then(Value::as_str).map_or(dir, PathBuf::from);
    wait(context, &mut client, &dir, &link.name)
}

/// A link or a pass, from a terminal or standard input; it may have been wrapped on its way.
fn ask_link() -> Result<Zeroizing<String>, Failure> {
    question::ask_wrapped("Paste the link (weft:...):", PASTED_BYTES_MAX, |text| {
        match (InviteLink::parse(text), Pass::parse(text)) {
            // On a terminal nobody pastes a mail's head.
            (Err(LinkError::NotALink), _) if !std::io::stdin().is_terminal() => SoFar::NotBegun,
            (Err(LinkError::Incomplete { .. }), _) | (_, Err(PassError::Incomplete { .. })) => SoFar::More,
            _ => SoFar::Enough,
        }
    })
}

/// The folder that a workspace comes into, and whether it holds files already, which takes `merge`.
pub(crate) fn folder_for(
    context: &Context,
    given: Option<&Path>,
    name: &str,
    merge: bool,
) -> Result<(PathBuf, bool), Failure> {
    let dir = match given {
        Some(dir) => share::folder(context, Some(dir))?,
        None => match &context.dir {
            Some(_) => context.folder()?,
            None => std::env::current_dir()?.join(folder_name(name)),
        },
    };
    let holds_files =
        std::fs::read_dir(&dir).is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != ".weft"));
    if holds_files && !merge {
        return Err(Failure::usage(format!(
            "{} is not empty; give --merge to join it with the workspace (equal files meet, of differing ones both are \
             kept), or name another folder",
            dir.display()
        )));
    }
    Ok((dir, holds_files))
}

fn dry_run(context: &Context, link: &InviteLink, dir: &Path, holds_files: bool) -> Ended {
    if context.json {
        let shown = json!({"name": link.name, "workspace": link.workspace.to_string(), "path": dir, "merge": holds_files, "urls": link.urls});
        term::say(&shown.to_string());
        return Ok(0);
    }
    term::say(&format!("Would join '{}' in {}.", term::paint(Style::Bold, &link.name), dir.display()));
    if holds_files {
        term::say("The files there would be merged with the workspace's.");
    }
    for url in &link.urls {
        term::say(&format!("Would ask at {url}"));
    }
    Ok(0)
}

/// Waits for somebody's answer, then for the first files.
pub(crate) fn wait(context: &Context, client: &mut Client, dir: &Path, name: &str) -> Ended {
    let spinner = term::spinner(&format!("Waiting for someone of '{name}'"));
    let deadline = Instant::now() + ANSWER_MAX;
    let mut last = Value::Null;
    let mut joined = false;
    let mut refused: Option<Instant> = None;
    let mut said_unreachable = false;
    while Instant::now() < deadline {
        last = ask_one(client, dir)?;
        let state = text(&last, "state");
        if state == "left" {
            spinner.finish_and_clear();
            return Err(Failure::attention(
                problems(&last).unwrap_or_else(|| "the invite is not valid any more".to_owned()),
            ));
        }
        joined = !matches!(state, "joining" | "starting");
        if !joined
            && !said_unreachable
            && let Some(lines) = unreachable(&last)
        {
            said_unreachable = true;
            spinner.suspend(|| lines.iter().for_each(|line| term::note(line)));
        }
        match heard(&last) {
            "waiting" if !joined => break,
            // Of several members, one may know more than the one who said no.
            "refused" if !joined && refused.get_or_insert_with(Instant::now).elapsed() > REFUSED_STANDS => break,
            _ => {}
        }
        if joined {
            spinner
                .set_message(format!("Receiving '{name}': {}", term::count(number(&last, "files"), "file", "files")));
            if last.get("settled") == Some(&Value::Bool(true)) {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    spinner.finish_and_clear();
    if !joined && heard(&last) == "refused" {
        if context.json {
            term::say(&last.to_string());
        }
        let why = last.get("knocking").map_or("", |heard| text(heard, "why"));
        return Err(Failure::attention(format!(
            "{why}\nThis agent goes on asking. With another link: weft join LINK. To give up: weft -C {} leave",
            dir.display()
        )));
    }
    if context.json {
        term::say(&last.to_string());
        return Ok(0);
    }
    if heard(&last) == "waiting" {
        let words = last.get("knocking").map_or("", |heard| text(heard, "fingerprint"));
        term::say(&format!("Asked. An admin or owner of '{name}' has to let you in; this finishes by itself."));
        term::say(&format!("Your four words, for them to compare: {}", term::paint(Style::Bold, words)));
        return Ok(0);
    }
    if joined {
        let files = term::count(number(&last, "files"), "file", "files");
        term::say(&format!("Joined '{}' in {} ({files}).", term::paint(Style::Bold, name), dir.display()));
        if last.get("settled") != Some(&Value::Bool(true)) {
            term::say("More is arriving; `weft status --watch` shows how it goes.");
        }
        return Ok(0);
    }
    term::say(&format!("Waiting for someone of '{name}'; this finishes by itself."));
    for address in last.get("addresses").and_then(Value::as_array).into_iter().flatten() {
        let why = address.get("why").and_then(Value::as_str);
        let state = if address.get("up") == Some(&Value::Bool(true)) {
            "connected, nobody answers yet".to_owned()
        } else {
            why.unwrap_or("connecting").to_owned()
        };
        term::say(&format!("  {}  {state}", text(address, "url")));
    }
    term::note(
        "A link whose maker is offline, or that was made up, meets nobody: if this stays so, ask the person who sent it.",
    );
    Ok(0)
}

/// Why no address of the link can be reached, once that is known of all of them.
fn unreachable(status: &Value) -> Option<Vec<String>> {
    let addresses = list(status, "addresses");
    let why = |address: &Value| {
        let why =
            address.get("why").and_then(Value::as_str).filter(|_| address.get("up") != Some(&Value::Bool(true)))?;
        Some(format!("! {}: {why}", text(address, "url")))
    };
    (!addresses.is_empty()).then(|| addresses.iter().map(why).collect::<Option<Vec<String>>>()).flatten()
}

/// What the joiner has heard: `unheard`, `waiting`, `refused`, or nothing once it is in.
fn heard(status: &Value) -> &str {
    status.get("knocking").map_or("", |heard| text(heard, "state"))
}

fn problems(status: &Value) -> Option<String> {
    let problems: Vec<&str> = status.get("problems")?.as_array()?.iter().filter_map(Value::as_str).collect();
    (!problems.is_empty()).then(|| problems.join("\n"))
}

/// A workspace's name as the name of a folder.
fn folder_name(name: &str) -> String {
    let kept: String =
        name.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\' | ':') { '-' } else { c }).collect();
    let kept = kept.trim().trim_start_matches('.').to_owned();
    if kept.is_empty() { "workspace".to_owned() } else { kept.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name chosen by somebody else never leads out of the current folder.
    #[test]
    fn names_become_harmless_folders() {
        for (name, folder) in
            [("notes", "notes"), ("../../etc", "-..-etc"), ("a/b", "a-b"), ("..", "workspace"), ("", "workspace")]
        {
            assert_eq!(folder_name(name), folder);
        }
    }
}
