//! The only module that names the core's `Workspace`: how a machine is made, and the face the host sees of it.
//!
//! Why: the host can be tested with a scripted machine, and a change of the core's constructors touches one file.

use weft_agent_core::disk::Seen;
use weft_agent_core::enrol::Pass;
use weft_agent_core::epoch::Epoch;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::membership::OpSet;
use weft_agent_core::op::SignedOp;
use weft_agent_core::setup::{Setup, Watermark};
use weft_agent_core::store::Read;
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::Workspace;
use weft_agent_core::workspace::input::Input;
use weft_agent_core::workspace::output::Output;

/// Randomness of the operating system.
pub(crate) struct OsRandom;

impl rand_core::TryRng for OsRandom {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(random()))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(random()))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        fill(bytes);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for OsRandom {}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    // A system without randomness cannot make keys; going on with predictable ones would be worse than ending.
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the operating system gives no randomness: {error}");
    }
}

/// What the host drives.
pub(crate) trait Machine {
    fn handle(&mut self, now: Timestamp, input: Input, read: &dyn Read);
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_timeout(&self) -> Option<u64>;
    /// What was seen, in parts that each take a moment.
    fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>>;
}

impl Machine for Workspace {
    fn handle(&mut self, now: Timestamp, input: Input, read: &dyn Read) {
        Workspace::handle(self, now, input, read);
    }
    fn poll_output(&mut self) -> Option<Output> {
        Workspace::poll_output(self)
    }
    fn poll_timeout(&self) -> Option<u64> {
        Workspace::poll_timeout(self)
    }
    fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
        Workspace::slices(self, seen)
    }
}

fn setup(identity: LocalIdentity, watermark: Watermark) -> Setup {
    Setup { identity, seed: random(), watermark }
}

/// What a new workspace is made of, besides its founder.
pub(crate) struct Founding {
    pub(crate) name: String,
    pub(crate) relays: Vec<String>,
    /// The public half of its recovery key.
    pub(crate) recovery: Option<[u8; 32]>,
    /// The root secret was typed in for this only.
    pub(crate) forgets_root: bool,
}

/// A machine that is not in any store yet, with its id; made before its store's place is known.
pub(crate) fn create(
    identity: LocalIdentity,
    now: Timestamp,
    founding: Founding,
) -> Result<(WorkspaceId, Box<dyn Machine + Send>), String> {
    let Founding { name, relays, recovery, forgets_root } = founding;
    let mut workspace = Workspace::create_with(setup(identity, Watermark::default()), now, &name, relays, recovery)
        .map_err(|error| error.to_string())?;
    if forgets_root {
        workspace.forget_root();
    }
    Ok((workspace.id(), Box::new(workspace)))
}

/// A machine that asks to be let in as a further device of a member.
pub(crate) fn enrol(
    identity: LocalIdentity,
    now: Timestamp,
    watermark: Watermark,
    pass: Pass,
    op: Option<SignedOp>,
) -> Box<dyn Machine + Send> {
    Box::new(Workspace::enrol(setup(identity, watermark), now, pass, op))
}

/// A machine that asks to be let in.
pub(crate) fn join(
    identity: LocalIdentity,
    now: Timestamp,
    watermark: Watermark,
    link: &InviteLink,
) -> Box<dyn Machine + Send> {
    Box::new(Workspace::join(setup(identity, watermark), now, link))
}

/// A machine that begins from what an export holds; `None` if it does not let this device in.
pub(crate) fn restore(
    identity: LocalIdentity,
    now: Timestamp,
    watermark: Watermark,
    ops: OpSet,
    epochs: Vec<Epoch>,
    relays: &[String],
) -> Option<Box<dyn Machine + Send>> {
    Some(Box::new(Workspace::restore(setup(identity, watermark), now, ops, epochs, relays)?))
}

/// A machine from its store.
pub(crate) fn open(
    identity: LocalIdentity,
    now: Timestamp,
    watermark: Watermark,
    read: &dyn Read,
) -> Result<Box<dyn Machine + Send>, String> {
    match Workspace::open(setup(identity, watermark), now, read) {
        Ok(workspace) => Ok(Box::new(workspace)),
        Err(error) => Err(error.to_string()),
    }
}
