//! `weft export` and `weft import`.

use std::io::IsTerminal;
use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::status::{list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended, share, words};
use crate::daemon::wire::{Failure, Hidden, Request};
use crate::export::unpack::{self, Unpacked};

/// A passphrase shorter than this is guessed.
const PASSPHRASE_BYTES_MIN: usize = 8;

/// Asks for a passphrase; twice on a terminal, where nobody sees what is typed.
fn new_passphrase() -> Result<Hidden, Failure> {
    let first = term::ask_secret("A passphrase for the export:")?;
    if first.len() < PASSPHRASE_BYTES_MIN {
        return Err(Failure::usage(format!(
            "a passphrase has at least {PASSPHRASE_BYTES_MIN} characters; it is asked for, or read from standard input"
        )));
    }
    if std::io::stdin().is_terminal() && term::ask_secret("Again:")? != first {
        return Err(Failure::usage("the two differ; nothing was written"));
    }
    Ok(Hidden::new(first))
}

/// `weft export`.
pub(crate) fn export(context: &Context, file: &Path) -> Ended {
    let dir = context.folder()?;
    let file = std::path::absolute(file)?;
    // Its folder may be reached through links, and lie in the workspace.
    let file = match (file.parent().and_then(|parent| parent.canonicalize().ok()), file.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => return Err(Failure::usage(format!("{} cannot be written there", file.display()))),
    };
    let passphrase = new_passphrase()?;
    let mut client = Client::ready(&context.home)?;
    let spinner = term::spinner("Exporting");
    let done = client.ask(&Request::Export { dir, file, passphrase });
    spinner.finish_and_clear();
    let done = done?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    term::say(&format!(
        "'{}' is in {}: its history, keys and {} ({}).",
        paint(Style::Bold, text(&done, "name")),
        text(&done, "file"),
        term::count(number(&done, "files"), "file", "files"),
        term::bytes(number(&done, "bytes"))
    ));
    term::note(
        "Anybody who has the file and the passphrase can read everything. To begin from it: weft import FILE DIR",
    );
    Ok(0)
}

/// `weft import`.
pub(crate) fn import(context: &Context, file: &Path, folder: &Path, files_only: bool) -> Ended {
    let file = std::path::absolute(file)?;
    if !file.exists() {
        return Err(Failure::usage(format!("{} is not there", file.display())));
    }
    let passphrase = term::ask_secret("The export's passphrase:")?;
    if passphrase.is_empty() {
        return Err(Failure::usage("no passphrase was given; it is asked for, or read from standard input"));
    }
    if files_only {
        return take_out(context, &file, folder, &passphrase);
    }
    let dir = share::folder(context, Some(folder))?;
    let words = words::asked("Your 24 words:")?;
    let mut client = Client::ready(&context.home)?;
    let spinner = term::spinner("Importing");
    let done = client.ask(&Request::Import { file, dir, passphrase: Hidden::new(passphrase), words });
    spinner.finish_and_clear();
    let done = done?;
    Ok(show(context, &done, |files| {
        let (name, path) = (paint(Style::Bold, text(&done, "name")), text(&done, "path"));
        format!("'{name}' is in {path} ({files}), on a device of its own.")
    }))
}

/// `weft import --files-only`.
fn take_out(context: &Context, file: &Path, folder: &Path, passphrase: &str) -> Ended {
    let spinner = term::spinner("Taking the files out");
    let done = unpack::files_only(file, folder, passphrase);
    spinner.finish_and_clear();
    let Unpacked { name, files, left_out } = done?;
    let done = json!({"name": name, "path": folder, "files": files, "left_out": left_out});
    Ok(show(context, &done, |files| {
        let name = paint(Style::Bold, &name);
        format!("{files} of '{name}' in {}. This is no workspace: nothing syncs.", folder.display())
    }))
}

/// Says where the files are now, in a sentence made of how many, and which could not be put there; the exit code.
fn show(context: &Context, done: &Value, sentence: impl Fn(&str) -> String) -> u8 {
    let left_out = list(done, "left_out");
    if context.json {
        term::say(&done.to_string());
    } else {
        term::say(&sentence(&term::count(number(done, "files"), "file", "files")));
        for path in left_out.iter().filter_map(Value::as_str) {
            term::note(&format!("not put in place: {path}"));
        }
    }
    if left_out.is_empty() { 0 } else { 3 }
}
