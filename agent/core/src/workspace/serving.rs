//! Serving what peers ask for, within the credit they granted and what the socket takes.
//!
//! Invariant: nothing is read from the store before there is room for it in the link's queue; what is remembered of a
//! request is bounded. Envelopes of one request share frames, because a relay counts frames. Spec: docs/sync.md#pulling.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use weft_protocol::frame::ClientFrame;

use super::Workspace;
use super::links::{BULK_QUEUED_BYTES_MAX, Route};
use super::output::Rank;
use super::pulls::Nonce;
use crate::envelope::{SEVERAL_BYTES, SEVERAL_MAX, join_several};
use crate::frontier::Range;
use crate::id::{PieceId, Place};
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// Requests remembered in all; the oldest goes first.
const REQUESTS_MAX: usize = 512;
/// Pieces owed to one peer.
const PIECES_OWED_MAX: usize = 256;
/// A request nobody has granted credit to for this long is forgotten.
const IDLE_MS: u64 = 120_000;

#[derive(Debug)]
struct Request {
    route: Route,
    ranges: VecDeque<Range>,
    credit: u64,
    touched_mono: u64,
}

/// What peers asked for and did not get yet.
#[derive(Debug, Default)]
pub(super) struct Serving {
    requests: BTreeMap<(Route, Nonce), Request>,
    pieces: BTreeMap<Route, VecDeque<PieceId>>,
}

/// The next thing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// An envelope.
    Envelope(Place),
    /// A piece.
    Piece(PieceId),
}

impl Serving {
    /// A peer asks for ranges, or grants more credit to what it asked.
    pub(super) fn credit(&mut self, now: u64, route: Route, nonce: Nonce, ranges: Vec<Range>, credit: u64) {
        let key = (route, nonce);
        if let Some(request) = self.requests.get_mut(&key) {
            request.credit = request.credit.saturating_add(credit);
            request.touched_mono = now;
            return;
        }
        if ranges.is_empty() {
            return;
        }
        if self.requests.len() >= REQUESTS_MAX {
            let oldest = self.requests.iter().min_by_key(|(_, request)| request.touched_mono).map(|(key, _)| *key);
            oldest.and_then(|key| self.requests.remove(&key));
        }
        self.requests.insert(key, Request { route, ranges: ranges.into(), credit, touched_mono: now });
    }

    /// A peer wants a piece that we hold.
    pub(super) fn want(&mut self, route: Route, piece: PieceId) {
        let owed = self.pieces.entry(route).or_default();
        if owed.len() < PIECES_OWED_MAX && !owed.contains(&piece) {
            owed.push_back(piece);
        }
    }

    /// What is due next on a link, envelopes of the request touched longest ago first, then pieces. `taken` must be
    /// called with its size.
    pub(super) fn next(&self, is_due: impl Fn(Route) -> bool) -> Option<(Route, Nonce, Due)> {
        let request = self
            .requests
            .iter()
            .filter(|(_, request)| request.credit > 0 && is_due(request.route))
            .min_by_key(|((_, nonce), request)| (request.touched_mono, *nonce));
        if let Some(((route, nonce), request)) = request {
            let range = request.ranges.front()?;
            return Some((*route, *nonce, Due::Envelope(Place { chain: range.chain, seq: range.from })));
        }
        let (route, owed) = self.pieces.iter().find(|(route, owed)| !owed.is_empty() && is_due(**route))?;
        Some((*route, [0; 16], Due::Piece(*owed.front()?)))
    }

    /// The next envelope of the same request, if there is credit for it.
    fn more(&self, route: Route, nonce: Nonce) -> Option<Due> {
        let request = self.requests.get(&(route, nonce)).filter(|request| request.credit > 0)?;
        let range = request.ranges.front()?;
        Some(Due::Envelope(Place { chain: range.chain, seq: range.from }))
    }

