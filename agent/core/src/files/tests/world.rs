//! Replicas in memory: each has a store, a folder that does what actions say, and the versions that reached it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::content::{Content, DocumentName, INLINE_BYTES_MAX, Item, Manifest, PieceRef, VersionBytes};
use crate::disk::{Expect, FileBytes, FolderAction, Found, NewContent, Outcome, RelPath, Seen, Stat, Unfinished};
use crate::files::{
    ActionId, Author, Cx, Files, FilesOutput, Halt, Identity, LogEvent, Refusal, Resume, Versions, forget, known_files,
    known_folders, pending_writes, version_hash,
};
use crate::id::{ChainId, DeviceId, PieceId, VersionHash, WorkspaceId};
use crate::store::{MemoryStore, Read, Table, Tx};
use crate::time::Timestamp;

pub(super) const WORKSPACE: WorkspaceId = WorkspaceId([5; 32]);

/// A small, fixed generator.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    File { bytes: Vec<u8>, executable: bool, inode: u64 },
    Link(String),
    Folder,
}

#[derive(Default)]
pub(super) struct Held {
    inline: BTreeMap<VersionHash, Bytes>,
    manifests: BTreeMap<VersionHash, Manifest>,
}

impl Versions for Held {
    fn version(&mut self, hash: &VersionHash, _: &dyn Read) -> Option<Bytes> {
        self.inline.get(hash).cloned()
    }
    fn manifest(&mut self, hash: &VersionHash, _: &dyn Read) -> Option<Manifest> {
        self.manifests.get(hash).cloned()
    }
}

impl Held {
    fn take(&mut self, content: &Content) {
        for item in content.documents.iter().flat_map(|(_, items)| items) {
            match item {
                Item::Version { hash, bytes: VersionBytes::Inline(bytes) } => {
                    self.inline.insert(*hash, bytes.clone());
                }
                Item::Version { hash, bytes: VersionBytes::Blob(manifest) } => {
                    self.manifests.insert(*hash, manifest.clone());
                }
                Item::Change(_) | Item::Founded { .. } => {}
            }
        }
    }
}

pub(super) struct Replica {
    pub(super) identity: Identity,
    pub(super) store: MemoryStore,
    pub(super) files: Files,
    pub(super) folder: BTreeMap<RelPath, Node>,
    pub(super) held: Held,
    pub(super) now: Timestamp,
    pub(super) acts: VecDeque<(ActionId, FolderAction)>,
    looks: VecDeque<RelPath>,
    /// The core asked for a look at everything.
    looks_at_all: bool,
    fetches: VecDeque<VersionHash>,
    pub(super) published: VecDeque<Content>,
    pub(super) log: Vec<LogEvent>,
    pub(super) halts: Vec<Halt>,
    pub(super) opened: Option<bool>,
    /// Whether the shell says after a crash what became of the writes that were under way.
    pub(super) tells_unfinished: bool,
    /// What each path got by the last write that replaced something there.
    asides: BTreeMap<RelPath, VersionHash>,
    next_inode: u64,
    traces: bool,
    /// Content of all blobs, by the id of their only piece.
    pub(super) pieces: BTreeMap<PieceId, Vec<u8>>,
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// What is in an envelope, for a trace.
struct Brief<'a>(&'a Content);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, items) in &self.0.documents {
            write!(f, "{} [", name.as_str())?;
            for item in items {
                match item {
                    Item::Version { hash, bytes: VersionBytes::Inline(bytes) } => {
                        write!(f, "version {hash} {:?}, ", String::from_utf8_lossy(bytes))?;
                    }
                    Item::Version { hash, .. } => write!(f, "blob {hash}, ")?,
                    Item::Change(bytes) => {
                        write!(f, "change {:?}, ", crate::files::inspect_change(bytes).map(|facts| facts.hash))?;
                    }
                    Item::Founded { version, .. } => write!(f, "founded {version}, ")?,
                }
            }
            write!(f, "] ")?;
        }
        Ok(())
    }
}

