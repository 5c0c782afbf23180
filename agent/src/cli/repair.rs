//! `weft repair`.

use std::path::Path;

use super::client::Client;
use super::status::{number, text};
use super::term;
use super::{Context, Ended};
use crate::daemon::wire::Request;

/// Repairs the database of the workspace in a folder.
pub(crate) fn run(context: &Context, folder: Option<&Path>, yes: bool) -> Ended {
    let dir = match folder {
        Some(folder) => {
            let absolute = std::path::absolute(folder)?;
            absolute.canonicalize().unwrap_or(absolute)
        }
        None => context.folder()?,
    };
    let mut client = Client::ready(&context.home)?;
    term::agreed(
        yes,
        "Repair the database of this workspace? The damaged one is kept under another name, your files stay as they are, and \
         the rest comes from your other devices and the other members.",
        "not repaired",
    )?;
    let done = client.ask(&Request::Repair { dir })?;
    if context.json {
        term::say(&done.to_string());
        return Ok(0);
    }
    let name = text(&done, "name");
    match text(&done, "was") {
        "whole" => term::say(&format!("The database of '{name}' is whole. Nothing was changed.")),
        "values" => term::say(&format!(
            "{} of the database of '{name}' {} damaged; Weft rebuilds what depends on it. `weft status` says when it is done.",
            term::count(number(&done, "values"), "value", "values"),
            if number(&done, "values") == 1 { "was" } else { "were" },
        )),
        _ => {
            term::say(&format!("The damaged database is kept as {}.", text(&done, "kept_as")));
            if done.get("can_return") == Some(&serde_json::Value::Bool(false)) {
                term::note(&format!(
                    "The keys of '{name}' could not be read either, so this device cannot meet the others by itself. Run `weft \
                     leave` in {path}, then join again with a link from another member: weft join LINK {path} --merge",
                    path = text(&done, "path"),
                ));
                return Ok(3);
            }
            term::say(&format!(
                "{} could be read from it. The folder is compared with what the other devices hold as soon as one of them is \
                 reachable; until then nothing in it is touched. `weft status` says when that is done.",
                term::count(number(&done, "rows"), "value", "values"),
            ));
        }
    }
    Ok(0)
}
