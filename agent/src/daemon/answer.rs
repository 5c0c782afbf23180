//! Each request, answered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::unix::OwnedWriteHalf;
use weft_agent_core::id::{DeviceId, WorkspaceId};
use weft_agent_core::identity::RecoveryKey;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::workspace::command::{Command, Reply, State, Status};

use super::run::{Daemon, say};
use super::space::Space;
use super::wire::{Answer, Failure, Hidden, Request};
use super::{enrol, export, invites, members, moved, people, relays, report, resume, verify};
use crate::engine::{Founding, Machine, OsRandom};
use crate::folder::{marker, refuse};
use crate::home::identity;
use crate::home::registry::Entry;
use crate::host::watermark::WatermarkFile;
use crate::link::address::Address;
use crate::nearest::nearest;
use crate::{clock, engine};

/// A busy workspace (a first import) may take a while between two rounds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) type Outcome = Result<Value, Failure>;

/// Answers one request; further items of a long answer go out on `writing`.
pub(crate) async fn answer(daemon: &Arc<Daemon>, request: Request, writing: &mut OwnedWriteHalf) -> Outcome {
    match request {
        Request::Hello => Ok(agent(daemon)),
        Request::Status { dir } => status(daemon, dir.as_deref()).await,
        Request::Init { dir, name, relays, display_name, words, recovery_key } => {
            init(daemon, dir, Make { name, relays, display_name, words, recovery_key }).await
        }
        Request::Join { dir, link, display_name, words } => {
            join(daemon, dir, &link, display_name, words.as_ref()).await
        }
        Request::Enrol { dir, pass, words, display_name } => {
            enrol::enrol(daemon, dir, &pass, words.as_ref(), display_name).await
        }
        Request::Export { dir, file, passphrase } => {
            export::export(daemon, &space(daemon, &dir)?.shared, file, passphrase).await
        }
        Request::Import { file, dir, passphrase, words } => export::import(daemon, file, dir, passphrase, words).await,
        Request::Words => enrol::words(daemon).await,
        Request::ForgetWords { words } => enrol::forget_words(daemon, &words).await,
        Request::PassFor { dir, who } => enrol::pass_for(daemon, &space(daemon, &dir)?.shared, &who).await,
        Request::Pair { dir, for_ms } => enrol::pair(daemon, &space(daemon, &dir)?.shared, for_ms).await,
        Request::Pairing { dir } => enrol::pairing(&space(daemon, &dir)?.shared).await,
        Request::AcceptDevice { dir, device, same } => enrol::accept(&space(daemon, &dir)?.shared, &device, same).await,
        Request::Leave { dir } => leave(daemon, &dir).await,
        Request::Invite { dir, wish } => invites::invite(&space(daemon, &dir)?.shared, &wish, daemon.lan_urls()).await,
        Request::Invites { dir } => invites::open(&space(daemon, &dir)?.shared).await,
        Request::RevokeInvite { dir, id } => invites::revoke(&space(daemon, &dir)?.shared, &id).await,
        Request::Requests { dir } => invites::requests(&space(daemon, &dir)?.shared).await,
        Request::Approve { dir, who } => invites::approve(&space(daemon, &dir)?.shared, &who).await,
        Request::Deny { dir, who } => invites::deny(&space(daemon, &dir)?.shared, &who).await,
        Request::Members { dir } => {
            let space = space(daemon, &dir)?;
            Ok(report::members(&*members::ask(&space.shared).await?, &daemon.seen))
        }
        Request::VerifyMembers { dir, who } => {
            verify::verify(daemon, &space(daemon, &dir)?.shared, who.as_deref()).await
        }
        Request::Meant { dir, named } => members::meant(&space(daemon, &dir)?.shared, &named).await,
        Request::RemoveMember { dir, who, recovery_key } => {
            members::remove(&space(daemon, &dir)?.shared, &who, recovery_key.as_ref()).await
        }
        Request::SetRole { dir, who, role, recovery_key } => {
            members::set_role(&space(daemon, &dir)?.shared, &who, &role, recovery_key.as_ref()).await
        }
        Request::RevokeDevice { dir, device, keep_certified } => {
            members::revoke_device(&space(daemon, &dir)?.shared, &device, keep_certified).await
        }
        Request::KeepLate { dir, who } => members::keep_late(&space(daemon, &dir)?.shared, &who).await,
        Request::Agree { dir, id } => members::agree(&space(daemon, &dir)?.shared, &id).await,
        Request::Pause { dir } => {
            for space in chosen(daemon, dir.as_deref())? {
                done(&space, Command::Pause(true)).await?;
                space.shared.set_paused(true)?;
            }
            Ok(Value::Null)
        }
        Request::Resume { dir, answer } => resume::resume(daemon, dir.as_deref(), answer).await,
        Request::Move { from, to } => moved::moved(daemon, from.as_deref(), &to).await,
        Request::Repair { dir } => super::repair::repair(daemon, &dir).await,
        Request::Flush { dir, timeout_ms, peers } => flush(daemon, &dir, timeout_ms, peers).await,
        Request::AddRelay { dir, url } => {
            let space = space(daemon, &dir)?;
            let (urls, warnings) = relays::looked_at(daemon, &[url]).await?;
            for url in urls {
                done(&space, Command::AddRelay(url)).await?;
            }
            Ok(json!({"warnings": warnings}))
        }
        Request::RemoveRelay { dir, url } => {
            let url = Address::parse(&url).map_or(url, |address| address.url);
            done(&*space(daemon, &dir)?, Command::RemoveRelay(url)).await
        }
        Request::Log { dir, since_wall_ms, limit, follow } => {
            log(daemon, &dir, since_wall_ms, limit, follow, writing).await
        }
        Request::Identity => people::show(daemon),
        Request::Login { name, password, pds } => people::login(daemon, &name, &password, &pds).await,
        Request::Logout => people::logout(daemon).await,
        Request::Attest { name, words } => people::attest(daemon, &name, words.as_ref()).await,
        Request::RelayIdentity { url, identity } => people::relay_identity(daemon, &url, identity.as_deref()),
        Request::RelaySecret { url, secret } => people::relay_secret(daemon, &url, secret).await,
        Request::Shutdown => Ok(agent(daemon)),
    }
}

