//! `weft doctor`: the checks that answer most questions.

use serde_json::{Value, json};

use super::client::{Client, holder};
use super::status::{faults, list, text};
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::config::Config;
use crate::daemon::wire::Request;
use crate::folder::guard::quoted;
use crate::home::identity;
use crate::home::registry::Registry;
use crate::lan::addresses;

struct Check {
    what: &'static str,
    well: bool,
    found: String,
}

/// `weft doctor`.
pub(crate) fn run(context: &Context) -> Ended {
    let checks = checks(context);
    let well = checks.iter().all(|check| check.well);
    if context.json {
        let all: Vec<Value> =
            checks.iter().map(|check| json!({"check": check.what, "ok": check.well, "found": check.found})).collect();
        term::say(&json!({"ok": well, "checks": all}).to_string());
    } else {
        for check in &checks {
            let mark = if check.well { paint(Style::Green, "ok") } else { paint(Style::Red, "! ") };
            term::say(&format!("{mark}  {}: {}", check.what, check.found));
        }
    }
    Ok(if well { 0 } else { 3 })
}

fn checks(context: &Context) -> Vec<Check> {
    let home = &context.home;
    let mut checks = Vec::new();
    let mut add = |what, result: Result<String, String>| {
        let well = result.is_ok();
        checks.push(Check { what, well, found: result.unwrap_or_else(|why| why) });
    };
    add("program", Ok(format!("weft {}", env!("CARGO_PKG_VERSION"))));
    add("home", home.prepare().map(|()| home.shown.display().to_string()).map_err(|error| error.to_string()));
    let config = Config::load(&home.config_file());
    add("settings", config.as_ref().map(|_| home.config_file().display().to_string()).map_err(ToString::to_string));
    add(
        "identity",
        match identity::load(&home.identity_file()) {
            Ok(Some(identity)) => Ok(format!("{} on {}", identity.name, identity.label)),
            Ok(None) => Ok("none yet; made at the first `weft init`, `up` or `join`".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    );
    let registry = Registry::load(home);
    add(
        "workspaces",
        registry
            .as_ref()
            .map(|all| term::count(all.workspaces.len() as u64, "workspace", "workspaces"))
            .map_err(|error| format!("{error:#}")),
    );
    for entry in registry.iter().flat_map(|all| &all.workspaces) {
        let found = match crate::folder::marker::read(&entry.path) {
            Ok(Some(marker)) if Some(marker.workspace) == entry.id() => {
                Ok(format!("'{}' in {}", entry.name, entry.path.display()))
            }
            Ok(Some(_)) => {
                Err(format!("{} belongs to another workspace; put the right folder back", entry.path.display()))
            }
            Ok(None) if !entry.path.exists() => Err(format!(
                "{path} is gone; put it back, or say where it is now: weft move {path} NEW",
                path = quoted(&entry.path)
            )),
            Ok(None) => Err(format!(
                "{} has no .weft folder; the agent makes it again if this is the folder it was in (weft status)",
                entry.path.display()
            )),
            Err(error) => Err(format!("{}: {error}", entry.path.display())),
        };
        add("folder", found);
    }
    let agent = Client::running(home).and_then(|mut client| client.ask(&Request::Status { dir: None }));
    add(
        "agent",
        match &agent {
            Ok(status) => Ok(format!("process {}", status.pointer("/agent/pid").unwrap_or(&Value::Null))),
            Err(failure) => match holder(home) {
                Some(holder) => Err(format!("{holder} runs but does not answer; see {}", home.log_file().display())),
                None if failure.exit == 4 => Ok("not running (weft start)".to_owned()),
                None => Err(failure.message.clone()),
            },
        },
    );
    let of_agent = agent.as_ref().map_or(&[][..], |status| list(status, "reminders"));
    for workspace in agent.iter().flat_map(|status| list(status, "workspaces")) {
        for problem in faults(workspace, of_agent) {
            add("problem", Err(format!("'{}': {problem}", text(workspace, "name"))));
        }
        // What is only to be remembered is no fault of the installation.
        for reminder in list(workspace, "reminders").iter().filter_map(Value::as_str) {
            add("remember", Ok(reminder.to_owned()));
        }
        for address in list(workspace, "addresses").iter().filter(|address| text(address, "kind") != "lan") {
            let up = address.get("up") == Some(&Value::Bool(true));
            let url = text(address, "url").to_owned();
            add(
                "relay",
                if up {
                    Ok(url)
                } else {
                    Err(format!("{url}: {}", address.get("why").and_then(Value::as_str).unwrap_or("connecting")))
                },
            );
        }
    }
    for reminder in agent.iter().flat_map(|status| list(status, "reminders")).filter_map(Value::as_str) {
        add("remember", Ok(reminder.to_owned()));
    }
    let ips: Vec<String> = addresses::of_this_host(false).iter().map(ToString::to_string).collect();
    add("network", Ok(format!("this computer is {}", ips.join(", "))));
    add("log", Ok(home.log_file().display().to_string()));
    #[cfg(target_os = "linux")]
    if let Ok(most) = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches") {
        let most = most.trim().to_owned();
        let enough = most.parse::<u64>().is_ok_and(|most| most >= 8192);
        let few = || format!("{most} folders can be watched at once; raise fs.inotify.max_user_watches (sysctl)");
        add("watches", if enough { Ok(format!("{most} folders can be watched at once")) } else { Err(few()) });
    }
    checks
}
