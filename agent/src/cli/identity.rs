//! `weft identity`, and what relays may know: `weft relays identity`, `weft relays secret`.

use std::path::Path;

use serde_json::Value;

use super::args::IdentityDo;
use super::client::Client;
use super::status::{list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, words};
use crate::daemon::wire::{Failure, Hidden, Request};

/// A file with a secret is a line; anything much longer is another file.
const SECRET_FILE_BYTES_MAX: u64 = 8192;

/// `weft identity`.
pub(crate) fn run(context: &Context, action: Option<&IdentityDo>) -> Ended {
    match action {
        None | Some(IdentityDo::Show) => show(context),
        Some(IdentityDo::Login { name, pds }) => login(context, name, pds),
        Some(IdentityDo::Logout) => {
            let gone = Client::ready(&context.home)?.ask(&Request::Logout)?;
            term::say(&format!(
                "{} is forgotten here. Relays that ask for people by name refuse now.",
                text(&gone, "handle")
            ));
            Ok(0)
        }
        Some(IdentityDo::Attest { name }) => attest(context, name),
        Some(IdentityDo::Words { confirm: Some(_), .. }) => words::confirm(context),
        Some(IdentityDo::Words { confirm: None, show }) => words::run(context, *show),
        Some(IdentityDo::Recover { pass, folder, merge }) => {
            words::recover(context, pass.as_deref(), folder.as_deref(), *merge)
        }
    }
}

fn show(context: &Context) -> Ended {
    let shown = Client::ready(&context.home)?.ask(&Request::Identity)?;
    if context.json {
        term::say(&shown.to_string());
        return Ok(0);
    }
    match shown.get("member").filter(|member| !member.is_null()) {
        Some(member) => {
            term::say(&format!("{}  {}", paint(Style::Bold, text(member, "name")), text(member, "did")));
            term::say(&format!("  device {} ({})", text(member, "device"), text(member, "device_id")));
            term::say(if member.get("has_root") == Some(&Value::Bool(true)) {
                "  your 24 words are on this computer; write them down: weft identity words"
            } else {
                "  your 24 words are not on this computer"
            });
        }
        None => term::say("No identity yet; it is made by the first `weft init`, `up` or `join`."),
    }
    match shown.get("account").filter(|account| !account.is_null()) {
        Some(account) => {
            term::say(&format!(
                "  account {}  {}  at {}",
                text(account, "handle"),
                text(account, "did"),
                text(account, "pds")
            ));
            if let Some(attested) = account.get("attested").filter(|attested| !attested.is_null()) {
                let at = term::local(number(attested, "verified_ms"));
                term::say(&format!("  attested to {}, verified {at}", text(attested, "root")));
            }
        }
        None => term::say("  no account; relays know a pseudonym only (weft identity login HANDLE)"),
    }
    Ok(0)
}

fn login(context: &Context, name: &str, pds: &str) -> Ended {
    let password = term::ask_secret(&format!("App password of {name} at {pds}:"))?;
    if password.is_empty() {
        return Err(Failure::usage("no password was given; it is asked for, or read from standard input"));
    }
    let password = Hidden::new(password);
    let request = Request::Login { name: name.to_owned(), password, pds: pds.to_owned() };
    let done = Client::ready(&context.home)?.ask(&request)?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    term::say(&format!("Logged in as {}  {}", paint(Style::Bold, text(&done, "handle")), text(&done, "did")));
    let kept = if text(&done, "kept") == "keychain" { "the system's keychain" } else { "a file for you only" };
    term::note(&format!(
        "The session is kept in {kept}. Relays that ask for people by name now learn this DID; all others go on knowing a \
         pseudonym.\nTo keep it from one: weft relays identity URL pseudonym"
    ));
    Ok(0)
}

fn attest(context: &Context, name: &str) -> Ended {
    let mut client = Client::ready(&context.home)?;
    let words = words::if_needed(&mut client)?;
    let done = client.ask(&Request::Attest { name: name.to_owned(), words })?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    let attested = done.get("attested").unwrap_or(&Value::Null);
    term::say(&format!("{} says now that it is {}.", text(&done, "handle"), text(attested, "root")));
    term::note(&format!(
        "Public, and verified at {}: {}",
        term::local(number(attested, "verified_ms")),
        text(attested, "uri")
    ));
    let told: Vec<&str> = list(&done, "told").iter().filter_map(Value::as_str).collect();
    if !told.is_empty() {
        term::note(&format!("Members see it in: {}", told.join(", ")));
    }
    for later in list(&done, "later") {
        term::note(&format!("Members do not see it yet in {}: {}", text(later, "name"), text(later, "why")));
    }
    Ok(0)
}

/// `weft relays identity`.
pub(crate) fn relay_identity(context: &Context, url: &str, identity: Option<&str>) -> Ended {
    let request = Request::RelayIdentity { url: url.to_owned(), identity: identity.map(str::to_owned) };
    let now = Client::ready(&context.home)?.ask(&request)?;
    if context.json {
        term::say(&now.to_string());
        return Ok(0);
    }
    let knows = match text(&now, "identity") {
        "account" => "knows you by your account",
        "pseudonym" => "knows you by a pseudonym only",
        _ => "knows you by a pseudonym, and by your account if it asks for people by name",
    };
    let secret =
        if now.get("secret") == Some(&Value::Bool(true)) { ", and is shown that you know its secret" } else { "" };
    term::say(&format!("{} {knows}{secret}. It holds from the next connection.", text(&now, "url")));
    Ok(0)
}

/// `weft relays secret`.
pub(crate) fn relay_secret(context: &Context, url: &str, file: Option<&Path>, forget: bool) -> Ended {
    let secret = match (forget, file) {
        (true, _) => None,
        (false, Some(file)) => {
            let unreadable = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
            if std::fs::metadata(file).map_err(unreadable)?.len() > SECRET_FILE_BYTES_MAX {
                return Err(Failure::usage(format!("{} is too long for a secret", file.display())));
            }
            Some(std::fs::read_to_string(file).map_err(unreadable)?.trim().to_owned())
        }
        (false, None) => Some(term::ask_secret(&format!("Secret of {url}:"))?),
    };
    if secret.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::usage("no secret was given; it is asked for, or read from standard input or --file"));
    }
    let forgotten = secret.is_none();
    let request = Request::RelaySecret { url: url.to_owned(), secret: secret.map(Hidden::new) };
    let done = Client::ready(&context.home)?.ask(&request)?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    term::say(&match (forgotten, text(&done, "kept")) {
        (true, _) => format!("The secret of {} is forgotten.", text(&done, "url")),
        (false, "keychain") => format!("The secret of {} is kept in the system's keychain.", text(&done, "url")),
        (false, _) => format!("The secret of {} is kept in a file for you only.", text(&done, "url")),
    });
    Ok(0)
}
