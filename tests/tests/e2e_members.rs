//! Who belongs, with the real programs: roles, removals, and what the removed one sees.

use anyhow::{Context, Result};
use weft_tests::e2e::{Agent, LONG, Stage, wait, wait_same, wait_text};

/// Waits until an agent's status says that it is out, and why.
fn wait_removed(agent: &Agent, by: &str) -> Result<()> {
    wait("the removed one to hear why", LONG, || {
        let status = agent.status()?;
        let problems = status.0.get("problems").map(ToString::to_string).unwrap_or_default();
        Ok((status.state() == "left" && problems.contains(&format!("{by} removed you from 'notes'"))).then_some(()))
    })
    .with_context(|| agent.report())
}

/// Somebody online and somebody offline are removed: they get nothing new, their status says why, what they write stays
/// with them, and everybody else goes on.
#[test]
fn the_removed_get_nothing_new_and_know_why() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben", "cid", "dee"])?;
    team[0].write("before.md", "for all\n")?;
    wait_same(&team.iter().collect::<Vec<_>>())?;
    let [ada, ben, cid, dee] = team.as_mut_slice() else { unreachable!("four were asked for") };
    dee.stop()?;

    // Ben is a writer: he removes nobody.
    let refused = ben.run_here(["members", "remove", "cid", "--yes"])?;
    assert!(refused.code == 1 && refused.stderr.contains("You are a writer here"), "{refused:?}");

    // Whom a name means is found out before anybody is asked whether to go on.
    for (asked, of) in
        [("members remove zoe", "nobody here"), ("devices revoke vm9", "no device"), ("members keep zoe", "nothing")]
    {
        let refused = ada.run_here(asked.split(' '))?.expect_code(2)?;
        assert!(refused.stderr.contains(of), "{refused:?}");
    }
    let unasked = ada.run_here(["members", "remove", "cid"])?.expect_code(2)?;
    assert!(unasked.stderr.contains("nobody removed; give --yes"), "{unasked:?}");

    for who in ["cid", "dee"] {
        ada.run_here(["members", "remove", who, "--yes"])?.expect_code(0)?;
    }
    wait_removed(cid, "ada")?;
    ada.write("secret.md", "for those who are left\n")?;
    cid.write("mine.md", "by nobody\n")?;
    wait_text(ben, "secret.md", "for those who are left\n")?;
    ben.write("before.md", "for all, and on\n")?;
    wait_text(ada, "before.md", "for all, and on\n")?;

    dee.revive()?;
    wait_removed(dee, "ada")?;
    wait_same(&[ada, ben])?;
    for out in [&*cid, &*dee] {
        assert!(!out.folder().join("secret.md").exists(), "{} has what it must not", out.name());
        assert_eq!(out.read("before.md")?, "for all\n");
    }
    for left in [&*ada, &*ben] {
        assert!(!left.folder().join("mine.md").exists(), "{} has what a removed one wrote", left.name());
    }

    // What was written since stays there, and that is what it says, whatever is asked; who wrote what before keeps their name.
    let shown = wait("the edit to be taken in", LONG, || {
        let shown = cid.run_here(["status"])?.expect_code(3)?.stdout;
        Ok(shown.contains("left · 2 files · 1 batch of edits here only").then_some(shown))
    })?;
    assert!(!shown.contains("to send") && !shown.contains("holds everything"), "{shown}");
    let flushed = cid.run_here(["flush"])?.expect_code(3)?;
    assert!(flushed.stderr.contains("you do not belong here any more"), "{flushed:?}");
    for asked in [&["invite"][..], &["members", "remove", "ben", "--yes"]] {
        let refused = cid.run_here(asked)?.expect_code(1)?;
        assert!(refused.stderr.contains("You do not belong to 'notes' any more"), "{refused:?}");
    }
    assert!(cid.run_here(["log"])?.expect_code(0)?.stdout.contains("cid  created mine.md"));

    let unasked = ada.run_here(["leave"])?.expect_code(2)?;
    assert!(unasked.stderr.contains("You are the only owner of 'notes'"), "{unasked:?}");
    let unasked = ben.run_here(["leave"])?.expect_code(2)?;
    assert!(!unasked.stderr.contains("only owner"), "{unasked:?}");

    let listed = ben.run_here(["members", "--why"])?.expect_code(0)?.stdout;
    assert!(listed.contains("ada removed cid") && listed.contains("ada let ben in"), "{listed}");
    let json = ben.run_here(["members", "--json"])?.expect_code(0)?.json()?;
    let names: Vec<&str> = json
        .get("members")
        .and_then(|members| members.as_array())
        .into_iter()
        .flatten()
        .filter_map(|member| member.get("name").and_then(|name| name.as_str()))
        .collect();
    assert_eq!(names.len(), 2, "{json}");
    Ok(())
}

