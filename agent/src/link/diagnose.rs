//! Why a relay cannot be used, in words that say what to do; and the look at a relay that somebody just named.
//!
//! Invariant: nothing of ours is shown to what answers: the question is one that any program may ask, without name or secret.
//! Why: `wss://` where the relay speaks without TLS, another port, or a web site in the relay's place end in errors of parsers
//! that help nobody, minutes later.
//! Spec: docs/using.md#relays

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use rustls::{CertificateError, ClientConfig, Error as TlsError};
use weft_protocol::admission::token::{ErrorAnswer, TOKEN_PATH};

use super::address::Address;
use super::{LinkError, http as wire, transport};

/// A look takes so long at most; whoever names a relay waits for it.
const LOOK_MAX: Duration = Duration::from_secs(6);

/// What a look at a relay found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A relay.
    Relay,
    /// Something answers that is no relay, or not in this way: the address is wrong.
    Wrong(String),
    /// It cannot be told: nothing answers now, or not for us.
    Unknown(String),
}

/// Looks whether a relay answers at an address.
pub(crate) async fn look(address: &Address, tls: &Arc<ClientConfig>) -> Found {
    let looked = tokio::time::timeout(LOOK_MAX, async {
        match is_relay(address, tls).await {
            Ok(()) => Found::Relay,
            Err(error) => explain(address, tls, &error).await,
        }
    });
    looked.await.unwrap_or_else(|_| Found::Unknown(no_answer(address)))
}

/// Why a link to a relay ended, in words.
pub(super) async fn in_words(address: &Address, tls: &Arc<ClientConfig>, error: &LinkError) -> String {
    let explained = tokio::time::timeout(LOOK_MAX, explain(address, tls, error)).await;
    match explained {
        Ok(Found::Wrong(why) | Found::Unknown(why)) => why,
        Ok(Found::Relay) | Err(_) => error.to_string(),
    }
}

/// A token asked for with nothing: a relay says in its own way that this is no request.
async fn is_relay(address: &Address, tls: &Arc<ClientConfig>) -> Result<(), LinkError> {
    let request = Request::post(TOKEN_PATH).header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
    let request = request.body(b"{}".to_vec()).map_err(|_| LinkError::NotARelay)?;
    let stream = transport::connect(address, tls).await?;
    let answer = wire::send(stream, address.audience.as_str(), request).await?;
    let _its_way: ErrorAnswer = serde_json::from_slice(answer.body()).map_err(|_| LinkError::NotARelay)?;
    Ok(())
}

fn no_answer(address: &Address) -> String {
    format!(
        "{} does not answer: is it running, is the address right, and does a firewall let this through?",
        address.audience
    )
}

/// Why a link ended, by the error alone.
pub(super) fn in_short(address: &Address, error: &LinkError) -> String {
    by_itself(address, error).unwrap_or_else(|| error.to_string())
}

/// What an error says without another look.
fn by_itself(address: &Address, error: &LinkError) -> Option<String> {
    let at = &address.audience;
    let LinkError::Io(error) = error else { return None };
    if let Some(why) = certificate(error) {
        return Some(format!("the certificate of {at} {why}"));
    }
    let kind = error.kind();
    if kind == io::ErrorKind::ConnectionRefused {
        Some(format!("nothing listens at {at} (connection refused): is the relay running, and is the port right?"))
    } else if kind == io::ErrorKind::TimedOut {
        Some(no_answer(address))
    } else if kind == io::ErrorKind::NotFound {
        Some(error.to_string())
    } else if matches!(
        kind,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown
    ) {
        Some(format!("no way leads to {at} from here: is this computer online?"))
    } else {
        None
    }
}

async fn explain(address: &Address, tls: &Arc<ClientConfig>, error: &LinkError) -> Found {
    let at = &address.audience;
    if let Some(why) = by_itself(address, error) {
        return Found::Unknown(why);
    }
    // What a relay said in its own way came from a relay.
    if !matches!(error, LinkError::Io(_) | LinkError::NotARelay | LinkError::WebSocket(_) | LinkError::Silent) {
        return Found::Relay;
    }
    if let Some(why) = other_way(address, tls).await {
        return Found::Wrong(why);
    }
    let is_other = matches!(error, LinkError::NotARelay);
    if is_other || matches!(error, LinkError::Io(error) if is_garbage(error)) {
        return Found::Wrong(format!("something answers at {at}, but it is not a Weft relay: is the address right?"));
    }
    Found::Unknown(format!("the connection to {at} failed: {error}"))
}

/// Whether bytes came that are not the protocol that was spoken.
fn is_garbage(error: &io::Error) -> bool {
    let tls = tls_error(error).is_some_and(|error| matches!(error, TlsError::InvalidMessage(_)));
    tls || error.to_string().contains("not HTTP")
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref::<TlsError>()
}

