//! The relay that this agent serves to its neighbours, and to itself.
//!
//! Invariant: the port is chosen once and kept, so that addresses in links stay true; a port that is taken by another
//! program is replaced, never waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio_util::sync::CancellationToken;
use weft_relay::{Config, Server};

/// A relay in this process.
pub(crate) struct Serving {
    pub(crate) port: u16,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Serves on `port` (0: any), or on another one if that is taken; on loopback only if `loopback_only`.
    pub(crate) async fn start(port: u16, loopback_only: bool) -> anyhow::Result<Serving> {
        let hosts: &[IpAddr] = if loopback_only {
            &[IpAddr::V4(Ipv4Addr::LOCALHOST)]
        } else {
            &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
        };
        let mut last = anyhow::anyhow!("no address to listen on");
        let ports = if port == 0 { vec![0] } else { vec![port, 0] };
        for port in ports {
            for host in hosts {
                match Server::bind(Config { listen: SocketAddr::new(*host, port), ..lan_config() }).await {
                    Ok(server) => return Ok(Self::run(server)),
                    Err(error) => last = error.into(),
                }
            }
        }
        Err(last)
    }

    fn run(server: Server) -> Serving {
        let stop = CancellationToken::new();
        let (port, stopped) = (server.local_addr().port(), stop.clone());
        let task = tokio::spawn(server.run(async move { stopped.cancelled().await }));
        Serving { port, stop, task }
    }

    /// Says goodbye to the neighbours.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let _ended = tokio::time::timeout(std::time::Duration::from_secs(3), self.task).await;
    }
}

fn lan_config() -> Config {
    Config { accept_local_addresses: true, drain_ms_max: 1_000, ..Config::default() }
}
