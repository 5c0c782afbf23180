//! What the command line and the daemon say to each other: one JSON object a line, a request and then answers.
//!
//! Invariant: a request has exactly one last answer (`done` or `failed`), after any number of `item`s.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_agent_core::enrol::PassError;
use weft_agent_core::identity::WordsError;
use weft_agent_core::invite_link::LinkError;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest line in either direction: a log of thousands of entries.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Who are you?
    Hello,
    /// All workspaces, or the one around a folder.
    Status {
        dir: Option<PathBuf>,
    },
    /// A new workspace in a folder.
    Init {
        dir: PathBuf,
        name: String,
        relays: Vec<String>,
        display_name: Option<String>,
        /// Once they are confirmed. Secret.
        words: Option<Hidden>,
        /// Whether to make a recovery key.
        recovery_key: bool,
    },
    /// Join by a link. Secret.
    Join {
        dir: PathBuf,
        link: String,
        display_name: Option<String>,
        words: Option<Hidden>,
    },
    /// Join as a further device of a member, by a pass. Secret.
    Enrol {
        dir: PathBuf,
        pass: Hidden,
        words: Option<Hidden>,
        display_name: Option<String>,
    },
    /// The words, while they are here, and what leads back. The answer is secret.
    Words,
    /// The person has them: erase them here. Secret.
    ForgetWords {
        words: Hidden,
    },
    /// Write all of a workspace into one file. Secret.
    Export {
        dir: PathBuf,
        file: PathBuf,
        passphrase: Hidden,
    },
    /// Begin from such a file. Secret.
    Import {
        file: PathBuf,
        dir: PathBuf,
        passphrase: Hidden,
        words: Hidden,
    },
    /// A pass for a member's further device.
    PassFor {
        dir: PathBuf,
        who: String,
    },
    /// A pass for another device of ours. The answer is secret.
    Pair {
        dir: PathBuf,
        for_ms: u64,
    },
    Pairing {
        dir: PathBuf,
    },
    AcceptDevice {
        dir: PathBuf,
        device: String,
        same: bool,
    },
    Leave {
        dir: PathBuf,
    },
    Invite {
        dir: PathBuf,
        wish: InviteWish,
    },
    Invites {
        dir: PathBuf,
    },
    RevokeInvite {
        dir: PathBuf,
        id: String,
    },
    /// Who waits for an admin.
    Requests {
        dir: PathBuf,
    },
    Approve {
        dir: PathBuf,
        who: String,
    },
    Deny {
        dir: PathBuf,
        who: String,
    },
    /// Who belongs, and why.
    Members {
        dir: PathBuf,
    },
    /// Ask the accounts that members name.
    VerifyMembers {
        dir: PathBuf,
        who: Option<String>,
    },
    /// Whom or what a name means: asked before a person is asked whether to go on.
    Meant {
        dir: PathBuf,
        named: Named,
    },
    RemoveMember {
        dir: PathBuf,
        who: String,
        recovery_key: Option<Hidden>,
    },
    KeepLate {
        dir: PathBuf,
        who: String,
    },
    SetRole {
        dir: PathBuf,
        who: String,
        role: String,
        recovery_key: Option<Hidden>,
    },
    RevokeDevice {
        dir: PathBuf,
        device: String,
        keep_certified: bool,
    },
    /// As an owner, agree to what takes several.
    Agree {
        dir: PathBuf,
        id: String,
    },
    Pause {
        dir: Option<PathBuf>,
    },
    Resume {
        dir: Option<PathBuf>,
        answer: Option<ResumeAnswer>,
    },
    /// Make a damaged database whole again.
    Repair {
        dir: PathBuf,
    },
    /// The folder of a workspace is elsewhere now. Without `from`: of the one that the folder's marker names.
    Move {
        from: Option<PathBuf>,
        to: PathBuf,
    },
    Flush {
        dir: PathBuf,
        timeout_ms: u64,
        peers: u32,
    },
    AddRelay {
        dir: PathBuf,
        url: String,
    },
    RemoveRelay {
        dir: PathBuf,
        url: String,
    },
    Log {
        dir: PathBuf,
        since_wall_ms: u64,
        limit: u32,
        follow: bool,
    },
    /// Who are we?
    Identity,
    /// Log in at a server of accounts. Secret.
    Login {
        name: String,
        password: Hidden,
        pds: String,
    },
    Logout,
    /// Publish which member the account is.
    Attest {
        name: String,
        words: Option<Hidden>,
    },
    /// Read or set what a relay may know of us.
    RelayIdentity {
        url: String,
        identity: Option<String>,
    },
    /// Keep or forget a relay's secret. Secret.
    RelaySecret {
        url: String,
        secret: Option<Hidden>,
    },
    /// End.
    Shutdown,
}

