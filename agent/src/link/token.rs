//! Asking a relay for a token: as a pseudonym, and as the account if the relay asks for named people.
//!
//! Invariant: a wrong clock costs one further request: after a time error the request is signed once more by the
//! relay's time, and never a third time. A relay that refuses is asked at its door what it wants, so that the person hears
//! what to do; it learns the account only where [`Access`] allows it.
//! Spec: docs/protocol.md#token.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use rustls::ClientConfig;
use serde::Deserialize;
use weft_agent_core::workspace::input::LinkKind;
use weft_protocol::admission::DidKey;
use weft_protocol::admission::jwt;
use weft_protocol::admission::proof::{AUTH_HEADER, auth_proof, sign_token_request};
use weft_protocol::admission::token::{ErrorAnswer, TOKEN_PATH, TokenAnswer, TokenRequest};
use weft_protocol::code::Code;
use weft_protocol::id::{ConnectionKey, RelayDevice};

use super::access::{Access, Identity};
use super::address::Address;
use super::{LinkError, Wanted, http as wire, transport};
use crate::{clock, engine};

/// Who asks.
pub(crate) struct Asker<'a> {
    pub(crate) address: &'a Address,
    pub(crate) kind: LinkKind,
    pub(crate) tls: &'a Arc<ClientConfig>,
    /// The pseudonym for this relay.
    pub(crate) did_key: &'a SigningKey,
    pub(crate) device: RelayDevice,
    /// Fresh for the connection.
    pub(crate) connection: &'a SigningKey,
    pub(crate) access: &'a Access,
}

/// What a relay says at its door that it asks for.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
struct Policy {
    #[serde(default)]
    secret: bool,
    #[serde(default)]
    allow_list: bool,
}

#[derive(Deserialize)]
struct About {
    policy: Policy,
}

fn is_not_allowed(error: &LinkError) -> bool {
    matches!(error, LinkError::Refused { code: Code::NotAllowed, .. })
}

impl Asker<'_> {
    /// A token for this connection key.
    pub(crate) async fn ask(&self) -> Result<String, LinkError> {
        if self.kind == LinkKind::Lan {
            return self.as_pseudonym(None).await;
        }
        let audience = &self.address.audience;
        let secret = self.access.secret(audience).await?;
        let secret = secret.as_ref().map(|secret| secret.as_str());
        let named = self.access.comes_named(audience);
        let answer = if named { self.as_account(secret).await } else { self.as_pseudonym(secret).await };
        match answer {
            Err(refused) if is_not_allowed(&refused) => self.not_allowed(refused, secret, named).await,
            answer => answer,
        }
    }

    /// What a refusal asks for: the account if it may be named, else something that only the person can do.
    async fn not_allowed(&self, refused: LinkError, secret: Option<&str>, named: bool) -> Result<String, LinkError> {
        let audience = &self.address.audience;
        let url = self.address.url.clone();
        // One that does not say what it wants has said why it refused.
        let Ok(policy) = self.policy().await else { return Err(refused) };
        if policy.secret && secret.is_none() {
            return Err(LinkError::Wants(Wanted::Secret { url }));
        }
        if policy.allow_list && !named {
            if self.access.setting(audience).identity == Identity::Pseudonym {
                return Err(LinkError::Wants(Wanted::Permission { url }));
            }
            if self.access.account.profile()?.is_none() {
                let did = DidKey::Ed25519(self.did_key.verifying_key().to_bytes()).to_string();
                return Err(LinkError::Wants(Wanted::Account { did }));
            }
            match self.as_account(secret).await {
                Ok(token) => {
                    self.access.learn_named(audience, true);
                    return Ok(token);
                }
                Err(error) if !is_not_allowed(&error) => return Err(error),
                Err(_) => {}
            }
        }
        self.access.learn_named(audience, false);
        match (policy.secret, policy.allow_list, self.access.account.profile()?) {
            (false, true, Some(who)) => Err(LinkError::Wants(Wanted::Place { handle: who.handle, did: who.did })),
            (true, true, Some(who)) => Err(LinkError::Wants(Wanted::SecretOrPlace { url, did: who.did })),
            (true, false, _) => Err(LinkError::Wants(Wanted::OtherSecret { url })),
            _ => Err(refused),
        }
    }

    async fn as_pseudonym(&self, secret: Option<&str>) -> Result<String, LinkError> {
        match self.self_signed(clock::wall_ms(), secret).await {
            Err(LinkError::Refused { code: Code::Expired | Code::NotYetValid, relay_time_ms: Some(time), .. }) => {
                tracing::warn!("this computer's clock differs from the relay's; going by the relay's");
                self.self_signed(time, secret).await
            }
            answer => answer,
        }
    }

    async fn self_signed(&self, wall_ms: u64, secret: Option<&str>) -> Result<String, LinkError> {
        let jwt = jwt::self_signed(self.did_key, &self.address.audience, wall_ms / 1000, &engine::random());
        self.post(&jwt, secret).await
    }

    async fn as_account(&self, secret: Option<&str>) -> Result<String, LinkError> {
        let jwt = self.access.account.service_auth(&self.address.audience).await?;
        self.post(&jwt, secret).await
    }

    async fn post(&self, jwt: &str, secret: Option<&str>) -> Result<String, LinkError> {
        let audience = &self.address.audience;
        let body = TokenRequest {
            audience: audience.clone(),
            connection: ConnectionKey(self.connection.verifying_key().to_bytes()),
            device: self.device,
            signature: sign_token_request(self.connection, audience, jwt, &self.device),
        };
        let mut request = Request::post(TOKEN_PATH)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {jwt}"));
        if let Some(secret) = secret {
            request = request.header(AUTH_HEADER, auth_proof(secret, audience, jwt));
        }
        let request = request.body(body.to_json().into_bytes()).map_err(|_| LinkError::NotARelay)?;
        let answer = self.send(request).await?;
        if answer.status().as_u16() == 200 {
            let answer: TokenAnswer = serde_json::from_slice(answer.body()).map_err(|_| LinkError::NotARelay)?;
            return Ok(answer.token);
        }
        let answer: ErrorAnswer = serde_json::from_slice(answer.body()).map_err(|_| LinkError::NotARelay)?;
        Err(LinkError::Refused {
            code: answer.code(),
            message: answer.message,
            retry_after_ms: answer.retry_after_ms,
            relay_time_ms: Some(answer.relay_time_ms),
        })
    }

    async fn policy(&self) -> Result<Policy, LinkError> {
        let request = Request::get("/").header(ACCEPT, "application/json").body(Vec::new());
        let answer = self.send(request.map_err(|_| LinkError::NotARelay)?).await?;
        let about: About = serde_json::from_slice(answer.body()).map_err(|_| LinkError::NotARelay)?;
        Ok(about.policy)
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<http::Response<bytes::Bytes>, LinkError> {
        let stream = transport::connect(self.address, self.tls).await?;
        Ok(wire::send(stream, self.address.audience.as_str(), request).await?)
    }
}
