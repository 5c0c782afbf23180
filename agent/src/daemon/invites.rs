//! Requests about who may come in: links, and people who wait for an admin.
//!
//! Invariant: nobody is let in by a name that they gave themselves, and a name that means several of those who wait is
//! refused with what tells them apart.

use serde_json::{Value, json};
use weft_agent_core::id::{OpId, RootKey};
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::membership::Role;
use weft_agent_core::workspace::command::{Command, InviteTerms, JoinRequestDetail, OpenInvite, Reply};
use weft_protocol::admission::DidKey;

use super::answer::{Outcome, PATIENCE, unexpected};
use super::report;
use super::space::Shared;
use super::wire::{Failure, InviteWish};
use crate::clock;
use crate::nearest::did_you_mean;

/// Makes a link.
pub(crate) async fn invite(shared: &Shared, wish: &InviteWish, lan: Vec<String>) -> Outcome {
    let role = report::role_of(&wish.role).ok_or_else(|| {
        let meant = did_you_mean(&wish.role, ["reader", "writer", "admin"]);
        Failure::usage(format!("there is no role {:?}{meant} A link gives reader, writer or admin", wish.role))
    })?;
    let whom = wish.whom.as_deref().map(key_of).transpose()?;
    if wish.open_one_will_do
        && let Reply::Status(status) = shared.ask(Command::Status, PATIENCE).await?
    {
        let open = ask_open(shared).await?;
        let as_good = open.iter().find(|open| is_as_good(open, role, wish, &status.relays, &lan, clock::wall_ms()));
        if let Some((invite, link)) = as_good.and_then(|invite| Some((invite, invite.link.as_ref()?))) {
            let beyond_lan = !status.relays.is_empty();
            return Ok(json!({"link": link, "id": invite.id.to_string(), "beyond_lan": beyond_lan, "made": false}));
        }
    }
    let terms = InviteTerms {
        role,
        expires_wall_ms: clock::wall_ms().saturating_add(wish.expires_ms),
        uses: wish.uses,
        approval: wish.approval,
        whom,
    };
    let Reply::Invite { link, id, beyond_lan } = shared.ask(Command::Invite { terms, lan }, PATIENCE).await? else {
        return unexpected();
    };
    Ok(json!({"link": link, "id": id.to_string(), "beyond_lan": beyond_lan, "made": true}))
}

/// Whether an open invite does what is wished for: unused, of that kind, for another while, and leading where we are found.
fn is_as_good(
    open: &OpenInvite,
    role: Role,
    wish: &InviteWish,
    relays: &[String],
    lan: &[String],
    now_ms: u64,
) -> bool {
    let Some(link) = open.link.as_deref().and_then(|text| InviteLink::parse(text).ok()) else { return false };
    let of_kind = open.role == role && open.uses == wish.uses && open.used == 0 && open.approval == wish.approval;
    let lasts = open.expires_wall_ms.saturating_sub(now_ms) > wish.expires_ms / 2;
    let found = relays.iter().all(|url| link.urls.contains(url))
        && link.urls.iter().all(|url| relays.contains(url) || lan.contains(url))
        && (!relays.is_empty() || lan.iter().all(|url| link.urls.contains(url)));
    of_kind && lasts && found && open.whom.is_none() && wish.whom.is_none()
}

/// The root key that a DID is: whom alone a link is for.
fn key_of(who: &str) -> Result<RootKey, Failure> {
    match DidKey::parse(who) {
        Ok(DidKey::Ed25519(key)) => Ok(RootKey(key)),
        Ok(_) | Err(_) => Err(Failure::usage(format!(
            "{who} names no member's key. Members are known by keys, not by accounts: `weft identity` prints one, did:key:z6Mk..."
        ))),
    }
}

/// The open invites.
pub(crate) async fn open(shared: &Shared) -> Outcome {
    let open = ask_open(shared).await?;
    Ok(Value::Array(open.iter().map(report::invite).collect()))
}

async fn ask_open(shared: &Shared) -> Result<Vec<OpenInvite>, Failure> {
    let Reply::Invites(open) = shared.ask(Command::Invites, PATIENCE).await? else { return unexpected() };
    Ok(open)
}

async fn done(shared: &Shared, command: Command) -> Result<(), Failure> {
    let Reply::Done = shared.ask(command, PATIENCE).await? else { return unexpected() };
    Ok(())
}

/// Makes an invite void.
pub(crate) async fn revoke(shared: &Shared, prefix: &str) -> Outcome {
    let open = ask_open(shared).await?;
    let matching: Vec<OpId> =
        open.iter().map(|invite| invite.id).filter(|id| id.to_string().starts_with(prefix)).collect();
    match matching.as_slice() {
        [id] => done(shared, Command::RevokeInvite(*id)).await.map(|()| Value::Null),
        [] => Err(Failure::usage(format!("no open invite begins with {prefix}; `weft invites` lists them"))),
        _ => Err(Failure::usage(format!("several open invites begin with {prefix}; give more of it"))),
    }
}

async fn ask_requests(shared: &Shared) -> Result<Vec<JoinRequestDetail>, Failure> {
    let Reply::Requests(requests) = shared.ask(Command::Requests, PATIENCE).await? else { return unexpected() };
    Ok(requests)
}

/// Who waits for an admin.
pub(crate) async fn requests(shared: &Shared) -> Outcome {
    Ok(Value::Array(ask_requests(shared).await?.iter().map(report::request).collect()))
}

