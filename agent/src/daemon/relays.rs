//! Relays that somebody names, looked at before they are used.
//!
//! Invariant: an address where something answers that is no relay is refused before anything is made of it; one that cannot
//! be reached now is taken, because a workspace may be made offline, and its person is told at once.
//! Spec: docs/using.md#relays

use super::run::Daemon;
use super::wire::Failure;
use crate::link::address::Address;
use crate::link::diagnose::{Found, look};
use crate::link::transport;

/// The addresses in the form that they are kept in, and what to tell about those that cannot be reached.
pub(super) async fn looked_at(daemon: &Daemon, relays: &[String]) -> Result<(Vec<String>, Vec<String>), Failure> {
    let mut addresses = Vec::new();
    for url in relays {
        let wrong = |error| Failure::usage(format!("{url:?} is no address of a relay: {error}")).code("relay-wrong");
        addresses.push(Address::parse(url).map_err(wrong)?);
    }
    let mut warnings = Vec::new();
    if addresses.is_empty() {
        return Ok((Vec::new(), warnings));
    }
    let tls = transport::tls(daemon.ca_file.as_deref())?;
    for found in futures_util::future::join_all(addresses.iter().map(|address| look(address, &tls))).await {
        match found {
            Found::Relay => {}
            Found::Wrong(why) => return Err(Failure::usage(why).code("relay-wrong")),
            Found::Unknown(why) => {
                warnings.push(format!("{why} It is tried again and again; `weft status` shows how it goes."))
            }
        }
    }
    Ok((addresses.into_iter().map(|address| address.url).collect(), warnings))
}
