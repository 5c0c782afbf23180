//! What waits to be written to one client, counted in bytes and frames.
//!
//! Invariant: the count is what was handed out and not yet reported written; past either bound the client is closed with
//! `resync`, never a frame dropped in silence. The frames themselves are the shell's. Spec: docs/protocol.md#slow-consumers.

use weft_protocol::limits::QUEUE_FRAME_OVERHEAD_BYTES;

/// The account of one client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    bytes: usize,
    frames: usize,
}

impl Queue {
    /// Adds a frame of `len` bytes; `false` if that is past a bound. An empty queue takes any one frame.
    pub fn push(&mut self, len: usize, bytes_max: usize, frames_max: usize) -> bool {
        let bytes = self.bytes + len + QUEUE_FRAME_OVERHEAD_BYTES;
        if self.frames > 0 && (bytes > bytes_max || self.frames + 1 > frames_max) {
            return false;
        }
        self.bytes = bytes;
        self.frames += 1;
        true
    }

    /// `frames` frames of `bytes` payload bytes in all were written.
    pub fn drained(&mut self, bytes: usize, frames: usize) {
        self.frames = self.frames.saturating_sub(frames);
        self.bytes = self.bytes.saturating_sub(bytes + frames * QUEUE_FRAME_OVERHEAD_BYTES);
    }

    /// Bytes that wait, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that wait.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_draining_makes_room() {
        let mut queue = Queue::default();
        assert!(queue.push(1 << 20, 1000, 2));
        assert!(!queue.push(1, 1000, 2));
        queue.drained(1 << 20, 1);
        assert_eq!((queue.bytes(), queue.frames()), (0, 0));
        assert!(queue.push(1, 1000, 2) && queue.push(1, 1000, 2));
        assert!(!queue.push(1, 1000, 2));
    }
}
