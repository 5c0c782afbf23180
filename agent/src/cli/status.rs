//! `weft status` and `weft peers`.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::clock;
use crate::daemon::wire::{Failure, Request};

/// A text of a JSON object, or nothing.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A number of a JSON object, or zero.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// A list of a JSON object, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The status of the workspace around a folder.
pub(crate) fn ask_one(client: &mut Client, dir: &Path) -> Result<Value, Failure> {
    let status = client.ask(&Request::Status { dir: Some(dir.to_path_buf()) })?;
    list(&status, "workspaces").first().cloned().ok_or_else(|| Failure::new("the agent does not know this workspace"))
}

/// `weft status`.
pub(crate) fn run(context: &Context, watch: bool) -> Ended {
    let dir = context.folder_if_any()?;
    let mut client = Client::running(&context.home)?;
    loop {
        let status = client.ask(&Request::Status { dir: dir.clone() })?;
        let code = if list(&status, "workspaces").iter().all(is_well) { 0 } else { 3 };
        if context.json {
            term::say(&status.to_string());
        } else {
            let mut shown = String::new();
            for workspace in list(&status, "workspaces") {
                shown.push_str(&show(workspace, list(&status, "reminders")));
            }
            if shown.is_empty() {
                shown.push_str("No workspaces yet. Share a folder with `weft up`, or join one with `weft join`.\n");
            }
            for reminder in list(&status, "reminders").iter().filter_map(Value::as_str) {
                shown.push_str(&format!("{} {reminder}\n", paint(Style::Cyan, "remember:")));
            }
            if watch && term::is_watched() {
                shown.insert_str(0, "\x1b[2J\x1b[H");
            }
            term::say(shown.trim_end());
        }
        if !watch {
            return Ok(code);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// In sync, and nothing asks for attention.
/// The problems of a workspace that are no reminders, its own or of the agent as a whole.
pub(crate) fn faults<'a>(workspace: &'a Value, of_agent: &'a [Value]) -> impl Iterator<Item = &'a str> {
    let reminders = list(workspace, "reminders");
    let is_fault = move |problem: &&Value| !reminders.contains(problem) && !of_agent.contains(problem);
    list(workspace, "problems").iter().filter(is_fault).filter_map(Value::as_str)
}

fn is_well(workspace: &Value) -> bool {
    text(workspace, "state") == "active" && workspace.get("settled") == Some(&Value::Bool(true))
}

/// One line about where a workspace stands.
pub(crate) fn summary(workspace: &Value) -> String {
    let pending = workspace.get("pending").unwrap_or(&Value::Null);
    let (send, receive, read) = (number(pending, "send"), number(pending, "receive"), number(pending, "read"));
    let kept = number(pending, "kept");
    let gap = number(workspace, "frontier_gap");
    let peers = list(workspace, "peers");
    let connected = peers.iter().filter(|peer| peer.get("connected") == Some(&Value::Bool(true))).count();
    let holding = number(workspace, "held_by");
    let mut parts = vec![match text(workspace, "state") {
        "active" if is_well(workspace) && connected > 0 => paint(Style::Green, "in sync"),
        "active" if is_well(workspace) => paint(Style::Green, "saved here"),
        "active" => paint(Style::Yellow, "syncing"),
        "joining" => paint(Style::Yellow, joining(workspace)),
        "paused" => paint(Style::Yellow, "paused (weft resume)"),
        "halted" if workspace.get("in_part") == Some(&Value::Bool(true)) => paint(Style::Yellow, "halted in part"),
        "halted" => paint(Style::Red, "halted"),
        "left" => paint(Style::Red, "left"),
        other => paint(Style::Dim, other),
    }];
    parts.push(term::count(number(workspace, "files"), "file", "files"));
    if read > 0 {
        parts.push(format!("{} to read", term::count(read, "file", "files")));
    }
    let send_bytes = number(pending, "send_bytes");
    match (send, send_bytes) {
        (0, 0..=1) => {}
        (_, 0..=1) => parts.push(format!("{send} to send")),
        (0, bytes) => parts.push(format!("{} to send", size(bytes))),
        (_, bytes) => parts.push(format!("{send} and {} to send", size(bytes))),
    }
    if kept > 0 {
        parts.push(format!("{} here only", term::count(kept, "batch of edits", "batches of edits")));
    }
    if text(workspace, "state") == "left" {
        return parts.join(&paint(Style::Dim, " · "));
    }
    if receive.max(gap) > 0 {
        let bytes = number(pending, "receive_bytes");
        let files = if bytes > 0 { format!(" ({} of large files)", size(bytes)) } else { String::new() };
        parts.push(format!("{} to receive{files}", receive.max(gap)));
    }
    if peers.is_empty() {
        parts.push("no other device yet".to_owned());
    } else {
        parts.push(format!(
            "{connected} of {} here, {holding} {} everything",
            term::count(peers.len() as u64, "peer", "peers"),
            if holding == 1 { "holds" } else { "hold" }
        ));
    }
    parts.join(&paint(Style::Dim, " · "))
}

/// What somebody waits for who is not in yet.
fn joining(workspace: &Value) -> &'static str {
    match workspace.get("knocking").map(|heard| text(heard, "state")) {
        Some("waiting") => "waiting for an admin",
        Some("refused") => "not let in",
        Some(_) | None => "waiting to be let in",
    }
}

fn show(workspace: &Value, of_agent: &[Value]) -> String {
    let mut out = format!(
        "{}  {}\n  {}\n",
        paint(Style::Bold, text(workspace, "name")),
        paint(Style::Dim, text(workspace, "path")),
        summary(workspace)
    );
    let now = clock::wall_ms();
    // To whoever left, or was removed, nobody is near or far.
    let left = text(workspace, "state") == "left";
    for peer in list(workspace, "peers").iter().filter(|_| !left) {
        out.push_str(&format!("  {}\n", show_peer(peer, now)));
    }
    for address in list(workspace, "addresses").iter().filter(|_| !left) {
        // Neighbours come and go; only a relay that cannot be reached is worth a line.
        let what = match text(address, "kind") {
            "relay" => "relay",
            // Of a link's addresses nobody knows yet which are relays.
            "link" => "asks at",
            _ => continue,
        };
        out.push_str(&format!("  {} {}  {}\n", paint(Style::Dim, what), text(address, "url"), state_of(address)));
    }
    let words = workspace.get("knocking").map_or("", |heard| text(heard, "fingerprint"));
    if !words.is_empty() {
        out.push_str(&format!("  an admin lets you in; your four words, for them to compare: {words}\n"));
    }
    let requests = number(workspace, "requests");
    if requests > 0 {
        let waiting = term::count(requests, "person waits", "people wait");
        out.push_str(&format!("  {} {waiting} to be let in: weft requests\n", paint(Style::Yellow, "!")));
    }
    let decisions = number(workspace, "decisions");
    if decisions > 0 {
        let waiting = term::count(decisions, "decision of owners waits", "decisions of owners wait");
        out.push_str(&format!("  {} {waiting} for you: weft members\n", paint(Style::Yellow, "!")));
    }
    let unverified = text(workspace, "unverified");
    if !unverified.is_empty() {
        out.push_str(&format!(
            "  {} as saved by {unverified}, not verified yet: nothing is sent until the history is here\n",
            paint(Style::Yellow, "!")
        ));
    }
    for problem in faults(workspace, of_agent) {
        out.push_str(&format!("  {} {problem}\n", paint(Style::Yellow, "!")));
    }
    for reminder in list(workspace, "reminders").iter().filter_map(Value::as_str) {
        out.push_str(&format!("  {} {reminder}\n", paint(Style::Cyan, "remember:")));
    }
    let rejected = workspace.get("rejected").and_then(Value::as_object);
    for (reason, count) in rejected.into_iter().flatten() {
        out.push_str(&format!("  {} refused: {count} × {reason}\n", paint(Style::Yellow, "!")));
    }
    out.push('\n');
    out
}

/// How it fares with an address.
pub(crate) fn state_of(address: &Value) -> String {
    if address.get("up") == Some(&Value::Bool(true)) {
        return paint(Style::Green, "connected");
    }
    paint(Style::Yellow, address.get("why").and_then(Value::as_str).unwrap_or("connecting"))
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    if bytes < 1_000_000 { format!("{} kB", bytes.div_ceil(1000)) } else { format!("{} MB", bytes.div_ceil(1_000_000)) }
}

fn show_peer(peer: &Value, now_ms: u64) -> String {
    let here = peer.get("connected") == Some(&Value::Bool(true));
    let mark = if here { paint(Style::Green, "●") } else { paint(Style::Dim, "○") };
    let heard = number(peer, "heard_ms");
    let lacks = number(peer, "lacks");
    let batches = term::count(lacks, "batch of edits", "batches of edits");
    let holds = match (heard, lacks, number(peer, "lacks_bytes")) {
        (0, ..) => "not heard of yet".to_owned(),
        (_, 0, 0) => "holds everything".to_owned(),
        (_, 0, 1) => "has not said yet that it holds everything".to_owned(),
        (_, 0, bytes) => format!("lacks {} of large files", size(bytes)),
        (_, _, 0..=1) => format!("lacks {batches}"),
        (_, _, bytes) => format!("lacks {batches} and {} of large files", size(bytes)),
    };
    let seen = if here || heard == 0 { String::new() } else { format!(", seen {}", term::ago(heard, now_ms)) };
    format!(
        "{mark} {} {}  {holds}{seen}",
        text(peer, "member"),
        paint(Style::Dim, &format!("({})", text(peer, "label")))
    )
}

/// `weft peers`.
pub(crate) fn peers(context: &Context) -> Ended {
    let dir = context.folder_if_any()?;
    let mut client = Client::running(&context.home)?;
    let status = client.ask(&Request::Status { dir })?;
    let now = clock::wall_ms();
    if context.json {
        let all: Vec<Value> = list(&status, "workspaces")
            .iter()
            .map(|workspace| serde_json::json!({"name": text(workspace, "name"), "path": text(workspace, "path"), "peers": workspace.get("peers")}))
            .collect();
        term::say(&Value::Array(all).to_string());
        return Ok(0);
    }
    for workspace in list(&status, "workspaces") {
        term::say(&paint(Style::Bold, text(workspace, "name")));
        let peers = list(workspace, "peers");
        if peers.is_empty() {
            term::say("  nobody else yet; `weft invite` makes a link");
        }
        for peer in peers {
            term::say(&format!("  {}", show_peer(peer, now)));
        }
    }
    Ok(0)
}
