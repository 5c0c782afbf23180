//! The machine of one workspace: everything the agent decides, with its effects as values.
//!
//! Contract (see also docs/architecture.md): the shell calls [`Workspace::handle`] with one [`Input`], then drains
//! [`Workspace::poll_output`] to `None`, then sleeps until [`Workspace::poll_timeout`] or the next input. `Persist`
//! batches are applied to the store before the next `handle`, in order, and answered by [`Input::Persisted`] once they
//! are durable; an output that must not leave before something is durable is simply not given out before.
//!
//! This file dispatches. One concern a file: [`mod@input`], [`mod@output`] and [`mod@command`] are the contract;
//! `effects` orders what leaves; `links` knows who is met where; `reconcile` compares frontiers; `pulls` and `serving`
//! move what is missing; `receive` holds and accepts, and `verdicts` judges again when the membership changes; `sealing`
//! turns the outbox into envelopes; `admission` lets people in, `requests` keeps those who wait for an admin, `vouch`
//! passes on what they came in with, `late` keeps what somebody who went wrote before they knew, and `enrol` lets further devices of members in; `members` changes who belongs,
//! `recovery` uses what takes more than a device, and `notices` tells those who belong no more; `epochs` hands out keys,
//! `rotation` says when they are old, `nacks` complains of wrong ones, and in the `lobby` those who missed some find them;
//! `blobs` fetches pieces, and `checkpoint` what a newcomer needs first; `mend` goes on after damage, and `holes` asks for what it took; `attest` names our accounts, and `report` answers people.
//! Spec: docs/sync.md.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_protocol::frame::ServerFrame;

use crate::disk::Seen;
use crate::files::{Files, FilesOutput};
use crate::frontier::{Frontier, Tip};
use crate::id::{ChainId, DeviceId, WorkspaceId};
use crate::identity::LocalIdentity;
use crate::membership::{Membership, OpSet};
use crate::setup::{Setup, Watermark, Weakness};
use crate::store::{Read, Tx};
use crate::time::Timestamp;
use crate::vault::Vault;

mod admission;
mod attest;
mod birth;
mod blobs;
mod checkpoint;
pub mod command;
mod effects;
mod enrol;
mod epochs;
mod forks;
mod holes;
mod incarnation;
pub mod input;
mod late;
mod links;
mod lobby;
mod log;
mod members;
mod mend;
mod nacks;
mod notices;
mod outbox;
pub mod output;
mod parked;
mod pulls;
mod receive;
mod reconcile;
mod recovery;
mod relays;
mod report;
mod requests;
mod rooms;
mod rotation;
mod sealing;
mod serving;
mod verdicts;
mod vouch;

#[cfg(test)]
pub(crate) use admission::role_name;
pub use birth::OpenError;

use command::{Command, RequestId, State};
use effects::Effects;
use input::Input;
use links::Links;
use output::Output;
use parked::Parked;
use pulls::Pulls;
use reconcile::{Beacons, Owed, PeerState};
use relays::RelayList;
use serving::Serving;

/// Our own chain.
#[derive(Debug, Clone, Copy)]
struct Own {
    chain: ChainId,
    tip: Option<Tip>,
}

impl Own {
    fn watermark(&self) -> Watermark {
        Watermark { incarnation: self.chain.incarnation, seq: self.tip.map_or(0, |tip| tip.seq) }
    }
}

/// Where we are in the life of a workspace.
enum Phase {
    /// We hold a link and wait to be let in.
    Joining(Box<admission::Joining>),
    /// We hold a pass and wait to be let in as a further device of a member.
    Enrolling(Box<enrol::Enrolling>),
    /// We are in.
    Active,
    /// We left, or were removed.
    Left,
}

