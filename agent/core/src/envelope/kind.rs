//! What an envelope is about. Spec: docs/sealing.md#kinds.

use super::Class;

/// The number of a kind: 0 to 15 are stored on a chain, 16 to 127 are ephemeral; with [`Kind::CRITICAL`] set, whoever
/// does not know it must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 1: files and documents.
    Content,
    /// 2: membership ops.
    Ops,
    /// 3: saved documents.
    Checkpoint,
    /// 16: who is here.
    Presence,
    /// 17: a signed frontier.
    Beacon,
    /// 18: what do you hold.
    Query,
    /// 19: this.
    Answer,
    /// 20: no more answers.
    Enough,
    /// 21: this many bytes may be sent.
    Credit,
    /// 22: these pieces are wanted.
    Want,
    /// 23: these pieces are not here.
    Have,
    /// 24: an epoch, for whoever finds a slot in it.
    KeyPacket,
    /// 25: a checkpoint, for whoever lacks much of what it covers.
    Offer,
    /// Any other: held, chained, served and skipped, unless critical.
    Unknown {
        /// Its number, without the critical bit.
        number: u8,
        /// Whether not knowing it means to stop and upgrade.
        critical: bool,
    },
}

/// Under which subkey a body is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKey {
    Content,
    Presence,
    Ops,
}

impl Kind {
    /// The bit that makes a kind critical.
    pub const CRITICAL: u8 = 0x80;

    /// From its byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Kind::Content,
            2 => Kind::Ops,
            3 => Kind::Checkpoint,
            16 => Kind::Presence,
            17 => Kind::Beacon,
            18 => Kind::Query,
            19 => Kind::Answer,
            20 => Kind::Enough,
            21 => Kind::Credit,
            22 => Kind::Want,
            23 => Kind::Have,
            24 => Kind::KeyPacket,
            25 => Kind::Offer,
            _ => Kind::Unknown { number: byte & !Self::CRITICAL, critical: byte & Self::CRITICAL != 0 },
        }
    }
    /// Its byte.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Kind::Content => 1,
            Kind::Ops => 2,
            Kind::Checkpoint => 3,
            Kind::Presence => 16,
            Kind::Beacon => 17,
            Kind::Query => 18,
            Kind::Answer => 19,
            Kind::Enough => 20,
            Kind::Credit => 21,
            Kind::Want => 22,
            Kind::Have => 23,
            Kind::KeyPacket => 24,
            Kind::Offer => 25,
            Kind::Unknown { number, critical } => {
                (number & !Self::CRITICAL) | if critical { Self::CRITICAL } else { 0 }
            }
        }
    }
    /// Stored or ephemeral: the number says.
    #[must_use]
    pub fn class(self) -> Class {
        if self.to_byte() & !Self::CRITICAL < 16 { Class::Stored } else { Class::Ephemeral }
    }
    /// `None` for kinds whose body this program cannot read.
    pub(crate) fn body_key(self) -> Option<BodyKey> {
        match self {
            Kind::Content | Kind::Checkpoint => Some(BodyKey::Content),
            Kind::Presence => Some(BodyKey::Presence),
            Kind::Ops
            | Kind::Beacon
            | Kind::Query
            | Kind::Answer
            | Kind::Enough
            | Kind::Credit
            | Kind::Want
            | Kind::Have
            | Kind::KeyPacket
            | Kind::Offer => Some(BodyKey::Ops),
            Kind::Unknown { .. } => None,
        }
    }
}
