//! A connection as the two sides see it: two pipes with latency and bandwidth, that can break unseen.
//!
//! Invariant: a pipe delivers a prefix of what was put in, in the order of ranks at the sender and in order of sending
//! after that; once it is broken nothing more arrives, whatever either side believes.
//! Spec: docs/simulation.md#network.

use std::collections::VecDeque;

use weft_agent_core::workspace::output::Rank;

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe<F> {
    latency_us: u64,
    bytes_per_s: u64,
    waiting: [VecDeque<(u64, F)>; 3],
    waiting_bytes: u64,
    busy_until_us: u64,
    last_arrival_us: u64,
    in_flight: u64,
    /// Once broken: how many of those in flight still arrive.
    left: Option<u64>,
}

impl<F> Pipe<F> {
    /// An empty pipe. `bytes_per_s` 0: no bound.
    #[must_use]
    pub fn new(latency_us: u64, bytes_per_s: u64) -> Self {
        Self {
            latency_us,
            bytes_per_s,
            waiting: Default::default(),
            waiting_bytes: 0,
            busy_until_us: 0,
            last_arrival_us: 0,
            in_flight: 0,
            left: None,
        }
    }
    /// Puts a frame into the sender's queue.
    pub fn push(&mut self, rank: Rank, bytes: u64, frame: F) {
        let [control, live, bulk] = &mut self.waiting;
        match rank {
            Rank::Control => control.push_back((bytes, frame)),
            Rank::Live => live.push_back((bytes, frame)),
            Rank::Bulk => bulk.push_back((bytes, frame)),
        }
        self.waiting_bytes += bytes;
    }
    /// The next frame that the socket takes now, and when it arrives.
    pub fn pull(&mut self, now_us: u64, jitter_us: u64) -> Option<(u64, F)> {
        if self.busy_until_us > now_us {
            return None;
        }
        let (bytes, frame) = self.waiting.iter_mut().find_map(VecDeque::pop_front)?;
        self.waiting_bytes -= bytes;
        self.busy_until_us = now_us + (bytes * 1_000_000).checked_div(self.bytes_per_s).unwrap_or(0);
        self.last_arrival_us = self.last_arrival_us.max(self.busy_until_us + self.latency_us + jitter_us);
        self.in_flight += 1;
        Some((self.last_arrival_us, frame))
    }
    /// When the socket takes another frame; `None` if none waits.
    #[must_use]
    pub fn next_pull_us(&self) -> Option<u64> {
        (self.waiting_bytes > 0 || self.waiting.iter().any(|queue| !queue.is_empty())).then_some(self.busy_until_us)
    }
    /// A frame reached the other end; false if it was lost with the connection.
    pub fn arrive(&mut self) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
    /// Throws away what waits at the sender.
    pub fn discard(&mut self) {
        self.waiting.iter_mut().for_each(VecDeque::clear);
        self.waiting_bytes = 0;
    }
    /// Breaks: of the frames in flight, `pick` says how many still arrive.
    pub fn cut(&mut self, pick: u64) {
        if self.left.is_none() {
            self.left = Some(pick % (self.in_flight + 1));
        }
    }
    /// Whether it has not broken.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.left.is_none()
    }
    /// Bytes that wait at the sender.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }
    /// When the last frame sent so far arrives.
    #[must_use]
    pub fn last_arrival_us(&self) -> u64 {
        self.last_arrival_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(pipe: &mut Pipe<u32>) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        while let Some(at) = pipe.next_pull_us() {
            out.extend(pipe.pull(at, 0));
        }
        out
    }

    /// Urgent frames overtake waiting ones, never those already sent; bandwidth spaces them.
    #[test]
    fn frames_leave_by_rank_at_the_speed_of_the_link() {
        let mut pipe = Pipe::new(10, 1_000_000);
        pipe.push(Rank::Bulk, 100, 1);
        assert_eq!(pipe.pull(0, 0), Some((110, 1)));
        pipe.push(Rank::Bulk, 100, 2);
        pipe.push(Rank::Live, 100, 3);
        pipe.push(Rank::Control, 100, 4);
        assert_eq!(pipe.pull(50, 0), None);
        assert_eq!(drain(&mut pipe), [(210, 4), (310, 3), (410, 2)]);
    }

    /// What arrives over a cut pipe is a prefix of what was in flight.
    #[test]
    fn a_cut_delivers_a_prefix() {
        for pick in 0..8 {
            let mut pipe = Pipe::new(10, 0);
            for frame in 0..3 {
                pipe.push(Rank::Live, 1, frame);
            }
            assert_eq!(drain(&mut pipe).len(), 3);
            assert!(pipe.arrive());
            pipe.cut(pick);
            pipe.push(Rank::Live, 1, 9);
            drain(&mut pipe);
            let arrived: Vec<bool> = (0..3).map(|_| pipe.arrive()).collect();
            assert_eq!(arrived.iter().filter(|arrived| **arrived).count() as u64, pick % 3);
            assert!(arrived.is_sorted_by(|before, after| before >= after));
        }
    }
}
