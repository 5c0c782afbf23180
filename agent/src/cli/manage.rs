//! The short commands about one workspace.

use std::path::PathBuf;

use serde_json::Value;

use super::args::{InvitesDo, RelaysDo};
use super::client::Client;
use super::status::state_of;
use super::status::{ask_one, list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, identity, share};
use crate::daemon::wire::{Failure, Request, ResumeAnswer};

/// `weft leave`.
pub(crate) fn leave(context: &Context, yes: bool) -> Ended {
    let dir = context.folder()?;
    let mut client = Client::ready(&context.home)?;
    let workspace = ask_one(&mut client, &dir)?;
    let name = text(&workspace, "name");
    let pending = workspace.get("pending").unwrap_or(&Value::Null);
    let unsent = number(pending, "send") + number(pending, "kept");
    if unsent > 0 {
        term::note(&format!(
            "{} on no other device yet.",
            term::count(unsent, "batch of edits is", "batches of edits are")
        ));
    }
    if would_be_missed(&workspace) {
        term::note(&format!(
            "You are the only owner of '{name}': once you are gone, nobody there decides about admins and owners, but with its \
             recovery key, if it has one. Name another owner first: weft members role WHO owner"
        ));
    }
    term::agreed(yes, &format!("Leave '{name}'? Your files stay; coming back takes a new link."), "not left")?;
    let left = client.ask(&Request::Leave { dir })?;
    term::say(&format!("Left '{name}'. The files in {} are yours and no longer synced.", text(&left, "path")));
    if left.get("heard") == Some(&Value::Bool(false)) {
        term::note(
            "No other device was online to hear it: the others list you as a member until one of them removes you.",
        );
    }
    Ok(0)
}

/// `weft move OLD NEW`, or `weft move NEW`.
pub(crate) fn moved(context: &Context, first: PathBuf, second: Option<PathBuf>) -> Ended {
    let (from, to) = match second {
        Some(to) => (Some(std::path::absolute(first)?), to),
        None => (None, first),
    };
    let to = std::path::absolute(to)?;
    let moved = Client::ready(&context.home)?.ask(&Request::Move { from, to })?;
    if context.json {
        term::say(&moved.to_string());
    } else {
        term::say(&format!("'{}' is in {} from now on.", text(&moved, "name"), text(&moved, "path")));
    }
    Ok(0)
}

/// Whether others belong here, and none of them is an owner beside us.
fn would_be_missed(workspace: &Value) -> bool {
    let (us, others): (Vec<&Value>, Vec<&Value>) =
        list(workspace, "members").iter().partition(|member| member.get("me") == Some(&Value::Bool(true)));
    let owns = |member: &&Value| text(member, "role") == "owner";
    us.iter().any(owns) && !others.is_empty() && !others.iter().any(owns)
}

/// `weft invites`.
pub(crate) fn invites(context: &Context, action: Option<&InvitesDo>) -> Ended {
    let dir = context.folder()?;
    if let Some(InvitesDo::Revoke { id }) = action {
        Client::ready(&context.home)?.ask(&Request::RevokeInvite { dir, id: id.clone() })?;
        term::say("The invite is revoked: nobody can join by its link any more.");
        return Ok(0);
    }
    let open = Client::running(&context.home)?.ask(&Request::Invites { dir })?;
    if context.json {
        term::say(&open.to_string());
        return Ok(0);
    }
    let open = open.as_array().map_or(&[][..], Vec::as_slice);
    if open.is_empty() {
        term::say("No open invites.");
    }
    for invite in open {
        let id: String = text(invite, "id").chars().take(8).collect();
        let whom = text(invite, "for");
        let for_whom = if whom.is_empty() { String::new() } else { format!("  for {whom} alone") };
        let asks = if invite.get("approval") == Some(&Value::Bool(true)) { "  with approval" } else { "" };
        term::say(&format!(
            "{}  {}  {} of {} used  until {}  by {}{for_whom}{asks}",
            paint(Style::Bold, &id),
            text(invite, "role"),
            number(invite, "used"),
            number(invite, "uses"),
            term::local(number(invite, "expires_ms")),
            text(invite, "issuer"),
        ));
    }
    Ok(0)
}

