//! The world: a queue of steps in virtual time, and everything they happen to.
//!
//! Invariant: a step runs at one instant and only schedules others; machines never call one another. A run reads
//! nothing but its case. Spec: docs/simulation.md#world.

mod agents;
pub mod damage;
mod deeds;
mod faults;
mod former;
mod lies;
pub mod malice;
mod network;
mod shell;

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::disk::RelPath;
use weft_agent_core::membership::Role;
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::command::{Command, RequestId};
use weft_agent_core::workspace::input::Token;
use weft_agent_core::workspace::output::Rank;
use weft_protocol::frame::PeerId;
use weft_protocol::id::RoomId;
use weft_relay_core::{Relay, Settings};

use super::dice::Dice;
use super::host::Host;
use super::machine::Machine;
use super::plan::Case;
use super::sabotage::Sabotage;
use super::witness::Witness;

pub use lies::{FAULTS, Fault};
pub use network::{Conn, ConnId};

/// Steps in one run that mean it will not end.
const STEPS_MAX: u64 = 2_000_000;

/// One thing that happens.
#[derive(Debug)]
enum Step {
    Plan(usize),
    Wake { host: usize, boot: u64 },
    Dial { host: usize, boot: u64, relay: usize, twin: bool },
    PumpUp(ConnId),
    PumpDown(ConnId),
    Up(ConnId, Bytes),
    Down(ConnId, Bytes),
    Unpause(ConnId),
    Late(ConnId, lies::Delivery),
    Ping(ConnId),
    RelayWake { relay: usize, boot: u64 },
    Opened(ConnId),
    ClientGone(ConnId),
    RelayGone(ConnId),
    Drained(ConnId),
    RelayStart(usize),
    Flushed { host: usize, boot: u64, token: Token },
    Watch { host: usize, boot: u64 },
    Work { host: usize, boot: u64 },
    Tell { host: usize, boot: u64 },
    SlowScan { host: usize, boot: u64 },
    SaveRest { host: usize, path: RelPath, bytes: Bytes, before: Bytes },
    Start(usize),
    Invite { joiner: usize, pick: u64 },
    AskAgain { joiner: usize },
    Answer { host: usize, boot: u64, command: Command },
    Lie { host: usize, pick: u64 },
    Expel { pick: u64 },
    Scrub(usize),
}

/// Frames that agents sent, by rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Joins, queries, credit, beacons.
    pub control: u64,
    /// What was just written.
    pub live: u64,
    /// History and blobs.
    pub bulk: u64,
}

/// A relay in the world.
pub struct RelaySeat {
    /// The core, while it runs.
    pub core: Option<Relay>,
    /// Counts starts.
    pub boot: u64,
    /// When it is woken, in virtual microseconds.
    wake_us: Option<u64>,
}

/// The world.
pub struct World<M> {
    /// What it runs.
    pub case: Case,
    /// Defences that are off.
    pub sabotage: Sabotage,
    /// Virtual time, in microseconds.
    pub now_us: u64,
    /// The hosts.
    pub hosts: Vec<Host<M>>,
    /// The relays.
    pub relays: Vec<RelaySeat>,
    /// What was seen.
    pub witness: Witness,
    /// Frames sent so far.
    pub traffic: Traffic,
    /// Steps run so far.
    pub steps: u64,
    /// Batches that crashes took.
    pub lost_batches: u64,
    conns: BTreeMap<ConnId, Conn>,
    queue: BTreeMap<(u64, u64), Step>,
    serial: u64,
    requests: u64,
    /// Who asked for a link, for whom, with which role and how many uses.
    invites: BTreeMap<(usize, RequestId), (usize, Role, u32)>,
    /// Who asked for whose removal.
    removals: BTreeMap<(usize, RequestId), usize>,
    spare_links: Vec<String>,
    /// What relays that lie keep.
    lying: lies::Lying,
    /// Who was removed and goes on.
    former: Option<former::Seat>,
    /// What each connection is called in each room it entered.
    names: BTreeMap<(ConnId, RoomId), PeerId>,
    network: Dice,
    disks: Dice,
    keys: Dice,
    healed: bool,
    digest: blake3::Hasher,
    trace: bool,
}

impl<M: Machine> World<M> {
    /// A world at its first instant.
    #[must_use]
    pub fn new(case: Case, sabotage: Sabotage, trace: bool) -> Self {
        let seed = case.seed;
        let mut keys = Dice::new(seed, "keys", 0);
        let hosts = (0..case.seats.len())
            .map(|index| {
                let name = super::witness::member_name(index);
                let identity = M::identity(&mut keys, &name, &format!("{name}-laptop"));
                Host::new(identity, keys.below(1 << 40), 1_790_000_000_000 + keys.below(5_000))
            })
            .collect();
        let relays = (0..case.profile.relays)
            .map(|_| RelaySeat { core: Some(Relay::new(Settings::default(), keys.bytes32())), boot: 0, wake_us: None })
            .collect();
        let mut world = Self {
            sabotage,
            now_us: 0,
            hosts,
            relays,
            witness: Witness::default(),
            traffic: Traffic::default(),
            steps: 0,
            lost_batches: 0,
            conns: BTreeMap::new(),
            queue: BTreeMap::new(),
            serial: 0,
            requests: 0,
            invites: BTreeMap::new(),
            removals: BTreeMap::new(),
            spare_links: Vec::new(),
            lying: lies::Lying::default(),
            former: None,
            names: BTreeMap::new(),
            network: Dice::new(seed, "network", 0),
            disks: Dice::new(seed, "disk", 0),
            keys,
            healed: false,
            digest: blake3::Hasher::new(),
            trace,
            case,
        };
        for index in 0..world.case.events.len() {
            if let Some(event) = world.case.events.get(index) {
                world.at(event.at_ms * 1000, Step::Plan(index));
            }
        }
        world.found();
        world
    }

