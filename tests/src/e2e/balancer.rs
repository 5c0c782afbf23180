//! A load balancer without a memory: every connection goes to the next backend that takes it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// A backend on this machine takes a connection at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Listens on the loopback address and spreads connections over its backends.
pub struct Balancer {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    backends: Mutex<Vec<SocketAddr>>,
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl Balancer {
    /// Listens on a free port; hangs up on everybody before [`Balancer::spread_over`].
    pub fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the balancer cannot listen")?;
        let address = listener.local_addr().context("the balancer has no address")?.to_string();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    break;
                }
                if let Some((client, server)) = client.ok().and_then(|client| Some((client, accepting.backend()?))) {
                    // A side that is gone already has hung up.
                    drop(join(client, server));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where connections go from now on.
    pub fn spread_over<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let parsed: Result<Vec<SocketAddr>, _> = addresses.into_iter().map(str::parse).collect();
        *self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner) = parsed.context("not an address")?;
        Ok(())
    }

    /// `ws://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if nobody listens any more, it has ended.
        drop(TcpStream::connect(&self.address));
    }
}

impl Shared {
    /// A connection to the next backend that takes one.
    fn backend(&self) -> Option<TcpStream> {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let order = backends.iter().cycle().skip(first.checked_rem(backends.len())?).take(backends.len());
        order.filter_map(|backend| TcpStream::connect_timeout(backend, CONNECT_MAX).ok()).next()
    }
}

fn join(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || copy(client, server));
    std::thread::spawn(move || copy(server_too, client_too));
    Ok(())
}

/// Copies until one side ends, then ends both: half-open connections are no use to a WebSocket.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // Closed already by its own side, else.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
