//! Requests about words, passes and further devices.
//!
//! Invariant: words come in to be used once and are wiped; none is kept, and none goes into a log. The root secret leaves
//! the disk when, and only when, its person has shown to have the words. Spec: docs/using.md#your-words.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_agent_core::enrol::{Pass, Way, pairing_words};
use weft_agent_core::id::{DeviceId, OpId, RootKey, WorkspaceId};
use weft_agent_core::identity::{Certifier, LocalIdentity, RecoveryKey, RootSecret};
use weft_agent_core::membership::OpSet;
use weft_agent_core::op::{OpBody, OpSigner, SignedOp};
use weft_agent_core::workspace::command::{Command, Pairing, Reply};

use super::answer::{Outcome, PATIENCE, begin, begins, unexpected};
use super::members;
use super::run::Daemon;
use super::space::Shared;
use super::wire::{Failure, Hidden};
use crate::clock;
use crate::engine::{self, OsRandom};
use crate::home::identity;
use crate::host::watermark::WatermarkFile;

/// What a person is told whose words are needed.
pub(crate) const WORDS_NEEDED: &str =
    "this needs your 24 words, which this computer does not keep; they are asked for, or read from standard input";

/// The root secret that these words are.
pub(super) fn root_of(words: &Hidden) -> Result<RootSecret, Failure> {
    Ok(RootSecret::from_words(words.expose())?)
}

/// The recovery key that these words are.
pub(super) fn recovery_key(words: &Hidden) -> Result<RecoveryKey, Failure> {
    Ok(RecoveryKey::from_words(words.expose())?)
}

/// The identity with its root secret: the one it holds, or the one that was typed in. Whether it was typed in.
pub(super) fn with_root(identity: LocalIdentity, words: Option<&Hidden>) -> Result<(LocalIdentity, bool), Failure> {
    let (root, typed) = match (&identity.root, words) {
        (Some(root), _) => (root.clone(), false),
        (None, Some(words)) => (root_of(words)?, true),
        (None, None) => return Err(Failure::usage(WORDS_NEEDED)),
    };
    let whole = identity.with_root(root);
    Ok((whole.ok_or_else(|| Failure::usage("these are the words of another identity"))?, typed))
}

/// A device that another one certified belongs where that one does. To come in elsewhere it needs the root's certificate.
pub(super) fn certified_by_root(
    daemon: &Daemon,
    identity: LocalIdentity,
    words: Option<&Hidden>,
) -> Result<LocalIdentity, Failure> {
    if identity.cert.certifier() == Certifier::Root {
        return Ok(identity);
    }
    let (whole, _) = with_root(identity, words)?;
    let kept = LocalIdentity { root: None, ..whole };
    identity::save(&daemon.home.identity_file(), &kept)?;
    Ok(kept)
}

/// What lies in the identity file, or why nothing can be done without it.
fn known(daemon: &Daemon) -> Result<LocalIdentity, Failure> {
    identity::load(&daemon.home.identity_file())?.ok_or_else(|| {
        Failure::usage("there is no identity yet; it is made by `weft init`, `up` or `join`, or brought by `weft identity recover`")
    })
}

/// What to remind of in `weft status`.
pub(super) fn reminders(daemon: &Daemon) -> Vec<String> {
    let identity = identity::load(&daemon.home.identity_file()).ok().flatten();
    let only_here = identity.is_some_and(|identity| identity.root.is_some());
    let text = "If this computer is lost, your place in your workspaces is lost with it. Write down your 24 words, once: \
                weft identity words";
    only_here.then(|| text.to_owned()).into_iter().collect()
}

async fn pass_text(shared: &Shared, daemon: &Daemon, root: RootKey) -> Result<String, Failure> {
    let Reply::Pass(pass) = shared.ask(Command::Pass { root, lan: daemon.lan_urls() }, PATIENCE).await? else {
        return unexpected();
    };
    Ok(pass)
}

