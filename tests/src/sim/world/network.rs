//! Connections between agents and relays, and the relays' cores.
//!
//! Spec: docs/simulation.md#network.

use std::collections::VecDeque;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use weft_agent_core::workspace::input::{Input, LinkId, LinkKind, LinkUp};
use weft_agent_core::workspace::output::Rank;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::sign_connect;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice};
use weft_protocol::limits::PING_AFTER_MS;
use weft_relay_core as core_relay;
use weft_relay_core::{Admission, Settings};

use super::lies::Delivery;
use super::{Step, World};
use crate::sim::host::Phase;
use crate::sim::machine::Machine;
use crate::sim::oracle::is_void;
use crate::sim::wire::Pipe;

/// One connection at one relay, never reused in a world.
pub type ConnId = u64;

/// The shell reports a link as drained when less than this waits, in bytes.
const DRAINED_BYTES: u64 = 256 * 1024;
/// What the core may believe to be waiting beyond what does before the shell tells it, in bytes.
const REPORT_BYTES: u64 = 64 * 1024;
/// Bytes that may wait in an agent's shell for one link: bulk in a socket and an envelope or two of each rank.
const AGENT_QUEUE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// One connection.
pub struct Conn {
    host: usize,
    boot: u64,
    relay: usize,
    relay_boot: u64,
    client_open: bool,
    relay_open: bool,
    /// The core was told of it.
    linked: bool,
    key: SigningKey,
    token: String,
    nonce: [u8; 32],
    /// Bytes that the core believes to be waiting.
    believed: u64,
    /// What its frames are verified against.
    proofs: Option<core_relay::Proofs>,
    paused_until_ms: u64,
    held_back: VecDeque<Bytes>,
    up: Pipe<Bytes>,
    down: Pipe<Bytes>,
}

impl Conn {
    /// Whether the agent was told that it is up.
    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }
    /// Whether the core believes in so much more than what waits that it must be told.
    fn overestimated(&self) -> bool {
        let waiting = self.up.waiting_bytes();
        waiting < DRAINED_BYTES && self.believed >= waiting + REPORT_BYTES
    }
}

fn number(id: ConnId) -> core_relay::ConnId {
    core_relay::ConnId(id)
}

impl<M: Machine> World<M> {
    fn audience(relay: usize) -> Option<Audience> {
        Audience::from_url(&Self::url(relay)).ok()
    }

    /// Tries to connect; again after a while if that fails.
    pub(super) fn dial(&mut self, index: usize, boot: u64, relay: usize, twin: bool) {
        if !self.runs(index, boot) {
            return;
        }
        let Some(host) = self.hosts.get(index) else { return };
        if host.conns.contains_key(&relay) && !twin {
            return;
        }
        let barred = host.cut_off_until_us.get(&relay).is_some_and(|until_us| *until_us > self.now_us);
        let seat = self.relays.get(relay).map(|seat| (seat.core.is_some(), seat.boot));
        let Some((true, relay_boot)) = seat.filter(|_| !barred) else {
            let delay_us = self.network.between(200_000, 2_000_000);
            self.after(delay_us, Step::Dial { host: index, boot, relay, twin: false });
            return;
        };
        let Some(place) = self.case.seats.get(index) else { return };
        let (latency_us, bytes_per_s) = (place.latency_us, place.bytes_per_s);
        self.serial += 1;
        let id: ConnId = self.serial;
        let key = SigningKey::from_bytes(&self.keys.bytes32());
        let conn = Conn {
            host: index,
            boot,
            relay,
            relay_boot,
            client_open: true,
            relay_open: false,
            linked: false,
            key,
            token: format!("token-{id}"),
            nonce: [0; 32],
            believed: 0,
            proofs: None,
            paused_until_ms: 0,
            held_back: VecDeque::new(),
            up: Pipe::new(latency_us, bytes_per_s),
            down: Pipe::new(latency_us, bytes_per_s),
        };
        self.conns.insert(id, conn);
        if let Some(host) = self.hosts.get_mut(index) {
            host.conns.insert(relay, id);
        }
        self.note(|| format!("h{index} dials r{relay}: connection {id}"));
        // TCP, TLS, token and upgrade: about three round trips until the relay challenges it.
        self.after(6 * latency_us + 1_000, Step::Opened(id));
    }

