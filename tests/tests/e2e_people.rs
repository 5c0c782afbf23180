//! Many people, and people who are not there.

use anyhow::Result;
use weft_tests::e2e::{Agent, LONG, Stage, wait, wait_same, wait_settled, wait_text};

/// Ten people in one workspace, all writing, all get everything.
#[test]
fn ten_people_all_writing() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let names: Vec<String> = (0..10).map(|number| format!("person{number}")).collect();
    let team = stage.team(&relay, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for round in 0..5 {
        for agent in &team {
            agent.write(&format!("{}/{round}.md", agent.name()), format!("{} in round {round}\n", agent.name()))?;
        }
    }
    wait("fifty files everywhere", LONG, || {
        for agent in &team {
            if weft_tests::e2e::snapshot(agent.folder())?.len() < 50 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let all = team.iter().collect::<Vec<&Agent>>();
    assert_eq!(wait_same(&all)?.len(), 50);
    Ok(())
}

/// Who joins while nobody is there is told so, and is let in as soon as somebody comes, without doing anything more.
#[test]
fn joining_while_nobody_is_there_finishes_by_itself() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (mut ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    ada.init(&[relay.url()])?;
    ada.write("hello.md", "hello\n")?;
    wait_settled(&[&ada])?;
    let link = ada.invite()?;
    ada.stop()?;
    let ran = ben.run(["join", &link, &ben.folder().to_string_lossy(), "--as", "ben"])?.expect_code(0)?;
    assert!(ran.stdout.contains("Waiting for someone of 'notes'; this finishes by itself"), "{ran:?}");
    ada.revive()?;
    wait_text(&ben, "hello.md", "hello\n")?;
    ben.write("answer.md", "here I am\n")?;
    wait_text(&ada, "answer.md", "here I am\n")?;
    Ok(())
}

/// Who leaves is gone for the others, keeps the files, and gets nothing more.
#[test]
fn who_leaves_is_gone_for_everybody() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben", "cleo"])?;
    let [ada, ben, cleo] = team.as_mut_slice() else { unreachable!("three were asked for") };
    let (ada, ben) = (&*ada, &*ben);
    ada.write("shared.md", "ours\n")?;
    wait_text(cleo, "shared.md", "ours\n")?;
    wait_settled(&[ada, ben, &*cleo])?;
    // Whoever comes only to leave is heard as well: it waits until it has met somebody.
    cleo.stop()?;
    cleo.revive()?;
    let ran = cleo.run_here(["leave", "--yes"])?.expect_code(0)?;
    assert!(!ran.stderr.contains("No other device"), "{ran:?}");
    for agent in [ada, ben] {
        wait("only two members", LONG, || Ok((agent.status()?.members() == 2).then_some(())))?;
    }
    ada.write("later.md", "without Cleo\n")?;
    wait_text(ben, "later.md", "without Cleo\n")?;
    wait_same(&[ada, ben])?;
    assert_eq!(std::fs::read_to_string(cleo.folder().join("shared.md"))?, "ours\n");
    assert!(!cleo.folder().join("later.md").exists());
    Ok(())
}

/// An invite for one person lets one person in, and a revoked one nobody.
#[test]
fn an_invite_lets_in_whom_it_says() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let revoked = ada.invite()?;
    let listed = ada.run_here(["invites", "--json"])?.expect_code(0)?.json()?;
    let ids: Vec<String> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|invite| invite.get("id").and_then(|id| id.as_str()).map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 1, "the one that Ben used is closed: {listed}");
    for id in &ids {
        ada.run_here(["invites", "revoke", id])?.expect_code(0)?;
    }
    ada.flush()?;
    let eve = stage.agent("eve")?;
    let ran = eve.run(["join", &revoked, &eve.folder().to_string_lossy(), "--as", "eve"])?.expect_code(3)?;
    assert!(ran.stderr.contains("This link was revoked"), "{ran:?}");
    // Ben and Ada go on meanwhile; Eve gets nothing.
    ada.write("private.md", "not for Eve\n")?;
    wait_text(ben, "private.md", "not for Eve\n")?;
    wait_same(&[ada, ben])?;
    assert!(!eve.folder().join("private.md").exists());
    assert_ne!(eve.status()?.state(), "active");
    Ok(())
}

/// Files that are already in a folder that joins meet those that are there: equal ones become one, differing ones are
/// both kept.
#[test]
fn a_folder_that_joins_keeps_its_files() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    for agent in [&ada, &ben] {
        agent.write("same.md", "the same on both\n")?;
        agent.write("differs.md", format!("written by {}\n", agent.name()))?;
        agent.write(&format!("only-{}.md", agent.name()), "one of a kind\n")?;
    }
    ada.init(&[relay.url()])?;
    let link = ada.invite()?;
    let refused = ben.run(["join", &link, &ben.folder().to_string_lossy(), "--as", "ben"])?;
    assert_ne!(refused.code, 0, "a folder that is not empty needs --merge: {refused:?}");
    assert!(refused.stderr.contains("--merge"), "{refused:?}");
    ben.join_merging(&link, true)?;
    wait_text(&ada, "only-ben.md", "one of a kind\n")?;
    let same = wait_same(&[&ada, &ben])?;
    assert_eq!(same.len(), 5, "{same:?}");
    let texts: Vec<String> =
        same.keys().filter(|path| path.contains("differs")).map(|path| ada.read(path)).collect::<Result<_>>()?;
    assert_eq!(texts.len(), 2);
    assert!(texts.contains(&"written by ada\n".to_owned()) && texts.contains(&"written by ben\n".to_owned()));
    Ok(())
}
