//! `weft requests`, `weft approve` and `weft deny`.

use serde_json::Value;

use super::client::Client;
use super::status::{number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::clock;
use crate::daemon::wire::Request;

/// `weft requests`.
pub(crate) fn run(context: &Context) -> Ended {
    let dir = context.folder()?;
    let all = Client::running(&context.home)?.ask(&Request::Requests { dir })?;
    if context.json {
        term::say(&all.to_string());
        return Ok(0);
    }
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        term::say("Nobody waits. By a link made with `weft invite --approve`, people wait here until you let them in.");
        return Ok(0);
    }
    let now = clock::wall_ms();
    for request in all {
        term::say(&line(request, now));
    }
    term::note(
        "The name is what they say of themselves. Compare the four words with the person (`weft status` shows them there), \
         then: weft approve ID, or weft deny ID",
    );
    Ok(0)
}

fn line(request: &Value, now_ms: u64) -> String {
    let id: String = text(request, "id").chars().take(8).collect();
    let member = text(request, "member");
    // Somebody known says who they are by their key; everybody else only says so.
    let says = if member.is_empty() { "says to be" } else { "a new device of" };
    let name = if member.is_empty() { text(request, "name") } else { member };
    format!(
        "{}  {says} {} ({})  {}  as {}  asked {}, last heard {}",
        paint(Style::Bold, &id),
        paint(Style::Bold, name),
        text(request, "device"),
        text(request, "fingerprint"),
        text(request, "role"),
        term::local(number(request, "first_ms")),
        term::ago(number(request, "last_ms"), now_ms),
    )
}

/// `weft approve`.
pub(crate) fn approve(context: &Context, who: &str) -> Ended {
    let request = Request::Approve { dir: context.folder()?, who: who.to_owned() };
    let done = Client::ready(&context.home)?.ask(&request)?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    term::say(&format!("{} is let in. If they are not online now, it finishes when they are.", text(&done, "name")));
    Ok(0)
}

/// `weft deny`.
pub(crate) fn deny(context: &Context, who: &str) -> Ended {
    let request = Request::Deny { dir: context.folder()?, who: who.to_owned() };
    let done = Client::ready(&context.home)?.ask(&request)?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    let invite: String = text(&done, "invite").chars().take(8).collect();
    term::say(&format!("{} is not let in, and is told so.", text(&done, "name")));
    term::note(&format!("The link itself still works for others: weft invites revoke {invite}"));
    Ok(0)
}
