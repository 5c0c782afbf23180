//! Requests to write all of a workspace into one file, and to begin from such a file with nobody there.
//!
//! Invariant: an export is written aside and put in place whole; it holds the workspace's keys, so it is sealed and for its
//! owner only. Whoever begins from one is a device of its own, introduced by its member's words: an export restores no
//! device, so no number is ever used twice. Spec: docs/sealing.md#export.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use weft_agent_core::export::{Beginning, CHUNK_BYTES, FORMAT, Kind};
use weft_agent_core::hash;
use weft_agent_core::membership::evaluate;
use weft_agent_core::store::{Read as _, Table, Write as Row, rows};
use weft_agent_core::workspace::command::{Command, Reply, RequestId};
use weft_agent_core::workspace::input::{Input, Token};
use weft_agent_core::workspace::output::Output;

use super::answer::{Outcome, PATIENCE, begins, listed, unexpected};
use super::enrol;
use super::run::Daemon;
use super::space::Shared;
use super::wire::{Failure, Hidden};
use crate::engine::{self, Machine};
use crate::export::age::Sealing;
use crate::export::unpack::{Source, open_whole, read_header, write_back};
use crate::export::{FileHead, Header, read_record, write_record};
use crate::folder::at;
use crate::folder::ignore::Rules;
use crate::folder::look::is_absence;
use crate::folder::scan;
use crate::host::watermark::WatermarkFile;
use crate::store::Store;
use crate::{clock, durable};

/// Rows read at once: at most 8 MiB.
const ROWS: usize = 16;
/// Envelopes taken in between two commits.
const BATCH: usize = 64;
/// A workspace of many files takes a while to be written out.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// Runs `work`, in which a database that cannot be read unwinds.
fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(payload) => Err(anyhow::anyhow!("{}", crate::host::ended_by(payload, Path::new(crate::store::FILE)))),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(move || guarded(work)).await;
    Ok(done.map_err(|_| Failure::new("the work was given up; try again"))??)
}

/// Writes all of a workspace into one file.
pub(super) async fn export(daemon: &Arc<Daemon>, shared: &Shared, file: PathBuf, passphrase: Hidden) -> Outcome {
    if shared.is_joining() {
        return Err(Failure::attention("this workspace is not joined yet; wait for `weft status`"));
    }
    if file.starts_with(&shared.path) {
        return Err(Failure::usage(
            "the export would be shared with everybody: put it outside of the workspace's folder",
        ));
    }
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already", file.display())));
    }
    let Reply::Status(status) = shared.ask(Command::Status, PATIENCE).await? else { return unexpected() };
    let header = Header {
        format: FORMAT,
        workspace: shared.id.to_string(),
        name: status.name.clone(),
        relays: status.relays.clone(),
    };
    let (replica, folder, to) = (daemon.home.replica_dir(&shared.id), shared.path.clone(), file.clone());
    let files = blocking(move || write_export(&header, &replica, &folder, &to, &passphrase)).await?;
    let bytes = std::fs::metadata(&file)?.len();
    Ok(json!({"file": file, "name": status.name, "files": files, "bytes": bytes}))
}

fn write_export(
    header: &Header,
    replica: &Path,
    folder: &Path,
    file: &Path,
    passphrase: &Hidden,
) -> anyhow::Result<u64> {
    let dir = file.parent().ok_or_else(|| anyhow::anyhow!("a file needs a folder"))?;
    // Readable by its owner only, and gone if this does not end well.
    let aside = tempfile::Builder::new().prefix(".weft-export-").tempfile_in(dir)?;
    let mut out = Sealing::begin(io::BufWriter::new(aside.as_file()), passphrase.expose())?;
    write_record(&mut out, Kind::Header, &serde_json::to_vec(header)?)?;
    let store = Store::open_reader(replica)?;
    store.freeze()?;
    let genesis = store.get(Table::Meta, b"genesis").ok_or_else(|| anyhow::anyhow!("the workspace has not begun"))?;
    write_record(&mut out, Kind::Genesis, &genesis)?;
    for (table, kind) in [
        (Table::Ops, Kind::Op),
        (Table::Epochs, Kind::Epoch),
        (Table::Pieces, Kind::Piece),
        (Table::Envelopes, Kind::Envelope),
    ] {
        for (_, value) in rows(&store, table, &[], ROWS) {
            write_record(&mut out, kind, &value)?;
        }
    }
    drop(store);
    let files = write_files(&mut out, folder)?;
    write_record(&mut out, Kind::End, &[])?;
    out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    aside.persist_noclobber(file)?;
    durable::sync_dir(dir)?;
    Ok(files)
}

/// The folder as it stands: edits that nobody else has yet are in no envelope.
fn write_files(out: &mut dyn Write, folder: &Path) -> anyhow::Result<u64> {
    let listing = scan::list(folder, &mut Rules::new(folder), None, &mut |_| {})?;
    if let Some((path, why)) = listing.unreadable.first() {
        anyhow::bail!("{path} cannot be read ({why}): an export without it would not be whole");
    }
    let root = at::open_root(folder)?;
    let mut files = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    for (path, entry) in &listing.entries {
        let scan::Entry::File { executable, .. } = entry else { continue };
        let opened = at::open_parent(&root, path).and_then(|dir| at::open_file(&dir, path.name()));
        let mut file = match opened {
            Ok((file, _)) => file,
            // Gone since it was listed: then it is not in the folder.
            Err(error) if is_absence(&error) => continue,
            Err(error) => anyhow::bail!("{path} cannot be read ({error}): an export without it would not be whole"),
        };
        let head = FileHead { path: path.to_string(), executable: *executable };
        write_record(out, Kind::File, &serde_json::to_vec(&head)?)?;
        loop {
            let len = file.read(&mut chunk)?;
            if len == 0 {
                break;
            }
            write_record(out, Kind::Chunk, chunk.get(..len).unwrap_or_default())?;
        }
        files += 1;
    }
    Ok(files)
}

