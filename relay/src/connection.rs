//! One task a connection: between a WebSocket and the hub.
//!
//! Each turn writes one slice of what the hub has for us, then reads at most one message, so that neither a busy room nor a
//! busy client starves the other direction. Reading rests while the client is above its rate. Every write is bounded in time, and cut off when the client is closed for reading too slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use weft_protocol::code::Code;
use weft_protocol::limits::FLUSH_MS_MAX;
use weft_relay_core::{Admission, ConnId, Input, Proofs};

use crate::accept::Peer;
use crate::admit::Admitter;
use crate::hub::Hub;
use crate::mailbox::Mailbox;
use crate::websocket::{Received, WebSocket};

/// Tells the hub that a connection is gone, however its task ends.
struct Entered {
    hub: Arc<Hub>,
    conn: ConnId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.hub.gone(self.conn);
    }
}

/// Runs a connection to its end.
pub(crate) async fn run(
    mut socket: WebSocket,
    hub: Arc<Hub>,
    admitter: Arc<Admitter>,
    peer: Peer,
    admission: Admission,
    token: String,
) {
    let (conn, mailbox, proofs) = hub.open(peer.client, admission, token);
    let entered = Entered { hub: hub.clone(), conn };
    // Whoever changes the list of addresses closes those who are in by then; this one may have come in just after.
    if admitter.policy().admits_ip(peer.client).is_err() {
        hub.kick(conn);
    }
    tracing::debug!(conn = conn.0, "connected");
    let ended = match proofs {
        Some(proofs) => exchange(&mut socket, &hub, &admitter, &peer, conn, &mailbox, proofs).await,
        None => mailbox.take().close,
    };
    // Out of the rooms before the goodbye, which may take a while.
    drop(entered);
    // Boxed: what the goodbye needs is not kept by every idle connection.
    match ended {
        Some(code) => Box::pin(socket.close(code)).await,
        None => Box::pin(socket.let_go()).await,
    }
    tracing::debug!(conn = conn.0, "gone");
}

/// Until the hub closes the connection (with its code) or the client is gone.
async fn exchange(
    socket: &mut WebSocket,
    hub: &Hub,
    admitter: &Admitter,
    peer: &Peer,
    conn: ConnId,
    mailbox: &Mailbox,
    mut proofs: Proofs,
) -> Option<Code> {
    let mut resume_reading = None;
    let mut tick = tokio::time::interval(Duration::from_millis((hub.settings().idle_ms_max / 4).max(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let taken = mailbox.take();
        if let Some(until_ms) = taken.pause_until_ms {
            resume_reading = Some(hub.instant(until_ms));
        }
        if let Some(token) = taken.verify {
            let result = admitter.use_token(&token, peer.local, peer.client).map_err(|refusal| refusal.code);
            hub.input(Input::TokenVerified { conn, result });
            mailbox.work.notify_one();
        }
        if !taken.frames.is_empty() {
            let frames = taken.frames.len();
            tokio::select! {
                biased;
                () = mailbox.cut.notified() => return mailbox.take().close,
                sent = timeout(Duration::from_millis(FLUSH_MS_MAX), socket.send(taken.frames)) => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(conn = conn.0, %error, "a client's socket broke");
                        return None;
                    }
                    Err(_) => return Some(Code::Idle),
                },
            }
            let waited = taken.since.map(|since| since.elapsed()).unwrap_or_default();
            hub.metrics().sent(taken.bytes, waited);
            hub.input(Input::QueueDrained { conn, bytes: taken.bytes, frames });
        }
        if let Some(code) = taken.close {
            return Some(code);
        }
        resume_reading = resume_reading.filter(|&at| at > Instant::now());
        let rested = async {
            match resume_reading {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            received = socket.receive(), if resume_reading.is_none() => match received {
                Received::Frame(message) => {
                    hub.metrics().received(message.len());
                    // Signatures are verified here, before the lock that all connections share.
                    let frame = proofs.check(message);
                    hub.input(Input::FrameReceived { conn, frame });
                }
                Received::Control(bytes) => hub.input(Input::ControlReceived { conn, bytes }),
                Received::Unreadable(code) => hub.input(Input::Unreadable { conn, code }),
                Received::Gone => return None,
            },
            () = std::future::ready(()), if taken.more => {}
            () = mailbox.work.notified() => {}
            () = rested, if resume_reading.is_some() => {}
            _ = tick.tick() => {
                if socket.was_alive() {
                    hub.input(Input::Alive { conn });
                }
                if socket.is_overdue() {
                    hub.input(Input::Unreadable { conn, code: Code::Idle });
                }
            }
        }
    }
}
