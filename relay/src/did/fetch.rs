//! Fetches DID documents: one GET, no redirects, 3 s, 64 KiB.
//!
//! Invariant: it connects only to an address that this very fetch resolved and checked, so that a name that answers
//! differently the second time gains nothing. Why our own connector: common clients resolve a name again when they connect.
//! And a place among [`FETCHES_MAX`] is held until the name is answered, however long ago everybody stopped waiting for it: the
//! system's resolver takes a thread each and cannot be told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use weft_protocol::code::Code;
use weft_relay_core::shares::{Network, Shares};

use crate::tls::certificates;

/// All of a fetch: waiting for a place, name, connection, answer.
const FETCH_MAX: Duration = Duration::from_secs(3);
/// Largest document.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Fetches at once; each is bounded by [`FETCH_MAX`], so others wait a moment or give up.
const FETCHES_MAX: usize = 64;
/// How often somebody who waits for a place looks for one.
const PLACE_EVERY: Duration = Duration::from_millis(50);
/// What a relay calls itself.
const RELAY: &str = concat!("weft-relay/", env!("CARGO_PKG_VERSION"));
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// What [`Lookup`] gives.
pub type LookupFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Answers names with addresses. A seam: tests answer as attackers do.
pub trait Lookup: Send + Sync {
    /// All addresses of a name, with the port.
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LookupFuture<'a>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LookupFuture<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// What to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    /// Whether strangers named it; the operator's own choice is not filtered.
    pub(crate) guarded: bool,
}

impl Target {
    /// Where the document of a did:web is.
    pub(crate) fn of_did_web(did: &str, development: bool) -> Option<Self> {
        let mut parts = did.strip_prefix("did:web:")?.split(':');
        let authority = parts.next()?;
        let (host, port) = match authority.split_once("%3A").or_else(|| authority.split_once("%3a")) {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|&port| port > 0)?)),
            None => (authority, None),
        };
        let plain = |text: &str, extra: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        if !plain(host, b".-") || host.len() > 253 {
            return None;
        }
        let segments: Vec<&str> = parts.collect();
        if segments.iter().any(|segment| !plain(segment, b"._~-") || matches!(*segment, "." | "..")) {
            return None;
        }
        let folder = if segments.is_empty() { ".well-known".to_owned() } else { segments.join("/") };
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let https = !(development && local);
        let port = port.unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host: host.to_owned(), port, path: format!("/{folder}/did.json"), guarded: !development })
    }

    /// Where the document of a did:plc is.
    pub(crate) fn of_did_plc(did: &str, directory: &str) -> Option<Self> {
        let id = did.strip_prefix("did:plc:")?;
        if id.len() != 24 || !id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')) {
            return None;
        }
        let uri: Uri = directory.parse().ok()?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = format!("{}/{did}", uri.path().trim_end_matches('/'));
        Some(Self { https, host, port, path, guarded: false })
    }
}

pub(crate) struct Fetcher {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) reachable: fn(IpAddr) -> bool,
    pub(crate) tls: OnceLock<Arc<ClientConfig>>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) shares: Arc<Mutex<Shares>>,
    /// What it calls itself.
    pub(crate) user_agent: &'static str,
}

/// A network's place for one fetch; free when the last copy is dropped.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] Arc<Held>);

