//! Links, the rooms on them, and who was met there.
//!
//! Invariant: a room is asked for at most once a link, and only while something says it is wanted; a peer of a room is
//! tied to a device only by a verified envelope that came from it. Why: the relay's word about who is who proves nothing.
//! Spec: docs/sync.md#rooms.

use std::collections::BTreeMap;

use weft_protocol::admission::Audience;
use weft_protocol::frame::PeerId;
use weft_protocol::id::RoomId;

use crate::id::{DeviceId, EpochId, OpId};
use crate::workspace::input::{LinkId, LinkKind, LinkUp};

/// Bytes of bulk that may wait in the shell for one link.
pub(super) const BULK_QUEUED_BYTES_MAX: u64 = 256 * 1024;

/// Most peers in a room that are believed in: a relay may make up any number, and one that is honest admits fewer.
pub(super) const PEERS_MAX: usize = 256;

/// Why we are in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The members that hold this epoch meet here.
    Epoch(EpochId),
    /// Who holds this invite's link knocks here.
    Knock(OpId),
    /// Who missed epochs since this one asks here.
    Lobby(EpochId),
    /// Further devices of members ask here: at the door of this epoch, or of a pass.
    Door(Option<EpochId>),
}

/// Where a peer can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) link: LinkId,
    pub(super) room: RoomId,
    pub(super) peer: PeerId,
}

/// A room on one link.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) purpose: Purpose,
    pub(super) joined: bool,
    /// Our own name in it, as the relay gave it; every message says it.
    pub(super) you: PeerId,
    /// Peers, and their device once an envelope of theirs was verified.
    pub(super) peers: BTreeMap<PeerId, Option<DeviceId>>,
    /// Since when the question who holds what is open here, and how often it was asked.
    pub(super) ask: Option<Ask>,
    /// A refused join is asked for again then.
    pub(super) retry_mono: Option<u64>,
}

/// A question that not every peer of the room has answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) tries: u32,
    pub(super) next_mono: u64,
}

/// An open link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) up: LinkUp,
    pub(super) audience: Audience,
    pub(super) rooms: BTreeMap<RoomId, Room>,
    /// Bytes the shell still holds for this link, as far as we know.
    pub(super) queued_bytes: u64,
    /// Some peer stated what it holds, and nothing it holds was missing here at some moment since.
    pub(super) reconciled: bool,
}

/// All open links.
#[derive(Debug, Default)]
pub(super) struct Links(pub(super) BTreeMap<LinkId, Link>);

impl Links {
    pub(super) fn up(&mut self, up: LinkUp, audience: Audience) {
        let link = Link { rooms: BTreeMap::new(), queued_bytes: 0, reconciled: false, up, audience };
        self.0.insert(link.up.link, link);
    }

    pub(super) fn room_mut(&mut self, link: LinkId, room: &RoomId) -> Option<&mut Room> {
        self.0.get_mut(&link)?.rooms.get_mut(room)
    }

    pub(super) fn room(&self, link: LinkId, room: &RoomId) -> Option<&Room> {
        self.0.get(&link)?.rooms.get(room)
    }

    /// Ties a peer to a device. A peer that the relay said has left, or never said has come, is there if its device speaks.
    pub(super) fn identify(&mut self, route: Route, device: DeviceId) {
        let Some(room) = self.room_mut(route.link, &route.room).filter(|room| room.joined) else { return };
        if room.peers.len() < PEERS_MAX || room.peers.contains_key(&route.peer) {
            room.peers.insert(route.peer, Some(device));
        }
    }

    /// The best way to a device: not through a room that a removed device can be in, and LAN before relay.
    pub(super) fn route_to(&self, device: &DeviceId, left_behind: impl Fn(&EpochId) -> bool) -> Option<Route> {
        self.routes().filter(|(_, found)| *found == *device).map(|(route, _)| route).min_by_key(|route| {
            let relayed = self.0.get(&route.link).is_none_or(|link| link.up.kind == LinkKind::Relay);
            let purpose = self.room(route.link, &route.room).map(|room| room.purpose);
            let old = matches!(purpose, Some(Purpose::Epoch(epoch)) if left_behind(&epoch));
            (old, relayed, *route)
        })
    }

    /// Every identified peer of every epoch room.
    pub(super) fn routes(&self) -> impl Iterator<Item = (Route, DeviceId)> + '_ {
        self.0.iter().flat_map(|(link, state)| {
            state.rooms.iter().filter(|(_, room)| matches!(room.purpose, Purpose::Epoch(_))).flat_map(
                move |(room, state)| {
                    state.peers.iter().filter_map(move |(peer, device)| {
                        device.map(|device| (Route { link: *link, room: *room, peer: *peer }, device))
                    })
                },
            )
        })
    }

    /// The devices reachable now.
    pub(super) fn connected(&self) -> std::collections::BTreeSet<DeviceId> {
        self.routes().map(|(_, device)| device).collect()
    }

    /// Joined epoch rooms with somebody in them.
    pub(super) fn peopled_rooms(&self) -> Vec<(LinkId, RoomId, EpochId)> {
        let mut rooms = Vec::new();
        for (link, state) in &self.0 {
            for (id, room) in &state.rooms {
                if let Purpose::Epoch(epoch) = room.purpose
                    && room.joined
                    && !room.peers.is_empty()
                {
                    rooms.push((*link, *id, epoch));
                }
            }
        }
        rooms
    }

    /// Whether this route still leads somewhere.
    pub(super) fn is_live(&self, route: Route) -> bool {
        self.room(route.link, &route.room).is_some_and(|room| room.peers.contains_key(&route.peer))
    }
}
