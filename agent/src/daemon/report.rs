//! What `weft status --json` prints, and the other answers as JSON.
//!
//! Invariant: the shapes that other programs rely on (docs/using.md#json) only ever grow.

use std::time::Instant;

use serde_json::{Value, json};
use weft_agent_core::disk::RelPath;
use weft_agent_core::files::{Halt, LogEntry, LogEvent};
use weft_agent_core::membership::Role;
use weft_agent_core::workspace::command::{
    Because, DeviceDetail, JoinRequestDetail, Knocking, Members, OpenInvite, State, Status,
};
use weft_agent_core::workspace::input::LinkKind;

use super::space::Shared;
use crate::account::{SeenAccounts, root_did};

/// One workspace; `status` is absent while it cannot answer.
pub(crate) fn workspace(shared: &Shared, status: Option<&Status>) -> Value {
    let mut problems: Vec<String> = shared.problem().into_iter().collect();
    let (mut reading, mut closed) = (0, Vec::new());
    if let Some(glance) = shared.glance() {
        closed = glance.closed();
        reading = glance.to_read();
        problems.extend(glance.problems(Instant::now()));
    }
    let addresses: Vec<Value> = shared
        .health()
        .into_iter()
        .map(|(url, health)| {
            // A link names relays and neighbours alike; only a member knows which is which.
            let kind = if shared.is_joining() { "link" } else { kind(health.kind) };
            json!({"url": url, "kind": kind, "up": health.up, "why": health.why})
        })
        .collect();
    let Some(status) = status else {
        let state = if shared.problem().is_some() { "halted" } else { "starting" };
        return json!({
            "path": shared.path, "name": shared.name(), "workspace": shared.id.to_string(), "state": state,
            "settled": false, "held_by": 0, "files": 0, "document_bytes": 0, "changes": 0, "frontier_gap": 0,
            "pending": {"send": 0, "send_bytes": 0, "receive": 0, "receive_bytes": 0, "read": reading, "kept": 0}, "links": [], "peers": [], "problems": problems,
            "reminders": [], "rejected": {}, "relays": [], "members": [], "addresses": addresses, "requests": 0, "decisions": 0, "knocking": null, "unverified": null,
        });
    };
    let name = if status.name.is_empty() { shared.name() } else { status.name.clone() };
    problems.extend(status.halt.as_ref().map(halt_text));
    problems.extend(status.problems.iter().cloned());
    if let Some(Knocking::Refused(why)) = &status.knocking {
        problems.push(why.clone());
    }
    if status.kept_here > 0 && status.state != State::Left {
        problems.push(format!(
            "You may only read '{name}': what you changed here stays on this computer, and goes out if an admin or owner makes \
             you a writer"
        ));
    }
    let reminders: Vec<String> = status.only_owner.then(|| only_owner(&name)).into_iter().collect();
    problems.extend(reminders.iter().cloned());
    let in_part = status.state == State::Active && !closed.is_empty();
    let links: Vec<Value> = status
        .links
        .iter()
        .map(|link| json!({"url": link.url, "kind": kind(link.kind), "peers": link.peers}))
        .collect();
    let peers: Vec<Value> = status
        .peers
        .iter()
        .map(|peer| {
            json!({
                "device": peer.device.to_string(), "label": peer.label, "member": peer.member,
                "connected": peer.connected, "heard_ms": peer.heard_wall_ms, "lacks": peer.lacks, "lacks_bytes": peer.lacks_bytes,
            })
        })
        .collect();
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "root": member.root.to_string(), "name": member.name, "role": role(member.role),
                "devices": member.devices, "me": member.me,
            })
        })
        .collect();
    json!({
        "path": shared.path,
        "name": name,
        "workspace": status.workspace.to_string(),
        "device": status.device.to_string(),
        // A part of the folder that cannot be read is kept nowhere else: to call that active would claim too much.
        "state": if in_part { "halted" } else { state(status.state) },
        "in_part": in_part,
        "settled": status.settled && reading == 0 && closed.is_empty(),
        "held_by": if reading == 0 { status.held_by } else { 0 },
        "files": status.files,
        "document_bytes": status.document_bytes,
        "changes": status.changes,
        "frontier_gap": status.frontier_gap,
        "pending": {
            "send": status.pending_send, "send_bytes": status.bytes_to_send, "receive": status.pending_receive,
            "receive_bytes": status.lacks_bytes, "read": reading, "kept": status.kept_here,
        },
        "links": links,
        "peers": peers,
        "problems": problems,
        "reminders": reminders,
        "unverified": status.unverified,
        "rejected": status.rejected,
        "relays": status.relays,
        "members": members,
        "addresses": addresses,
        "halt": status.halt.as_ref().map(halt_text).or_else(|| (!closed.is_empty()).then(|| closed.join("; "))),
        "requests": status.requests,
        "decisions": status.decisions,
        "knocking": status.knocking.as_ref().map(knocking),
    })
}

/// What the only owner of a workspace without a recovery key is told.
pub(crate) fn only_owner(name: &str) -> String {
    format!(
        "You are the only owner of '{name}', and it has no recovery key: without your words nobody can decide there any more. \
         Name a second owner: weft members role WHO owner"
    )
}

fn kind(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Relay => "relay",
        LinkKind::Lan => "lan",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Joining => "joining",
        State::Active => "active",
        State::Paused => "paused",
        State::Halted => "halted",
        State::Left => "left",
    }
}