impl Replica {
    #[allow(clippy::disallowed_methods, reason = "whether to trace is asked of whoever runs the test")]
    pub(super) fn new(number: u8) -> Self {
        let chain = ChainId { device: DeviceId([number; 16]), incarnation: 1 };
        let identity = Identity { workspace: WORKSPACE, chain };
        let store = MemoryStore::default();
        let files = Files::open(identity, &store);
        Self {
            identity,
            store,
            files,
            folder: BTreeMap::new(),
            held: Held::default(),
            now: Timestamp { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 + u64::from(number) },
            acts: VecDeque::new(),
            looks: VecDeque::new(),
            looks_at_all: false,
            fetches: VecDeque::new(),
            published: VecDeque::new(),
            log: Vec::new(),
            halts: Vec::new(),
            opened: None,
            tells_unfinished: true,
            asides: BTreeMap::new(),
            next_inode: 1,
            traces: std::env::var_os("WEFT_TRACE").is_some(),
            pieces: BTreeMap::new(),
        }
    }
    /// Tells what goes in and out, if `WEFT_TRACE` is set.
    fn trace(&self, what: std::fmt::Arguments<'_>) {
        if self.traces {
            eprintln!("[{}] {what}", self.identity.chain.device.0[0]);
        }
    }
    pub(super) fn call<T>(&mut self, f: impl FnOnce(&mut Files, Timestamp, &mut Held, &Tx<'_>) -> T) -> T {
        self.now.mono_ms += 1;
        self.now.wall_ms += 1;
        let tx = Tx::new(&self.store);
        let answer = f(&mut self.files, self.now, &mut self.held, &tx);
        let writes = tx.into_writes();
        self.store.apply(&writes);
        while let Some(output) = self.files.poll_output() {
            match output {
                FilesOutput::Publish(content) => {
                    let bytes = weft_protocol::cbor::to_bytes(&content);
                    assert!(bytes.len() <= 400 * 1024 + INLINE_BYTES_MAX, "an envelope must hold it");
                    let content: Content = weft_protocol::cbor::from_bytes(&bytes).unwrap();
                    self.held.take(&content);
                    self.trace(format_args!("publish {}", Brief(&content)));
                    self.published.push_back(content);
                }
                FilesOutput::Act(id, action) => {
                    self.trace(format_args!("out {id:?} {action:?}"));
                    self.acts.push_back((id, action));
                }
                FilesOutput::Fetch { hash, .. } => self.fetches.push_back(hash),
                FilesOutput::Unneeded(hash) => self.fetches.retain(|fetch| *fetch != hash),
                FilesOutput::Look(paths) if paths.is_empty() => self.looks_at_all = true,
                FilesOutput::Look(paths) => self.looks.extend(paths),
                FilesOutput::Halted(halt) => self.halts.push(halt),
                FilesOutput::Log(entry) => {
                    self.trace(format_args!("log {:?}", entry.what));
                    self.log.push(entry.what);
                }
            }
        }
        answer
    }
    /// Starts anew from its rows; actions that were under way are forgotten.
    pub(super) fn restart(&mut self) {
        self.trace(format_args!("restarts"));
        self.files = Files::open(self.identity, &self.store);
        self.acts.clear();
        self.looks.clear();
        self.looks_at_all = false;
        self.fetches.clear();
    }
    fn make_folders(&mut self, of: &RelPath) {
        let mut above = of.parent();
        while let Some(folder) = above {
            self.folder.entry(folder.clone()).or_insert(Node::Folder);
            above = folder.parent();
        }
    }
    // What a person does.
    pub(super) fn write(&mut self, at: &str, bytes: impl AsRef<[u8]>) {
        let at = path(at);
        self.make_folders(&at);
        let (inode, executable) = match self.folder.get(&at) {
            Some(Node::File { inode, executable, .. }) => (*inode, *executable),
            _ => {
                self.next_inode += 1;
                (self.next_inode, false)
            }
        };
        self.trace(format_args!("person writes {at} {:?}", String::from_utf8_lossy(bytes.as_ref())));
        self.folder.insert(at, Node::File { bytes: bytes.as_ref().to_vec(), executable, inode });
    }
    pub(super) fn make_executable(&mut self, at: &str) {
        if let Some(Node::File { executable, .. }) = self.folder.get_mut(&path(at)) {
            *executable = true;
        }
    }
    pub(super) fn edit(&mut self, at: &str, old: &str, new: &str) {
        let text = self.text(at).replace(old, new);
        self.write(at, text);
    }
    pub(super) fn remove(&mut self, at: &str) {
        self.trace(format_args!("person removes {at}"));
        let prefix = format!("{at}/");
        self.folder.retain(|found, _| found.as_str() != at && !found.as_str().starts_with(&prefix));
    }
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.trace(format_args!("renamed {from} {to}"));
        let prefix = format!("{from}/");
        self.make_folders(&path(to));
        let moved: Vec<RelPath> = self
            .folder
            .keys()
            .filter(|found| found.as_str() == from || found.as_str().starts_with(&prefix))
            .cloned()
            .collect();
        for old in moved {
            let node = self.folder.remove(&old).unwrap();
            let new = path(&format!("{to}{}", &old.as_str()[from.len()..]));
            self.folder.insert(new, node);
        }
    }
    pub(super) fn text(&self, at: &str) -> String {
        match self.folder.get(&path(at)) {
            Some(Node::File { bytes, .. }) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{at} is {other:?} among {:?}", self.folder.keys()),
        }
    }
    pub(super) fn paths(&self) -> Vec<String> {
        self.folder.keys().map(ToString::to_string).collect()
    }
    /// The folder, to be read and compared.
    pub(super) fn picture(&self) -> BTreeMap<String, String> {
        let show = |node: &Node| match node {
            Node::Folder => "folder".to_owned(),
            Node::Link(target) => format!("-> {target}"),
            Node::File { bytes, executable, .. } if bytes.len() < 4096 => {
                format!("{}{:?}", if *executable { "x " } else { "" }, String::from_utf8_lossy(bytes))
            }
            Node::File { bytes, .. } => format!("{} bytes {}", bytes.len(), blake3::hash(bytes)),
        };
        self.folder.iter().map(|(path, node)| (path.to_string(), show(node))).collect()
    }
    // The shell.
    pub(super) fn look(&mut self, at: &RelPath) -> Seen {
        let found = match self.folder.get(at) {
            None => Found::Absent,
            Some(Node::Folder) => Found::Folder,
            Some(Node::Link(target)) => Found::Symlink { target: target.clone() },
            Some(Node::File { bytes, executable, inode }) => {
                let stat = Stat { mtime_ns: 1, ctime_ns: 1, size: bytes.len() as u64, inode: *inode };
                let content = if bytes.len() <= INLINE_BYTES_MAX {
                    FileBytes::Here(Bytes::copy_from_slice(bytes))
                } else {
                    let id = PieceId(*blake3::hash(bytes).as_bytes());
                    let pieces = vec![PieceRef { id, len: bytes.len() as u32, key: [0; 32] }];
                    self.pieces.insert(id, bytes.clone());
                    let hash = version_hash(&WORKSPACE, bytes);
                    FileBytes::Blob { hash, manifest: Manifest { len: bytes.len() as u64, depth: 0, pieces } }
                };
                Found::File { bytes: content, executable: *executable, stat }
            }
        };
        self.trace(format_args!("look {at} {found:?}"));
        let pending = pending_writes(&self.store).filter(|write| self.tells_unfinished && write.replaces.is_some());
        let unfinished = pending
            .into_iter()
            .find(|write| write.path == *at)
            .map(|write| Unfinished { leaves: write.leaves, took_place: self.asides.get(at) == Some(&write.leaves) });
        Seen { opened_since_write: self.opened, unfinished, ..Seen::new(at.clone(), found) }
    }
    /// A complete scan: everything present, then all that is gone.
    pub(super) fn scan(&mut self) {
        let mut paths: Vec<RelPath> = self.folder.keys().cloned().collect();
        let known: BTreeSet<RelPath> = known_files(&self.store)
            .map(|known| known.path)
            .chain(known_folders(&self.store))
            .filter(|path| !self.folder.contains_key(path))
            .collect();
        paths.extend(known);
        let seen = paths.iter().map(|path| self.look(path)).collect();
        for part in self.files.slices(seen) {
            self.call(|files, now, held, tx| files.handle_seen(now, part, held, tx));
        }
        self.call(|files, now, held, tx| files.handle_scanned(now, true, held, tx));
    }
    fn holds(&self, at: &RelPath, expect: &Expect) -> bool {
        match (self.folder.get(at), expect) {
            (None, Expect::Absent) | (Some(Node::Folder), Expect::Folder) => true,
            (Some(Node::File { bytes, .. }), Expect::File(hash)) => version_hash(&WORKSPACE, bytes) == *hash,
            (Some(Node::Link(target)), Expect::Symlink(expected)) => target == expected,
            _ => false,
        }
    }
    /// What the file system says of a file that was touched, not written.
    fn stat(&self, at: &RelPath) -> Stat {
        match self.folder.get(at) {
            Some(Node::File { bytes, inode, .. }) => {
                Stat { mtime_ns: 1, ctime_ns: 3, size: bytes.len() as u64, inode: *inode }
            }
            _ => Stat::default(),
        }
    }
    /// Whether a scan that looks only at what has another stat than was stored would look at this file.
    pub(super) fn is_to_be_looked_at(&self, at: &str) -> bool {
        let stored = known_files(&self.store).find(|known| known.path.as_str() == at).map(|known| known.stat);
        stored != Some(self.stat(&path(at)))
    }
    fn has_parent(&self, at: &RelPath) -> bool {
        at.parent().is_none_or(|above| self.folder.get(&above) == Some(&Node::Folder))
    }
    fn perform(&mut self, action: &FolderAction) -> Outcome {
        let differs = |replica: &mut Self, at: &RelPath| Outcome::Differs(replica.look(at));
        let mut stat = Stat::default();
        match action {
            FolderAction::MakeFolder { path } => {
                if self.folder.get(path).is_some_and(|node| *node != Node::Folder) {
                    return differs(self, path);
                }
                if !self.has_parent(path) {
                    return Outcome::Failed("its folder is gone".into());
                }
                self.folder.insert(path.clone(), Node::Folder);
            }
            FolderAction::Write { path, expect, content, executable, hash } => {
                if !self.holds(path, expect) {
                    return differs(self, path);
                }
                if !self.has_parent(path) {
                    return Outcome::Failed("its folder is gone".into());
                }
                self.next_inode += 1;
                let inode = self.next_inode;
                let node = match content {
                    NewContent::Symlink(target) => Node::Link(target.clone()),
                    NewContent::Bytes(bytes) => {
                        assert_eq!(version_hash(&WORKSPACE, bytes), *hash);
                        Node::File { bytes: bytes.to_vec(), executable: *executable, inode }
                    }
                    NewContent::Blob(manifest) => {
                        let bytes = self.pieces[&manifest.pieces[0].id].clone();
                        Node::File { bytes, executable: *executable, inode }
                    }
                };
                if let Node::File { bytes, .. } = &node {
                    stat = Stat { mtime_ns: 2, ctime_ns: 2, size: bytes.len() as u64, inode };
                }
                self.asides.remove(path);
                if self.folder.insert(path.clone(), node).is_some() {
                    self.asides.insert(path.clone(), *hash);
                }
            }
            FolderAction::Move { from, to, expect } => {
                if !self.holds(from, expect) || self.folder.contains_key(to) {
                    return differs(self, from);
                }
                if !self.has_parent(to) {
                    return Outcome::Failed("its folder is gone".into());
                }
                if to.as_str().starts_with(&format!("{from}/")) {
                    return Outcome::Failed("a folder cannot be moved into itself".into());
                }
                self.rename(from.as_str(), to.as_str());
                stat = self.stat(to);
            }
            FolderAction::Remove { path, expect, .. } => {
                if !self.holds(path, expect) {
                    return differs(self, path);
                }
                let prefix = format!("{path}/");
                if !self.folder.keys().any(|other| other.as_str().starts_with(&prefix)) {
                    self.folder.remove(path);
                }
            }
            FolderAction::SetExecutable { path, executable: value } => {
                match self.folder.get_mut(path) {
                    Some(Node::File { executable, .. }) => *executable = *value,
                    _ => return differs(self, path),
                }
                stat = self.stat(path);
            }
        }
        Outcome::Done(stat)
    }
    /// Does the next action; what came of it is not heard of yet.
    pub(super) fn act_unheard(&mut self) -> Option<(ActionId, Outcome)> {
        let (id, action) = self.acts.pop_front()?;
        let outcome = self.perform(&action);
        self.trace(format_args!("did {id:?} {outcome:?}"));
        Some((id, outcome))
    }
    /// It is heard of.
    pub(super) fn hear(&mut self, (id, outcome): (ActionId, Outcome)) {
        self.trace(format_args!("heard {id:?}"));
        self.call(|files, now, held, tx| files.handle_acted(now, id, outcome, held, tx));
    }
    /// Does the next action, or another piece of the shell's work; whether there was one.
    pub(super) fn act(&mut self) -> bool {
        if let Some(done) = self.act_unheard() {
            self.hear(done);
            return true;
        }
        if let Some(hash) = self.fetches.pop_front() {
            self.call(|files, now, held, tx| files.handle_blob_here(now, &hash, held, tx));
            return true;
        }
        if let Some(at) = self.looks.pop_front() {
            let seen = vec![self.look(&at)];
            self.call(|files, now, held, tx| files.handle_seen(now, seen, held, tx));
            return true;
        }
        false
    }
    /// Does the next action, then crashes before anybody hears of it.
    pub(super) fn act_and_crash(&mut self) {
        self.act_unheard();
        self.restart();
    }
    /// Time passes until the next deadline, if there is one soon.
    pub(super) fn wait(&mut self) -> bool {
        let Some(due) = self.files.poll_timeout() else { return false };
        let ahead = due.saturating_sub(self.now.mono_ms);
        self.now.mono_ms += ahead;
        self.now.wall_ms += ahead;
        self.call(|files, now, held, tx| files.handle_timeout(now, held, tx));
        true
    }
    pub(super) fn run(&mut self) {
        for _ in 0..20_000 {
            if std::mem::take(&mut self.looks_at_all) {
                self.scan();
            }
            if !self.act() && (self.files.halted().is_some() || !self.wait()) {
                return;
            }
        }
        panic!("never settles: {:?}", self.acts);
    }
    pub(super) fn receive(&mut self, author: ChainId, content: &Content) -> Vec<Refusal> {
        self.held.take(content);
        self.trace(format_args!("receives {}", Brief(content)));
        let author = Author { chain: author, wall_ms: self.now.wall_ms };
        self.call(|files, now, held, tx| files.handle_content(now, author, content, held, tx))
    }
    /// Builds all documents anew from what counts; what is `leaving` was made here, is not among it, and is entered again.
    pub(super) fn rebuild(&mut self, counts: &[(ChainId, Content)], leaving: &[Content]) {
        let documents =
            self.store.scan(Table::Documents, &[], None, 10_000).iter().map(|(key, _)| document_of(key)).collect();
        self.rebuild_these(&documents, counts, leaving);
    }
    /// The same of some documents; the others stay as they are, and what was made here in them with them.
    pub(super) fn rebuild_these(
        &mut self,
        documents: &BTreeSet<DocumentName>,
        counts: &[(ChainId, Content)],
        leaving: &[Content],
    ) {
        self.trace(format_args!("builds anew"));
        let identity = self.identity;
        self.call(|files, now, held, tx| {
            let carried = files.take_along(now, documents, leaving, held, tx);
            forget(documents, tx);
            files.reopen(identity, &BTreeSet::new(), tx);
            files.build();
            for (chain, content) in counts {
                files.handle_content(now, Author { chain: *chain, wall_ms: now.wall_ms }, content, held, tx);
            }
            files.enter_again(now, carried, held, tx);
        });
    }
    /// What its tree says, whatever the disk holds.
    pub(super) fn resume(&mut self, answer: Resume) -> bool {
        self.call(|files, now, held, tx| files.handle_resume(now, answer, held, tx))
    }
}

