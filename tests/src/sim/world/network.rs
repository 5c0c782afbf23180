//! Connections between agents and relays.
//!
//! Spec: docs/simulation.md#network.

use weft_agent_core::workspace::input::{Input, LinkId, LinkKind, LinkUp};
use weft_agent_core::workspace::output::Rank;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice};

use super::{Step, World};
use crate::sim::machine::Machine;
use crate::sim::relay::{ConnId, Effect, Hello, Relay};
use crate::sim::wire::Pipe;

/// The shell reports a link as drained when less than this waits, in bytes.
const DRAINED_BYTES: u64 = 256 * 1024;
/// What the shell may send before it reports again how much waits, in bytes.
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
    hello: Hello,
    queue_bytes: u64,
    unreported: u64,
    up: Pipe<ClientFrame>,
    down: Pipe<ServerFrame>,
}

impl<M: Machine, R: Relay> World<M, R> {
    fn audience(relay: usize) -> String {
        format!("relay{relay}:8787")
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
        let mut device = [0; 16];
        device.copy_from_slice(blake3::hash(format!("{index}@{relay}").as_bytes()).as_bytes().split_at(16).0);
        let hello = Hello {
            connection: ConnectionKey(self.keys.bytes32()),
            device: RelayDevice(device),
            audience: Self::audience(relay),
            nonce: self.keys.bytes32(),
        };
        let conn = Conn {
            host: index,
            boot,
            relay,
            relay_boot,
            client_open: true,
            relay_open: false,
            hello,
            queue_bytes: 4 << 20,
            unreported: 0,
            up: Pipe::new(latency_us, bytes_per_s),
            down: Pipe::new(latency_us, bytes_per_s),
        };
        self.conns.insert(id, conn);
        if let Some(host) = self.hosts.get_mut(index) {
            host.conns.insert(relay, id);
        }
        self.note(|| format!("h{index} dials r{relay}: connection {id}"));
        // TCP, TLS, token, upgrade, challenge: about four round trips until the relay has admitted it.
        self.after(7 * latency_us + 1_000, Step::Opened(id));
    }

    /// The relay has admitted a connection.
    pub(super) fn opened(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(seat) = self.relays.get_mut(conn.relay) else { return };
        let broken = !conn.up.whole() || seat.boot != conn.relay_boot;
        let Some(core) = seat.core.as_mut().filter(|_| !broken && conn.client_open) else {
            self.client_gone(id);
            return;
        };
        conn.relay_open = true;
        core.open(now_ms, id, conn.hello.clone());
        let relay = conn.relay;
        self.relay_effects(relay);
    }

