//! `weft members verify`, and how `weft members` shows which accounts members say are theirs.

use std::path::PathBuf;

use serde_json::Value;

use super::client::Client;
use super::status::{list, number, text};
use super::term::{self, Style, paint};
use super::{Context, Ended};
use crate::daemon::wire::Request;

/// One line for each account of a member.
pub(super) fn lines(member: &Value) -> Vec<String> {
    let mut lines: Vec<String> = list(member, "accounts").iter().map(line).collect();
    match number(member, "accounts_unsound") {
        0 => {}
        1 => lines.push("one more account is not shown: this member's key did not sign it".to_owned()),
        more => lines.push(format!("{more} more accounts are not shown: this member's key did not sign them")),
    }
    lines
}

/// What is known of an account. Denied goes before verified: the later answer is the one that counts.
fn line(account: &Value) -> String {
    let did = text(account, "did");
    let failed = account.get("failed").filter(|failed| !failed.is_null());
    let denied = failed.filter(|failed| failed.get("denied") == Some(&Value::Bool(true)));
    if let Some(denied) = denied {
        let (why, at) = (text(denied, "why"), term::local(number(denied, "at_ms")));
        return paint(Style::Yellow, &format!("says it is {did}; the account does not say so: {why} (asked {at})"));
    }
    let silent = |failed: &Value| format!("{} (asked {})", text(failed, "why"), term::local(number(failed, "at_ms")));
    match (number(account, "verified_ms"), failed) {
        (0, None) => format!("says it is {did}; not verified: weft members verify"),
        (0, Some(failed)) => format!("says it is {did}; not verified: {}", silent(failed)),
        (at, failed) => {
            let handle = match text(account, "handle") {
                "" => String::new(),
                handle => format!(", calls itself {handle}"),
            };
            let since = failed.map(|failed| format!("; since then {}", silent(failed))).unwrap_or_default();
            format!("{did}{handle}, {} {}{since}", paint(Style::Green, "verified"), term::local(at))
        }
    }
}

/// `weft members verify`: exit code 0 if every account that was asked says who it is.
pub(super) fn verify(context: &Context, client: &mut Client, dir: PathBuf, who: Option<String>) -> Ended {
    let done = client.ask(&Request::VerifyMembers { dir, who })?;
    let accounts = list(&done, "accounts");
    let unverified = |account: &&Value| account.get("failed").is_some_and(|failed| !failed.is_null());
    let code = if accounts.iter().any(|account| unverified(&account)) { 3 } else { 0 };
    if context.json {
        term::say(&done.to_string());
        return Ok(code);
    }
    if accounts.is_empty() {
        term::say("No account to verify: nobody says here which one is theirs (weft identity attest).");
    }
    for account in accounts {
        term::say(&format!("{}  {}", paint(Style::Bold, text(account, "name")), line(account)));
        let unanswered = text(account, "unanswered");
        if !unanswered.is_empty() && account.pointer("/failed/denied") == Some(&Value::Bool(true)) {
            term::note(&format!("now {unanswered}"));
        }
    }
    match number(&done, "left") {
        0 => {}
        left => term::note(&format!("{left} more were asked later than these, and were left out: once more asks them")),
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each state of an account reads differently: said, verified, verified and silent since, denied; what is not shown is
    /// counted.
    #[test]
    fn every_state_has_its_line() {
        let of = |verified: Option<u64>, failed: Value| {
            line(&json!({"did": "did:plc:a", "handle": "a.example", "verified_ms": verified, "failed": failed}))
        };
        let failed = |denied: bool| json!({"at_ms": 2, "denied": denied, "why": "because"});
        assert!(of(None, Value::Null).ends_with("says it is did:plc:a; not verified: weft members verify"));
        assert!(of(None, failed(false)).contains("not verified: because (asked 19"));
        let verified = of(Some(1), Value::Null);
        assert!(
            verified.starts_with("did:plc:a, calls itself a.example, ") && verified.contains("verified"),
            "{verified}"
        );
        assert!(of(Some(1), failed(false)).contains("; since then because (asked 19"));
        let denied = of(Some(1), failed(true));
        assert!(
            denied.contains("the account does not say so: because (asked 19") && !denied.contains("verified"),
            "{denied}"
        );
        let lines = lines(&json!({"accounts": [], "accounts_unsound": 2}));
        assert_eq!(lines, ["2 more accounts are not shown: this member's key did not sign them"]);
    }
}
