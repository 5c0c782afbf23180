//! What people type. [`main`] parses it, talks to the daemon (which it starts when needed), and prints.
//!
//! Invariant: standard output holds what was asked for (JSON with `--json`), everything else goes to standard error;
//! the exit code says how it went: 0 done or in sync, 1 failed, 2 bad usage, 3 needs attention or not there yet, 4 agent
//! not running. No secret of a link is ever part of an error.
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
mod manage;
mod members;
mod pair;
mod repair;
mod requests;
mod share;
mod status;
mod term;
mod up;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::daemon::wire::Failure;
use crate::home::Home;
use args::{Args, Do};

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
    let args = Args::parse();
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            term::complain(&failure.message);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(args: Args) -> Ended {
    let home = Home::resolve(args.home.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    let context = Context { home, dir: args.dir, json: args.json };
    match args.command {
        Do::Demo => demo::run(),
        Do::Up(up) => up::run(&context, &up),
        Do::Init(init) => share::init(&context, &init),
        Do::Join(arguments) => join::run(&context, &arguments),
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
        Do::Log { since, path, by, follow, limit } => {
            manage::log(&context, &since, path.as_deref(), by.as_deref(), follow, limit)
        }
        Do::Identity { action } => identity::run(&context, action.as_ref()),
        Do::Export { file } => export::export(&context, &file),
        Do::Import { file, folder, files_only } => export::import(&context, &file, &folder, files_only),
        Do::Ignore => local::ignore(&context),
        Do::Config { action } => local::config(&context, &action),
        Do::Doctor => doctor::run(&context),
        Do::Completions { shell } => local::completions(shell),
    }
}
