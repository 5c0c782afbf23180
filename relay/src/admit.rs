//! Who gets in: the decision behind `POST /v1/token`, in its order (cheap checks of the JWT, limit of the address, secret and
//! address, resolve and verify, replay, lists), and the one behind a token that is shown.
//!
//! Invariant: nothing a JWT merely claims is acted on before the limit of its sender's address; the lists of DIDs are
//! asked only about an identity that was proven, so that nobody learns who else is on them; a JWT or token is remembered
//! only once it was verified. Spec: docs/protocol.md#token.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use weft_protocol::admission::jwt::{Checked, Unverified};
use weft_protocol::admission::proof::hash;
use weft_protocol::admission::token::{TokenAnswer, TokenRequest};
use weft_protocol::code::Code;
use weft_protocol::limits::{RATE_ADDRESSES_MAX, REPLAY_ENTRIES_MAX, TOKEN_MS, TOKENS_USED_MAX};
use weft_relay_core::Admission;
use weft_relay_core::once::{Once, Seen, Used};
use weft_relay_core::shares::Network;

use crate::audiences::Audiences;
use crate::did::{self, CacheFigures, Resolver};
use crate::policy::{Barrier, Policy};
use crate::rates::{Rates, TooMany};
use crate::tokens::Tokens;

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

    fn rate_limited(message: &str, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(Code::RateLimited, message) }
    }
}

pub(crate) struct Admitter {
    pub(crate) audiences: Audiences,
    tokens: RwLock<Arc<Tokens>>,
    policy: RwLock<Arc<Policy>>,
    resolver: Resolver,
    requests: Mutex<Rates>,
    refusals: Mutex<Rates>,
    jwts: Mutex<Once>,
    tokens_used: Mutex<Once>,
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

fn replace<T>(lock: &RwLock<Arc<T>>, with: Arc<T>) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = with;
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Admitter {
    pub(crate) fn new(
        audiences: Audiences,
        tokens: Tokens,
        policy: Arc<Policy>,
        resolver: Resolver,
        requests_per_minute: u32,
    ) -> Self {
        let rates = || Mutex::new(Rates::new(requests_per_minute, RATE_ADDRESSES_MAX));
        Self {
            audiences,
            tokens: RwLock::new(Arc::new(tokens)),
            policy: RwLock::new(policy),
            resolver,
            requests: rates(),
            refusals: rates(),
            jwts: Mutex::new(Once::new(REPLAY_ENTRIES_MAX)),
            tokens_used: Mutex::new(Once::new(TOKENS_USED_MAX)),
        }
    }

    pub(crate) fn set_tokens(&self, tokens: Tokens) {
        replace(&self.tokens, Arc::new(tokens));
    }

    pub(crate) fn set_policy(&self, policy: Arc<Policy>) {
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
            self.limited(&self.refusals, ip)?;
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
        self.limited(&self.requests, ip)?;
        self.policy().admits_request(ip, auth, &request.audience, jwt)?;
        did::verify(&self.resolver, unverified, &checked.issuer, Network::of(ip)).await.map_err(|code| {
            let message = if code == Code::UnknownDid {
                "the DID does not exist, has no key that may sign in, or is not a did:key, did:web or did:plc"
            } else if code == Code::UnsupportedAlgorithm {
                "the JWT's algorithm is not the one of the issuer's key"
            } else if code == Code::DidUnreachable {
                "the DID's document cannot be had now: check that it is served on the public internet, then try again"
            } else if code == Code::RateLimited {
                "too many DIDs are being looked up for this network: try again in a minute"
            } else {
                "the JWT's signature is not by the key of its iss: if the key was rotated, try again in five minutes"
            };
            let waiting_helps = matches!(code, Code::DidUnreachable | Code::RateLimited);
            let retry_after_ms = waiting_helps.then_some(DID_RETRY_MS);
            Refusal { retry_after_ms, ..Refusal::new(code, message) }
        })?;
        request.verify(jwt).map_err(|_| {
            Refusal::new(Code::BadSignature, "the request's signature is not by the connection key it names")
        })?;
        let (network, used) = (Network::of(ip), Used::jwt(&checked));
        let replayed = || Refusal::new(Code::Replayed, "this JWT was used before: sign a new one");
        {
            // One lock for all three, so that of two requests with one JWT one is refused. Whoever overheard a used JWT is told
            // that it was used, not whether its DID is on a list; one that the lists refuse takes no place in the table.
            let mut jwts = locked(&self.jwts);
            if jwts.is_used(used, now_s) {
                return Err(replayed());
            }
            self.policy().admits_did(&identity)?;
            match jwts.take(used, checked.expires_s, network, now_s) {
                Seen::Fresh => {}
                Seen::Replayed => return Err(replayed()),
                Seen::Full { retry_after_s } => return Err(table_full(retry_after_s)),
            }
        }
        let admission =
            Admission { identity, device: request.device, connection: request.connection, audience: request.audience };
        let failed = |code| Refusal::new(code, "the relay failed");
        let number = random_number().map_err(failed)?;
        let token = current(&self.tokens).issue(&admission, &number, now_s).map_err(failed)?;
        Ok(TokenAnswer { token, expires_ms: TOKEN_MS, relay_time_ms: now_ms })
    }

    /// Uses up a token that is shown at the upgrade or in `Refresh`: it is good for one of them, once. `ip` is the client's,
    /// behind proxies.
    pub(crate) fn use_token(&self, token: &str, local: SocketAddr, ip: IpAddr) -> Result<Admission, Refusal> {
        let now_s = unix_ms() / 1000;
        let refuse = |code| {
            let message = if code == Code::Expired {
                "the relay token has expired: ask for another and connect at once"
            } else {
                "the relay token is not by this relay: ask POST /v1/token for one"
            };
            Refusal::new(code, message)
        };
        let shown = current(&self.tokens).verify(token, now_s).map_err(refuse)?;
        if !self.audiences.accepts(&shown.admission.audience, local) {
            let message = "the relay token is for another audience than this connection";
            return Err(Refusal::new(Code::WrongAudience, message));
        }
        self.policy().admits_did(&shown.admission.identity)?;
        let used = Used::token(&shown.number);
        match locked(&self.tokens_used).take(used, shown.expires_s, Network::of(ip), now_s) {
            Seen::Fresh => Ok(shown.admission),
            Seen::Replayed => {
                let message = "the relay token was used before: each is good for one connection, ask for another";
                Err(Refusal::new(Code::BadToken, message))
            }
            Seen::Full { retry_after_s } => Err(table_full(retry_after_s)),
        }
    }

    fn limited(&self, rates: &Mutex<Rates>, ip: IpAddr) -> Result<(), Refusal> {
        locked(rates).ask(ip).map_err(|too_many| match too_many {
            TooMany::Address { retry_ms } => {
                Refusal::rate_limited("too many token requests from this address: try again later", retry_ms)
            }
            TooMany::Network { retry_ms } => {
                Refusal::rate_limited("too many addresses of this network ask for tokens: try again later", retry_ms)
            }
        })
    }
}

fn table_full(retry_after_s: u64) -> Refusal {
    Refusal::rate_limited("too many token requests from this network: try again later", retry_after_s * 1000)
}

fn random_number() -> Result<[u8; 16], Code> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|error| {
        tracing::error!(%error, "the operating system gives no randomness");
        Code::Internal
    })?;
    Ok(number)
}
