//! `POST /v1/token`.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use weft_protocol::admission::proof::AUTH_HEADER;
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
    if shared.hub.is_draining() {
        return Refusal::new(Code::Draining, "the relay is about to stop: try again later or elsewhere")
            .into_response();
    }
    let read = to_bytes(body, TOKEN_REQUEST_BYTES_MAX);
    let body = match tokio::time::timeout(shared.header_max, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Refusal::new(Code::TooLarge, "the body is too long or broke off").into_response(),
        Err(_) => return Refusal::new(Code::HandshakeTimeout, "the body did not come in time").into_response(),
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(jwt) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Refusal::new(Code::Malformed, "an Authorization header with Bearer and a JWT is needed")
            .into_response();
    };
    let ip = match forwarded::client(&shared.gates.trusted, peer.remote.ip(), &headers) {
        Ok(ip) => ip,
        Err(refusal) => return refusal.into_response(),
    };
    let auth = headers.get(AUTH_HEADER).and_then(|value| value.to_str().ok());
    let asked = Asked { ip, local: peer.local, jwt, body: &body, auth };
    let span = tracing::info_span!("token", code = tracing::field::Empty);
    let answered = shared.admitter.token(asked).instrument(span.clone()).await;
    match answered {
        Ok(answer) => {
            span.record("code", "ok");
            shared.hub.metrics().token();
            Json(answer).into_response()
        }
        Err(refusal) => {
            span.record("code", refusal.code.name());
            shared.hub.metrics().refused(refusal.code);
            tracing::debug!(code = %refusal.code, "a token request was refused");
            refusal.into_response()
        }
    }
}
