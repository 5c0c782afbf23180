//! The thread that owns one workspace: its machine and its store.
//!
//! One round: take inputs by priority for at most [`ROUND`], handle each and drain its outputs, apply every `Persist` to the
//! store at once, commit once, tell the machine `Persisted`, and only then let go what is to be sent or done. A watermark is
//! durable before the next input. A command never waits for a round: it is handled next, and answered with the commit that
//! follows; what takes long is cut into parts before it is handled.
//!
//! Invariant: nothing leaves before what was persisted in its round is durable. A panic of the machine, a failing read
//! or a full disk ends this workspace with a sentence for people, never the daemon; the last commit is a state the
//! machine can be opened from.
//! Spec: docs/architecture.md#one-task-owns-one-thing.

pub(crate) mod inbox;
pub(crate) mod watermark;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_agent_core::disk::{FolderAction, RelPath, Seen};
use weft_agent_core::files::{ActionId, Halt, LogEntry};
use weft_agent_core::identity::DeviceCert;
use weft_agent_core::setup::Watermark;
use weft_agent_core::workspace::command::{Reply, RequestId};
use weft_agent_core::workspace::input::{Input, LinkId, Token};
use weft_agent_core::workspace::output::{Output, Rank};
use weft_protocol::frame::ClientFrame;

use crate::engine::Machine;
use crate::store::{Store, StoreError, failure};
use crate::{clock, durable};
use inbox::{Inbox, Task};
use watermark::WatermarkFile;

/// After so long a round ends: what it made waits for its commit.
const ROUND: Duration = Duration::from_millis(200);
/// Longest sleep of an idle workspace.
const IDLE: Duration = Duration::from_secs(3600);
/// Most times a round may go from `Persisted` to another `Persist` before others get their turn.
const COMMITS_A_ROUND: usize = 8;

/// What the machine wants done outside its store.
pub(crate) trait Effects {
    fn send(&mut self, link: LinkId, rank: Rank, frame: ClientFrame);
    fn close(&mut self, link: LinkId, why: &'static str);
    fn act(&mut self, actions: Vec<(ActionId, FolderAction)>);
    fn look(&mut self, paths: Vec<RelPath>);
    fn halted(&mut self, halt: Option<Halt>);
    fn addresses(&mut self, relays: Vec<String>, lan: Vec<String>);
    fn admitted(&mut self, name: String);
    fn enrolled(&mut self, cert: DeviceCert, name: String);
    fn event(&mut self, entry: LogEntry);
    fn reply(&mut self, request: RequestId, reply: Reply);
}

/// Why a workspace ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The store failed; opening it again may help, unless it is damaged.
    Store(StoreError),
    /// The watermark could not be written.
    Watermark(std::io::Error),
    /// The machine broke one of its own invariants.
    Panicked(String),
}

impl End {
    /// Whether it only waits for room on a disk.
    pub(crate) fn is_full_disk(&self) -> bool {
        match self {
            End::Store(StoreError::Full { .. }) => true,
            End::Watermark(error) => durable::is_full(error),
            End::Store(_) | End::Stopped | End::Panicked(_) => false,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Stopped => f.write_str("stopped"),
            End::Store(error) => error.fmt(f),
            End::Watermark(_) if self.is_full_disk() => f.write_str(
                "the disk that holds the agent's settings is full: free some space; syncing goes on by itself",
            ),
            End::Watermark(error) => write!(f, "the agent's config folder cannot be written: {error}"),
            End::Panicked(what) => write!(
                f,
                "the agent met a fault of its own ({what}); your files are untouched, nothing was lost. It tries again; \
                 if this stays, `weft doctor` says what to report"
            ),
        }
    }
}

/// One workspace on its thread.
pub(crate) struct Host {
    machine: Box<dyn Machine + Send>,
    store: Store,
    watermark: WatermarkFile,
    inbox: Arc<Inbox>,
    effects: Box<dyn Effects + Send>,
    /// Let go at the end of the round.
    held: Vec<Output>,
    unconfirmed: Vec<Token>,
    /// Who wants to know when the round is durable.
    stored: Vec<Box<dyn FnOnce() + Send>>,
    stop: bool,
}

impl Host {
    pub(crate) fn new(
        machine: Box<dyn Machine + Send>,
        store: Store,
        watermark: WatermarkFile,
        inbox: Arc<Inbox>,
        effects: Box<dyn Effects + Send>,
    ) -> Host {
        Host {
            machine,
            store,
            watermark,
            inbox,
            effects,
            held: Vec::new(),
            unconfirmed: Vec::new(),
            stored: Vec::new(),
            stop: false,
        }
    }