    /// The relay has accepted a connection whose token is good.
    pub(super) fn opened(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(seat) = self.relays.get(conn.relay) else { return };
        let broken = !conn.up.whole() || seat.boot != conn.relay_boot || !conn.client_open;
        let Some(audience) = Self::audience(conn.relay).filter(|_| !broken) else {
            self.client_gone(id);
            return;
        };
        conn.relay_open = true;
        let identity = *blake3::hash(format!("{}@{}", conn.host, conn.relay).as_bytes()).as_bytes();
        let mut device = [0; 16];
        device.copy_from_slice(identity.split_at(16).0);
        let connection = ConnectionKey(conn.key.verifying_key().to_bytes());
        let admission = Admission { identity, device: RelayDevice(device), connection, audience };
        let token = conn.token.clone();
        let relay = conn.relay;
        self.relay_feed(relay, core_relay::Input::ConnectionOpened { conn: number(id), admission, token });
        let core = self.relays.get(relay).and_then(|seat| seat.core.as_ref());
        let proofs = core.and_then(|core| core.proofs(number(id)));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.proofs = proofs;
        }
    }

    /// One input to a relay that runs, and everything it asks for.
    fn relay_feed(&mut self, relay: usize, input: core_relay::Input) {
        let now_ms = self.now_us / 1000;
        let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()) else { return };
        core.handle(now_ms, input);
        let (mut left, mut touched) = (Vec::new(), Vec::new());
        while let Some(output) =
            self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()).and_then(core_relay::Relay::poll_output)
        {
            match output {
                core_relay::Output::Send { conn, frame } => {
                    self.relay_sends(conn.0, frame);
                    touched.push(conn.0);
                }
                core_relay::Output::FanOut { frame, conns } => {
                    for conn in conns {
                        self.relay_sends(conn.0, frame.clone());
                        touched.push(conn.0);
                    }
                }
                core_relay::Output::Pause { conn, until_ms } => {
                    if let Some(conn) = self.conns.get_mut(&conn.0) {
                        conn.paused_until_ms = until_ms;
                    }
                    self.at(until_ms * 1000, Step::Unpause(conn.0));
                }
                // Tokens are not renewed here, and each relay is alone.
                core_relay::Output::VerifyToken { .. }
                | core_relay::Output::Refused { .. }
                | core_relay::Output::Subscribe { .. }
                | core_relay::Output::Unsubscribe { .. }
                | core_relay::Output::FabricSend { .. } => {}
                core_relay::Output::Close { conn, code, discard_queue } => {
                    self.note(|| format!("r{relay} closes connection {}: {code:?}", conn.0));
                    if code == Code::Resync {
                        self.witness.overflows += 1;
                    }
                    left.push((conn.0, discard_queue));
                }
            }
        }
        for id in touched {
            self.pump_down(id);
        }
        for (id, discard) in left {
            self.relay_closed(id, discard);
        }
        let Some(seat) = self.relays.get_mut(relay) else { return };
        let Some(at_ms) = seat.core.as_ref().and_then(core_relay::Relay::poll_timeout) else { return };
        let at_us = (at_ms * 1000).max(self.now_us);
        if seat.wake_us.is_none_or(|queued_us| queued_us > at_us) {
            seat.wake_us = Some(at_us);
            let boot = seat.boot;
            self.at(at_us, Step::RelayWake { relay, boot });
        }
    }

    pub(super) fn relay_wake(&mut self, relay: usize, boot: u64) {
        let Some(seat) = self.relays.get_mut(relay) else { return };
        if seat.boot != boot || seat.wake_us != Some(self.now_us) {
            return;
        }
        seat.wake_us = None;
        self.relay_feed(relay, core_relay::Input::Wake);
    }

    fn relay_sends(&mut self, id: ConnId, frame: Bytes) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.relay_open
        {
            conn.down.push(Rank::Control, frame.len() as u64, frame);
        }
    }

    /// The relay's core closed a connection, and has forgotten it.
    fn relay_closed(&mut self, id: ConnId, discard_queue: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.relay_open = false;
        if discard_queue {
            conn.down.discard();
        }
        let at_us = conn.down.last_arrival_us().max(conn.down.next_pull_us().unwrap_or(0));
        // A broken connection does not carry the close either; the client notices in its own time.
        if conn.down.whole() {
            self.at(at_us, Step::ClientGone(id));
        }
    }

    /// A frame reached a relay.
    pub(super) fn up(&mut self, id: ConnId, frame: Bytes) {
        let now_ms = self.now_us / 1000;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.up.arrive() || !conn.relay_open {
            return;
        }
        if conn.paused_until_ms > now_ms || !conn.held_back.is_empty() {
            conn.held_back.push_back(frame);
            return;
        }
        self.take_in(id, frame);
    }

    fn take_in(&mut self, id: ConnId, frame: Bytes) {
        self.digest.update(&frame);
        self.witness.relayed(&frame);
        if let Some(by) = self.conns.get(&id).map(|conn| conn.host) {
            self.overheard(by, &frame);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let relay = conn.relay;
        let Some(frame) = conn.proofs.as_mut().map(|proofs| proofs.check(frame)) else { return };
        self.relay_feed(relay, core_relay::Input::FrameReceived { conn: number(id), frame });
    }

    /// The relay reads again from a connection that was above its rate.
    pub(super) fn unpause(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        while let Some(conn) = self.conns.get_mut(&id)
            && conn.relay_open
            && conn.paused_until_ms <= now_ms
            && let Some(frame) = conn.held_back.pop_front()
        {
            self.take_in(id, frame);
        }
    }

    /// The agent behind a connection, while it believes in it.
    pub(super) fn client_of(&self, id: ConnId) -> Option<usize> {
        let conn = self.conns.get(&id)?;
        (conn.client_open && self.runs(conn.host, conn.boot)).then_some(conn.host)
    }

    /// A frame reached an agent.
    pub(super) fn down(&mut self, id: ConnId, frame: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (host, boot, link) = (conn.host, conn.boot, LinkId(id));
        if !conn.down.arrive() || !conn.client_open || !self.runs(host, boot) {
            return;
        }
        let Ok(frame) = ServerFrame::decode(frame) else {
            self.witness.fail("relay", || format!("a relay sent host {host} what is no frame"));
            return;
        };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(audience) = Self::audience(conn.relay) else { return };
        match frame {
            ServerFrame::Challenge { nonce } => {
                conn.nonce = nonce;
                let prove = ClientFrame::Prove {
                    audience: audience.as_str().to_owned(),
                    connection: ConnectionKey(conn.key.verifying_key().to_bytes()),
                    signature: sign_connect(&conn.key, &audience, &nonce, &conn.token),
                };
                let bytes = prove.encode();
                conn.up.push(Rank::Control, bytes.len() as u64, bytes);
                self.pump_up(id);
            }
            ServerFrame::Welcome { queue_bytes, frame_bytes_max, .. } => {
                conn.linked = true;
                let lan = self.case.profile.lan && conn.relay + 1 == self.case.profile.relays;
                let up = LinkUp {
                    link,
                    kind: if lan { LinkKind::Lan } else { LinkKind::Relay },
                    url: Self::url(conn.relay),
                    audience: audience.as_str().to_owned(),
                    connection: ConnectionKey(conn.key.verifying_key().to_bytes()),
                    nonce: conn.nonce,
                    queue_bytes,
                    frame_bytes_max,
                };
                self.after(PING_AFTER_MS * 1000, Step::Ping(id));
                self.feed(host, Input::LinkUp(up));
            }
            ServerFrame::Error { code, ref message, .. } => {
                // The first two are races that nobody can prevent; the others say that an honest agent erred.
                if !matches!(code, Code::Replaced | Code::NoSuchPeer | Code::NotInRoom) && !self.is_former(host) {
                    let detail = format!("a relay refused host {host}: {code:?} {message}");
                    self.witness.fail("relay", || detail);
                }
                self.feed(host, Input::Frame { link, frame });
            }
            ServerFrame::Pong { .. } | ServerFrame::Refreshed { .. } => {}
            ServerFrame::Deliver { room, from, payload } if self.case.profile.lies > 0 && !self.healed => {
                self.deliver_or_lie(id, Delivery { room, from, payload });
            }
            ServerFrame::Joined { room, you, .. } => {
                self.names.insert((id, room), you);
                self.lying.remember(id, &frame);
                self.feed(host, Input::Frame { link, frame });
            }
            ServerFrame::PeerJoined { .. } => {
                self.poison_soon(host);
                self.feed(host, Input::Frame { link, frame });
            }
            ServerFrame::PeerLeft { .. }
            | ServerFrame::Deliver { .. }
            | ServerFrame::Resync { .. }
            | ServerFrame::Restarting { .. } => self.feed(host, Input::Frame { link, frame }),
        }
    }

    /// The shell keeps an idle connection alive.
    pub(super) fn ping(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.client_open {
            return;
        }
        let bytes = ClientFrame::Ping { number: id }.encode();
        conn.up.push(Rank::Control, bytes.len() as u64, bytes);
        self.pump_up(id);
        self.after(PING_AFTER_MS * 1000, Step::Ping(id));
    }

    /// An agent sends.
    pub(super) fn send(&mut self, index: usize, link: LinkId, rank: Rank, frame: ClientFrame) {
        // Who was removed may hear of it late, and then goes.
        if self.hosts.get(index).is_some_and(|host| host.phase != Phase::Left) && !is_void(self, index) {
            self.count(rank);
        }
        let Some(conn) = self.conns.get_mut(&link.0) else {
            self.witness.fail("link", || format!("host {index} sends on a link that never was"));
            return;
        };
        if conn.host != index || !conn.client_open {
            return;
        }
        let frame = frame.encode();
        conn.believed += frame.len() as u64;
        conn.up.push(rank, frame.len() as u64, frame);
        if conn.up.waiting_bytes() > AGENT_QUEUE_BYTES_MAX {
            self.witness.fail("limits", || format!("host {index} queues more than {AGENT_QUEUE_BYTES_MAX} bytes"));
        }
        self.pump_up(link.0);
    }

    /// The agent's socket takes what it can.
    pub(super) fn pump_up(&mut self, id: ConnId) {
        let jitter_us = self.network.below(300);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut arrivals = Vec::new();
        while let Some(arrival) = conn.up.pull(self.now_us, jitter_us) {
            arrivals.push(arrival);
        }
        let again = conn.up.next_pull_us();
        let report = conn.overestimated();
        for (at_us, frame) in arrivals {
            self.at(at_us, Step::Up(id, frame));
        }
        if let Some(at_us) = again {
            self.at(at_us, Step::PumpUp(id));
        }
        if report {
            // Not from within the machine's own outputs.
            self.after(1, Step::Drained(id));
        }
    }

    /// The shell tells the core that a link takes more.
    pub(super) fn drained(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (host, boot, queued_bytes) = (conn.host, conn.boot, conn.up.waiting_bytes());
        if !conn.overestimated() || !conn.client_open {
            return;
        }
        conn.believed = queued_bytes;
        if self.runs(host, boot) {
            self.feed(host, Input::LinkDrained { link: LinkId(id), queued_bytes });
        }
    }

    /// The relay's socket takes what it can.
    pub(super) fn pump_down(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        let jitter_us = self.network.below(300);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (mut arrivals, mut bytes) = (Vec::new(), 0);
        while let Some((at_us, frame)) = conn.down.pull(self.now_us, jitter_us) {
            bytes += frame.len();
            arrivals.push((at_us, frame));
        }
        let (again, relay, open) = (conn.down.next_pull_us(), conn.relay, conn.relay_open);
        let frames = arrivals.len();
        for (at_us, frame) in arrivals {
            self.at(at_us, Step::Down(id, frame));
        }
        if let Some(at_us) = again {
            self.at(at_us, Step::PumpDown(id));
        }
        if open
            && frames > 0
            && let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut())
        {
            // Asks for nothing, so there is nothing to drain.
            core.handle(now_ms, core_relay::Input::QueueDrained { conn: number(id), bytes, frames });
        }
    }

    /// Breaks a connection; each side notices after at most `notice_us`.
    pub(super) fn cut(&mut self, id: ConnId, notice_us: u64) {
        let (pick_up, pick_down) = (self.network.any(), self.network.any());
        let (client_us, relay_us) = (self.network.between(0, notice_us), self.network.between(0, notice_us));
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.up.cut(pick_up);
        conn.down.cut(pick_down);
        self.note(|| format!("connection {id} breaks; noticed after {client_us} and {relay_us} us"));
        self.after(client_us, Step::ClientGone(id));
        self.after(relay_us, Step::RelayGone(id));
    }

    /// The agent notices that a connection is gone.
    pub(super) fn client_gone(&mut self, id: ConnId) {
        let delay_us = self.network.between(50_000, 1_500_000);
        let pick = self.network.any();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.client_open {
            return;
        }
        conn.client_open = false;
        conn.up.cut(pick);
        let (index, boot, relay) = (conn.host, conn.boot, conn.relay);
        let linked = conn.linked;
        self.after(1_000, Step::RelayGone(id));
        if !self.runs(index, boot) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(index)
            && host.conns.get(&relay) == Some(&id)
        {
            host.conns.remove(&relay);
            self.after(delay_us, Step::Dial { host: index, boot, relay, twin: false });
        }
        if linked {
            self.feed(index, Input::LinkDown { link: LinkId(id) });
        }
    }

    /// Whether every member that runs is truly connected to every relay it can reach, whatever it believes.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.active().all(|(index, host)| {
            let relays = self.case.seats.get(index).map(|seat| seat.relays.as_slice()).unwrap_or_default();
            relays.iter().all(|relay| {
                let conn = host.conns.get(relay).and_then(|id| self.conns.get(id));
                conn.is_some_and(|conn| conn.linked && conn.client_open && conn.relay_open && conn.up.whole())
            })
        })
    }

    /// The relay notices that a connection is gone.
    pub(super) fn relay_gone(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.relay_open {
            return;
        }
        conn.relay_open = false;
        let relay = conn.relay;
        self.relay_feed(relay, core_relay::Input::ConnectionClosed { conn: number(id) });
    }

    /// Every connection of a host breaks with its agent.
    pub(super) fn drop_connections(&mut self, index: usize, notice_us: u64) {
        let mine: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.host == index && conn.client_open).map(|(id, _)| *id).collect();
        for id in mine {
            self.cut(id, notice_us);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.client_open = false;
            }
        }
    }

    /// A relay dies and takes all its connections with it.
    pub(super) fn relay_stop(&mut self, relay: usize) {
        let Some(seat) = self.relays.get_mut(relay) else { return };
        seat.core = None;
        seat.wake_us = None;
        seat.boot += 1;
        let theirs: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.relay == relay && (conn.client_open || conn.relay_open))
            .map(|(id, _)| *id)
            .collect();
        for id in theirs {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.relay_open = false;
            }
            self.cut(id, 200_000);
        }
    }

    pub(super) fn relay_start(&mut self, relay: usize) {
        let seed = self.keys.bytes32();
        if let Some(seat) = self.relays.get_mut(relay)
            && seat.core.is_none()
        {
            seat.core = Some(core_relay::Relay::new(Settings::default(), seed));
            self.note(|| format!("r{relay} starts"));
        }
    }
}
