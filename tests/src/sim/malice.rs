//! What a member who lies can say: made with its own keys, from its own store.
//!
//! Invariant: everything here is signed and sealed by the liar alone; nobody else's key is used. Why: what others can say
//! without a key is the lying relay's part. Spec: docs/simulation.md#hostile-members.

pub mod former;
pub mod poison;

use std::sync::Arc;

use bytes::Bytes;
use weft_agent_core::content::{Content, Item};
use weft_agent_core::envelope::{Draft, Kind, OpenHead, open_head, seal, spoken_by};
use weft_agent_core::epoch::Epoch;
use weft_agent_core::files::inspect_change;
use weft_agent_core::frontier::{Frontier, Tip};
use weft_agent_core::id::{ChainId, ChangeHash, Link, OpId, RootKey};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::key_packet::KeyPacket;
use weft_agent_core::keyring::{Keyring, Sealing};
use weft_agent_core::membership::{Membership, OpSet, Role, evaluate};
use weft_agent_core::message::{Message, Statement};
use weft_agent_core::op::{Cut, Genesis, OpBody, SignedOp, ops};
use weft_agent_core::store::{Read, Table};
use weft_agent_core::time::Timestamp;
use weft_protocol::cbor::{Writer, from_bytes};
use weft_protocol::frame::PeerId;
use weft_protocol::id::RoomId;

use super::dice::Dice;

/// Rows read of any table.
const ROWS_MAX: usize = 4096;

/// A liar's means.
pub struct Malice {
    identity: LocalIdentity,
    set: OpSet,
    state: Arc<Membership>,
    keyring: Keyring,
    epoch: Epoch,
    /// What it sealed itself, in order, with the bytes.
    own: Vec<(OpenHead, Bytes)>,
    /// What others sealed.
    others: Vec<(OpenHead, Bytes)>,
}

/// A lie, and the room it is told in.
pub type Lie = (RoomId, Said);

/// What is said in a room.
#[derive(Debug, Clone)]
pub enum Said {
    /// As it is.
    Sealed(Bytes),
    /// To be signed and sealed under this epoch for whoever says it: a message names its speaker.
    Message(Box<Epoch>, Message),
}

impl Malice {
    /// From an identity file and a store; `None` before its owner is in.
    #[must_use]
    pub fn new(identity: &[u8], read: &dyn Read) -> Option<Self> {
        let identity = LocalIdentity::from_bytes(identity).ok()?;
        let set = ops_in(read)?;
        let workspace = set.workspace();
        let rows = |table| read.scan(table, &[], None, ROWS_MAX).into_iter().map(|(_, row)| row);
        let mut keyring = Keyring::new();
        for row in rows(Table::Epochs) {
            keyring.insert(Epoch::from_bytes(&workspace, &row).ok()?);
        }
        let state = evaluate(&set);
        let Sealing::Under(id) = keyring.sealing(&state) else { return None };
        let epoch = keyring.get(&id)?.as_ref().clone();
        let device = identity.device.id();
        let heads = rows(Table::Envelopes).filter_map(|row| Some((open_head(&workspace, &keyring, &row).ok()?, row)));
        let (own, others) = heads.partition(|(head, _): &(OpenHead, Bytes)| head.header.chain.device == device);
        Some(Self { identity, set, state, keyring, epoch, own, others })
    }

    /// One lie, or none if it has nothing to lie with yet.
    #[must_use]
    pub fn lie(&self, now: Timestamp, dice: &mut Dice) -> Vec<Lie> {
        let sealed = match dice.below(10) {
            0 | 1 => self.twice(dice),
            2 => self.again(dice),
            3 => self.backdated(dice),
            4 => self.powers(now, dice),
            5 => self.nonsense(dice),
            6 => return self.boasts(dice).into_iter().collect(),
            7 => return self.wrong_keys(now, dice).into_iter().collect(),
            8 => self.damaged(dice),
            _ => self.slander(now, dice),
        };
        let room = self.epoch.room().id;
        sealed.into_iter().map(|payload| (room, Said::Sealed(payload))).collect()
    }

    fn tip(&self) -> Option<&(OpenHead, Bytes)> {
        self.own.iter().max_by_key(|(head, _)| (head.header.chain.incarnation, head.header.seq))
    }

    fn next(&self) -> (ChainId, u64, Link) {
        let first = ChainId { device: self.identity.device.id(), incarnation: 1 };
        self.tip().map_or((first, 1, Link([0; 32])), |(head, _)| (head.header.chain, head.header.seq + 1, head.link))
    }

