//! TLS from certificate files, read again while running.
//!
//! Invariant: a file that cannot be used changes nothing; connections that are open keep what they were made with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind.
    #[error("{path}: {problem}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The key does not fit the certificate, or either is of a kind that is not known.
    #[error("certificate and key do not go together: {0}")]
    Unfit(#[from] rustls::Error),
}

pub(crate) struct Tls {
    files: TlsFiles,
    now: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let now = RwLock::new(read(&files)?);
        Ok(Self { files, now })
    }

    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Takes the files as they are now.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let next = read(&self.files)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.now.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What is wrong with a file; nothing of what it holds is told, for it may hold a key.
fn pem_error(path: &Path, what: &str, error: &pem::Error) -> TlsError {
    let problem = if let pem::Error::Io(error) = error {
        format!("cannot be read: {error}")
    } else {
        format!("is no PEM file with {what}")
    };
    TlsError::Pem { path: path.to_path_buf(), problem }
}

/// The certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| pem_error(path, "a certificate", &error);
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect();
    let all = all.map_err(wrong)?;
    if all.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let wrong = |error| pem_error(&files.key, "a private key", &error);
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
