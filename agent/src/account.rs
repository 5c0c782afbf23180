//! An account of the AT Protocol, for relays that ask who one is: logging in, and tokens for one relay at a time.
//!
//! Invariant: one request to the account's server at a time, so that a session is renewed once and its new tokens are stored
//! before they are used; what the server refuses for good is asked again only after the next login.
//! Why atrium's types without its agent: that one panics on a server that answers with another DID.
//! Spec: docs/using.md#relays-that-ask-who-you-are, <https://atproto.com/specs/xrpc#inter-service-authentication-jwt>.

mod attest;
mod seen;
pub(crate) mod verify;
mod xrpc;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use atrium_api::client::AtpServiceClient;
use atrium_api::com::atproto::server::{create_session, get_service_auth};
use atrium_api::did_doc::DidDocument;
use atrium_api::types::TryFromUnknown;
use atrium_api::types::string::Nsid;
use atrium_api::xrpc::error::Error as XrpcError;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use weft_protocol::admission::Audience;
use weft_protocol::admission::jwt::METHOD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::durable;
use crate::keychain::{Keychain, Place};
use crate::link::transport;
use xrpc::Pds;

pub(crate) use attest::{Attested, root_did, to_say};
pub(crate) use seen::SeenAccounts;

/// Name of the account's secrets in the keychain.
const SECRETS: &str = "account";
/// What is shown of a server's own words.
const WORDS_MAX: usize = 200;

/// What everybody may know of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) did: String,
    pub(crate) handle: String,
    /// Where one logs in, as the person gave it.
    pub(crate) login: String,
    /// Where the account is; often the same.
    pub(crate) pds: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attested: Option<Attested>,
}

/// What nobody may.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Secrets {
    password: String,
    access: String,
    refresh: String,
}