    fn sealed(
        &self,
        kind: Kind,
        (chain, seq, prev): (ChainId, u64, Link),
        op_heads: Vec<OpId>,
        body: &[u8],
        dice: &mut Dice,
    ) -> Option<Bytes> {
        let changes = changes_of(body);
        let draft = Draft { kind, epoch: &self.epoch, chain, seq, prev, op_heads, body, leaf_changes: &changes };
        let sealed = seal(draft, &self.set.workspace(), &self.identity.device, dice.rng()).ok()?;
        Some(sealed.sealed.bytes().clone())
    }

    fn heads(&self) -> Vec<OpId> {
        let mut heads = self.set.heads();
        heads.truncate(8);
        heads
    }

    /// The plain body of something held.
    fn some_body(&self, of: &[(OpenHead, Bytes)], dice: &mut Dice) -> Option<(Kind, Vec<u8>)> {
        let (head, bytes) = of.get(dice.index(of.len()))?;
        Some((head.header.kind, self.body_of(head, bytes)?))
    }

    fn body_of(&self, head: &OpenHead, bytes: &[u8]) -> Option<Vec<u8>> {
        let public = self.state.devices.get(&head.header.chain.device)?.public;
        head.clone().verify(&public).ok()?.open_body(&self.keyring, bytes).ok()
    }

    /// A second envelope for the last place, or for some place before.
    fn twice(&self, dice: &mut Dice) -> Option<Bytes> {
        let (place, _) = if dice.chance(600) { self.tip()? } else { self.own.get(dice.index(self.own.len()))? };
        let (_, body) = self.some_body(&self.own, dice)?;
        let at = (place.header.chain, place.header.seq, place.header.prev);
        self.sealed(Kind::Content, at, self.heads(), &body, dice)
    }

    /// What it, or somebody else, said before, as its next words.
    fn again(&self, dice: &mut Dice) -> Option<Bytes> {
        let of = if dice.chance(500) { &self.own } else { &self.others };
        let (kind, body) = self.some_body(of, dice)?;
        self.sealed(kind, self.next(), self.heads(), &body, dice)
    }

    /// As if it knew less than it does.
    fn backdated(&self, dice: &mut Dice) -> Option<Bytes> {
        let (_, body) = self.some_body(&self.own, dice)?;
        self.sealed(Kind::Content, self.next(), vec![self.set.genesis().op_id()], &body, dice)
    }

    /// Powers that it does not have.
    fn powers(&self, now: Timestamp, dice: &mut Dice) -> Option<Bytes> {
        let by = self.author(now);
        let state = &self.state;
        let founder: RootKey = self.set.genesis().root().sign;
        let own: RootKey = self.identity.root_public.sign;
        let parents: Vec<&Epoch> = vec![&self.epoch];
        let op = match dice.below(4) {
            0 => by.sign(OpBody::Role { root: own, role: Role::Owner, cut: Cut::default(), epoch: None }),
            1 => ops::remove(&by, state, founder, Cut::default(), &parents, dice.rng())?.0,
            2 => ops::role(&by, state, founder, Role::Reader, Cut::default(), &parents, dice.rng())?.0,
            _ => {
                let secret = weft_agent_core::invite::InviteSecret::generate(dice.rng());
                ops::invite(&by, &secret, Role::Owner, now.wall_ms + 1_000_000, 100, false)
            }
        };
        let mut body = Writer::new();
        body.array(1).bytes(op.bytes());
        self.sealed(Kind::Ops, self.next(), self.heads(), &body.into_bytes(), dice)
    }

    /// Bodies that mean nothing.
    fn nonsense(&self, dice: &mut Dice) -> Option<Bytes> {
        let body = match dice.below(4) {
            0 => dice.bytes32().to_vec(),
            // Says that a million documents follow.
            1 => vec![0x9a, 0, 0x0f, 0xff, 0xff],
            // Compresses well.
            2 => vec![0x81; 700_000],
            _ => Vec::new(),
        };
        let kind = if dice.chance(700) { Kind::Content } else { Kind::Ops };
        self.sealed(kind, self.next(), self.heads(), &body, dice)
    }

    /// Says that it holds what nobody ever sealed, of its own chain or of others'.
    fn boasts(&self, dice: &mut Dice) -> Option<Lie> {
        let mut frontier = Frontier::default();
        let held: Vec<ChainId> = self.own.iter().chain(&self.others).map(|(head, _)| head.header.chain).collect();
        for _ in 0..=dice.below(6) {
            let some = held.get(dice.index(held.len())).copied();
            let chain = match dice.below(3) {
                0 => ChainId { incarnation: 1 + dice.below(80), ..some? },
                1 => some?.branch(&Link(dice.bytes32())),
                _ => some?,
            };
            frontier.advance(chain, Tip { seq: 1 + dice.below(1 << 40), link: Link(dice.bytes32()) });
        }
        let statement =
            Statement { epoch: self.epoch.id(), digest: frontier.digest(), frontier: Some(frontier), lacks: 0 };
        Some(self.said(Message::Beacon { statement, lan: Vec::new(), relays: Vec::new() }))
    }

