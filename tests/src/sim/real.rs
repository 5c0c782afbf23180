//! The shipped machine in the world.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use weft_agent_core::content::Manifest;
use weft_agent_core::disk::{RelPath, Seen};
use weft_agent_core::files::{known_files, known_folders, pending_writes, version_hash};
use weft_agent_core::id::{PieceId, RootKey, VersionHash, WorkspaceId};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::setup::{Setup, Weakness};
use weft_agent_core::store::Read;
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::Workspace;
use weft_agent_core::workspace::input::Input;
use weft_agent_core::workspace::output::Output;

use super::dice::Dice;
use super::machine::{Known, Machine, Start};
use super::malice::Malice;

/// People of each name that there are; which of them plays is the seed's choice. Deriving keys from words takes as long
/// as a tenth of a world.
const NAMESAKES: u64 = 64;

#[derive(Default)]
struct People {
    files: BTreeMap<(String, String, u64), Vec<u8>>,
    known: BTreeMap<Vec<u8>, LocalIdentity>,
}

thread_local! {
    static PEOPLE: RefCell<People> = RefCell::default();
}

/// The identity file of somebody of this name.
fn identity(dice: &mut Dice, name: &str, label: &str) -> Vec<u8> {
    let who = (name.to_owned(), label.to_owned(), dice.below(NAMESAKES));
    PEOPLE.with_borrow_mut(|people| {
        if let Some(file) = people.files.get(&who) {
            return file.clone();
        }
        let identity = LocalIdentity::generate(Dice::new(fold(&who), "identity", 0).rng(), name, label);
        let file = identity.to_bytes().to_vec();
        people.known.insert(file.clone(), identity);
        people.files.insert(who, file.clone());
        file
    })
}

/// A number for a person, the same in every run.
fn fold((name, label, number): &(String, String, u64)) -> u64 {
    let hash = blake3::hash(format!("{name}/{label}/{number}").as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn setup(start: &Start<'_>) -> Result<Setup, String> {
    let identity = match PEOPLE.with_borrow(|people| people.known.get(start.identity).cloned()) {
        Some(identity) => identity,
        None => LocalIdentity::from_bytes(start.identity).map_err(|error| error.to_string())?,
    };
    Ok(Setup { identity, seed: start.seed, watermark: start.watermark })
}

impl Machine for Workspace {
    fn identity(dice: &mut Dice, name: &str, label: &str) -> Vec<u8> {
        identity(dice, name, label)
    }
    fn root(identity: &[u8]) -> Option<RootKey> {
        LocalIdentity::from_bytes(identity).ok().map(|identity| identity.root_public.sign)
    }
    fn create(start: &Start<'_>, now: Timestamp, name: &str, relays: Vec<String>) -> Result<Self, String> {
        Workspace::create(setup(start)?, now, name, relays).map_err(|error| error.to_string())
    }
    fn join(start: &Start<'_>, now: Timestamp, link: &str) -> Result<Self, String> {
        let link = InviteLink::parse(link).map_err(|error| error.to_string())?;
        Ok(Workspace::join(setup(start)?, now, &link))
    }
    fn open(start: &Start<'_>, now: Timestamp, read: &dyn Read) -> Result<Self, String> {
        Workspace::open(setup(start)?, now, read).map_err(|error| error.to_string())
    }
    fn malice(identity: &[u8], read: &dyn Read) -> Option<Malice> {
        Malice::new(identity, read)
    }
    fn weaken(&mut self, weakness: Weakness) {
        Workspace::weaken(self, weakness);
    }
    fn checkpoint_every(&mut self, envelopes: u64) {
        Workspace::checkpoint_every(self, envelopes);
    }
    fn workspace(&self) -> WorkspaceId {
        self.id()
    }
    fn handle(&mut self, now: Timestamp, input: Input, read: &dyn Read) {
        Workspace::handle(self, now, input, read);
    }
    fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
        Workspace::slices(self, seen)
    }
    fn poll_output(&mut self) -> Option<Output> {
        Workspace::poll_output(self)
    }
    fn poll_timeout(&self) -> Option<u64> {
        Workspace::poll_timeout(self)
    }
    fn version_hash(workspace: &WorkspaceId, bytes: &[u8]) -> VersionHash {
        version_hash(workspace, bytes)
    }
    fn known_files(read: &dyn Read) -> Vec<(RelPath, Known)> {
        let files = known_files(read).map(|known| (known.path, Known::File(known.stat)));
        files.chain(known_folders(read).map(|path| (path, Known::Folder))).collect()
    }
    fn pending_writes(read: &dyn Read) -> Vec<(RelPath, VersionHash)> {
        let replacing = pending_writes(read).filter(|write| write.replaces.is_some());
        replacing.map(|write| (write.path, write.leaves)).collect()
    }
    fn cut(&self, bytes: &[u8], dice: &mut Dice) -> Result<(Manifest, Vec<(PieceId, Bytes)>), String> {
        super::blob::cut(&self.id(), bytes, dice)
    }
    fn splice(&self, manifest: &Manifest, read: &dyn Read) -> Result<Bytes, String> {
        super::blob::splice(manifest, read)
    }
}
