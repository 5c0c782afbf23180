//! What waits for the workspace's thread, by priority and within bounds.
//!
//! Invariant: within one class, first in first out. The classes, in the order in which a round takes them:
//!
//! 1. commands of people and programs: at most 64 a round, all that wait;
//! 2. links (up, frames, drained, down): at most 128 a round, so that the folder gets its turn;
//! 3. the folder (looked, acted, lost, rows of pieces): at most 256 and about 4 MiB a round.
//!
//! Senders are held back by bytes: a link waits for its permit (and so stops reading its socket), the folder's thread
//! blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_agent_core::store::Write;
use weft_agent_core::workspace::input::Input;

/// Bytes of frames of all links of a workspace that may wait: four relay queues.
const LINK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes the folder's thread may have waiting.
const FOLDER_BYTES_MAX: usize = 16 * 1024 * 1024;
const COMMANDS_A_ROUND: usize = 64;
const LINKS_A_ROUND: usize = 128;
/// As many as the core has actions under way: their ends share a commit, and what follows them a sync of the folder.
const FOLDER_A_ROUND: usize = 256;
/// One task may hold megabytes, and commands and links wait for the round.
const FOLDER_BYTES_A_ROUND: usize = 4 * 1024 * 1024;

/// One thing for the thread to do.
pub(crate) enum Task {
    /// For the machine.
    Input(Input),
    /// Rows the folder's thread made (sealed pieces), stored before whatever it sends next.
    Rows(Vec<Write>),
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

    /// The next round, by priority; empty after `patience`.
    pub(crate) fn round(&self, patience: Duration) -> Vec<Task> {
        let mut queues = self.lock();
        if queues.commands.is_empty() && queues.links.is_empty() && queues.folder.is_empty() {
            let waited = self.bell.wait_timeout(queues, patience).unwrap_or_else(PoisonError::into_inner);
            queues = waited.0;
        }
        let mut tasks = Vec::new();
        let Queues { commands, links, folder, folder_bytes, .. } = &mut *queues;
        tasks.extend(take(commands, COMMANDS_A_ROUND).map(|waiting| waiting.task));
        tasks.extend(take(links, LINKS_A_ROUND).map(|waiting| waiting.task));
        let (mut count, mut bytes) = (0, 0);
        while count < FOLDER_A_ROUND && bytes < FOLDER_BYTES_A_ROUND {
            let Some(waiting) = folder.pop_front() else { break };
            count += 1;
            bytes += waiting.bytes;
            tasks.push(waiting.task);
        }
        *folder_bytes = folder_bytes.saturating_sub(bytes);
        drop(queues);
        self.room.notify_all();
        tasks
    }
}

fn take(queue: &mut VecDeque<Waiting>, most: usize) -> impl Iterator<Item = Waiting> {
    let count = queue.len().min(most);
    queue.drain(..count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::workspace::input::LinkId;

    /// A command overtakes a full queue of folder work, and a class never reorders.
    #[test]
    fn commands_come_first_and_classes_stay_in_order() {
        let inbox = Inbox::default();
        for n in 0..300 {
            assert!(inbox.folder(Task::Input(Input::Scanned { complete: n % 2 == 0 }), 1));
        }
        inbox.link_now(Input::LinkDown { link: LinkId(1) });
        inbox.command(Task::Stop);
        let round = inbox.round(Duration::ZERO);
        assert!(matches!(round[0], Task::Stop));
        assert!(matches!(round[1], Task::Input(Input::LinkDown { .. })));
        assert_eq!(round.len(), 2 + FOLDER_A_ROUND);
        assert_eq!(inbox.round(Duration::ZERO).len(), 300 - FOLDER_A_ROUND);
        for _ in 0..4 {
            assert!(inbox.folder(Task::Rows(Vec::new()), FOLDER_BYTES_A_ROUND / 2));
        }
        assert_eq!(inbox.round(Duration::ZERO).len(), 2, "large tasks make small rounds");
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
        assert_eq!(inbox.round(Duration::from_secs(5)).len(), 1);
        assert!(blocked.join().unwrap());
        inbox.close();
        assert!(!inbox.folder(Task::Stop, 0));
    }
}
