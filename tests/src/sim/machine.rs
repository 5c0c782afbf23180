//! The seam between the world and the machine it runs: the shipped `Workspace`, or a toy in unit tests of the world.
//!
//! Everything here is what the agent's shell would call; the world adds nothing of its own to a machine's decisions.

use bytes::Bytes;
use weft_agent_core::content::Manifest;
use weft_agent_core::disk::{RelPath, Seen, Stat};
use weft_agent_core::id::{PieceId, RootKey, VersionHash, WorkspaceId};
use weft_agent_core::setup::{Watermark, Weakness};
use weft_agent_core::store::Read;
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::input::Input;
use weft_agent_core::workspace::output::Output;

use super::dice::Dice;
use super::malice::Malice;

/// What every start of a machine needs.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The identity file.
    pub identity: &'a [u8],
    /// Fresh randomness.
    pub seed: [u8; 32],
    /// As read from beside the database.
    pub watermark: Watermark,
}

/// What a fresh agent remembers of a path from its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// A file with this stat (all zero: always look).
    File(Stat),
    /// A symbolic link with this target.
    Symlink(String),
    /// A folder.
    Folder,
}

/// A machine of one workspace.
pub trait Machine: Sized {
    /// A new identity file, for a member of that name on a device of that label.
    fn identity(dice: &mut Dice, name: &str, label: &str) -> Vec<u8>;
    /// The member key of an identity.
    fn root(identity: &[u8]) -> Option<RootKey>;
    /// Founds a workspace.
    ///
    /// # Errors
    /// The identity cannot be read, or lacks its root.
    fn create(start: &Start<'_>, now: Timestamp, name: &str, relays: Vec<String>) -> Result<Self, String>;
    /// Begins to join by a link.
    ///
    /// # Errors
    /// The link or the identity cannot be read.
    fn join(start: &Start<'_>, now: Timestamp, link: &str) -> Result<Self, String>;
    /// Goes on from a store.
    ///
    /// # Errors
    /// The store or the identity cannot be read.
    fn open(start: &Start<'_>, now: Timestamp, read: &dyn Read) -> Result<Self, String>;
    /// The means of a member who lies; `None` before they are in.
    fn malice(identity: &[u8], read: &dyn Read) -> Option<Malice>;
    /// Switches a defence off.
    fn weaken(&mut self, weakness: Weakness);
    /// Makes and takes checkpoints after so many envelopes.
    fn checkpoint_every(&mut self, envelopes: u64);
    /// Which workspace.
    fn workspace(&self) -> WorkspaceId;
    /// One input.
    fn handle(&mut self, now: Timestamp, input: Input, read: &dyn Read);
    /// What was seen in the folder, in parts.
    fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>>;
    /// The next effect.
    fn poll_output(&mut self) -> Option<Output>;
    /// When it wants to be woken, in monotonic milliseconds.
    fn poll_timeout(&self) -> Option<u64>;
    /// The hash of a file's content.
    fn version_hash(workspace: &WorkspaceId, bytes: &[u8]) -> VersionHash;
    /// What the store says is on disk.
    fn known_files(read: &dyn Read) -> Vec<(RelPath, Known)>;
    /// Where writes that replace something were under way when the rows were written, and what they were to leave.
    fn pending_writes(read: &dyn Read) -> Vec<(RelPath, VersionHash)>;
    /// Cuts a large file into sealed pieces.
    ///
    /// # Errors
    /// The content cannot be cut.
    fn cut(&self, bytes: &[u8], dice: &mut Dice) -> Result<(Manifest, Vec<(PieceId, Bytes)>), String>;
    /// Puts a large file together from pieces in the store.
    ///
    /// # Errors
    /// A piece is missing or is not what the manifest says.
    fn splice(&self, manifest: &Manifest, read: &dyn Read) -> Result<Bytes, String>;
}
