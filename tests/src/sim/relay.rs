//! The seam between the world and a relay's core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

/// One connection at one relay, never reused in a world.
pub type ConnId = u64;

/// Who connects.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The connection's public key.
    pub connection: ConnectionKey,
    /// Its device, as this relay knows it.
    pub device: RelayDevice,
    /// The audience that was dialled.
    pub audience: String,
    /// The challenge of this connection.
    pub nonce: [u8; 32],
}

/// What a relay wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// One frame to several connections.
    Send(Vec<ConnId>, ServerFrame),
    /// Close a connection after what was sent.
    Close(ConnId, &'static str),
}

/// A relay's core in the world.
pub trait Relay {
    /// A relay that just started.
    fn start(seed: [u8; 32]) -> Self;
    /// A connection was admitted.
    fn open(&mut self, now_ms: u64, conn: ConnId, hello: Hello);
    /// A frame came.
    fn frame(&mut self, now_ms: u64, conn: ConnId, frame: ClientFrame);
    /// A connection is gone.
    fn close(&mut self, now_ms: u64, conn: ConnId);
    /// Bytes that wait for a connection now, after some have left.
    fn drained(&mut self, now_ms: u64, conn: ConnId, waiting_bytes: u64);
    /// The next effect.
    fn poll(&mut self) -> Option<Effect>;
}

/// A room's members by connection, and nothing else: no proofs, no limits.
#[derive(Debug, Default)]
pub struct Fanout {
    seed: [u8; 32],
    conns: BTreeMap<ConnId, RelayDevice>,
    rooms: BTreeMap<RoomId, BTreeSet<ConnId>>,
    out: VecDeque<Effect>,
}

impl Fanout {
    fn peer(&self, conn: ConnId) -> Peer {
        let mut id = [0; 16];
        let (left, right) = id.split_at_mut(8);
        left.copy_from_slice(self.seed.first_chunk::<8>().unwrap_or(&[0; 8]));
        right.copy_from_slice(&conn.to_be_bytes());
        let device = self.conns.get(&conn).copied().unwrap_or(RelayDevice([0; 16]));
        Peer { peer: PeerId(id), device }
    }
    fn others(&self, room: &RoomId, conn: ConnId) -> Vec<ConnId> {
        self.rooms.get(room).into_iter().flatten().copied().filter(|other| *other != conn).collect()
    }
    fn leave(&mut self, room: RoomId, conn: ConnId) {
        if self.rooms.get_mut(&room).is_some_and(|members| members.remove(&conn)) {
            let frame = ServerFrame::PeerLeft { room, peer: self.peer(conn).peer };
            let to = self.others(&room, conn);
            self.out.push_back(Effect::Send(to, frame));
        }
    }
}

impl Relay for Fanout {
    fn start(seed: [u8; 32]) -> Self {
        Self { seed, ..Self::default() }
    }
    fn open(&mut self, _now_ms: u64, conn: ConnId, hello: Hello) {
        let older = self.conns.iter().find(|(_, device)| **device == hello.device).map(|(conn, _)| *conn);
        self.conns.insert(conn, hello.device);
        if let Some(older) = older {
            self.close(0, older);
            self.out.push_back(Effect::Close(older, "a newer connection of this device"));
        }
        let welcome = ServerFrame::Welcome {
            session_ms: 3_600_000,
            queue_bytes: 4 << 20,
            frame_bytes_max: 1 << 20,
            rooms_max: 64,
        };
        self.out.push_back(Effect::Send(vec![conn], welcome));
    }
    fn frame(&mut self, _now_ms: u64, conn: ConnId, frame: ClientFrame) {
        if !self.conns.contains_key(&conn) {
            return;
        }
        match frame {
            ClientFrame::Join { room, .. } => {
                let peers = self.others(&room, conn).into_iter().map(|other| self.peer(other)).collect();
                self.rooms.entry(room).or_default().insert(conn);
                let you = self.peer(conn);
                self.out.push_back(Effect::Send(vec![conn], ServerFrame::Joined { room, you: you.peer, peers }));
                let frame = ServerFrame::PeerJoined { room, peer: you };
                self.out.push_back(Effect::Send(self.others(&room, conn), frame));
            }
            ClientFrame::Leave { room } => self.leave(room, conn),
            ClientFrame::Publish { room, payload } => {
                let from = self.peer(conn).peer;
                let to = self.others(&room, conn);
                self.out.push_back(Effect::Send(to, ServerFrame::Deliver { room, from, payload }));
            }
            ClientFrame::Send { room, to, payload } => {
                let from = self.peer(conn).peer;
                let to = self.others(&room, conn).into_iter().filter(|other| self.peer(*other).peer == to).collect();
                self.out.push_back(Effect::Send(to, ServerFrame::Deliver { room, from, payload }));
            }
            ClientFrame::Prove { .. } | ClientFrame::Refresh { .. } => {}
            ClientFrame::Ping { number } => {
                self.out.push_back(Effect::Send(vec![conn], ServerFrame::Pong { number }));
            }
        }
    }
    fn close(&mut self, _now_ms: u64, conn: ConnId) {
        let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
        for room in rooms {
            self.leave(room, conn);
        }
        self.conns.remove(&conn);
    }
    fn drained(&mut self, _now_ms: u64, _conn: ConnId, _waiting_bytes: u64) {}
    fn poll(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }
}
