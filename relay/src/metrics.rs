//! What a relay counts, for Prometheus.
//!
//! What the machine knows anyway is read from it when somebody asks, so that a message costs no counter; here stand the
//! few things that happen outside of it. Invariant: no label holds an id, an address or a DID, so that the number of
//! series is bounded by this file.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use weft_protocol::code::Code;

use crate::did::CacheFigures;
use crate::hub::Snapshot;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

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
}

impl Metrics {
    pub(crate) fn new() -> Self {
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
            registry: Registry::default(),
        };
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
        Self { registry, ..made }
    }

    pub(crate) fn closed(&self, code: Code) {
        self.closes.get_or_create(&ByCode { code: code.name() }).inc();
    }

    pub(crate) fn refused(&self, code: Code) {
        self.refusals.get_or_create(&ByCode { code: code.name() }).inc();
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
        self.reloads.get_or_create(&ByResult { result: if good { "good" } else { "failed" } }).inc();
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn text(&self, now: &Snapshot, dids: &CacheFigures) -> Result<String, std::fmt::Error> {
        let mut moment = Registry::with_prefix("weft_relay");
        let mut gauge = |name: &str, help: &str, value: u64| {
            moment.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        let figures = &now.figures;
        gauge("connections", "Connections now", figures.connections as u64);
        gauge("rooms", "Rooms with somebody in them", figures.rooms as u64);
        gauge("queue_bytes", "Bytes that wait for all clients", now.queue_bytes as u64);
        gauge("queue_bytes_largest", "Bytes that wait for the slowest client", now.queue_bytes_largest as u64);
        gauge("draining", "1 while it says goodbye", u64::from(now.draining));
        gauge("did_cache_entries", "DID documents kept", dids.entries);
        gauge("fabric_connected", "1 while NATS is connected; 0 too if there is none", u64::from(figures.fabric_up));
        gauge("fabric_rooms", "Rooms subscribed to", figures.fabric_rooms as u64);
        gauge("fabric_peers", "Peers at other relays", figures.fabric_peers as u64);
        let mut counter = |name: &str, help: &str, value: u64| moment.register(name, help, ConstCounter::new(value));
        counter("received_frames", "Frames taken in", figures.received);
        counter("delivered_frames", "Frames handed out, one a receiver", figures.delivered);
        counter("resyncs", "Clients closed because they read too slowly", figures.resyncs);
        counter("refused_frames", "Refusals named on a connection", figures.refused);
        counter("fabric_gaps", "Gaps seen in what other relays sent; members were told to reconcile", figures.gaps);
        counter("did_cache_hits", "DIDs answered from the cache", dids.hits);
        counter("did_fetches", "DID documents fetched", dids.fetches);
        counter("did_failures", "DID documents that could not be had", dids.failures);
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)?;
        text::encode_registry(&mut out, &moment)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}
