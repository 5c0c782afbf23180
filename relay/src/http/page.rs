//! `GET /`: what this relay is, its limits, and what it can and cannot learn. `GET /.well-known/did.json`: its name.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use weft_protocol::admission::{Audience, subprotocol};
use weft_protocol::limits::FRAME_BYTES_MAX;

use super::Shared;
use crate::accept::Peer;
use crate::learn;

pub(super) async fn about(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let limits = shared.hub.settings();
    let (asks_secret, asks_did) = shared.admitter.asks_for();
    if !accept.contains("application/json") {
        let who = match (asks_secret, asks_did) {
            (false, false) => "anybody may use it",
            (true, false) => "those who know its secret may use it",
            (false, true) => "certain DIDs may use it",
            (true, true) => "certain DIDs that know its secret may use it",
        };
        let text = format!(
            "{}\nPolicy: {who}. Limits: {} peers a room, {} rooms a connection, {} messages a second, frames of {} KiB.\n\n\
             Point an agent at it:  weft init --relay <this address with ws:// or wss://>\n",
            learn::text(),
            limits.room_peers_max,
            limits.rooms_per_connection_max,
            limits.messages_per_second,
            FRAME_BYTES_MAX >> 10,
        );
        return text.into_response();
    }
    Json(serde_json::json!({
        "program": "weft-relay",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": subprotocol::VERSION,
        "policy": { "secret": asks_secret, "allow_list": asks_did },
        "limits": {
            "frame_bytes": FRAME_BYTES_MAX,
            "room_peers": limits.room_peers_max,
            "rooms_per_connection": limits.rooms_per_connection_max,
            "messages_per_second": limits.messages_per_second,
            "bytes_per_second": limits.bytes_per_second,
            "queue_bytes": limits.queue_bytes_max,
        },
        "learns": learn::LEARNS,
        "cannot_learn": learn::CANNOT_LEARN,
    }))
    .into_response()
}

/// The DID document of the audience that was dialled: tokens name it, so it should resolve.
pub(super) async fn did_document(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let accepts = |audience: &Audience| shared.admitter.audiences.accepts(audience, peer.local);
    let dialled = ["https", "http"].iter().filter_map(|scheme| Audience::from_url(&format!("{scheme}://{host}")).ok());
    let Some(audience) = dialled.into_iter().find(accepts).or_else(|| shared.admitter.audiences.first().cloned())
    else {
        return super::not_found().await;
    };
    let tls = audience.port() == 443 || shared.tls || shared.wss_audiences.contains(&audience);
    let scheme = if tls { "wss" } else { "ws" };
    let did = audience.did_web();
    Json(serde_json::json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": did,
        "service": [{
            "id": format!("{did}#weft_relay"),
            "type": "WeftRelay",
            "serviceEndpoint": format!("{scheme}://{audience}"),
        }],
    }))
    .into_response()
}