/// Whoever is meant by the start of an id or four words; by a name too where nobody is let in by it.
fn find<'a>(requests: &'a [JoinRequestDetail], who: &str, names: bool) -> Result<&'a JoinRequestDetail, Failure> {
    let named: Vec<&JoinRequestDetail> = requests.iter().filter(|request| request.name == who).collect();
    let by_key = |request: &&JoinRequestDetail| {
        request.fingerprint == who || (who.len() >= 4 && request.device.to_string().starts_with(who))
    };
    let mut found: Vec<&JoinRequestDetail> = requests.iter().filter(by_key).collect();
    if found.is_empty() && names {
        found.clone_from(&named);
    }
    let lines = |of: &[&JoinRequestDetail]| -> String {
        of.iter().map(|request| format!("\n  {}  {}  {}", request.device, request.name, request.fingerprint)).collect()
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] if named.is_empty() => {
            Err(Failure::usage(format!("nobody who waits is called {who:?}; `weft requests` lists them")))
        }
        [] => Err(Failure::usage(format!(
            "a name is only what somebody says of themselves: compare the four words with {who}, then name them by those, in \
             quotes, or by the id:{}",
            lines(&named)
        ))),
        several => Err(Failure::usage(format!("{who:?} means several; name one by its id:{}", lines(several)))),
    }
}

/// Lets somebody in.
pub(crate) async fn approve(shared: &Shared, who: &str) -> Outcome {
    let all = ask_requests(shared).await?;
    let request = find(&all, who, false)?;
    done(shared, Command::Approve(request.device)).await?;
    Ok(report::request(request))
}

/// Tells somebody that they are not let in.
pub(crate) async fn deny(shared: &Shared, who: &str) -> Outcome {
    let all = ask_requests(shared).await?;
    let request = find(&all, who, true)?;
    done(shared, Command::Deny(request.device)).await?;
    Ok(report::request(request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::id::DeviceId;
    use weft_agent_core::invite::InviteSecret;
    use weft_agent_core::secret::Secret;

    /// An open link is given again while it is unused, of the wished kind, lasts, and leads to where we are found now.
    #[test]
    fn an_open_link_is_used_again_while_it_is_as_good() {
        let relays = vec!["wss://r.example:443".to_owned()];
        let link = InviteLink {
            workspace: weft_agent_core::id::WorkspaceId([1; 32]),
            secret: InviteSecret::new(Secret::new([7; 32])),
            op_heads: vec![OpId([1; 32])],
            inviter: DeviceId([2; 16]),
            urls: vec![relays[0].clone(), "ws://192.168.1.4:7".to_owned()],
            name: "notes".to_owned(),
        };
        let open = OpenInvite {
            id: OpId([1; 32]),
            role: Role::Writer,
            expires_wall_ms: 1_000_000,
            uses: 1,
            used: 0,
            issuer: "Ann".to_owned(),
            link: Some(link.to_text()),
            approval: false,
            whom: None,
        };
        let wish = InviteWish {
            role: "writer".to_owned(),
            open_one_will_do: true,
            expires_ms: 1_000_000,
            uses: 1,
            approval: false,
            whom: None,
        };
        let lan = vec!["ws://192.168.1.4:7".to_owned()];
        assert!(is_as_good(&open, Role::Writer, &wish, &relays, &lan, 0));
        assert!(!is_as_good(&open, Role::Reader, &wish, &relays, &lan, 0));
        assert!(!is_as_good(&OpenInvite { used: 1, ..open.clone() }, Role::Writer, &wish, &relays, &lan, 0));
        assert!(!is_as_good(&OpenInvite { link: None, ..open.clone() }, Role::Writer, &wish, &relays, &lan, 0));
        assert!(!is_as_good(&open, Role::Writer, &wish, &relays, &lan, 600_000), "soon over");
        let moved = vec!["ws://10.0.0.9:7".to_owned()];
        assert!(!is_as_good(&open, Role::Writer, &wish, &relays, &moved, 0), "it leads to where we were");
        let other = vec!["wss://other.example:443".to_owned()];
        assert!(!is_as_good(&open, Role::Writer, &wish, &other, &lan, 0), "it does not name the relay of today");
    }

    fn request(byte: u8, name: &str) -> JoinRequestDetail {
        JoinRequestDetail {
            device: DeviceId([byte; 16]),
            root: RootKey([byte; 32]),
            name: name.to_owned(),
            label: "desk".to_owned(),
            fingerprint: format!("word {byte}"),
            member: None,
            invite: OpId([1; 32]),
            role: Role::Writer,
            first_wall_ms: 1,
            last_wall_ms: 2,
        }
    }

    /// Nobody is let in by a name that they gave themselves; two of one name are refused with their words, and a short id
    /// means nobody.
    #[test]
    fn who_waits_is_named_exactly() {
        let all = vec![request(0x11, "Bob"), request(0x22, "Bob"), request(0x33, "2222"), request(0x44, "Eve")];
        let of = |who: &str, names: bool| {
            find(&all, who, names).map(|request| request.root.0[0]).map_err(|failure| failure.message)
        };
        assert_eq!((of("1111", false), of("2222", true), of("word 51", false)), (Ok(0x11), Ok(0x22), Ok(0x33)));
        assert_eq!(of("Eve", true), Ok(0x44));
        let named = of("Eve", false).unwrap_err();
        assert!(named.contains("only what somebody says") && named.contains("word 68"), "{named}");
        let several = of("Bob", true).unwrap_err();
        assert!(several.contains("word 17") && several.contains("word 34"), "{several}");
        assert!(of("11", true).is_err() && of("Zed", true).is_err());
    }

    /// A DID that is a key is that key; a DID of an account is refused with what to do.
    #[test]
    fn only_keys_name_newcomers() {
        let did = DidKey::Ed25519([7; 32]).to_string();
        assert_eq!(key_of(&did).unwrap(), RootKey([7; 32]));
        assert!(key_of("Ann").is_err());
        assert!(key_of("did:plc:abc").unwrap_err().message.contains("weft identity"));
    }
}