/// A reader gets everything and what it writes waits until it may write; then it is published.
#[test]
fn a_reader_becomes_a_writer() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.run_here(["members", "role", "ben", "reader"])?.expect_code(0)?;
    wait("ben to know", LONG, || {
        let json = ben.run_here(["members", "--json"])?.json()?;
        Ok(json.to_string().contains("\"role\":\"reader\"").then_some(()))
    })?;
    ben.write("draft.md", "by a reader\n")?;
    ada.write("news.md", "for all\n")?;
    wait_text(ben, "news.md", "for all\n")?;
    ada.write("more.md", "later\n")?;
    wait_text(ben, "more.md", "later\n")?;
    assert!(!ada.folder().join("draft.md").exists());
    // Not settled: this computer alone holds the draft.
    let shown = wait("ben to be told of what nobody else holds", LONG, || {
        let status = ben.run_here(["status"])?;
        Ok((status.code == 3 && status.stdout.contains("here only")).then_some(status.stdout))
    })?;
    assert!(shown.contains("1 batch of edits here only") && shown.contains("You may only read 'notes'"), "{shown}");
    let flushed = ben.run_here(["flush"])?.expect_code(3)?;
    assert!(flushed.stderr.contains("you may only read here"), "{flushed:?}");
    ada.run_here(["members", "role", "ben", "writer"])?.expect_code(0)?;
    wait_text(ada, "draft.md", "by a reader\n")?;
    wait_same(&[ada, ben])?;
    Ok(())
}

/// Somebody who was removed comes back by a new link, and not by an old one.
#[test]
fn coming_back_takes_a_new_link() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.run_here(["members", "remove", "ben", "--yes"])?.expect_code(0)?;
    wait_removed(ben, "ada")?;
    ben.run_here(["leave", "--yes"])?.expect_code(0)?;
    ada.write("since.md", "while ben was out\n")?;
    ben.join_merging(&ada.invite()?, true)?;
    wait_text(ben, "since.md", "while ben was out\n")?;
    ben.write("back.md", "here I am again\n")?;
    wait_text(ada, "back.md", "here I am again\n")?;
    Ok(())
}

/// What somebody wrote before they were removed, and that reached whoever removed them too late, is listed; an admin lets it
/// count for everybody, and nobody else does.
#[test]
fn what_came_late_is_kept_by_an_admin_alone() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben", "cid"])?;
    team[0].write("plan.md", "one\n")?;
    wait_same(&team.iter().collect::<Vec<_>>())?;
    let [ada, ben, cid] = team.as_mut_slice() else { unreachable!("three were asked for") };
    ada.stop()?;
    cid.write("plan.md", "one\nlast words of cid\n")?;
    wait_text(ben, "plan.md", "one\nlast words of cid\n")?;
    cid.stop()?;
    ben.stop()?;
    ada.revive()?;
    ada.run_here(["members", "remove", "cid", "--yes"])?.expect_code(0)?;
    ben.revive()?;
    let listed = wait("what came late to be listed", LONG, || {
        let listed = ada.run_here(["members"])?.expect_code(0)?.stdout;
        Ok(listed.contains("set aside").then_some(listed))
    })?;
    assert!(listed.contains("1 batch of changes of cid (plan.md) came after their removal"), "{listed}");
    wait_text(ben, "plan.md", "one\n")?;
    let refused = ben.run_here(["members", "keep", "cid", "--yes"])?;
    assert!(refused.code == 1 && refused.stderr.contains("Only an admin"), "{refused:?}");
    let nobody = ada.run_here(["members", "keep", "dee", "--yes"])?;
    assert!(nobody.code == 2 && nobody.stderr.contains("weft members"), "{nobody:?}");
    let kept = ada.run_here(["members", "keep", "cid", "--yes"])?.expect_code(0)?.stdout;
    assert!(kept.contains("1 batch of changes of cid counts now"), "{kept}");
    for agent in [&*ada, &*ben] {
        wait_text(agent, "plan.md", "one\nlast words of cid\n")?;
        assert!(!agent.run_here(["members"])?.expect_code(0)?.stdout.contains("set aside"));
    }
    Ok(())
}
