//! Marks: short names that mean nothing outside of this process, under which an operator sees rooms, DIDs and addresses.
//!
//! Invariant: a mark tells neither what it stands for nor that it is the same as in another process; within one process the
//! same thing has the same mark wherever it is shown. Why: logs and pages travel, and must hold no name; but who looks at a
//! refusal has to be able to find the next one of the same client, and the connection to close.
//! Spec: docs/operating.md#marks.

use std::net::IpAddr;

use weft_protocol::admission::proof::hash;
use weft_protocol::id::RoomId;

use crate::gate::Site;

/// Makes marks; the key is drawn at the start of the process and never shown.
#[derive(Clone, Copy)]
pub struct Marks {
    key: [u8; 32],
}

impl Marks {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn mark(&self, kind: &str, bytes: &[u8]) -> String {
        hash(kind, &[&self.key, bytes]).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Of a room.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> String {
        self.mark("relay-mark-room", &room.0)
    }

    /// Of a DID, by its hash.
    #[must_use]
    pub fn did(&self, identity: &[u8; 32]) -> String {
        self.mark("relay-mark-did", identity)
    }

    /// Of an address, or of the /64 that an IPv6 address is in: what the limits count as one.
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> String {
        match Site::of(ip).ip() {
            IpAddr::V4(ip) => self.mark("relay-mark-address", &ip.octets()),
            IpAddr::V6(ip) => self.mark("relay-mark-address", &ip.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_same_here_and_another_elsewhere() {
        let (here, there) = (Marks::new([1; 32]), Marks::new([2; 32]));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(here.did(&[7; 32]), here.did(&[7; 32]));
        assert_ne!(here.did(&[7; 32]), there.did(&[7; 32]));
        assert_ne!(here.did(&[7; 32]), here.did(&[8; 32]));
        assert_eq!(here.address(ip("2001:db8::1")), here.address(ip("2001:db8::2")));
        assert_eq!(here.address(ip("::ffff:192.0.2.1")), here.address(ip("192.0.2.1")));
        assert_ne!(here.address(ip("192.0.2.1")), here.address(ip("192.0.2.2")));
        assert_ne!(here.room(&RoomId([7; 32])), here.did(&[7; 32]));
    }
}
