//! Coming in, with the real programs: links of all sorts, with an admin's word and without.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_agent_core::id::OpId;
use weft_agent_core::invite::InviteSecret;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::secret::Secret;
use weft_tests::e2e::{Agent, LONG, Ran, Stage, wait, wait_same, wait_text};

/// `weft invite` with these arguments: the link and the id of the invite.
fn invite(agent: &Agent, args: &[&str]) -> Result<(String, String)> {
    let all = ["invite", "--json"].iter().chain(args).copied().collect::<Vec<_>>();
    let made = agent.run_here(all)?.expect_code(0)?.json()?;
    let text = |key: &str| made.get(key).and_then(Value::as_str).map(str::to_owned).context("no link");
    Ok((text("link")?, text("id")?))
}

/// The DID of an agent's member.
fn did_of(agent: &Agent) -> Result<String> {
    let shown = agent.run(["identity", "--json"])?.expect_code(0)?.json()?;
    shown.pointer("/member/did").and_then(Value::as_str).map(str::to_owned).context("no DID")
}

/// `weft join` of this link, as it ends.
fn join(agent: &Agent, link: &str) -> Result<Ran> {
    agent.run(["join", link, &agent.folder().to_string_lossy(), "--as", agent.name()])
}

/// `weft requests --json`.
fn requests(agent: &Agent) -> Result<Vec<Value>> {
    let all = agent.run_here(["requests", "--json"])?.expect_code(0)?.json()?;
    Ok(all.as_array().cloned().unwrap_or_default())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn wait_in(agent: &Agent) -> Result<()> {
    wait("the joiner to be let in", LONG, || Ok((agent.status()?.state() == "active").then_some(())))
        .with_context(|| agent.report())
}

/// Waits until an agent's status says something.
fn wait_told(agent: &Agent, words: &str) -> Result<()> {
    let mut last = String::new();
    let told = wait("the joiner to be told", LONG, || {
        last = agent.run(["status"])?.stdout;
        Ok(last.contains(words).then_some(()))
    });
    told.with_context(|| format!("{} is to be told {words:?}, and sees\n{last}", agent.name()))
}

/// By a link with approval the admin sees who asks, with the four words that the joiner sees too; a writer sees nothing;
/// what was asked survives a restart of the admin's agent and the joiner's absence; one is let in, the other is told no.
#[test]
fn an_admin_lets_in_whom_they_know() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ada.write("ours.md", "for members\n")?;
    let (link, _) = invite(ada, &["--approve", "--uses", "5"])?;
    let (mut cid, eve) = (stage.agent("cid")?, stage.agent("eve")?);

    let asked = join(&cid, &link)?.expect_code(0)?;
    ensure!(asked.stdout.contains("An admin or owner of 'notes' has to let you in"), "{asked:?}");
    join(&eve, &link)?.expect_code(0)?;
    wait("both to be listed", LONG, || Ok((requests(ada)?.len() == 2).then_some(())))?;
    let listed = requests(ada)?;
    let of = |name: &str| listed.iter().find(|request| text(request, "name") == name).context("is not listed");
    let words = text(of("cid")?, "fingerprint").to_owned();
    ensure!(words.split(' ').count() == 4 && asked.stdout.contains(&words), "{words}: {asked:?}");
    ensure!(of("cid")?.get("first_ms").and_then(Value::as_u64) > Some(1_700_000_000_000), "{listed:?}");
    let shown = ada.run_here(["requests"])?.expect_code(0)?.stdout;
    ensure!(shown.contains("says to be cid") && shown.contains(&words), "{shown}");
    wait_told(ada, "2 people wait to be let in: weft requests")?;
    let refused = ben.run_here(["requests"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("You are a writer here"), "{refused:?}");
    let refused = ben.run_here(["approve", "cid"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("You are a writer here"), "{refused:?}");

    // The joiner goes, the admin's agent is killed; the question stands.
    cid.stop()?;
    ada.kill()?;
    ada.revive()?;
    ensure!(requests(ada)?.len() == 2, "{:?}", requests(ada)?);
    let by_name = ada.run_here(["approve", "cid"])?.expect_code(2)?;
    ensure!(by_name.stderr.contains("only what somebody says of themselves") && by_name.stderr.contains(&words));
    ada.run_here(["approve", &words])?.expect_code(0)?;
    let denied = ada.run_here(["deny", "eve"])?.expect_code(0)?;
    ensure!(denied.stdout.contains("is not let in, and is told so"), "{denied:?}");
    wait_told(&eve, "An admin decided not to let you in")?;
    cid.revive()?;
    wait_in(&cid)?;
    wait_text(&cid, "ours.md", "for members\n")?;
    cid.write("thanks.md", "by cid\n")?;
    wait_text(ben, "thanks.md", "by cid\n")?;
    wait_same(&[ada, ben, &cid])?;
    ensure!(requests(ada)?.is_empty());
    ensure!(eve.status()?.state() == "joining" && !eve.folder().join("ours.md").exists(), "{}", eve.report());
    ensure!(ada.status()?.members() == 3, "{}", ada.report());
    Ok(())
}

/// A link that is over, used up, revoked, leaked, of somebody who was removed meanwhile, damaged or made up: the joiner is
/// told which, and nobody comes in. Then a good link replaces the bad one, without anything in between.
#[test]
fn every_bad_link_says_what_is_wrong() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben", "cid"])?;
    let [ada, ben, cid] = team.as_slice() else { unreachable!("three were asked for") };
    ada.write("ours.md", "for members\n")?;
    ada.run_here(["members", "role", "ben", "admin"])?.expect_code(0)?;
    wait("ben to be admin", LONG, || {
        Ok(ben.run_here(["members", "--json"])?.stdout.contains("\"role\":\"admin\"").then_some(()))
    })?;
    let (over, over_id) = invite(ada, &["--expires", "1s"])?;
    let (used, _) = invite(ada, &[])?;
    let (revoked, revoked_id) = invite(ada, &[])?;
    let (by_ben, _) = invite(ben, &[])?;
    let (for_cid, _) = invite(ada, &["--for", &did_of(cid)?])?;
    let (kept, _) = invite(ada, &["--uses", "9"])?;
    let dee = stage.agent("dee")?;
    dee.join(&used)?;
    wait_in(&dee)?;
    ada.run_here(["invites", "revoke", &revoked_id])?.expect_code(0)?;
    ben.flush()?;
    for gone in ["ben", "cid"] {
        ada.run_here(["members", "remove", gone, "--yes"])?.expect_code(0)?;
    }
    wait("the first link to be over", LONG, || {
        Ok((!ada.run_here(["invites", "--json"])?.stdout.contains(&over_id)).then_some(()))
    })?;

    let eve = stage.agent("eve")?;
    for (link, words) in [
        (&over, "This link has expired"),
        (&used, "used as often as it may be"),
        (&revoked, "This link was revoked"),
        (&by_ben, "may not invite any more"),
        (&for_cid, "was revoked, or whoever made it"),
    ] {
        let refused = join(&eve, link)?.expect_code(3)?;
        ensure!(refused.stderr.contains(words), "{words}: {refused:?}");
        wait_told(&eve, words)?;
    }
    // Damaged on the way, or of another history than the members'.
    let damaged = join(&eve, &kept[..kept.len() - 7])?;
    ensure!(damaged.code == 2 && damaged.stderr.contains("the link is incomplete"), "{damaged:?}");
    let mut made_up = InviteLink::parse(&kept)?;
    made_up.secret = InviteSecret::new(Secret::new([7; 32]));
    let nobody = join(&eve, &made_up.to_text())?.expect_code(0)?;
    ensure!(
        nobody.stdout.contains("nobody answers yet") && nobody.stderr.contains("made up, meets nobody"),
        "{nobody:?}"
    );
    ensure!(ada.status()?.members() == 2, "{}", ada.report());

    // Who was removed comes by a link they kept, and had not come by.
    wait("cid to know", LONG, || Ok((cid.status()?.state() == "left").then_some(())))?;
    cid.run_here(["leave", "--yes"])?.expect_code(0)?;
    let back = cid.run(["join", &kept, &cid.folder().to_string_lossy(), "--merge"])?.expect_code(3)?;
    ensure!(back.stderr.contains("You were removed, and this link is older than that"), "{back:?}");
    ensure!(ada.status()?.members() == 2, "{}", ada.report());

    let mut forked = InviteLink::parse(&kept)?;
    forked.op_heads.push(OpId([9; 32]));
    let refused = join(&eve, &forked.to_text())?.expect_code(3)?;
    ensure!(refused.stderr.contains("is not what the link promises"), "{refused:?}");
    ensure!(!eve.folder().join("ours.md").exists());

    // A good link, at once.
    eve.join(&ada.invite()?)?;
    wait_in(&eve)?;
    wait_text(&eve, "ours.md", "for members\n")?;
    Ok(())
}

/// A link for one person, whose key is known, is worth nothing to others, who are told so; that person comes in by it.
#[test]
fn a_link_for_one_person_is_for_them_alone() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let ada = stage.agent("ada")?;
    ada.init(&[relay.url()])?;
    ada.write("ours.md", "for members\n")?;
    let (ben, eve) = (stage.agent("ben")?, stage.agent("eve")?);
    // An identity of his own, from a workspace of his own.
    let own = ben.home().join("own");
    ben.run(["init", &own.to_string_lossy(), "--as", "ben", "--yes"])?.expect_code(0)?;
    let did = did_of(&ben)?;
    let refused = ada.run_here(["invite", "--for", "did:plc:abc"])?;
    ensure!(refused.code == 2 && refused.stderr.contains("weft identity"), "{refused:?}");
    let (link, _) = invite(&ada, &["--for", &did])?;
    let leaked = join(&eve, &link)?.expect_code(3)?;
    ensure!(leaked.stderr.contains("This link was made for somebody else"), "{leaked:?}");
    ben.join(&link)?;
    wait_in(&ben)?;
    wait_text(&ben, "ours.md", "for members\n")?;
    ensure!(eve.status()?.state() == "joining" && ada.status()?.members() == 2, "{}", eve.report());
    Ok(())
}
