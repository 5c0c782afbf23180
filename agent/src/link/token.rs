//! Asking a relay for a token.
//!
//! Invariant: a wrong clock costs one further request: after a time error the request is signed once more by the
//! relay's time, and never a third time.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rustls::ClientConfig;
use weft_protocol::admission::token::{ErrorAnswer, TOKEN_PATH, TokenAnswer, TokenRequest};
use weft_protocol::code::Code;
use weft_protocol::id::RelayDevice;

use super::address::Address;
use super::{LinkError, http, transport};
use crate::{clock, engine};

/// Who asks.
pub(crate) struct Asker<'a> {
    pub(crate) address: &'a Address,
    pub(crate) tls: &'a Arc<ClientConfig>,
    /// The pseudonym for this relay.
    pub(crate) did_key: &'a SigningKey,
    pub(crate) device: RelayDevice,
    /// Fresh for the connection.
    pub(crate) connection: &'a SigningKey,
}

impl Asker<'_> {
    /// A token for this connection key.
    pub(crate) async fn ask(&self) -> Result<String, LinkError> {
        match self.ask_at(clock::wall_ms()).await {
            Err(LinkError::Refused { code: Code::Expired | Code::NotYetValid, relay_time_ms: Some(time), .. }) => {
                tracing::warn!("this computer's clock differs from the relay's; going by the relay's");
                self.ask_at(time).await
            }
            answer => answer,
        }
    }

    async fn ask_at(&self, wall_ms: u64) -> Result<String, LinkError> {
        let (request, jwt) = TokenRequest::self_signed(
            self.did_key,
            self.connection,
            &self.address.audience,
            self.device,
            wall_ms / 1000,
            &engine::random(),
        );
        let mut stream = transport::connect(self.address, self.tls).await?;
        let headers = [format!("Authorization: Bearer {jwt}")];
        let host = self.address.audience.as_str();
        let answer = http::post(&mut stream, host, TOKEN_PATH, &headers, &request.to_json()).await?;
        if answer.status == 200 {
            let answer: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| LinkError::NotARelay)?;
            return Ok(answer.token);
        }
        let answer: ErrorAnswer = serde_json::from_slice(&answer.body).map_err(|_| LinkError::NotARelay)?;
        Err(LinkError::Refused {
            code: answer.code(),
            message: answer.message,
            retry_after_ms: answer.retry_after_ms,
            relay_time_ms: Some(answer.relay_time_ms),
        })
    }
}
