//! `weft up`: everything for a first share in one command.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::args::{Invite, Up};
use super::client::{self, Client};
use super::question::{self, Listening};
use super::status::{ask_one, list, number, summary, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, share, words};
use crate::daemon::wire::{Failure, Request};

/// `weft up`. The agent that it started ends with it, however it ends, unless its person wants it to go on.
pub(crate) fn run(context: &Context, up: &Up) -> Ended {
    let listening = question::listen();
    let ended = begin(context, up, &listening);
    if ended.is_err() {
        client::stop_started(&context.home);
    }
    ended
}

fn begin(context: &Context, up: &Up, listening: &Listening) -> Ended {
    let dir = share::folder(context, up.folder.as_deref())?;
    let is_workspace = dir.ancestors().any(|above| above.join(".weft/marker.toml").exists());
    let new = if is_workspace {
        None
    } else {
        let (name, display_name) = (up.name.as_deref(), up.display_name.as_deref());
        let new = share::prepare(context, dir.clone(), name, &up.relay, display_name, up.yes)?;
        Some(share::New { recovery_key: up.recovery_key, ..new })
    };
    let mut client = Client::ready(&context.home)?;
    let mut recovery_key = Value::Null;
    match new {
        Some(new) => {
            let mut made = share::make(&mut client, new)?;
            if !context.json {
                words::show_recovery_key(&made);
            }
            share::show_warnings(&made);
            recovery_key = made.get_mut("recovery_key").map(Value::take).unwrap_or_default();
        }
        None if up.recovery_key => {
            return Err(Failure::usage("a workspace gets its recovery key when it is made, or never"));
        }
        None => {
            for url in &up.relay {
                share::show_warnings(&client.ask(&Request::AddRelay { dir: dir.clone(), url: url.clone() })?);
            }
        }
    }
    let workspace = ask_one(&mut client, &dir)?;
    let invite =
        Invite { role: None, expires: None, uses: 1, approve: false, whom: None, qr: up.qr, open_one_will_do: true };
    let mut made = share::ask_link(&mut client, dir.clone(), &invite)?;
    if context.json {
        if let (false, Some(made)) = (recovery_key.is_null(), made.as_object_mut()) {
            made.insert("recovery_key".to_owned(), recovery_key);
        }
        term::say(&made.to_string());
    } else {
        term::say(&format!("'{}' in {}", paint(Style::Bold, text(&workspace, "name")), text(&workspace, "path")));
        term::say("\nOne more person joins with this link. It is a key: send it over a channel you trust.\n");
        share::show_link(&made, up.qr)?;
        term::say(&format!("\n{}", share::THEY_RUN));
        term::say("\nSyncing. Ctrl-C ends.");
    }
    let signal = sync_until_interrupted(context, &mut client, &dir, listening)?;
    goodbye(context, &mut client, &dir, signal)
}

/// A live line on a terminal, a line at every change elsewhere.
fn sync_until_interrupted(
    context: &Context,
    client: &mut Client,
    dir: &Path,
    listening: &Listening,
) -> Result<u8, Failure> {
    let mut last = String::new();
    let signal = loop {
        let line = summary(&ask_one(client, dir)?);
        if !context.json && line != last {
            if term::is_watched() {
                let mut out = std::io::stdout().lock();
                let _hung_up = write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush());
            } else {
                term::say(&line);
            }
            last = line;
        }
        if let Some(signal) = listening.ended_within(Duration::from_millis(500)) {
            break signal;
        }
    };
    if !context.json && term::is_watched() {
        term::say("");
    }
    Ok(signal)
}

/// Names what is still open, and ends the agent if this command began it and nobody wants it to go on.
fn goodbye(context: &Context, client: &mut Client, dir: &Path, signal: u8) -> Ended {
    let open = client.ask(&Request::Invites { dir: dir.to_path_buf() })?;
    let open = open.as_array().map_or(0, Vec::len) as u64;
    let workspace = ask_one(client, dir)?;
    let unsent = number(workspace.get("pending").unwrap_or(&Value::Null), "send");
    if open > 0 {
        term::note(&format!(
            "{}: nobody can join while no agent of a member runs.",
            term::count(open, "invite is open", "invites are open")
        ));
    }
    if unsent > 0 && !list(&workspace, "peers").is_empty() {
        term::note(&format!("{} not sent yet.", term::count(unsent, "batch of edits is", "batches of edits are")));
    }
    if !client::has_started() {
        term::note("The agent goes on in the background, as before.");
        return Ok(0);
    }
    // A terminal that was closed answers no question; a second Ctrl-C is a no.
    let goes_on = signal == question::INTERRUPT && term::confirm("Go on syncing in the background?").unwrap_or(false);
    if goes_on {
        term::note("The agent goes on. `weft status` shows how it fares, `weft stop` ends it.");
        return Ok(0);
    }
    client::stop_started(&context.home);
    term::note("Stopped. `weft start` goes on in the background.");
    Ok(0)
}
