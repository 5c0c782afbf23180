//! `weft init` and `weft invite`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::{Init, Invite};
use super::client::Client;
use super::members::with_article;
use super::status::list;
use super::term::{self, Style};
use super::{Context, Ended, words};
use crate::config::Config;
use crate::daemon::report::only_owner;
use crate::daemon::wire::{Failure, InviteWish, Request};
use crate::folder::ignore::Rules;
use crate::folder::{refuse, scan};

/// From here on, a first share asks.
const FILES_ASK: u64 = 20_000;
const BYTES_ASK: u64 = 5_000_000_000;

/// What a new workspace is made of.
pub(crate) struct New {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) relays: Vec<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) recovery_key: bool,
}

/// The folder named by an argument, else by `-C`, else the current one; absolute.
pub(crate) fn folder(context: &Context, given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(dir) => {
            let base = context.dir.clone().unwrap_or_default();
            let absolute = std::path::absolute(base.join(dir))?;
            Ok(absolute.canonicalize().unwrap_or(absolute))
        }
        None => context.folder(),
    }
}

/// Collects what a new workspace needs; says what will be shared, and asks if that is much.
pub(crate) fn prepare(
    context: &Context,
    dir: PathBuf,
    name: Option<&str>,
    relays: &[String],
    display_name: Option<&str>,
    yes: bool,
) -> Result<New, Failure> {
    let user_home = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    refuse::check(&dir, user_home.as_deref(), &[]).map_err(|refusal| Failure::usage(refusal.to_string()))?;
    if dir.exists() {
        tell_first_share(&dir, yes)?;
    }
    let name = name.map(str::to_owned).or_else(|| dir.file_name().map(|name| name.to_string_lossy().into_owned()));
    let mut relays = relays.to_vec();
    if relays.is_empty() {
        let config = Config::load(&context.home.config_file()).map_err(|error| Failure::usage(error.to_string()))?;
        relays.extend(Some(config.text("default_relay")).filter(|url| !url.is_empty()));
    }
    let name = name.unwrap_or_else(|| "workspace".to_owned());
    Ok(New { dir, name, relays, display_name: display_name.map(str::to_owned), recovery_key: false })
}

/// So many names that cannot be shared are told one by one.
const NOT_SHARED_SHOWN: usize = 5;

fn tell_first_share(dir: &Path, yes: bool) -> Result<(), Failure> {
    let spinner = term::spinner("Looking at the folder");
    let listing = scan::list(dir, &mut Rules::new(dir), None, &mut |_| {});
    spinner.finish_and_clear();
    let listing = listing.map_err(|error| Failure::new(format!("{} cannot be read: {error}", dir.display())))?;
    if let Some((_, why)) = listing.unreadable.iter().find(|(path, _)| path.is_empty()) {
        return Err(Failure::new(format!("{} cannot be read ({why}); make it readable", dir.display())));
    }
    let files = listing.files();
    let mut line = format!("To share: {}, {}", term::count(files, "file", "files"), term::bytes(listing.bytes));
    if let Some((path, size)) = listing.largest() {
        line.push_str(&format!("; largest {path} ({})", term::bytes(size)));
    }
    if listing.ignored > 0 {
        line.push_str(&format!(
            "; {} (see `weft ignore`)",
            term::count(listing.ignored, "path ignored", "paths ignored")
        ));
    }
    term::note(&line);
    for (path, why) in &listing.unreadable {
        term::note(&format!("{path} cannot be read ({why}) and stays out until it can."));
    }
    for repository in &listing.repositories {
        term::note(&format!("{repository} is a git repository of its own and stays out."));
    }
    for (path, why) in listing.not_carried.iter().take(NOT_SHARED_SHOWN) {
        term::note(&format!("{path} is not shared: {why}."));
    }
    if listing.not_carried.len() > NOT_SHARED_SHOWN {
        let more = (listing.not_carried.len() - NOT_SHARED_SHOWN) as u64;
        term::note(&format!(
            "{} not shared either; `weft status` names more.",
            term::count(more, "path is", "paths are")
        ));
    }
    if listing.linked > 0 {
        term::note(&format!(
            "{} more than one name on this disk (hard links): each name is shared as a file of its own.",
            term::count(listing.linked, "file has", "files have")
        ));
    }
    if (files > FILES_ASK || listing.bytes > BYTES_ASK) && !yes && !term::confirm("That is a lot. Share it?")? {
        return Err(Failure::usage("nothing was shared; give --yes, or leave more out with a .weftignore"));
    }
    Ok(())
}

