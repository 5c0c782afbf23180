//! How a workspace machine comes to be: founded, joining by a link, or opened from what is stored.
//!
//! Invariant: everything a machine knows is a function of its rows, its identity and the watermark; `open` after any
//! prefix of batches gives a machine that goes on from there. Spec: docs/sync.md#life.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;

use super::admission::{Joining, Knocks};
use super::effects::Effects;
use super::enrol::Enrolling;
use super::epochs::Packets;
use super::links::Links;
use super::outbox::{Batch, OpsBody, Outbox};
use super::output::Output;
use super::parked::Parked;
use super::pulls::Pulls;
use super::reconcile::{Beacons, Owed};
use super::relays::RelayList;
use super::serving::Serving;
use super::{Own, Phase, Workspace, blobs, mend, seeded};
use crate::enrol::Pass;
use crate::epoch::Epoch;
use crate::files::{Files, Identity};
use crate::frontier::{Frontier, Tip};
use crate::id::{ChainId, DeviceId, Link, WorkspaceId};
use crate::identity::LocalIdentity;
use crate::invite_link::InviteLink;
use crate::keyring::Keyring;
use crate::membership::{Membership, OpSet, evaluate};
use crate::op::{Genesis, OpBody, OpSigner, Policy, SignedOp};
use crate::setup::{Setup, Watermark};
use crate::store::{MemoryStore, Read, Table, Tx, rows};
use crate::time::Timestamp;
use crate::vault::Vault;

/// The format of the rows this version writes.
const FORMAT: u8 = 0;
/// Rows read at once.
const ROWS: usize = 1024;

/// Why a stored workspace cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing, or something else, in the store.
    #[error("there is no workspace in this database: it is damaged. Run `weft repair` in this folder; your files stay")]
    Empty,
    /// Written by a later version.
    #[error("this database has format {0}, which this version of weft does not know: upgrade weft")]
    Format(u8),
    /// A row that cannot be read.
    #[error(
        "the database is damaged at {0}: run `weft repair` in this folder; your files stay, and what is lost comes from the \
         other devices"
    )]
    Damaged(&'static str),
    /// The device in the database is another one.
    #[error("this database belongs to another device; join the workspace afresh instead of copying it")]
    OtherDevice,
    /// The root key is not on this device any more.
    #[error("founding a workspace needs the member's root key: recover it with your 24 words")]
    NoRoot,
}

mod key {
    pub(in crate::workspace) const FORMAT: &[u8] = b"format";
    pub(in crate::workspace) const GENESIS: &[u8] = b"genesis";
    pub(in crate::workspace) const DEVICE: &[u8] = b"device";
    pub(in crate::workspace) const INCARNATION: &[u8] = b"incarnation";
    pub(in crate::workspace) const JOINING: &[u8] = b"joining";
    pub(in crate::workspace) const ENROLLING: &[u8] = b"enrolling";
    pub(in crate::workspace) const LEFT: &[u8] = b"left";
    pub(in crate::workspace) const PAUSED: &[u8] = b"paused";
    pub(in crate::workspace) const REBORN: &[u8] = b"reborn";
    pub(in crate::workspace) const TIP: &[u8] = b"tip/";
}
/// Value of [`REBORN`]: what was known of the folder is lost as well.
pub(super) const RECORDS_LOST: u8 = 2;

pub(super) use key::{ENROLLING, GENESIS, INCARNATION, JOINING, LEFT, PAUSED, REBORN};

/// What differs between the three ways to begin.
struct Parts {
    id: WorkspaceId,
    name: String,
    identity: LocalIdentity,
    rng: ChaCha20Rng,
    watermark: Watermark,
    phase: Phase,
    ops: Option<OpSet>,
    keyring: Keyring,
    frontier: Frontier,
    incarnation: u64,
}

impl Parts {
    /// Of a machine that holds a link and waits to be let in.
    fn joining(setup: Setup, mut rng: ChaCha20Rng, now: Timestamp, link: &InviteLink, incarnation: u64) -> Self {
        let joining = Joining::new(link.clone(), &setup.identity, now, &mut rng);
        let phase = Phase::Joining(Box::new(joining));
        Self::outside(setup, rng, (link.workspace, link.name.clone()), phase, incarnation)
    }