    /// Runs until that instant. False if something broke or there is no end to it.
    pub fn run_until(&mut self, until_us: u64) -> bool {
        while let Some(entry) = self.queue.first_entry() {
            let (at_us, _) = *entry.key();
            if at_us > until_us {
                break;
            }
            let step = entry.remove();
            self.now_us = at_us;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.witness.fail("endless", || format!("more than {STEPS_MAX} steps"));
            }
            if self.witness.violation.is_some() {
                return false;
            }
            self.step(step);
        }
        self.now_us = self.now_us.max(until_us);
        self.witness.violation.is_none()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Plan(index) => self.plan(index),
            Step::Wake { host, boot } => self.wake(host, boot),
            Step::Dial { host, boot, relay, twin } => self.dial(host, boot, relay, twin),
            Step::PumpUp(conn) => self.pump_up(conn),
            Step::PumpDown(conn) => self.pump_down(conn),
            Step::Up(conn, frame) => self.up(conn, frame),
            Step::Down(conn, frame) => self.down(conn, frame),
            Step::Unpause(conn) => self.unpause(conn),
            Step::Late(conn, delivery) => self.deliver(conn, delivery),
            Step::Ping(conn) => self.ping(conn),
            Step::RelayWake { relay, boot } => self.relay_wake(relay, boot),
            Step::Opened(conn) => self.opened(conn),
            Step::ClientGone(conn) => self.client_gone(conn),
            Step::RelayGone(conn) => self.relay_gone(conn),
            Step::Drained(conn) => self.drained(conn),
            Step::RelayStart(relay) => self.relay_start(relay),
            Step::Flushed { host, boot, token } => self.flushed(host, boot, token),
            Step::Watch { host, boot } => self.watch(host, boot),
            Step::Work { host, boot } => self.work(host, boot),
            Step::Tell { host, boot } => self.tell(host, boot),
            Step::SlowScan { host, boot } => self.slow_scan(host, boot),
            Step::SaveRest { host, path, bytes, before } => self.save_rest(host, &path, bytes, &before),
            Step::Start(host) => self.start(host),
            Step::Invite { joiner, pick } => self.invite(joiner, pick),
            Step::AskAgain { joiner } => self.ask_again(joiner),
            Step::Lie { host, pick } => self.lie(host, pick),
            Step::Expel { pick } => self.expel(pick),
            Step::Scrub(host) => self.scrub(host),
            Step::Answer { host, boot, command } => {
                // It may have asked twice, and a person answers what is there to be answered.
                let asks = self.hosts.get(host).is_some_and(|host| host.asks);
                if asks && self.runs(host, boot) {
                    self.ask(host, command);
                }
            }
        }
    }

    /// Ends every fault: partitions, stopped agents and relays. What is half-open is noticed in its own time.
    pub fn heal(&mut self) {
        self.healed = true;
        self.note(|| "HEAL".to_owned());
        for relay in 0..self.relays.len() {
            if self.case.profile.lies > 0 {
                // Honest ones take their place.
                self.relay_stop(relay);
            }
            self.relay_start(relay);
        }
        self.end_malice();
        for host in 0..self.hosts.len() {
            if let Some(host) = self.hosts.get_mut(host) {
                host.cut_off_until_us.clear();
            }
            self.start(host);
            self.after(0, Step::Scrub(host));
        }
        self.end_former();
    }

    /// How often relays lied, each way; the order is that of [`lies::FAULTS`].
    #[must_use]
    pub fn lied(&self) -> [u64; lies::FAULTS.len()] {
        self.lying.count
    }

    /// The digest of everything that happened so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.finalize().as_bytes()
    }

    /// Hosts that are members.
    pub fn active(&self) -> impl Iterator<Item = (usize, &Host<M>)> {
        self.hosts.iter().enumerate().filter(|(_, host)| host.phase == super::host::Phase::Active)
    }

    fn at(&mut self, at_us: u64, step: Step) {
        self.serial += 1;
        self.queue.insert((at_us.max(self.now_us), self.serial), step);
    }

    fn after(&mut self, delay_us: u64, step: Step) {
        self.at(self.now_us + delay_us, step);
    }

    fn runs(&self, host: usize, boot: u64) -> bool {
        self.hosts.get(host).is_some_and(|host| host.machine.is_some() && host.boot == boot)
    }

    fn timestamp(&self, host: usize) -> Timestamp {
        let now_ms = self.now_us / 1000;
        let (mono, wall) = self.hosts.get(host).map_or((0, 0), |host| (host.mono_base_ms, host.wall_base_ms));
        Timestamp { mono_ms: now_ms + mono, wall_ms: now_ms + wall }
    }

    /// Adds to the digest, and to the trace if there is one.
    fn note(&mut self, line: impl FnOnce() -> String) {
        self.digest.update(&self.now_us.to_be_bytes());
        if self.trace {
            use std::io::Write as _;
            let at = format!("{:>9}.{:03}", self.now_us / 1000, self.now_us % 1000);
            // A trace that cannot be written is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{at}  {}", line());
        }
    }

    fn count(&mut self, rank: Rank) {
        match rank {
            Rank::Control => self.traffic.control += 1,
            Rank::Live => self.traffic.live += 1,
            Rank::Bulk => self.traffic.bulk += 1,
        }
    }
}
