//! Finding others by multicast DNS (`_weft._tcp`).
//!
//! Invariant: best effort; a network without multicast costs nothing but a line in the log.

use std::net::IpAddr;

use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::engine;

const SERVICE: &str = "_weft._tcp.local.";
/// Tags in one announcement; a TXT record stays small.
const TAGS_MAX: usize = 16;

/// Announces and listens.
pub(crate) struct Mdns {
    daemon: ServiceDaemon,
    announced: Option<String>,
}

/// Somebody on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) tags: Vec<String>,
    pub(crate) urls: Vec<String>,
}

impl Mdns {
    /// Listens; neighbours go to `found`, from a thread of its own.
    pub(crate) fn start(found: impl Fn(Neighbour) + Send + 'static) -> anyhow::Result<Mdns> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        std::thread::Builder::new().name("weft-mdns".to_owned()).spawn(move || {
            while let Ok(event) = events.recv() {
                let ServiceEvent::ServiceResolved(service) = event else { continue };
                let tags = service.txt_properties.get_property_val_str("t").unwrap_or_default();
                let tags = tags.split(',').take(TAGS_MAX).map(str::to_owned).collect();
                let ips: Vec<IpAddr> = service
                    .addresses
                    .iter()
                    .map(mdns_sd::ScopedIp::to_ip_addr)
                    .filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
                    .take(8)
                    .collect();
                found(Neighbour { tags, urls: super::addresses::urls(&ips, service.port) });
            }
        })?;
        Ok(Mdns { daemon, announced: None })
    }

    /// Says that we are here, under a fresh name.
    pub(crate) fn announce(&mut self, tags: &[String], ips: &[IpAddr], port: u16) -> anyhow::Result<()> {
        if let Some(old) = self.announced.take() {
            let _unheard = self.daemon.unregister(&old);
        }
        if tags.is_empty() {
            return Ok(());
        }
        let name = format!("{:016x}", u64::from_le_bytes(engine::random()));
        let said: Vec<&str> = tags.iter().take(TAGS_MAX).map(String::as_str).collect();
        let text = said.join(",");
        let properties = [("t", text.as_str())];
        let info = ServiceInfo::new(SERVICE, &name, &format!("{name}.local."), ips, port, &properties[..])?;
        self.announced = Some(info.get_fullname().to_owned());
        self.daemon.register(info)?;
        Ok(())
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        let _ended = self.daemon.shutdown();
    }
}