fn agent(daemon: &Daemon) -> Value {
    json!({
        "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "home": daemon.home.shown,
        "build": build_id(),
    })
}

/// Tells one build from another: version, and size and time of the program.
pub(crate) fn build_id() -> String {
    let program = std::env::current_exe().ok().and_then(|path| std::fs::metadata(path).ok());
    let stamp = program.and_then(|meta| {
        let at = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(format!("{}-{}", meta.len(), at.as_secs()))
    });
    format!("{}+{}", env!("CARGO_PKG_VERSION"), stamp.unwrap_or_default())
}

pub(super) fn space(daemon: &Daemon, dir: &Path) -> Result<Arc<Space>, Failure> {
    daemon.space_at(dir).ok_or_else(|| {
        let all = daemon.spaces();
        let paths: Vec<String> = all.iter().map(|space| space.shared.path.display().to_string()).collect();
        let only = paths.first().filter(|_| paths.len() == 1).map(String::as_str);
        let what_to_do = match nearest(&dir.to_string_lossy(), paths.iter().map(String::as_str)).or(only) {
            Some(path) => format!("did you mean -C {path}?"),
            None if paths.is_empty() => "set one up with `weft init`, or join one with `weft join`".to_owned(),
            None => "name one with -C DIR; `weft status` lists them".to_owned(),
        };
        Failure::usage(format!("{} is in no workspace; {what_to_do}", dir.display())).code("not-a-workspace")
    })
}

pub(super) fn chosen(daemon: &Daemon, dir: Option<&Path>) -> Result<Vec<Arc<Space>>, Failure> {
    match dir {
        Some(dir) => Ok(vec![space(daemon, dir)?]),
        None => Ok(daemon.spaces()),
    }
}

pub(super) async fn ask_status(space: &Space) -> Option<Box<Status>> {
    match space.shared.ask(Command::Status, PATIENCE).await {
        Ok(Reply::Status(status)) => Some(status),
        Ok(_) | Err(_) => None,
    }
}

async fn status(daemon: &Arc<Daemon>, dir: Option<&Path>) -> Outcome {
    let mut workspaces = Vec::new();
    let reminders = enrol::reminders(daemon);
    for space in chosen(daemon, dir)? {
        // It may be answered between two parts of what was seen.
        let waited = space.shared.folder_waits();
        let mut status = ask_status(&space).await;
        if let Some(status) = &mut status {
            status.settled &= !waited && !space.shared.folder_waits();
        }
        let mut shown = report::workspace(&space.shared, status.as_deref());
        // Of the agent as a whole, and so of each of its workspaces: who reads only those is to know.
        if let Some(problems) = shown.get_mut("problems").and_then(Value::as_array_mut) {
            problems.extend(reminders.iter().cloned().map(Value::from));
        }
        workspaces.push(shown);
    }
    Ok(json!({"agent": agent(daemon), "workspaces": workspaces, "reminders": reminders}))
}

