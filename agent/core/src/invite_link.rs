//! The invite link: `weft:` base64url(1 ‖ CBOR [workspace, secret, \[op32\], device16, \[url\], name]), without padding.
//!
//! The first op is the invite; the others are heads at issue. Whoever has the link can join: it is a key, and never
//! printed by `Debug`. Spec: docs/sealing.md#link.

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::{DeviceId, OpId, WorkspaceId};
use crate::identity::read_name;
use crate::invite::{InviteKeys, InviteSecret};
use crate::op::read_url;
use crate::secret::Secret;
use crate::secret_text::{TextError, from_text, to_text};

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
    /// Another scheme, too long, or not base64url: copied only in part?
    #[error("this is not an invite link: it starts with `weft:` and has no spaces; was it copied whole?")]
    NotALink,
    /// A newer version of links.
    #[error("this invite link was made by a newer weft: upgrade")]
    Newer,
    /// The right shape outside, the wrong one inside.
    #[error("this invite link is damaged, was it copied whole? ({0})")]
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
    /// Reads a link; white space around it is forgiven, inside it is not.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        from_text(SCHEME, LINK_BYTES_MAX, text).map_err(|error| match error {
            TextError::NotOne => LinkError::NotALink,
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
