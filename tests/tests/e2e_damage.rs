//! Damaged databases, with the real programs: a sweep over every table, and `weft repair`.
//!
//! Property: any one value of the store that is damaged, cut short or gone costs no file on any disk, is named in `weft
//! status`, and the devices are equal again once they have met.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OptionalExtension, params};
use weft_tests::e2e::{Agent, LONG, Snapshot, Stage, snapshot, wait, wait_same, wait_settled};

const TABLES: [&str; 14] = [
    "meta",
    "ops",
    "epochs",
    "envelopes",
    "held",
    "outbox",
    "versions",
    "documents",
    "waiting",
    "files",
    "pieces",
    "log",
    "invites",
    "peers",
];

/// How a value is spoiled.
#[derive(Debug, Clone, Copy)]
enum How {
    Flipped,
    CutShort,
    Gone,
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { (path.file_name()? == name).then_some(path) }
    })
}

fn database(agent: &Agent) -> Result<PathBuf> {
    find(agent.home(), "replica.db").context("no database")
}

/// Spoils the largest value of a table; `false`: it has none.
fn spoil(database: &Path, table: &str, how: How) -> Result<bool> {
    let db = Connection::open(database)?;
    let query = format!("SELECT key, value FROM {table} ORDER BY length(value) DESC, key LIMIT 1");
    let row: Option<(Vec<u8>, Vec<u8>)> = db.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((key, mut value)) = row else { return Ok(false) };
    match how {
        How::Gone => {
            db.execute(&format!("DELETE FROM {table} WHERE key = ?1"), params![key])?;
            return Ok(true);
        }
        How::CutShort => value.truncate(value.len() / 2),
        How::Flipped => {
            let middle = value.len() / 2;
            match value.get_mut(middle) {
                Some(byte) => *byte ^= 0xff,
                None => value.push(1),
            }
        }
    }
    db.execute(&format!("UPDATE {table} SET value = ?1 WHERE key = ?2"), params![value, key])?;
    Ok(true)
}

fn problems(agent: &Agent) -> Result<String> {
    Ok(agent.status()?.0.get("problems").map(ToString::to_string).unwrap_or_default())
}

/// Every file that was there is there, with what was in it.
fn nothing_left(agent: &Agent, before: &Snapshot) -> Result<()> {
    let now = snapshot(agent.folder())?;
    let gone: Vec<_> = before.keys().filter(|path| !now.contains_key(*path)).collect();
    ensure!(gone.is_empty(), "{gone:?} left the disk of {}", agent.name());
    Ok(())
}

fn sweep(how: How) -> Result<()> {
    let stage = Stage::open()?;
    let mut relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, mut ben]: [Agent; 2] = team.try_into().map_err(|_| anyhow::anyhow!("two agents"))?;
    for number in 0..12 {
        ada.write(&format!("d{}/n{number}.md", number % 3), format!("# {number}\none\ntwo\n"))?;
        ben.write(&format!("ben/n{number}.md"), format!("# ben {number}\none\ntwo\n"))?;
    }
    ada.write("large.bin", vec![7; 400 * 1024])?;
    ada.run_here(["members", "role", "ben", "admin"])?.expect_code(0)?;
    wait_settled(&[&ada, &ben])?;
    ben.invite()?;
    wait_settled(&[&ada, &ben])?;
    for number in 0..12 {
        ben.write(&format!("d{}/n{number}.md", number % 3), format!("# {number}\none\ntwo\nthree\n"))?;
    }
    wait_settled(&[&ada, &ben])?;
    for table in TABLES {
        if table == "outbox" {
            relay.kill()?;
            ben.write("ben/unsent.md", "unsent\n")?;
            ben.write("ben/n1.md", "# ben 1\none\ntwo\nunsent\n")?;
            let waits = || Ok((ben.status()?.number("/pending/send") > 0).then_some(()));
            wait("edits that wait", LONG, waits)?;
        }
        ben.stop()?;
        let before = snapshot(ben.folder())?;
        let spoilt = spoil(&database(&ben)?, table, how).with_context(|| format!("{table} {how:?}"))?;
        ensure!(spoilt || table == "waiting", "nothing in {table}");
        ben.revive()?;
        if table == "outbox" {
            relay.restart()?;
        }
        if spoilt {
            let named =
                || Ok(problems(&ben)?).map(|said| (said.contains("damaged") && said.contains(table)).then_some(()));
            wait(&format!("status that names {table}, {how:?}"), LONG, named)?;
        }
        nothing_left(&ben, &before).with_context(|| format!("{table} {how:?}"))?;
        wait_settled(&[&ada, &ben]).with_context(|| format!("{table} {how:?}"))?;
        nothing_left(&ben, &before).with_context(|| format!("{table} {how:?}"))?;
        let same = wait_same(&[&ada, &ben]).with_context(|| format!("{table} {how:?}"))?;
        ensure!(same.keys().all(|path| !path.contains(" (2")), "copies after {table} {how:?}: {:?}", same.keys());
    }
    ensure!(ada.read("ben/unsent.md")? == "unsent\n" && ada.read("ben/n1.md")?.ends_with("two\nunsent\n"));
    Ok(())
}

