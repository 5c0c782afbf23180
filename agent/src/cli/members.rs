//! `weft members` and `weft devices`.

use std::path::Path;

use serde_json::Value;

use super::args::{DevicesDo, MembersDo};
use super::client::Client;
use super::status::{list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, accounts, pair, words};
use crate::daemon::wire::{Failure, Named, Request};

/// `weft members`.
pub(crate) fn run(context: &Context, action: Option<&MembersDo>, why: bool) -> Ended {
    let dir = context.folder()?;
    // Who only looks starts nothing.
    let mut client = if action.is_none() { Client::running(&context.home)? } else { Client::ready(&context.home)? };
    let asked = match action {
        None => {
            let all = client.ask(&Request::Members { dir })?;
            if context.json {
                term::say(&all.to_string());
            } else {
                show(&all, why);
            }
            return Ok(0);
        }
        Some(MembersDo::Verify { who }) => return accounts::verify(context, &mut client, dir, who.clone()),
        Some(MembersDo::Role { who, role, recovery_key }) => {
            let recovery_key = words::recovery_key(*recovery_key)?;
            Request::SetRole { dir, who: who.clone(), role: role.clone(), recovery_key }
        }
        Some(MembersDo::Remove { who, yes, recovery_key }) => {
            let meant = meant(&mut client, &dir, Named::Member(who.clone()))?;
            let ask = format!(
                "Remove {} ({})? They keep what they have, and get nothing new.",
                text(&meant, "name"),
                text(&meant, "fingerprint")
            );
            term::agreed(*yes, &ask, "nobody removed")?;
            let who = text(&meant, "id").to_owned();
            Request::RemoveMember { dir, who, recovery_key: words::recovery_key(*recovery_key)? }
        }
        Some(MembersDo::Keep { who, yes }) => {
            let meant = meant(&mut client, &dir, Named::Late(who.clone()))?;
            let ask = format!(
                "Keep what {} wrote before they knew? If their device was lost, its finder may have written it. It counts for everybody then.",
                text(&meant, "name")
            );
            term::agreed(*yes, &ask, "nothing kept")?;
            Request::KeepLate { dir, who: text(&meant, "id").to_owned() }
        }
        Some(MembersDo::Agree { id }) => Request::Agree { dir, id: id.clone() },
    };
    let done = client.ask(&asked)?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    let name = text(&done, "name");
    if done.get("done") == Some(&Value::Bool(false)) {
        let id: String = text(&done, "proposal").chars().take(8).collect();
        term::say(&format!(
            "This takes {} owners. The others agree with: weft members agree {id}",
            number(&done, "needed")
        ));
        return Ok(0);
    }
    term::say(&match action {
        // Its answer was shown above.
        Some(MembersDo::Verify { .. }) => return Ok(0),
        Some(MembersDo::Role { role, .. }) => format!("{name} is {} from now on.", with_article(role)),
        Some(MembersDo::Remove { .. }) => format!(
            "{name} is removed and gets nothing that is written from now on. What they have already, they keep."
        ),
        Some(MembersDo::Keep { .. }) => format!("{} of {name} counts now.", changes(number(&done, "count"))),
        Some(MembersDo::Agree { .. }) | None => format!("You agreed to: {name}."),
    });
    Ok(0)
}

fn show(all: &Value, why: bool) {
    for member in list(all, "members") {
        let me = if member.get("me") == Some(&Value::Bool(true)) { " (you)" } else { "" };
        let active = list(member, "devices").iter().filter(|device| is_active(device)).count() as u64;
        term::say(&format!(
            "{}{me}  {}  {}  {}",
            paint(Style::Bold, text(member, "name")),
            text(member, "role"),
            term::count(active, "device", "devices"),
            paint(Style::Dim, text(member, "fingerprint")),
        ));
        for line in accounts::lines(member) {
            term::say(&format!("    {line}"));
        }
        for op in list(member, "why").iter().filter(|_| why) {
            term::say(&format!("    {}", because(op)));
        }
    }
    for former in list(all, "former").iter().filter(|_| why) {
        let end = former.get("why").unwrap_or(&Value::Null);
        term::say(&format!("{}  {}", paint(Style::Dim, "gone"), because(end)));
    }
    for late in list(all, "late") {
        let paths: Vec<&str> = list(late, "paths").iter().filter_map(Value::as_str).collect();
        let of = if paths.is_empty() { String::new() } else { format!(" ({})", paths.join(", ")) };
        let name = text(late, "name");
        term::say(&format!(
            "{} of {name}{of} came after their removal and is set aside. An admin who ranks as high as the one who removed them keeps it with: weft members keep {name:?}",
            paint(Style::Yellow, &changes(number(late, "count"))),
        ));
    }
    for proposal in list(all, "proposals") {
        let op = proposal.get("op").unwrap_or(&Value::Null);
        let id: String = text(op, "id").chars().take(8).collect();
        let votes: Vec<&str> = list(proposal, "votes").iter().filter_map(Value::as_str).collect();
        term::say(&format!(
            "{} waits for owners ({} of {}: {}): {} {}. Agree with: weft members agree {id}",
            paint(Style::Yellow, &id),
            votes.len(),
            number(proposal, "needed"),
            votes.join(", "),
            text(op, "by"),
            text(op, "what"),
        ));
    }
}