#[allow(dead_code, reason = "names the type that tests reach through `call`")]
type Context<'a, 'b> = Cx<'a, 'b>;

/// The name of the document that a row belongs to.
fn document_of(row: &[u8]) -> DocumentName {
    let name = row.split(|byte| *byte == 0).next().unwrap();
    DocumentName::new(std::str::from_utf8(name).unwrap()).unwrap()
}

/// Several replicas and what they published.
pub(super) struct World {
    pub(super) replicas: Vec<Replica>,
    pub(super) sent: Vec<(usize, Content)>,
    /// What each has received, by index into `sent`.
    delivered: Vec<BTreeSet<usize>>,
}

impl World {
    pub(super) fn new(count: usize) -> Self {
        let replicas = (0..count).map(|number| Replica::new(number as u8 + 1)).collect();
        Self { replicas, sent: Vec::new(), delivered: vec![BTreeSet::new(); count] }
    }
    pub(super) fn collect(&mut self) {
        let mut pieces = BTreeMap::new();
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            self.sent.extend(replica.published.drain(..).map(|content| (index, content)));
            pieces.extend(replica.pieces.clone());
        }
        for replica in &mut self.replicas {
            replica.pieces.extend(pieces.clone());
        }
    }
    /// What a replica published and nobody heard yet, out of what is said.
    pub(super) fn take_back(&mut self, from: usize) -> Vec<(ChainId, Content)> {
        let replica = &mut self.replicas[from];
        let chain = replica.identity.chain;
        replica.published.drain(..).map(|content| (chain, content)).collect()
    }
    /// A replica hears this, whatever else was said.
    pub(super) fn give(&mut self, to: usize, said: &[(ChainId, Content)]) {
        for (chain, content) in said {
            assert!(self.replicas[to].receive(*chain, content).is_empty());
        }
        self.replicas[to].run();
    }
    /// Everything that was said so far, as it is taken in again.
    pub(super) fn said(&self) -> Vec<(ChainId, Content)> {
        let chain = |from: usize| self.replicas[from].identity.chain;
        self.sent.iter().map(|(from, content)| (chain(*from), content.clone())).collect()
    }
    /// What this replica has not received.
    pub(super) fn missing(&self, to: usize) -> Vec<usize> {
        let news = |at: &usize| self.sent[*at].0 != to && !self.delivered[to].contains(at);
        (0..self.sent.len()).filter(news).collect()
    }
    pub(super) fn deliver(&mut self, to: usize, at: usize) {
        let (from, content) = self.sent[at].clone();
        let chain = self.replicas[from].identity.chain;
        let refused = self.replicas[to].receive(chain, &content);
        assert!(refused.is_empty(), "{refused:?}");
        self.delivered[to].insert(at);
    }
    pub(super) fn deliver_all(&mut self, to: usize) {
        self.collect();
        for at in self.missing(to) {
            self.deliver(to, at);
        }
    }
    /// Everybody looks, hears everything, and writes, until nothing is left.
    pub(super) fn settle(&mut self) {
        for _ in 0..50 {
            let mut quiet = true;
            for to in 0..self.replicas.len() {
                self.replicas[to].scan();
                self.replicas[to].run();
                if self.replicas[to].resume(Resume::AcceptDeletes) {
                    self.replicas[to].run();
                }
                self.collect();
                let missing = self.missing(to);
                quiet &= missing.is_empty();
                for at in missing {
                    self.deliver(to, at);
                }
                self.replicas[to].run();
            }
            self.collect();
            if quiet && (0..self.replicas.len()).all(|to| self.missing(to).is_empty()) {
                return;
            }
        }
        panic!("the replicas never stop talking");
    }
    /// All folders are the same, and nothing waits.
    pub(super) fn assert_equal(&self) {
        for other in 1..self.replicas.len() {
            let (one, two) = (self.replicas[0].picture(), self.replicas[other].picture());
            let differing: Vec<_> = one.keys().chain(two.keys()).filter(|at| one.get(*at) != two.get(*at)).collect();
            assert!(differing.is_empty(), "replica 0 and {other}: {differing:?} in {one:?} and {two:?}");
        }
        for replica in &self.replicas {
            assert!(replica.files.settled(), "something is still to be done");
            assert_eq!(replica.files.figures().waiting_changes, 0);
        }
    }
}