    /// Of a machine that holds a pass and waits to be let in.
    fn enrolling(
        setup: Setup,
        mut rng: ChaCha20Rng,
        now: Timestamp,
        (pass, op): (Pass, Option<Bytes>),
        incarnation: u64,
    ) -> Self {
        let of = (pass.workspace, pass.name.clone());
        let enrolling = Enrolling::new(pass, op, &setup.identity, now, &mut rng);
        Self::outside(setup, rng, of, Phase::Enrolling(Box::new(enrolling)), incarnation)
    }

    fn outside(
        setup: Setup,
        rng: ChaCha20Rng,
        (id, name): (WorkspaceId, String),
        phase: Phase,
        incarnation: u64,
    ) -> Self {
        Self {
            id,
            name,
            identity: setup.identity,
            rng,
            watermark: setup.watermark,
            phase,
            ops: None,
            keyring: Keyring::new(),
            frontier: Frontier::default(),
            incarnation,
        }
    }
}

impl Workspace {
    fn assemble(parts: Parts, read: &dyn Read) -> Self {
        let device = parts.identity.device.id();
        let chain = ChainId { device, incarnation: parts.incarnation };
        let own = Own { chain, tip: parts.frontier.tip(&chain).copied() };
        let membership = parts.ops.as_ref().map_or_else(|| Membership::nobody(parts.id), evaluate);
        Self {
            id: parts.id,
            name: parts.name,
            rng: parts.rng,
            phase: parts.phase,
            paused: read.get(Table::Meta, PAUSED).is_some(),
            membership,
            ops: parts.ops,
            vault: Vault::new(parts.id, parts.keyring),
            own,
            reborn: read.get(Table::Meta, REBORN).is_some(),
            records_lost: read.get(Table::Meta, REBORN).is_some_and(|row| row[..] == [RECORDS_LOST]),
            holes: super::holes::Holes::open(read),
            lives: 0,
            stuck: false,
            frontier: parts.frontier,
            outbox: Outbox::open(read),
            files: Files::open(Identity { workspace: parts.id, chain }, read),
            links: Links::default(),
            peers: Self::stored_peers(read),
            owed: Owed::default(),
            beacons: Beacons::default(),
            pulls: Pulls::default(),
            serving: Serving::default(),
            lacks: 0,
            lacks_are_unknown: false,
            lacks_something: false,
            blobs: blobs::Blobs::default(),
            parked: Parked::default(),
            knocks: Knocks::default(),
            doors: super::enrol::Doors::default(),
            vouch: super::vouch::Vouch::open(read),
            verdicts: super::verdicts::Verdicts::open(read),
            forks: super::forks::Forks::default(),
            claims: super::incarnation::Claims::default(),
            checkpoints: super::checkpoint::Checkpoints::open(read),
            packets: Packets::open(read),
            notices: super::notices::Notices::default(),
            rotation: super::rotation::Rotation::open(read),
            lobbies: super::lobby::Lobbies::default(),
            nacks: super::nacks::Nacks::default(),
            nacks_sent: true,
            speakers_checked: true,
            relays: RelayList::open(read),
            lan: Vec::new(),
            flushes: Vec::new(),
            rejected: BTreeMap::new(),
            problems: VecDeque::new(),
            scanned: false,
            news: false,
            dedupes: true,
            last_mono: 0,
            effects: Effects::new(parts.watermark, own.watermark()),
            identity: parts.identity,
        }
    }

    /// A new workspace with a first epoch; its rows come out as the first `Persist`.
    ///
    /// # Errors
    /// [`OpenError::NoRoot`] if the identity holds no root secret.
    pub fn create(setup: Setup, now: Timestamp, name: &str, relays: Vec<String>) -> Result<Self, OpenError> {
        Self::create_with(setup, now, name, relays, None)
    }

