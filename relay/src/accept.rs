//! The accept loop: gates before a byte is parsed, then HTTP/1.1 with a deadline for its header.
//!
//! Our own loop, because the ready-made one installs no timer (so its header deadline never fires), sets no `TCP_NODELAY`
//! and counts nobody. Out of file descriptors, it backs off instead of spinning.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_protocol::code::Code;
use weft_relay_core::gate::{Gate, GateLimits, Site};

use crate::http::is_trusted;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::refusals::Refused;
use crate::tls::Tls;
use crate::websocket::{Socket, Watched};

/// Header lines of a request, all together; a token takes 2 KiB at most. The least that hyper allows is 8 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Who may connect how often.
pub(crate) struct Gates {
    pub(crate) limits: GateLimits,
    /// Proxies in front: they are not one client each, those behind them are.
    pub(crate) trusted: Vec<IpNet>,
    direct: Arc<Mutex<Gate>>,
    forwarded: Arc<Mutex<Gate>>,
}

impl Gates {
    pub(crate) fn new(limits: GateLimits, trusted: Vec<IpNet>) -> Self {
        Self { limits, trusted, direct: Arc::default(), forwarded: Arc::default() }
    }

    /// A place for a new connection, if there is one.
    fn enter(&self, remote: IpAddr) -> Option<Arc<Place>> {
        let mut limits = self.limits;
        if is_trusted(&self.trusted, remote) {
            (limits.per_site_max, limits.per_network_max) = (usize::MAX, Some(usize::MAX));
        }
        Place::enter(&self.direct, remote, limits)
    }

    /// A place for a client behind a trusted proxy, whose own connection is counted already: here the client's address and
    /// network are.
    pub(crate) fn enter_forwarded(&self, client: IpAddr) -> Option<Arc<Place>> {
        Place::enter(&self.forwarded, client, self.limits)
    }
}

/// Where a connection came from and was accepted; counted by the gate until the last copy is dropped.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Who it is, behind proxies, once a request told.
    pub(crate) client: IpAddr,
    /// Held by a client behind a proxy.
    pub(crate) forwarded: Option<Arc<Place>>,
    _place: Arc<Place>,
}

/// One connection that a gate counts.
pub(crate) struct Place {
    gate: Arc<Mutex<Gate>>,
    site: Site,
}

impl Place {
    fn enter(gate: &Arc<Mutex<Gate>>, ip: IpAddr, limits: GateLimits) -> Option<Arc<Self>> {
        let site = Site::of(ip);
        let entered = gate.lock().unwrap_or_else(PoisonError::into_inner).enter(site, limits);
        entered.then(|| Arc::new(Self { gate: gate.clone(), site }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).leave(self.site);
    }
}

/// What a listener serves, and how.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) gates: Arc<Gates>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hub: Arc<Hub>,
    /// How long a TLS handshake may take, and a header.
    pub(crate) header_max: Duration,
}

/// Accepts until cancelled.
pub(crate) async fn run(listener: TcpListener, service: Service, tasks: TaskTracker, stop: CancellationToken) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; out of file descriptors?");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                continue;
            }
        };
        back_off = BACK_OFF_MIN;
        let Some(place) = service.gates.enter(remote.ip()) else {
            // Nothing is parsed for it, hence nothing is said: the socket closes.
            service.metrics.turned_away();
            let refused = Refused { what: "connection", ip: Some(remote.ip()), ..Refused::default() };
            service.hub.refusals().note(Code::TooManyConnections, refused, service.hub.now_ms());
            continue;
        };
        let Ok(local) = stream.local_addr() else { continue };
        let peer = Peer { remote, local, client: remote.ip().to_canonical(), forwarded: None, _place: place };
        tasks.spawn(serve(stream, peer, service.clone(), stop.clone()));
    }
}

/// The TLS handshake, if there is one, within the header's deadline.
async fn secure(stream: TcpStream, tls: Option<Arc<Tls>>, header_max: Duration) -> std::io::Result<Socket> {
    let Some(tls) = tls else { return Ok(Socket::Plain(stream)) };
    let handshake = tls.acceptor().accept(stream);
    let stream = tokio::time::timeout(header_max, handshake).await??;
    Ok(Socket::Tls(Box::new(stream)))
}

async fn serve(stream: TcpStream, peer: Peer, service: Service, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client was gone at once");
        return;
    }
    let stream = tokio::select! {
        secured = secure(stream, service.tls, service.header_max) => match secured {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, "a TLS handshake failed"),
        },
        () = stop.cancelled() => return,
    };
    let (header_max, router) = (service.header_max, TowerToHyperService::new(service.router));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_max)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream, header_max)), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "HTTP ended");
    }
}