/// What is wrong with a certificate, as the rest of a sentence.
fn certificate(error: &io::Error) -> Option<String> {
    let TlsError::InvalidCertificate(why) = tls_error(error)? else { return None };
    Some(if matches!(why, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "has expired: its operator has to renew it (or this computer's clock is wrong)".to_owned()
    } else if matches!(why, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
        "is not valid yet: is this computer's clock right?".to_owned()
    } else if matches!(why, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        "is for another name: is the address right?".to_owned()
    } else if *why == CertificateError::UnknownIssuer {
        "comes from an authority that this computer does not know. If it is your own: weft config set ca_file FILE, then \
         weft stop and weft start"
            .to_owned()
    } else if *why == CertificateError::Revoked {
        "was revoked: ask its operator".to_owned()
    } else {
        format!("cannot be accepted ({why}): ask its operator")
    })
}

/// Whether it answers with TLS where we spoke without, or the reverse.
async fn other_way(address: &Address, tls: &Arc<ClientConfig>) -> Option<String> {
    let (scheme, how) = if address.tls { ("ws", "without") } else { ("wss", "with") };
    let same_port = format!("{scheme}://{}", address.audience);
    let at = &address.audience;
    if speaks(&Address::parse(&same_port).ok()?, tls).await {
        return Some(format!("{at} answers {how} TLS: did you mean {same_port}?"));
    }
    // Behind the default port of the web there is often a server that only points to the other one.
    if !address.tls && address.port() == 80 {
        let secure = format!("wss://{}", address.audience.host());
        if is_relay(&Address::parse(&secure).ok()?, tls).await.is_ok() {
            return Some(format!("at {at} no relay answers, but with TLS there is one: did you mean {secure}?"));
        }
    }
    None
}

async fn speaks(address: &Address, tls: &Arc<ClientConfig>) -> bool {
    let stream = match transport::connect(address, tls).await {
        Ok(stream) => stream,
        // It has a certificate, so it speaks TLS, whatever the certificate is worth.
        Err(error) => return address.tls && certificate(&error).is_some(),
    };
    if address.tls {
        return true;
    }
    let Ok(request) = Request::get("/").body(Vec::new()) else { return false };
    wire::send(stream, address.audience.as_str(), request).await.is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::lan::serve::Serving;

    /// A server that answers every connection with these bytes; its port.
    async fn answering(bytes: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    let _read = stream.read(&mut asked).await;
                    let _hung_up = stream.write_all(bytes).await;
                });
            }
        });
        port
    }

    async fn found(url: &str) -> Found {
        look(&Address::parse(url).unwrap(), &transport::tls(None).unwrap()).await
    }

    fn wrong(found: Found) -> String {
        let Found::Wrong(why) = found else { panic!("{found:?}") };
        why
    }

    fn unknown(found: Found) -> String {
        let Found::Unknown(why) = found else { panic!("{found:?}") };
        why
    }

    /// Each way in which an address can be wrong is told apart, and says what to do.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_wrong_address_says_what_is_wrong() {
        let relay = Serving::start(0, true).await.unwrap();
        let port = relay.port;
        assert_eq!(found(&format!("ws://127.0.0.1:{port}")).await, Found::Relay);
        let why = wrong(found(&format!("wss://127.0.0.1:{port}")).await);
        assert!(why.contains("answers without TLS: did you mean ws://127.0.0.1:"), "{why}");
        relay.end().await;

        let port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").await;
        let why = wrong(found(&format!("ws://127.0.0.1:{port}")).await);
        assert!(why.contains("not a Weft relay"), "{why}");
        let port = answering(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        let why = wrong(found(&format!("ws://127.0.0.1:{port}")).await);
        assert!(why.contains("not a Weft relay"), "{why}");

        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let why = unknown(found(&format!("ws://127.0.0.1:{free}")).await);
        assert!(why.contains("nothing listens") && why.contains("port"), "{why}");
        let why = unknown(found("ws://no-such-host.invalid:7017").await);
        assert!(why.contains("no-such-host.invalid") && why.contains("spelled"), "{why}");
    }

    /// Where TLS is spoken, an address without it is told so, whatever the certificate is worth; and a certificate of an
    /// unknown authority is named as what is wrong.
    #[tokio::test(flavor = "multi_thread")]
    async fn tls_where_none_was_meant_is_told() {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { drop(acceptor.accept(stream).await) });
            }
        });
        let why = wrong(found(&format!("ws://127.0.0.1:{port}")).await);
        assert!(why.contains("answers with TLS: did you mean wss://127.0.0.1:"), "{why}");
        let why = unknown(found(&format!("wss://127.0.0.1:{port}")).await);
        assert!(why.contains("authority") && why.contains("ca_file"), "{why}");
    }
}
