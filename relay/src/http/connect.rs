//! `GET /v1/connect`: the upgrade to a WebSocket.

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use weft_protocol::admission::subprotocol;
use weft_protocol::code::Code;

use super::{Shared, forwarded};
use crate::accept::Peer;
use crate::admit::Refusal;
use crate::connection;
use crate::reading::Reading;
use crate::websocket::{Watched, WebSocket};

pub(super) async fn connect(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
) -> Response {
    let remote = peer.remote.ip();
    let span = tracing::info_span!("upgrade", code = tracing::field::Empty);
    match span.in_scope(|| upgrade(&shared, peer, &mut request)) {
        Ok(response) => {
            span.record("code", "ok");
            response
        }
        Err(refusal) => {
            span.record("code", refusal.code.name());
            let ip = forwarded::client(&shared.gates.trusted, remote, request.headers()).ok();
            shared.refused("upgrade", &refusal, ip);
            refusal.into_response()
        }
    }
}

fn upgrade(shared: &Shared, mut peer: Peer, request: &mut Request) -> Result<Response, Refusal> {
    if shared.hub.is_draining() {
        return Err(Refusal::new(Code::Draining, "the relay is about to stop: try again later or elsewhere"));
    }
    let headers = request.headers();
    let asks = has(headers, header::UPGRADE, "websocket") && has(headers, header::CONNECTION, "upgrade");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let (true, true, Some(key)) = (asks, has(headers, header::SEC_WEBSOCKET_VERSION, "13"), key) else {
        return Err(Refusal::new(Code::Malformed, "a WebSocket upgrade (RFC 6455, version 13) is needed here"));
    };
    let ip = forwarded::client(&shared.gates.trusted, peer.remote.ip(), headers)?;
    shared.admitter.policy().admits_ip(ip)?;
    peer.client = ip;
    // The gate let all that comes from a proxy in; what the proxy sends on its own account has the limit of one address too.
    if forwarded::is_trusted(&shared.gates.trusted, peer.remote.ip()) {
        let message = "as many connections as this address may have are open: close one first";
        let place = shared.gates.enter_forwarded(ip);
        peer.forwarded = Some(place.ok_or_else(|| Refusal::new(Code::TooManyConnections, message))?);
    }
    let accept = derive_accept_key(key.as_bytes());
    let offered: Vec<&[u8]> =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().map(|value| value.as_bytes()).collect();
    // A byte that is no ASCII spoils the entry it stands in, and no other.
    let offered = offered.join(&b',');
    let offered = String::from_utf8_lossy(&offered);
    let token = subprotocol::parse(&offered).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let token = token.to_owned();
    // Last, because it uses the token up.
    let admission = shared.admitter.use_token(&token, peer.local, ip)?;
    let reading = Reading::new(shared.room.clone(), admission.identity, ip);
    let upgraded = hyper::upgrade::on(request);
    let (hub, admitter, tasks) = (shared.hub.clone(), shared.admitter.clone(), shared.tasks.clone());
    shared.tasks.spawn(async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "an upgrade was not completed"),
        };
        match upgraded.downcast::<TokioIo<Watched>>() {
            Ok(parts) => {
                let socket = WebSocket::server(parts.io.into_inner(), parts.read_buf, reading).await;
                // A task of its own: what this one needed so far ends with it.
                tasks.spawn(connection::run(socket, hub, admitter, peer, admission, token));
            }
            Err(_) => tracing::error!("an upgraded connection is not a socket of this relay"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol::VERSION));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

/// Whether one of a header's comma-separated values is `value`, in any letter case.
fn has(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    let values = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let mut parts = values.flat_map(|line| line.split(|&byte| byte == b','));
    parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(value.as_bytes()))
}
