//! Commands that need no agent: settings, ignore rules, completions.

use clap::CommandFactory;
use serde_json::json;

use super::args::{Args, ConfigDo};
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::config::{Config, ConfigError};
use crate::daemon::wire::Failure;
use crate::folder::ignore::Rules;
use crate::folder::scan;

/// `weft config`.
pub(crate) fn config(context: &Context, action: &ConfigDo) -> Ended {
    let wrong = |error: ConfigError| Failure::usage(error.to_string());
    let mut config = Config::load(&context.home.config_file()).map_err(wrong)?;
    match action {
        ConfigDo::Get { key } => {
            let value = config.get(key).map_err(wrong)?;
            term::say(&if context.json { json!({ "key": key, "value": value }).to_string() } else { value });
        }
        ConfigDo::Set { key, value } => {
            config.set(key, value).map_err(wrong)?;
            term::note("Set. It holds from the agent's next start (weft stop, weft start).");
        }
        ConfigDo::List => {
            for (key, value, source, about) in config.list() {
                if context.json {
                    term::say(&json!({"key": key, "value": value, "source": source, "about": about}).to_string());
                } else {
                    term::say(&format!(
                        "{} = {value:?}  {}",
                        paint(Style::Bold, key),
                        paint(Style::Dim, &format!("# {about} ({source})"))
                    ));
                }
            }
        }
    }
    Ok(0)
}

/// `weft ignore`.
pub(crate) fn ignore(context: &Context) -> Ended {
    let dir = context.folder()?;
    let root = dir.ancestors().find(|above| above.join(".weft/marker.toml").exists()).unwrap_or(&dir).to_path_buf();
    let mut rules = Rules::new(&root);
    let shown = rules.shown();
    let listing = scan::list(&root, &mut rules, None)?;
    if context.json {
        let rules: Vec<_> = shown.iter().map(|(source, lines)| json!({"source": source, "rules": lines})).collect();
        term::say(
            &json!({"rules": rules, "ignored": listing.ignored, "repositories": listing.repositories}).to_string(),
        );
        return Ok(0);
    }
    for (source, lines) in shown {
        term::say(&paint(Style::Bold, &source));
        for line in lines.chunks(8) {
            term::say(&format!("  {}", line.join("  ")));
        }
    }
    for repository in &listing.repositories {
        term::say(&format!(
            "{repository} is a git repository of its own and stays out (to share it: !/{repository}/ in .weftignore)."
        ));
    }
    term::say(&format!(
        "{} here. Rules of your own go into {} (gitignore syntax; `!` lets in again).",
        term::count(listing.ignored, "path is ignored", "paths are ignored"),
        root.join(".weftignore").display()
    ));
    Ok(0)
}

/// `weft completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "weft", &mut script);
    term::say(String::from_utf8_lossy(&script).trim_end());
    Ok(0)
}
