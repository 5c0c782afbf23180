//! DID documents that were fetched: fresh for an hour, used stale for a day while a new one is fetched behind, failures kept
//! for a minute, one fetch at a time a DID, bounded in number.
//!
//! Invariant: whoever asks, a DID is fetched at most once at a time, and again for a wrong signature at most once in
//! [`CacheTimes::refresh_every`]. Spec: docs/protocol.md#dids.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use weft_protocol::code::Code;
use weft_relay_core::shares::Network;

use super::document::Document;
use super::fetch::{Fetcher, Place, Target};
use crate::config::DidConfig;

/// Documents that are kept. One takes about a kilobyte.
const DOCUMENTS_MAX: u64 = 10_000;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheTimes {
    /// A document is used without a look behind it.
    pub fresh: Duration,
    /// A document is used at all.
    pub stale: Duration,
    /// A failure is not tried again.
    pub negative: Duration,
    /// A wrong signature has a DID fetched again at most once in this time.
    pub refresh_every: Duration,
}

impl Default for CacheTimes {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(3600),
            stale: Duration::from_secs(24 * 3600),
            negative: Duration::from_secs(60),
            refresh_every: Duration::from_secs(300),
        }
    }
}

/// What was found, or that nothing was.
struct Entry {
    found: Result<Arc<Document>, Code>,
    since: Instant,
    /// Milliseconds after `since` before which nobody looks behind it again.
    next_look_ms: AtomicU64,
}

struct Ends(CacheTimes);

impl Expiry<String, Arc<Entry>> for Ends {
    fn expire_after_create(&self, _: &String, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(if entry.found.is_ok() { self.0.stale } else { self.0.negative })
    }

    fn expire_after_update(
        &self,
        did: &String,
        entry: &Arc<Entry>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(did, entry, at)
    }
}

/// Counts for metrics.
#[derive(Debug, Default)]
pub(crate) struct CacheFigures {
    pub(crate) entries: u64,
    pub(crate) hits: u64,
    pub(crate) fetches: u64,
    pub(crate) failures: u64,
}

/// A document, and whether this very question had it fetched.
pub(crate) struct Kept {
    pub(crate) document: Arc<Document>,
    pub(crate) fetched_now: bool,
}

#[derive(Clone)]
pub(crate) struct Resolver(Arc<Inner>);

struct Inner {
    plc_url: String,
    development: bool,
    times: CacheTimes,
    fetcher: Fetcher,
    entries: Cache<String, Arc<Entry>>,
    refreshed: Cache<String, ()>,
    hits: AtomicU64,
    fetches: AtomicU64,
    failures: AtomicU64,
}

impl Resolver {
    pub(crate) fn new(config: &DidConfig, development: bool) -> Self {
        let times = config.times;
        Self(Arc::new(Inner {
            plc_url: config.plc_url.clone(),
            development,
            times,
            fetcher: Fetcher::new(config.ca.clone(), config.lookup.clone(), config.reachable),
            entries: Cache::builder().max_capacity(DOCUMENTS_MAX).expire_after(Ends(times)).build(),
            refreshed: Cache::builder().max_capacity(DOCUMENTS_MAX).time_to_live(times.refresh_every).build(),
            hits: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    /// The document of a did:web or did:plc, for somebody from this network.
    ///
    /// # Errors
    /// [`Code::UnknownDid`], [`Code::DidUnreachable`], or [`Code::RateLimited`] if the network asks for too many at once.
    pub(crate) async fn get(&self, did: &str, network: Network) -> Result<Kept, Code> {
        let inner = &self.0;
        // What can be told from the text alone takes no place in the cache.
        let target = inner.target(did).ok_or(Code::UnknownDid)?;
        // Before the cache is asked: that one network asks for too much must not be kept as an answer for others.
        let place = if inner.entries.contains_key(did) { None } else { Some(inner.fetcher.place(network).await?) };
        let entry = inner.entries.entry_by_ref(did).or_insert_with(inner.fetch(did, &target, place)).await;
        let fetched_now = entry.is_fresh();
        let entry = entry.into_value();
        if !fetched_now {
            inner.hits.fetch_add(1, Ordering::Relaxed);
            self.look_behind(did, &entry);
        }
        entry.found.clone().map(|document| Kept { document, fetched_now })
    }

    /// Fetches a stale document again while it goes on being used.
    fn look_behind(&self, did: &str, entry: &Arc<Entry>) {
        let times = &self.0.times;
        let age_ms = entry.since.elapsed().as_millis() as u64;
        let next_ms = entry.next_look_ms.load(Ordering::Relaxed);
        if entry.found.is_err() || age_ms < next_ms {
            return;
        }
        let later_ms = age_ms + times.negative.as_millis() as u64;
        let ours = entry.next_look_ms.compare_exchange(next_ms, later_ms, Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() {
            let (inner, did) = (self.0.clone(), did.to_owned());
            tokio::spawn(async move { inner.fetch_again(&did, None).await });
        }
    }

    /// Fetches a document again because of a wrong signature; `None` if that was done a moment ago, or failed.
    pub(crate) async fn refresh(&self, did: &str, network: Network) -> Option<Arc<Document>> {
        let place = self.0.fetcher.place(network).await.ok()?;
        if !self.0.refreshed.entry_by_ref(did).or_insert(()).await.is_fresh() {
            return None;
        }
        self.0.fetch_again(did, Some(place)).await
    }

    pub(crate) async fn figures(&self) -> CacheFigures {
        let inner = &self.0;
        inner.entries.run_pending_tasks().await;
        CacheFigures {
            entries: inner.entries.entry_count(),
            hits: inner.hits.load(Ordering::Relaxed),
            fetches: inner.fetches.load(Ordering::Relaxed),
            failures: inner.failures.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn target(&self, did: &str) -> Option<Target> {
        Target::of_did_web(did, self.development).or_else(|| Target::of_did_plc(did, &self.plc_url))
    }

    #[tracing::instrument(name = "resolve", skip_all)]
    async fn fetch(&self, did: &str, target: &Target, place: Option<Place>) -> Arc<Entry> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let found = self.fetcher.get(target, place).await;
        let found = found.and_then(|json| Document::parse(did, &json)).map(Arc::new);
        if found.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let next_look_ms = AtomicU64::new(self.times.fresh.as_millis() as u64);
        Arc::new(Entry { found, since: Instant::now(), next_look_ms })
    }

    /// Replaces what is kept, unless nobody could be reached: then the old document is better than none.
    async fn fetch_again(&self, did: &str, place: Option<Place>) -> Option<Arc<Document>> {
        let entry = self.fetch(did, &self.target(did)?, place).await;
        if !matches!(entry.found, Err(Code::DidUnreachable)) {
            self.entries.insert(did.to_owned(), entry.clone()).await;
        }
        entry.found.clone().ok()
    }
}
