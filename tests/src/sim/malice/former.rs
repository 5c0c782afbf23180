//! What somebody who was removed can still say, and what they can still read.
//!
//! They have all they had: their keys, every epoch up to the removal, every envelope; and they hear what passes in the rooms
//! and lobbies that those epochs lead to. Invariant: everything here is made with that alone.
//! Spec: docs/simulation.md#former-members.

use bytes::Bytes;
use weft_agent_core::envelope::{Class, DirectKind, Kind, open_direct, open_head, open_lobby, seal_direct, seal_lobby};
use weft_agent_core::epoch::{Epoch, RoomKey};
use weft_agent_core::id::{EpochId, OpId, RootKey};
use weft_agent_core::identity::RootSecret;
use weft_agent_core::key_packet::{KeyPacket, recipients};
use weft_agent_core::lobby_message::LobbyMessage;
use weft_agent_core::message::Message;
use weft_agent_core::op::{OpBody, SignedOp, ops, ops_to_bytes};
use weft_agent_core::secret::Secret;
use weft_agent_core::store::{Read, Table, Write};
use weft_agent_core::time::Timestamp;
use weft_protocol::cbor::{from_bytes, to_bytes};

use super::{Lie, Malice, Said};
use crate::sim::dice::Dice;
use crate::sim::witness::markers;

/// Messages remembered, to say them again.
const HEARD_MAX: usize = 256;
/// Key packets remembered.
const PACKETS_MAX: usize = 64;

/// Somebody who was removed.
pub struct Former {
    malice: Malice,
    heard: Vec<Bytes>,
    packets: Vec<Bytes>,
}

/// What a message told somebody who was removed.
#[derive(Debug)]
pub enum Learnt {
    /// The op that made an epoch, and its keys.
    Keys(Box<SignedOp>, Box<Epoch>),
    /// Content, with these markers in it.
    Markers(Vec<usize>),
}

impl Former {
    /// From an identity file and the store as it was when they were removed.
    #[must_use]
    pub fn new(identity: &[u8], read: &dyn Read) -> Option<Self> {
        Some(Self { malice: Malice::new(identity, read)?, heard: Vec::new(), packets: Vec::new() })
    }

    /// Their means.
    #[must_use]
    pub fn malice(&self) -> &Malice {
        &self.malice
    }

