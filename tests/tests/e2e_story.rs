//! The story: a folder of a thousand documents, two people, edits online and offline, a third who comes later.

use anyhow::Result;
use weft_tests::e2e::{Corpus, Snapshot, Stage, wait_same, wait_settled, wait_text};

/// How many documents when none are given: enough for several envelopes, few enough for every run.
const DOCUMENTS: usize = 300;

/// A folder full of documents reaches a second computer byte for byte, edits go both ways, and what two people write
/// offline into one file ends, both parts, in both copies.
#[test]
fn a_folder_is_the_same_on_two_machines() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (mut ada, mut ben) = (stage.agent("ada")?, stage.agent("ben")?);
    let placed = Corpus::from_env(DOCUMENTS).place(ada.folder())?;
    ada.init(&[relay.url()])?;
    ben.join(&ada.invite()?)?;
    assert_eq!(wait_same(&[&ada, &ben])?, placed, "what arrived is what was there, byte for byte");

    // Edits both ways, while both are online.
    ada.write("shared/plan.md", "one\ntwo\nthree\nfour\nfive\n")?;
    wait_text(&ben, "shared/plan.md", "one\ntwo\nthree\nfour\nfive\n")?;
    ben.write("shared/plan.md", "one\ntwo\nthree\nfour\nfive, says Ben\n")?;
    wait_text(&ada, "shared/plan.md", "one\ntwo\nthree\nfour\nfive, says Ben\n")?;
    wait_settled(&[&ada, &ben])?;

    // The same file, edited by both while neither runs.
    ada.stop()?;
    ben.stop()?;
    ada.write("shared/plan.md", "one, says Ada\ntwo\nthree\nfour\nfive, says Ben\n")?;
    ben.write("shared/plan.md", "one\ntwo\nthree\nfour\nfive, says Ben\nsix\n")?;
    ben.write("shared/ben-only.md", "written offline\n")?;
    ada.revive()?;
    ben.revive()?;
    wait_text(&ada, "shared/plan.md", "one, says Ada\ntwo\nthree\nfour\nfive, says Ben\nsix\n")?;
    wait_text(&ada, "shared/ben-only.md", "written offline\n")?;
    wait_same(&[&ada, &ben])?;

    // Somebody who comes later gets all of it.
    let cleo = stage.agent("cleo")?;
    cleo.join(&ada.invite()?)?;
    let all = wait_same(&[&ada, &ben, &cleo])?;
    assert_eq!(all.len(), placed.len() + 2);
    Ok(())
}

/// Moves and deletes reach the others as moves and deletes; nothing else changes.
#[test]
fn moves_and_deletes_arrive() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    for number in 0..20 {
        ada.write(&format!("old/{number}.md"), format!("document {number}\n"))?;
    }
    wait_text(ben, "old/19.md", "document 19\n")?;
    wait_same(&[ada, ben])?;
    std::fs::rename(ada.folder().join("old/3.md"), ada.folder().join("moved.md"))?;
    std::fs::remove_file(ada.folder().join("old/4.md"))?;
    std::fs::create_dir(ada.folder().join("new"))?;
    std::fs::rename(ada.folder().join("old/5.md"), ada.folder().join("new/5.md"))?;
    wait_text(ben, "new/5.md", "document 5\n")?;
    wait_text(ben, "moved.md", "document 3\n")?;
    let gone = |same: &Snapshot| ["old/3.md", "old/4.md", "old/5.md"].iter().all(|path| !same.contains_key(*path));
    weft_tests::e2e::wait("the old paths to be gone", weft_tests::e2e::LONG, || {
        let same = wait_same(&[ada, ben])?;
        Ok(gone(&same).then_some(()))
    })?;
    Ok(())
}

/// A folder that is renamed on disk is the same folder to everybody: its files keep who they are, and so their history.
#[test]
fn a_renamed_folder_keeps_its_history() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    for number in 0..30 {
        ada.write(&format!("old/deep/{number}.md"), format!("document {number}\n"))?;
    }
    wait_text(ben, "old/deep/29.md", "document 29\n")?;
    wait_same(&[ada, ben])?;
    std::fs::rename(ada.folder().join("old"), ada.folder().join("new"))?;
    wait_text(ben, "new/deep/29.md", "document 29\n")?;
    let same = wait_same(&[ada, ben])?;
    assert_eq!(same.len(), 30);
    let log = ada.run_here(["log", "--json"])?.expect_code(0)?.stdout;
    assert!(log.lines().any(|line| line.contains("\"moved\"") && line.contains("\"new\"")), "no move in\n{log}");
    assert!(!log.lines().any(|line| line.contains("\"deleted\"")), "a deletion in\n{log}");
    Ok(())
}

/// A delete on one side and an edit on the other: the edit stays, on both.
#[test]
fn an_edit_outlives_a_concurrent_delete() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ada.write("keep.md", "first\nsecond\n")?;
    ada.write("other.md", "so that not everything is deleted\n")?;
    wait_text(ben, "other.md", "so that not everything is deleted\n")?;
    wait_text(ben, "keep.md", "first\nsecond\n")?;
    wait_settled(&[ada, ben])?;
    ada.stop()?;
    ben.stop()?;
    std::fs::remove_file(ada.folder().join("keep.md"))?;
    ben.write("keep.md", "first\nsecond\nthird\n")?;
    ada.revive()?;
    ben.revive()?;
    wait_text(ada, "keep.md", "first\nsecond\nthird\n")?;
    let same = wait_same(&[ada, ben])?;
    assert!(same.contains_key("keep.md"));
    Ok(())
}
