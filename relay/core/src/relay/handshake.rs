//! Challenge, proof, session.

use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_protocol::limits::{FRAME_BYTES_MAX, SESSION_JITTER_PERCENT};

use super::Relay;
use crate::checked::Verdict;
use crate::connection::{Connection, Stage};
use crate::io::{Admission, ConnId, Output};

fn saturated(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl Relay {
    pub(super) fn opened(&mut self, now_ms: u64, conn: ConnId, admission: Admission, token: String) {
        if self.connections.contains_key(&conn) {
            return;
        }
        if self.draining {
            self.outputs.push_back(Output::Close { conn, code: Code::Draining, discard_queue: true });
            return;
        }
        // The lists may have changed since its token was looked at.
        if !self.lists.admit(&admission.identity) {
            self.outputs.push_back(Output::Close { conn, code: Code::NotAllowed, discard_queue: true });
            return;
        }
        let nonce = self.draws.bytes();
        let connection = Connection::new(admission, nonce, token, now_ms, &self.settings);
        self.timers.insert((connection.timer_ms, conn));
        self.connections.insert(conn, connection);
        self.send(conn, ServerFrame::Challenge { nonce }.encode());
    }

    pub(super) fn prove(&mut self, now_ms: u64, conn: ConnId, verdict: Verdict) {
        let session_ms = self.session_ms();
        match verdict {
            Verdict::Good => {}
            Verdict::WrongAudience => {
                let message = "the proof names another audience than the token";
                return self.refuse(conn, Code::WrongAudience, None, message);
            }
            Verdict::BadProof | Verdict::RoomKey => {
                let message = "the proof is not by the key that the token is bound to";
                return self.refuse(conn, Code::BadProof, None, message);
            }
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.stage = Stage::Open { session_ends_ms: now_ms.saturating_add(session_ms) };
        self.reschedule(conn);
        let welcome = ServerFrame::Welcome {
            session_ms,
            queue_bytes: saturated(self.settings.queue_bytes_max),
            frame_bytes_max: saturated(FRAME_BYTES_MAX),
            rooms_max: saturated(self.settings.rooms_per_connection_max),
        };
        self.send(conn, welcome.encode());
    }

    pub(super) fn refresh(&mut self, conn: ConnId, token: String) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.refreshing {
            return self.refuse(conn, Code::RateLimited, None, "a token is being verified already");
        }
        connection.refreshing = true;
        self.outputs.push_back(Output::VerifyToken { conn, token });
    }

    pub(super) fn token_verified(&mut self, now_ms: u64, conn: ConnId, result: Result<Admission, Code>) {
        let session_ms = self.session_ms();
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !core::mem::take(&mut connection.refreshing) {
            return;
        }
        match result {
            Ok(admission) if admission == connection.admission => {
                connection.stage = Stage::Open { session_ends_ms: now_ms.saturating_add(session_ms) };
                self.reschedule(conn);
                self.send(conn, ServerFrame::Refreshed { session_ms }.encode());
            }
            Ok(_) => {
                let message = "the new token is for another DID, device, connection key or audience";
                self.refuse(conn, Code::BadToken, None, message);
            }
            Err(code) => self.refuse(conn, code, None, "the new token is not valid: ask for another"),
        }
    }

    /// A session's length, jittered.
    fn session_ms(&mut self) -> u64 {
        let spread = self.settings.session_ms * SESSION_JITTER_PERCENT / 100;
        self.settings.session_ms - spread + self.draws.below(2 * spread + 1)
    }
}