    /// Runs until told to stop or until it cannot go on.
    pub(crate) fn run(mut self) -> End {
        let end = loop {
            let round = catch_unwind(AssertUnwindSafe(|| self.round()));
            match round {
                Ok(Ok(())) if self.stop => break End::Stopped,
                Ok(Ok(())) => {}
                Ok(Err(end)) => break end,
                Err(payload) => break ended_by(payload, self.store.path()),
            }
        };
        self.inbox.close();
        end
    }

    fn round(&mut self) -> Result<(), End> {
        // What a new machine wants before any input (its first rows, a first look).
        self.drain()?;
        self.settle()?;
        if self.store.changed_outside().map_err(End::Store)? {
            // What was read before may not be there any more.
            return Err(End::Store(self.store.foreign()));
        }
        let patience = self.machine.poll_timeout().map_or(IDLE, clock::until).min(IDLE);
        self.inbox.wait(patience);
        let began = Instant::now();
        let mut answers = false;
        while !self.stop
            && let Some((task, is_command)) = self.inbox.next()
        {
            match task {
                Task::Input(Input::Seen(seen)) => self.see(seen)?,
                Task::Input(input) => self.handle(input)?,
                Task::Rows(rows) => self.store.apply(&rows).map_err(End::Store)?,
                Task::Damage(error) => return Err(End::Store(error)),
                Task::Stored(tell) => self.stored.push(tell),
                Task::Stop => self.stop = true,
            }
            answers |= is_command;
            if answers && !self.inbox.command_waits() || began.elapsed() >= ROUND {
                break;
            }
        }
        if self.machine.poll_timeout().is_some_and(|at| at <= clock::now().mono_ms) {
            self.handle(Input::Wake)?;
        }
        self.settle()
    }

    /// Commits, confirms, and lets go.
    fn settle(&mut self) -> Result<(), End> {
        for _ in 0..COMMITS_A_ROUND {
            self.store.commit().map_err(End::Store)?;
            self.stored.drain(..).for_each(|tell| tell());
            let confirmed = std::mem::take(&mut self.unconfirmed);
            self.let_go();
            if confirmed.is_empty() {
                return Ok(());
            }
            for token in confirmed {
                self.handle(Input::Persisted(token))?;
            }
        }
        self.store.commit().map_err(End::Store)?;
        self.let_go();
        Ok(())
    }

    /// Takes in what the folder's thread saw, as much of it as takes a moment; the rest is next, unless a person asks.
    fn see(&mut self, seen: Vec<Seen>) -> Result<(), End> {
        let mut parts = self.machine.slices(seen).into_iter();
        let Some(first) = parts.next() else { return Ok(()) };
        self.inbox.folder_next(parts.map(|part| Task::Input(Input::Seen(part))).collect());
        self.handle(Input::Seen(first))
    }

    fn handle(&mut self, input: Input) -> Result<(), End> {
        self.machine.handle(clock::now(), input, &self.store);
        self.drain()
    }

    fn drain(&mut self) -> Result<(), End> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Persist { token, batch } => {
                    self.store.apply(&batch).map_err(End::Store)?;
                    self.unconfirmed.push(token);
                }
                Output::Watermark { incarnation, seq } => {
                    self.watermark.raise(Watermark { incarnation, seq }).map_err(End::Watermark)?;
                }
                Output::Send { .. }
                | Output::Close { .. }
                | Output::Act(..)
                | Output::Look(_)
                | Output::Halted(_)
                | Output::Addresses { .. }
                | Output::Admitted { .. }
                | Output::Enrolled { .. }
                | Output::Event(_)
                | Output::Reply(..) => self.held.push(output),
            }
        }
        Ok(())
    }

    fn let_go(&mut self) {
        let mut actions = Vec::new();
        for output in std::mem::take(&mut self.held) {
            match output {
                Output::Act(id, action) => actions.push((id, action)),
                Output::Send { link, rank, frame } => self.effects.send(link, rank, frame),
                Output::Close { link, why } => self.effects.close(link, why),
                Output::Look(paths) => {
                    // A look asked for after an action must see what the action left.
                    if !actions.is_empty() {
                        self.effects.act(std::mem::take(&mut actions));
                    }
                    self.effects.look(paths);
                }
                Output::Halted(halt) => self.effects.halted(halt),
                Output::Addresses { relays, lan } => self.effects.addresses(relays, lan),
                Output::Admitted { name } => self.effects.admitted(name),
                Output::Enrolled { cert, name } => self.effects.enrolled(cert, name),
                Output::Event(entry) => self.effects.event(entry),
                Output::Reply(request, reply) => self.effects.reply(request, reply),
                Output::Persist { .. } | Output::Watermark { .. } => {}
            }
        }
        if !actions.is_empty() {
            self.effects.act(actions);
        }
    }
}

