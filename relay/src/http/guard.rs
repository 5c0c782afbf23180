//! What the admin port asks of a request before it looks at it: that no web page sent it.
//!
//! The port has no password, because only its operator reaches it. But their browser does too, and runs pages of strangers.
//! Invariant: a request is served only if it names this port by an address, as `localhost`, or by a name that the operator
//! listed (a page whose own name was made to lead here, by DNS rebinding, names itself), and if no page of another origin
//! says that it is behind it. Spec: docs/operating.md#watch-it.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_protocol::code::Code;

use super::Shared;
use crate::admit::Refusal;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match admits(request.headers(), &shared.admin_hosts) {
        Ok(()) => next.run(request).await,
        Err(message) => {
            shared.hub.metrics().refused(Code::NotAllowed);
            tracing::warn!("a request to the admin port was refused: {message}");
            Refusal::new(Code::NotAllowed, message).into_response()
        }
    }
}

/// Why a request with these headers is not served.
fn admits(headers: &HeaderMap, names: &[String]) -> Result<(), &'static str> {
    const HOST: &str = "its Host is neither an address, nor localhost, nor a name of admin_hosts";
    const ORIGIN: &str = "it was sent by a web page";
    let one = |name: HeaderName| {
        let mut lines = headers.get_all(name).iter();
        let line = lines.next().map(|value| value.to_str().unwrap_or("?"));
        if lines.next().is_some() { Some("?") } else { line }
    };
    let host = one(header::HOST).ok_or(HOST)?;
    let authority: Authority = host.parse().map_err(|_| HOST)?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let listed = || names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
    let address = name.parse::<std::net::IpAddr>().is_ok();
    if authority.as_str().contains('@') || !(address || name.eq_ignore_ascii_case("localhost") || listed()) {
        return Err(HOST);
    }
    let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|from| from.eq_ignore_ascii_case(host));
    if one(header::ORIGIN).is_some_and(|origin| !own(origin)) {
        return Err(ORIGIN);
    }
    if one(SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(ORIGIN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_no_foreign_page_sent_are_served() {
        let names = ["relay-1.internal".to_owned()];
        for (lines, served) in [
            (&[("host", "127.0.0.1:7018")][..], true),
            (&[("host", "[::1]:7018")], true),
            (&[("host", "10.0.0.7")], true),
            (&[("host", "LOCALHOST:7018")], true),
            (&[("host", "relay-1.internal:7018")], true),
            (&[("host", "127.0.0.1:7018"), ("origin", "http://127.0.0.1:7018")], true),
            (&[("host", "127.0.0.1:7018"), ("sec-fetch-site", "none")], true),
            (&[], false),
            (&[("host", "evil.example:7018")], false),
            (&[("host", "127.0.0.1.evil.example")], false),
            (&[("host", "localhost.evil.example")], false),
            (&[("host", "localhost@evil.example")], false),
            (&[("host", "evil.example@localhost")], false),
            (&[("host", "localhost"), ("host", "evil.example")], false),
            (&[("host", "127.0.0.1:7018"), ("origin", "http://evil.example")], false),
            (&[("host", "127.0.0.1:7018"), ("origin", "null")], false),
            (&[("host", "127.0.0.1:7018"), ("origin", "http://127.0.0.1:80")], false),
            (&[("host", "127.0.0.1:7018"), ("sec-fetch-site", "cross-site")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(admits(&headers, &names).is_ok(), served, "{lines:?}");
        }
    }
}
