//! `weft log`: who changed what.
//!
//! Invariant: a path means the same however it is written (`x`, `./x`, absolute, from a folder inside), and a name in any
//! case; what means nothing here is told as such, with what was probably meant, and not as an empty log.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::args::Log;
use super::client::Client;
use super::status::{ask_one, list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::clock;
use crate::daemon::wire::{Failure, Request};
use crate::nearest::did_you_mean;

/// `weft log`.
pub(crate) fn run(context: &Context, arguments: &Log) -> Ended {
    let since_wall_ms = term::moment(&arguments.since, clock::wall_ms())?;
    let dir = context.folder()?;
    let mut client = Client::running(&context.home)?;
    let workspace = ask_one(&mut client, &dir)?;
    let paths = match arguments.at.as_ref().or(arguments.path.as_ref()) {
        Some(path) => Some(Paths::of(path, Path::new(text(&workspace, "path")), &dir)?),
        None => None,
    };
    if let Some(by) = &arguments.by {
        client_knows(&mut client, &dir, by)?;
    }
    let json = context.json;
    let mut shown = 0u32;
    let mut seen = BTreeSet::new();
    let mut each = |entry: Value| {
        let at = [text(&entry, "path"), text(&entry, "other")];
        seen.extend(at.iter().filter(|path| !path.is_empty()).map(|path| (*path).to_owned()));
        let here = paths.as_ref().is_none_or(|paths| at.iter().any(|path| paths.hold(path)));
        if here && arguments.by.as_deref().is_none_or(|by| is_by(&entry, by)) {
            shown += 1;
            term::say(&if json { entry.to_string() } else { show_entry(&entry) });
        }
    };
    let (limit, follow) = (arguments.limit, arguments.follow);
    client.ask_each(&Request::Log { dir, since_wall_ms, limit, follow }, &mut each)?;
    if let Some(paths) =
        paths.as_ref().filter(|paths| shown == 0 && !paths.exist() && !seen.iter().any(|path| paths.hold(path)))
    {
        let meant = did_you_mean(&paths.shown, seen.iter().map(String::as_str));
        return Err(Failure::usage(format!(
            "nothing here is called {:?}, and nothing of that name changed since {}{meant}",
            paths.shown, arguments.since
        ))
        .code("unknown-path"));
    }
    if shown == 0 && !json {
        term::note(if paths.is_some() || arguments.by.is_some() {
            "Nothing of that in this time; --since 30d looks further back, --limit at more."
        } else {
            "Nothing happened here in this time; --since 30d looks further back."
        });
    }
    Ok(0)
}

/// Fails if nobody and no device here is called so.
fn client_knows(client: &mut Client, dir: &Path, by: &str) -> Result<(), Failure> {
    let all = client.ask(&Request::Members { dir: dir.to_path_buf() })?;
    let members = list(&all, "members");
    let devices = || members.iter().flat_map(|member| list(member, "devices"));
    let named = members.iter().any(|member| text(member, "name").to_lowercase() == by.to_lowercase());
    // Of somebody who was removed the log still tells.
    let known = named || devices().any(|device| text(device, "id").starts_with(by)) || !list(&all, "former").is_empty();
    if known {
        return Ok(());
    }
    let names = members.iter().map(|member| text(member, "name"));
    Err(Failure::usage(format!("nobody here is called {by:?}{}", did_you_mean(by, names))).code("unknown-name"))
}

fn is_by(entry: &Value, by: &str) -> bool {
    text(entry, "who").to_lowercase() == by.to_lowercase() || text(entry, "device").starts_with(by)
}

/// What a path on the command line may mean in a workspace.
#[derive(Debug, PartialEq, Eq)]
struct Paths {
    root: PathBuf,
    /// As the log writes them; empty: the whole workspace. The last one is the one that people see.
    within: Vec<String>,
    shown: String,
}

impl Paths {
    /// `from`: the folder that a relative path begins at, inside the workspace or not.
    fn of(path: &Path, root: &Path, from: &Path) -> Result<Paths, Failure> {
        let outside = || {
            Failure::usage(format!("{} is not in the workspace {}", path.display(), root.display()))
                .code("unknown-path")
        };
        // As seen from the current folder; where that is not inside, or is the workspace itself, from the workspace.
        let base = if from.starts_with(root) { from } else { root };
        let absolute = tidy(&base.join(path)).ok_or_else(outside)?;
        // The workspace's path is canonical; what was typed may lead through links.
        let real = absolute.parent().and_then(|parent| parent.canonicalize().ok());
        let real = real.and_then(|parent| Some(parent.join(absolute.file_name()?)));
        let relative = |path: &Path| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
        let mut within: Vec<String> = real.as_deref().and_then(relative).into_iter().collect();
        within.extend(relative(&absolute));
        // A plain name also means what the log calls so.
        if path.is_relative() && !path.starts_with(".") && !path.starts_with("..") {
            within.extend(tidy(&root.join(path)).as_deref().and_then(relative));
        }
        within.dedup();
        let shown = within.first().cloned().ok_or_else(outside)?;
        Ok(Paths { root: root.to_path_buf(), within, shown })
    }
    fn hold(&self, path: &str) -> bool {
        let below = |within: &String| {
            let rest = path.strip_prefix(within.as_str());
            within.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !path.is_empty() && self.within.iter().any(below)
    }
    fn exist(&self) -> bool {
        self.within.iter().any(|path| self.root.join(path).symlink_metadata().is_ok())
    }
}

/// A path without `.` and `..`; nothing if it leads above the root.
fn tidy(path: &Path) -> Option<PathBuf> {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !tidied.pop() {
                    return None;
                }
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => tidied.push(part),
        }
    }
    Some(tidied)
}