    /// As [`Workspace::create`], naming the public half of a recovery key.
    ///
    /// # Errors
    /// [`OpenError::NoRoot`] if the identity holds no root secret.
    pub fn create_with(
        setup: Setup,
        now: Timestamp,
        name: &str,
        relays: Vec<String>,
        recovery: Option<[u8; 32]>,
    ) -> Result<Self, OpenError> {
        let mut rng = seeded(&setup);
        let genesis =
            Genesis::found(&setup.identity, name, Policy::default(), recovery, &mut rng).ok_or(OpenError::NoRoot)?;
        let ops = OpSet::new(genesis.clone());
        let empty = MemoryStore::default();
        let parts = Parts {
            id: genesis.workspace(),
            name: genesis.workspace_name().to_owned(),
            identity: setup.identity,
            rng,
            watermark: setup.watermark,
            phase: Phase::Active,
            ops: Some(ops),
            keyring: Keyring::new(),
            frontier: Frontier::default(),
            incarnation: setup.watermark.incarnation + 1,
        };
        let mut this = Self::assemble(parts, &empty);
        let tx = Tx::new(&empty);
        this.write_birth(&genesis, &tx);
        this.mint(now, &tx);
        this.settle_news(now, &tx);
        for relay in relays {
            this.relays.set(&relay, now.wall_ms, true, &tx);
        }
        this.seal(now, &tx);
        this.effects.push(Output::Admitted { name: this.name.clone() });
        this.tell_addresses();
        this.effects.commit(tx, this.own.watermark());
        Ok(this)
    }

    /// Starts waiting for admission by a link; nothing in the folder is touched before [`Output::Admitted`].
    #[must_use]
    pub fn join(setup: Setup, now: Timestamp, link: &InviteLink) -> Self {
        let empty = MemoryStore::default();
        let rng = seeded(&setup);
        let incarnation = setup.watermark.incarnation + 1;
        let parts = Parts::joining(setup, rng, now, link, incarnation);
        let mut this = Self::assemble(parts, &empty);
        let tx = Tx::new(&empty);
        this.write_start(&tx);
        tx.put(Table::Meta, JOINING, link.to_text().as_bytes().to_vec());
        for url in &link.urls {
            this.relays.set(url, now.wall_ms, true, &tx);
        }
        this.tell_addresses();
        this.effects.commit(tx, this.own.watermark());
        this
    }

    /// Starts waiting at the door that a pass leads to, as a further device of its member; nothing in the folder is touched
    /// before [`Output::Admitted`]. `op`: by words, what introduces this device, signed by its member's root; its parents
    /// are the ops that the pass names.
    #[must_use]
    pub fn enrol(setup: Setup, now: Timestamp, pass: Pass, op: Option<SignedOp>) -> Self {
        let empty = MemoryStore::default();
        let rng = seeded(&setup);
        let incarnation = setup.watermark.incarnation + 1;
        let op = op.map(|op| op.bytes().clone());
        let parts = Parts::enrolling(setup, rng, now, (pass, op), incarnation);
        let mut this = Self::assemble(parts, &empty);
        let tx = Tx::new(&empty);
        this.write_start(&tx);
        if let Phase::Enrolling(enrolling) = &this.phase {
            tx.put(Table::Meta, ENROLLING, enrolling.to_row());
            for url in &enrolling.pass().urls {
                this.relays.set(url, now.wall_ms, true, &tx);
            }
        }
        this.tell_addresses();
        this.effects.commit(tx, this.own.watermark());
        this
    }

    /// Begins as a device of its own from what an export holds: a membership in which this device is active, and all keys.
    /// What others sealed is given to it one by one ([`Command::TakeIn`]). `None` without an epoch, or if this device is not
    /// active.
    ///
    /// [`Command::TakeIn`]: super::command::Command::TakeIn
    #[must_use]
    pub fn restore(
        setup: Setup,
        now: Timestamp,
        ops: OpSet,
        mut epochs: Vec<Epoch>,
        relays: &[String],
    ) -> Option<Self> {
        let empty = MemoryStore::default();
        let rng = seeded(&setup);
        let incarnation = setup.watermark.incarnation + 1;
        let of = (ops.workspace(), ops.genesis().workspace_name().to_owned());
        let last = epochs.pop()?;
        let mut this = Self::assemble(Parts::outside(setup, rng, of, Phase::Left, incarnation), &empty);
        let tx = Tx::new(&empty);
        this.write_start(&tx);
        this.come_in(ops, last, &tx);
        this.membership.role_of(&this.my_device())?;
        epochs.into_iter().for_each(|epoch| this.keep_epoch(epoch, &tx));
        this.settle_news(now, &tx);
        for relay in relays {
            this.relays.set(relay, now.wall_ms, true, &tx);
        }
        this.effects.push(Output::Admitted { name: this.name.clone() });
        this.effects.commit(tx, this.own.watermark());
        Some(this)
    }