pub(crate) fn unexpected<T>() -> Result<T, Failure> {
    Err(Failure::new("the workspace gave another answer than expected; please report this"))
}

pub(super) async fn done(space: &Space, command: Command) -> Outcome {
    let Reply::Done = space.shared.ask(command, PATIENCE).await? else { return unexpected() };
    Ok(Value::Null)
}

/// A folder that may become a workspace: canonical, allowed, and of no workspace yet.
fn free_folder(daemon: &Daemon, dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::new(format!("{}: {error}", dir.display())))?;
    let dir = dir.canonicalize()?;
    may_be_shared(daemon, &dir)?;
    let registry = daemon.registry();
    if let Some(entry) =
        registry.workspaces.iter().find(|entry| entry.path.starts_with(&dir) || dir.starts_with(&entry.path))
    {
        return Err(Failure::usage(if entry.path == dir {
            format!("{} is the workspace '{}' already", dir.display(), entry.name)
        } else {
            format!("{} overlaps the workspace '{}' in {}", dir.display(), entry.name, entry.path.display())
        }));
    }
    Ok(dir)
}

/// Refuses folders that no workspace may be in.
pub(super) fn may_be_shared(daemon: &Daemon, dir: &Path) -> Result<(), Failure> {
    let user_home = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    let own = [daemon.home.registry_file(), daemon.home.identity_file(), daemon.home.log_file()];
    let own: Vec<PathBuf> = own.iter().filter_map(|file| file.parent()?.canonicalize().ok()).collect();
    refuse::check(dir, user_home.as_deref(), &own).map_err(|refusal| Failure::usage(refusal.to_string()))
}

/// A marker that nobody here serves means that the folder was copied, or came from a backup.
fn clear_foreign_marker(daemon: &Daemon, dir: &Path) -> Result<(), Failure> {
    let Some(found) = marker::read(dir).ok().flatten() else {
        return Ok(marker::remove(dir)?);
    };
    let elsewhere = daemon.registry().by_id(&found.workspace).map(|entry| entry.path.clone());
    match elsewhere {
        Some(path) => Err(Failure::usage(format!(
            "{} is a copy of the workspace in {}; to sync the copy as a folder of its own, remove {} and try again",
            dir.display(),
            path.display(),
            dir.join(marker::DIR).display()
        ))),
        None => Ok(marker::remove(dir)?),
    }
}

/// What a new workspace is made of.
struct Make {
    name: String,
    relays: Vec<String>,
    display_name: Option<String>,
    words: Option<Hidden>,
    recovery_key: bool,
}

async fn init(daemon: &Arc<Daemon>, dir: PathBuf, make: Make) -> Outcome {
    let Make { name, relays, display_name, words, recovery_key } = make;
    let _making = daemon.making.lock().await;
    let dir = free_folder(daemon, &dir)?;
    let (urls, warnings) = relays::looked_at(daemon, &relays).await?;
    enrol::not_while_pairing(daemon)?;
    let identity = identity::load_or_create(&daemon.home.identity_file(), display_name.as_deref())?;
    let device = identity.device.id();
    if marker::read(&dir).ok().flatten().is_some_and(|found| found.device != device) {
        return Err(Failure::usage(format!(
            "{dir} is a copy of another device's workspace. To sync the copy with it: weft join LINK {dir} --merge (a \
             member makes the link with `weft invite`). To share it as a workspace of its own: remove {marker}, then \
             `weft init` again",
            dir = dir.display(),
            marker = dir.join(marker::DIR).display()
        )));
    }
    let (founder, forgets_root) = enrol::with_root(identity, words.as_ref())?;
    clear_foreign_marker(daemon, &dir)?;
    let recovery = recovery_key.then(|| RecoveryKey::generate(&mut OsRandom));
    let founding = Founding {
        name: name.clone(),
        relays: urls.clone(),
        recovery: recovery.as_ref().map(RecoveryKey::public),
        forgets_root,
    };
    let (id, machine) = engine::create(founder, clock::now(), founding).map_err(Failure::new)?;
    marker::write(&dir, &marker::Marker { workspace: id, device })?;
    let entry =
        Entry { workspace: id.to_string(), path: dir.clone(), name: name.clone(), paused: false, joining: false };
    let space = daemon.start_space(entry.clone(), Some(machine), urls)?;
    // Listed once its first rows are durable: an answer means that they are.
    let status = space.shared.ask(Command::Status, Duration::from_secs(60)).await;
    if let Err(failure) = status {
        daemon.stop_space(&id);
        marker::remove(&dir)?;
        return Err(failure);
    }
    let registry = {
        let mut registry = daemon.registry();
        registry.put(entry);
        registry.clone()
    };
    registry.save(&daemon.home)?;
    let recovery = recovery.map(|key| key.words().to_string());
    Ok(json!({"workspace": id.to_string(), "path": dir, "name": name, "recovery_key": recovery, "warnings": warnings}))
}

