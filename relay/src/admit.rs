//! The decision behind `POST /v1/token`, in its order: cheap checks of the JWT, limit of the address, policy, resolve and
//! verify, replay.
//!
//! Invariant: nothing a token merely claims is acted on before the limit of its sender's address, and a JWT is
//! remembered only once it was verified. Spec: docs/protocol.md#token.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use weft_protocol::admission::jwt::{Checked, Unverified};
use weft_protocol::admission::proof::hash;
use weft_protocol::admission::token::{TokenAnswer, TokenRequest};
use weft_protocol::code::Code;
use weft_protocol::limits::{RATE_ADDRESSES_MAX, TOKEN_MS};
use weft_relay_core::Admission;
use weft_relay_core::gate::Site;
use weft_relay_core::replay::{Replay, Seen};

use crate::audiences::Audiences;
use crate::did::{self, CacheFigures, Resolver};
use crate::policy::{Barrier, Policy};
use crate::tokens::Tokens;

/// When to come back while more addresses ask than are remembered; by then each may ask again.
const ADDRESSES_FULL_RETRY_MS: u64 = 60_000;

/// When to ask again for a DID that could not be reached: failures are kept for so long.
const DID_RETRY_MS: u64 = 60_000;

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Why a client was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) retry_after_ms: Option<u64>,
    /// Hash of the DID that was named, for the operator.
    pub(crate) identity: Option<[u8; 32]>,
    /// What the operator set that it ran into.
    pub(crate) barrier: Option<Barrier>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, identity: None, barrier: None }
    }

    /// By what the operator set.
    pub(crate) fn barred(barrier: Barrier, message: impl Into<String>) -> Self {
        Self { barrier: Some(barrier), ..Self::new(Code::NotAllowed, message) }
    }
}

pub(crate) struct Admitter {
    pub(crate) audiences: Audiences,
    tokens: RwLock<Arc<Tokens>>,
    policy: RwLock<Arc<Policy>>,
    resolver: Resolver,
    requests: DefaultKeyedRateLimiter<Site>,
    refusals: DefaultKeyedRateLimiter<Site>,
    replay: Mutex<Replay>,
}

/// A token request as it came.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The client's address, behind proxies.
    pub(crate) ip: IpAddr,
    /// Where the connection was accepted.
    pub(crate) local: SocketAddr,
    pub(crate) jwt: &'a str,
    pub(crate) body: &'a [u8],
    /// Shows knowledge of the shared secret.
    pub(crate) auth: Option<&'a str>,
}

fn current<T>(lock: &RwLock<Arc<T>>) -> Arc<T> {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace<T>(lock: &RwLock<Arc<T>>, with: T) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(with);
}

