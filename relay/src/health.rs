//! `weft-relay health`: asks a running relay whether it takes connections, for containers that have no other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connecting, asking and hearing, each.
const STEP_MAX: Duration = Duration::from_secs(2);

/// Where to ask a relay that listens on `listen`: all addresses are asked on loopback.
#[must_use]
pub fn address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether the relay at `address` is ready. Behind TLS only whether it accepts connections is asked.
///
/// # Errors
/// That it is not reached, does not answer in time, or is not ready.
pub fn check(address: SocketAddr, tls: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, STEP_MAX)?;
    if tls {
        return Ok(());
    }
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if &answer == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("the relay is not ready")) }
}