/// Why the account is of no use now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("no account is logged in; `weft identity login HANDLE` does that")]
    None,
    #[error("{url:?} is no address of an account's server: {why}")]
    BadPds { url: String, why: String },
    #[error("the account's server {pds} does not answer ({why}); the agent tries again by itself")]
    Unreachable { pds: String, why: String },
    #[error(
        "{pds} does not know this name with this password. Make an app password in the settings of your account and give \
         that; if the account lives elsewhere, say where: --pds https://..."
    )]
    WrongPassword { pds: String },
    #[error(
        "{pds} asks for a code besides the password: make an app password in the settings of your account, and give that"
    )]
    SecondFactor { pds: String },
    #[error("{pds} says that this is {said}, not {asked}; nothing was kept")]
    OtherDid { pds: String, said: String, asked: String },
    #[error("{handle} has to log in again (the app password was revoked or changed): weft identity login {handle}")]
    LoginAgain { handle: String },
    #[error("the account's server {pds} refused: {why}")]
    Refused { pds: String, why: String },
    #[error("this device does not hold your root key, which has to sign; do it on the device that made your identity")]
    NoRoot,
    #[error(
        "what {pds} published is not what was asked of it ({why}); try again, and do not trust it before that works"
    )]
    NotPublished { pds: String, why: &'static str },
    #[error("the account's files: {0}")]
    Files(#[from] std::io::Error),
}

/// What one request came to, before it is known whose fault that is.
enum Fault {
    /// The token is not taken any more.
    Stale,
    Unreachable(String),
    Refused(String),
}

impl Fault {
    fn at(self, pds: &str) -> AccountError {
        let pds = pds.to_owned();
        match self {
            Fault::Stale => AccountError::Refused { pds, why: "the session is not accepted".to_owned() },
            Fault::Unreachable(why) => AccountError::Unreachable { pds, why },
            Fault::Refused(why) => AccountError::Refused { pds, why },
        }
    }
}

/// A server's words, fit for a terminal.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

fn fault<E: std::fmt::Debug + std::fmt::Display>(error: XrpcError<E>) -> Fault {
    match error {
        XrpcError::Authentication(_) => Fault::Stale,
        XrpcError::XrpcResponse(refusal) => {
            let words = refusal.error.as_ref().map(ToString::to_string).unwrap_or_default();
            let stale = ["ExpiredToken", "InvalidToken", "AuthMissing", "AuthenticationRequired"];
            if refusal.status.as_u16() == 401 || stale.iter().any(|name| words.starts_with(name)) {
                return Fault::Stale;
            }
            Fault::Refused(plain(&format!("{} {words}", refusal.status.as_u16())))
        }
        XrpcError::HttpClient(error) => Fault::Unreachable(plain(&error.to_string())),
        XrpcError::HttpRequest(_)
        | XrpcError::SerdeJson(_)
        | XrpcError::SerdeHtmlForm(_)
        | XrpcError::UnexpectedResponseType => {
            Fault::Refused("its answer cannot be understood; is it a server of the AT Protocol?".to_owned())
        }
    }
}

fn profile_in(file: &Path) -> std::io::Result<Option<Profile>> {
    let Some(bytes) = durable::read_if_there(file)? else { return Ok(None) };
    let damaged = |error: serde_json::Error| {
        std::io::Error::other(format!("{} is damaged ({error}); `weft identity login` again", file.display()))
    };
    Ok(Some(serde_json::from_slice(&bytes).map_err(damaged)?))
}

/// The account of one home.
pub(crate) struct Account {
    file: PathBuf,
    keychain: Arc<Keychain>,
    ca_file: Option<PathBuf>,
    tls: OnceLock<Arc<ClientConfig>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: Option<Secrets>,
    /// The server refused session and password: only the person can help.
    refused: bool,
}

impl Account {
    pub(crate) fn new(file: PathBuf, keychain: Arc<Keychain>, ca_file: Option<PathBuf>) -> Account {
        Account { file, keychain, ca_file, tls: OnceLock::new(), state: Mutex::default() }
    }

    /// Who is logged in.
    pub(crate) fn profile(&self) -> Result<Option<Profile>, AccountError> {
        Ok(profile_in(&self.file)?)
    }

    fn keep(&self, profile: &Profile) -> Result<(), AccountError> {
        let json = serde_json::to_vec_pretty(profile).map_err(std::io::Error::other)?;
        Ok(durable::replace(&self.file, &json)?)
    }

    fn client(&self, pds: &str, bearer: &str) -> Result<AtpServiceClient<Pds>, AccountError> {
        let tls = match self.tls.get() {
            Some(tls) => Arc::clone(tls),
            None => {
                let made = transport::tls(self.ca_file.as_deref()).map_err(std::io::Error::other)?;
                Arc::clone(self.tls.get_or_init(|| made))
            }
        };
        let bearer = Zeroizing::new(bearer.to_owned());
        Ok(AtpServiceClient::new(Pds { address: Pds::address(pds)?, tls, bearer }))
    }

    /// Logs in and keeps the session; another account that was logged in is forgotten.
    pub(crate) async fn login(
        &self,
        identifier: &str,
        password: &str,
        pds: &str,
    ) -> Result<(Profile, Place), AccountError> {
        let mut state = self.state.lock().await;
        let asked = identifier.trim().trim_start_matches('@');
        let (profile, secrets) = self.sign_in(asked, password, pds).await?;
        if asked.starts_with("did:") && asked != profile.did {
            return Err(AccountError::OtherDid { pds: pds.to_owned(), said: profile.did.clone(), asked: plain(asked) });
        }
        let attested = self.profile().ok().flatten().filter(|old| old.did == profile.did).and_then(|old| old.attested);
        let profile = Profile { attested, ..profile };
        let place = self.store(&secrets).await?;
        self.keep(&profile)?;
        *state = State { secrets: Some(secrets), refused: false };
        Ok((profile, place))
    }

    async fn sign_in(&self, name: &str, password: &str, login: &str) -> Result<(Profile, Secrets), AccountError> {
        let input = create_session::InputData {
            allow_takendown: None,
            auth_factor_token: None,
            identifier: name.to_owned(),
            password: password.to_owned(),
        };
        let client = self.client(login, "")?;
        let answer = client.service.com.atproto.server.create_session(input.into()).await;
        let pds = login.to_owned();
        let session = match answer {
            Ok(session) => session.data,
            Err(XrpcError::XrpcResponse(refusal))
                if refusal.error.as_ref().is_some_and(|e| e.to_string().starts_with("AuthFactorTokenRequired")) =>
            {
                return Err(AccountError::SecondFactor { pds });
            }
            Err(error) => {
                return Err(match fault(error) {
                    Fault::Stale => AccountError::WrongPassword { pds },
                    other @ (Fault::Unreachable(_) | Fault::Refused(_)) => other.at(&pds),
                });
            }
        };
        let document = session.did_doc.and_then(|document| DidDocument::try_from_unknown(document).ok());
        // A front that many servers share names the one that has the account.
        let home = document.and_then(|document| document.get_pds_endpoint()).filter(|url| Pds::address(url).is_ok());
        let profile = Profile {
            did: session.did.to_string(),
            handle: session.handle.to_string(),
            login: pds.clone(),
            pds: home.unwrap_or(pds),
            attested: None,
        };
        let (access, refresh) = (session.access_jwt, session.refresh_jwt);
        Ok((profile, Secrets { password: password.to_owned(), access, refresh }))
    }

    /// Forgets the account here; gives who it was.
    pub(crate) async fn logout(&self) -> Result<Profile, AccountError> {
        let mut state = self.state.lock().await;
        let profile = self.profile()?.ok_or(AccountError::None)?;
        let secrets = self.loaded(&mut state).await.ok();
        if let Some(secrets) = secrets {
            // Told out of courtesy: the session ends by itself too.
            let client = self.client(&profile.pds, &secrets.refresh)?;
            let _told = client.service.com.atproto.server.delete_session().await;
        }
        let keychain = Arc::clone(&self.keychain);
        blocking(move || keychain.forget(SECRETS)).await?;
        std::fs::remove_file(&self.file)?;
        *state = State::default();
        Ok(profile)
    }

    async fn store(&self, secrets: &Secrets) -> Result<Place, AccountError> {
        let bytes = Zeroizing::new(serde_json::to_vec(secrets).map_err(std::io::Error::other)?);
        let keychain = Arc::clone(&self.keychain);
        Ok(blocking(move || keychain.set(SECRETS, &bytes)).await?)
    }

    async fn loaded(&self, state: &mut State) -> Result<Secrets, AccountError> {
        if let Some(secrets) = &state.secrets {
            return Ok(secrets.clone());
        }
        let keychain = Arc::clone(&self.keychain);
        let bytes = blocking(move || keychain.get(SECRETS)).await?.ok_or(AccountError::None)?;
        let secrets: Secrets = serde_json::from_slice(&bytes).map_err(|_| AccountError::None)?;
        state.secrets = Some(secrets.clone());
        Ok(secrets)
    }

    /// New tokens by the refresh token, else by the app password; stored before they are used.
    async fn renew(&self, state: &mut State, profile: &Profile) -> Result<Secrets, AccountError> {
        let again = || AccountError::LoginAgain { handle: profile.handle.clone() };
        if state.refused {
            return Err(again());
        }
        let old = self.loaded(state).await?;
        let client = self.client(&profile.pds, &old.refresh)?;
        let secrets = match client.service.com.atproto.server.refresh_session().await.map_err(fault) {
            Ok(new) if new.data.did.as_str() == profile.did => {
                let (access, refresh) = (new.data.access_jwt, new.data.refresh_jwt);
                Secrets { password: old.password.clone(), access, refresh }
            }
            Ok(_) => return Err(again()),
            Err(Fault::Unreachable(why)) => return Err(Fault::Unreachable(why).at(&profile.pds)),
            Err(Fault::Stale | Fault::Refused(_)) => {
                tracing::info!("the account's session is over; logging in again with the app password");
                match self.sign_in(&profile.did, &old.password, &profile.login).await {
                    Ok((now, secrets)) if now.did == profile.did => secrets,
                    Ok(_) | Err(AccountError::WrongPassword { .. } | AccountError::SecondFactor { .. }) => {
                        state.refused = true;
                        return Err(again());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.store(&secrets).await?;
        state.secrets = Some(secrets.clone());
        Ok(secrets)
    }

    /// A JWT, signed by the account's key at its server, that is good for one token request at one relay.
    pub(crate) async fn service_auth(&self, relay: &Audience) -> Result<String, AccountError> {
        let mut state = self.state.lock().await;
        let profile = self.profile()?.ok_or(AccountError::None)?;
        let lxm: Nsid = METHOD.parse().map_err(std::io::Error::other)?;
        let asked = get_service_auth::ParametersData { aud: relay.did_web(), exp: None, lxm: Some(lxm) };
        let mut secrets = self.loaded(&mut state).await?;
        let mut renewed = false;
        loop {
            let client = self.client(&profile.pds, &secrets.access)?;
            match client.service.com.atproto.server.get_service_auth(asked.clone().into()).await.map_err(fault) {
                Ok(answer) => return Ok(answer.data.token),
                Err(Fault::Stale) if !renewed => {
                    secrets = self.renew(&mut state, &profile).await?;
                    renewed = true;
                }
                Err(fault) => return Err(fault.at(&profile.pds)),
            }
        }
    }
}

/// Runs what may wait for a disk or a keychain.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