/// `weft pause`.
pub(crate) fn pause(context: &Context) -> Ended {
    Client::running(&context.home)?.ask(&Request::Pause { dir: context.folder_if_any()? })?;
    term::say("Paused. Your edits are kept and sent after `weft resume`.");
    Ok(0)
}

/// `weft resume`.
pub(crate) fn resume(context: &Context, accept_deletes: bool, restore: bool) -> Ended {
    let answer = match (accept_deletes, restore) {
        (true, _) => Some(ResumeAnswer::AcceptDeletes),
        (_, true) => Some(ResumeAnswer::Restore),
        _ => None,
    };
    Client::running(&context.home)?.ask(&Request::Resume { dir: context.folder_if_any()?, answer })?;
    term::say("Syncing goes on.");
    Ok(0)
}

/// `weft flush`.
pub(crate) fn flush(context: &Context, timeout: &str, to: &str) -> Ended {
    let timeout_ms = u64::try_from(term::span(timeout)?.as_millis()).unwrap_or(u64::MAX).min(86_400_000);
    let peers = to.parse::<u32>().map_err(|_| Failure::usage(format!("--to takes a number of peers, not {to:?}")))?;
    let dir = context.folder()?;
    let mut client = Client::running(&context.home)?;
    let spinner = term::spinner("Waiting until a peer holds everything");
    let flushed = client.ask(&Request::Flush { dir, timeout_ms, peers });
    spinner.finish_and_clear();
    let flushed = flushed?;
    if context.json {
        term::say(&flushed.to_string());
    }
    if flushed.get("complete") == Some(&Value::Bool(true)) {
        if !context.json {
            term::say(&format!("Everything is held by {}.", term::count(number(&flushed, "peers"), "peer", "peers")));
        }
        return Ok(0);
    }
    Err(Failure::attention(format!("not everything is held yet: {}", text(&flushed, "missing"))))
}

/// `weft relays`.
pub(crate) fn relays(context: &Context, action: Option<&RelaysDo>) -> Ended {
    // These are about this device, not about a workspace.
    match action {
        Some(RelaysDo::Identity { url, identity }) => {
            return identity::relay_identity(context, url, identity.as_deref());
        }
        Some(RelaysDo::Secret { url, file, forget }) => {
            return identity::relay_secret(context, url, file.as_deref(), *forget);
        }
        Some(RelaysDo::Add { .. } | RelaysDo::Remove { .. }) | None => {}
    }
    let dir = context.folder()?;
    match action {
        Some(RelaysDo::Add { url }) => {
            let done = Client::ready(&context.home)?.ask(&Request::AddRelay { dir, url: url.clone() })?;
            share::show_warnings(&done);
            term::say("The relay is used from now on, by all members.");
        }
        Some(RelaysDo::Remove { url }) => {
            Client::ready(&context.home)?.ask(&Request::RemoveRelay { dir, url: url.clone() })?;
            term::say("The relay is used no more.");
        }
        Some(RelaysDo::Identity { .. } | RelaysDo::Secret { .. }) | None => {
            let mut client = Client::running(&context.home)?;
            let workspace = ask_one(&mut client, &dir)?;
            if context.json {
                let shown =
                    serde_json::json!({"relays": workspace.get("relays"), "addresses": workspace.get("addresses")});
                term::say(&shown.to_string());
                return Ok(0);
            }
            let all = list(&workspace, "addresses");
            let (neighbours, relays): (Vec<&Value>, Vec<&Value>) =
                all.iter().partition(|address| text(address, "kind") == "lan");
            if relays.is_empty() {
                term::say("No relay: devices on one network find each other. For others: weft relays add wss://...");
            }
            for address in relays {
                term::say(&format!("{}  {}", text(address, "url"), state_of(address)));
            }
            // The others of the network come and go; those that went are nobody's business.
            let here = neighbours.iter().filter(|address| address.get("up") == Some(&Value::Bool(true))).count() as u64;
            if here > 0 {
                let many = term::count(here, "device of this network", "devices of this network");
                term::say(&format!("Beside relays, {many} can be reached directly (this one among them)."));
            }
        }
    }
    Ok(0)
}
