//! What a relay is started with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use weft_protocol::admission::Audience;
use weft_protocol::limits;
use weft_relay_core::Settings;

use crate::did::{CacheTimes, Lookup, SystemLookup, is_global};

/// Where the public PLC directory is.
const PLC_URL: &str = "https://plc.directory";

/// Everything a [`Server`](crate::Server) needs; the defaults start a relay on a free loopback port.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; port 0 binds a free one.
    pub listen: SocketAddr,
    /// Where metrics and administration are served, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// Names by which the admin port may be asked, besides addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The audiences this relay answers to. Empty: loopback names, and the address a connection was accepted on.
    pub audiences: Vec<Audience>,
    /// Those of [`audiences`](Self::audiences) that are dialled with `wss://`, though a proxy in front may be what speaks TLS.
    pub wss_audiences: Vec<Audience>,
    /// Also answers to every address of this machine at its port; for an agent that serves its LAN.
    pub accept_local_addresses: bool,
    /// For trying things out on a loopback address: did:web over plain HTTP and from private networks.
    pub development: bool,
    /// Terminates TLS itself with these files.
    pub tls: Option<TlsFiles>,
    /// Proxies in front: from these alone `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may come in.
    pub policy: PolicyConfig,
    /// How DIDs are resolved.
    pub did: DidConfig,
    /// What several relays meet over.
    pub nats: Option<NatsConfig>,
    /// Limits of the machine.
    pub settings: Settings,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections an address (IPv4) or /64 (IPv6).
    pub connections_per_ip_max: usize,
    /// Connections a network (IPv4 /24, IPv6 /48); `None` for no more than are still free for others.
    pub connections_per_network_max: Option<usize>,
    /// Bytes of all messages of which a part has come.
    pub unfinished_bytes_max: usize,
    /// Token requests a minute and address; refusals are counted apart by the same number. At least 1.
    pub token_requests_per_minute: u32,
    /// Keys of the relay's tokens: the first signs, all verify, so that they can be rotated. Empty: one is drawn.
    pub token_keys: Vec<[u8; 32]>,
    /// Unix seconds from which only the first key verifies.
    pub token_keys_old_until_s: Option<u64>,
    /// Longest a drain may take, in milliseconds.
    pub drain_ms_max: u64,
    /// From the TCP connection to the whole header (TLS handshake included, once more), and for a request's body, in milliseconds.
    pub header_ms_max: u64,
}

/// Files of a TLS identity, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may come in; all of it has to be fulfilled.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Secrets of which clients must know one; empty: none is asked for.
    pub auth_tokens: Vec<String>,
    /// DIDs that may come in; `None` for all.
    pub allow_dids: Option<Vec<String>>,
    /// A file of DIDs and networks that may not.
    pub block_file: Option<PathBuf>,
}

/// How DIDs are resolved.
#[derive(Clone)]
pub struct DidConfig {
    /// Directory of did:plc, without a slash at its end. It is the operator's choice, so private addresses are allowed.
    pub plc_url: String,
    /// Root certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Which addresses a did:web may resolve to.
    pub reachable: fn(IpAddr) -> bool,
    /// Answers names.
    pub lookup: Arc<dyn Lookup>,
    /// How long documents are kept.
    pub times: CacheTimes,
}

/// What several relays meet over.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NatsConfig {
    /// Servers of one cluster, tried in random order.
    pub urls: Vec<String>,
    /// A credentials file (JWT and key).
    pub credentials: Option<PathBuf>,
    /// A token.
    pub token: Option<String>,
    /// Root certificates; TLS is then required.
    pub ca: Option<PathBuf>,
}

impl Default for DidConfig {
    fn default() -> Self {
        Self {
            plc_url: PLC_URL.to_owned(),
            ca: None,
            reachable: is_global,
            lookup: Arc::new(SystemLookup),
            times: CacheTimes::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_listen: None,
            admin_hosts: Vec::new(),
            audiences: Vec::new(),
            wss_audiences: Vec::new(),
            accept_local_addresses: false,
            development: false,
            tls: None,
            trusted_proxies: Vec::new(),
            policy: PolicyConfig::default(),
            did: DidConfig::default(),
            nats: None,
            settings: Settings::default(),
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_ip_max: limits::CONNECTIONS_PER_IP_MAX,
            connections_per_network_max: None,
            unfinished_bytes_max: limits::UNFINISHED_BYTES_MAX,
            token_requests_per_minute: limits::TOKEN_REQUESTS_PER_MINUTE,
            token_keys: Vec::new(),
            token_keys_old_until_s: None,
            drain_ms_max: limits::DRAIN_MS_MAX,
            header_ms_max: limits::HEADER_MS_MAX,
        }
    }
}

impl Config {
    /// What does not go together, as the key to change and a sentence.
    ///
    /// # Errors
    /// The first conflict found.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.development && !self.listen.ip().is_loopback() {
            let problem = format!("trusts too much for {}: listen on a loopback address, or leave it out", self.listen);
            return Err(("development", problem));
        }
        if self.nats.is_some() && self.token_keys.is_empty() {
            let problem = "relays behind one address need the same token keys: a client asks one for a token and \
                           connects to another. Set token_keys to the output of `openssl rand -hex 32` on all of them";
            return Err(("token_keys", problem.to_owned()));
        }
        if self.token_keys_old_until_s.is_some() && self.token_keys.len() < 2 {
            let problem = "token_keys_old_until needs two keys: first the new one, then the old one".to_owned();
            return Err(("token_keys", problem));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("audiences", &self.audiences)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
