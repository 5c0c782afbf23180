//! What waits for the workspace's thread, by priority and within bounds.
//!
//! Invariant: within one class, first in first out. The classes, in the order in which they are taken:
//!
//! 1. commands of people and programs: before everything else, also in the middle of a round, at most 64 a round;
//! 2. links (up, frames, drained, down): at most 128 a round, so that the folder gets its turn;
//! 3. the folder (looked, acted, lost, rows of pieces), and whoever asks for what comes after what it told: at most 256 and
//!    about 4 MiB a round.
//!
//! Senders are held back by bytes: a link waits for its permit (and so stops reading its socket), the folder's thread
//! blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_agent_core::store::Write;
use weft_agent_core::workspace::input::Input;

use crate::store::StoreError;

/// Bytes of frames of all links of a workspace that may wait: four relay queues.
const LINK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes the folder's thread may have waiting.
const FOLDER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A program that asks without end does not keep the workspace from its work.
const COMMANDS_A_ROUND: usize = 64;
const LINKS_A_ROUND: usize = 128;
/// As many as the core has actions under way: their ends share a commit, and what follows them a sync of the folder.
const FOLDER_A_ROUND: usize = 256;
/// One task may hold megabytes, and links wait for the round.
const FOLDER_BYTES_A_ROUND: usize = 4 * 1024 * 1024;

/// One thing for the thread to do.
pub(crate) enum Task {
    /// For the machine.
    Input(Input),
    /// Rows the folder's thread made (sealed pieces), stored before whatever it sends next.
    Rows(Vec<Write>),
    /// Another reader of the database found damage.
    Damage(StoreError),
    /// Called once everything that was sent before it is handled and durable.
    Stored(Box<dyn FnOnce() + Send>),
    /// End, after what was handled is durable.
    Stop,
}

struct Waiting {
    task: Task,
    bytes: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Queues {
    commands: VecDeque<Waiting>,
    links: VecDeque<Waiting>,
    folder: VecDeque<Waiting>,
    folder_bytes: usize,
    closed: bool,
    turn: Turn,
}

/// What may still be taken before the round is over.
struct Turn {
    commands: usize,
    links: usize,
    folder: usize,
    folder_bytes: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            commands: COMMANDS_A_ROUND,
            links: LINKS_A_ROUND,
            folder: FOLDER_A_ROUND,
            folder_bytes: FOLDER_BYTES_A_ROUND,
        }
    }
}

/// The inbox; shared by everybody who has something for the workspace.
pub(crate) struct Inbox {
    queues: Mutex<Queues>,
    bell: Condvar,
    room: Condvar,
    link_bytes: Arc<Semaphore>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            bell: Condvar::new(),
            room: Condvar::new(),
            link_bytes: Arc::new(Semaphore::new(LINK_BYTES_MAX)),
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From a person or program.
    pub(crate) fn command(&self, task: Task) {
        self.lock().commands.push_back(Waiting { task, bytes: 0, _permit: None });
        self.bell.notify_one();
    }