/// What is wrong with the relays that were named, in words; nothing if all is well.
pub(crate) fn show_warnings(made: &Value) {
    for warning in list(made, "warnings").iter().filter_map(Value::as_str) {
        term::note(&format!("{} {warning}", term::paint(Style::Yellow, "!")));
    }
}

/// Makes the workspace.
pub(crate) fn make(client: &mut Client, new: New) -> Result<Value, Failure> {
    let New { dir, name, relays, display_name, recovery_key } = new;
    let words = words::if_needed(client)?;
    client.ask(&Request::Init { dir, name, relays, display_name, words, recovery_key })
}

/// `weft init`.
pub(crate) fn init(context: &Context, init: &Init) -> Ended {
    let dir = folder(context, init.folder.as_deref())?;
    let new = prepare(context, dir, init.name.as_deref(), &init.relay, init.display_name.as_deref(), init.yes)?;
    let new = New { recovery_key: init.recovery_key, ..new };
    let mut client = Client::ready(&context.home)?;
    let made = make(&mut client, new)?;
    if context.json {
        term::say(&made.to_string());
        return Ok(0);
    }
    let text = |key: &str| made.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    term::say(&format!("{} is now the workspace '{}'.", text("path"), paint_name(&text("name"))));
    words::show_recovery_key(&made);
    show_warnings(&made);
    term::say("Invite somebody with `weft invite`; `weft status` shows where it stands.");
    if !init.recovery_key {
        term::note(&only_owner(&text("name")));
    }
    Ok(0)
}

fn paint_name(name: &str) -> String {
    term::paint(Style::Bold, name)
}

/// Asks for a link.
pub(crate) fn ask_link(client: &mut Client, dir: PathBuf, invite: &Invite) -> Result<Value, Failure> {
    let expires_ms = u64::try_from(term::span(invite.expires())?.as_millis()).unwrap_or(u64::MAX);
    if expires_ms == 0 {
        return Err(Failure::usage("a link that is good for no time lets nobody in; write 30s, 5m, 2h or 7d"));
    }
    let wish = InviteWish {
        open_one_will_do: invite.open_one_will_do,
        role: invite.role().to_owned(),
        expires_ms,
        uses: invite.uses,
        approval: invite.approve,
        whom: invite.whom.clone(),
    };
    client.ask(&Request::Invite { dir, wish })
}

/// Prints a link for people.
pub(crate) fn show_link(made: &Value, qr: bool) -> Result<(), Failure> {
    let link = made.get("link").and_then(Value::as_str).unwrap_or_default();
    term::say(link);
    if qr {
        term::say(&term::qr(link)?);
    }
    if made.get("beyond_lan").and_then(Value::as_bool) == Some(false) {
        term::note(
            "This link works on this network only. For people elsewhere, use a relay: weft relays add wss://...",
        );
    }
    Ok(())
}

/// How a link is used. On a command line it would stand in the list of processes and in the shell's history.
pub(crate) const THEY_RUN: &str = "They run `weft join -` and paste the link, or: weft join 'LINK'";

/// What a link is good for, in words.
fn good_for(invite: &Invite) -> String {
    let (role, expires) = (with_article(invite.role()), invite.expires());
    let mut words = match &invite.whom {
        Some(who) => format!("Good for {who} alone, as {role}, for {expires}."),
        None if invite.uses == 1 => format!("Good for one person as {role}, for {expires}."),
        None => format!("Good for {} people, each as {role}, for {expires}.", invite.uses),
    };
    if invite.approve {
        words.push_str(" A person who comes by it waits until you let them in: weft requests.");
    } else if invite.whom.is_none() {
        words.push_str(" The link is a key: send it over a channel you trust.");
    }
    words.push('\n');
    words.push_str(THEY_RUN);
    words
}

/// `weft invite`.
pub(crate) fn invite(context: &Context, invite: &Invite) -> Ended {
    let dir = context.folder()?;
    let mut client = Client::ready(&context.home)?;
    let made = ask_link(&mut client, dir, invite)?;
    if context.json {
        term::say(&made.to_string());
        return Ok(0);
    }
    show_link(&made, invite.qr)?;
    term::note(&good_for(invite));
    Ok(0)
}