    fn write_start(&self, tx: &Tx<'_>) {
        tx.put(Table::Meta, key::FORMAT, vec![FORMAT]);
        tx.put(Table::Meta, key::DEVICE, self.my_device().0.to_vec());
        tx.put(Table::Meta, INCARNATION, self.own.chain.incarnation.to_be_bytes().to_vec());
    }

    fn write_birth(&self, genesis: &Genesis, tx: &Tx<'_>) {
        self.write_start(tx);
        tx.put(Table::Meta, GENESIS, genesis.bytes().to_vec());
    }

    /// From a store that `create` or `join` once wrote, also one still joining.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(setup: Setup, now: Timestamp, read: &dyn Read) -> Result<Self, OpenError> {
        let (rng, watermark) = (seeded(&setup), setup.watermark);
        let tx = Tx::new(read);
        let mut mend = mend::prepare(setup.identity.device.id(), watermark, &tx);
        let read: &dyn Read = &tx;
        let format = read.get(Table::Meta, key::FORMAT).ok_or(OpenError::Empty)?;
        match format.first() {
            Some(&FORMAT) => {}
            Some(other) => return Err(OpenError::Format(*other)),
            None => return Err(OpenError::Damaged("format")),
        }
        let device = read.get(Table::Meta, key::DEVICE).ok_or(OpenError::Damaged("device"))?;
        if device[..] != setup.identity.device.id().0 {
            return Err(OpenError::OtherDevice);
        }
        let incarnation = read
            .get(Table::Meta, INCARNATION)
            .and_then(|row| Some(u64::from_be_bytes(row[..].try_into().ok()?)))
            .ok_or(OpenError::Damaged("incarnation"))?;
        let joining = read.get(Table::Meta, JOINING);
        let enrolling = read.get(Table::Meta, ENROLLING);
        let parts = if let Some(row) = enrolling {
            let pass = Enrolling::parse_row(&row).ok_or(OpenError::Damaged("enrolling"))?;
            Parts::enrolling(setup, rng, now, pass, incarnation)
        } else if let Some(text) = joining {
            let text = std::str::from_utf8(&text).map_err(|_| OpenError::Damaged("joining"))?;
            let link = InviteLink::parse(text).map_err(|_| OpenError::Damaged("joining"))?;
            Parts::joining(setup, rng, now, &link, incarnation)
        } else {
            let genesis = read.get(Table::Meta, GENESIS).ok_or(OpenError::Damaged("genesis"))?;
            let genesis = Genesis::parse(&genesis).map_err(|_| OpenError::Damaged("genesis"))?;
            let left = read.get(Table::Meta, LEFT).is_some();
            let keyring = stored_keyring(genesis.workspace(), read)?;
            mend::prepare_chains(&mut mend, genesis.workspace(), &keyring, &tx);
            Parts {
                id: genesis.workspace(),
                name: genesis.workspace_name().to_owned(),
                identity: setup.identity,
                rng,
                watermark: setup.watermark,
                phase: if left { Phase::Left } else { Phase::Active },
                keyring,
                ops: Some(stored_ops(genesis, read)?),
                frontier: stored_frontier(read)?,
                incarnation,
            }
        };
        let mut this = Self::assemble(parts, read);
        this.open_forks();
        this.last_mono = now.mono_ms;
        let begins_anew = this.mend(now, &mend, &tx);
        if begins_anew || watermark > this.own.watermark() {
            // The database went back behind what was sent, or lost what was to be.
            this.leave_chain(now, watermark.incarnation, Workspace::forgets_all(&mend), &tx);
        } else if this.reborn {
            this.await_peers(now, &tx);
        }
        this.epochs_changed(now, &tx);
        if this.is_active() {
            this.heal_certificate();
            this.effects.push(Output::Admitted { name: this.name.clone() });
        }
        this.tell_addresses();
        if let Some(halt) = this.files.halted() {
            this.effects.push(Output::Halted(Some(halt.clone())));
        }
        this.drain_files(now, &tx);
        this.effects.commit(tx, this.own.watermark());
        Ok(this)
    }

    /// Tells the shell which relays and LAN addresses there are.
    pub(super) fn tell_addresses(&mut self) {
        let mut lan: Vec<String> = self.peers.values().flat_map(|peer| peer.lan.iter().cloned()).collect();
        lan.sort();
        lan.dedup();
        lan.truncate(64);
        self.effects.push(Output::Addresses { relays: self.relays.urls(), lan });
    }

    /// Signs an op on top of all known ones, takes it in, and puts it into the outbox.
    pub(super) fn issue(&mut self, now: Timestamp, body: OpBody, tx: &Tx<'_>) -> Option<SignedOp> {
        let op = self.sign_op(now, body)?;
        self.publish_op(&op, tx);
        self.knows(&op.id()).then_some(op)
    }

    /// Takes an op of ours in, and puts it into the outbox.
    pub(super) fn publish_op(&mut self, op: &SignedOp, tx: &Tx<'_>) {
        let ops = OpsBody(vec![op.bytes().clone()]);
        self.outbox.push(&Batch::Ops(ops.clone()), tx);
        let mut taken = self.take_ops(&ops, tx);
        taken.added.retain(|added| *added != op.id());
        self.set_aside(&taken.added, tx);
    }

    /// Signs an op on top of all known ones.
    pub(super) fn sign_op(&self, now: Timestamp, body: OpBody) -> Option<SignedOp> {
        let heads = self.ops.as_ref()?.heads();
        Some(SignedOp::make(&self.id, &heads, OpSigner::Device(&self.identity.device), now.wall_ms, body))
    }

    /// Stores an epoch.
    pub(super) fn keep_epoch(&mut self, epoch: Epoch, tx: &Tx<'_>) {
        tx.put(Table::Epochs, epoch.id().0, epoch.to_bytes().to_vec());
        self.vault.keyring.insert(epoch);
        self.news = true;
    }
}

