//! What the folder's thread is told, and the handle that it is told by.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use weft_agent_core::disk::{FolderAction, RelPath};
use weft_agent_core::files::ActionId;
use weft_agent_core::workspace::input::Input;

use super::glance::Glance;
use super::marker::Marker;
use super::thread::Looker;
use super::watch::Hint;
use crate::host::inbox::{Inbox, Task};
use crate::store::{FILE, Store, failure};

/// Whoever waits until everything is told waits so long at most for files that somebody does not stop writing.
const TAKE_IN_MAX: Duration = Duration::from_secs(3);

/// What the thread is told.
pub(crate) enum Order {
    Act(Vec<(ActionId, FolderAction)>),
    /// Tells anew what is at these paths (everywhere, if there are none).
    Look(Vec<RelPath>),
    /// Tells of everything that is not as it was told, then says how many paths could not be told of yet.
    TakeIn(oneshot::Sender<usize>),
    Hint(Hint),
    /// Everything told up to this batch is stored.
    Stored(u64),
    Stop,
}

/// Somebody who waits until the core was told of what is there.
pub(super) struct Waiting {
    told: oneshot::Sender<usize>,
    until: Instant,
}

impl Waiting {
    pub(super) fn new(told: oneshot::Sender<usize>, now: Instant) -> Waiting {
        Waiting { told, until: now + TAKE_IN_MAX }
    }
    /// Lets them go; `unread`: how many paths are still to be looked at.
    pub(super) fn end(self, unread: usize) {
        let _gone = self.told.send(unread);
    }
    /// Whether it has waited long enough.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// What others see of the thread.
#[derive(Clone)]
pub(crate) struct Seeing {
    pub(crate) glance: Arc<Glance>,
    orders: Sender<Order>,
}

impl Seeing {
    /// Waits until the core was told of what is in the folder now, but not for long for files that are still being written:
    /// how many those are. A thread that has ended reads nothing.
    pub(crate) async fn take_in(&self) -> usize {
        let (told, ended) = oneshot::channel();
        if self.orders.send(Order::TakeIn(told)).is_ok() {
            return ended.await.unwrap_or(0);
        }
        0
    }
}

/// Told to the thread; ends it when dropped.
pub(crate) struct Folder {
    orders: Sender<Order>,
    glance: Arc<Glance>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Folder {
    /// Starts the thread, which first looks at everything.
    pub(crate) fn start(root: PathBuf, marker: Marker, replica: PathBuf, inbox: Arc<Inbox>) -> std::io::Result<Folder> {
        let (orders, inbox_orders) = channel();
        let glance = Arc::new(Glance::default());
        let hints = orders.clone();
        let shared = Arc::clone(&glance);
        let thread = std::thread::Builder::new().name("weft-folder".to_owned()).spawn(move || {
            match Store::open_reader(&replica) {
                Ok(reader) => {
                    let tell = Arc::clone(&inbox);
                    let run = || Looker::new(root, marker, reader, inbox, &hints, shared).run(&inbox_orders);
                    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                        match failure(&replica.join(FILE), payload) {
                            // The workspace ends, and is opened again without what is damaged.
                            Ok(damage) => tell.command(Task::Damage(damage)),
                            Err(payload) => std::panic::resume_unwind(payload),
                        }
                    }
                }
                Err(error) => {
                    let _ended = inbox.folder(Task::Input(Input::RootLost { why: error.to_string() }), 0);
                }
            }
        })?;
        Ok(Folder { orders, glance, thread: Some(thread) })
    }
    /// Gives an order; a thread that has ended takes none.
    pub(crate) fn order(&self, order: Order) {
        let _ended = self.orders.send(order);
    }
    /// For those who watch.
    pub(crate) fn seeing(&self) -> Seeing {
        Seeing { glance: Arc::clone(&self.glance), orders: self.orders.clone() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Actions that follow one another become one order: they share their syncs.
pub(super) fn joined(orders: impl Iterator<Item = Order>) -> Vec<Order> {
    let mut all: Vec<Order> = Vec::new();
    for order in orders {
        match (all.last_mut(), order) {
            (Some(Order::Act(before)), Order::Act(more)) => before.extend(more),
            (_, order) => all.push(order),
        }
    }
    all
}