    /// What a relay's core wants done, now.
    fn relay_effects(&mut self, relay: usize) {
        while let Some(effect) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()).and_then(Relay::poll) {
            match effect {
                Effect::Send(receivers, frame) => {
                    let bytes = server_bytes(&frame);
                    for id in receivers {
                        let Some(conn) = self.conns.get_mut(&id) else { continue };
                        if !conn.relay_open {
                            continue;
                        }
                        conn.down.push(Rank::Control, bytes, frame.clone());
                        if conn.down.waiting_bytes() > conn.queue_bytes {
                            // The slow consumer is closed; it reconnects and reconciles.
                            self.witness.overflows += 1;
                            self.relay_closes(id);
                        } else {
                            self.pump_down(id);
                        }
                    }
                }
                Effect::Close(id, why) => {
                    self.note(|| format!("r{relay} closes connection {id}: {why}"));
                    self.relay_closes(id);
                }
            }
        }
    }

    fn relay_closes(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.relay_open {
            return;
        }
        conn.relay_open = false;
        let (relay, at_us) = (conn.relay, conn.down.last_arrival_us());
        // A broken connection does not carry the close either; the client notices in its own time.
        if conn.down.whole() {
            self.at(at_us.max(self.now_us), Step::ClientGone(id));
        }
        if let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()) {
            core.close(now_ms, id);
        }
        self.relay_effects(relay);
    }

    /// A frame reached a relay.
    pub(super) fn up(&mut self, id: ConnId, frame: ClientFrame) {
        let now_ms = self.now_us / 1000;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.up.arrive() || !conn.relay_open {
            return;
        }
        if let ClientFrame::Publish { payload, .. } | ClientFrame::Send { payload, .. } = &frame {
            self.digest.update(payload);
            self.witness.relayed(payload);
        }
        let relay = conn.relay;
        if let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()) {
            core.frame(now_ms, id, frame);
        }
        self.relay_effects(relay);
    }

    /// A frame reached an agent.
    pub(super) fn down(&mut self, id: ConnId, frame: ServerFrame) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (host, boot, link) = (conn.host, conn.boot, LinkId(id));
        if !conn.down.arrive() || !conn.client_open || !self.runs(host, boot) {
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match frame {
            ServerFrame::Welcome { queue_bytes, frame_bytes_max, .. } => {
                conn.queue_bytes = u64::from(queue_bytes);
                let lan = self.case.profile.lan && conn.relay + 1 == self.case.profile.relays;
                let up = LinkUp {
                    link,
                    kind: if lan { LinkKind::Lan } else { LinkKind::Relay },
                    url: Self::url(conn.relay),
                    audience: conn.hello.audience.clone(),
                    connection: conn.hello.connection,
                    nonce: conn.hello.nonce,
                    queue_bytes,
                    frame_bytes_max,
                };
                self.feed(host, Input::LinkUp(up));
            }
            ServerFrame::Error { code, ref message, .. } => {
                let detail = format!("a relay refused host {host}: {code:?} {message}");
                self.witness.fail("relay", || detail);
            }
            ServerFrame::Challenge { .. } | ServerFrame::Pong { .. } | ServerFrame::Refreshed { .. } => {}
            ServerFrame::Joined { .. }
            | ServerFrame::PeerJoined { .. }
            | ServerFrame::PeerLeft { .. }
            | ServerFrame::Deliver { .. }
            | ServerFrame::Resync { .. }
            | ServerFrame::Restarting { .. } => self.feed(host, Input::Frame { link, frame }),
        }
    }

    /// An agent sends.
    pub(super) fn send(&mut self, index: usize, link: LinkId, rank: Rank, frame: ClientFrame) {
        self.count(rank);
        let Some(conn) = self.conns.get_mut(&link.0) else {
            self.witness.fail("link", || format!("host {index} sends on a link that never was"));
            return;
        };
        if conn.host != index || !conn.client_open {
            return;
        }
        let bytes = client_bytes(&frame);
        conn.unreported += bytes;
        conn.up.push(rank, bytes, frame);
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
        let report = conn.unreported >= REPORT_BYTES && conn.up.waiting_bytes() < DRAINED_BYTES;
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
        if conn.unreported < REPORT_BYTES || queued_bytes >= DRAINED_BYTES || !conn.client_open {
            return;
        }
        conn.unreported = 0;
        if self.runs(host, boot) {
            self.feed(host, Input::LinkDrained { link: LinkId(id), queued_bytes });
        }
    }

    /// The relay's socket takes what it can.
    pub(super) fn pump_down(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        let jitter_us = self.network.below(300);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut arrivals = Vec::new();
        while let Some(arrival) = conn.down.pull(self.now_us, jitter_us) {
            arrivals.push(arrival);
        }
        let (again, waiting, relay) = (conn.down.next_pull_us(), conn.down.waiting_bytes(), conn.relay);
        let open = conn.relay_open;
        for (at_us, frame) in arrivals {
            self.at(at_us, Step::Down(id, frame));
        }
        if let Some(at_us) = again {
            self.at(at_us, Step::PumpDown(id));
        }
        if open && let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()) {
            core.drained(now_ms, id, waiting);
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
        self.feed(index, Input::LinkDown { link: LinkId(id) });
    }

    /// The relay notices that a connection is gone.
    pub(super) fn relay_gone(&mut self, id: ConnId) {
        let now_ms = self.now_us / 1000;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.relay_open {
            return;
        }
        conn.relay_open = false;
        let relay = conn.relay;
        if let Some(core) = self.relays.get_mut(relay).and_then(|seat| seat.core.as_mut()) {
            core.close(now_ms, id);
        }
        self.relay_effects(relay);
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
            seat.core = Some(R::start(seed));
            self.note(|| format!("r{relay} starts"));
        }
    }
}

/// About how many bytes a frame has on the wire.
fn client_bytes(frame: &ClientFrame) -> u64 {
    match frame {
        ClientFrame::Publish { payload, .. } => 44 + payload.len() as u64,
        ClientFrame::Send { payload, .. } => 62 + payload.len() as u64,
        ClientFrame::Prove { .. } | ClientFrame::Join { .. } | ClientFrame::Refresh { .. } => 180,
        ClientFrame::Leave { .. } | ClientFrame::Ping { .. } => 44,
    }
}

fn server_bytes(frame: &ServerFrame) -> u64 {
    match frame {
        ServerFrame::Deliver { payload, .. } => 62 + payload.len() as u64,
        ServerFrame::Joined { peers, .. } => 62 + 36 * peers.len() as u64,
        ServerFrame::Challenge { .. }
        | ServerFrame::Welcome { .. }
        | ServerFrame::PeerJoined { .. }
        | ServerFrame::PeerLeft { .. }
        | ServerFrame::Resync { .. }
        | ServerFrame::Refreshed { .. }
        | ServerFrame::Restarting { .. }
        | ServerFrame::Error { .. }
        | ServerFrame::Pong { .. } => 80,
    }
}
