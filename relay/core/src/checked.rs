//! A client's frame, decoded and with its signature verified, before the machine sees it.
//!
//! Invariant: the machine takes a [`CheckedFrame`] and nothing else, so that no signature is ever verified inside of it.
//! Why: the machine is one for all connections, and a signature costs as much as fifty messages; verified by the
//! connection's own task it delays nobody else. Spec: docs/protocol.md#proofs.

use bytes::Bytes;
use weft_protocol::admission::proof::{ProofError, verify_connect, verify_room};
use weft_protocol::frame::{ClientFrame, FrameError};

use crate::io::Admission;

/// What a connection's proofs are verified against; fixed for its life.
#[derive(Clone)]
pub struct Proofs {
    pub(crate) admission: Admission,
    pub(crate) nonce: [u8; 32],
    pub(crate) token: String,
}

/// How the signature of a frame fared; frames without one are `Good`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    WrongAudience,
    BadProof,
    RoomKey,
}

/// A message that was decoded and verified for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFrame {
    pub(crate) len: usize,
    pub(crate) decoded: Result<(ClientFrame, Verdict), FrameError>,
}

impl Proofs {
    /// Decodes one message and verifies the signature in it, if it is of a kind that has one.
    #[must_use]
    pub fn check(&mut self, message: Bytes) -> CheckedFrame {
        let len = message.len();
        let decoded = ClientFrame::decode(message).map(|frame| {
            let verdict = self.verify(&frame);
            if matches!(frame, ClientFrame::Prove { .. }) {
                // Proven once or never: an idle connection does not keep its token.
                self.token = String::new();
            }
            (frame, verdict)
        });
        CheckedFrame { len, decoded }
    }

    fn verify(&self, frame: &ClientFrame) -> Verdict {
        let admission = &self.admission;
        match frame {
            ClientFrame::Prove { audience, connection, signature } => {
                if audience != admission.audience.as_str() {
                    return Verdict::WrongAudience;
                }
                let good = *connection == admission.connection
                    && verify_connect(connection, &admission.audience, &self.nonce, &self.token, signature).is_ok();
                if good { Verdict::Good } else { Verdict::BadProof }
            }
            ClientFrame::Join { room, key, proof } => {
                match verify_room(room, key, &admission.audience, &self.nonce, &admission.connection, proof) {
                    Ok(()) => Verdict::Good,
                    Err(ProofError::RoomKey) => Verdict::RoomKey,
                    Err(_) => Verdict::BadProof,
                }
            }
            ClientFrame::Leave { .. }
            | ClientFrame::Publish { .. }
            | ClientFrame::Send { .. }
            | ClientFrame::Refresh { .. }
            | ClientFrame::Ping { .. } => Verdict::Good,
        }
    }
}