/// What a link shall be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InviteWish {
    pub(crate) role: String,
    /// Whether an open link of that kind, whose addresses are right still, is as good as a new one.
    #[serde(default)]
    pub(crate) open_one_will_do: bool,
    pub(crate) expires_ms: u64,
    pub(crate) uses: u32,
    pub(crate) approval: bool,
    /// A member, or somebody else's `did:key`.
    pub(crate) whom: Option<String>,
}

/// A text that is never shown.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(crate) struct Hidden(String);

impl Hidden {
    pub(crate) fn new(text: String) -> Hidden {
        Hidden(text)
    }
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A name, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Named {
    Member(String),
    /// A device, with those that it let in or alone.
    Device(String, bool),
    /// Somebody who wrote what came late, a member or not.
    Late(String),
}

/// An answer to a halt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ResumeAnswer {
    AcceptDeletes,
    Restore,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// One of several.
    Item { item: Value },
    /// The last one.
    Done { value: Value },
    /// The last one: it did not work. `exit` is the exit code, `code` the word for programs.
    Failed {
        message: String,
        exit: u8,
        #[serde(default)]
        code: String,
    },
}

/// Why a request did not work, with the exit code it gives.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For people. Empty: they know already (they pressed Ctrl-C).
    pub(crate) message: String,
    pub(crate) exit: u8,
    /// For programs; docs/using.md#json lists them, and none is ever renamed.
    pub(crate) code: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), exit: 1, code: Cow::Borrowed("failed") }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), exit: 2, code: Cow::Borrowed("usage") }
    }
    pub(crate) fn attention(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), exit: 3, code: Cow::Borrowed("attention") }
    }
    /// The agent does not run, or ended.
    pub(crate) fn not_running(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), exit: 4, code: Cow::Borrowed("not-running") }
    }
    /// A person, or the system, ended the command by a signal.
    pub(crate) fn interrupted(signal: u8) -> Failure {
        let exit = 128u8.saturating_add(signal);
        Failure { message: String::new(), exit, code: Cow::Borrowed("interrupted") }
    }
    /// With a more exact word for programs.
    pub(crate) fn code(self, code: &'static str) -> Failure {
        Failure { code: Cow::Borrowed(code), ..self }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        let code = if matches!(error, LinkError::Incomplete { .. }) {
            "link-incomplete"
        } else if matches!(error, LinkError::Mistyped | LinkError::Damaged(_)) {
            "link-mistyped"
        } else {
            "link-wrong"
        };
        Failure::usage(error.to_string()).code(code)
    }
}

impl From<PassError> for Failure {
    fn from(error: PassError) -> Self {
        let code = if matches!(error, PassError::Incomplete { .. }) {
            "pass-incomplete"
        } else if matches!(error, PassError::Mistyped | PassError::Damaged(_)) {
            "pass-mistyped"
        } else {
            "pass-wrong"
        };
        Failure::usage(error.to_string()).code(code)
    }
}

impl From<WordsError> for Failure {
    fn from(error: WordsError) -> Self {
        Failure::usage(error.to_string()).code("words-wrong")
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(error.to_string())
    }
}
