//! `weft devices add`, and `weft join` with the pass that it prints.
//!
//! Invariant: a device is let in when its person said that both devices show the same four words, or asked not to be asked.
//! Spec: docs/using.md#another-device-of-yours.

use std::time::Duration;

use serde_json::json;
use weft_agent_core::enrol::{Pass, Way};

use super::args::Join;
use super::client::Client;
use super::status::text;
use super::term::{self, Style, paint};
use super::{Context, Ended, join, words};
use crate::daemon::wire::{Failure, Request};

/// How often the agent is asked whether a device came.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `weft devices add`.
pub(crate) fn add(context: &Context, qr: bool, expires: &str, yes: bool) -> Ended {
    let dir = context.folder()?;
    let for_ms = u64::try_from(term::span(expires)?.as_millis()).unwrap_or(u64::MAX);
    let mut client = Client::ready(&context.home)?;
    let made = client.ask(&Request::Pair { dir: dir.clone(), for_ms })?;
    if context.json {
        term::say(&made.to_string());
    } else {
        let pass = text(&made, "pass");
        term::say(pass);
        if qr {
            term::say(&term::qr(pass)?);
        }
        term::note(&format!(
            "For one device of yours, for {expires}. The pass is a key: do not let others see it.\nOn that device run `weft \
             join -` and paste it."
        ));
    }
    let spinner = term::spinner("Waiting for the other device");
    loop {
        let now = client.ask(&Request::Pairing { dir: dir.clone() })?;
        let label = text(&now, "label");
        match text(&now, "state") {
            "waiting" => {}
            "asks" => {
                spinner.suspend(|| {
                    term::note(&format!("'{label}' asks to be let in. It must show these four words:\n"));
                    term::note(&format!("  {}\n", paint(Style::Bold, text(&now, "words"))));
                });
                let same = yes || spinner.suspend(|| term::confirm("Are they the same there?"))?;
                let device = text(&now, "device").to_owned();
                client.ask(&Request::AcceptDevice { dir: dir.clone(), device, same })?;
                if !same {
                    spinner.finish_and_clear();
                    return Err(Failure::usage("nobody let in; give --yes where nobody can be asked"));
                }
            }
            "done" => {
                spinner.finish_and_clear();
                if context.json {
                    term::say(&json!({"device": text(&now, "device"), "label": label}).to_string());
                } else {
                    term::say(&format!("'{label}' is a device of yours now, let in by this one."));
                }
                return Ok(0);
            }
            "failed" => {
                spinner.finish_and_clear();
                return Err(Failure::attention(text(&now, "why")));
            }
            _ => {
                spinner.finish_and_clear();
                return Err(Failure::attention("no device came in time; begin anew: weft devices add"));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// `weft join` with a pass.
pub(crate) fn join(context: &Context, arguments: &Join, given: &str) -> Ended {
    let pass = Pass::parse(given)?;
    if pass.way == Way::Words {
        return Err(Failure::usage("this pass needs your words: weft identity recover"));
    }
    let (dir, _) = join::folder_for(context, arguments.folder.as_deref(), &pass.name, arguments.merge)?;
    if arguments.dry_run {
        term::say(&format!("Would join '{}' in {} as a device of its member.", pass.name, dir.display()));
        return Ok(0);
    }
    words::enrol(context, dir, given.to_owned(), None, arguments.display_name.clone(), &pass.name)
}
