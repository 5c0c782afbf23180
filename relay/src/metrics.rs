//! What a relay counts, for Prometheus.
//!
//! What the machine knows anyway is read from it when somebody asks, so that a message costs no counter; here stand the
//! few things that happen outside of it. Invariant: no label holds an id, an address or a DID, so that the number of
//! series is bounded by this file. Every series is there from the start, at zero: of one that appears with its first event,
//! `increase()` sees nothing, and an alert on it stays silent the first time.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use weft_protocol::code::Code;
use weft_relay_core::Settings;

use crate::did::CacheFigures;
use crate::hub::Snapshot;
use crate::policy::Barrier;
use crate::process::{ProcessFigures, unix_seconds};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    why: &'static str,
}

/// What an operator set, shown beside what it bounds.
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_ip_max: usize,
    pub(crate) token_requests_per_minute: u32,
    pub(crate) settings: Settings,
    /// Whether other relays are to be met.
    pub(crate) fabric: bool,
}

/// What is read when somebody asks.
pub(crate) struct Moment<'a> {
    pub(crate) hub: &'a Snapshot,
    pub(crate) dids: &'a CacheFigures,
    pub(crate) process: ProcessFigures,
    /// DIDs in the block file, and addresses and networks.
    pub(crate) blocked: (usize, usize),
    /// Bytes that messages of which a part has come hold.
    pub(crate) unfinished_bytes: usize,
}

/// Results of reading a file again.
const GOOD: &str = "good";
const FAILED: &str = "failed";

/// Counters that live as long as the relay.
pub(crate) struct Metrics {
    registry: Registry,
    closes: Family<ByCode, Counter>,
    refusals: Family<ByCode, Counter>,
    tokens: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    waited: Histogram,
    turned_away: Counter,
    fabric_dropped: Counter,
    reloads: Family<ByResult, Counter>,
    refused_frames: Family<ByCode, Counter>,
    not_allowed: Family<ByReason, Counter>,
    limits: Limits,
    started_seconds: f64,
}

