//! Rooms entered and left, frames passed on.

use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame, deliver};
use weft_protocol::id::RoomId;
use weft_protocol::limits::JOINED_PEERS_MAX;

use super::{NOT_ON_LISTS, Relay};
use crate::checked::Verdict;
use crate::io::ConnId;
use crate::room::Entered;

const NOT_IN_ROOM: &str = "join the room first";

impl Relay {
    pub(super) fn frame(&mut self, conn: ConnId, frame: ClientFrame, verdict: Verdict) {
        match frame {
            ClientFrame::Prove { .. } => self.refuse(conn, Code::Malformed, None, "Prove is sent once"),
            ClientFrame::Join { room, .. } => self.join(conn, room, verdict),
            ClientFrame::Leave { room } => {
                if self.connections.get_mut(&conn).is_some_and(|c| c.rooms.remove(&room)) {
                    self.leave_room(conn, room);
                } else {
                    self.refuse(conn, Code::NotInRoom, Some(room), NOT_IN_ROOM);
                }
            }
            ClientFrame::Publish { room, payload } => {
                let Some((from, others)) = self.rooms.others(&room, conn) else {
                    return self.refuse(conn, Code::NotInRoom, Some(room), NOT_IN_ROOM);
                };
                self.send_elsewhere(room, from, None, &payload);
                if !others.is_empty() {
                    self.figures.delivered += others.len() as u64;
                    self.fan_out(deliver(&room, &from, &payload), others);
                }
            }
            ClientFrame::Send { room, to, payload } => match self.rooms.one(&room, conn, &to) {
                None => self.refuse(conn, Code::NotInRoom, Some(room), NOT_IN_ROOM),
                Some((from, None)) if self.send_elsewhere(room, from, Some(to), &payload) => {}
                Some((_, None)) => self.refuse(conn, Code::NoSuchPeer, Some(room), "that peer has left the room"),
                Some((from, Some(receiver))) => {
                    self.figures.delivered += 1;
                    self.send(receiver, deliver(&room, &from, &payload));
                }
            },
            ClientFrame::Refresh { token } => self.refresh(conn, token),
            ClientFrame::Ping { number } => self.send(conn, ServerFrame::Pong { number }.encode()),
        }
    }

    fn join(&mut self, conn: ConnId, room: RoomId, verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if self.draining {
            let message = "the relay is about to stop: connect again later or elsewhere";
            return self.refuse(conn, Code::Draining, Some(room), message);
        }
        if !self.lists.admit(&connection.admission.identity) {
            return self.refuse(conn, Code::NotAllowed, Some(room), NOT_ON_LISTS);
        }
        match verdict {
            Verdict::Good => {}
            Verdict::RoomKey => {
                let message = "the room id is not the hash of the room key";
                return self.refuse(conn, Code::BadRoomProof, Some(room), message);
            }
            Verdict::BadProof | Verdict::WrongAudience => {
                let message = "the room proof does not verify for this audience, nonce and connection";
                return self.refuse(conn, Code::BadRoomProof, Some(room), message);
            }
        }
        if !connection.rooms.contains(&room) && connection.rooms.len() >= self.settings.rooms_per_connection_max {
            let message = "this connection is in as many rooms as it may: leave one first";
            return self.refuse(conn, Code::TooManyRooms, Some(room), message);
        }
        let inside = self.rooms.members(&room).iter().any(|member| member.conn == conn);
        connection.rooms.insert(room);
        if inside || !self.waits_for_fabric(conn, room) {
            self.enter(conn, room);
        }
    }

    /// Puts a connection into a room whose proof it gave, and tells everybody.
    pub(super) fn enter(&mut self, conn: ConnId, room: RoomId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let (identity, device) = (connection.admission.identity, connection.admission.device);
        let elsewhere = self.fabric.as_ref().map(|fabric| fabric.elsewhere(&room)).unwrap_or_default();
        let draws = &mut self.draws;
        let name = || PeerId(draws.half());
        // Soft across relays: two joins at two relays in the same moment may both find the last place.
        let places = self.settings.room_peers_max.max(1).saturating_sub(elsewhere.len());
        match self.rooms.enter(room, conn, identity, device, (places, self.now_ms), name) {
            Entered::Full => {
                connection.rooms.remove(&room);
                let message = "the room holds as many peers as this relay allows";
                self.refuse(conn, Code::RoomFull, Some(room), message);
                self.look_for_emptiness(room);
            }
            Entered::In { you, others, replaced, again } => {
                let conns: Vec<ConnId> = others.iter().map(|m| m.conn).collect();
                let peers = others.iter().map(|m| m.peer).chain(elsewhere).take(JOINED_PEERS_MAX).collect();
                self.send(conn, ServerFrame::Joined { room, you, peers }.encode());
                if let Some(old) = replaced {
                    if let Some(older) = self.connections.get_mut(&old.conn) {
                        older.rooms.remove(&room);
                    }
                    let message = "a newer connection of this device took the place in the room";
                    self.refuse(old.conn, Code::Replaced, Some(room), message);
                    self.fan_out(ServerFrame::PeerLeft { room, peer: old.peer.peer }.encode(), conns.clone());
                }
                if !again {
                    let peer = Peer { peer: you, device };
                    self.fan_out(ServerFrame::PeerJoined { room, peer }.encode(), conns);
                    self.announce(room, Some(you), false);
                }
            }
        }
    }

    pub(super) fn leave_room(&mut self, conn: ConnId, room: RoomId) {
        if let Some((peer, others)) = self.rooms.leave(&room, conn) {
            self.fan_out(ServerFrame::PeerLeft { room, peer }.encode(), others);
            self.announce(room, None, false);
        }
        self.look_for_emptiness(room);
    }
}
