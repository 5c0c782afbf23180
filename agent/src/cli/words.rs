//! `weft identity words`, `weft identity recover`, `weft invite --for`, and asking for words where they are needed.
//!
//! Invariant: words are asked for or read from standard input, never taken from an argument, and printed only on a terminal
//! or when told so.
//! Spec: docs/using.md#your-words.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_agent_core::enrol::{Pass, PassError};
use weft_agent_core::identity::RootSecret;
use zeroize::Zeroizing;

use super::args::Invite;
use super::client::Client;
use super::question::{self, SoFar};
use super::status::{list, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, join};
use crate::daemon::enrol::WORDS_NEEDED;
use crate::daemon::wire::{Failure, Hidden, Request};

/// How many of the words are asked for.
const ASKED: usize = 4;
/// How often one may be mistyped.
const TRIES: usize = 3;
/// 24 words are at most 215 bytes; anything much longer is something else.
const INPUT_BYTES_MAX: u64 = 4096;

/// Asks for the words of an identity.
pub(crate) fn asked(question: &str) -> Result<Hidden, Failure> {
    asked_for(question, WORDS_NEEDED)
}

/// Asks for words; `needed`: what is said if none come. Which word is mistyped is said here, and on a terminal they may be
/// typed again.
fn asked_for(question: &str, needed: &str) -> Result<Hidden, Failure> {
    let mut left = if std::io::stdin().is_terminal() { TRIES } else { 1 };
    loop {
        let words = Zeroizing::new(term::ask_secret(question)?);
        if words.is_empty() {
            return Err(Failure::usage(needed).code("words-needed"));
        }
        left -= 1;
        match RootSecret::from_words(&words) {
            Ok(_) => return Ok(Hidden::new(words.to_string())),
            Err(error) if left == 0 => return Err(error.into()),
            Err(error) => term::note(&format!("{error}. Once more:")),
        }
    }
}

fn member(client: &mut Client) -> Result<Option<Value>, Failure> {
    let shown = client.ask(&Request::Identity)?;
    Ok(shown.get("member").filter(|member| !member.is_null()).cloned())
}

/// Asks for the words, if there is an identity and they are not here.
pub(crate) fn if_needed(client: &mut Client) -> Result<Option<Hidden>, Failure> {
    let gone = member(client)?.is_some_and(|member| member.get("has_root") == Some(&Value::Bool(false)));
    gone.then(|| asked("Your 24 words (this computer does not keep them, and this needs them):")).transpose()
}

/// Asks for the words, if this device was let in by another one and so is known only where that one is.
pub(crate) fn if_certificate_needed(client: &mut Client) -> Result<Option<Hidden>, Failure> {
    let certified = member(client)?.is_none_or(|member| member.get("by_root") == Some(&Value::Bool(true)));
    (!certified)
        .then(|| asked("Your 24 words (another device let this one in; for other workspaces your words vouch for it):"))
        .transpose()
}

/// The recovery key, if it is to be used.
pub(crate) fn recovery_key(wanted: bool) -> Result<Option<Hidden>, Failure> {
    let needed =
        "this needs the 24 words of the workspace's recovery key; they are asked for, or read from standard input";
    wanted.then(|| asked_for("The workspace's recovery key (24 words):", needed)).transpose()
}

/// Prints a recovery key that was just made, once.
pub(crate) fn show_recovery_key(made: &Value) {
    let words = text(made, "recovery_key");
    if words.is_empty() {
        return;
    }
    term::say(&format!("\nThe recovery key of '{}':\n\n{}", text(made, "name"), in_columns(words)));
    term::say(
        "With it, any member decides who the owners are. It is printed this once and kept on no computer: write it down, \
         and keep it apart from your own words.\n",
    );
}

/// Words with their numbers, four a line.
fn in_columns(words: &str) -> String {
    let numbered: Vec<String> =
        words.split(' ').enumerate().map(|(at, word)| format!("{:>4} {word:<10}", at + 1)).collect();
    numbered.chunks(4).map(|line| line.concat().trim_end().to_owned() + "\n").collect()
}