    /// A key for everybody whose slots hold something else, or that leaves people out.
    fn wrong_keys(&self, now: Timestamp, dice: &mut Dice) -> Option<Lie> {
        let state = &self.state;
        let by = self.author(now);
        let (op, epoch) = ops::epoch(&by, state, &[&self.epoch], dice.rng())?;
        let other = Epoch::generate(&self.set.workspace(), dice.rng());
        let mut keys = weft_agent_core::key_packet::recipients(state);
        let wrapped = if dice.chance(500) { &other } else { &epoch };
        keys.truncate(dice.index(keys.len() + 1));
        let packet = KeyPacket::make(wrapped, &keys, &op, dice.rng())?;
        Some(self.said(Message::KeyPacket(packet.to_bytes())))
    }

    /// Something that it holds, with a byte changed.
    fn damaged(&self, dice: &mut Dice) -> Option<Bytes> {
        let all: Vec<&Bytes> = self.own.iter().chain(&self.others).map(|(_, bytes)| bytes).collect();
        let mut bytes = all.get(dice.index(all.len()))?.to_vec();
        let at = dice.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << dice.below(8);
        }
        Some(bytes.into())
    }

    /// A proof that somebody else signed twice, which is none.
    fn slander(&self, now: Timestamp, dice: &mut Dice) -> Option<Bytes> {
        let (one, _) = self.others.get(dice.index(self.others.len()))?;
        let (other, _) = self.others.get(dice.index(self.others.len()))?;
        let state = &self.state;
        let headers = [one.signed_header(), other.signed_header()];
        let (op, _) = ops::fork(&self.author(now), state, headers, Cut::default(), &[&self.epoch], dice.rng())?;
        let mut body = Writer::new();
        body.array(1).bytes(op.bytes());
        self.sealed(Kind::Ops, self.next(), self.heads(), &body.into_bytes(), dice)
    }

    fn author(&self, now: Timestamp) -> ops::Author<'_> {
        ops::Author {
            workspace: self.set.workspace(),
            parents: self.set.heads(),
            signer: weft_agent_core::op::OpSigner::Device(&self.identity.device),
            wall_ms: now.wall_ms,
        }
    }

    /// In the room of the epoch that is sealed under.
    fn said(&self, message: Message) -> Lie {
        (self.epoch.room().id, Said::Message(Box::new(self.epoch.clone()), message))
    }

    /// What is said, as whoever has this name in the room says it.
    #[must_use]
    pub fn says_as(&self, peer: PeerId, said: &Said, dice: &mut Dice) -> Option<Bytes> {
        let (epoch, message) = match said {
            Said::Sealed(bytes) => return Some(bytes.clone()),
            Said::Message(epoch, message) => (epoch, message),
        };
        let chain = ChainId { device: self.identity.device.id(), incarnation: 1 };
        let (body, prev) = (message.to_body(), spoken_by(peer));
        let (kind, op_heads) = (Kind::from_byte(message.kind()), self.heads());
        let draft = Draft { kind, epoch, chain, seq: 0, prev, op_heads, body: &body, leaf_changes: &[] };
        let sealed = seal(draft, &self.set.workspace(), &self.identity.device, dice.rng()).ok()?;
        Some(sealed.sealed.bytes().clone())
    }
}

/// What a store says of the membership.
fn ops_in(read: &dyn Read) -> Option<OpSet> {
    let mut set = OpSet::new(Genesis::parse(&read.get(Table::Meta, b"genesis")?).ok()?);
    for (_, row) in read.scan(Table::Ops, &[], None, ROWS_MAX) {
        set.insert(SignedOp::parse(&set.workspace(), &row).ok()?).ok()?;
    }
    Some(set)
}

/// Whether somebody is a member, as a store has it.
#[must_use]
pub fn is_member_in(root: &RootKey, read: &dyn Read) -> bool {
    ops_in(read).is_some_and(|set| evaluate(&set).members.contains_key(root))
}

/// The changes in a body, if it is content.
fn changes_of(body: &[u8]) -> Vec<ChangeHash> {
    let Ok(content) = from_bytes::<Content>(body) else { return Vec::new() };
    let items = content.documents.iter().flat_map(|(_, items)| items);
    let change = |item: &Item| match item {
        Item::Change(bytes) => inspect_change(bytes).ok().map(|facts| facts.hash),
        Item::Version { .. } | Item::Founded { .. } => None,
    };
    items.filter_map(change).collect()
}
