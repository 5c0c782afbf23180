//! Finding others by multicast DNS (`_weft._tcp`).
//!
//! Invariant: best effort; a network without multicast costs nothing but a line in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::engine;

const SERVICE: &str = "_weft._tcp.local.";
/// Tags in one announcement; a TXT record stays small.
const TAGS_MAX: usize = 16;
/// Names remembered at most: a network with more agents than this forgets late who left.
const NAMES_MAX: usize = 1024;

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

/// What is heard of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Somebody is there.
    Here(Neighbour),
    /// At these addresses nobody is any more.
    Gone(Vec<String>),
}

/// Where each announced name is. One agent has a new name every hour, at the same addresses.
#[derive(Default)]
struct Names(BTreeMap<String, Vec<String>>);

impl Names {
    /// A name is at these addresses.
    fn here(&mut self, name: &str, urls: &[String]) {
        if self.0.len() < NAMES_MAX || self.0.contains_key(name) {
            self.0.insert(name.to_owned(), urls.to_vec());
        }
    }
    /// A name is gone; the addresses at which no other one is.
    fn gone(&mut self, name: &str) -> Vec<String> {
        let urls = self.0.remove(name).unwrap_or_default();
        let still: BTreeSet<&String> = self.0.values().flatten().collect();
        urls.iter().filter(|url| !still.contains(url)).cloned().collect()
    }
}

impl Mdns {
    /// Listens; what is heard goes to `heard`, from a thread of its own.
    pub(crate) fn start(heard: impl Fn(Heard) + Send + 'static) -> anyhow::Result<Mdns> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        std::thread::Builder::new().name("weft-mdns".to_owned()).spawn(move || {
            let mut names = Names::default();
            while let Ok(event) = events.recv() {
                if let ServiceEvent::ServiceRemoved(_, name) = &event {
                    let urls = names.gone(name);
                    if !urls.is_empty() {
                        heard(Heard::Gone(urls));
                    }
                }
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
                let urls = super::addresses::urls(&ips, service.port);
                names.here(&service.fullname, &urls);
                heard(Heard::Here(Neighbour { tags, urls }));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever goes on under a new name is not gone; whoever says goodbye, or falls silent, is.
    #[test]
    fn only_who_has_no_name_left_is_gone() {
        let (ann, ben) = (vec!["ws://10.0.0.1:7".to_owned()], vec!["ws://10.0.0.2:7".to_owned()]);
        let mut names = Names::default();
        names.here("a1", &ann);
        names.here("b1", &ben);
        names.here("a2", &ann);
        assert_eq!(names.gone("a1"), Vec::<String>::new());
        assert_eq!(names.gone("b1"), ben);
        assert_eq!(names.gone("b1"), Vec::<String>::new());
        assert_eq!(names.gone("a2"), ann);
    }
}
