//! One room's tie to the other relays: our numbers, theirs, who is there, and when to speak again.
//!
//! Invariant: for every other relay the next number is known; another number than that is a gap, and a gap is always told
//! ([`Told::gap`]). Numbers that were seen are ignored. Spec: docs/protocol.md#several-relays.

use std::collections::BTreeMap;

use weft_protocol::frame::{Peer, PeerId};

use super::message::{Body, Message, NodeId, RemotePeer};
use super::{BEAT_MS, HELLO_MS, NODE_EXPIRES_MS, NODES_MAX, TAIL_BEAT_MS};

/// Another relay in this room.
#[derive(Debug)]
struct Remote {
    life: u32,
    next: u64,
    heard_ms: u64,
    peers: Vec<RemotePeer>,
}

/// What a message, or time, means for the members here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Messages are missing: members must reconcile.
    pub gap: bool,
    /// Peers that came in elsewhere.
    pub joined: Vec<Peer>,
    /// Peers that left elsewhere.
    pub left: Vec<PeerId>,
    /// A device that has just come in elsewhere.
    pub entered: Option<RemotePeer>,
    /// The sender asks who is here.
    pub answer: bool,
    /// A frame to pass on.
    pub frame: Option<Body>,
}

/// A room's tie to the other relays.
#[derive(Debug)]
pub struct Link {
    node: NodeId,
    life: u32,
    next: u64,
    nodes: BTreeMap<NodeId, Remote>,
    /// Until then relays that we hear first were there before us.
    hello_until_ms: u64,
    beat_at_ms: u64,
}

impl Link {
    /// A tie that nobody has answered yet. `life` is higher than in all ties of this relay to this room before.
    #[must_use]
    pub fn new(node: NodeId, life: u32, now_ms: u64) -> Self {
        Self { node, life, next: 0, nodes: BTreeMap::new(), hello_until_ms: 0, beat_at_ms: now_ms + BEAT_MS }
    }

    /// Numbers a message.
    fn number(&mut self, body: Body) -> Message {
        let message = Message { node: self.node, life: self.life, number: self.next, body };
        self.next += 1;
        message
    }

    /// A frame for the members elsewhere; `None` if there are none.
    pub fn frame(&mut self, now_ms: u64, body: Body) -> Option<Message> {
        if self.nodes.is_empty() {
            return None;
        }
        self.beat_at_ms = self.beat_at_ms.min(now_ms + TAIL_BEAT_MS);
        Some(self.number(body))
    }

    /// Says who is here, and puts the next beat off.
    pub fn peers(&mut self, now_ms: u64, peers: Vec<RemotePeer>, entered: Option<PeerId>, hello: bool) -> Message {
        if hello {
            self.hello_until_ms = now_ms + HELLO_MS;
        }
        self.beat_at_ms = now_ms + BEAT_MS;
        self.number(Body::Peers { peers, entered, hello })
    }

    /// The fabric was cut: everybody elsewhere is out of reach. What we send next shows the others that they missed something.
    pub fn cut(&mut self) -> Vec<PeerId> {
        self.next += 1;
        let nodes = core::mem::take(&mut self.nodes);
        nodes.into_values().flat_map(|remote| remote.peers).map(|p| p.peer.peer).collect()
    }

    /// A message of another relay. `peers_max` bounds the peers that are believed of one relay.
    pub fn receive(&mut self, now_ms: u64, message: Message, peers_max: usize) -> Told {
        let Message { node, life, number, body } = message;
        let mut told = Told::default();
        if node == self.node {
            return told;
        }
        match self.nodes.get_mut(&node) {
            None => {
                if self.nodes.len() >= NODES_MAX {
                    // Not listened to, hence not to be relied on.
                    return Told { gap: true, ..told };
                }
                // Who answers our hello is where it is; anybody else should have begun before our eyes.
                told.gap = number > 0 && now_ms >= self.hello_until_ms;
                self.nodes
                    .insert(node, Remote { life, next: number.saturating_add(1), heard_ms: now_ms, peers: Vec::new() });
            }
            Some(remote) => {
                if life < remote.life || (life == remote.life && number < remote.next) {
                    return told;
                }
                told.gap = if life == remote.life { number > remote.next } else { number > 0 };
                (remote.life, remote.next, remote.heard_ms) = (life, number.saturating_add(1), now_ms);
            }
        }
        match body {
            Body::Frame { .. } => told.frame = Some(body),
            Body::Peers { mut peers, entered, hello } => {
                peers.truncate(peers_max);
                let Some(remote) = self.nodes.get_mut(&node) else { return told };
                let has = |list: &[RemotePeer], peer: PeerId| list.iter().any(|p| p.peer.peer == peer);
                told.left = remote.peers.iter().map(|p| p.peer.peer).filter(|&p| !has(&peers, p)).collect();
                told.joined = peers.iter().map(|p| p.peer).filter(|p| !has(&remote.peers, p.peer)).collect();
                told.entered = peers.iter().find(|p| Some(p.peer.peer) == entered).copied();
                told.answer = hello;
                remote.peers = peers;
            }
        }
        told
    }

    /// Forgets relays that have been silent for too long; gives their peers.
    pub fn expire(&mut self, now_ms: u64) -> Vec<PeerId> {
        let mut left = Vec::new();
        self.nodes.retain(|_, remote| {
            let here = remote.heard_ms + NODE_EXPIRES_MS > now_ms;
            if !here {
                left.extend(remote.peers.iter().map(|p| p.peer.peer));
            }
            here
        });
        left
    }

