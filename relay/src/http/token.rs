//! `POST /v1/token`.

use std::net::IpAddr;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use weft_protocol::admission::proof::AUTH_HEADER;
use weft_protocol::admission::token::TokenAnswer;
use weft_protocol::code::Code;
use weft_protocol::limits::TOKEN_REQUEST_BYTES_MAX;

use super::{Shared, forwarded};
use crate::accept::Peer;
use crate::admit::{Asked, Refusal};

pub(super) async fn token(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ip = forwarded::client(&shared.gates.trusted, peer.remote.ip(), &headers);
    let span = tracing::info_span!("token", code = tracing::field::Empty);
    match ask(&shared, &peer, ip.clone(), &headers, body).instrument(span.clone()).await {
        Ok(answer) => {
            span.record("code", "ok");
            shared.hub.metrics().token();
            Json(answer).into_response()
        }
        Err(refusal) => {
            span.record("code", refusal.code.name());
            shared.refused("token request", &refusal, ip.ok());
            refusal.into_response()
        }
    }
}

async fn ask(
    shared: &Shared,
    peer: &Peer,
    ip: Result<IpAddr, Refusal>,
    headers: &HeaderMap,
    body: Body,
) -> Result<TokenAnswer, Refusal> {
    if shared.hub.is_draining() {
        return Err(Refusal::new(Code::Draining, "the relay is about to stop: try again later or elsewhere"));
    }
    let ip = ip?;
    let read = to_bytes(body, TOKEN_REQUEST_BYTES_MAX);
    let body = match tokio::time::timeout(shared.header_max, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(Refusal::new(Code::TooLarge, "the body is too long or broke off")),
        Err(_) => return Err(Refusal::new(Code::HandshakeTimeout, "the body did not come in time")),
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let jwt = bearer
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| Refusal::new(Code::Malformed, "an Authorization header with Bearer and a JWT is needed"))?;
    let auth = headers.get(AUTH_HEADER).and_then(|value| value.to_str().ok());
    shared.admitter.token(Asked { ip, local: peer.local, jwt, body: &body, auth }).await
}