/// `weft identity words`.
pub(crate) fn run(context: &Context, show: bool) -> Ended {
    let mut client = Client::ready(&context.home)?;
    let watched = term::is_watched() && !context.json;
    if !show
        && !watched
        && member(&mut client)?.is_some_and(|member| member.get("has_root") == Some(&Value::Bool(true)))
    {
        return Err(Failure::usage("words are printed on a terminal only; --show prints them anyway"));
    }
    let all = client.ask(&Request::Words)?;
    if context.json {
        term::say(&all.to_string());
        return Ok(0);
    }
    let words = Zeroizing::new(text(&all, "words").to_owned());
    if words.is_empty() {
        term::say("Your 24 words are not on this computer. With them, these passes lead back to your workspaces:\n");
    } else {
        term::say(&format!("The 24 words of {}:\n\n{}", paint(Style::Bold, text(&all, "name")), in_columns(&words)));
        term::say(
            "They bring you back if this computer is lost. Anybody who has them can act as you: write them on paper, \
             and show them to nobody. With them, these passes lead back to your workspaces:\n",
        );
    }
    for workspace in list(&all, "workspaces") {
        let pass = text(workspace, "pass");
        term::say(&format!("{}  {}", paint(Style::Bold, text(workspace, "name")), text(workspace, "workspace")));
        for url in list(workspace, "urls").iter().filter_map(Value::as_str) {
            term::say(&format!("  at {url}"));
        }
        if workspace.get("alone") == Some(&Value::Bool(true)) {
            term::say(
                "  no other device has its files yet: until one has, only an export brings them back (weft export FILE)",
            );
        }
        term::say(&format!("  {}\n", if pass.is_empty() { text(workspace, "why") } else { pass }));
    }
    let name = text(&all, "name");
    term::say(&format!(
        "A pass lets nobody in without the words. Without it, any member makes a new one: weft invite --for {name:?}"
    ));
    if words.is_empty() || !watched || !std::io::stdin().is_terminal() {
        return Ok(0);
    }
    term::say(
        "\nNow type some of the words from your paper. If they are right, the words are erased from this computer, and \
         nobody asks for them again until something needs them.",
    );
    if !quiz(&words, &mut |question| term::ask(question))? {
        term::note("Not confirmed: the words stay on this computer. Try again: weft identity words");
        return Ok(3);
    }
    erase(context, &mut client, Hidden::new(words.to_string()))
}

