//! `weft members verify`: asks the accounts that members name whether they are those members.
//!
//! Invariant: only when a person asks, a bounded number at a time, and what is known afterwards was answered to this computer.
//! Spec: docs/using.md#who-belongs.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::json;
use weft_agent_core::id::RootKey;
use weft_agent_core::workspace::command::MemberDetail;
use weft_relay::DidClient;

use super::answer::Outcome;
use super::run::Daemon;
use super::space::Shared;
use super::wire::Failure;
use super::{members, report};
use crate::account::{root_did, verify};
use crate::clock;
use crate::config::Config;

/// Accounts asked by one command: those that were asked the longest ago. A person waits for them.
const ASKED_MAX: usize = 64;
/// Accounts asked at the same time.
const AT_ONCE: usize = 8;

/// Who we are to the servers of accounts.
const USER_AGENT: &str = concat!("weft/", env!("CARGO_PKG_VERSION"));

/// Asks the accounts of one member, or of all.
pub(super) async fn verify(daemon: &Arc<Daemon>, shared: &Shared, who: Option<&str>) -> Outcome {
    let all = members::ask(shared).await?;
    let chosen: Vec<&MemberDetail> = match who {
        Some(who) => vec![members::find(&all, who)?],
        None => all.members.iter().collect(),
    };
    let mut due: Vec<(RootKey, String, String)> = Vec::new();
    for member in chosen {
        due.extend(member.accounts.iter().map(|did| (member.root, member.name.clone(), did.clone())));
    }
    due.sort_by_cached_key(|(root, _, did)| daemon.seen.asked_ms(&root_did(&root.0), did));
    let left = due.len().saturating_sub(ASKED_MAX);
    due.truncate(ASKED_MAX);
    let client = Arc::new(client(daemon)?);
    let asked = stream::iter(due).map(|(root, name, did)| {
        let client = Arc::clone(&client);
        async move {
            let said = verify::ask(&client, &root.0, &did).await;
            (root, name, did, said)
        }
    });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    let mut accounts = Vec::new();
    while let Some((root, name, did, said)) = asked.next().await {
        let root = root_did(&root.0);
        let failed = said.as_ref().err().cloned();
        daemon.seen.note(&root, &did, clock::wall_ms(), said)?;
        let mut account = report::account(&daemon.seen, &root, &did);
        if let Some(account) = account.as_object_mut() {
            // An account that denied it before still does as far as anybody knows; what happened now is said here.
            account.insert("name".to_owned(), json!(name));
            account.insert("unanswered".to_owned(), json!(failed));
        }
        accounts.push((name, account));
    }
    accounts.sort_by(|(one, _), (other, _)| one.cmp(other));
    let accounts: Vec<_> = accounts.into_iter().map(|(_, account)| account).collect();
    Ok(json!({"accounts": accounts, "left": left}))
}

fn client(daemon: &Daemon) -> Result<DidClient, Failure> {
    // Read now, so that a setting holds without a restart.
    let config =
        Config::load(daemon.home.config_file().as_path()).map_err(|error| Failure::usage(error.to_string()))?;
    let (plc_url, private) = (config.text("plc_url"), config.is_on("private_accounts"));
    Ok(DidClient::new(&plc_url, daemon.ca_file.clone(), private, USER_AGENT))
}
