//! `GET /`: what this relay is, and what it can and cannot learn.

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use weft_protocol::admission::subprotocol;

const TEXT: &str = "\
This is weft-relay. It forwards sealed bytes between the peers of a room, and keeps nothing.

It can learn: the IP addresses that connect, a pseudonymous identifier of each device, which of them meet in a room
(room names are hashes that change with the group's keys), and when and how much they send.

It cannot learn: file names, contents, members' names, or who wrote what. It holds no key that opens what passes, and
cannot forge or change it without being noticed.

Point an agent at it:  weft init --relay <this address with ws:// or wss://>
";

pub(super) async fn about(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("application/json") {
        return TEXT.into_response();
    }
    Json(serde_json::json!({
        "program": "weft-relay",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": subprotocol::VERSION,
        "learns": ["IP addresses", "a pseudonymous identifier per device", "who meets in a room", "time and size of frames"],
        "cannot_learn": ["file names", "contents", "names of members", "who wrote what"],
    }))
    .into_response()
}