impl Admitter {
    pub(crate) fn new(
        audiences: Audiences,
        tokens: Tokens,
        policy: Policy,
        resolver: Resolver,
        requests_per_minute: u32,
    ) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(requests_per_minute).unwrap_or(NonZeroU32::MIN));
        Self {
            audiences,
            tokens: RwLock::new(Arc::new(tokens)),
            policy: RwLock::new(Arc::new(policy)),
            resolver,
            requests: RateLimiter::keyed(quota),
            refusals: RateLimiter::keyed(quota),
            replay: Mutex::default(),
        }
    }

    pub(crate) fn set_tokens(&self, tokens: Tokens) {
        replace(&self.tokens, tokens);
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        replace(&self.policy, policy);
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        current(&self.policy)
    }

    /// Whether a secret, and a place on a list, are asked for.
    pub(crate) fn asks_for(&self) -> (bool, bool) {
        current(&self.policy).asks_for()
    }

    pub(crate) async fn cache_figures(&self) -> CacheFigures {
        self.resolver.figures().await
    }

    /// Trades a JWT and a body for a token; a refusal counts against the address too.
    pub(crate) async fn token(&self, asked: Asked<'_>) -> Result<TokenAnswer, Refusal> {
        let ip = asked.ip;
        let result = self.decide(asked).await;
        if result.as_ref().is_err_and(|refusal| refusal.code != Code::RateLimited) {
            limited(&self.refusals, ip)?;
        }
        result
    }

    async fn decide(&self, asked: Asked<'_>) -> Result<TokenAnswer, Refusal> {
        let Asked { local, jwt, body, .. } = asked;
        let now_ms = unix_ms();
        let now_s = now_ms / 1000;
        let unverified = Unverified::parse(jwt).map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        let request = TokenRequest::from_json(body).map_err(|e| Refusal::new(Code::Malformed, e.to_string()))?;
        if !self.audiences.accepts(&request.audience, local) {
            let message = format!(
                "this relay does not know itself as {}: dial it by its public URL, or start it with --public-url",
                request.audience
            );
            return Err(Refusal::new(Code::WrongAudience, message));
        }
        let checked = unverified
            .check(|aud| aud == request.audience.did_web(), now_s)
            .map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        let identity = hash("relay-identity", &[did::without_fragment(&checked.issuer).as_bytes()]);
        let admitted = self.admit(asked, now_ms, &unverified, checked, request, identity).await;
        admitted.map_err(|refusal| Refusal { identity: Some(identity), ..refusal })
    }

    /// From the limit of the address on.
    async fn admit(
        &self,
        asked: Asked<'_>,
        now_ms: u64,
        unverified: &Unverified<'_>,
        checked: Checked,
        request: TokenRequest,
        identity: [u8; 32],
    ) -> Result<TokenAnswer, Refusal> {
        let Asked { ip, jwt, auth, .. } = asked;
        let now_s = now_ms / 1000;
        limited(&self.requests, ip)?;
        let did = did::without_fragment(&checked.issuer);
        current(&self.policy).admits(did, ip, auth, &request.audience, jwt)?;
        did::verify(&self.resolver, unverified, &checked.issuer).await.map_err(|code| {
            let message = if code == Code::UnknownDid {
                "the DID does not exist, has no key that may sign in, or is not a did:key, did:web or did:plc"
            } else if code == Code::UnsupportedAlgorithm {
                "the JWT's algorithm is not the one of the issuer's key"
            } else if code == Code::DidUnreachable {
                "the DID's document cannot be had now: check that it is served on the public internet, then try again"
            } else {
                "the JWT's signature is not by the key of its iss: if the key was rotated, try again in five minutes"
            };
            let retry_after_ms = (code == Code::DidUnreachable).then_some(DID_RETRY_MS);
            Refusal { retry_after_ms, ..Refusal::new(code, message) }
        })?;
        request.verify(jwt).map_err(|_| {
            Refusal::new(Code::BadSignature, "the request's signature is not by the connection key it names")
        })?;
        let seen = self.replay.lock().unwrap_or_else(PoisonError::into_inner).see(&checked, now_s);
        match seen {
            Seen::Fresh => {}
            Seen::Replayed => return Err(Refusal::new(Code::Replayed, "this JWT was used before: sign a new one")),
            Seen::Full { retry_after_s } => {
                let retry_after_ms = Some(retry_after_s * 1000);
                let message = "too many token requests at this relay: try again later";
                return Err(Refusal { retry_after_ms, ..Refusal::new(Code::RateLimited, message) });
            }
        }
        let admission =
            Admission { identity, device: request.device, connection: request.connection, audience: request.audience };
        let token =
            current(&self.tokens).issue(&admission, now_s).map_err(|code| Refusal::new(code, "the relay failed"))?;
        Ok(TokenAnswer { token, expires_ms: TOKEN_MS, relay_time_ms: now_ms })
    }

    /// A token shown at the upgrade or in `Refresh`.
    pub(crate) fn verify_token(&self, token: &str, local: SocketAddr) -> Result<Admission, Code> {
        let admission = current(&self.tokens).verify(token, unix_ms() / 1000)?;
        if self.audiences.accepts(&admission.audience, local) { Ok(admission) } else { Err(Code::WrongAudience) }
    }

    /// Forgets addresses that were quiet; called every now and then, and when there are too many.
    pub(crate) fn forget_quiet(&self) {
        for limiter in [&self.requests, &self.refusals] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

fn limited(limiter: &DefaultKeyedRateLimiter<Site>, ip: IpAddr) -> Result<(), Refusal> {
    if limiter.len() > RATE_ADDRESSES_MAX {
        limiter.retain_recent();
        if limiter.len() > RATE_ADDRESSES_MAX {
            let message = "too many token requests at this relay: try again later";
            let retry_after_ms = Some(ADDRESSES_FULL_RETRY_MS);
            return Err(Refusal { retry_after_ms, ..Refusal::new(Code::RateLimited, message) });
        }
    }
    limiter.check_key(&Site::of(ip)).map_err(|not_until| {
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        let message = "too many token requests from this address: try again later";
        let retry_after_ms = Some(wait.as_millis() as u64 + 1);
        Refusal { retry_after_ms, ..Refusal::new(Code::RateLimited, message) }
    })
}
