//! Follows the frames of a client's WebSocket as their bytes pass, and says how much room the message under way takes.
//!
//! Invariant: it is known before the bytes are read. A message in one frame takes what its header announces; one in
//! fragments is taken to become as large as a message may be, so that it asks for room once and not again while it holds
//! some. Why beside the WebSocket library: that one looks at a message's size only when a fragment is whole, and counts
//! neither fragments nor memory. Spec: docs/protocol.md#unfinished-messages, RFC 6455 section 5.2.

use weft_protocol::code::Code;
use weft_protocol::limits::{FRAGMENTS_MAX, FRAME_BYTES_MAX, MESSAGE_SMALL_BYTES_MAX};

/// A message of which more is to come.
#[derive(Debug, Clone, Copy)]
struct Message {
    bytes: u64,
    fragments: u32,
    /// Its last frame has begun.
    last: bool,
}

/// Where one connection's bytes stand.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    header: Vec<u8>,
    /// Payload bytes of the frame under way that are to come.
    left: u64,
    /// The frame under way is a ping, pong or close, which may stand between fragments.
    control: bool,
    message: Option<Message>,
    messages: u64,
    fault: Option<Code>,
}

impl Meter {
    /// These bytes were read.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.fault.is_none() {
            if self.left > 0 {
                let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes = bytes.get(len..).unwrap_or_default();
                self.left -= len as u64;
                self.ended();
            } else {
                let (first, rest) = bytes.split_at(1);
                self.header.extend_from_slice(first);
                bytes = rest;
                self.read_header();
            }
        }
    }

    /// Why nothing more is to be read: the message under way is larger, or in more parts, than it may be.
    #[must_use]
    pub fn fault(&self) -> Option<Code> {
        self.fault
    }

    /// Bytes of room that the message under way takes until it is whole; none if it is small.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.message {
            None => 0,
            Some(Message { bytes, fragments: 1, last: true }) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
                if bytes <= MESSAGE_SMALL_BYTES_MAX { 0 } else { bytes }
            }
            Some(_) => FRAME_BYTES_MAX,
        }
    }

    /// How many messages have begun.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    fn read_header(&mut self) {
        let [kind, short, rest @ ..] = self.header.as_slice() else { return };
        let (extended, mask) = match short & 0x7f {
            126 => (2, usize::from(short >> 7) * 4),
            127 => (8, usize::from(short >> 7) * 4),
            _ => (0, usize::from(short >> 7) * 4),
        };
        if rest.len() < extended + mask {
            return;
        }
        let field = rest.iter().take(extended).fold(0, |len, byte| (len << 8) | u64::from(*byte));
        let len = if extended == 0 { u64::from(short & 0x7f) } else { field };
        let (last, control) = (kind & 0x80 != 0, kind & 0x08 != 0);
        self.header.clear();
        (self.left, self.control) = (len, control);
        if !control {
            self.begin(len, last);
        }
        self.ended();
    }

    fn begin(&mut self, len: u64, last: bool) {
        if self.message.is_none() {
            self.messages += 1;
        }
        let before = self.message.unwrap_or(Message { bytes: 0, fragments: 0, last });
        let (bytes, fragments) = (before.bytes.saturating_add(len), before.fragments + 1);
        self.message = Some(Message { bytes, fragments, last });
        if bytes > FRAME_BYTES_MAX as u64 {
            self.fault = Some(Code::TooLarge);
        } else if fragments > FRAGMENTS_MAX {
            self.fault = Some(Code::Malformed);
        }
    }

    /// A frame without anything left of it may be the end of its message.
    fn ended(&mut self) {
        if self.left == 0 && !self.control && self.message.is_some_and(|message| message.last) {
            self.message = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A masked frame; RFC 6455 has three forms of its length.
    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![kind];
        match len {
            0..=125 => bytes.push(0x80 | len as u8),
            126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + len, 7);
        bytes
    }

    const TEXT: u8 = 0x01;
    const MORE: u8 = 0x00;
    const LAST: u8 = 0x80;
    const WHOLE: u8 = 0x82;
    const PING: u8 = 0x89;

    #[test]
    fn room_is_asked_for_by_the_header_and_given_back_at_the_end() {
        let mut meter = Meter::default();
        for len in [0, 1, 125, 126, 4096] {
            meter.pass(&frame(WHOLE, len)[..frame(WHOLE, len).len() - usize::from(len > 0)]);
            assert_eq!(meter.room(), 0, "{len}");
            meter.pass(&[7][..usize::from(len > 0)]);
        }
        for len in [4097, 65_535, 65_536, FRAME_BYTES_MAX] {
            let bytes = frame(WHOLE, len);
            let header = bytes.len() - len;
            meter.pass(&bytes[..header - 1]);
            assert_eq!(meter.room(), 0);
            meter.pass(&bytes[header - 1..header]);
            assert_eq!(meter.room(), len);
            meter.pass(&bytes[header..bytes.len() - 1]);
            assert_eq!(meter.room(), len);
            meter.pass(&bytes[bytes.len() - 1..]);
            assert_eq!(meter.room(), 0);
        }
        assert_eq!((meter.messages(), meter.fault()), (9, None));
    }

    #[test]
    fn fragments_ask_once_for_all_that_may_come_and_pings_stand_between_them() {
        let mut meter = Meter::default();
        meter.pass(&frame(TEXT, 10));
        assert_eq!(meter.room(), FRAME_BYTES_MAX);
        meter.pass(&frame(PING, 5));
        meter.pass(&frame(MORE, 0));
        assert_eq!(meter.room(), FRAME_BYTES_MAX);
        meter.pass(&frame(LAST, 10));
        assert_eq!((meter.room(), meter.messages(), meter.fault()), (0, 1, None));
    }

    #[test]
    fn a_message_that_grows_too_large_or_never_ends_is_found_out_by_a_header() {
        let mut meter = Meter::default();
        meter.pass(&frame(TEXT, FRAME_BYTES_MAX));
        assert_eq!(meter.fault(), None);
        meter.pass(&frame(MORE, 1)[..6]);
        assert_eq!(meter.fault(), Some(Code::TooLarge));
        let mut meter = Meter::default();
        meter.pass(&frame(TEXT, 0));
        (1..FRAGMENTS_MAX).for_each(|_| meter.pass(&frame(MORE, 0)));
        assert_eq!(meter.fault(), None);
        meter.pass(&frame(MORE, 0));
        assert_eq!(meter.fault(), Some(Code::Malformed));
        let mut meter = Meter::default();
        meter.pass(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        assert_eq!(meter.fault(), Some(Code::TooLarge));
    }

    proptest! {
        /// However the bytes are cut, it comes to the same; and nothing that is no WebSocket at all breaks it.
        #[test]
        fn cuts_do_not_matter(
            frames in proptest::collection::vec((prop_oneof![Just(TEXT), Just(MORE), Just(LAST), Just(WHOLE), Just(PING)], 0usize..9000), 0..8),
            noise in proptest::collection::vec(any::<u8>(), 0..40),
            cut in 1usize..5000,
        ) {
            let mut bytes: Vec<u8> = frames.into_iter().flat_map(|(kind, len)| frame(kind, len)).collect();
            bytes.extend(noise);
            let (mut whole, mut parts) = (Meter::default(), Meter::default());
            whole.pass(&bytes);
            bytes.chunks(cut).for_each(|part| parts.pass(part));
            prop_assert_eq!((whole.room(), whole.messages(), whole.fault()), (parts.room(), parts.messages(), parts.fault()));
            prop_assert!(whole.room() <= FRAME_BYTES_MAX);
        }
    }
}
