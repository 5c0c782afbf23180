//! What people and programs ask of a workspace, and what it answers.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::disk::RelPath;
use crate::files::{Halt, LogEntry, Resume};
use crate::id::{DeviceId, OpId, RootKey, WorkspaceId};
use crate::identity::RecoveryKey;
use crate::membership::Role;
use crate::workspace::input::LinkKind;

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What `weft status` shows. Answered by [`Reply::Status`].
    Status,
    /// Make an invite link. Answered by [`Reply::Invite`].
    Invite {
        /// Whom it lets in.
        terms: InviteTerms,
        /// LAN addresses of this agent now (`ws://ip:port`), for the link.
        lan: Vec<String>,
    },
    /// The invites that are open. Answered by [`Reply::Invites`].
    Invites,
    /// Void an invite. Answered by [`Reply::Done`].
    RevokeInvite(OpId),
    /// Who waits to be let in by an admin. Answered by [`Reply::Requests`].
    Requests,
    /// Let in whoever asks with this device. Answered by [`Reply::Done`].
    Approve(DeviceId),
    /// Tell whoever asks with this device that it is not let in. Answered by [`Reply::Done`].
    Deny(DeviceId),
    /// Who belongs, and by which ops. Answered by [`Reply::Members`].
    Members,
    /// Remove a member: it gets nothing that is written from now on. Answered by [`Reply::Done`], or [`Reply::Proposed`].
    RemoveMember(RootKey),
    /// Change what a member may do. Answered as [`Command::RemoveMember`].
    SetRole(RootKey, Role),
    /// Take out devices. Answered as [`Command::RemoveMember`].
    RevokeDevices(Vec<DeviceId>),
    /// Let what a member wrote before it heard of its end, and that came late, count. Answered by [`Reply::Done`].
    KeepLate(RootKey),
    /// As an owner, agree to an op that needs several. Answered by [`Reply::Done`].
    Agree(OpId),
    /// Leave the workspace: tell the others. Answered by [`Reply::Done`] when the op is stored and, if a peer is
    /// there, sent.
    Leave,
    /// Answer a halt.
    Resume(Resume),
    /// Stop or restart syncing. Local edits are still taken in.
    Pause(bool),
    /// Answered by [`Reply::Flushed`] when all that was taken in is held by every connected peer (at least one, or
    /// `peers` of them) and the reverse, or at the deadline.
    Flush {
        /// Monotonic deadline.
        until_mono_ms: u64,
        /// How many peers at least; 0 means one.
        peers: u32,
    },
    /// Add a relay URL to the workspace's list, for all members.
    AddRelay(String),
    /// Remove one.
    RemoveRelay(String),
    /// Entries of the log, newest last, at most `limit`, from `since_wall_ms` on.
    Log {
        /// From when.
        since_wall_ms: u64,
        /// How many at most.
        limit: u32,
    },
    /// Make a pass by which a member's further device comes here with its words. Answered by [`Reply::Pass`].
    Pass {
        /// The member.
        root: RootKey,
        /// LAN addresses of this agent now.
        lan: Vec<String>,
    },
    /// Make a pass for another device of ours, and listen for it. Answered by [`Reply::Pass`].
    Pair {
        /// Monotonic time until which it may come.
        until_mono_ms: u64,
        /// LAN addresses of this agent now.
        lan: Vec<String>,
    },
    /// What came of the last [`Command::Pair`]. Answered by [`Reply::Pairing`].
    Pairing,
    /// Whether the four words on both devices are the same: lets the device that asks in, or refuses it. Answered by
    /// [`Reply::Done`].
    AcceptDevice {
        /// Whose words were compared.
        device: DeviceId,
        /// Whether they were the same.
        same: bool,
    },
    /// The person has confirmed their words: from now on they are asked for. Answered by [`Reply::Done`].
    ForgetRoot,
    /// Say to the members that we are this DID, by the root's signature over it; nothing if that is said already. Answered
    /// by [`Reply::Done`].
    Attest {
        /// The account.
        did: String,
        /// [`crate::attestation::sign`] of it.
        proof: Vec<u8>,
    },
    /// Take in an envelope that somebody kept, as if a peer had sent it. Answered by [`Reply::Done`].
    TakeIn(Bytes),
    /// Do this with the workspace's recovery key. Answered as [`Command::RemoveMember`].
    ByRecoveryKey(Box<RecoveryKey>, RecoveryDeed),
    /// LAN addresses of this agent changed; beacons carry them.
    LanAddresses(Vec<String>),
}

impl Command {
    /// Whether only whoever belongs can do it, for others or with them.
    pub(super) fn takes_a_member(&self) -> bool {
        match self {
            Command::Invite { .. }
            | Command::RevokeInvite(_)
            | Command::Approve(_)
            | Command::Deny(_)
            | Command::RemoveMember(_)
            | Command::SetRole(..)
            | Command::RevokeDevices(_)
            | Command::KeepLate(_)
            | Command::Agree(_)
            | Command::Pass { .. }
            | Command::Pair { .. }
            | Command::AcceptDevice { .. }
            | Command::Attest { .. }
            | Command::ByRecoveryKey(..)
            | Command::AddRelay(_)
            | Command::RemoveRelay(_) => true,
            Command::Status
            | Command::Members
            | Command::Invites
            | Command::Requests
            | Command::Pairing
            | Command::ForgetRoot
            | Command::TakeIn(_)
            | Command::Leave
            | Command::Resume(_)
            | Command::Pause(_)
            | Command::Flush { .. }
            | Command::Log { .. }
            | Command::LanAddresses(_) => false,
        }
    }
}

