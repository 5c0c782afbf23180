//! DIDs for programs besides the relay: the same fetches, with the same guard.
//!
//! Invariant: whatever a stranger's DID or document names, it leads only to public addresses (unless the person says
//! otherwise), to one answer without redirects, and that is bounded in time and bytes. Why: whoever verifies somebody's
//! account sits inside of a network that the somebody may want to reach.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use bytes::Bytes;

use super::address::is_global;
use super::fetch::{Fetcher, SystemLookup, Target};

/// All of a request. A person waits; a relay would not wait so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DidClientError {
    /// Neither a did:plc nor a did:web that names one place.
    #[error("only did:plc and did:web can be looked up")]
    Unsupported,
    /// A URL that is not asked: the one of a stranger's document, or the directory's.
    #[error("it is no https:// address that may be asked")]
    BadUrl,
    /// Nobody answers there, or nobody that may be asked.
    #[error("{0}")]
    Unreachable(String),
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DidAnswer {
    /// HTTP status.
    pub status: u16,
    /// At most 64 KiB; empty unless the status is 2xx or 4xx.
    pub body: Bytes,
}

/// Looks up DIDs, and asks the servers that their documents name.
pub struct DidClient {
    fetcher: Fetcher,
    plc_url: String,
    private: bool,
}

impl DidClient {
    /// `plc_url`: the directory for did:plc. `ca`: further root certificates (PEM). `private`: whether servers on this machine
    /// (over plain HTTP too) and in private networks may be asked.
    #[must_use]
    pub fn new(plc_url: &str, ca: Option<PathBuf>, private: bool, user_agent: &'static str) -> Self {
        let fetcher = Fetcher { user_agent, ..Fetcher::new(ca, Arc::new(SystemLookup), is_global) };
        Self { fetcher, plc_url: plc_url.to_owned(), private }
    }

    /// The document of a did:plc or did:web; `None` if there is none (any more). Whether it is that DID's is not checked.
    ///
    /// # Errors
    /// As [`DidClientError`] says; another status than 200, 404 and 410 is [`DidClientError::Unreachable`].
    pub async fn document(&self, did: &str) -> Result<Option<Bytes>, DidClientError> {
        let target = if did.starts_with("did:plc:") {
            // The person's own choice: not filtered by address, but nobody on the way may change what it says.
            self.target(&self.plc_url, "", true)?;
            Target::of_did_plc(did, &self.plc_url)
        } else {
            Target::of_did_web(did, self.private)
        };
        let answer = self.ask(&target.ok_or(DidClientError::Unsupported)?).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 | 410 => Ok(None),
            status => Err(DidClientError::Unreachable(format!("the answer is {status}"))),
        }
    }

    /// GET of a path (with its query) at the server of a URL; whatever else the URL names is left out.
    ///
    /// # Errors
    /// As [`DidClientError`] says.
    pub async fn get(&self, url: &str, path: &str) -> Result<DidAnswer, DidClientError> {
        self.ask(&self.target(url, path, self.private)?).await
    }

    fn target(&self, url: &str, path: &str, private: bool) -> Result<Target, DidClientError> {
        let uri: Uri = url.parse().map_err(|_| DidClientError::BadUrl)?;
        let (host, authority) = uri.host().zip(uri.authority()).ok_or(DidClientError::BadUrl)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if here && private => false,
            _ => return Err(DidClientError::BadUrl),
        };
        if authority.as_str().contains('@') {
            return Err(DidClientError::BadUrl);
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Target { https, host, port, path: path.to_owned(), guarded: !private })
    }

    async fn ask(&self, target: &Target) -> Result<DidAnswer, DidClientError> {
        let wanted = |status: StatusCode| status.is_success() || status.is_client_error();
        match tokio::time::timeout(PATIENCE, self.fetcher.exchange(target, wanted, None)).await {
            Ok(Ok((status, body))) => Ok(DidAnswer { status: status.as_u16(), body }),
            Ok(Err(error)) => Err(DidClientError::Unreachable(error.to_string())),
            Err(_) => Err(DidClientError::Unreachable("no answer within 10 s".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(private: bool) -> DidClient {
        DidClient::new("https://plc.directory", None, private, "test")
    }

    /// What a stranger's document names is asked over TLS and at its own port; in the clear only on this machine, and only
    /// if the person says so.
    #[test]
    fn a_url_names_a_server_that_may_be_asked() {
        let target = client(false).target("https://pds.example/xrpc?x", "/path", false).unwrap();
        assert_eq!((target.https, target.host.as_str(), target.port), (true, "pds.example", 443));
        assert_eq!((target.path.as_str(), target.guarded), ("/path", true));
        for wrong in
            ["http://pds.example", "http://127.0.0.1:1", "https://a@pds.example", "pds.example", "", "file:///x"]
        {
            assert!(client(false).target(wrong, "/", false).is_err(), "{wrong}");
        }
        let here = client(true).target("http://127.0.0.1:2583", "/", true).unwrap();
        assert!(!here.https && !here.guarded && here.port == 2583);
        assert!(client(true).target("http://pds.example", "/", true).is_err());
    }

    /// A name or address of this machine or a private network is not connected to.
    #[tokio::test]
    async fn nobody_is_led_into_a_private_network() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for url in [format!("https://127.0.0.1:{port}"), format!("https://localhost:{port}")] {
            let error = client(false).get(&url, "/").await.unwrap_err();
            assert!(error.to_string().contains("no address that may be connected to"), "{error}");
        }
        let error = client(false).document(&format!("did:web:localhost%3A{port}")).await.unwrap_err();
        assert!(error.to_string().contains("no address that may be connected to"), "{error}");
        assert!(matches!(client(false).document("did:key:z6Mk").await, Err(DidClientError::Unsupported)));
    }
}