/// "an owner", "a reader".
pub(crate) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn changes(count: u64) -> String {
    term::count(count, "batch of changes", "batches of changes")
}

fn because(op: &Value) -> String {
    let at = number(op, "wall_ms");
    let when = if at == 0 { String::new() } else { format!("{}  ", term::local(at)) };
    let id: String = text(op, "id").chars().take(8).collect();
    format!("{when}{} {}  {}", text(op, "by"), text(op, "what"), paint(Style::Dim, &id))
}

fn is_active(device: &Value) -> bool {
    device.get("active") == Some(&Value::Bool(true))
}

/// Whom or what a name means, before anybody is asked whether to go on; what is done then is done to that.
fn meant(client: &mut Client, dir: &Path, named: Named) -> Result<Value, Failure> {
    client.ask(&Request::Meant { dir: dir.to_path_buf(), named })
}

/// `weft devices`.
pub(crate) fn devices(context: &Context, action: Option<&DevicesDo>) -> Ended {
    if let Some(DevicesDo::Add { qr, expires, yes }) = action {
        return pair::add(context, *qr, expires, *yes);
    }
    let dir = context.folder()?;
    let mut client = if action.is_none() { Client::running(&context.home)? } else { Client::ready(&context.home)? };
    if let Some(DevicesDo::Revoke { name, keep_certified, yes }) = action {
        let meant = meant(&mut client, &dir, Named::Device(name.clone(), *keep_certified))?;
        let device = text(&meant, "id").to_owned();
        let mut ask = format!("Revoke {} ({:.8}) of {}", text(&meant, "name"), device, text(&meant, "member"));
        let takes: Vec<&str> = list(&meant, "takes").iter().filter_map(Value::as_str).collect();
        if !takes.is_empty() {
            ask.push_str(&format!(", and what it let in: {}", takes.join(", ")));
        }
        let ask = format!("{ask}? Only the words of {} bring it back.", text(&meant, "member"));
        term::agreed(*yes, &ask, "nothing revoked")?;
        let asked = Request::RevokeDevice { dir, device, keep_certified: *keep_certified };
        let done = client.ask(&asked)?;
        if context.json {
            term::say(&done.to_string());
        } else if done.get("done") == Some(&Value::Bool(false)) {
            let id: String = text(&done, "proposal").chars().take(8).collect();
            term::say(&format!("This takes {} owners: weft members agree {id}", number(&done, "needed")));
        } else {
            term::say(&format!("Revoked: {}. It gets nothing that is written from now on.", text(&done, "name")));
        }
        return Ok(0);
    }
    let all = client.ask(&Request::Members { dir })?;
    if context.json {
        let devices: Vec<Value> = list(&all, "members")
            .iter()
            .map(|member| serde_json::json!({"member": text(member, "name"), "devices": member.get("devices")}))
            .collect();
        term::say(&Value::Array(devices).to_string());
        return Ok(0);
    }
    for member in list(&all, "members") {
        for device in list(member, "devices") {
            let id: String = text(device, "id").chars().take(8).collect();
            let state = match (is_active(device), device.get("me") == Some(&Value::Bool(true))) {
                (true, true) => paint(Style::Green, "this one"),
                (true, false) => "active".to_owned(),
                (false, _) => paint(Style::Dim, "gone"),
            };
            let by = text(device, "certified_by");
            let by = list(member, "devices").iter().find(|other| !by.is_empty() && text(other, "id") == by);
            let by = by.map_or_else(String::new, |by| format!("  let in by {}", text(by, "label")));
            term::say(&format!(
                "{}  {}  of {}  {state}{}",
                paint(Style::Dim, &id),
                paint(Style::Bold, text(device, "label")),
                text(member, "name"),
                paint(Style::Dim, &by),
            ));
        }
    }
    Ok(0)
}
