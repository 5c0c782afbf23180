//! The commands and their arguments.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// The commands, grouped; clap lists them in one heap.
const HELP: &str = "\
{about}

{usage-heading} weft [-C DIR] <COMMAND>

See it work:
  demo          A relay, two folders, the merge: 20 seconds, needs nothing

Share a folder:
  up            Set up if needed, print a join link, sync until Ctrl-C
  init          Make a folder a workspace
  join          Join a workspace by a link
  invite        Make a link for one more person
  invites       List open invites, or revoke one
  requests      Who waits to be let in
  approve, deny Let one of them in, or not
  move          Say that a workspace's folder is elsewhere now
  leave         Leave a workspace; your files stay

People:
  members       Who belongs; change a role, remove somebody
  devices       Which devices belong; add or revoke one

Run:
  start, stop   The agent in the background
  pause, resume Stop and go on syncing, or answer why it halted
  repair        Make a damaged database whole again; your files stay
  flush         Wait until a peer holds everything

Look:
  status        Where every workspace stands
  peers         Who is there
  relays        Which relays are used; add or remove one
  log           Who changed what

Set up:
  identity      Who you are: your words, coming back by them; an account
  config        Read and change settings
  ignore        What stays out of a workspace
  export        Write all of a workspace into one sealed file
  import        Begin from such a file, with nobody there
  doctor        Check this installation
  completions   Completions for your shell
  help          This text, or what a command does: weft help join

Options:
{options}

`weft help <COMMAND>` says more. Exit codes: 0 done or in sync, 1 failed, 2 bad
usage, 3 needs attention or not there yet, 4 agent not running, 130 Ctrl-C.
";

