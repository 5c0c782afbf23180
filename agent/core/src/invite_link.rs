//! The invite link: `weft:` and [workspace, secret, \[op32\], device16, \[url\], name] as a text with a checksum.
//!
//! The first op is the invite; the others are heads at issue. Whoever has the link can join: it is a key, and never
//! printed by `Debug`. Spec: docs/sealing.md#link.

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use crate::enrol::PASS_SCHEME;
use crate::id::{DeviceId, OpId, WorkspaceId};
use crate::identity::read_name;
use crate::invite::{InviteKeys, InviteSecret};
use crate::op::read_url;
use crate::secret::Secret;
use crate::secret_text::{TextError, beginnings, from_text, so_many, to_text};

/// What a link starts with.
pub const SCHEME: &str = "weft:";
/// Longest link, in bytes: it must survive mail and chat, and 8 URLs.
pub const LINK_BYTES_MAX: usize = 4096;
/// Most ops a link names.
pub const LINK_OPS_MAX: usize = 8;
/// Most URLs a link names.
pub const LINK_URLS_MAX: usize = 8;

/// Why a text is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// None in it, or too long.
    #[error("this is not an invite link: one begins with `weft:`")]
    NotALink,
    /// A pass was given in its place.
    #[error(
        "this is a pass, not an invite link. A pass of another device of yours: weft join. One to come back with your words: weft identity recover"
    )]
    APass,
    /// Characters are missing.
    #[error("the link is incomplete{}. Copy it again, whole", so_many(*.here, *.whole))]
    Incomplete {
        /// So many characters are there.
        here: usize,
        /// So many belong there; 0: unknown.
        whole: usize,
    },
    /// Its checksum does not fit.
    #[error("the link is mistyped: a character of it is wrong or missing. Copy it again, whole")]
    Mistyped,
    /// A newer version of links.
    #[error(
        "this invite link was made by a newer weft, or its first characters are mistyped: copy it again, or upgrade"
    )]
    Newer,
    /// The right shape outside, the wrong one inside.
    #[error("this invite link is damaged ({0}). Copy it again, whole, or ask for a new one")]
    Damaged(#[from] DecodeError),
}

/// An invite link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteLink {
    /// The workspace to join.
    pub workspace: WorkspaceId,
    /// What lets in.
    pub secret: InviteSecret,
    /// The invite op first, then the heads at issue; a joiner accepts only a DAG that has them all.
    pub op_heads: Vec<OpId>,
    /// The device that issued it.
    pub inviter: DeviceId,
    /// Relays and LAN addresses to try.
    pub urls: Vec<String>,
    /// The workspace's name.
    pub name: String,
}

impl Wire for InviteLink {
    fn encode(&self, writer: &mut Writer) {
        writer.array(6).item(&self.workspace).bytes(self.secret.expose()).list(&self.op_heads).item(&self.inviter);
        writer.array(self.urls.len());
        for url in &self.urls {
            writer.text(url);
        }
        writer.text(&self.name);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(6, "link")?;
        let workspace = reader.item()?;
        let secret = InviteSecret::new(Secret::new(reader.item()?));
        let op_heads: Vec<OpId> = reader.list(LINK_OPS_MAX, "link ops")?;
        if op_heads.is_empty() {
            return Err(DecodeError::Invalid("link ops"));
        }
        let inviter = reader.item()?;
        let mut urls = Vec::new();
        for _ in 0..reader.array_up_to(LINK_URLS_MAX, "link URLs")? {
            urls.push(read_url(reader)?);
        }
        Ok(Self { workspace, secret, op_heads, inviter, urls, name: read_name(reader)? })
    }
}

impl InviteLink {
    /// The text. A secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        to_text(SCHEME, self)
    }
    /// Reads a link wherever it stands in what was pasted: wrapped, quoted, in brackets, with a dot behind it.
    ///
    /// # Errors
    /// [`LinkError`] says whether it is none, incomplete, mistyped, damaged, or newer than this program.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        from_text(SCHEME, LINK_BYTES_MAX, text).map_err(|error| match error {
            TextError::NotOne if beginnings(PASS_SCHEME, text).next().is_some() => LinkError::APass,
            TextError::NotOne => LinkError::NotALink,
            TextError::Incomplete { here, whole } => LinkError::Incomplete { here, whole },
            TextError::Mistyped => LinkError::Mistyped,
            TextError::Newer => LinkError::Newer,
            TextError::Damaged(error) => LinkError::Damaged(error),
        })
    }
    /// The invite op.
    #[must_use]
    pub fn invite(&self) -> OpId {
        self.op_heads.first().copied().unwrap_or(OpId([0; 32]))
    }
    /// What the link's holder can do with it.
    #[must_use]
    pub fn keys(&self) -> InviteKeys {
        self.secret.keys(&self.workspace)
    }
}
