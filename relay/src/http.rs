//! What is served over HTTP.

mod admin;
mod connect;
mod forwarded;
mod guard;
mod page;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio_util::task::TaskTracker;
use weft_protocol::admission::Audience;
use weft_protocol::admission::token::{CONNECT_PATH, ErrorAnswer, TOKEN_PATH};
use weft_protocol::code::Code;

use crate::accept::Gates;
use crate::admit::{Admitter, Refusal, unix_ms};
use crate::hub::Hub;
use crate::reading::Room;
use crate::refusals::{Refusals, Refused};

pub(crate) use self::forwarded::is_trusted;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) admitter: Arc<Admitter>,
    pub(crate) tasks: TaskTracker,
    pub(crate) gates: Arc<Gates>,
    pub(crate) refusals: Arc<Refusals>,
    /// Audiences that are dialled with `wss://`, whoever speaks TLS.
    pub(crate) wss_audiences: Arc<[Audience]>,
    /// Whether this relay terminates TLS itself.
    pub(crate) tls: bool,
    /// Memory for messages of which a part has come.
    pub(crate) room: Arc<Room>,
    /// Names by which the admin port may be asked, besides addresses and localhost.
    pub(crate) admin_hosts: Arc<[String]>,
    /// How long a request's body may take.
    pub(crate) header_max: Duration,
}

impl Shared {
    /// Counts and logs what a client is told.
    fn refused(&self, what: &'static str, refusal: &Refusal, ip: Option<IpAddr>) {
        let (identity, barrier) = (refusal.identity, refusal.barrier);
        let refused = Refused { what, conn: None, ip, identity, barrier };
        self.refusals.http(refusal.code, refused, self.hub.now_ms());
    }
}

/// The public port.
pub(crate) fn public(shared: Shared) -> Router {
    health()
        .route("/", get(page::about))
        .route("/.well-known/did.json", get(page::did_document))
        .route(TOKEN_PATH, post(token::token))
        .route(CONNECT_PATH, get(connect::connect))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(shared)
}

/// The admin port.
pub(crate) fn admin(shared: Shared) -> Router {
    health()
        .route("/metrics", get(admin::metrics))
        .route("/figures", get(admin::figures))
        .route("/rooms", get(admin::rooms))
        .route("/mark", get(admin::mark))
        .route("/kick", post(admin::kick))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(from_fn_with_state(shared.clone(), guard::guard))
        .with_state(shared)
}

fn health() -> Router<Shared> {
    Router::new().route("/health/live", get(async || "live\n")).route("/health/ready", get(ready))
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.hub.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}

async fn not_found() -> Response {
    Refusal::new(Code::NotFound, "nothing is served here: see docs/protocol.md").into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        let answer = ErrorAnswer {
            code: self.code.name().to_owned(),
            message: self.message,
            relay_time_ms: unix_ms(),
            retry_after_ms: self.retry_after_ms,
        };
        let mut response = (status, Json(answer)).into_response();
        if let Some(retry_ms) = self.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, retry_ms.div_ceil(1000).into());
        }
        response
    }
}