struct Held {
    shares: Arc<Mutex<Shares>>,
    network: Network,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).give(self.network, 1);
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Fetcher {
    pub(crate) fn new(ca: Option<PathBuf>, lookup: Arc<dyn Lookup>, reachable: fn(IpAddr) -> bool) -> Self {
        let (places, shares) = (Arc::new(Semaphore::new(FETCHES_MAX)), Arc::default());
        Self { ca, lookup, reachable, tls: OnceLock::new(), places, shares, user_agent: RELAY }
    }

    /// A place for a fetch that somebody from this network asked for; waits a moment for one.
    ///
    /// # Errors
    /// [`Code::RateLimited`] if the network has as many under way as are free for others.
    pub(crate) async fn place(&self, network: Network) -> Result<Place, Code> {
        let take = || {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.take(network, 1, FETCHES_MAX, None)
        };
        let waiting = async {
            while !take() {
                tokio::time::sleep(PLACE_EVERY).await;
            }
        };
        match tokio::time::timeout(FETCH_MAX, waiting).await {
            Ok(()) => Ok(Place(Arc::new(Held { shares: self.shares.clone(), network }))),
            Err(_) => Err(Code::RateLimited),
        }
    }

    /// The bytes at a target.
    ///
    /// # Errors
    /// [`Code::UnknownDid`] where there is none, else [`Code::DidUnreachable`].
    pub(crate) async fn get(&self, target: &Target, place: Option<Place>) -> Result<Bytes, Code> {
        match tokio::time::timeout(FETCH_MAX, self.fetch(target, place)).await {
            Ok(Ok(found)) => found.ok_or(Code::UnknownDid),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a DID document could not be fetched");
                Err(Code::DidUnreachable)
            }
            Err(_) => {
                tracing::debug!("a DID document did not come in time");
                Err(Code::DidUnreachable)
            }
        }
    }

    async fn fetch(&self, target: &Target, place: Option<Place>) -> anyhow::Result<Option<Bytes>> {
        match self.exchange(target, |status| status == StatusCode::OK, place).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Ok(None),
            // Redirects are not followed: their target was not checked.
            (other, _) => anyhow::bail!("the answer is {other}"),
        }
    }

    /// Asks without a limit in time; an answer whose body is not `wanted` has none here.
    pub(crate) async fn exchange(
        &self,
        target: &Target,
        wanted: fn(StatusCode) -> bool,
        place: Option<Place>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let held = (Arc::new(self.places.clone().acquire_owned().await?), place);
        let stream = self.connect(target, held.clone()).await?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(16 << 10).handshake(TokioIo::new(stream)).await?;
        let _running = AbortOnDropHandle::new(tokio::spawn(connection));
        let authority = match (target.https, target.port) {
            (true, 443) | (false, 80) => target.host.clone(),
            _ => format!("{}:{}", target.host, target.port),
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(&target.path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/did+ld+json, application/did+json, application/json")
            .header(header::USER_AGENT, self.user_agent)
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if !wanted(status) {
            return Ok((status, Bytes::new()));
        }
        match Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) => anyhow::bail!("the document broke off or is too large: {error}"),
        }
    }

    async fn connect(
        &self,
        target: &Target,
        held: (Arc<OwnedSemaphorePermit>, Option<Place>),
    ) -> anyhow::Result<Box<dyn Stream>> {
        let (lookup, host, port) = (self.lookup.clone(), target.host.clone(), target.port);
        // A task of its own, which goes on, places held, when this one is given up.
        let looking = tokio::spawn(async move {
            let found = lookup.lookup(&host, port).await;
            drop(held);
            found
        });
        let mut addresses = looking.await??;
        if target.guarded {
            addresses.retain(|address| (self.reachable)(address.ip()));
        }
        let mut last = anyhow::anyhow!("the name has no address that may be connected to");
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match TcpStream::connect(address).await {
                Ok(stream) if target.https => {
                    let name = ServerName::try_from(target.host.clone())?;
                    return Ok(Box::new(TlsConnector::from(self.tls()?).connect(name, stream).await?));
                }
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Made when it is first needed: reading the system's certificates takes a while.
    fn tls(&self) -> anyhow::Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(ca) = &self.ca {
            roots.add_parsable_certificates(certificates(ca)?);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(did: &str) -> Option<String> {
        let target = Target::of_did_web(did, false)?;
        assert!(target.https && target.guarded);
        Some(format!("{}:{}{}", target.host, target.port, target.path))
    }

    #[test]
    fn a_did_web_names_one_place_or_none() {
        assert_eq!(web("did:web:a.example").as_deref(), Some("a.example:443/.well-known/did.json"));
        assert_eq!(web("did:web:a.example%3A8443:u:alice").as_deref(), Some("a.example:8443/u/alice/did.json"));
        for wrong in [
            "did:web:",
            "did:web:a%2Fb",
            "did:web:a%3A",
            "did:web:a%3A0",
            "did:web:a%3A99999",
            "did:web:a@b",
            "did:web:a/b",
            "did:web:a:..",
            "did:web:a::b",
            "did:web:a:%2e%2e",
            "did:web:a?b",
            "did:web:[::1]",
            "did:plc:a",
        ] {
            assert_eq!(web(wrong), None, "{wrong}");
        }
        let local = Target::of_did_web("did:web:localhost%3A8080", true).unwrap();
        assert!(!local.https && !local.guarded);
    }

    #[test]
    fn a_did_plc_is_asked_of_the_directory() {
        let did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
        let target = Target::of_did_plc(did, "http://127.0.0.1:2582").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path), ("127.0.0.1", 2582, format!("/{did}")));
        for wrong in ["did:plc:short", "did:plc:ewvi7nxzyoun6zhxrhs64oi0", "did:plc:../../../../etc/passwd0"] {
            assert_eq!(Target::of_did_plc(wrong, "https://plc.directory"), None);
        }
    }
}
