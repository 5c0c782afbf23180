//! What people type. [`main`] parses it, talks to the daemon (which it starts when needed), and prints.
//!
//! Invariant: standard output holds what was asked for (JSON with `--json`), everything else goes to standard error;
//! the exit code says how it went: 0 done or in sync, 1 failed, 2 bad usage, 3 needs attention or not there yet, 4 agent
//! not running, 130 ended by Ctrl-C. With `--json` an error is an object on the last line of standard error. No secret of
//! a link is ever part of an error. A command that only looks never starts the agent.
//! Spec: docs/using.md.

mod accounts;
mod args;
mod client;
mod demo;
mod doctor;
mod export;
mod identity;
mod join;
mod local;
mod log;
mod manage;
mod members;
mod pair;
mod question;
mod repair;
mod requests;
mod share;
mod status;
mod term;
mod up;
mod words;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::daemon::wire::Failure;
use crate::home::Home;
use args::{Args, Do, IdentityDo, RelaysDo};

/// What a command gives: its exit code, or a failure with one.
pub(crate) type Ended = Result<u8, Failure>;

/// What every command needs.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) dir: Option<std::path::PathBuf>,
    pub(crate) json: bool,
}

impl Context {
    /// The folder that is meant: `-C DIR`, else the current one; canonical where it exists.
    pub(crate) fn folder(&self) -> Result<std::path::PathBuf, Failure> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => std::env::current_dir()?,
        };
        let absolute = std::path::absolute(&dir)?;
        Ok(absolute.canonicalize().unwrap_or(absolute))
    }
    /// `-C DIR` if given; else the current folder if it lies in a workspace.
    pub(crate) fn folder_if_any(&self) -> Result<Option<std::path::PathBuf>, Failure> {
        let dir = self.folder()?;
        let inside = dir.ancestors().any(|above| above.join(".weft/marker.toml").exists());
        Ok((self.dir.is_some() || inside).then_some(dir))
    }
}

/// Runs `weft` with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return not_understood(&error),
    };
    let json = args.json;
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say_failure(&failure, json);
            ExitCode::from(failure.exit)
        }
    }
}

/// An error for people, or with `--json` for programs: an object on the last line of standard error.
fn say_failure(failure: &Failure, json: bool) {
    if json {
        let error = json!({"code": failure.code, "message": failure.message, "exit": failure.exit});
        term::note(&json!({ "error": error }).to_string());
    } else if !failure.message.is_empty() {
        term::complain(&failure.message);
    }
}

/// Arguments that mean nothing, and `--help` and `--version`, which are none.
fn not_understood(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ");
        say_failure(&Failure::usage(message), true);
    } else {
        // Nobody reads it any more.
        let _hung_up = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What becomes of an agent that a command started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It goes on: what the command began (a workspace, a link, a change that others must hear of) needs it.
    GoesOn,
    /// It ends with the command, which only needed an answer.
    Ends,
    /// The command sees to it, or needs none.
    Own,
}

fn after(command: &Do) -> After {
    match command {
        Do::Init(_)
        | Do::Join(_)
        | Do::Leave { .. }
        | Do::Invite(_)
        | Do::Invites { .. }
        | Do::Requests
        | Do::Approve { .. }
        | Do::Deny { .. }
        | Do::Members { .. }
        | Do::Devices { .. }
        | Do::Relays { action: Some(RelaysDo::Add { .. } | RelaysDo::Remove { .. }) | None }
        | Do::Identity { action: Some(IdentityDo::Recover { .. } | IdentityDo::Attest { .. }) }
        | Do::Export { .. }
        | Do::Repair { .. }
        | Do::Move { .. }
        | Do::Import { .. } => After::GoesOn,
        Do::Relays { action: Some(RelaysDo::Identity { .. } | RelaysDo::Secret { .. }) } | Do::Identity { .. } => {
            After::Ends
        }
        Do::Demo
        | Do::Up(_)
        | Do::Start { .. }
        | Do::Stop
        | Do::Pause
        | Do::Resume { .. }
        | Do::Flush { .. }
        | Do::Status { .. }
        | Do::Peers
        | Do::Log(_)
        | Do::Ignore
        | Do::Config { .. }
        | Do::Doctor
        | Do::Completions { .. } => After::Own,
    }
}

fn run(args: Args) -> Ended {
    let home = Home::resolve(args.home.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    let (after, json) = (after(&args.command), args.json);
    let ended = dispatch(args, home.clone());
    if !client::has_started() || after == After::Own {
        return ended;
    }
    // What waits for somebody (3) goes on; what failed, or was given up, leaves nothing behind.
    let failed = ended.as_ref().is_err_and(|failure| failure.exit != 3);
    if after == After::Ends || failed {
        client::stop_started(&home);
    } else if !json {
        term::note("The agent runs in the background from now on; `weft stop` ends it.");
    }
    ended
}

fn dispatch(args: Args, home: Home) -> Ended {
    let context = Context { home, dir: args.dir, json: args.json };
    match args.command {
        Do::Demo => demo::run(),
        Do::Up(up) => up::run(&context, &up),
        Do::Init(init) => share::init(&context, &init),
        Do::Join(arguments) => join::run(&context, &arguments),
        Do::Move { first, second } => manage::moved(&context, first, second),
        Do::Leave { yes } => manage::leave(&context, yes),
        // A member needs no invite: they are in, and come back with a pass and their words.
        Do::Invite(invite) => match invite.whom.as_deref().filter(|who| !who.starts_with("did:")) {
            Some(who) => words::pass_for(&context, who, &invite),
            None => share::invite(&context, &invite),
        },
        Do::Invites { action } => manage::invites(&context, action.as_ref()),
        Do::Requests => requests::run(&context),
        Do::Approve { who } => requests::approve(&context, &who),
        Do::Deny { who } => requests::deny(&context, &who),
        Do::Members { action, why } => members::run(&context, action.as_ref(), why),
        Do::Devices { action } => members::devices(&context, action.as_ref()),
        Do::Start { no_lan, foreground, detached } => client::start(&context, no_lan, foreground, detached),
        Do::Stop => client::stop(&context),
        Do::Pause => manage::pause(&context),
        Do::Repair { folder, yes } => repair::run(&context, folder.as_deref(), yes),
        Do::Resume { accept_deletes, restore } => manage::resume(&context, accept_deletes, restore),
        Do::Flush { timeout, to } => manage::flush(&context, &timeout, &to),
        Do::Status { watch } => status::run(&context, watch),
        Do::Peers => status::peers(&context),
        Do::Relays { action } => manage::relays(&context, action.as_ref()),
        Do::Log(arguments) => log::run(&context, &arguments),
        Do::Identity { action } => identity::run(&context, action.as_ref()),
        Do::Export { file } => export::export(&context, &file),
        Do::Import { file, folder, files_only } => export::import(&context, &file, &folder, files_only),
        Do::Ignore => local::ignore(&context),
        Do::Config { action } => local::config(&context, &action),
        Do::Doctor => doctor::run(&context),
        Do::Completions { shell } => local::completions(shell),
    }
}
