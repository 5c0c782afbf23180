//! What an operator sets: in a TOML file, the environment (`WEFT_RELAY_*`) and flags; the later wins.
//!
//! One struct is all three, so that they cannot drift apart: the key in the file is the field, the flag is the field with
//! dashes. Invariant: an unknown key is an error, and what is printed holds no secret. Spec: docs/operating.md.

mod file;
mod secret;
pub(crate) mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use weft_protocol::limits;

use self::value::{Did, Moment, Network, Number, PublicUrl, Secret, ServiceUrl, TokenKey};
use crate::config::{Config, DidConfig, NatsConfig, PolicyConfig, TlsFiles};

pub use self::file::Fault;

/// Secrets that clients may know at a time: the one in use, and during a rotation the one before or after it.
const AUTH_TOKENS_MAX: usize = 2;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why options are no configuration. The texts name the key, and the line where there is one, and no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no TOML, or has an unknown key or a value of the wrong kind; the text points at it.
    #[error("{path}: {fault}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        fault: Fault,
    },
    /// Values that do not go together.
    #[error("{key}: {problem}")]
    Conflict {
        /// The key to change.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

macro_rules! options {
    ($( $(#[$attribute:meta])* $name:ident: $kind:ty, )*) => {
        /// All options; `None` where nothing was said.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Options {
            $( $(#[$attribute])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<$kind>, )*
        }

        impl Options {
            /// Takes from `other` what nothing was said about here.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $( $name: self.$name.or(other.$name), )* }
            }

            /// The keys of a file, in the order of the help.
            pub const KEYS: &'static [&'static str] = &[ $( stringify!($name), )* ];
        }
    };
}

options! {
    /// Where to listen; port 0 binds a free one
    #[arg(long, env = "WEFT_RELAY_LISTEN", value_name = "ADDR")]
    listen: SocketAddr,
    /// Where to serve metrics and administration; keep it off the internet
    #[arg(long, env = "WEFT_RELAY_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: SocketAddr,
    /// Names by which the admin port may be asked, besides addresses and localhost
    #[arg(long = "admin-host", env = "WEFT_RELAY_ADMIN_HOSTS", value_delimiter = ',', value_name = "NAME")]
    admin_hosts: Vec<String>,
    /// URLs that clients dial (ws:// or wss://); without one: loopback names and own addresses
    #[arg(long = "public-url", env = "WEFT_RELAY_PUBLIC_URL", value_delimiter = ',', value_name = "URL")]
    public_urls: Vec<PublicUrl>,
    /// For trying things out: did:web over plain HTTP and from private networks; only on a loopback address
    #[arg(long, env = "WEFT_RELAY_DEVELOPMENT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    development: bool,
    /// How logs are written, to standard error; RUST_LOG chooses what
    #[arg(long, env = "WEFT_RELAY_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
    /// OpenTelemetry collector that gets traces (OTLP over HTTP, usually port 4318); needs a build with that feature
    #[arg(long, env = "WEFT_RELAY_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: ServiceUrl,

    /// Certificate chain (PEM); read again when it changes
    #[arg(long, env = "WEFT_RELAY_TLS_CERTIFICATE", value_name = "FILE", help_heading = "TLS and proxies")]
    tls_certificate: PathBuf,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "WEFT_RELAY_TLS_KEY", value_name = "FILE", help_heading = "TLS and proxies")]
    tls_key: PathBuf,
    /// Proxies in front, as networks; from these alone X-Forwarded-For is believed
    #[arg(long = "trusted-proxy", env = "WEFT_RELAY_TRUSTED_PROXIES", value_delimiter = ',', value_name = "CIDR", help_heading = "TLS and proxies")]
    trusted_proxies: Vec<Network>,

    /// Keys of relay tokens, 64 hexadecimal digits each; the first signs, all verify; drawn afresh if not given
    #[arg(long = "token-key", env = "WEFT_RELAY_TOKEN_KEYS", value_delimiter = ',', value_name = "HEX", help_heading = "Who may come in")]
    token_keys: Vec<TokenKey>,
    /// File that holds token_keys, one a line
    #[arg(long, env = "WEFT_RELAY_TOKEN_KEYS_FILE", value_name = "FILE", help_heading = "Who may come in")]
    token_keys_file: PathBuf,
    /// Until when keys but the first verify (RFC 3339)
    #[arg(long, env = "WEFT_RELAY_TOKEN_KEYS_OLD_UNTIL", value_name = "TIME", help_heading = "Who may come in")]
    token_keys_old_until: Moment,
    /// Secret that clients must know; during a rotation two, and either will do
    #[arg(long, env = "WEFT_RELAY_AUTH_TOKEN", value_delimiter = ',', value_name = "SECRET", help_heading = "Who may come in")]
    #[serde(deserialize_with = "value::one_or_more", serialize_with = "value::as_one_or_more")]
    auth_token: Vec<Secret>,
    /// File that holds auth_token, one a line
    #[arg(long, env = "WEFT_RELAY_AUTH_TOKEN_FILE", value_name = "FILE", help_heading = "Who may come in")]
    auth_token_file: PathBuf,
    /// DIDs that may come in; without any, all may
    #[arg(long = "allow-did", env = "WEFT_RELAY_ALLOW_DIDS", value_delimiter = ',', value_name = "DID", help_heading = "Who may come in")]
    allow_dids: Vec<Did>,
    /// File of DIDs and networks that may not come in, one a line; read again when it changes
    #[arg(long, env = "WEFT_RELAY_BLOCK_FILE", value_name = "FILE", help_heading = "Who may come in")]
    block_file: PathBuf,
    /// Directory that resolves did:plc
    #[arg(long, env = "WEFT_RELAY_PLC_URL", value_name = "URL", help_heading = "Who may come in")]
    plc_url: ServiceUrl,
    /// Root certificates (PEM) to trust, besides the system's, when DIDs are resolved
    #[arg(long, env = "WEFT_RELAY_DID_CA", value_name = "FILE", help_heading = "Who may come in")]
    did_ca: PathBuf,

    /// NATS servers over which several relays are one
    #[arg(long, env = "WEFT_RELAY_NATS", value_delimiter = ',', value_name = "URL", help_heading = "Several relays")]
    nats: Vec<ServiceUrl>,
    /// File that holds nats, for URLs with a password
    #[arg(long, env = "WEFT_RELAY_NATS_FILE", value_name = "FILE", help_heading = "Several relays")]
    nats_file: PathBuf,
    /// Credentials file of NATS
    #[arg(long, env = "WEFT_RELAY_NATS_CREDENTIALS", value_name = "FILE", help_heading = "Several relays")]
    nats_credentials: PathBuf,
    /// Token of NATS
    #[arg(long, env = "WEFT_RELAY_NATS_TOKEN", value_name = "SECRET", help_heading = "Several relays")]
    nats_token: Secret,
    /// File that holds nats_token
    #[arg(long, env = "WEFT_RELAY_NATS_TOKEN_FILE", value_name = "FILE", help_heading = "Several relays")]
    nats_token_file: PathBuf,
    /// Root certificates (PEM) for TLS towards NATS; TLS is then required
    #[arg(long, env = "WEFT_RELAY_NATS_CA", value_name = "FILE", help_heading = "Several relays")]
    nats_ca: PathBuf,

    /// Connections in all
    #[arg(long, env = "WEFT_RELAY_CONNECTIONS_MAX", value_name = "N", help_heading = "Limits")]
    connections_max: Number<1, { u32::MAX }>,
    /// Connections an IPv4 address or IPv6 /64
    #[arg(long, env = "WEFT_RELAY_CONNECTIONS_PER_IP_MAX", value_name = "N", help_heading = "Limits")]
    connections_per_ip_max: Number<1, { u32::MAX }>,
    /// Connections an IPv4 /24 or IPv6 /48; without it as many as are still free for others, so half at most
    #[arg(long, env = "WEFT_RELAY_CONNECTIONS_PER_NETWORK_MAX", value_name = "N", help_heading = "Limits")]
    connections_per_network_max: Number<1, { u32::MAX }>,
    /// Token requests a minute and address
    #[arg(long, env = "WEFT_RELAY_TOKEN_REQUESTS_PER_MINUTE", value_name = "N", help_heading = "Limits")]
    token_requests_per_minute: Number<1, { u32::MAX }>,
    /// Peers a room
    #[arg(long, env = "WEFT_RELAY_ROOM_PEERS_MAX", value_name = "N", help_heading = "Limits")]
    room_peers_max: Number<2, { limits::JOINED_PEERS_MAX as u32 }>,
    /// Rooms a connection
    #[arg(long, env = "WEFT_RELAY_ROOMS_PER_CONNECTION_MAX", value_name = "N", help_heading = "Limits")]
    rooms_per_connection_max: Number<1, { u32::MAX }>,
    /// Messages a second a connection; twice as many may come at once
    #[arg(long, env = "WEFT_RELAY_MESSAGES_PER_SECOND", value_name = "N", help_heading = "Limits")]
    messages_per_second: Number<1, { u32::MAX }>,
    /// Bytes a second a connection; twice as many may come at once
    #[arg(long, env = "WEFT_RELAY_BYTES_PER_SECOND", value_name = "BYTES", help_heading = "Limits")]
    bytes_per_second: Number<1_048_576, { u32::MAX }>,
    /// Memory for all messages of which a part has come, in bytes
    #[arg(long, env = "WEFT_RELAY_UNFINISHED_BYTES_MAX", value_name = "BYTES", help_heading = "Limits")]
    unfinished_bytes_max: Number<4_194_304, { u32::MAX }>,
    /// Bytes that may wait for one client; senders are told
    #[arg(long, env = "WEFT_RELAY_QUEUE_BYTES_MAX", value_name = "BYTES", help_heading = "Limits")]
    queue_bytes_max: Number<1_048_576, { u32::MAX }>,
    /// Frames that may wait for one client
    #[arg(long, env = "WEFT_RELAY_QUEUE_FRAMES_MAX", value_name = "N", help_heading = "Limits")]
    queue_frames_max: Number<64, { u32::MAX }>,
    /// Longest a goodbye may take, in milliseconds
    #[arg(long, env = "WEFT_RELAY_DRAIN_MS_MAX", value_name = "MS", help_heading = "Limits")]
    drain_ms_max: Number<100, 3_600_000>,
    /// Time over which clients are asked to spread their return after a restart, in milliseconds
    #[arg(long, env = "WEFT_RELAY_RESTART_SPREAD_MS", value_name = "MS", help_heading = "Limits")]
    restart_spread_ms: Number<1, 3_600_000>,
    /// Longest a client may take for the header of a request, and for its body, in milliseconds
    #[arg(long, env = "WEFT_RELAY_HEADER_MS_MAX", value_name = "MS", help_heading = "Limits")]
    header_ms_max: Number<100, 600_000>,
    /// Longest a client may take to prove its key, in milliseconds
    #[arg(long, env = "WEFT_RELAY_HANDSHAKE_MS_MAX", value_name = "MS", help_heading = "Limits")]
    handshake_ms_max: Number<100, 600_000>,
    /// Silence after which a client is closed, in milliseconds; agents ping every 25,000
    #[arg(long, env = "WEFT_RELAY_IDLE_MS_MAX", value_name = "MS", help_heading = "Limits")]
    idle_ms_max: Number<30_000, 86_400_000>,
}