/// Puts back what every database begins with, should it be lost.
pub(super) fn restore_start(device: DeviceId, tx: &Tx<'_>) {
    for (key, value) in [(key::FORMAT, vec![FORMAT]), (key::DEVICE, device.0.to_vec())] {
        if !tx.has(Table::Meta, key) {
            tx.put(Table::Meta, key, value);
        }
    }
}

fn stored_ops(genesis: Genesis, read: &dyn Read) -> Result<OpSet, OpenError> {
    let mut ops = OpSet::new(genesis);
    let workspace = ops.workspace();
    for (_, row) in rows(read, Table::Ops, &[], ROWS) {
        let op = SignedOp::parse(&workspace, &row).map_err(|_| OpenError::Damaged("ops"))?;
        ops.insert(op).map_err(|_| OpenError::Damaged("ops"))?;
    }
    Ok(ops)
}

fn stored_keyring(workspace: WorkspaceId, read: &dyn Read) -> Result<Keyring, OpenError> {
    let mut keyring = Keyring::new();
    for (_, row) in rows(read, Table::Epochs, &[], ROWS) {
        keyring.insert(Epoch::from_bytes(&workspace, &row).map_err(|_| OpenError::Damaged("epochs"))?);
    }
    Ok(keyring)
}

fn stored_frontier(read: &dyn Read) -> Result<Frontier, OpenError> {
    let mut frontier = Frontier::default();
    for (key, row) in rows(read, Table::Meta, key::TIP, ROWS) {
        let parse = || {
            let chain = key.get(key::TIP.len()..)?.try_into().ok()?;
            let (seq, link) = row.split_first_chunk::<8>()?;
            let tip = Tip { seq: u64::from_be_bytes(*seq), link: Link::from_slice(link)? };
            Some((ChainId::from_bytes(chain), tip))
        };
        let (chain, tip) = parse().ok_or(OpenError::Damaged("tips"))?;
        frontier.advance(chain, tip);
    }
    Ok(frontier)
}
