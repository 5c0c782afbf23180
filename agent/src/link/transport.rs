//! Bytes to a relay: TCP, or TLS over it with the system's certificates and those the person added.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Address;

/// Resolving, connecting and the TLS handshake, together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// So little waits in the kernel that what is urgent is not stuck behind bulk.
const SEND_BUFFER: u32 = 256 * 1024;

/// A byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address of this computer that it goes out from, if it has one.
    fn from(&self) -> Option<IpAddr>;
}

impl Stream for TcpStream {
    fn from(&self) -> Option<IpAddr> {
        // What reaches us over IPv6 as an IPv4 address is the interface's IPv4 address.
        self.local_addr().ok().map(|addr| addr.ip().to_canonical())
    }
}

impl Stream for TlsStream<TcpStream> {
    fn from(&self) -> Option<IpAddr> {
        Stream::from(self.get_ref().0)
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn from(&self) -> Option<IpAddr> {
        None
    }
}

/// Certificates to trust: the system's and those in `ca_file` (PEM).
pub(crate) fn tls(ca_file: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (_added, _ignored) = roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let bad = |error: &dyn std::fmt::Display| anyhow::anyhow!("ca_file {}: {error}", path.display());
        let certs = CertificateDer::pem_file_iter(path).map_err(|error| bad(&error))?;
        for cert in certs {
            roots.add(cert.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Dials.
pub(crate) async fn connect(address: &Address, tls: &Arc<ClientConfig>) -> io::Result<Box<dyn Stream>> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s");
    tokio::time::timeout(CONNECT_MAX, dial(address, tls)).await.map_err(|_| late())?
}

async fn dial(address: &Address, tls: &Arc<ClientConfig>) -> io::Result<Box<dyn Stream>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let unknown = |error| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} cannot be found ({error}): is it spelled right, and is this computer online?", address.host()),
        )
    };
    for target in tokio::net::lookup_host((address.host(), address.port())).await.map_err(unknown)? {
        let socket = if target.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        // A system that refuses keeps its own size; only latency under load suffers.
        let _kept = socket.set_send_buffer_size(SEND_BUFFER);
        match socket.connect(target).await {
            Ok(stream) => return secure(address, tls, stream).await,
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn secure(address: &Address, tls: &Arc<ClientConfig>, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    if !address.tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(address.host().to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}
