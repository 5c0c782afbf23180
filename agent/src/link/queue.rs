//! Frames that wait for one link's socket, by rank.
//!
//! Invariant: control before live before bulk, first in first out within a rank; what waits is bounded, and a link that
//! is over its bound is given up, never thinned out: the peers reconcile on the next one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use weft_agent_core::workspace::output::Rank;

/// Bulk in the socket, and the mark below which more is asked for.
pub(crate) const BULK_BYTES: u64 = 256 * 1024;
/// Bytes that may wait in all; far above what the core has in flight.
const QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Default)]
struct Inner {
    ranks: [VecDeque<Bytes>; 3],
    bytes: u64,
    closed: Option<String>,
    /// Closes with this reason once everything that waits was taken.
    closes_when_empty: Option<String>,
}

/// The queue of one link.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    bell: Notify,
}

/// What is to be written next.
pub(crate) struct Round {
    pub(crate) frames: Vec<Bytes>,
    pub(crate) had_bulk: bool,
    /// Bytes that still wait.
    pub(crate) left: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, rank: Rank, frame: Bytes) {
        let mut inner = self.lock();
        if inner.closed.is_some() || inner.closes_when_empty.is_some() {
            return;
        }
        inner.bytes += frame.len() as u64;
        let Inner { ranks: [control, live, bulk], .. } = &mut *inner;
        match rank {
            Rank::Control => control.push_back(frame),
            Rank::Live => live.push_back(frame),
            Rank::Bulk => bulk.push_back(frame),
        }
        if inner.bytes > QUEUE_BYTES_MAX {
            inner.closed = Some("it takes what is sent too slowly".to_owned());
        }
        drop(inner);
        self.bell.notify_one();
    }

    /// Takes nothing more, and gives the link up when what waits was sent.
    pub(crate) fn finish(&self, why: &str) {
        self.lock().closes_when_empty.get_or_insert_with(|| why.to_owned());
        self.bell.notify_one();
    }

    /// Gives the link up.
    pub(crate) fn close(&self, why: &str) {
        let mut inner = self.lock();
        inner.closed.get_or_insert_with(|| why.to_owned());
        inner.ranks = Default::default();
        inner.bytes = 0;
        drop(inner);
        self.bell.notify_one();
    }

    /// The next frames, about [`BULK_BYTES`] of them; an error once it is closed.
    pub(crate) async fn round(&self) -> Result<Round, String> {
        loop {
            if let Some(round) = self.try_round()? {
                return Ok(round);
            }
            self.bell.notified().await;
        }
    }

    fn try_round(&self) -> Result<Option<Round>, String> {
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        let (mut frames, mut bytes, mut had_bulk) = (Vec::new(), 0, false);
        for (rank, queue) in inner.ranks.iter_mut().enumerate() {
            while bytes < BULK_BYTES {
                let Some(frame) = queue.pop_front() else { break };
                bytes += frame.len() as u64;
                had_bulk |= rank == Rank::Bulk as usize;
                frames.push(frame);
            }
        }
        if frames.is_empty()
            && let Some(why) = &inner.closes_when_empty
        {
            return Err(why.clone());
        }
        inner.bytes = inner.bytes.saturating_sub(bytes);
        let left = inner.bytes;
        Ok((!frames.is_empty()).then_some(Round { frames, had_bulk, left }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is urgent overtakes bulk, and a round carries at most about 256 KiB.
    #[test]
    fn ranks_overtake_and_rounds_are_bounded() {
        let queue = Queue::default();
        for _ in 0..6 {
            queue.push(Rank::Bulk, Bytes::from(vec![2; 100 * 1024]));
        }
        queue.push(Rank::Live, Bytes::from_static(b"live"));
        queue.push(Rank::Control, Bytes::from_static(b"control"));
        let round = queue.try_round().unwrap().unwrap();
        assert_eq!(round.frames[0].as_ref(), b"control");
        assert_eq!(round.frames[1].as_ref(), b"live");
        assert_eq!((round.frames.len(), round.had_bulk, round.left), (5, true, 3 * 100 * 1024));
    }

    /// What was said before the end is still sent, then the link ends.
    #[test]
    fn who_finishes_is_heard_to_the_end() {
        let queue = Queue::default();
        queue.push(Rank::Live, Bytes::from_static(b"last words"));
        queue.finish("left");
        queue.push(Rank::Live, Bytes::from_static(b"too late"));
        assert_eq!(queue.try_round().unwrap().unwrap().frames, [Bytes::from_static(b"last words")]);
        assert_eq!(queue.try_round().err().as_deref(), Some("left"));
    }

    /// A link over its bound is given up with a reason.
    #[test]
    fn a_flooded_queue_gives_up() {
        let queue = Queue::default();
        for _ in 0..65 {
            queue.push(Rank::Live, Bytes::from(vec![0; 1 << 20]));
        }
        assert!(queue.try_round().is_err());
    }
}
