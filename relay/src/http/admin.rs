//! The admin port: metrics, rooms by opaque id, kicking.
//!
//! Who reaches this port is the operator: it has no password, and belongs on loopback or a private network. Even so it
//! shows no room id, DID or address.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use weft_protocol::admission::proof::hash;
use weft_relay_core::ConnId;

use super::Shared;
use crate::metrics::Moment;
use crate::process::ProcessFigures;

/// Rooms a page.
const PAGE_ROOMS: usize = 200;

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let blocked = shared.admitter.policy().blocked.len();
    let moment = Moment {
        hub: &shared.hub.snapshot(),
        dids: &shared.admitter.cache_figures().await,
        process: ProcessFigures::now(),
        blocked,
        unfinished_bytes: shared.room.used(),
    };
    match shared.hub.metrics().text(&moment) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(super) async fn figures(State(shared): State<Shared>) -> Json<serde_json::Value> {
    let figures = shared.hub.snapshot().figures;
    Json(serde_json::json!({
        "connections": figures.connections,
        "rooms": figures.rooms,
        "received": figures.received,
        "delivered": figures.delivered,
        "resyncs": figures.resyncs,
        "refused": figures.refused,
    }))
}

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    skip: usize,
}

/// Rooms, and who is in them: numbers of connections, their queues, and a mark by which connections of one DID are seen to
/// be of one.
pub(super) async fn rooms(State(shared): State<Shared>, Query(page): Query<Page>) -> Json<serde_json::Value> {
    let (total, rooms) = shared.hub.rooms(page.skip, PAGE_ROOMS);
    let rooms: Vec<_> = rooms
        .into_iter()
        .map(|room| {
            let peers: Vec<_> = room
                .peers
                .into_iter()
                .map(|peer| {
                    serde_json::json!({
                        "connection": peer.conn.0,
                        "did": peer.mark,
                        "queue_bytes": peer.queue_bytes,
                        "queue_frames": peer.queue_frames,
                    })
                })
                .collect();
            serde_json::json!({ "room": room.mark, "peers": peers, "elsewhere": room.elsewhere })
        })
        .collect();
    Json(serde_json::json!({ "total": total, "skip": page.skip, "rooms": rooms }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    did: Option<String>,
    address: Option<IpAddr>,
}

/// The mark of a DID or an address, for who knows one and looks for it in the log or among the rooms.
pub(super) async fn mark(State(shared): State<Shared>, Query(named): Query<Named>) -> Response {
    let marks = shared.hub.marks();
    let mark = match (named.did, named.address) {
        (Some(did), None) => marks.did(&hash("relay-identity", &[did.as_bytes()])),
        (None, Some(ip)) => marks.address(ip),
        _ => return (StatusCode::BAD_REQUEST, "give either did or address\n").into_response(),
    };
    Json(serde_json::json!({ "mark": mark })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    did: Option<String>,
    connection: Option<u64>,
}

/// Closes a connection, or all of a DID, which may be given by its mark. They may come back: the block file is what keeps a
/// client out.
pub(super) async fn kick(State(shared): State<Shared>, Query(kick): Query<Kick>) -> Response {
    let kicked = match (kick.did, kick.connection) {
        (Some(did), None) if did.starts_with("did:") => {
            shared.hub.kick_identity(hash("relay-identity", &[did.as_bytes()]))
        }
        (Some(mark), None) => shared.hub.kick_mark(&mark),
        (None, Some(connection)) => shared.hub.kick(ConnId(connection)),
        _ => return (StatusCode::BAD_REQUEST, "give either did or connection\n").into_response(),
    };
    tracing::info!(kicked, "an operator kicked");
    Json(serde_json::json!({ "kicked": kicked })).into_response()
}