fn number<const MIN: u32, const MAX: u32>(value: usize) -> Option<Number<MIN, MAX>> {
    Some(Number(u32::try_from(value).unwrap_or(u32::MAX)))
}

impl Options {
    /// Reads a file.
    ///
    /// # Errors
    /// [`OptionsError::Read`], or [`OptionsError::Parse`] with line, column and key.
    pub fn from_file(path: &Path) -> Result<Self, OptionsError> {
        let text = std::fs::read_to_string(path).map_err(|error| OptionsError::Read { path: path.into(), error })?;
        file::parse(&text).map_err(|fault| OptionsError::Parse { path: path.into(), fault })
    }

    /// The line on which a file sets `key`, if it does.
    #[must_use]
    pub fn line_of(path: &Path, key: &str) -> Option<usize> {
        file::line_of(&std::fs::read_to_string(path).ok()?, key)
    }

    /// What is set, as texts by key; for showing defaults.
    #[must_use]
    pub fn texts(&self) -> Vec<(String, String)> {
        let table = toml::Table::try_from(self).unwrap_or_default();
        table
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect()
    }

    /// What holds where nothing was said.
    #[must_use]
    pub fn defaults() -> Self {
        let config = Config::default();
        let settings = &config.settings;
        Self {
            listen: Some(SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 7017))),
            development: Some(false),
            log_format: Some(LogFormat::Text),
            plc_url: Some(ServiceUrl(config.did.plc_url.clone())),
            connections_max: number(config.connections_max),
            connections_per_ip_max: number(config.connections_per_ip_max),
            unfinished_bytes_max: number(config.unfinished_bytes_max),
            token_requests_per_minute: Some(Number(config.token_requests_per_minute)),
            room_peers_max: number(settings.room_peers_max),
            rooms_per_connection_max: number(settings.rooms_per_connection_max),
            messages_per_second: Some(Number(settings.messages_per_second)),
            bytes_per_second: Some(Number(settings.bytes_per_second)),
            queue_bytes_max: number(settings.queue_bytes_max),
            queue_frames_max: number(settings.queue_frames_max),
            drain_ms_max: Some(Number(limits::DRAIN_MS_MAX as u32)),
            restart_spread_ms: Some(Number(limits::RESTART_SPREAD_MS as u32)),
            header_ms_max: Some(Number(limits::HEADER_MS_MAX as u32)),
            handshake_ms_max: Some(Number(limits::HANDSHAKE_MS_MAX as u32)),
            idle_ms_max: Some(Number(limits::IDLE_MS_MAX as u32)),
            ..Self::default()
        }
    }

    /// As TOML, secrets hidden.
    #[must_use]
    pub fn print(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The same, with the secrets that stand in files of their own.
    fn with_secrets(self) -> Result<Self, OptionsError> {
        let at = |file: &Option<PathBuf>| file.clone();
        let (keys, auth, nats, token) =
            (at(&self.token_keys_file), at(&self.auth_token_file), at(&self.nats_file), at(&self.nats_token_file));
        let auth_token = secret::list("auth_token", self.auth_token, "auth_token_file", auth.as_deref())?;
        let conflict = |problem: &str| Err(OptionsError::Conflict { key: "auth_token", problem: problem.to_owned() });
        if auth_token.as_ref().is_some_and(|secrets| secrets.len() > AUTH_TOKENS_MAX) {
            return conflict("takes two secrets at most: the one in use, and the next or last one during a rotation");
        }
        if auth_token.iter().flatten().any(|secret| secret.0.contains(',')) {
            return conflict("a secret has no comma in it: commas stand between two of them");
        }
        Ok(Self {
            token_keys: secret::list("token_keys", self.token_keys, "token_keys_file", keys.as_deref())?,
            nats: secret::list("nats", self.nats, "nats_file", nats.as_deref())?,
            nats_token: secret::one("nats_token", self.nats_token, "nats_token_file", token.as_deref())?,
            auth_token,
            ..self
        })
    }

    /// The configuration of these options; what was not said is at its default. Files with secrets are read.
    ///
    /// # Errors
    /// [`OptionsError::Conflict`].
    pub fn to_config(&self) -> Result<Config, OptionsError> {
        let all = self.clone().or(Self::defaults()).with_secrets()?;
        let mut config = Config::default();
        let conflict = |key, problem: &str| Err(OptionsError::Conflict { key, problem: problem.to_owned() });
        if all.otlp_endpoint.is_some() && !cfg!(feature = "opentelemetry") {
            let problem = "this weft-relay was built without OpenTelemetry: build it with `--features opentelemetry`, or \
                           have the collector scrape /metrics on the admin port";
            return conflict("otlp_endpoint", problem);
        }
        config.listen = all.listen.unwrap_or(config.listen);
        config.admin_listen = all.admin_listen;
        config.admin_hosts = all.admin_hosts.unwrap_or_default();
        let public_urls = all.public_urls.unwrap_or_default();
        let wss = public_urls.iter().filter(|url| url.is_tls()).map(|url| url.audience.clone());
        config.wss_audiences = wss.collect();
        config.audiences = public_urls.into_iter().map(|url| url.audience).collect();
        config.development = all.development.unwrap_or(false);
        config.tls = match (all.tls_certificate, all.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return conflict("tls_key", "tls_certificate needs the private key beside it"),
            (None, Some(_)) => return conflict("tls_certificate", "tls_key needs the certificate beside it"),
        };
        config.trusted_proxies = all.trusted_proxies.into_iter().flatten().map(|network| network.0).collect();
        config.token_keys = all.token_keys.into_iter().flatten().map(|key| key.0).collect();
        config.token_keys_old_until_s =
            all.token_keys_old_until.map(|moment| u64::try_from(moment.0.as_second()).unwrap_or(0));
        config.policy = PolicyConfig {
            auth_tokens: all.auth_token.into_iter().flatten().map(|secret| secret.0).collect(),
            allow_dids: all.allow_dids.map(|dids| dids.into_iter().map(|did| did.0).collect()),
            block_file: all.block_file,
        };
        config.did = DidConfig { ca: all.did_ca, ..config.did };
        if let Some(url) = all.plc_url {
            if !url.0.starts_with("http") {
                return conflict("plc_url", "a URL with http:// or https:// is needed");
            }
            config.did.plc_url = url.0;
        }
        if let Some(urls) = all.nats.filter(|urls| !urls.is_empty()) {
            config.nats = Some(NatsConfig {
                urls: urls.into_iter().map(|url| url.0).collect(),
                credentials: all.nats_credentials,
                token: all.nats_token.map(|secret| secret.0),
                ca: all.nats_ca,
            });
        }
        let settings = &mut config.settings;
        let set = |to: &mut usize, from: Option<u32>| *to = from.map_or(*to, |from| from as usize);
        set(&mut config.connections_max, all.connections_max.map(|n| n.0));
        set(&mut config.connections_per_ip_max, all.connections_per_ip_max.map(|n| n.0));
        config.connections_per_network_max = all.connections_per_network_max.map(|n| n.0 as usize);
        set(&mut config.unfinished_bytes_max, all.unfinished_bytes_max.map(|n| n.0));
        set(&mut settings.room_peers_max, all.room_peers_max.map(|n| n.0));
        set(&mut settings.rooms_per_connection_max, all.rooms_per_connection_max.map(|n| n.0));
        set(&mut settings.queue_bytes_max, all.queue_bytes_max.map(|n| n.0));
        set(&mut settings.queue_frames_max, all.queue_frames_max.map(|n| n.0));
        if let Some(rate) = self.messages_per_second {
            (settings.messages_per_second, settings.messages_burst) = (rate.0, rate.0.saturating_mul(2));
        }
        if let Some(rate) = self.bytes_per_second {
            (settings.bytes_per_second, settings.bytes_burst) = (rate.0, rate.0.saturating_mul(2));
        }
        if let Some(rate) = all.token_requests_per_minute {
            config.token_requests_per_minute = rate.0;
        }
        let time = |to: &mut u64, from: Option<u32>| *to = from.map_or(*to, u64::from);
        time(&mut settings.restart_spread_ms, all.restart_spread_ms.map(|n| n.0));
        time(&mut settings.handshake_ms_max, all.handshake_ms_max.map(|n| n.0));
        time(&mut settings.idle_ms_max, all.idle_ms_max.map(|n| n.0));
        time(&mut config.header_ms_max, all.header_ms_max.map(|n| n.0));
        if let Some(ms) = all.drain_ms_max {
            config.drain_ms_max = u64::from(ms.0);
            settings.drain_ms = config.drain_ms_max / 2;
        }
        config.check().map_err(|(key, problem)| OptionsError::Conflict { key, problem })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        file::parse(text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_printed_can_be_read_again_and_holds_no_secret() {
        let key = "ab".repeat(32);
        let text = format!(
            "token_keys = [\"{key}\"]\nauth_token = \"correct horse battery\"\nnats = [\"nats://user:pass@h:1\"]\n\
             nats_token = \"another long secret\"\n"
        );
        let options = parse(&text).unwrap().or(Options::defaults());
        for printed in [options.print(), format!("{options:?}"), format!("{:?}", options.to_config().unwrap())] {
            for secret in [key.as_str(), "horse", "user:pass", "another"] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
        let two = parse("auth_token = [\"secret one of length\", \"secret two of length\"]").unwrap();
        assert_eq!(two.to_config().unwrap().policy.auth_tokens.len(), 2);
        assert_eq!(two.print().trim(), "auth_token = [\"(hidden)\", \"(hidden)\"]");
        let plain = Options::defaults();
        assert_eq!(parse(&plain.print()).unwrap(), plain);
    }

    #[test]
    fn what_does_not_go_together_is_named_by_its_key() {
        for (text, expected) in [
            ("nats = [\"nats://h:1\"]", "token_keys"),
            ("development = true", "development"),
            ("tls_key = \"k\"", "tls_certificate"),
            ("plc_url = \"nats://x\"", "plc_url"),
            ("auth_token = [\"secret one of length\", \"secret two of length\", \"and one too many\"]", "auth_token"),
            ("auth_token = \"a secret with, a comma\"", "auth_token"),
            ("auth_token_file = \"/nowhere\"", "auth_token_file"),
            ("auth_token = \"a secret of length\"\nauth_token_file = \"/nowhere\"", "auth_token_file"),
            ("token_keys_old_until = \"2030-01-01T00:00:00Z\"", "token_keys"),
        ] {
            let error = parse(text).unwrap().to_config().unwrap_err();
            let OptionsError::Conflict { key, .. } = error else { panic!("{error}") };
            assert_eq!(key, expected, "{text}");
        }
    }
}