/// The words, while they are here, and what leads back to each workspace.
pub(super) async fn words(daemon: &Arc<Daemon>) -> Outcome {
    let identity = known(daemon)?;
    let mut workspaces = Vec::new();
    for space in daemon.spaces() {
        let shared = &space.shared;
        let pass = pass_text(shared, daemon, identity.root_public.sign).await;
        let relays = match pass.as_deref().map(Pass::parse) {
            Ok(Ok(pass)) => pass.urls,
            _ => Vec::new(),
        };
        let (pass, why) = match pass {
            Ok(pass) => (Some(pass), None),
            Err(failure) => (None, Some(failure.message)),
        };
        let alone = match shared.ask(Command::Status, PATIENCE).await {
            Ok(Reply::Status(status)) => status.peers.is_empty(),
            Ok(_) | Err(_) => false,
        };
        workspaces.push(json!({
            "name": shared.name(), "workspace": shared.id.to_string(), "path": shared.path, "urls": relays,
            "pass": pass, "why": why, "alone": alone,
        }));
    }
    let words = identity.root.as_ref().map(|root| root.words().to_string());
    Ok(json!({"name": identity.name, "words": words, "workspaces": workspaces}))
}

/// The person has shown to have the words: they leave this computer.
pub(super) async fn forget_words(daemon: &Arc<Daemon>, words: &Hidden) -> Outcome {
    // Whoever else read the identity to write it anew would bring them back.
    let _making = daemon.making.lock().await;
    let identity = known(daemon)?;
    if root_of(words)?.public() != identity.root_public {
        return Err(Failure::usage("these are the words of another identity; nothing was erased"));
    }
    let had = identity.root.is_some();
    identity::save(&daemon.home.identity_file(), &LocalIdentity { root: None, ..identity })?;
    for space in daemon.spaces() {
        space.shared.tell(Command::ForgetRoot);
    }
    Ok(json!({"erased": had}))
}

/// A pass by which a member's further device comes with its words.
pub(super) async fn pass_for(daemon: &Arc<Daemon>, shared: &Shared, who: &str) -> Outcome {
    let all = members::ask(shared).await?;
    let member = members::find(&all, who)?;
    let pass = pass_text(shared, daemon, member.root).await?;
    Ok(json!({"pass": pass, "name": member.name}))
}

/// Joins as a further device of the member that the pass names: by words, or let in by the device that made the pass.
pub(super) async fn enrol(
    daemon: &Arc<Daemon>,
    dir: PathBuf,
    pass: &Hidden,
    words: Option<&Hidden>,
    display_name: Option<String>,
) -> Outcome {
    let _making = daemon.making.lock().await;
    let pass = Pass::parse(pass.expose())?;
    let dir = begins(daemon, &pass.workspace, &dir)?;
    let name = display_name.unwrap_or_else(identity::user_name);
    let (identity, op) = match pass.way {
        Way::Words => {
            not_while_pairing(daemon)?;
            by_words(daemon, &pass, words.ok_or_else(|| Failure::usage(WORDS_NEEDED))?, &name)?
        }
        Way::Device => (to_be_paired(daemon, &pass, &name)?, None),
    };
    let shown = (pass.way == Way::Device).then(|| pairing_words(&pass.door(), &identity.device.public()));
    let device = identity.device.id();
    let watermark = WatermarkFile::open(&daemon.home.watermark_file(&pass.workspace))?;
    let (id, name, seeds) = (pass.workspace, pass.name.clone(), pass.urls.clone());
    let machine = engine::enrol(identity, clock::now(), watermark.last(), pass, op);
    begin(daemon, id, &dir, &name, device, machine, seeds)?;
    Ok(json!({"workspace": id.to_string(), "path": dir, "name": name, "words": shown}))
}

/// The identity that these words bring, kept without them, and the op that introduces its device.
fn by_words(
    daemon: &Daemon,
    pass: &Pass,
    words: &Hidden,
    name: &str,
) -> Result<(LocalIdentity, Option<SignedOp>), Failure> {
    let root = root_of(words)?;
    if root.public().sign != pass.root {
        return Err(Failure::usage("these words are right, but of another member than the pass is for"));
    }
    let identity = identity_by_words(daemon, &root, name)?;
    let op = introduction(&pass.workspace, &pass.op_heads, &root, &identity);
    Ok((identity, Some(op)))
}

/// The op by which a root introduces this device.
pub(super) fn introduction(
    workspace: &WorkspaceId,
    parents: &[OpId],
    root: &RootSecret,
    identity: &LocalIdentity,
) -> SignedOp {
    let body = OpBody::Device { cert: identity.cert.clone(), label: identity.label.clone() };
    SignedOp::make(workspace, parents, OpSigner::Root(root), clock::wall_ms(), body)
}

