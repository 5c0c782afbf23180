//! What the hub has for one connection's task.
//!
//! Invariant: frames leave in the order they came in. Its size is bounded by the machine's queue account, not here.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use weft_protocol::code::Code;

/// Bytes taken for one flush: enough to fill a socket's buffer, small enough that a slow client is credited often.
const SLICE_BYTES: usize = 64 << 10;

/// Frames that a slice usually has at most; more grow it.
const SLICE_FRAMES: usize = 64;
/// Frames for which an empty inbox keeps room.
const FRAMES_KEPT: usize = 4;

#[derive(Default)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    /// Something is in the inbox.
    pub(crate) work: Notify,
    /// The connection ends now, whatever is being written.
    pub(crate) cut: Notify,
}

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Bytes>,
    /// When the oldest of them came.
    since: Option<Instant>,
    close: Option<Code>,
    pause_until_ms: Option<u64>,
    verify: Option<String>,
}

/// What one look into the mailbox found.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) bytes: usize,
    /// When the oldest of these frames came.
    pub(crate) since: Option<Instant>,
    pub(crate) pause_until_ms: Option<u64>,
    pub(crate) verify: Option<String>,
    /// Frames, and perhaps an end, are left: look again.
    pub(crate) more: bool,
    /// Set once no frame is left before it.
    pub(crate) close: Option<Code>,
}

impl Mailbox {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, frame: Bytes) {
        let mut inbox = self.inbox();
        let first = inbox.frames.is_empty();
        inbox.frames.push_back(frame);
        if first {
            inbox.since = Some(Instant::now());
            drop(inbox);
            // Behind another frame it is found with that one: whoever leaves frames behind looks again.
            self.work.notify_one();
        }
    }

    pub(crate) fn pause(&self, until_ms: u64) {
        self.inbox().pause_until_ms = Some(until_ms);
        self.work.notify_one();
    }

    pub(crate) fn verify(&self, token: String) {
        self.inbox().verify = Some(token);
        self.work.notify_one();
    }

    pub(crate) fn close(&self, code: Code, discard_queue: bool) {
        let mut inbox = self.inbox();
        inbox.close = Some(code);
        if discard_queue {
            inbox.frames.clear();
            self.cut.notify_one();
        }
        self.work.notify_one();
    }

    /// The next slice of frames, and whatever else there is.
    pub(crate) fn take(&self) -> Taken {
        let mut inbox = self.inbox();
        let mut taken =
            Taken { pause_until_ms: inbox.pause_until_ms.take(), verify: inbox.verify.take(), ..Taken::default() };
        taken.frames.reserve_exact(inbox.frames.len().min(SLICE_FRAMES));
        while taken.bytes < SLICE_BYTES
            && let Some(frame) = inbox.frames.pop_front()
        {
            taken.bytes += frame.len();
            taken.frames.push_back(frame);
        }
        taken.since = inbox.since.take();
        taken.more = !inbox.frames.is_empty();
        if taken.more {
            // Not to the microsecond: each slice counts from when the one before it was taken.
            inbox.since = Some(Instant::now());
        } else {
            taken.close = inbox.close;
            // A burst's room is not kept.
            inbox.frames.shrink_to(FRAMES_KEPT);
        }
        taken
    }
}