/// Asks for some of the words; whether they were right.
fn quiz(words: &str, ask: &mut dyn FnMut(&str) -> Result<String, Failure>) -> Result<bool, Failure> {
    let mut left: Vec<(usize, &str)> = words.split(' ').enumerate().collect();
    for _ in 0..ASKED.min(left.len()) {
        let [random] = crate::engine::random::<1>();
        let (at, word) = left.remove(usize::from(random) % left.len());
        let question = format!("Word {}:", at + 1);
        let mut right = false;
        for _ in 0..TRIES {
            if ask(&question)?.trim().eq_ignore_ascii_case(word) {
                right = true;
                break;
            }
        }
        if !right {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `weft identity words -`: all 24 on standard input.
pub(crate) fn confirm(context: &Context) -> Ended {
    let mut words = Zeroizing::new(String::new());
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut words)?;
    let words = Hidden::new(words.trim().to_owned());
    erase(context, &mut Client::ready(&context.home)?, words)
}

fn erase(context: &Context, client: &mut Client, words: Hidden) -> Ended {
    let done = client.ask(&Request::ForgetWords { words })?;
    if context.json {
        term::say(&done.to_string());
    } else {
        term::say("The words are right, and erased here. Commands that need them ask for them from now on.");
    }
    Ok(0)
}

/// `weft identity recover`.
pub(crate) fn recover(context: &Context, pass: Option<&str>, folder: Option<&Path>, merge: bool) -> Ended {
    let given = match pass {
        Some("-") | None => ask_pass()?.to_string(),
        Some(pass) => pass.to_owned(),
    };
    let pass = Pass::parse(&given)?;
    let (dir, _) = join::folder_for(context, folder, &pass.name, merge)?;
    let words = asked("Your 24 words:")?;
    enrol(context, dir, given, Some(words), None, &pass.name)
}

/// A pass, from a terminal or standard input; it may have been wrapped on its way.
fn ask_pass() -> Result<Zeroizing<String>, Failure> {
    let question = "Paste the pass (weft-pass:...), from your paper or from a member's `weft invite --for`:";
    question::ask_wrapped(question, join::PASTED_BYTES_MAX, |text| match Pass::parse(text) {
        Err(PassError::Incomplete { .. }) => SoFar::More,
        // The words stand behind it, and are not to be taken for a part of it.
        _ => SoFar::Enough,
    })
}

/// Asks to be let in as a further device, and waits as `weft join` does.
pub(crate) fn enrol(
    context: &Context,
    dir: PathBuf,
    pass: String,
    words: Option<Hidden>,
    display_name: Option<String>,
    name: &str,
) -> Ended {
    let mut client = Client::ready(&context.home)?;
    let request = Request::Enrol { dir: dir.clone(), pass: Hidden::new(pass), words, display_name };
    let made = client.ask(&request)?;
    let dir = made.get("path").and_then(Value::as_str).map_or(dir, PathBuf::from);
    let shown = text(&made, "words");
    if !shown.is_empty() {
        term::note(&format!(
            "Say yes on the other device if it shows these four words too:\n\n  {}\n",
            paint(Style::Bold, shown)
        ));
    }
    join::wait(context, &mut client, &dir, name)
}

/// `weft invite --for`.
pub(crate) fn pass_for(context: &Context, who: &str, invite: &Invite) -> Ended {
    if invite.role.is_some() || invite.expires.is_some() || invite.approve {
        return Err(Failure::usage(
            "a pass for a member takes no --role, --expires or --approve: it lets nobody in without their words, and they come \
             back as what they are. For somebody new: their key, --for did:key:..., or no --for",
        ));
    }
    let dir = context.folder()?;
    let made = Client::ready(&context.home)?.ask(&Request::PassFor { dir, who: who.to_owned() })?;
    if context.json {
        term::say(&made.to_string());
        return Ok(0);
    }
    let pass = text(&made, "pass");
    term::say(pass);
    if invite.qr {
        term::say(&term::qr(pass)?);
    }
    term::note(&format!(
        "For {} to come back with their 24 words; without those it lets nobody in.\nThey run `weft identity recover` and paste it.",
        text(&made, "name")
    ));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever has the words passes, one that was mistyped may be put right, and whoever has not, fails.
    #[test]
    fn only_who_has_the_words_passes() {
        let words: Vec<String> = (1..=24).map(|number| format!("word{number}")).collect();
        let all = words.join(" ");
        let number =
            |question: &str| question.trim_start_matches("Word ").trim_end_matches(':').parse::<usize>().unwrap() - 1;
        let mut asked = Vec::new();
        let passed = quiz(&all, &mut |question| {
            asked.push(number(question));
            // Every first try is wrong.
            let again = asked.iter().filter(|at| **at == number(question)).count() > 1;
            Ok(if again { words[number(question)].to_uppercase() } else { "wrong".to_owned() })
        });
        assert!(passed.unwrap());
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), ASKED);
        let next = |question: &str| words[(number(question) + 1) % 24].clone();
        assert!(!quiz(&all, &mut |question| Ok(next(question))).unwrap());
    }

    /// Words stand in columns with their numbers, so that none is skipped on paper.
    #[test]
    fn words_stand_in_columns() {
        let shown = in_columns("a b c d e");
        assert_eq!(shown, "   1 a            2 b            3 c            4 d\n   5 e\n");
    }
}
