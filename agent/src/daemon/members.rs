//! Requests about who belongs: finding whom a name means, and asking the workspace.
//!
//! Invariant: a name that means several is refused with what tells them apart; nothing is done to somebody who was only
//! likely meant.

use serde_json::json;
use weft_agent_core::id::DeviceId;
use weft_agent_core::membership::Role;
use weft_agent_core::workspace::command::{
    Command, DeviceDetail, LateDetail, MemberDetail, Members, RecoveryDeed, Reply,
};

use super::answer::{Outcome, PATIENCE, unexpected};
use super::space::Shared;
use super::wire::{Failure, Hidden, Named};
use super::{enrol, report};
use crate::nearest::did_you_mean;

/// Of an id or a key, at least so many digits are given.
const PREFIX_MIN: usize = 4;

/// Who belongs.
pub(crate) async fn ask(shared: &Shared) -> Result<Box<Members>, Failure> {
    let Reply::Members(members) = shared.ask(Command::Members, PATIENCE).await? else { return unexpected() };
    Ok(members)
}

/// The member meant by a root key, a display name, the start of a root key, the fingerprint's words, or a device's label. A
/// whole key means nobody else: anybody may call themselves by another's.
pub(super) fn find<'a>(members: &'a Members, who: &str) -> Result<&'a MemberDetail, Failure> {
    let all = || members.members.iter();
    if let Some(member) = all().find(|member| member.root.to_string() == who) {
        return Ok(member);
    }
    let by_name: Vec<&MemberDetail> = all().filter(|member| member.name == who || member.fingerprint == who).collect();
    let by_key =
        || all().filter(|member| who.len() >= PREFIX_MIN && member.root.to_string().starts_with(who)).collect();
    let has_device = |member: &MemberDetail| member.devices.iter().any(|device| device.active && device.label == who);
    let by_device = || all().filter(|member| has_device(member)).collect::<Vec<_>>();
    let mut found = by_name;
    if found.is_empty() {
        found = by_key();
    }
    if found.is_empty() {
        found = by_device();
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let names = all().map(|member| member.name.as_str());
            let labels = all().flat_map(|member| member.devices.iter().map(|device| device.label.as_str()));
            let meant = did_you_mean(who, names.chain(labels));
            let why = format!("nobody here is called {who:?}{meant} `weft members` lists everybody");
            Err(Failure::usage(why).code("unknown-name"))
        }
        several => {
            let lines: Vec<String> =
                several.iter().map(|member| format!("  {}  {}", member.name, member.fingerprint)).collect();
            Err(Failure::usage(format!(
                "{who:?} means several people; name one by their four words, in quotes:\n{}",
                lines.join("\n")
            ))
            .code("ambiguous-name"))
        }
    }
}

/// What was done, or what it waits for.
async fn act(shared: &Shared, command: Command, name: &str) -> Outcome {
    let reply = shared.ask(command, PATIENCE).await?;
    if let Reply::Proposed { id, needed } = reply {
        return Ok(json!({"done": false, "name": name, "proposal": id.to_string(), "needed": needed}));
    }
    let Reply::Done = reply else { return unexpected() };
    Ok(json!({"done": true, "name": name}))
}

pub(crate) async fn remove(shared: &Shared, who: &str, recovery_key: Option<&Hidden>) -> Outcome {
    let members = ask(shared).await?;
    let member = find(&members, who)?;
    let command = match recovery_key {
        None => Command::RemoveMember(member.root),
        Some(words) => Command::ByRecoveryKey(Box::new(enrol::recovery_key(words)?), RecoveryDeed::Remove(member.root)),
    };
    act(shared, command, &member.name).await
}

pub(crate) async fn set_role(shared: &Shared, who: &str, role: &str, recovery_key: Option<&Hidden>) -> Outcome {
    // Keepers need an agent that serves what it cannot read; there is none yet.
    let role = report::role_of(role).filter(|role| *role > Role::Keeper).ok_or_else(|| {
        let meant = did_you_mean(role, ["reader", "writer", "admin", "owner"]);
        Failure::usage(format!("there is no role {role:?}{meant} Roles are reader, writer, admin and owner"))
    })?;
    let members = ask(shared).await?;
    let member = find(&members, who)?;
    let command = match recovery_key {
        None => Command::SetRole(member.root, role),
        Some(words) => {
            Command::ByRecoveryKey(Box::new(enrol::recovery_key(words)?), RecoveryDeed::Role(member.root, role))
        }
    };
    act(shared, command, &member.name).await
}

/// Those whose id begins so, or who are called so; one alone if it is the whole id of that one.
fn matching<T: Copy>(all: &[T], which: &str, id: impl Fn(&T) -> String, name: impl Fn(&T) -> bool) -> Vec<T> {
    if let Some(one) = all.iter().find(|one| id(one) == which) {
        return vec![*one];
    }
    let begins = |one: &T| which.len() >= PREFIX_MIN && id(one).starts_with(which);
    all.iter().filter(|one| name(one) || begins(one)).copied().collect()
}