/// What stands at the beginning of an export, and the first record behind it.
fn read_beginning(from: &mut Source) -> anyhow::Result<(Header, Beginning, (Kind, Vec<u8>))> {
    let header = read_header(from)?;
    let (kind, bytes) = read_record(from)?;
    let mut beginning = Beginning::new(kind, &bytes)?;
    loop {
        let (kind, bytes) = read_record(from)?;
        if !beginning.push(kind, &bytes)? {
            return Ok((header, beginning, (kind, bytes)));
        }
    }
}

/// A machine that is fed without links, folder and people.
struct Feeding {
    machine: Box<dyn Machine + Send>,
    store: Store,
    watermark: WatermarkFile,
    unconfirmed: Vec<Token>,
    taken: u64,
}

impl Feeding {
    fn drain(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.machine.poll_output() {
            if let Output::Persist { token, batch } = output {
                self.store.apply(&batch)?;
                self.unconfirmed.push(token);
            } else if let Output::Watermark { incarnation, seq } = output {
                self.watermark.raise(weft_agent_core::setup::Watermark { incarnation, seq })?;
            }
            // Everything else is asked for again by a machine that is opened from these rows.
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) -> anyhow::Result<()> {
        self.machine.handle(clock::now(), input, &self.store);
        self.drain()
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            self.store.commit()?;
            let confirmed = std::mem::take(&mut self.unconfirmed);
            if confirmed.is_empty() {
                return Ok(());
            }
            for token in confirmed {
                self.handle(Input::Persisted(token))?;
            }
        }
    }

    fn take(&mut self, kind: Kind, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.taken += 1;
        if kind == Kind::Piece {
            let key = hash::h("piece", &[&bytes]).to_vec();
            self.store.apply(&[Row { table: Table::Pieces, key, value: Some(Bytes::from(bytes)) }])?;
        } else {
            let command = Command::TakeIn(Bytes::from(bytes));
            self.handle(Input::Command(RequestId(self.taken), command))?;
        }
        if self.taken.is_multiple_of(BATCH as u64) { self.settle() } else { Ok(()) }
    }
}

/// Begins in a folder from an export, as a further device of the member whose words these are.
pub(super) async fn import(
    daemon: &Arc<Daemon>,
    file: PathBuf,
    dir: PathBuf,
    passphrase: Hidden,
    words: Hidden,
) -> Outcome {
    let _making = daemon.making.lock().await;
    enrol::not_while_pairing(daemon)?;
    let root = enrol::root_of(&words)?;
    let (mut from, (header, beginning, mut next)) = blocking(move || {
        let mut from = open_whole(&file, passphrase.expose())?;
        let beginning = read_beginning(&mut from)?;
        Ok((from, beginning))
    })
    .await?;
    let Beginning { mut set, epochs } = beginning;
    let id = set.workspace();
    if !evaluate(&set).members.contains_key(&root.public().sign) {
        return Err(Failure::usage(
            "the member of these words did not belong to this workspace when the export was made",
        ));
    }
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty; name another folder", dir.display())));
    }
    let dir = begins(daemon, &id, &dir)?;
    let identity = enrol::identity_by_words(daemon, &root, &enrol::name_in(&set, &root.public().sign))?;
    let op = enrol::introduction(&id, &set.heads(), &root, &identity);
    set.insert(op).map_err(|error| Failure::new(error.to_string()))?;
    drop(root);
    let device = identity.device.id();
    let watermark = WatermarkFile::open(&daemon.home.watermark_file(&id))?;
    let machine = engine::restore(identity, clock::now(), watermark.last(), set, epochs, &header.relays);
    let machine = machine.ok_or_else(|| Failure::new("the export holds no key that this device could begin with"))?;
    let replica = daemon.home.replica_dir(&id);
    let (taken, mut from, next) = blocking(move || {
        let store = Store::open(&replica)?;
        let mut feeding = Feeding { machine, store, watermark, unconfirmed: Vec::new(), taken: 0 };
        feeding.drain()?;
        feeding.settle()?;
        while matches!(next.0, Kind::Piece | Kind::Envelope) {
            feeding.take(next.0, std::mem::take(&mut next.1))?;
            next = read_record(&mut from)?;
        }
        feeding.settle()?;
        Ok((feeding.taken, from, next))
    })
    .await?;
    tracing::info!(taken, "an export was taken in");
    let space = listed(daemon, id, &dir, &header.name, device)?;
    settled(&space.shared).await?;
    let to = dir.clone();
    let (files, left_out) = blocking(move || write_back(&mut from, next, &to)).await?;
    settled(&space.shared).await?;
    let path = dir;
    let name = header.name;
    Ok(json!({"workspace": id.to_string(), "path": path, "name": name, "files": files, "left_out": left_out}))
}

/// Waits until the folder shows what the workspace holds.
async fn settled(shared: &Shared) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut every = tokio::time::interval(Duration::from_millis(100));
    loop {
        every.tick().await;
        let reading = shared.glance().is_none_or(|glance| glance.to_read() > 0);
        if let Ok(Reply::Status(status)) = shared.ask_after_folder(Command::Status, PATIENCE).await
            && status.folder_settled
            && !reading
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::attention(
                "the workspace is here, but its files are not all written out yet: see `weft status`, then leave and import \
                 again, or copy what is missing",
            ));
        }
    }
}