    /// Puts the beat off without saying anything: nobody would hear it.
    pub fn put_off(&mut self, now_ms: u64) {
        self.beat_at_ms = now_ms + BEAT_MS;
    }

    /// Everybody elsewhere.
    pub fn elsewhere(&self) -> impl Iterator<Item = Peer> {
        self.nodes.values().flat_map(|remote| &remote.peers).map(|p| p.peer)
    }

    /// When a beat is due.
    #[must_use]
    pub fn beat_at_ms(&self) -> u64 {
        self.beat_at_ms
    }

    /// When to look for silent relays.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.nodes.values().map(|remote| remote.heard_ms + NODE_EXPIRES_MS).min()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use weft_protocol::id::RelayDevice;

    use super::*;

    const A: NodeId = NodeId([1; 8]);
    const B: NodeId = NodeId([2; 8]);

    fn frame() -> Body {
        Body::Frame { from: PeerId([1; 16]), to: None, payload: Bytes::new() }
    }

    /// Two relays that know each other.
    fn pair() -> (Link, Link) {
        let (mut a, mut b) = (Link::new(A, 0, 0), Link::new(B, 0, 0));
        let hello = a.peers(0, vec![], None, true);
        assert!(b.receive(0, hello, 50).answer);
        let answer = b.peers(0, vec![], None, false);
        assert!(!a.receive(0, answer, 50).gap);
        (a, b)
    }

    proptest! {
        /// Whatever is lost of what A says, B tells a gap by the next message that arrives, and tells none if nothing was lost.
        #[test]
        fn each_loss_is_told_by_the_next_message_that_arrives(lost in proptest::collection::vec(any::<bool>(), 1..50)) {
            let (mut a, mut b) = pair();
            let mut missing = false;
            for (at, lost) in lost.into_iter().enumerate() {
                let now_ms = 10_000 + at as u64;
                let message = if at % 3 == 0 { a.peers(now_ms, vec![], None, false) } else { a.frame(now_ms, frame()).unwrap() };
                if lost {
                    missing = true;
                } else {
                    prop_assert_eq!(b.receive(now_ms, message.clone(), 50).gap, missing);
                    missing = false;
                    // The same again changes nothing.
                    prop_assert_eq!(b.receive(now_ms, message, 50), Told::default());
                }
            }
        }
    }

    /// Whoever may publish may name any number; the last there is ends that node's life here, and nothing else.
    #[test]
    fn the_last_number_there_is_does_no_harm() {
        let mut b = Link::new(B, 0, 0);
        let last = |node| Message { node, life: u32::MAX, number: u64::MAX, body: frame() };
        assert!(b.receive(10_000, last(A), 50).gap);
        assert!(!b.receive(10_001, last(A), 50).gap);
        let (mut c, mut d) = pair();
        assert!(d.receive(10_000, last(A), 50).gap);
        assert_eq!(d.receive(10_001, c.peers(10_001, vec![], None, false), 50), Told::default());
    }

    #[test]
    fn the_last_frame_before_a_silence_is_followed_by_a_beat() {
        let (mut a, mut b) = pair();
        a.frame(100, frame()).unwrap();
        assert_eq!(a.beat_at_ms(), 100 + TAIL_BEAT_MS);
        let beat = a.peers(a.beat_at_ms(), vec![], None, false);
        assert!(b.receive(700, beat, 50).gap);
    }

    #[test]
    fn a_relay_that_was_cut_off_or_came_before_our_eyes_is_told_apart_from_one_that_was_here() {
        let (mut a, mut b) = pair();
        a.cut();
        let again = a.peers(5_000, vec![], None, true);
        assert!(b.receive(5_000, again, 50).gap);
        // Somebody new, from their first word: nothing was missed. From a later word: something was.
        let mut c = Link::new(NodeId([3; 8]), 0, 0);
        let first = c.peers(6_000, vec![], None, true);
        assert!(!b.receive(6_000, first, 50).gap);
        let mut d = Link::new(NodeId([4; 8]), 0, 0);
        d.peers(6_000, vec![], None, true);
        let second = d.peers(6_000, vec![], None, false);
        assert!(b.receive(6_000, second, 50).gap);
        // A new life of a relay begins again at 0.
        let mut c = Link::new(NodeId([3; 8]), 1, 0);
        let first = c.peers(7_000, vec![], None, true);
        assert!(!b.receive(7_000, first, 50).gap);
    }

    #[test]
    fn peers_come_leave_and_expire_with_their_relay() {
        let (mut a, mut b) = pair();
        let peer = |seed| Peer { peer: PeerId([seed; 16]), device: RelayDevice([seed; 16]) };
        let remote = |seed| RemotePeer { peer: peer(seed), identity: [seed; 16] };
        let told = b.receive(0, a.peers(0, vec![remote(1), remote(2)], Some(PeerId([2; 16])), false), 50);
        assert_eq!((told.joined, told.entered), (vec![peer(1), peer(2)], Some(remote(2))));
        let told = b.receive(0, a.peers(0, vec![remote(2), remote(3)], None, false), 50);
        assert_eq!((told.joined, told.left), (vec![peer(3)], vec![PeerId([1; 16])]));
        assert_eq!(b.elsewhere().count(), 2);
        assert_eq!(b.expires_ms(), Some(NODE_EXPIRES_MS));
        assert!(b.expire(NODE_EXPIRES_MS - 1).is_empty());
        assert_eq!(b.expire(NODE_EXPIRES_MS), vec![PeerId([2; 16]), PeerId([3; 16])]);
        assert!(b.frame(NODE_EXPIRES_MS, frame()).is_none());
    }
}