/// What the recovery key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryDeed {
    /// Remove a member, an owner too.
    Remove(RootKey),
    /// Give a member a role, owner too.
    Role(RootKey, Role),
}

/// Where the pairing with another device of ours stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pairing {
    /// None is under way, or its time is over.
    None,
    /// Nobody came yet.
    Waiting,
    /// A device asks.
    Asks {
        /// Which.
        device: DeviceId,
        /// What it calls itself.
        label: String,
        /// Four words that it shows too.
        words: String,
    },
    /// It is in.
    Done {
        /// Which.
        device: DeviceId,
        /// What it calls itself.
        label: String,
    },
    /// Nobody was let in; why.
    Failed(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was done.
    Done,
    /// It cannot be done; a sentence that says what to do.
    Refused(String),
    /// Figures and lists.
    Status(Box<Status>),
    /// The link. A secret: whoever has it can join.
    Invite {
        /// `weft:…`
        link: String,
        /// The invite op.
        id: OpId,
        /// Whether anybody outside this network can use it (it names a relay).
        beyond_lan: bool,
    },
    /// Open invites.
    Invites(Vec<OpenInvite>),
    /// Who waits for an admin.
    Requests(Vec<JoinRequestDetail>),
    /// Whether the flush finished, and what is missing if not.
    Flushed {
        /// Whether everybody asked for holds everything, and the reverse.
        complete: bool,
        /// Connected peers that hold everything of ours.
        peers: u32,
        /// What is missing, for people; empty if complete.
        missing: String,
    },
    /// Who belongs.
    Members(Box<Members>),
    /// It counts once other owners agree.
    Proposed {
        /// The op they agree to.
        id: OpId,
        /// How many owners are needed, this one included.
        needed: usize,
    },
    /// `weft-pass:…`, which leads a further device here.
    Pass(String),
    /// Where the pairing stands.
    Pairing(Pairing),
    /// What happened to files.
    Log {
        /// Newest last; those of this device name none.
        entries: Vec<LogEntry>,
        /// Whose each device is that ever belonged.
        names: BTreeMap<DeviceId, String>,
        /// This device.
        own: DeviceId,
    },
}

/// Whom an invite lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteTerms {
    /// Role of whoever joins by it; a member that exists keeps the one it has.
    pub role: Role,
    /// Wall time at which it ends.
    pub expires_wall_ms: u64,
    /// How many people may join by it.
    pub uses: u32,
    /// Whether only an admin may let them in.
    pub approval: bool,
    /// Whom alone it lets in: a newcomer whose key is known, or a member with a new device.
    pub whom: Option<RootKey>,
}

/// Somebody who waits for an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequestDetail {
    /// The device that asks; names the request.
    pub device: DeviceId,
    /// The root key that certified it.
    pub root: RootKey,
    /// The name it gives itself.
    pub name: String,
    /// The label of its device.
    pub label: String,
    /// Four words to compare with the person.
    pub fingerprint: String,
    /// If that root key is a member's already: the name known here.
    pub member: Option<String>,
    /// The invite.
    pub invite: OpId,
    /// The role it gives.
    pub role: Role,
    /// When it was first heard.
    pub first_wall_ms: u64,
    /// When it was last heard.
    pub last_wall_ms: u64,
}

/// What a joiner has heard of those it asks to be let in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knocking {
    /// Nobody has answered yet.
    Unheard,
    /// An admin has to decide.
    Waiting {
        /// Our own four words, for the admin to compare.
        fingerprint: String,
    },
    /// A sentence that says why not, and what to do. It goes on asking.
    Refused(String),
}

/// An invite that can still be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvite {
    /// Its op.
    pub id: OpId,
    /// Role it gives.
    pub role: Role,
    /// When it ends.
    pub expires_wall_ms: u64,
    /// How many may join by it in all.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Who issued it.
    pub issuer: String,
    /// Whether an admin has to let in whoever comes.
    pub approval: bool,
    /// Whom alone it lets in: a member's name, or a root key.
    pub whom: Option<String>,
    /// The link, if this device issued it.
    pub link: Option<String>,
}

/// Who belongs, what waits, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Those who belong, by root key.
    pub members: Vec<MemberDetail>,
    /// Those who once did.
    pub former: Vec<(RootKey, Because)>,
    /// Ops that wait for other owners.
    pub proposals: Vec<ProposalDetail>,
    /// What came too late to count, by who wrote it.
    pub late: Vec<LateDetail>,
}

