//! Who is in which room.
//!
//! Invariant: a room exists while somebody is in it; a (DID, device) is in it once, the newest connection wins; a
//! peer's name is never used again. Rooms know nothing of each other, so this part can be split by room id.
//! Spec: docs/protocol.md#rooms.

use std::collections::BTreeMap;

use weft_protocol::frame::{Peer, PeerId};
use weft_protocol::id::{RelayDevice, RoomId};

use crate::io::ConnId;

/// One connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its connection.
    pub conn: ConnId,
    /// Hash of its DID.
    pub identity: [u8; 32],
    /// Its name and device.
    pub peer: Peer,
    /// When it came in, in milliseconds of the machine's clock.
    pub since_ms: u64,
}

/// How entering went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// In, perhaps in the place of an older connection of the same device.
    In {
        /// Our name.
        you: PeerId,
        /// Everybody else, for `Joined`.
        others: Vec<Member>,
        /// The older connection that is out now.
        replaced: Option<Member>,
        /// It was in already: nobody needs to be told.
        again: bool,
    },
    /// As many as may be.
    Full,
}

/// All rooms of a relay.
#[derive(Debug, Default)]
pub struct Rooms {
    // At most 50 members: a scan of a Vec is quicker than a tree, and order of arrival is what `Joined` lists.
    rooms: BTreeMap<RoomId, Vec<Member>>,
}

impl Rooms {
    /// Enters `conn`; `name` is called for a fresh peer id only if one is needed.
    pub fn enter(
        &mut self,
        room: RoomId,
        conn: ConnId,
        identity: [u8; 32],
        device: RelayDevice,
        (peers_max, now_ms): (usize, u64),
        name: impl FnOnce() -> PeerId,
    ) -> Entered {
        let members = self.rooms.entry(room).or_default();
        let others = |members: &[Member]| members.iter().filter(|m| m.conn != conn).copied().collect();
        if let Some(here) = members.iter().find(|m| m.conn == conn) {
            return Entered::In { you: here.peer.peer, others: others(members), replaced: None, again: true };
        }
        let older = members.iter().position(|m| m.identity == identity && m.peer.device == device);
        let replaced = older.map(|at| members.remove(at));
        if replaced.is_none() && members.len() >= peers_max {
            if members.is_empty() {
                self.rooms.remove(&room);
            }
            return Entered::Full;
        }
        let you = name();
        let others = others(members);
        members.push(Member { conn, identity, peer: Peer { peer: you, device }, since_ms: now_ms });
        Entered::In { you, others, replaced, again: false }
    }

    /// Takes `conn` out; gives its name there and who is left.
    pub fn leave(&mut self, room: &RoomId, conn: ConnId) -> Option<(PeerId, Vec<ConnId>)> {
        let members = self.rooms.get_mut(room)?;
        let at = members.iter().position(|m| m.conn == conn)?;
        let gone = members.remove(at);
        let left = members.iter().map(|m| m.conn).collect();
        if members.is_empty() {
            self.rooms.remove(room);
        }
        Some((gone.peer.peer, left))
    }

    /// The name of `conn` in a room and everybody else there; `None` if it is not in it.
    #[must_use]
    pub fn others(&self, room: &RoomId, conn: ConnId) -> Option<(PeerId, Vec<ConnId>)> {
        let members = self.rooms.get(room)?;
        let mut from = None;
        let mut others = Vec::with_capacity(members.len());
        for member in members {
            if member.conn == conn {
                from = Some(member.peer.peer);
            } else {
                others.push(member.conn);
            }
        }
        from.map(|from| (from, others))
    }

    /// The name of `conn` in a room, and the connection of `to` there.
    #[must_use]
    pub fn one(&self, room: &RoomId, conn: ConnId, to: &PeerId) -> Option<(PeerId, Option<ConnId>)> {
        let members = self.rooms.get(room)?;
        let from = members.iter().find(|m| m.conn == conn)?.peer.peer;
        Some((from, members.iter().find(|m| m.peer.peer == *to).map(|m| m.conn)))
    }

    /// Who is in a room.
    #[must_use]
    pub fn members(&self, room: &RoomId) -> &[Member] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }

    /// Rooms and who is in them, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&RoomId, &[Member])> {
        self.rooms.iter().map(|(room, members)| (room, members.as_slice()))
    }

    /// How many rooms there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}
