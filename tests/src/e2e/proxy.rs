//! A wire tap: passes TCP bytes on in both directions, and keeps them.
//!
//! Bytes of a WebSocket client are masked on the wire, so searching them as they are would never find anything. What
//! is given out is therefore both: the bytes as they passed, and the client's frames unmasked.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Everything that passed on one connection.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    /// From the client, as on the wire.
    pub up: Vec<u8>,
    /// To the client, as on the wire.
    pub down: Vec<u8>,
}

impl Captured {
    /// The client's bytes with the masks taken off: its HTTP request, then the payloads of its frames.
    #[must_use]
    pub fn up_clear(&self) -> Vec<u8> {
        unmask(&self.up)
    }
}

/// Listens on the loopback address and connects everybody to `upstream`.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Vec<Captured>>,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    upstream: Mutex<String>,
}

impl Proxy {
    /// Listens on a free port; passes nothing on before [`Proxy::connect_to`].
    pub fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the proxy cannot listen")?;
        let address = listener.local_addr().context("the proxy has no address")?.to_string();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(client) = client {
                    // A relay that is down is a refused connection, which the client sees as its end.
                    drop(pass_on(&accepting, client));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the bytes go: `host:port`.
    pub fn connect_to(&self, upstream: &str) {
        *lock(&self.shared.upstream) = upstream.to_owned();
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `ws://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// What passed so far, by connection.
    #[must_use]
    pub fn captured(&self) -> Vec<Captured> {
        lock(&self.shared.connections).clone()
    }

    /// How many bytes passed so far: up, down.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let connections = lock(&self.shared.connections);
        connections.iter().fold((0, 0), |(up, down), one| (up + one.up.len() as u64, down + one.down.len() as u64))
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // Closed already by its own side, else.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread; if nobody listens any more, it has ended.
        drop(TcpStream::connect(&self.address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on(shared: &Arc<Shared>, client: TcpStream) -> std::io::Result<()> {
    let upstream = lock(&shared.upstream).clone();
    let server = TcpStream::connect(upstream)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        lock(&shared.open).push(stream.try_clone()?);
    }
    let index = {
        let mut connections = lock(&shared.connections);
        connections.push(Captured::default());
        connections.len() - 1
    };
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::spawn(move || pump(client, server, |bytes| keep(&up, index, true, bytes)));
    std::thread::spawn(move || pump(server_too, client_too, |bytes| keep(&down, index, false, bytes)));
    Ok(())
}

fn keep(shared: &Shared, index: usize, up: bool, bytes: &[u8]) {
    if let Some(captured) = lock(&shared.connections).get_mut(index) {
        if up { &mut captured.up } else { &mut captured.down }.extend_from_slice(bytes);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        keep(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side learns of the end; if it is gone already, nothing is left to do.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

/// The HTTP head as it is, then the payload of every whole frame, unmasked. Bytes that are no upgrade stay as they are.
fn unmask(wire: &[u8]) -> Vec<u8> {
    let Some(end) = find(wire, b"\r\n\r\n").filter(|_| find(wire, b"pgrade").is_some()) else { return wire.to_vec() };
    let (head, mut rest) = wire.split_at(end + 4);
    let mut clear = head.to_vec();
    while let Some((payload, after)) = frame(rest) {
        clear.extend(payload);
        rest = after;
    }
    clear
}

/// One client frame (RFC 6455 section 5.2): its unmasked payload, and what follows it.
fn frame(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(2)?;
    let second = *head.get(1)?;
    let (len, rest) = match second & 0x7f {
        126 => {
            let (len, rest) = rest.split_at_checked(2)?;
            (u64::from(u16::from_be_bytes(len.try_into().ok()?)), rest)
        }
        127 => {
            let (len, rest) = rest.split_at_checked(8)?;
            (u64::from_be_bytes(len.try_into().ok()?), rest)
        }
        short => (u64::from(short), rest),
    };
    let (mask, rest) = if second & 0x80 == 0 { (&[0u8; 4][..], rest) } else { rest.split_at_checked(4)? };
    let (payload, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    let clear = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((clear, rest))
}

/// Where `needle` begins in `hay`.
pub(super) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len().max(1)).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A marker inside a masked frame is invisible on the wire and visible once unmasked: without this, the search for
    /// plaintext could never fail.
    #[test]
    fn a_masked_marker_is_found_once_unmasked() {
        let marker = b"MARKER in a frame that is longer than a hundred and twenty-five bytes, so that its length \
                       stands in the two bytes behind the first two of its header.";
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut wire = b"GET /v1/connect HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec();
        for _ in 0..2 {
            wire.extend([0x82, 0x80 | 126]);
            wire.extend((marker.len() as u16).to_be_bytes());
            wire.extend(mask);
            wire.extend(marker.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        assert_eq!(find(&wire, b"MARKER"), None);
        let clear = unmask(&wire);
        assert_eq!(clear.windows(6).filter(|window| window == b"MARKER").count(), 2);
    }

    /// What the client writes arrives, what the server answers comes back, and both are kept.
    #[test]
    fn bytes_pass_and_are_kept() -> Result<()> {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Proxy::listen()?;
        proxy.connect_to(&server.local_addr()?.to_string());
        let mut client = TcpStream::connect(proxy.address())?;
        client.write_all(b"ask")?;
        let (mut accepted, _) = server.accept()?;
        let mut asked = [0; 3];
        accepted.read_exact(&mut asked)?;
        accepted.write_all(b"answer")?;
        let mut answer = [0; 6];
        client.read_exact(&mut answer)?;
        assert_eq!((&asked, &answer), (b"ask", b"answer"));
        let captured = proxy.captured();
        assert_eq!(captured.iter().map(|one| one.up.len() + one.down.len()).sum::<usize>(), 9);
        Ok(())
    }
}