/// Keeps a folder the same on every machine of a team; nobody in between can read a word.
#[derive(Debug, Parser)]
#[command(name = "weft", version, help_template = HELP)]
pub(crate) struct Args {
    /// The workspace's folder (default: the one around the current folder)
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub(crate) dir: Option<PathBuf>,
    /// Keep everything of the agent below this folder
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) home: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Do,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Do {
    /// A relay, two folders, offline edits on both, the merge, and what the relay saw
    Demo,
    /// Set up if needed, print a join link, sync until Ctrl-C
    Up(Up),
    /// Make a folder a workspace
    Init(Init),
    /// Join a workspace by a link
    Join(Join),
    /// Say that a workspace's folder is elsewhere now. Move the folder first; this moves no files
    Move {
        /// Where it was (left out: the workspace that NEW's .weft folder names)
        #[arg(value_name = "OLD")]
        first: PathBuf,
        /// Where it is now
        #[arg(value_name = "NEW")]
        second: Option<PathBuf>,
    },
    /// Leave a workspace; your files stay, others are told
    Leave {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make a link for one more person. The link is a key: send it over a channel you trust
    Invite(Invite),
    /// List open invites, or revoke one
    Invites {
        #[command(subcommand)]
        action: Option<InvitesDo>,
    },
    /// Who waits to be let in: by which name, with which four words, since when
    Requests,
    /// Let in somebody who waits. Compare the four words with the person first
    Approve {
        /// The start of its id, or the four words in quotes, as `weft requests` lists them
        who: String,
    },
    /// Tell somebody who waits that they are not let in
    Deny {
        /// The start of its id, a name, or the four words in quotes, as `weft requests` lists them
        who: String,
    },
    /// Who belongs, what they may do, and why
    Members {
        #[command(subcommand)]
        action: Option<MembersDo>,
        /// Show the ops that made it so
        #[arg(long)]
        why: bool,
    },
    /// Which devices belong
    Devices {
        #[command(subcommand)]
        action: Option<DevicesDo>,
    },
    /// Start the agent in the background
    Start {
        /// Do not serve or look for peers on the local network
        #[arg(long)]
        no_lan: bool,
        /// Stay in the foreground and log to the terminal
        #[arg(long)]
        foreground: bool,
        /// Started by another command: own session, log to the file
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Stop the agent
    Stop,
    /// Stop syncing (local edits are still taken in)
    Pause,
    /// Go on syncing, or answer why a workspace halted
    Resume {
        /// The files that vanished were meant to be deleted: delete them everywhere
        #[arg(long, conflicts_with = "restore")]
        accept_deletes: bool,
        /// They were not: put them back
        #[arg(long)]
        restore: bool,
    },
    /// Make a damaged database whole again: what is damaged is kept aside, your files stay, the others bring the rest
    Repair {
        /// The workspace's folder; the current one if none is given
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Wait until everything is held by every connected peer, and the reverse
    Flush {
        /// How long at most
        #[arg(long, default_value = "30s", value_name = "TIME")]
        timeout: String,
        /// How many peers at least
        #[arg(long, default_value = "1", value_name = "N")]
        to: String,
    },
    /// Where every workspace stands
    Status {
        /// Show it anew every second
        #[arg(long)]
        watch: bool,
    },
    /// Who is there, and what they hold
    Peers,
    /// Which relays are used; add or remove one
    Relays {
        #[command(subcommand)]
        action: Option<RelaysDo>,
    },
    /// Who changed what
    Log(Log),
    /// Who you are, to members and to relays
    Identity {
        #[command(subcommand)]
        action: Option<IdentityDo>,
    },
    /// Write all of a workspace (history, keys, files) into one file, sealed with a passphrase. It is asked for, or read from
    /// standard input
    Export {
        /// The file; it must not be there, nor in the workspace's folder
        file: PathBuf,
    },
    /// Begin from an export, with nobody there: asks for its passphrase and your 24 words, or reads them from standard input
    Import {
        /// The file
        file: PathBuf,
        /// An empty folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Only take the files out, with the passphrase alone: no words, no workspace, nothing syncs
        #[arg(long)]
        files_only: bool,
    },
    /// What stays out of a workspace, and by which rules
    Ignore,
    /// Read and change settings
    Config {
        #[command(subcommand)]
        action: ConfigDo,
    },
    /// Check this installation and say what to do
    Doctor,
    /// Completions for your shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Log {
    /// Only this file or folder and what is below it: as it stands in the workspace, from the current folder, or absolute
    #[arg(value_name = "PATH")]
    pub(crate) at: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "PATH", conflicts_with = "at")]
    pub(crate) path: Option<PathBuf>,
    /// How far back, or from when (2d, 3h, 2026-01-31T12:00:00Z)
    #[arg(long, default_value = "1d", value_name = "TIME")]
    pub(crate) since: String,
    /// Only by this person (a name, in any case) or device (the start of its id)
    #[arg(long, value_name = "WHO")]
    pub(crate) by: Option<String>,
    /// Go on as it happens
    #[arg(long)]
    pub(crate) follow: bool,
    /// At most so many entries
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    /// The folder (default: the current one)
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// A relay (ws:// or wss://); without one, this network only
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Vec<String>,
    /// The workspace's name (default: the folder's)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Your name, as others see it (default: the system user's)
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) display_name: Option<String>,
    /// Print the link as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    /// Share large folders without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Make a recovery key for the workspace, and print it once
    #[arg(long)]
    pub(crate) recovery_key: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// The folder (default: the current one)
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// The workspace's name (default: the folder's)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A relay (ws:// or wss://); may be given several times
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Vec<String>,
    /// Your name, as others see it (default: the system user's)
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) display_name: Option<String>,
    /// Share large folders without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Make a recovery key for the workspace, which outranks its owners, and print it once
    #[arg(long)]
    pub(crate) recovery_key: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Join {
    /// The link (weft:...) or the pass of another device of yours (weft-pass:...), or - to read it from standard input; asked
    /// for if left out
    pub(crate) link: Option<String>,
    /// The folder (default: named like the workspace)
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// The folder may hold files already: equal ones meet, of differing ones both are kept
    #[arg(long)]
    pub(crate) merge: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Your name, as others see it (default: the system user's)
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) display_name: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Invite {
    /// What the new person may do: reader, writer or admin [default: writer]
    #[arg(long)]
    pub(crate) role: Option<String>,
    /// How long the link works [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
    /// How many people may join by it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) uses: u32,
    /// Whoever comes by it waits until an admin or owner lets them in (`weft requests`)
    #[arg(long)]
    pub(crate) approve: bool,
    /// For this person alone: a member who lost their device, by name (a pass by which they come back with their words: weft
    /// identity recover), or somebody whose key you know (did:key:...)
    #[arg(long = "for", value_name = "WHO", conflicts_with = "uses")]
    pub(crate) whom: Option<String>,
    /// Print it as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    /// An open link of that kind is as good as a new one (`weft up`).
    #[arg(skip)]
    pub(crate) open_one_will_do: bool,
}

impl Invite {
    /// What the new person may do.
    pub(crate) fn role(&self) -> &str {
        self.role.as_deref().unwrap_or("writer")
    }
    /// How long the link works.
    pub(crate) fn expires(&self) -> &str {
        self.expires.as_deref().unwrap_or("7d")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum InvitesDo {
    /// Make an open invite void
    Revoke {
        /// The start of its id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersDo {
    /// Ask the accounts that members name whether they are those members. Their servers learn that you look
    Verify {
        /// A name, four words, the start of a key, or a device's label; left out: all
        who: Option<String>,
    },
    /// Change what somebody may do
    Role {
        /// A name, four words, the start of a key, or a device's label
        who: String,
        /// reader, writer, admin or owner
        role: String,
        /// With the workspace's recovery key, which is asked for
        #[arg(long)]
        recovery_key: bool,
    },
    /// Remove somebody: nothing written from now on reaches them
    Remove {
        /// A name, four words, the start of a key, or a device's label
        who: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// With the workspace's recovery key, which is asked for
        #[arg(long)]
        recovery_key: bool,
    },
    /// Let what somebody wrote before they heard of their removal, and that came late, count
    Keep {
        /// A name, or the start of a key, as `weft members` lists it
        who: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// As an owner, agree to what takes several
    Agree {
        /// The start of its id, as `weft members` lists it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesDo {
    /// Let another device of yours in: prints a pass for it, then compares four words with it
    Add {
        /// Print the pass as a QR code too
        #[arg(long)]
        qr: bool,
        /// How long the pass works
        #[arg(long, default_value = "10m", value_name = "TIME")]
        expires: String,
        /// Do not ask whether the words are the same: whoever has the pass first is let in
        #[arg(long)]
        yes: bool,
    },
    /// Revoke a device, a lost one say, with those it certified
    Revoke {
        /// Its label, or the start of its id
        name: String,
        /// Keep the devices that it certified
        #[arg(long)]
        keep_certified: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RelaysDo {
    /// Use one more relay, for all members
    Add {
        /// ws:// or wss://
        url: String,
    },
    /// Stop using a relay, for all members
    Remove {
        /// As `weft relays` lists it
        url: String,
    },
    /// What a relay may know you by, on this device
    Identity {
        /// As `weft relays` lists it
        url: String,
        /// auto (a pseudonym, the account if it asks), pseudonym or account; left out: print it
        identity: Option<String>,
    },
    /// Give the secret that a relay asks for, on this device. It is asked for, or read from standard input
    Secret {
        /// As `weft relays` lists it
        url: String,
        /// Read it from a file instead
        #[arg(long, value_name = "FILE", conflicts_with = "forget")]
        file: Option<PathBuf>,
        /// Forget it
        #[arg(long)]
        forget: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityDo {
    /// Print it
    Show,
    /// Print your 24 words and what leads back to your workspaces; then confirm them, and they leave this computer
    Words {
        /// - confirms them: all 24 are read from standard input
        #[arg(value_parser = ["-"], value_name = "-")]
        confirm: Option<String>,
        /// Print them although nobody looks at a terminal
        #[arg(long)]
        show: bool,
    },
    /// Come back with your words, on a computer that knows nothing of you or whose device was revoked. They are asked for, or
    /// read from standard input behind the pass
    Recover {
        /// What `weft identity words` or `weft invite --for` printed (weft-pass:...), or - to read it from standard input;
        /// asked for if left out
        pass: Option<String>,
        /// The folder (default: named like the workspace)
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
        /// The folder may hold files already: equal ones meet, of differing ones both are kept
        #[arg(long)]
        merge: bool,
    },
    /// Log in with an account of the AT Protocol, for relays that ask for people by name. The app password is asked for, or
    /// read from standard input
    Login {
        /// The account's handle or DID
        #[arg(value_name = "HANDLE")]
        name: String,
        /// The server that has the account
        #[arg(long, default_value = "https://bsky.social", value_name = "URL")]
        pds: String,
    },
    /// Forget the account
    Logout,
    /// Publish, in the repository of the account that is logged in, which member you are
    Attest {
        /// The account's handle or DID
        #[arg(value_name = "HANDLE")]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigDo {
    /// Print one setting
    Get {
        /// Its name
        key: String,
    },
    /// Change one setting
    Set {
        /// Its name
        key: String,
        /// Its value
        value: String,
    },
    /// Print all settings, and where each comes from
    List,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// clap's own consistency check, and every command is in the grouped help.
    #[test]
    fn commands_are_consistent_and_listed() {
        let mut command = Args::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(HELP.contains(sub.get_name()), "{} is not in --help", sub.get_name());
        }
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "too long for a small terminal: {line}");
        }
    }

    /// The forms that the documentation shows parse.
    #[test]
    fn documented_forms_parse() {
        for line in [
            "weft up",
            "weft up notes --relay wss://r --qr --as Ann",
            "weft init --name N --relay ws://a --relay ws://b",
            "weft join",
            "weft join - notes --merge",
            "weft join weft:x --dry-run --as Bob",
            "weft leave --yes",
            "weft invite --role reader --expires 2h --uses 3 --json",
            "weft invite --approve --expires 1d",
            "weft invite --for Ben",
            "weft requests --json",
            "weft approve ab12cd34",
            "weft deny Bob",
            "weft invites",
            "weft invites revoke ab",
            "weft members --why",
            "weft members role Bob reader",
            "weft members remove Bob --yes",
            "weft members keep Bob",
            "weft members agree ab12",
            "weft members verify",
            "weft members verify Bob --json",
            "weft devices",
            "weft devices revoke phone --keep-certified",
            "weft devices add --qr --expires 5m --yes",
            "weft invite --for Ann",
            "weft init --recovery-key",
            "weft up notes --recovery-key",
            "weft members remove Ann --recovery-key",
            "weft members role Ben owner --recovery-key",
            "weft identity words",
            "weft identity words - --json",
            "weft identity words --show",
            "weft identity recover",
            "weft identity recover - notes --merge",
            "weft export notes.age",
            "weft import notes.age notes",
            "weft import notes.age notes --files-only",
            "weft start --no-lan",
            "weft start --foreground",
            "weft resume --restore",
            "weft flush --timeout 5s --to 2",
            "weft -C notes status --json",
            "weft status --watch",
            "weft relays add ws://x",
            "weft relays identity ws://x pseudonym",
            "weft relays secret ws://x --file f",
            "weft relays secret ws://x --forget",
            "weft identity",
            "weft identity login alice.example --pds https://pds.example",
            "weft identity attest alice.example",
            "weft log --since 2d --follow",
            "weft log ./notes/plan.md --by ann",
            "weft log --path notes",
            "weft config set lan off",
            "weft config list",
            "weft --home h doctor",
            "weft completions bash",
        ] {
            Args::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Args::try_parse_from(["weft", "resume", "--restore", "--accept-deletes"]).is_err());
        assert!(Args::try_parse_from(["weft", "invite", "--uses", "0"]).is_err());
        assert!(Args::try_parse_from(["weft", "invite", "--for", "Ben", "--uses", "2"]).is_err());
        for line in [&["weft", "help"][..], &["weft", "help", "join"], &["weft", "help", "members", "role"]] {
            let help = Args::try_parse_from(line).unwrap_err();
            assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp, "{line:?}");
        }
        // Words are never arguments.
        assert!(Args::try_parse_from(["weft", "identity", "words", "legal"]).is_err());
    }
}
