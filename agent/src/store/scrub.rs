//! Reading what nobody reads: the sealed bytes of envelopes and pieces, slowly, beside everything else.
//!
//! All other values are read at every start. Invariant: damage that it finds is told of once, and it ends; whoever opens
//! the database again starts it again. Why slowly: it must not be felt. Spec: docs/sync.md#damage.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_agent_core::store::{Read, Table};

use super::{Store, StoreError};

/// Rows read in one go.
const ROWS: usize = 16;
/// Rest after so many bytes: some 20 MB a second.
const BYTES_A_REST: usize = 1024 * 1024;
const REST: Duration = Duration::from_millis(50);
/// From the end of one reading to the next.
const AGAIN: Duration = Duration::from_secs(24 * 3600);
/// How soon it notices that it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// The thread; it ends when this is dropped.
pub(crate) struct Scrub {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Scrub {
    /// Starts it. `tell` hears of the first damage.
    pub(crate) fn start(dir: PathBuf, tell: impl FnOnce(StoreError) + Send + 'static) -> std::io::Result<Scrub> {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("weft-scrub".to_owned()).spawn(move || {
            if let Some(found) = read_all(&dir, &ends) {
                tell(found);
            }
        })?;
        Ok(Scrub { stop, thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Reads everything, again and again, until told to stop or until something is damaged.
fn read_all(dir: &std::path::Path, stop: &AtomicBool) -> Option<StoreError> {
    // A database that cannot be opened is found out by its owner.
    let store = Store::open_reader(dir).ok()?;
    loop {
        for table in [Table::Envelopes, Table::Pieces] {
            let mut after: Option<Vec<u8>> = None;
            let mut bytes = 0;
            loop {
                if stop.load(Ordering::Acquire) {
                    return None;
                }
                let page = match store.reading(|store| store.scan(table, &[], after.as_deref(), ROWS)) {
                    Ok(page) => page,
                    Err(found @ (StoreError::Damaged { .. } | StoreError::Value { .. })) => return Some(found),
                    // Other faults are not this thread's to tell of.
                    Err(_) => return None,
                };
                let Some((last, _)) = page.last() else { break };
                bytes += page.iter().map(|(_, value)| value.len()).sum::<usize>();
                after = Some(last.clone());
                if bytes > BYTES_A_REST {
                    bytes = 0;
                    std::thread::sleep(REST);
                }
            }
        }
        let mut waited = Duration::ZERO;
        while waited < AGAIN {
            if stop.load(Ordering::Acquire) {
                return None;
            }
            std::thread::sleep(GLANCE);
            waited += GLANCE;
        }
    }
}