fn show_entry(entry: &Value) -> String {
    let (path, other) = (text(entry, "path"), text(entry, "other"));
    let what = match text(entry, "what") {
        "created" => format!("created {path}"),
        "edited" => format!("edited {path}"),
        "moved" => format!("moved {other} to {path}"),
        "deleted" => format!("deleted {path}"),
        "kept-edited" => format!("deleted by one and edited by another, so it stays: {path}"),
        "clash" => format!("two files want the name {path}; the other one is {other}"),
        "stale-buffer" => format!("an editor saved an older state of {path}; nothing was reverted"),
        "not-carried" => format!("{path} cannot be carried here: {other}"),
        other => format!("{other} {path}"),
    };
    let who = entry.get("who").and_then(Value::as_str).unwrap_or("someone");
    let time = term::local(number(entry, "wall_ms"));
    format!("{}  {}  {what}", paint(Style::Dim, &time), paint(Style::Cyan, who))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a path is written, it means one place; what lies outside is refused.
    #[test]
    fn a_path_is_one_place_however_it_is_written() {
        let root = Path::new("/nowhere/notes");
        let of = |path: &str, from: &str| Paths::of(Path::new(path), root, Path::new(from)).ok();
        for (path, from) in [
            ("sub/plan.md", "/nowhere/notes"),
            ("./sub/plan.md", "/nowhere/notes"),
            ("plan.md", "/nowhere/notes/sub"),
            ("./plan.md", "/nowhere/notes/sub"),
            ("../sub/plan.md", "/nowhere/notes/sub"),
            ("/nowhere/notes/sub/plan.md", "/tmp"),
            ("/nowhere/notes/./sub//plan.md", "/tmp"),
            ("sub/plan.md", "/tmp"),
            ("sub/plan.md/", "/nowhere/notes"),
            ("sub", "/nowhere/notes"),
            (".", "/nowhere/notes/sub"),
            (".", "/nowhere/notes"),
            // As the log calls it, seen from a folder inside.
            ("sub/plan.md", "/nowhere/notes/other"),
        ] {
            assert!(of(path, from).unwrap().hold("sub/plan.md"), "{path} from {from}");
        }
        for (path, from) in
            [("plan.md", "/nowhere/notes"), ("./sub/plan.md", "/nowhere/notes/other"), ("su", "/nowhere/notes")]
        {
            assert!(!of(path, from).unwrap().hold("sub/plan.md"), "{path} from {from}");
        }
        assert_eq!(of("../x", "/nowhere/notes"), None);
        assert_eq!(of("/etc/passwd", "/nowhere/notes"), None);
        assert!(!of("sub", "/nowhere/notes").unwrap().hold("") && !of("sub", "/nowhere/notes").unwrap().hold("sub2/x"));
    }

    /// Names are the same in letters of any size; a device is meant by the start of its id.
    #[test]
    fn names_are_the_same_in_any_case() {
        let entry = serde_json::json!({"who": "Ärger Ann", "device": "ab12cd"});
        assert!(is_by(&entry, "ärger ann") && is_by(&entry, "ab12") && !is_by(&entry, "Ben"));
    }
}