async fn join(
    daemon: &Arc<Daemon>,
    dir: PathBuf,
    link: &str,
    display_name: Option<String>,
    words: Option<&Hidden>,
) -> Outcome {
    let _making = daemon.making.lock().await;
    let link = InviteLink::parse(link)?;
    let id = link.workspace;
    let waiting = daemon.spaces().into_iter().find(|space| space.shared.id == id && space.shared.is_joining());
    if let Some(space) = waiting {
        // Whoever was refused, or waits in vain, tries another link.
        let path = space.shared.path.clone();
        drop(space);
        forget(daemon, &id, &path).await?;
    }
    let dir = begins(daemon, &id, &dir)?;
    enrol::not_while_pairing(daemon)?;
    let identity = identity::load_or_create(&daemon.home.identity_file(), display_name.as_deref())?;
    let identity = enrol::certified_by_root(daemon, identity, words)?;
    let device = identity.device.id();
    let watermark = WatermarkFile::open(&daemon.home.watermark_file(&id))?;
    let (name, seeds) = (link.name.clone(), link.urls.clone());
    let machine = engine::join(identity, clock::now(), watermark.last(), &link);
    begin(daemon, id, &dir, &name, device, machine, seeds)?;
    Ok(json!({"workspace": id.to_string(), "path": dir, "name": name}))
}

/// Whether this agent can begin with a workspace in a folder; what is left over of an earlier time is put aside.
pub(super) fn begins(daemon: &Daemon, id: &WorkspaceId, dir: &Path) -> Result<PathBuf, Failure> {
    if let Some(entry) = daemon.registry().by_id(id).cloned() {
        return Err(Failure::usage(format!(
            "this agent is in '{}' already, in {}; an agent has one folder for each workspace",
            entry.name,
            entry.path.display()
        )));
    }
    let dir = free_folder(daemon, dir)?;
    clear_foreign_marker(daemon, &dir)?;
    let replica = daemon.home.replica_dir(id);
    if replica.exists() {
        // Left over from before leaving; a new start must not meet old rows.
        let aside = replica.with_extension(format!("left-{}", clock::wall_ms()));
        std::fs::rename(&replica, aside)?;
    }
    Ok(dir)
}

/// Writes down that this folder is a workspace of this agent's: in the folder, and in the list.
fn enlist(
    daemon: &Daemon,
    id: WorkspaceId,
    dir: &Path,
    name: &str,
    device: DeviceId,
    joining: bool,
) -> Result<Entry, Failure> {
    marker::write(dir, &marker::Marker { workspace: id, device })?;
    let (path, name) = (dir.to_path_buf(), name.to_owned());
    let entry = Entry { workspace: id.to_string(), path, name, paused: false, joining };
    let mut registry = daemon.registry();
    registry.put(entry.clone());
    registry.save(&daemon.home)?;
    Ok(entry)
}

/// Starts a machine that waits to be let in, in this folder.
pub(super) fn begin(
    daemon: &Daemon,
    id: WorkspaceId,
    dir: &Path,
    name: &str,
    device: DeviceId,
    machine: Box<dyn Machine + Send>,
    seeds: Vec<String>,
) -> Result<(), Failure> {
    let entry = enlist(daemon, id, dir, name, device, true)?;
    daemon.start_space(entry, Some(machine), seeds)?;
    Ok(())
}

/// Lists a workspace whose rows are all there, and starts it.
pub(super) fn listed(
    daemon: &Daemon,
    id: WorkspaceId,
    dir: &Path,
    name: &str,
    device: DeviceId,
) -> Result<Arc<Space>, Failure> {
    let entry = enlist(daemon, id, dir, name, device, false)?;
    Ok(daemon.start_space(entry, None, Vec::new())?)
}

/// Who leaves waits so long for somebody to tell.
const LEAVE_HEARD: Duration = Duration::from_secs(5);

