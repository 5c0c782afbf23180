//! The HTTP client below atrium: one request a connection, bounded, to one server.
//!
//! Invariant: a password or token goes to the server it is for and nowhere else: no redirect is followed, and nothing leaves
//! without TLS except to this machine.

use std::net::IpAddr;
use std::sync::Arc;

use atrium_api::xrpc::types::AuthorizationToken;
use atrium_api::xrpc::{HttpClient, XrpcClient};
use http::{Request, Response, Uri};
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::AccountError;
use crate::link::address::Address;
use crate::link::{http as wire, transport};

/// A server of accounts (PDS), with what shows who asks.
pub(super) struct Pds {
    pub(super) address: Address,
    pub(super) tls: Arc<ClientConfig>,
    /// The token for requests; empty for none.
    pub(super) bearer: Zeroizing<String>,
}

impl Pds {
    /// Takes a URL apart; refuses one that would carry a password in the clear.
    pub(super) fn address(url: &str) -> Result<Address, AccountError> {
        let bad = |why: String| AccountError::BadPds { url: url.to_owned(), why };
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(bad("it begins with https://".to_owned()));
        }
        let address = Address::parse(url).map_err(|error| bad(error.to_string()))?;
        let host = address.host();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !address.tls && !here {
            return Err(bad("a password goes over https:// only".to_owned()));
        }
        Ok(address)
    }
}

/// The URL of a server as its own requests have it.
pub(super) fn base(address: &Address) -> String {
    format!("{}://{}", if address.tls { "https" } else { "http" }, address.audience)
}

impl HttpClient for Pds {
    async fn send_http(
        &self,
        mut request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, Box<dyn std::error::Error + Send + Sync + 'static>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = path.parse::<Uri>()?;
        let stream = transport::connect(&self.address, &self.tls).await?;
        let host = match self.address.port() {
            443 if self.address.tls => self.address.audience.host().to_owned(),
            _ => self.address.audience.to_string(),
        };
        let answer = wire::send(stream, &host, request).await?;
        Ok(answer.map(|body| body.to_vec()))
    }
}

impl XrpcClient for Pds {
    fn base_uri(&self) -> String {
        base(&self.address)
    }
    async fn authorization_token(&self, _is_refresh: bool) -> Option<AuthorizationToken> {
        (!self.bearer.is_empty()).then(|| AuthorizationToken::Bearer(self.bearer.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password goes over TLS, or stays on this machine.
    #[test]
    fn no_password_in_the_clear() {
        for fine in ["https://pds.example", "https://pds.example:8443", "http://localhost:2583", "http://127.0.0.1:1"] {
            assert!(Pds::address(fine).is_ok(), "{fine}");
        }
        for wrong in
            ["http://pds.example", "http://localhost.example", "pds.example", "wss://pds.example", "https://", ""]
        {
            assert!(Pds::address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(base(&Pds::address("https://PDS.example/x").unwrap()), "https://pds.example:443");
    }
}
