//! The pass: `weft-pass:` and [way, workspace, secret, \[op32\], root32, \[url\], name] as a text with a checksum.
//!
//! It leads a further device of one member to a workspace. The ops are heads at issue: a device that comes by words
//! names them as the parents of its own op, and every device refuses a history without them. Whoever has a pass can ask
//! at its door and hear who else does, so it is never printed by `Debug`. Spec: docs/sealing.md#pass.

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use super::DoorKeys;
use crate::id::{OpId, RootKey, WorkspaceId};
use crate::identity::read_name;
use crate::op::read_url;
use crate::secret::Secret;
use crate::secret_text::{TextError, from_text, so_many, to_text};

/// What a pass starts with.
pub const PASS_SCHEME: &str = "weft-pass:";
/// Longest pass, in bytes: it must survive paper, mail and chat.
pub const PASS_BYTES_MAX: usize = 4096;
/// Most ops a pass names.
pub(crate) const PASS_OPS_MAX: usize = 8;
/// Most URLs a pass names.
pub(crate) const PASS_URLS_MAX: usize = 8;

/// Who vouches for the device that comes by a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Its member's words.
    Words,
    /// The device that made the pass, once its person has compared four words.
    Device,
}

/// Why a text is no pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// None in it, or too long.
    #[error("this is not a pass: one begins with `weft-pass:`")]
    NotAPass,
    /// Characters are missing.
    #[error("the pass is incomplete{}. Copy it again, whole", so_many(*.here, *.whole))]
    Incomplete {
        /// So many characters are there.
        here: usize,
        /// So many belong there; 0: unknown.
        whole: usize,
    },
    /// Its checksum does not fit.
    #[error("the pass is mistyped: a character of it is wrong or missing. Copy it again, whole")]
    Mistyped,
    /// A newer version of passes.
    #[error("this pass was made by a newer weft, or its first characters are mistyped: copy it again, or upgrade")]
    Newer,
    /// The right shape outside, the wrong one inside.
    #[error("this pass is damaged ({0}). Copy it again, whole, or ask for a new one")]
    Damaged(#[from] DecodeError),
}

/// A pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Who vouches for the device.
    pub way: Way,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The door's secret.
    pub secret: Secret,
    /// Heads at issue; at least one.
    pub op_heads: Vec<OpId>,
    /// The member whose device is to come.
    pub root: RootKey,
    /// Relays and LAN addresses to try.
    pub urls: Vec<String>,
    /// The workspace's name.
    pub name: String,
}

impl Wire for Pass {
    fn encode(&self, writer: &mut Writer) {
        writer.array(7).uint(u64::from(self.way == Way::Device)).item(&self.workspace).bytes(self.secret.expose());
        writer.list(&self.op_heads).item(&self.root).array(self.urls.len());
        for url in &self.urls {
            writer.text(url);
        }
        writer.text(&self.name);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(7, "pass")?;
        let way = if reader.uint_up_to(1, "way")? == 1 { Way::Device } else { Way::Words };
        let workspace = reader.item()?;
        let secret = Secret::new(reader.item()?);
        let op_heads: Vec<OpId> = reader.list(PASS_OPS_MAX, "pass ops")?;
        if op_heads.is_empty() {
            return Err(DecodeError::Invalid("pass ops"));
        }
        let root = reader.item()?;
        let mut urls = Vec::new();
        for _ in 0..reader.array_up_to(PASS_URLS_MAX, "pass URLs")? {
            urls.push(read_url(reader)?);
        }
        Ok(Self { way, workspace, secret, op_heads, root, urls, name: read_name(reader)? })
    }
}

impl Pass {
    /// The text.
    #[must_use]
    pub fn to_text(&self) -> String {
        to_text(PASS_SCHEME, self)
    }
    /// Reads a pass wherever it stands in what was pasted: wrapped, quoted, in brackets, with a dot behind it.
    ///
    /// # Errors
    /// [`PassError`] says whether it is none, incomplete, mistyped, damaged, or newer than this program.
    pub fn parse(text: &str) -> Result<Self, PassError> {
        from_text(PASS_SCHEME, PASS_BYTES_MAX, text).map_err(|error| match error {
            TextError::NotOne => PassError::NotAPass,
            TextError::Incomplete { here, whole } => PassError::Incomplete { here, whole },
            TextError::Mistyped => PassError::Mistyped,
            TextError::Newer => PassError::Newer,
            TextError::Damaged(error) => PassError::Damaged(error),
        })
    }
    /// The keys of its door.
    #[must_use]
    pub fn door(&self) -> DoorKeys {
        DoorKeys::new(&self.workspace, &self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> Pass {
        Pass {
            way: Way::Words,
            workspace: WorkspaceId([1; 32]),
            secret: Secret::new([0xab; 32]),
            op_heads: vec![OpId([2; 32])],
            root: RootKey([3; 32]),
            urls: vec!["wss://relay.example:443".into()],
            name: "notes".into(),
        }
    }

    /// A pass survives its text; one that was cut short, belongs to a later version or is an invite link is refused with a
    /// sentence that says so, and none shows its secret.
    #[test]
    fn a_pass_survives_its_text() {
        for way in [Way::Words, Way::Device] {
            let pass = Pass { way, ..pass() };
            let text = pass.to_text();
            assert_eq!(Pass::parse(&format!("  {text}\n")), Ok(pass.clone()));
            assert!(!format!("{pass:?}").contains("ab"), "{pass:?}");
            for cut in 1..text.len() {
                assert!(Pass::parse(&text[..cut]).is_err(), "{cut}");
            }
        }
        assert_eq!(Pass::parse("weft:abc"), Err(PassError::NotAPass));
        assert_eq!(Pass::parse("weft-pass:BgAA"), Err(PassError::Newer));
        assert_eq!(Pass::parse("weft-pass:"), Err(PassError::Incomplete { here: 0, whole: 0 }));
        let nobody = Pass { op_heads: Vec::new(), ..pass() };
        assert!(matches!(Pass::parse(&nobody.to_text()), Err(PassError::Damaged(_))));
    }
}
