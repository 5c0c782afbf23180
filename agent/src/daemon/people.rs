//! Requests about who we are to relays: the account, and what each relay may know.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_agent_core::identity::Certifier;
use weft_agent_core::workspace::command::Command;

use super::answer::PATIENCE;
use super::enrol;
use super::run::Daemon;
use super::wire::{Failure, Hidden};
use crate::account::verify::Said;
use crate::account::{AccountError, root_did, to_say};
use crate::home::identity;
use crate::keychain::Place;
use crate::link::access::Identity;
use crate::link::address::Address;

type Outcome = Result<Value, Failure>;

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        if matches!(error, AccountError::BadPds { .. } | AccountError::NoRoot) {
            Failure::usage(text)
        } else if matches!(error, AccountError::None | AccountError::LoginAgain { .. }) {
            Failure::attention(text)
        } else {
            Failure::new(text)
        }
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::System => "keychain",
        Place::File => "file",
    }
}

/// Whoever waits for an answer of ours tries again now.
fn nudge(daemon: &Daemon) {
    for space in daemon.spaces() {
        space.shared.nudge();
    }
}

pub(super) async fn login(daemon: &Arc<Daemon>, name: &str, password: &Hidden, pds: &str) -> Outcome {
    let (profile, kept) = daemon.access.account.login(name, password.expose(), pds).await?;
    daemon.access.forget_named();
    nudge(daemon);
    Ok(json!({"did": profile.did, "handle": profile.handle, "pds": profile.pds, "kept": place(kept)}))
}

pub(super) async fn logout(daemon: &Arc<Daemon>) -> Outcome {
    let profile = daemon.access.account.logout().await?;
    daemon.access.forget_named();
    Ok(json!({"did": profile.did, "handle": profile.handle}))
}

/// Who we are, to members and to relays.
pub(super) fn show(daemon: &Arc<Daemon>) -> Outcome {
    let member = identity::load(&daemon.home.identity_file())?.map(|identity| {
        json!({
            "name": identity.name, "did": root_did(&identity.root_public.sign.0), "device": identity.label,
            "device_id": identity.device.id().to_string(), "has_root": identity.root.is_some(),
            "by_root": identity.cert.certifier() == Certifier::Root,
        })
    });
    let account = daemon.access.account.profile()?.map(|profile| {
        json!({
            "did": profile.did, "handle": profile.handle, "pds": profile.pds,
            "attested": profile.attested.map(|it| json!({"root": it.root, "uri": it.uri, "verified_ms": it.verified_ms})),
        })
    });
    Ok(json!({"member": member, "account": account}))
}

pub(super) async fn attest(daemon: &Arc<Daemon>, name: &str, words: Option<&Hidden>) -> Outcome {
    let asked = name.trim().trim_start_matches('@');
    let profile = daemon.access.account.profile()?.ok_or(AccountError::None)?;
    if asked != profile.did && !asked.eq_ignore_ascii_case(&profile.handle) {
        return Err(Failure::usage(format!(
            "logged in is {} ({}); for another one: weft identity login {asked}",
            profile.handle, profile.did
        )));
    }
    let member = identity::load(&daemon.home.identity_file())?.ok_or_else(|| {
        Failure::usage("there is no identity yet that could be attested; it is made by `weft init`, `up` or `join`")
    })?;
    let (member, _) = enrol::with_root(member, words)?;
    let profile = daemon.access.account.attest(&member).await?;
    if let Some(attested) = &profile.attested {
        let said = Ok(Said::Yes { handle: Some(profile.handle.clone()) });
        if let Err(error) = daemon.seen.note(&attested.root, &profile.did, attested.verified_ms, said) {
            tracing::warn!(%error, "what the account said cannot be kept");
        }
    }
    let (told, later) = tell_members(daemon).await?;
    let attested = profile.attested.map(|it| json!({"root": it.root, "uri": it.uri, "verified_ms": it.verified_ms}));
    Ok(json!({"did": profile.did, "handle": profile.handle, "attested": attested, "told": told, "later": later}))
}

/// Says in every workspace which account is ours: names of those where it is said, and of the others with the reason.
async fn tell_members(daemon: &Arc<Daemon>) -> Result<(Vec<String>, Vec<Value>), Failure> {
    let (mut told, mut later) = (Vec::new(), Vec::new());
    let Some((did, proof)) = to_say(&daemon.home)? else { return Ok((told, later)) };
    for space in daemon.spaces() {
        let command = Command::Attest { did: did.clone(), proof: proof.clone() };
        // Those that cannot be told now are told when they start next, or are joined.
        match space.shared.ask(command, PATIENCE).await {
            Ok(_) => told.push(space.shared.name()),
            Err(failure) => later.push(json!({"name": space.shared.name(), "why": failure.message})),
        }
    }
    Ok((told, later))
}

fn address(url: &str) -> Result<Address, Failure> {
    Address::parse(url).map_err(|error| Failure::usage(format!("{url}: {error}")))
}

pub(super) fn relay_identity(daemon: &Arc<Daemon>, url: &str, identity: Option<&str>) -> Outcome {
    let address = address(url)?;
    if let Some(text) = identity {
        let identity = Identity::parse(text)
            .ok_or_else(|| Failure::usage(format!("{text:?} is none of auto, pseudonym and account")))?;
        daemon.access.set_identity(&address.audience, identity)?;
        nudge(daemon);
    }
    let setting = daemon.access.setting(&address.audience);
    Ok(json!({"url": address.url, "identity": setting.identity, "secret": setting.secret}))
}

pub(super) async fn relay_secret(daemon: &Arc<Daemon>, url: &str, secret: Option<Hidden>) -> Outcome {
    let address = address(url)?;
    let (access, audience) = (Arc::clone(&daemon.access), address.audience.clone());
    let kept = tokio::task::spawn_blocking(move || {
        access.set_secret(&audience, secret.as_ref().map(|secret| secret.expose().trim()))
    });
    let kept = kept.await.map_err(|error| Failure::new(error.to_string()))??;
    nudge(daemon);
    Ok(json!({"url": address.url, "kept": kept.map(place)}))
}