/// The identity that is here, if it is that member's, or a new device of it; certified by the root and kept without it.
pub(super) fn identity_by_words(daemon: &Daemon, root: &RootSecret, name: &str) -> Result<LocalIdentity, Failure> {
    let path = daemon.home.identity_file();
    let before = identity::load(&path)?;
    let whole = match &before {
        None => LocalIdentity::for_root(root.clone(), &mut OsRandom, name, &identity::host_label()),
        Some(known) => known.with_root(root.clone()).ok_or_else(|| foreign(daemon))?,
    };
    let kept = LocalIdentity { root: before.and_then(|known| known.root), ..whole };
    identity::save(&path, &kept)?;
    Ok(LocalIdentity { root: None, ..kept })
}

/// A member's name, as the workspace knows it.
pub(super) fn name_in(set: &OpSet, root: &RootKey) -> String {
    let members = weft_agent_core::membership::evaluate(set);
    members.members.get(root).map_or_else(identity::user_name, |member| member.name.clone())
}

/// The identity of a device that another one is to let in: the one that is here, or keys that belong to nobody yet.
fn to_be_paired(daemon: &Daemon, pass: &Pass, name: &str) -> Result<LocalIdentity, Failure> {
    if let Some(known) = identity::load(&daemon.home.identity_file())? {
        return if known.root_public.sign == pass.root { Ok(known) } else { Err(foreign(daemon)) };
    }
    let path = daemon.home.pairing_file();
    if let Some(waiting) = identity::load(&path)? {
        return Ok(waiting);
    }
    let fresh = LocalIdentity::provisional(&mut OsRandom, name, &identity::host_label());
    identity::save(&path, &fresh)?;
    Ok(fresh)
}

fn foreign(daemon: &Daemon) -> Failure {
    Failure::usage(format!(
        "this agent is a device of somebody else already, and belongs to one member only; give another place for this one's \
         things: --home DIR (now: {})",
        daemon.home.shown.display()
    ))
}

/// A device that waits to be let in by another one is not somebody yet: nothing else begins here meanwhile.
pub(super) fn not_while_pairing(daemon: &Daemon) -> Result<(), Failure> {
    let waits = daemon.home.pairing_file().exists() && !daemon.home.identity_file().exists();
    if !waits {
        return Ok(());
    }
    if daemon.spaces().iter().any(|space| space.shared.is_joining()) {
        return Err(Failure::usage(
            "this agent waits for another device to let it in; finish that there, or give it up with `weft leave`",
        ));
    }
    Ok(crate::durable::remove_erasing(&daemon.home.pairing_file())?)
}

/// Makes a pass for another device of ours.
pub(super) async fn pair(daemon: &Arc<Daemon>, shared: &Shared, for_ms: u64) -> Outcome {
    let until_mono_ms = clock::now().mono_ms.saturating_add(for_ms);
    let Reply::Pass(pass) = shared.ask(Command::Pair { until_mono_ms, lan: daemon.lan_urls() }, PATIENCE).await? else {
        return unexpected();
    };
    Ok(json!({"pass": pass}))
}

/// What came of it.
pub(super) async fn pairing(shared: &Shared) -> Outcome {
    let Reply::Pairing(pairing) = shared.ask(Command::Pairing, PATIENCE).await? else { return unexpected() };
    Ok(match pairing {
        Pairing::None => json!({"state": "none"}),
        Pairing::Waiting => json!({"state": "waiting"}),
        Pairing::Asks { device, label, words } => {
            json!({"state": "asks", "device": device.to_string(), "label": label, "words": words})
        }
        Pairing::Done { device, label } => json!({"state": "done", "device": device.to_string(), "label": label}),
        Pairing::Failed(why) => json!({"state": "failed", "why": why}),
    })
}

/// Whether the words on both are the same.
pub(super) async fn accept(shared: &Shared, device: &str, same: bool) -> Outcome {
    let device = DeviceId::from_hex(device).ok_or_else(|| Failure::usage("a device is named by its id"))?;
    let command = Command::AcceptDevice { device, same };
    let Reply::Done = shared.ask(command, PATIENCE).await? else { return unexpected() };
    Ok(Value::Null)
}