    /// The rooms and lobbies that they can enter.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomKey> {
        let epochs = self.malice.keyring.epochs();
        epochs.flat_map(|epoch| [epoch.room().clone(), epoch.lobby().room]).take(48).collect()
    }

    /// Something was said where they are.
    pub fn hears(&mut self, payload: &Bytes) {
        self.packets.extend(self.packets_in(payload));
        self.heard.push(payload.clone());
        if self.heard.len() > HEARD_MAX {
            self.heard.remove(0);
        }
        if self.packets.len() > PACKETS_MAX {
            self.packets.remove(0);
        }
    }

    /// The key packets in a message, as far as it opens.
    fn packets_in(&self, payload: &Bytes) -> Option<Bytes> {
        let workspace = self.malice.set.workspace();
        match Class::of(payload)? {
            Class::Lobby => {
                let opened = |epoch: &std::sync::Arc<Epoch>| open_lobby(&workspace, &epoch.lobby(), payload);
                match from_bytes::<LobbyMessage>(&self.malice.keyring.epochs().find_map(opened)?).ok()? {
                    LobbyMessage::Keys(packet) => Some(packet),
                    LobbyMessage::Ask { .. } => None,
                }
            }
            Class::Ephemeral => {
                let head = open_head(&workspace, &self.malice.keyring, payload).ok()?;
                let body = self.malice.body_of(&head, payload)?;
                let message = Message::from_body(head.header.kind.to_byte(), &body)?.ok()?;
                if let Message::KeyPacket(packet) = message { Some(packet) } else { None }
            }
            Class::Direct => match open_direct(&workspace, self.malice.identity.device.kem_secret(), payload).ok()? {
                (DirectKind::Slot, packet) => Some(packet.into()),
                _ => None,
            },
            Class::Stored | Class::Piece => None,
        }
    }

    /// What a message tells them, wherever it was said.
    #[must_use]
    pub fn learns(&self, payload: &Bytes) -> Option<Learnt> {
        let workspace = self.malice.set.workspace();
        if let Some(packet) = self.packets_in(payload) {
            let mut kems: Vec<&Secret> = vec![self.malice.identity.device.kem_secret()];
            kems.extend(self.malice.identity.root.as_ref().map(RootSecret::kem_secret));
            let opened = KeyPacket::parse(&packet).ok()?.open(&workspace, &kems).ok()?;
            return Some(Learnt::Keys(Box::new(opened.op), Box::new(opened.epoch)));
        }
        let head = open_head(&workspace, &self.malice.keyring, payload).ok()?;
        let body = self.malice.body_of(&head, payload).filter(|_| head.header.kind == Kind::Content)?;
        Some(Learnt::Markers(markers(&body)))
    }

    /// The op that a write stores, if it removes this member.
    #[must_use]
    pub fn removes(&self, root: &RootKey, write: &Write) -> Option<OpId> {
        let row = write.value.as_ref().filter(|_| write.table == Table::Ops)?;
        self.removal(root, row)
    }

    fn removal(&self, root: &RootKey, row: &[u8]) -> Option<OpId> {
        let op = SignedOp::parse(&self.malice.set.workspace(), row).ok()?;
        matches!(op.body(), OpBody::Remove { root: gone, .. } if gone == root).then(|| op.id())
    }

    /// Whether a store holds an op that removes this member.
    #[must_use]
    pub fn is_removed_in(&self, root: &RootKey, read: &dyn Read) -> bool {
        let rows = read.scan(Table::Ops, &[], None, super::ROWS_MAX);
        rows.iter().any(|(_, row)| self.removal(root, row).is_some())
    }

    /// They got a key that is theirs to have: whoever made it did not know of the removal.
    pub fn holds(&mut self, epoch: Epoch) {
        self.malice.keyring.insert(epoch);
    }

    /// Some of what they go on saying.
    #[must_use]
    pub fn says(&self, now: Timestamp, dice: &mut Dice) -> Vec<Lie> {
        let mut said = Vec::new();
        for _ in 0..=dice.below(5) {
            match dice.below(10) {
                0 => said.extend(self.asks(dice)),
                1..=3 => said.extend(self.keys(now, dice)),
                4 | 5 => said.extend(self.again(dice)),
                6 => said.extend(self.notice(now, dice)),
                7 => said.extend(self.slot(now, dice)),
                _ => said.extend(self.malice.lie(now, dice)),
            }
        }
        said
    }

    fn epoch(&self, dice: &mut Dice) -> Option<&Epoch> {
        let epochs = self.malice.keyring.epochs();
        epochs.map(std::sync::Arc::as_ref).nth(dice.index(self.malice.keyring.len()))
    }

    fn in_lobby(&self, message: &LobbyMessage, dice: &mut Dice) -> Option<Lie> {
        let lobby = self.epoch(dice)?.lobby();
        let sealed = seal_lobby(&self.malice.set.workspace(), &lobby, &to_bytes(message), dice.rng())?;
        Some((lobby.room.id, Said::Sealed(sealed.into_bytes())))
    }

    /// Asks for keys.
    fn asks(&self, dice: &mut Dice) -> Option<Lie> {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(dice.bytes32().split_at(16).0);
        let epoch = match dice.below(3) {
            0 => EpochId([0; 16]),
            1 => EpochId(nonce),
            _ => self.epoch(dice)?.id(),
        };
        self.in_lobby(&LobbyMessage::Ask { nonce, epoch }, dice)
    }

    /// A key packet: one that was heard, one of an epoch of its own making, or one that holds something else.
    fn packet(&self, now: Timestamp, dice: &mut Dice) -> Option<Bytes> {
        if dice.chance(400)
            && let Some(packet) = self.packets.get(dice.index(self.packets.len()))
        {
            return Some(packet.clone());
        }
        let malice = &self.malice;
        let (op, epoch) = ops::epoch(&malice.author(now), &malice.state, &[&malice.epoch], dice.rng())?;
        let other = Epoch::generate(&malice.set.workspace(), dice.rng());
        let mut keys = recipients(&malice.state);
        keys.truncate(dice.index(keys.len() + 1));
        let wrapped = if dice.chance(500) { &other } else { &epoch };
        let mut packet = KeyPacket::make(wrapped, &keys, &op, dice.rng())?;
        if dice.chance(300) {
            packet.epoch = epoch.id();
        }
        Some(packet.to_bytes())
    }

    /// Keys, in a lobby or in an old room.
    fn keys(&self, now: Timestamp, dice: &mut Dice) -> Option<Lie> {
        let packet = self.packet(now, dice)?;
        if dice.chance(600) {
            return self.in_lobby(&LobbyMessage::Keys(packet), dice);
        }
        Some(self.malice.said(Message::KeyPacket(packet)))
    }

    /// What was heard, where it was said or elsewhere.
    fn again(&self, dice: &mut Dice) -> Option<Lie> {
        let payload = self.heard.get(dice.index(self.heard.len()))?.clone();
        let rooms = self.rooms();
        Some((rooms.get(dice.index(rooms.len()))?.id, Said::Sealed(payload)))
    }

    fn direct(&self, kind: DirectKind, message: &[u8], dice: &mut Dice) -> Option<Lie> {
        let devices: Vec<_> = self.malice.state.devices.values().collect();
        let kem = devices.get(dice.index(devices.len()))?.public.kem;
        let sealed = seal_direct(&self.malice.set.workspace(), kind, &kem, message, dice.rng())?;
        Some((self.malice.epoch.room().id, Said::Sealed(sealed.into_bytes())))
    }

    /// Tells somebody of ops: true ones, made-up ones, or none.
    fn notice(&self, now: Timestamp, dice: &mut Dice) -> Option<Lie> {
        let message = match dice.below(3) {
            0 => ops_to_bytes(self.malice.set.ops().collect::<Vec<_>>().into_iter()),
            1 => {
                let root = self.malice.set.genesis().root().sign;
                let by = self.malice.author(now);
                let parents = [&self.malice.epoch];
                let cut = weft_agent_core::op::Cut::default();
                let (op, _) = ops::remove(&by, &self.malice.state, root, cut, &parents, dice.rng())?;
                ops_to_bytes([&op].into_iter())
            }
            _ => dice.bytes32().to_vec(),
        };
        self.direct(DirectKind::Notice, &message, dice)
    }

    /// Hands somebody a key.
    fn slot(&self, now: Timestamp, dice: &mut Dice) -> Option<Lie> {
        let packet = self.packet(now, dice)?;
        self.direct(DirectKind::Slot, &packet, dice)
    }
}

/// Whether an op stands on one of these, as far as a store knows.
#[must_use]
pub fn stands_on(op: &SignedOp, removals: &[OpId], read: &dyn Read) -> bool {
    if removals.contains(&op.id()) {
        return true;
    }
    let workspace = op.workspace();
    let rows = read.scan(Table::Ops, &[], None, super::ROWS_MAX);
    let held = rows.iter().filter_map(|(_, row)| SignedOp::parse(workspace, row).ok());
    let known: std::collections::BTreeMap<OpId, Vec<OpId>> =
        held.map(|held| (held.id(), held.parents().to_vec())).collect();
    let (mut seen, mut todo) = (std::collections::BTreeSet::new(), op.parents().to_vec());
    while let Some(next) = todo.pop() {
        if removals.contains(&next) {
            return true;
        }
        if seen.insert(next) {
            todo.extend(known.get(&next).into_iter().flatten());
        }
    }
    false
}