#[test]
fn a_flipped_byte_in_any_table_loses_nothing() -> Result<()> {
    sweep(How::Flipped)
}

#[test]
fn a_value_cut_short_in_any_table_loses_nothing() -> Result<()> {
    sweep(How::CutShort)
}

#[test]
fn a_row_gone_from_any_table_loses_nothing() -> Result<()> {
    sweep(How::Gone)
}

/// A database that cannot be read: the message names `weft repair`, and after it both sides' edits are everywhere, without
/// a second copy of anything; the damaged file is kept.
fn repaired(spoil: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, mut ben]: [Agent; 2] = team.try_into().map_err(|_| anyhow::anyhow!("two agents"))?;
    let text = |number: usize| {
        format!("# {number}\n{}", (0..20).map(|line| format!("line {line} of {number}\n")).collect::<String>())
    };
    for number in 0..30 {
        ada.write(&format!("d{}/n{number}.md", number % 4), text(number))?;
    }
    wait_settled(&[&ada, &ben])?;
    ben.stop()?;
    let database = database(&ben)?;
    for number in 0..8 {
        ben.write(&format!("d{}/n{number}.md", number % 4), text(number) + "by ben\n")?;
        ada.write(&format!("d{}/n{number}.md", number % 4), text(number) + "by ada\n")?;
    }
    ben.write("only.md", "only ben\n")?;
    spoil(&database)?;
    ben.revive()?;
    let said = || {
        let said = problems(&ben)?;
        Ok(said.contains("damaged").then_some(said))
    };
    let said = wait("status that says so", LONG, said)?;
    if said.contains("weft repair") {
        let done = ben.run_here(["repair", "--yes"])?.expect_code(0)?;
        ensure!(done.stdout.contains("is kept as"), "{done:?}");
        ensure!(find(ben.home(), "replica-damaged-1.db").is_some(), "the damaged file is gone");
    }
    wait_settled(&[&ada, &ben])?;
    let same = wait_same(&[&ada, &ben])?;
    ensure!(same.keys().all(|path| !path.contains(" (2")), "copies: {:?}", same.keys());
    for number in 0..8 {
        let merged = ada.read(&format!("d{}/n{number}.md", number % 4))?;
        let once = |text: &str| merged.matches(text).count() == 1;
        ensure!(once("by ben\n") && once("by ada\n") && once(&format!("line 19 of {number}\n")), "{merged}");
    }
    ensure!(ada.read("only.md")? == "only ben\n");
    Ok(())
}

#[test]
fn an_emptied_database_is_repaired() -> Result<()> {
    repaired(|database| Ok(std::fs::write(database, b"")?))
}

#[test]
fn a_truncated_database_is_repaired() -> Result<()> {
    repaired(|database| {
        let file = std::fs::OpenOptions::new().write(true).open(database)?;
        let len = file.metadata()?.len();
        Ok(file.set_len(len / 2)?)
    })
}

#[test]
fn a_database_with_a_page_of_garbage_is_repaired() -> Result<()> {
    repaired(|database| {
        let mut bytes = std::fs::read(database)?;
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(4096).for_each(|byte| *byte ^= 0x5a);
        Ok(std::fs::write(database, bytes)?)
    })
}