impl Metrics {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut registry = Registry::with_prefix("weft_relay");
        // 50 microseconds to 13 seconds.
        let waited = Histogram::new((0..10).map(|power| 50e-6 * 4f64.powi(power)));
        let made = Self {
            closes: Family::default(),
            refusals: Family::default(),
            tokens: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            waited: waited.clone(),
            turned_away: Counter::default(),
            fabric_dropped: Counter::default(),
            reloads: Family::default(),
            refused_frames: Family::default(),
            not_allowed: Family::default(),
            limits,
            started_seconds: unix_seconds(),
            registry: Registry::default(),
        };
        for code in Code::ALL {
            for family in [&made.closes, &made.refusals, &made.refused_frames] {
                drop(family.get_or_create(&ByCode { code: code.name() }));
            }
        }
        for result in [GOOD, FAILED] {
            drop(made.reloads.get_or_create(&ByResult { result }));
        }
        for why in Barrier::NAMES {
            drop(made.not_allowed.get_or_create(&ByReason { why }));
        }
        registry.register("closes", "Connections closed by the relay, by code", made.closes.clone());
        registry.register("refusals", "Refusals over HTTP, by code", made.refusals.clone());
        registry.register("tokens", "Tokens given out", made.tokens.clone());
        registry.register("received_bytes", "Bytes of frames taken in", made.bytes_in.clone());
        registry.register("sent_bytes", "Bytes of frames written out", made.bytes_out.clone());
        registry.register(
            "fanout_seconds",
            "From being queued to being written, of the oldest frame of each flush",
            waited,
        );
        registry.register("turned_away", "Connections above a limit, closed unread", made.turned_away.clone());
        registry.register(
            "fabric_dropped",
            "Messages to other relays that did not fit the queue; their members reconcile",
            made.fabric_dropped.clone(),
        );
        registry.register("reloads", "Files read again, by result", made.reloads.clone());
        registry.register("frame_refusals", "Refusals named on a connection, by code", made.refused_frames.clone());
        registry.register(
            "not_allowed",
            "Refusals by what the operator set: the secret, the list of DIDs, the block file",
            made.not_allowed.clone(),
        );
        Self { registry, ..made }
    }

    pub(crate) fn closed(&self, code: Code) {
        self.closes.get_or_create(&ByCode { code: code.name() }).inc();
    }

    pub(crate) fn refused(&self, code: Code) {
        self.refusals.get_or_create(&ByCode { code: code.name() }).inc();
    }

    pub(crate) fn refused_frame(&self, code: Code) {
        self.refused_frames.get_or_create(&ByCode { code: code.name() }).inc();
    }

    /// `why` is the name of a [`Barrier`].
    pub(crate) fn not_allowed(&self, why: &'static str) {
        self.not_allowed.get_or_create(&ByReason { why }).inc();
    }

    pub(crate) fn token(&self) {
        self.tokens.inc();
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.inc_by(bytes as u64);
    }

    /// One flush was written; its oldest frame had waited so long.
    pub(crate) fn sent(&self, bytes: usize, waited: Duration) {
        self.bytes_out.inc_by(bytes as u64);
        self.waited.observe(waited.as_secs_f64());
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }

    pub(crate) fn fabric_dropped(&self) {
        self.fabric_dropped.inc();
    }

    pub(crate) fn reloaded(&self, good: bool) {
        self.reloads.get_or_create(&ByResult { result: if good { GOOD } else { FAILED } }).inc();
    }

    /// What every program shows, under the names that it has everywhere.
    fn process(&self, now: &ProcessFigures) -> Registry {
        let mut registry = Registry::with_prefix("process");
        if let Some(seconds) = now.cpu_seconds {
            registry.register("cpu_seconds", "Processor time", ConstCounter::new(seconds));
        }
        let start = ConstGauge::new(self.started_seconds);
        registry.register("start_time_seconds", "When it started, in Unix seconds", start);
        let mut gauge = |name: &str, help: &str, value: Option<u64>| {
            if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
                registry.register(name, help, ConstGauge::new(value));
            }
        };
        gauge("resident_memory_bytes", "Memory in use", now.resident_bytes);
        gauge("open_fds", "Open files, connections included", now.open_files);
        gauge("max_fds", "Open files that may be", now.open_files_max);
        registry
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn text(&self, at: &Moment<'_>) -> Result<String, std::fmt::Error> {
        let (now, dids) = (at.hub, at.dids);
        let mut moment = Registry::with_prefix("weft_relay");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        moment.register("build", "The version that runs", version);
        let mut gauge = |name: &str, help: &str, value: u64| {
            moment.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        let figures = &now.figures;
        gauge("connections", "Connections now", figures.connections as u64);
        gauge("rooms", "Rooms with somebody in them", figures.rooms as u64);
        gauge("queue_bytes", "Bytes that wait for all clients", now.queue_bytes as u64);
        gauge("queue_bytes_largest", "Bytes that wait for the slowest client", now.queue_bytes_largest as u64);
        gauge("unfinished_bytes", "Bytes held for messages of which a part has come", at.unfinished_bytes as u64);
        gauge("draining", "1 while it says goodbye", u64::from(now.draining));
        gauge("did_cache_entries", "DID documents kept", dids.entries);
        gauge("blocked_dids", "DIDs in the block file", at.blocked.0 as u64);
        gauge("blocked_networks", "Addresses and networks in the block file", at.blocked.1 as u64);
        let limits = &self.limits;
        gauge("connections_max", "Connections that may be", limits.connections_max as u64);
        gauge("connections_per_ip_max", "Connections that an address may have", limits.connections_per_ip_max as u64);
        gauge(
            "token_requests_per_minute",
            "Token requests that an address may make a minute",
            u64::from(limits.token_requests_per_minute),
        );
        gauge("room_peers_max", "Peers that a room may have", limits.settings.room_peers_max as u64);
        gauge(
            "rooms_per_connection_max",
            "Rooms that a connection may be in",
            limits.settings.rooms_per_connection_max as u64,
        );
        gauge("queue_bytes_max", "Bytes that may wait for a client", limits.settings.queue_bytes_max as u64);
        gauge("queue_frames_max", "Frames that may wait for a client", limits.settings.queue_frames_max as u64);
        gauge("fabric_configured", "1 if other relays are to be met over NATS", u64::from(limits.fabric));
        gauge("fabric_connected", "1 while NATS is connected; 0 too if there is none", u64::from(figures.fabric_up));
        gauge("fabric_rooms", "Rooms subscribed to", figures.fabric_rooms as u64);
        gauge("fabric_peers", "Peers at other relays", figures.fabric_peers as u64);
        let mut counter = |name: &str, help: &str, value: u64| moment.register(name, help, ConstCounter::new(value));
        counter("received_frames", "Frames taken in", figures.received);
        counter("delivered_frames", "Frames handed out, one a receiver", figures.delivered);
        counter("resyncs", "Clients closed because they read too slowly", figures.resyncs);
        counter("refused_frames", "Refusals named on a connection", figures.refused);
        counter("fabric_garbage", "Messages of other relays that could not be understood", figures.fabric_garbage);
        counter("fabric_gaps", "Gaps seen in what other relays sent; members were told to reconcile", figures.gaps);
        counter("did_cache_hits", "DIDs answered from the cache", dids.hits);
        counter("did_fetches", "DID documents fetched", dids.fetches);
        counter("did_failures", "DID documents that could not be had", dids.failures);
        let process = self.process(&at.process);
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)?;
        text::encode_registry(&mut out, &moment)?;
        text::encode_registry(&mut out, &process)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}
