//! Kill -9 of everything, at bad moments: nothing acknowledged is lost, and everybody meets again.

use std::io::Write as _;

use anyhow::Result;
use weft_tests::e2e::{Corpus, LONG, Stage, snapshot, wait, wait_same, wait_settled, wait_text};

/// An agent killed in the middle of its import, and one killed in the middle of its download, finish both afterwards.
#[test]
fn an_agent_killed_in_the_middle_goes_on() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (mut ada, mut ben) = (stage.agent("ada")?, stage.agent("ben")?);
    ada.init(&[relay.url()])?;
    ben.join(&ada.invite()?)?;
    wait_settled(&[&ada, &ben])?;

    let placed = Corpus::Made(400).place(ada.folder())?;
    // As soon as it has taken in something, but not everything.
    wait("the import to begin", LONG, || Ok((ada.status()?.number("/files") > 0).then_some(())))?;
    ada.kill()?;
    ada.revive()?;
    wait("the download to begin", LONG, || Ok((!snapshot(ben.folder())?.is_empty()).then_some(())))?;
    ben.kill()?;
    ben.revive()?;
    // Once each again, while both are at it.
    ada.kill()?;
    ada.revive()?;
    assert_eq!(wait_same(&[&ada, &ben])?, placed);
    Ok(())
}

/// What `flush` called done is on the other side, even if this computer dies at that moment and never comes back.
#[test]
fn what_was_flushed_survives_the_computer() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ada.write("will.md", "all to the cat\n")?;
    ada.flush()?;
    ada.kill()?;
    wait_text(ben, "will.md", "all to the cat\n")?;
    Ok(())
}

/// That holds for a large file as well, whose pieces travel apart from the edit that names them.
#[test]
fn a_large_file_that_was_flushed_survives_the_computer() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    // No text, and nothing that compresses away.
    let film: Vec<u8> = (0..1_500_000u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    ada.write("film.bin", &film)?;
    ada.flush()?;
    ada.kill()?;
    wait("the film to be there", LONG, || {
        Ok(std::fs::read(ben.folder().join("film.bin")).is_ok_and(|found| found == film).then_some(()))
    })?;
    Ok(())
}

/// That holds for what no watcher told of yet, because whoever wrote it has the file still open.
#[test]
fn what_is_still_open_is_flushed_too() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let mut team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_mut_slice() else { unreachable!("two were asked for") };
    ada.write("will.md", "all to the cat\n")?;
    wait_same(&[ada, ben])?;
    let mut open = std::fs::OpenOptions::new().append(true).open(ada.folder().join("will.md"))?;
    open.write_all(b"but the dog\n")?;
    ada.flush()?;
    ada.kill()?;
    wait_text(ben, "will.md", "all to the cat\nbut the dog\n")?;
    Ok(())
}

/// A relay that is killed and comes back on the same address loses nobody anything; edits made meanwhile arrive.
#[test]
fn a_killed_relay_loses_nothing() -> Result<()> {
    let stage = Stage::open()?;
    let mut relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.write("a.md", "before\n")?;
    wait_text(ben, "a.md", "before\n")?;

    relay.kill()?;
    ada.write("a.md", "before\nwhile the relay was dead, by Ada\n")?;
    ben.write("b.md", "while the relay was dead, by Ben\n")?;
    relay.restart()?;
    wait_text(ben, "a.md", "before\nwhile the relay was dead, by Ada\n")?;
    wait_text(ada, "b.md", "while the relay was dead, by Ben\n")?;

    // And killed while a burst is under way.
    for number in 0..200 {
        ada.write(&format!("burst/{number}.md"), format!("number {number}\n").repeat(50))?;
    }
    wait("the burst to reach the other side", LONG, || Ok(ben.folder().join("burst").exists().then_some(())))?;
    relay.restart()?;
    wait(
        "the whole burst to arrive",
        LONG,
        || Ok((snapshot(&ben.folder().join("burst"))?.len() == 200).then_some(())),
    )?;
    wait_same(&[ada, ben])?;
    Ok(())
}

/// A relay that is asked to stop says goodbye and ends by itself; the agents come back when it does.
#[test]
fn a_relay_that_restarts_gently_is_found_again() -> Result<()> {
    let stage = Stage::open()?;
    let mut relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    ada.wait_connected(1)?;
    let ended = relay.terminate()?;
    assert!(ended.success(), "ended with {ended}:\n{}", relay.output());
    relay.restart()?;
    ada.write("after.md", "hello again\n")?;
    wait_text(ben, "after.md", "hello again\n")?;
    Ok(())
}