async fn leave(daemon: &Arc<Daemon>, dir: &Path) -> Outcome {
    let space = space(daemon, dir)?;
    let (id, path, name) = (space.shared.id, space.shared.path.clone(), space.shared.name());
    let mut heard = true;
    if !space.shared.is_running() && space.shared.problem().is_some() {
        // It cannot say anything to anybody, and still a person must be able to end it here.
        heard = false;
    } else if !space.shared.is_joining() {
        // The others may just not have been met yet, say because the agent was started for this.
        let until = tokio::time::Instant::now() + LEAVE_HEARD;
        while let Reply::Status(status) = space.shared.ask(Command::Status, PATIENCE).await? {
            // Whoever was removed has nobody to tell.
            let nobody = status.state == State::Left || status.members.len() < 2;
            heard = nobody || status.in_touch;
            if heard || tokio::time::Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        done(&space, Command::Leave).await?;
        space.shared.farewell().await;
    }
    drop(space);
    forget(daemon, &id, &path).await?;
    Ok(json!({"path": path, "name": name, "heard": heard}))
}

/// Ends a workspace here, and removes what was kept of it; the files stay.
async fn forget(daemon: &Arc<Daemon>, id: &WorkspaceId, path: &Path) -> Result<(), Failure> {
    let (stopping, stopped) = (Arc::clone(daemon), *id);
    tokio::task::spawn_blocking(move || stopping.stop_space(&stopped))
        .await
        .map_err(|_| Failure::new("the workspace did not stop; run `weft stop`, then try again"))?;
    {
        let mut registry = daemon.registry();
        registry.remove(id);
        registry.save(&daemon.home)?;
    }
    marker::remove(path)?;
    let replica = daemon.home.replica_dir(id);
    if replica.exists() {
        std::fs::remove_dir_all(replica)?;
    }
    Ok(())
}

async fn flush(daemon: &Arc<Daemon>, dir: &Path, timeout_ms: u64, peers: u32) -> Outcome {
    let space = space(daemon, dir)?;
    let command = Command::Flush { until_mono_ms: clock::now().after_ms(timeout_ms), peers };
    let patience = Duration::from_millis(timeout_ms) + PATIENCE;
    // What was saved a moment ago, or in a folder that cannot be watched, is part of it.
    let until = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
    if let Some(seeing) = space.shared.seeing() {
        let mut unread = 1;
        while let Ok(left) = tokio::time::timeout_at(until, seeing.take_in()).await {
            unread = left;
            if left == 0 || tokio::time::Instant::now() >= until {
                break;
            }
        }
        if unread > 0 {
            let unread = (unread as u64).max(seeing.glance.to_read());
            let files = if unread == 1 { "1 file is".to_owned() } else { format!("{unread} files are") };
            let missing = format!("{files} still being read here, or written by another program");
            return Ok(json!({"complete": false, "peers": 0, "missing": missing}));
        }
    }
    let Reply::Flushed { complete, peers, missing } = space.shared.ask_after_folder(command, patience).await? else {
        return unexpected();
    };
    Ok(json!({"complete": complete, "peers": peers, "missing": missing}))
}

async fn log(
    daemon: &Arc<Daemon>,
    dir: &Path,
    since_wall_ms: u64,
    limit: u32,
    follow: bool,
    writing: &mut OwnedWriteHalf,
) -> Outcome {
    let space = space(daemon, dir)?;
    let mut events = space.shared.events();
    let ask = |since_wall_ms| space.shared.ask(Command::Log { since_wall_ms, limit }, PATIENCE);
    let Reply::Log { entries, mut names, own } = ask(since_wall_ms).await? else { return unexpected() };
    let gone = |_| Failure::new("the terminal went away");
    for entry in &entries {
        let who = names.get(&entry.device.unwrap_or(own));
        let item = report::entry(entry, who.map(String::as_str));
        say(writing, &Answer::Item { item }).await.map_err(gone)?;
    }
    if !follow {
        return Ok(Value::Null);
    }
    loop {
        match events.recv().await {
            Ok(entry) => {
                let device = entry.device.unwrap_or(own);
                if !names.contains_key(&device)
                    && let Reply::Log { names: now, .. } = ask(u64::MAX).await?
                {
                    // They came since.
                    names = now;
                }
                let item = report::entry(&entry, names.get(&device).map(String::as_str));
                say(writing, &Answer::Item { item }).await.map_err(gone)?;
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(Value::Null),
        }
    }
}