/// A role as people write it.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Keeper => "keeper",
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

/// The reverse.
pub(crate) fn role_of(text: &str) -> Option<Role> {
    [Role::Keeper, Role::Reader, Role::Writer, Role::Admin, Role::Owner].into_iter().find(|known| role(*known) == text)
}

pub(crate) fn halt_text(halt: &Halt) -> String {
    match halt {
        Halt::MassDelete { gone, total } => format!(
            "{gone} of {total} files vanished at once, and nothing was deleted anywhere. If that was meant: `weft resume \
             --accept-deletes`. If not: `weft resume --restore` puts them back"
        ),
        Halt::Root(why) => why.clone(),
    }
}

/// One log entry.
pub(crate) fn entry(entry: &LogEntry, who: Option<&str>) -> Value {
    let (what, path, other) = match &entry.what {
        LogEvent::Created(path) => ("created", path.to_string(), None),
        LogEvent::Edited(path) => ("edited", path.to_string(), None),
        LogEvent::Moved { from, to } => ("moved", to.to_string(), Some(from.to_string())),
        LogEvent::Deleted(path) => ("deleted", path.to_string(), None),
        LogEvent::KeptEdited(path) => ("kept-edited", path.to_string(), None),
        LogEvent::Clash { path, shown_as } => ("clash", path.to_string(), Some(shown_as.to_string())),
        LogEvent::StaleBuffer(path) => ("stale-buffer", path.to_string(), None),
        LogEvent::NotCarried { path, why } => ("not-carried", path.clone(), Some(why.clone())),
    };
    json!({
        "wall_ms": entry.wall_ms, "device": entry.device.map(|device| device.to_string()), "who": who,
        "what": what, "path": path, "other": other,
    })
}

/// One open invite; its link only where this device issued it.
pub(crate) fn invite(invite: &OpenInvite) -> Value {
    json!({
        "id": invite.id.to_string(), "role": role(invite.role), "expires_ms": invite.expires_wall_ms,
        "uses": invite.uses, "used": invite.used, "issuer": invite.issuer, "link": invite.link,
        "approval": invite.approval, "for": invite.whom,
    })
}

/// Somebody who waits for an admin.
pub(crate) fn request(request: &JoinRequestDetail) -> Value {
    json!({
        "id": request.device.to_string(), "root": request.root.to_string(), "did": root_did(&request.root.0),
        "name": request.name, "device": request.label, "fingerprint": request.fingerprint, "member": request.member,
        "invite": request.invite.to_string(), "role": role(request.role), "first_ms": request.first_wall_ms,
        "last_ms": request.last_wall_ms,
    })
}

/// What a joiner has heard.
fn knocking(knocking: &Knocking) -> Value {
    match knocking {
        Knocking::Unheard => json!({"state": "unheard"}),
        Knocking::Waiting { fingerprint } => json!({"state": "waiting", "fingerprint": fingerprint}),
        Knocking::Refused(why) => json!({"state": "refused", "why": why}),
    }
}

/// An account that a member names, and what it said when it was last asked.
pub(crate) fn account(seen: &SeenAccounts, root: &str, did: &str) -> Value {
    let seen = seen.of(root, did);
    let failed = seen.as_ref().and_then(|seen| seen.failed.as_ref());
    json!({
        "did": did, "handle": seen.as_ref().and_then(|seen| seen.handle.as_ref()),
        "verified_ms": seen.as_ref().and_then(|seen| seen.verified_ms),
        "failed": failed.map(|failed| json!({"at_ms": failed.at_ms, "denied": failed.denied, "why": failed.why})),
    })
}

/// Who belongs, and why.
pub(crate) fn members(members: &Members, seen: &SeenAccounts) -> Value {
    let because = |because: &Because| json!({"id": because.id.to_string(), "what": because.what, "by": because.by, "wall_ms": because.wall_ms});
    let device = |device: &DeviceDetail| {
        json!({
            "id": device.id.to_string(), "label": device.label, "active": device.active, "me": device.me,
            "certified_by": device.certified_by.map(|by| by.to_string()),
            "takes": device.takes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    let all: Vec<Value> = members
        .members
        .iter()
        .map(|member| {
            json!({
                "root": member.root.to_string(), "name": member.name, "fingerprint": member.fingerprint,
                "role": role(member.role), "me": member.me,
                "accounts": member.accounts.iter().map(|did| account(seen, &root_did(&member.root.0), did)).collect::<Vec<_>>(),
                "accounts_unsound": member.accounts_unsound,
                "devices": member.devices.iter().map(device).collect::<Vec<_>>(),
                "why": member.why.iter().map(because).collect::<Vec<_>>(),
            })
        })
        .collect();
    let former: Vec<Value> =
        members.former.iter().map(|(root, end)| json!({"root": root.to_string(), "why": because(end)})).collect();
    let proposals: Vec<Value> = members
        .proposals
        .iter()
        .map(|proposal| json!({"op": because(&proposal.op), "votes": proposal.votes, "needed": proposal.needed}))
        .collect();
    let late: Vec<Value> = members
        .late
        .iter()
        .map(|late| {
            let paths: Vec<&str> = late.paths.iter().map(RelPath::as_str).collect();
            json!({"root": late.root.to_string(), "name": late.name, "count": late.count, "paths": paths})
        })
        .collect();
    json!({"members": all, "former": former, "proposals": proposals, "late": late})
}
