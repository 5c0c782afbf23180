//! What a relay is started with.

use std::net::{Ipv4Addr, SocketAddr};

use weft_protocol::admission::Audience;
use weft_protocol::limits;
use weft_relay_core::Settings;

/// Everything a [`Server`](crate::Server) needs; the defaults start a relay on a free loopback port.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; port 0 binds a free one.
    pub listen: SocketAddr,
    /// Where health and figures are served apart from the public port, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// The audiences this relay answers to. Empty: loopback names, and the address a connection was accepted on.
    pub audiences: Vec<Audience>,
    /// Also answers to every address of this machine at its port; for an agent that serves its LAN.
    pub accept_local_addresses: bool,
    /// Limits of the machine.
    pub settings: Settings,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections an address (IPv4) or /64 (IPv6).
    pub connections_per_ip_max: usize,
    /// Token requests a minute and address; refusals are counted apart by the same number. At least 1.
    pub token_requests_per_minute: u32,
    /// Keys of the relay's tokens: the first signs, all verify, so that they can be rotated. Empty: one is drawn.
    pub token_keys: Vec<[u8; 32]>,
    /// Longest a drain may take, in milliseconds.
    pub drain_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_listen: None,
            audiences: Vec::new(),
            accept_local_addresses: false,
            settings: Settings::default(),
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_ip_max: limits::CONNECTIONS_PER_IP_MAX,
            token_requests_per_minute: limits::TOKEN_REQUESTS_PER_MINUTE,
            token_keys: Vec::new(),
            drain_ms_max: limits::DRAIN_MS_MAX,
        }
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
