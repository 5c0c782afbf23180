//! One agent in the world: its machine while it runs, and what outlives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_agent_core::disk::{FolderAction, RelPath, Unfinished};
use weft_agent_core::files::ActionId;
use weft_agent_core::membership::Role;
use weft_agent_core::setup::Watermark;
use weft_agent_core::workspace::command::Status;
use weft_agent_core::workspace::input::{Input, Token};

use super::disk::Disk;
use super::folder::{Folder, Undo};
use super::machine::Known;
use super::world::ConnId;

/// Where a host's member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not invited yet.
    Outside,
    /// Has a link, is not admitted.
    Joining,
    /// A member.
    Active,
    /// Left, or was removed: what it does counts no more, if it still does anything.
    Left,
}

/// What the folder's worker does, one after another.
#[derive(Debug)]
pub enum Job {
    /// Something the core asks for.
    Act(ActionId, FolderAction),
    /// Paths to look at.
    Look {
        /// Which.
        paths: Vec<RelPath>,
        /// Tell only what differs from what the shell knows.
        only_changes: bool,
    },
    /// Look at everything.
    Scan {
        /// Tell only what differs from what the shell knows; what is gone is told in any case.
        only_changes: bool,
    },
}

/// What the worker found or did, on its way to the core.
#[derive(Debug)]
pub struct Told {
    /// The input.
    pub input: Input,
    /// What a crash before that may take back.
    pub undo: Undo,
}

/// A state that a backup program took.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Store and watermark.
    pub disk: Disk,
    /// The folder.
    pub folder: Folder,
}

/// A host.
pub struct Host<M> {
    /// Rows whose values are damaged.
    pub damaged: super::world::damage::Marks,
    /// The machine, while the agent runs.
    pub machine: Option<M>,
    /// Counts starts: what was under way for an earlier one is void.
    pub boot: u64,
    /// Where its member is.
    pub phase: Phase,
    /// The role it was invited with.
    pub role: Role,
    /// Whether the running agent was let in, so that its folder may be touched.
    pub admitted: bool,
    /// Whether the running agent waits for its person.
    pub asks: bool,
    /// The identity file.
    pub identity: Vec<u8>,
    /// Whether it asked for a link and has none.
    pub waits_for_link: bool,
    /// The link it joins by.
    pub link: Option<String>,
    /// Database and watermark.
    pub disk: Disk,
    /// The folder.
    pub folder: Folder,
    /// What the shell knows of the folder.
    pub known: BTreeMap<RelPath, Known>,
    /// What became of the writes that were under way when the agent last ended.
    pub unfinished: BTreeMap<RelPath, Unfinished>,
    /// Paths the watcher will tell of.
    pub dirty: BTreeSet<RelPath>,
    /// Paths the watcher missed.
    pub missed: bool,
    /// What the folder's worker has to do.
    pub jobs: VecDeque<Job>,
    /// Whether the worker is at it.
    pub working: bool,
    /// What the worker tells the core next.
    pub told: VecDeque<Told>,
    /// When the last of it is told.
    pub told_until_us: u64,
    /// Whether an fsync is under way.
    pub flushing: bool,
    /// Envelopes in batches that are not durable: token, place, hash.
    pub unflushed: VecDeque<(Token, Vec<u8>, [u8; 32])>,
    /// When the machine is woken, in virtual microseconds.
    pub wake_us: Option<u64>,
    /// The newest connection to each relay that it believes in.
    pub conns: BTreeMap<usize, ConnId>,
    /// Connections that broke and that it still believes in.
    pub doubted: BTreeSet<ConnId>,
    /// Until when it cannot reach a relay.
    pub cut_off_until_us: BTreeMap<usize, u64>,
    /// Monotonic clock minus virtual time, in milliseconds.
    pub mono_base_ms: u64,
    /// Wall clock minus virtual time, in milliseconds.
    pub wall_base_ms: u64,
    /// The last backup.
    pub backup: Option<Backup>,
    /// The true watermark, if an older one was put back with the last backup.
    pub unproven: Option<Watermark>,
    /// Files that an editor has emptied and not written yet.
    pub saving: u32,
    /// Whether its folder ever showed what a liar forged.
    pub was_shown_forged: bool,
    /// The last status it gave.
    pub status: Option<Box<Status>>,
}

impl<M> Host<M> {
    /// A host that never ran.
    #[must_use]
    pub fn new(identity: Vec<u8>, mono_base_ms: u64, wall_base_ms: u64) -> Self {
        Self {
            damaged: super::world::damage::Marks::new(),
            machine: None,
            boot: 0,
            phase: Phase::Outside,
            role: Role::Writer,
            admitted: false,
            asks: false,
            identity,
            waits_for_link: false,
            link: None,
            disk: Disk::default(),
            folder: Folder::default(),
            known: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            dirty: BTreeSet::new(),
            missed: false,
            jobs: VecDeque::new(),
            working: false,
            told: VecDeque::new(),
            told_until_us: 0,
            flushing: false,
            unflushed: VecDeque::new(),
            wake_us: None,
            conns: BTreeMap::new(),
            doubted: BTreeSet::new(),
            cut_off_until_us: BTreeMap::new(),
            mono_base_ms,
            wall_base_ms,
            backup: None,
            unproven: None,
            saving: 0,
            was_shown_forged: false,
            status: None,
        }
    }
    /// The watermark that the next start is told.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        self.disk.watermark
    }
    /// Whether a watermark was put back with the rest, and no peer has told of what came after yet.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.unproven.is_some_and(|before| self.disk.watermark.incarnation <= before.incarnation)
    }
    /// Forgets what only a running agent knows.
    pub fn halt(&mut self) {
        self.machine = None;
        self.boot += 1;
        self.admitted = false;
        self.asks = false;
        self.known.clear();
        self.unfinished.clear();
        self.dirty.clear();
        self.missed = false;
        self.jobs.clear();
        self.working = false;
        self.told_until_us = 0;
        self.flushing = false;
        self.unflushed.clear();
        self.wake_us = None;
        self.conns.clear();
        self.doubted.clear();
        self.status = None;
    }
}
