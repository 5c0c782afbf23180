//! What is checked at every step: everything a relay saw, everything that became durable, every marker a user wrote.
//!
//! Invariant: a check here costs no more than the step it watches, so that it can run on each.
//! Spec: docs/simulation.md#oracles.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::envelope::split_several;
use weft_protocol::frame::ClientFrame;

/// Stands in every marker, file name, member name and workspace name: if it is in bytes that a relay sees, something
/// was not sealed. Seven bytes: random bytes hold it once in 2^56.
pub const CANARY: &str = "Qzw7_kV";

/// What broke, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The oracle.
    pub oracle: &'static str,
    /// What it found.
    pub detail: String,
}

/// Whether a marker must be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody removed it.
    Live,
    /// A user removed it, or it was lost in a way nobody can prevent.
    Excused,
}

/// One line or file content that a user wrote.
#[derive(Debug, Clone, Copy)]
pub struct Marker {
    /// At which host.
    pub host: usize,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// Whether it must be in the end.
    pub fate: Fate,
}

/// All that was seen so far.
#[derive(Debug, Default)]
pub struct Witness {
    /// Markers by number.
    pub markers: Vec<Marker>,
    /// Connections that a relay closed because their queue was full.
    pub overflows: u64,
    forged: std::collections::BTreeSet<[u8; 32]>,
    nonces: BTreeMap<[u8; 24], [u8; 32]>,
    envelopes: BTreeMap<Vec<u8>, ([u8; 32], u32)>,
    /// The first thing that broke.
    pub violation: Option<Violation>,
}

impl Witness {
    /// Notes what broke, unless something broke before.
    pub fn fail(&mut self, oracle: &'static str, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { oracle, detail: detail() });
        }
    }
    /// A new marker.
    pub fn marker(&mut self, host: usize, at_us: u64) -> String {
        self.markers.push(Marker { host, at_us, fate: Fate::Live });
        format!("{CANARY}{:06}", self.markers.len() - 1)
    }
    /// Markers that were there before and are not after: a user removed them.
    pub fn removed(&mut self, before: &[u8], after: &[u8]) {
        let kept = markers(after);
        for number in markers(before) {
            if !kept.contains(&number) {
                self.excuse(number);
            }
        }
    }
    /// This marker need not be in the end.
    pub fn excuse(&mut self, number: usize) {
        if let Some(marker) = self.markers.get_mut(number) {
            marker.fate = Fate::Excused;
        }
    }
    /// A relay saw this frame.
    pub fn relayed(&mut self, frame: &Bytes) {
        if find(frame, CANARY.as_bytes()).is_some() {
            self.fail("plaintext", || format!("{} bytes that a relay saw hold the canary", frame.len()));
        }
        let Ok(ClientFrame::Publish { payload, .. } | ClientFrame::Send { payload, .. }) =
            ClientFrame::decode(frame.clone())
        else {
            return;
        };
        match split_several(&payload) {
            Ok(envelopes) => envelopes.into_iter().for_each(|one| self.sealed(one)),
            Err(_) => self.sealed(&payload),
        }
    }
    /// Something sealed passed: no nonce is ever used for two messages.
    fn sealed(&mut self, payload: &[u8]) {
        // ver1 suite1 class1, then: classes 0 and 1 tag4 nonce24; classes 3 and 4 nonce24. Class 2 is HPKE.
        let at = match payload.get(2) {
            Some(0 | 1) => 7,
            Some(3 | 4) => 3,
            _ => return,
        };
        let Some(nonce) = payload.get(at..).and_then(|rest| rest.first_chunk::<24>()) else { return };
        let hash = *blake3::hash(payload).as_bytes();
        if self.forged.contains(&hash) {
            return;
        }
        if *self.nonces.entry(*nonce).or_insert(hash) != hash {
            self.fail("nonce", || format!("one nonce over two messages (class {:?})", payload.get(2)));
        }
    }
    /// A member damaged something on purpose: nobody sealed that.
    pub fn forged(&mut self, payload: &Bytes) {
        self.forged.insert(*blake3::hash(payload).as_bytes());
    }
    /// A host holds this envelope, durably.
    pub fn held(&mut self, host: usize, place: &[u8], hash: [u8; 32]) {
        let (first, hosts) = self.envelopes.entry(place.to_vec()).or_insert((hash, 0));
        *hosts |= 1 << host;
        if *first != hash {
            let hosts = *hosts;
            self.fail("chain", || {
                format!("two envelopes at {}, the later one at host {host} (hosts {hosts:b})", hex(place))
            });
        }
    }
    /// A host lost its store and its watermark: what it alone held never was.
    pub fn forgotten(&mut self, host: usize) {
        self.envelopes.retain(|_, (_, hosts)| *hosts != 1 << host);
    }
}

/// The display name of a host's member.
#[must_use]
pub fn member_name(index: usize) -> String {
    format!("{CANARY}-member-{index}")
}

/// The numbers of the markers in some bytes, ascending.
#[must_use]
pub fn markers(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, CANARY.as_bytes()) {
        rest = rest.get(at + CANARY.len()..).unwrap_or_default();
        let number: Option<usize> = rest.get(..6).and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    found
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes.get(from + at..)?.starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The first bytes of something, for a message.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use weft_protocol::id::RoomId;

    use super::*;

    /// Markers are found wherever they stand, and a canary in a relay's bytes is a violation.
    #[test]
    fn plaintext_is_noticed() {
        let mut witness = Witness::default();
        let marker = witness.marker(0, 0);
        let bytes = Bytes::from(format!("QQzw7_kQ{marker} and {marker}"));
        assert_eq!(markers(&bytes), [0, 0]);
        witness.relayed(&Bytes::from_static(&[0; 100]));
        assert_eq!(witness.violation, None);
        witness.relayed(&bytes);
        assert_eq!(witness.violation.map(|violation| violation.oracle), Some("plaintext"));
    }

    /// A nonce may come again with the same message, never with another.
    #[test]
    fn a_nonce_is_for_one_message() {
        let mut witness = Witness::default();
        let frame = |last: u8| {
            let payload = Bytes::from([vec![0; 100], vec![last]].concat());
            ClientFrame::Publish { room: RoomId([1; 32]), payload }.encode()
        };
        witness.relayed(&frame(0));
        witness.relayed(&frame(0));
        assert_eq!(witness.violation, None);
        witness.relayed(&frame(1));
        assert_eq!(witness.violation.map(|violation| violation.oracle), Some("nonce"));
    }

    /// Two hosts that hold different envelopes at one place are a violation; what one host alone lost is not.
    #[test]
    fn a_place_holds_one_envelope() {
        let mut witness = Witness::default();
        witness.held(0, b"place", [1; 32]);
        witness.forgotten(0);
        witness.held(0, b"place", [2; 32]);
        assert_eq!(witness.violation, None);
        witness.held(1, b"place", [1; 32]);
        assert_eq!(witness.violation.map(|violation| violation.oracle), Some("chain"));
    }
}