/// The device meant by its id, a label or the start of its id, with its member.
fn find_device<'a>(members: &'a Members, which: &str) -> Result<(&'a MemberDetail, &'a DeviceDetail), Failure> {
    let all = members.members.iter().flat_map(|member| member.devices.iter().map(move |device| (member, device)));
    let (active, gone): (Vec<_>, Vec<_>) = all.partition(|(_, device)| device.active);
    let id = |(_, device): &(&MemberDetail, &DeviceDetail)| device.id.to_string();
    let called = |(_, device): &(&MemberDetail, &DeviceDetail)| device.label == which;
    match matching(&active, which, id, called).as_slice() {
        [one] => Ok(*one),
        [] if !matching(&gone, which, id, called).is_empty() => {
            Err(Failure::usage(format!("{which:?} was revoked already; `weft devices` lists the active ones")))
        }
        [] => {
            let meant = did_you_mean(which, active.iter().map(|(_, device)| device.label.as_str()));
            let why = format!("no device is called {which:?}{meant} `weft devices` lists them");
            Err(Failure::usage(why).code("unknown-name"))
        }
        several => {
            let lines: Vec<String> =
                several.iter().map(|(member, device)| format!("  {}  of {}", device.id, member.name)).collect();
            Err(Failure::usage(format!(
                "several devices are called {which:?}; name one by its id:\n{}",
                lines.join("\n")
            ))
            .code("ambiguous-name"))
        }
    }
}

/// What goes with a device that is revoked, itself first, and their labels.
fn going(members: &Members, device: &DeviceDetail, keep_certified: bool) -> (Vec<DeviceId>, Vec<String>) {
    let mut devices = vec![device.id];
    if !keep_certified {
        devices.extend(device.takes.iter().filter(|other| **other != device.id));
    }
    let all = || members.members.iter().flat_map(|member| &member.devices);
    let label = |id: &DeviceId| all().find(|device| device.id == *id).map(|device| device.label.clone());
    let labels = devices.iter().filter_map(label).collect();
    (devices, labels)
}

/// A device does not revoke itself, nor the one that let it in with all that this one let in: says what that would take along.
fn not_this_one(members: &Members, device: &DeviceDetail, going: &[DeviceId]) -> Result<(), Failure> {
    let all = || members.members.iter().flat_map(|member| &member.devices);
    let Some(me) = all().find(|other| other.me && going.contains(&other.id)) else { return Ok(()) };
    if device.me {
        return Err(
            Failure::usage("that is this device; `weft leave` takes it out of the workspace").code("this-device")
        );
    }
    let others: Vec<&str> = all()
        .filter(|other| going.contains(&other.id) && other.id != device.id && !other.me)
        .map(|other| other.label.as_str())
        .collect();
    let others = if others.is_empty() { String::new() } else { format!(", and {} too", others.join(", ")) };
    Err(Failure::usage(format!(
        "{label} let this device ({me}) in, so revoking it takes this one along{others}. To revoke {label} alone: weft devices \
         revoke {label} --keep-certified. If {label} was stolen, its finder may have let devices in: revoke it from a device \
         that it did not let in, or come back with your words (weft leave, then weft identity recover)",
        label = device.label,
        me = me.label,
    ))
    .code("this-device"))
}

pub(crate) async fn revoke_device(shared: &Shared, which: &str, keep_certified: bool) -> Outcome {
    let members = ask(shared).await?;
    let (_, device) = find_device(&members, which)?;
    let (devices, labels) = going(&members, device, keep_certified);
    not_this_one(&members, device, &devices)?;
    act(shared, Command::RevokeDevices(devices), &labels.join(", ")).await
}

/// Whom or what a name means, and a key or id that means nothing else.
pub(crate) async fn meant(shared: &Shared, named: &Named) -> Outcome {
    let members = ask(shared).await?;
    match named {
        Named::Member(who) => {
            let member = find(&members, who)?;
            Ok(json!({"id": member.root.to_string(), "name": member.name, "fingerprint": member.fingerprint}))
        }
        Named::Device(which, keep_certified) => {
            let (member, device) = find_device(&members, which)?;
            let (devices, labels) = going(&members, device, *keep_certified);
            not_this_one(&members, device, &devices)?;
            let takes = labels.get(1..).unwrap_or_default();
            Ok(json!({"id": device.id.to_string(), "name": device.label, "member": member.name, "takes": takes}))
        }
        Named::Late(who) => {
            let late = find_late(&members, who)?;
            Ok(json!({"id": late.root.to_string(), "name": late.name, "count": late.count}))
        }
    }
}

/// Lets what somebody wrote late count: a member, or somebody who once was one.
pub(crate) async fn keep_late(shared: &Shared, who: &str) -> Outcome {
    let members = ask(shared).await?;
    let late = find_late(&members, who)?;
    act(shared, Command::KeepLate(late.root), &late.name).await?;
    Ok(json!({"done": true, "name": late.name, "count": late.count}))
}