/// One workspace of this agent.
pub struct Workspace {
    id: WorkspaceId,
    name: String,
    identity: LocalIdentity,
    rng: ChaCha20Rng,
    phase: Phase,
    paused: bool,
    /// `None` until we are let in.
    ops: Option<OpSet>,
    membership: Arc<Membership>,
    vault: Vault,
    own: Own,
    /// A restored backup was found out: the folder stands still until a peer was heard.
    reborn: bool,
    /// What was known of the folder is lost: files that are shown are met again when the folder goes on.
    records_lost: bool,
    holes: holes::Holes,
    /// A batch cannot be sealed; nothing behind it may overtake it.
    stuck: bool,
    frontier: Frontier,
    outbox: outbox::Outbox,
    files: Files,
    /// How often documents were built anew since this machine was opened: what was read of them before is void.
    lives: u64,
    links: Links,
    peers: BTreeMap<DeviceId, PeerState>,
    owed: Owed,
    beacons: Beacons,
    pulls: Pulls,
    serving: Serving,
    blobs: blobs::Blobs,
    /// Bytes of large files that are not here, ...
    lacks: u64,
    /// ... whether that cannot be told yet, and whether it was anything when others were last told.
    lacks_are_unknown: bool,
    lacks_something: bool,
    parked: Parked,
    knocks: admission::Knocks,
    doors: enrol::Doors,
    vouch: vouch::Vouch,
    verdicts: verdicts::Verdicts,
    forks: forks::Forks,
    claims: incarnation::Claims,
    checkpoints: checkpoint::Checkpoints,
    packets: epochs::Packets,
    notices: notices::Notices,
    rotation: rotation::Rotation,
    lobbies: lobby::Lobbies,
    nacks: nacks::Nacks,
    /// Whether wrong keys are complained of; only tests say no.
    nacks_sent: bool,
    /// Whether a message must come from whom it says it does; only tests say no.
    speakers_checked: bool,
    relays: RelayList,
    lan: Vec<String>,
    flushes: Vec<report::Flush>,
    rejected: BTreeMap<String, u64>,
    problems: VecDeque<String>,
    scanned: bool,
    /// Ops or keys came; what follows from them is still to be done.
    news: bool,
    /// Whether what is held already is known as such; only the simulator says no.
    dedupes: bool,
    /// Monotonic time of the last input.
    last_mono: u64,
    effects: Effects,
}

impl Workspace {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> WorkspaceId {
        self.id
    }

    /// Switches a defence off; see [`Weakness`].
    #[doc(hidden)]
    pub fn weaken(&mut self, weakness: Weakness) {
        match weakness {
            Weakness::NoDedupe => self.dedupes = false,
            Weakness::NoBase => self.files.ignore_base(),
            Weakness::NoNack => self.nacks_sent = false,
            Weakness::NoProof => self.checkpoints.prove_nothing(),
            Weakness::NoSpeaker => self.speakers_checked = false,
            Weakness::NoExclusion => self.packets.exclude_nobody(),
        }
    }

    /// Takes in one thing that happened. `read` must see every batch handed out before.
    pub fn handle(&mut self, now: Timestamp, input: Input, read: &dyn Read) {
        self.last_mono = now.mono_ms;
        let tx = Tx::new(read);
        self.dispatch(now, input, &tx);
        self.settle_news(now, &tx);
        // Before anything states it beside the frontier as it is now.
        self.note_lacks(now, &tx);
        self.run_deadlines(now, &tx);
        self.settle_news(now, &tx);
        self.go_on_reborn(now, &tx);
        self.drain_files(now, &tx);
        // What is in the documents must be in the outbox before it is saved, or compared.
        self.run_checkpoints(now, &tx);
        self.drain_files(now, &tx);
        self.seal(now, &tx);
        self.plan_pulls(now);
        self.plan_pieces(now);
        self.serve(now, &tx);
        self.note_lacks(now, &tx);
        self.check_flushes(now);
        self.effects.commit(tx, self.own.watermark());
    }

