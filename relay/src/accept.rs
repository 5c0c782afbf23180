//! The accept loop: gates before a byte is parsed, then HTTP/1.1 with a deadline for its header.
//!
//! Our own loop, because the ready-made one installs no timer (so its header deadline never fires), sets no `TCP_NODELAY`
//! and counts nobody. Out of file descriptors, it backs off instead of spinning.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_protocol::limits::HEADER_MS_MAX;
use weft_relay_core::gate::{Gate, Site};

use crate::websocket::Watched;

/// Header lines of a request, all together; a token takes 2 KiB at most. The least that hyper allows is 8 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Bounds of the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) per_site_max: usize,
    pub(crate) total_max: usize,
}

/// Where a connection came from and was accepted; counted by the gate until the last copy is dropped.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    _place: Arc<Place>,
}

struct Place {
    gate: Arc<Mutex<Gate>>,
    site: Site,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).leave(self.site);
    }
}

/// Accepts until cancelled.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let gate = Arc::new(Mutex::new(Gate::default()));
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
        let site = Site::of(remote.ip());
        let entered =
            gate.lock().unwrap_or_else(PoisonError::into_inner).enter(site, bounds.per_site_max, bounds.total_max);
        if !entered {
            // Nothing is parsed for it, hence nothing is said: the socket closes.
            tracing::debug!("a connection above the limit was turned away");
            continue;
        }
        let place = Arc::new(Place { gate: gate.clone(), site });
        let Ok(local) = stream.local_addr() else { continue };
        let peer = Peer { remote, local, _place: place };
        tasks.spawn(serve(stream, peer, router.clone(), stop.clone()));
    }
}

async fn serve(stream: TcpStream, peer: Peer, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client was gone at once");
        return;
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEADER_MS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream)), service)
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