fn find_late<'a>(members: &'a Members, who: &str) -> Result<&'a LateDetail, Failure> {
    let all: Vec<&LateDetail> = members.late.iter().collect();
    match matching(&all, who, |late| late.root.to_string(), |late| late.name == who).as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::usage(format!(
            "nothing that {who:?} wrote came late; `weft members` lists what did. What somebody wrote offline and never \
             sent is on their computer only"
        ))),
        several => {
            let lines: Vec<String> = several.iter().map(|late| format!("  {}", late.root)).collect();
            Err(Failure::usage(format!(
                "{who:?} means several people; name one by the start of a key:\n{}",
                lines.join("\n")
            )))
        }
    }
}

pub(crate) async fn agree(shared: &Shared, prefix: &str) -> Outcome {
    let members = ask(shared).await?;
    let waiting = members.proposals.iter().filter(|proposal| proposal.op.id.to_string().starts_with(prefix));
    let matching: Vec<_> = waiting.collect();
    match matching.as_slice() {
        [one] => act(shared, Command::Agree(one.op.id), &one.op.what).await,
        [] => Err(Failure::usage(format!("nothing that begins with {prefix} waits for owners; see `weft members`"))),
        _ => Err(Failure::usage(format!("several begin with {prefix}; give more of it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::id::RootKey;

    fn member(byte: u8, name: &str, label: &str) -> MemberDetail {
        let device = DeviceDetail {
            id: DeviceId([byte; 16]),
            label: label.to_owned(),
            active: true,
            certified_by: None,
            me: false,
            takes: vec![DeviceId([byte; 16])],
        };
        MemberDetail {
            root: RootKey([byte; 32]),
            name: name.to_owned(),
            fingerprint: format!("word {byte}"),
            role: Role::Writer,
            me: false,
            accounts: Vec::new(),
            accounts_unsound: 0,
            devices: vec![device],
            why: Vec::new(),
        }
    }

    /// A name goes before a key and a key before a label; several are refused with their words, none is guessed.
    #[test]
    fn names_mean_one_or_nobody() {
        let all = vec![member(0x11, "Ann", "desk"), member(0x22, "Bob", "phone"), member(0x33, "Bob", "Ann")];
        let members = Members { members: all, former: Vec::new(), proposals: Vec::new(), late: Vec::new() };
        let found = |who: &str| find(&members, who).map(|member| member.root.0[0]).map_err(|failure| failure.message);
        assert_eq!(found("Ann"), Ok(0x11));
        assert_eq!(found("phone"), Ok(0x22));
        assert_eq!(found("333333"), Ok(0x33));
        assert_eq!(found("word 34"), Ok(0x22));
        let several = found("Bob").unwrap_err();
        assert!(several.contains("word 34") && several.contains("word 51"), "{several}");
        assert_eq!(found("2222"), Ok(0x22));
        assert!(found("222").is_err() && found("Zed").is_err());
    }

    /// Revoking the device that let this one in says what it would take along, and how to spare that; this device itself
    /// leaves instead; any other goes.
    #[test]
    fn the_device_that_let_this_one_in_takes_it_along() {
        let mut ann = member(0x11, "Ann", "desk");
        let device = |byte: u8, label: &str, me| DeviceDetail {
            id: DeviceId([byte; 16]),
            label: label.to_owned(),
            me,
            certified_by: Some(DeviceId([0x11; 16])),
            takes: vec![DeviceId([byte; 16])],
            ..member(0, "", "").devices[0].clone()
        };
        ann.devices.extend([device(0x22, "phone", true), device(0x33, "tablet", false)]);
        ann.devices[0].takes = [0x11, 0x22, 0x33].map(|byte| DeviceId([byte; 16])).to_vec();
        let members = Members { members: vec![ann], former: Vec::new(), proposals: Vec::new(), late: Vec::new() };
        let refused = |which: &str, keep_certified: bool| {
            let (_, device) = find_device(&members, which).unwrap();
            let (devices, _) = going(&members, device, keep_certified);
            not_this_one(&members, device, &devices).map_err(|failure| failure.message)
        };
        let why = refused("desk", false).unwrap_err();
        assert!(
            why.contains("this device (phone)") && why.contains("tablet too") && why.contains("--keep-certified"),
            "{why}"
        );
        assert_eq!(refused("desk", true), Ok(()));
        assert_eq!(refused("tablet", false), Ok(()));
        assert!(refused("phone", false).unwrap_err().contains("weft leave"));
    }

    /// Whoever calls themselves, or a device, by another's whole key or id is not meant by it.
    #[test]
    fn a_whole_key_means_nobody_else() {
        let honest = member(0x11, "Ann", "desk");
        let (key, id) = (honest.root.to_string(), honest.devices[0].id.to_string());
        let all = vec![member(0x22, &key, &id), honest];
        let members = Members { members: all, former: Vec::new(), proposals: Vec::new(), late: Vec::new() };
        assert_eq!(find(&members, &key).map(|member| member.root.0[0]).ok(), Some(0x11));
        assert_eq!(find_device(&members, &id).map(|(member, _)| member.root.0[0]).ok(), Some(0x11));
        assert!(find_device(&members, &id[..6]).is_ok() && find_device(&members, "laptop").is_err());
    }
}