    /// From a link, of about so many bytes; waits while too much waits.
    pub(crate) async fn link(&self, input: Input, bytes: usize) {
        let wanted = u32::try_from(bytes.clamp(64, LINK_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.link_bytes).acquire_many_owned(wanted).await.ok();
        self.lock().links.push_back(Waiting { task: Task::Input(input), bytes, _permit: permit });
        self.bell.notify_one();
    }

    /// From a link's last breath: never waits.
    pub(crate) fn link_now(&self, input: Input) {
        self.lock().links.push_back(Waiting { task: Task::Input(input), bytes: 0, _permit: None });
        self.bell.notify_one();
    }

    /// From the folder's thread, which blocks while too much of its own waits. False: the workspace has ended.
    pub(crate) fn folder(&self, task: Task, bytes: usize) -> bool {
        let mut queues = self.lock();
        while queues.folder_bytes >= FOLDER_BYTES_MAX && !queues.closed {
            queues = self.room.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        if queues.closed {
            return false;
        }
        queues.folder_bytes += bytes;
        queues.folder.push_back(Waiting { task, bytes, _permit: None });
        drop(queues);
        self.bell.notify_one();
        true
    }

    /// To be done after everything that the folder's thread has told so far; never waits.
    pub(crate) fn after_folder(&self, task: Task) {
        self.lock().folder.push_back(Waiting { task, bytes: 0, _permit: None });
        self.bell.notify_one();
    }

    /// What was cut off from something that was just taken from the folder's class: it is next there.
    pub(crate) fn folder_next(&self, rest: Vec<Task>) {
        let mut queues = self.lock();
        for task in rest.into_iter().rev() {
            queues.folder.push_front(Waiting { task, bytes: 0, _permit: None });
        }
    }

    /// Whether something that the folder's thread told waits to be taken in.
    pub(crate) fn folder_waits(&self) -> bool {
        !self.lock().folder.is_empty()
    }

    /// Nobody reads any more; whoever waits goes on.
    pub(crate) fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.links.clear();
        queues.folder.clear();
        queues.folder_bytes = 0;
        drop(queues);
        self.link_bytes.close();
        self.room.notify_all();
    }

    /// Whether a command waits.
    pub(crate) fn command_waits(&self) -> bool {
        !self.lock().commands.is_empty()
    }

    /// Waits until there is something, or for `patience`.
    pub(crate) fn wait(&self, patience: Duration) {
        let queues = self.lock();
        if queues.commands.is_empty() && queues.links.is_empty() && queues.folder.is_empty() {
            drop(self.bell.wait_timeout(queues, patience));
        }
    }

    /// The next thing of this round, with whether it is a command; `None`: the round is over, and another begins.
    pub(crate) fn next(&self) -> Option<(Task, bool)> {
        let mut queues = self.lock();
        if queues.turn.commands > 0
            && let Some(waiting) = queues.commands.pop_front()
        {
            queues.turn.commands -= 1;
            return Some((waiting.task, true));
        }
        if queues.turn.links > 0
            && let Some(waiting) = queues.links.pop_front()
        {
            queues.turn.links -= 1;
            return Some((waiting.task, false));
        }
        let may = queues.turn.folder > 0 && queues.turn.folder_bytes > 0;
        let Some(waiting) = may.then(|| queues.folder.pop_front()).flatten() else {
            queues.turn = Turn::default();
            return None;
        };
        queues.turn.folder -= 1;
        queues.turn.folder_bytes = queues.turn.folder_bytes.saturating_sub(waiting.bytes);
        queues.folder_bytes = queues.folder_bytes.saturating_sub(waiting.bytes);
        drop(queues);
        self.room.notify_all();
        Some((waiting.task, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::workspace::input::LinkId;

    fn round(inbox: &Inbox) -> Vec<Task> {
        std::iter::from_fn(|| inbox.next()).map(|(task, _)| task).collect()
    }

    /// A command overtakes a full queue of folder work, also in the middle of a round, and a class never reorders.
    #[test]
    fn commands_come_first_and_classes_stay_in_order() {
        let inbox = Inbox::default();
        for n in 0..300 {
            assert!(inbox.folder(Task::Input(Input::Scanned { complete: n % 2 == 0 }), 1));
        }
        inbox.link_now(Input::LinkDown { link: LinkId(1) });
        inbox.command(Task::Stop);
        assert!(matches!(inbox.next(), Some((Task::Stop, true))));
        assert!(matches!(inbox.next(), Some((Task::Input(Input::LinkDown { .. }), false))));
        assert!(matches!(inbox.next(), Some((Task::Input(Input::Scanned { complete: true }), false))));
        inbox.folder_next(vec![Task::Input(Input::RootBack), Task::Rows(Vec::new())]);
        inbox.command(Task::Stop);
        assert!(matches!(inbox.next(), Some((Task::Stop, true))));
        assert!(matches!(inbox.next(), Some((Task::Input(Input::RootBack), false))));
        assert!(matches!(inbox.next(), Some((Task::Rows(_), false))));
        assert!(matches!(inbox.next(), Some((Task::Input(Input::Scanned { complete: false }), false))));
        assert!(inbox.folder_waits());
        assert_eq!(round(&inbox).len(), FOLDER_A_ROUND - 4);
        assert_eq!(round(&inbox).len(), 302 - FOLDER_A_ROUND);
        assert!(!inbox.folder_waits());
        for _ in 0..4 {
            assert!(inbox.folder(Task::Rows(Vec::new()), FOLDER_BYTES_A_ROUND / 2));
        }
        assert_eq!(round(&inbox).len(), 2, "large tasks make small rounds");
    }

    /// The folder's thread is held back by bytes, and let go when the workspace ends.
    #[test]
    fn the_folder_is_held_back() {
        let inbox = Arc::new(Inbox::default());
        assert!(inbox.folder(Task::Rows(Vec::new()), FOLDER_BYTES_MAX));
        let blocked = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.folder(Task::Rows(Vec::new()), 1))
        };
        inbox.wait(Duration::from_secs(5));
        assert_eq!(round(&inbox).len(), 1);
        assert!(blocked.join().unwrap());
        inbox.close();
        assert!(!inbox.folder(Task::Stop, 0));
    }
}