    /// What `next` named was sent with this many bytes (0: it is not here and was skipped).
    pub(super) fn taken(&mut self, now: u64, route: Route, nonce: Nonce, due: Due, bytes: u64) {
        match due {
            Due::Piece(_) => {
                if let Some(owed) = self.pieces.get_mut(&route) {
                    owed.pop_front();
                    if owed.is_empty() {
                        self.pieces.remove(&route);
                    }
                }
            }
            Due::Envelope(_) => {
                let Some(request) = self.requests.get_mut(&(route, nonce)) else { return };
                request.credit = request.credit.saturating_sub(bytes);
                request.touched_mono = now;
                let finished = match request.ranges.front_mut() {
                    Some(range) if range.from < range.to => {
                        range.from += 1;
                        false
                    }
                    Some(_) => {
                        request.ranges.pop_front();
                        request.ranges.is_empty()
                    }
                    None => true,
                };
                if finished {
                    self.requests.remove(&(route, nonce));
                }
            }
        }
    }

    /// Forgets requests of peers that are gone, and those left alone for long.
    pub(super) fn tidy(&mut self, now: u64, is_live: impl Fn(Route) -> bool) {
        self.requests.retain(|_, request| is_live(request.route) && now < request.touched_mono + IDLE_MS);
        self.pieces.retain(|route, _| is_live(*route));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.pieces.is_empty()
    }
}

impl Workspace {
    /// What of these ranges is here: nobody makes us look for what we never held.
    pub(super) fn servable(&self, ranges: Vec<Range>, read: &dyn Read) -> Vec<Range> {
        let here = ranges.into_iter().map(|range| {
            let from = range.from.max(self.chain_start(&range.chain, read).0);
            Range { from, to: range.to.min(self.frontier.seq(&range.chain)), ..range }
        });
        here.filter(|range| range.from <= range.to).collect()
    }

    /// Sends what is due, link by link, while there is room.
    pub(super) fn serve(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.serving.is_empty() || self.paused {
            return;
        }
        let full = |links: &super::links::Links, route: Route| {
            links.0.get(&route.link).is_none_or(|link| link.queued_bytes >= BULK_QUEUED_BYTES_MAX)
        };
        loop {
            let links = &self.links;
            let Some((route, nonce, due)) = self.serving.next(|route| links.is_live(route) && !full(links, route))
            else {
                break;
            };
            match due {
                Due::Piece(piece) => {
                    let payload = tx.get(Table::Pieces, &piece.0);
                    let size = payload.as_ref().map_or(0, |payload| payload.len() as u64);
                    self.serving.taken(now.mono_ms, route, nonce, due, size);
                    if let Some(payload) = payload {
                        self.send_bulk(route, payload);
                    }
                }
                Due::Envelope(_) => self.serve_envelopes(now, route, nonce, due, tx),
            }
        }
    }
    /// Sends what is due of one request, as much of it as fits one frame.
    fn serve_envelopes(&mut self, now: Timestamp, route: Route, nonce: Nonce, first: Due, tx: &Tx<'_>) {
        let (mut envelopes, mut bytes) = (Vec::new(), 0);
        let mut due = Some(first);
        while let Some(Due::Envelope(place)) = due {
            let payload = tx.get(Table::Envelopes, &place.to_bytes());
            let size = payload.as_ref().map_or(0, Bytes::len);
            if !envelopes.is_empty() && bytes + size > SEVERAL_BYTES {
                break;
            }
            self.serving.taken(now.mono_ms, route, nonce, Due::Envelope(place), size as u64);
            bytes += size;
            envelopes.extend(payload);
            if envelopes.len() == SEVERAL_MAX {
                break;
            }
            due = self.serving.more(route, nonce);
        }
        match envelopes.as_slice() {
            [] => {}
            [one] => self.send_bulk(route, one.clone()),
            several => self.send_bulk(route, join_several(several)),
        }
    }

    fn send_bulk(&mut self, route: Route, payload: Bytes) {
        let frame = ClientFrame::Send { room: route.room, to: route.peer, payload };
        self.send(route.link, Rank::Bulk, frame);
    }
}