/// What somebody wrote before they heard of their removal, revocation or demotion, and that came after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateDetail {
    /// Who, ...
    pub root: RootKey,
    /// ... by name.
    pub name: String,
    /// How many envelopes of content.
    pub count: u64,
    /// Files that are here and that it changes, a few of them.
    pub paths: Vec<RelPath>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDetail {
    /// Root key.
    pub root: RootKey,
    /// Display name.
    pub name: String,
    /// Four words that tell it from others of that name.
    pub fingerprint: String,
    /// Role now.
    pub role: Role,
    /// Whether it is us.
    pub me: bool,
    /// Accounts elsewhere that its root signed, as DIDs; whether the accounts say so too is not known here.
    pub accounts: Vec<String>,
    /// How many others its ops name, which its root did not sign or which are no DIDs: nobody is shown those.
    pub accounts_unsound: usize,
    /// Its devices, those that are gone too.
    pub devices: Vec<DeviceDetail>,
    /// The ops that made it so.
    pub why: Vec<Because>,
}

/// One device of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDetail {
    /// Its id.
    pub id: DeviceId,
    /// Its label.
    pub label: String,
    /// Whether it belongs.
    pub active: bool,
    /// The device of the same member that let it in; `None`: its member's words, or an invite.
    pub certified_by: Option<DeviceId>,
    /// Whether it is this one.
    pub me: bool,
    /// It, and the active devices it certified: what its revocation takes.
    pub takes: Vec<DeviceId>,
}

/// An op, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// The op.
    pub id: OpId,
    /// What it did.
    pub what: String,
    /// Who signed it: a display name.
    pub by: String,
    /// The signer's clock.
    pub wall_ms: u64,
}

/// An op that waits for other owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalDetail {
    /// The op.
    pub op: Because,
    /// Who agreed: display names.
    pub votes: Vec<String>,
    /// How many owners are needed.
    pub needed: usize,
}

/// Where a workspace is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Has a link, waits for a member to let it in.
    Joining,
    /// In sync as far as it knows, or on the way there.
    Active,
    /// The person stopped it.
    Paused,
    /// Waits for an answer: `weft resume`.
    Halted,
    /// This device or its member is no longer part of it.
    Left,
}

/// What `weft status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// Nothing waits here or with connected peers, and another device holds everything, unless this is the only one: this
    /// machine could be lost now.
    pub settled: bool,
    /// The folder was read once, and shows all that is held; whatever others hold.
    pub folder_settled: bool,
    /// Files that exist.
    pub files: u64,
    /// Bytes of all stored documents.
    pub document_bytes: u64,
    /// Changes applied.
    pub changes: u64,
    /// Envelopes that peers have stated and we do not hold.
    pub frontier_gap: u64,
    /// Batches not yet sealed and sent, or held by no peer yet.
    pub pending_send: u64,
    /// Bytes of large files that every other device lacks, as far as they said.
    pub bytes_to_send: u64,
    /// Other devices that stated to hold everything that is here; none while anything here is unread or unsent.
    pub held_by: u64,
    /// Bytes of large files that are not here yet.
    pub lacks_bytes: u64,
    /// Batches made here that nobody gets as things stand: this member may only read, or does not belong any more.
    pub kept_here: u64,
    /// Proposals that wait for this member's vote.
    pub decisions: u64,
    /// Whether what is sealed now is heard by somebody at once.
    pub in_touch: bool,
    /// Envelopes and pieces we ask for, and writes to the folder under way.
    pub pending_receive: u64,
    /// Why it is halted.
    pub halt: Option<Halt>,
    /// Links that are open.
    pub links: Vec<LinkStatus>,
    /// Devices known, without this one.
    pub peers: Vec<PeerStatus>,
    /// Relay URLs of the workspace.
    pub relays: Vec<String>,
    /// Sentences about what is wrong and what to do.
    pub problems: Vec<String>,
    /// The folder is shown from the checkpoint of this device, and not compared with the signed history yet: nothing is
    /// sent meanwhile.
    pub unverified: Option<String>,
    /// What was refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// This device.
    pub device: DeviceId,
    /// How many wait for this person to let them in.
    pub requests: u64,
    /// While joining: what was heard.
    pub knocking: Option<Knocking>,
    /// We are the only owner, and there is no recovery key: without our words nobody can decide here any more.
    pub only_owner: bool,
}

/// An open link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its URL.
    pub url: String,
    /// Relay or LAN.
    pub kind: LinkKind,
    /// Peers met on it.
    pub peers: u32,
}

/// Another device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The device.
    pub device: DeviceId,
    /// Its label.
    pub label: String,
    /// Its member's display name.
    pub member: String,
    /// Whether it is reachable now.
    pub connected: bool,
    /// Wall time at which it was last heard (0: never).
    pub heard_wall_ms: u64,
    /// How many envelopes that are here, and batches that wait to become some, it has not stated to hold.
    pub lacks: u64,
    /// How many bytes of large files it stated to lack (1: it cannot tell yet).
    pub lacks_bytes: u64,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Root key.
    pub root: RootKey,
    /// Display name.
    pub name: String,
    /// Role now.
    pub role: Role,
    /// Active devices.
    pub devices: u32,
    /// Whether it is us.
    pub me: bool,
}