    /// What the shell saw, in parts that each take a moment: each is to be an [`Input::Seen`] of its own, in this order, and
    /// commands may be handled in between.
    #[must_use]
    pub fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
        self.files.slices(seen)
    }

    /// The next thing to do; drain to `None` after every `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.poll()
    }

    /// When to call `handle` with [`Input::Wake`], in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        [
            self.files.poll_timeout(),
            self.reconcile_deadline(),
            self.pulls.next_deadline(),
            self.blobs.next_deadline(),
            self.admission_deadline(),
            self.enrol_deadline(),
            self.epochs_deadline(),
            self.rotation.next_deadline(),
            self.lobbies.next_deadline(),
            self.sealing_deadline(),
            self.flush_deadline(),
            self.verdicts_deadline(),
            self.forks_deadline(),
            self.claims_deadline(),
            self.holes_deadline(),
            self.vouch_deadline(),
            self.checkpoints_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn dispatch(&mut self, now: Timestamp, input: Input, tx: &Tx<'_>) {
        match input {
            Input::Wake => {}
            Input::LinkUp(up) => self.link_up(now, up),
            Input::LinkDown { link } => self.link_down(now, link),
            Input::Frame { link, frame } => self.frame(now, link, frame, tx),
            Input::LinkDrained { link, queued_bytes } => {
                if let Some(link) = self.links.0.get_mut(&link) {
                    link.queued_bytes = queued_bytes;
                }
            }
            Input::Persisted(token) => self.effects.persisted(token),
            // Until a restored replica knows what others made since, the folder cannot be compared with anything.
            Input::Seen(_) | Input::Scanned { .. } | Input::RootBack if self.reborn => {}
            Input::Seen(seen) => self.files.handle_seen(now, seen, &mut self.vault, tx),
            Input::Scanned { complete } => {
                self.scanned |= complete;
                self.files.handle_scanned(now, complete, &mut self.vault, tx);
            }
            Input::RootLost { why } => self.files.handle_root(now, Some(why), &mut self.vault, tx),
            Input::RootBack => self.files.handle_root(now, None, &mut self.vault, tx),
            Input::Acted { action, outcome } => {
                self.files.handle_acted(now, action, outcome, &mut self.vault, tx);
            }
            Input::Command(request, command) => self.command(now, request, command, tx),
        }
    }

    fn frame(&mut self, now: Timestamp, link: input::LinkId, frame: ServerFrame, tx: &Tx<'_>) {
        match frame {
            ServerFrame::Joined { room, you, peers } => self.room_joined(now, link, room, you, &peers),
            ServerFrame::PeerJoined { room, peer } => self.peer_joined(now, link, room, peer.peer),
            ServerFrame::PeerLeft { room, peer } => self.peer_left(now, link, room, peer),
            ServerFrame::Deliver { room, from, payload } => self.deliver(now, link, room, from, payload, tx),
            ServerFrame::Resync { room } => self.ask(now, link, room, false),
            ServerFrame::Error { code, room, .. } => self.refused_by_relay(now, link, code, room),
            ServerFrame::Challenge { .. }
            | ServerFrame::Welcome { .. }
            | ServerFrame::Refreshed { .. }
            | ServerFrame::Restarting { .. }
            | ServerFrame::Pong { .. } => {}
        }
    }

    /// Takes what [`Files`] wants done.
    fn drain_files(&mut self, now: Timestamp, tx: &Tx<'_>) {
        while let Some(output) = self.files.poll_output() {
            match output {
                FilesOutput::Publish(content) => self.enqueue_content(content, tx),
                FilesOutput::Act(action, what) => {
                    self.effects.push(Output::Act(action, what));
                }
                FilesOutput::Fetch { hash, manifest } => self.fetch(now, hash, manifest, tx),
                FilesOutput::Unneeded(hash) => self.blobs.forget(&hash),
                FilesOutput::Look(paths) => self.effects.push(Output::Look(paths)),
                FilesOutput::Halted(halt) => self.effects.push(Output::Halted(Some(halt))),
                FilesOutput::Log(entry) => self.effects.push(Output::Event(entry)),
            }
        }
    }

    fn run_deadlines(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.files.poll_timeout().is_some_and(|at| at <= now.mono_ms) {
            self.files.handle_timeout(now, &mut self.vault, tx);
        }
        self.run_claims(now, tx);
        self.run_reconcile(now);
        self.run_admission(now, tx);
        self.run_enrol(now, tx);
        self.run_epochs(now, tx);
        self.run_rotation(now, tx);
        self.run_lobbies(now);
        self.run_verdicts(now, tx);
        self.run_forks(now, tx);
        self.run_vouch(now);
        self.run_holes(now, tx);
        self.run_aside(now, tx);
    }

    fn command(&mut self, now: Timestamp, request: RequestId, command: Command, tx: &Tx<'_>) {
        let reply = self.answer(now, request, command, tx);
        if let Some(reply) = reply {
            self.effects.push(Output::Reply(request, reply));
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    fn state(&self) -> State {
        match self.phase {
            Phase::Joining(_) | Phase::Enrolling(_) => State::Joining,
            Phase::Left => State::Left,
            Phase::Active if self.files.halted().is_some() => State::Halted,
            Phase::Active if self.paused => State::Paused,
            Phase::Active => State::Active,
        }
    }

    fn my_device(&self) -> DeviceId {
        self.own.chain.device
    }

    /// Counts something refused, by its reason.
    fn reject(&mut self, reason: &str) {
        /// Reasons are our own words and few; this only guards against a mistake of ours.
        const REASONS_MAX: usize = 64;
        if let Some(count) = self.rejected.get_mut(reason) {
            *count += 1;
        } else if self.rejected.len() < REASONS_MAX {
            self.rejected.insert(reason.to_owned(), 1);
        }
    }

    /// Something is wrong that a person should know; the last few are kept.
    fn problem(&mut self, problem: String) {
        const PROBLEMS_MAX: usize = 8;
        if !self.problems.contains(&problem) {
            if self.problems.len() >= PROBLEMS_MAX {
                self.problems.pop_front();
            }
            self.problems.push_back(problem);
        }
    }

    fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        rand_core::Rng::fill_bytes(&mut self.rng, &mut nonce);
        nonce
    }

    /// A number below `bound` for jitter.
    fn jitter(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { rand_core::Rng::next_u64(&mut self.rng) % bound }
    }
}

fn seeded(setup: &Setup) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(setup.seed)
}