/// The reason in what was unwound with.
pub(crate) fn ended_by(payload: Box<dyn std::any::Any + Send>, store: &Path) -> End {
    match failure(store, payload) {
        Ok(failed) => End::Store(failed),
        Err(payload) => End::Panicked(
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use weft_agent_core::store::{Read, Table, Write};
    use weft_agent_core::time::Timestamp;
    use weft_agent_core::workspace::command::Command;

    /// Persists on every `LinkDown`, asks to close the link once that is durable; panics on `RootBack`.
    #[derive(Default)]
    struct Scripted {
        out: VecDeque<Output>,
        tokens: u64,
    }
    impl Machine for Scripted {
        #[allow(clippy::wildcard_enum_match_arm, reason = "a script knows its own inputs")]
        fn handle(&mut self, _now: Timestamp, input: Input, read: &dyn Read) {
            match input {
                Input::LinkDown { link } => {
                    self.tokens += 1;
                    let write =
                        Write { table: Table::Meta, key: vec![1], value: Some(Bytes::from(vec![link.0 as u8])) };
                    self.out.push_back(Output::Persist { token: Token(self.tokens), batch: vec![write] });
                    self.out.push_back(Output::Watermark { incarnation: 1, seq: link.0 });
                }
                Input::Persisted(token) => self.out.push_back(Output::Close { link: LinkId(token.0), why: "done" }),
                Input::RootLost { .. } => drop(read.get(Table::Meta, &[1])),
                Input::RootBack => panic!("a fault"),
                _ => {}
            }
        }
        fn poll_output(&mut self) -> Option<Output> {
            self.out.pop_front()
        }
        fn poll_timeout(&self) -> Option<u64> {
            None
        }
        fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
            seen.into_iter().map(|one| vec![one]).collect()
        }
    }

    /// Records closes together with whether the store on disk already had the row then.
    struct Recorder {
        reader: Store,
        closed: Closed,
    }
    impl Effects for Recorder {
        fn send(&mut self, _: LinkId, _: Rank, _: ClientFrame) {}
        fn close(&mut self, link: LinkId, _: &'static str) {
            let durable = self.reader.get(Table::Meta, &[1]);
            self.closed.lock().unwrap().push((link, durable));
        }
        fn act(&mut self, _: Vec<(ActionId, FolderAction)>) {}
        fn look(&mut self, _: Vec<RelPath>) {}
        fn halted(&mut self, _: Option<Halt>) {}
        fn addresses(&mut self, _: Vec<String>, _: Vec<String>) {}
        fn admitted(&mut self, _: String) {}
        fn enrolled(&mut self, _: DeviceCert, _: String) {}
        fn event(&mut self, _: LogEntry) {}
        fn reply(&mut self, _: RequestId, _: Reply) {}
    }

    type Closed = Arc<Mutex<Vec<(LinkId, Option<Bytes>)>>>;
    fn host(dir: &std::path::Path) -> (Host, Arc<Inbox>, Closed) {
        let store = Store::open(dir).unwrap();
        let closed = Closed::default();
        let recorder = Recorder { reader: Store::open_reader(dir).unwrap(), closed: Arc::clone(&closed) };
        let inbox = Arc::new(Inbox::default());
        let watermark = WatermarkFile::open(&dir.join("mark")).unwrap();
        (
            Host::new(Box::new(Scripted::default()), store, watermark, Arc::clone(&inbox), Box::new(recorder)),
            inbox,
            closed,
        )
    }

    /// What leaves, leaves after its batch is committed, and the watermark is on disk.
    #[test]
    fn effects_leave_after_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (host, inbox, closed) = host(dir.path());
        inbox.link_now(Input::LinkDown { link: LinkId(7) });
        inbox.link_now(Input::LinkDown { link: LinkId(9) });
        inbox.folder(Task::Stop, 0);
        assert!(matches!(host.run(), End::Stopped));
        let closed = closed.lock().unwrap();
        assert_eq!(closed.iter().map(|(link, _)| link.0).collect::<Vec<_>>(), [1, 2]);
        assert!(closed.iter().all(|(_, durable)| durable.as_deref() == Some(&[9][..])));
        assert_eq!(WatermarkFile::open(&dir.path().join("mark")).unwrap().last(), Watermark { incarnation: 1, seq: 9 });
    }

    /// A panic of the machine ends the workspace with its message; what was committed stays.
    #[test]
    fn a_panic_is_an_end_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (host, inbox, _) = host(dir.path());
        inbox.folder(Task::Input(Input::RootBack), 0);
        let end = host.run();
        assert!(matches!(&end, End::Panicked(what) if what == "a fault"), "{end}");
        assert!(!inbox.folder(Task::Stop, 0), "whoever waits is let go");
    }
    /// What happened, in order; shared by a machine and its effects.
    type Order = Arc<Mutex<Vec<&'static str>>>;

    /// Takes in what was seen in as many parts as there are things; while it is at the first, a person asks something.
    struct Asked {
        inbox: Arc<Inbox>,
        order: Order,
        out: VecDeque<Output>,
    }
    impl Machine for Asked {
        #[allow(clippy::wildcard_enum_match_arm, reason = "a script knows its own inputs")]
        fn handle(&mut self, _now: Timestamp, input: Input, _read: &dyn Read) {
            let mut order = self.order.lock().unwrap();
            match input {
                Input::Seen(_) => {
                    if order.is_empty() {
                        self.inbox.command(Task::Input(Input::Command(RequestId(1), Command::Status)));
                        self.inbox.after_folder(Task::Input(Input::Command(RequestId(2), Command::Members)));
                    }
                    order.push("seen");
                }
                Input::Command(request, command) => {
                    order.push(if matches!(command, Command::Status) { "asked" } else { "asked after" });
                    self.out.push_back(Output::Reply(request, Reply::Done));
                }
                Input::Scanned { .. } => order.push("scanned"),
                _ => {}
            }
        }
        fn poll_output(&mut self) -> Option<Output> {
            self.out.pop_front()
        }
        fn poll_timeout(&self) -> Option<u64> {
            None
        }
        fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
            seen.into_iter().map(|one| vec![one]).collect()
        }
    }
    struct Answered(Order);
    impl Effects for Answered {
        fn send(&mut self, _: LinkId, _: Rank, _: ClientFrame) {}
        fn close(&mut self, _: LinkId, _: &'static str) {}
        fn act(&mut self, _: Vec<(ActionId, FolderAction)>) {}
        fn look(&mut self, _: Vec<RelPath>) {}
        fn halted(&mut self, _: Option<Halt>) {}
        fn addresses(&mut self, _: Vec<String>, _: Vec<String>) {}
        fn admitted(&mut self, _: String) {}
        fn enrolled(&mut self, _: DeviceCert, _: String) {}
        fn event(&mut self, _: LogEntry) {}
        fn reply(&mut self, _: RequestId, _: Reply) {
            self.0.lock().unwrap().push("answered");
        }
    }

    /// Who asks while much that was seen is taken in is answered before the rest of it, and who asks for what comes after it
    /// is answered after it; what the folder's thread told is taken in in its order.
    #[test]
    fn a_command_is_answered_between_two_parts_of_what_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, order) = (Arc::new(Inbox::default()), Order::default());
        let machine = Asked { inbox: Arc::clone(&inbox), order: Arc::clone(&order), out: VecDeque::new() };
        let watermark = WatermarkFile::open(&dir.path().join("mark")).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let effects = Box::new(Answered(Arc::clone(&order)));
        let host = Host::new(Box::new(machine), store, watermark, Arc::clone(&inbox), effects);
        let seen = |path| Seen::new(RelPath::new(path).unwrap(), weft_agent_core::disk::Found::Absent);
        inbox.folder(Task::Input(Input::Seen(["a", "b", "c"].map(seen).to_vec())), 0);
        inbox.folder(Task::Input(Input::Scanned { complete: true }), 0);
        let stop = Arc::clone(&inbox);
        let until = Arc::clone(&order);
        let waiting = std::thread::spawn(move || {
            while !until.lock().unwrap().contains(&"asked after") {
                std::thread::yield_now();
            }
            stop.command(Task::Stop);
        });
        assert!(matches!(host.run(), End::Stopped));
        waiting.join().unwrap();
        let order = order.lock().unwrap();
        let expected = ["seen", "asked", "answered", "seen", "seen", "scanned", "asked after", "answered"];
        assert_eq!(*order, expected);
    }
}
