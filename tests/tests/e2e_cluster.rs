//! Three relays behind a load balancer with a real NATS between them: ten people write while parts of it die.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::e2e::{Agent, Balancer, LONG, Nats, Relay, Stage, snapshot, wait, wait_same_within};

const PEOPLE: usize = 10;
/// Ten agents, three relays and a NATS on two cores that other tests share.
const PATIENT: Duration = Duration::from_secs(240);

fn line(agent: &Agent, round: usize) -> String {
    format!("- round {round} by {}\n", agent.name())
}

/// Everybody writes a file of their own and appends a line to one that all share; notes what was written, by path.
fn everybody_writes(team: &[Agent], round: usize, written: &mut BTreeMap<String, String>) -> Result<()> {
    for agent in team {
        let path = format!("{}/{round}.md", agent.name());
        let text = format!("{} in round {round}\n", agent.name());
        agent.write(&path, &text)?;
        written.insert(path, text);
        // Appended, as a log is: who writes the whole file anew may write what they read a moment ago.
        let mut shared = OpenOptions::new().append(true).open(agent.folder().join("shared.md"))?;
        shared.write_all(line(agent, round).as_bytes())?;
    }
    Ok(())
}

/// Waits until everybody has every file of a round, and every line of it.
fn round_is_everywhere(team: &[Agent], round: usize) -> Result<()> {
    let mut last = String::new();
    let outcome = wait("a round to be everywhere", PATIENT, || {
        for agent in team {
            let here = snapshot(agent.folder())?;
            let shared = agent.read("shared.md")?;
            for writer in team {
                let file = format!("{}/{round}.md", writer.name());
                if !here.contains_key(&file) || !shared.contains(&line(writer, round)) {
                    last = format!("{} lacks what {} wrote in round {round}", agent.name(), writer.name());
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    });
    outcome.with_context(|| {
        let reports: Vec<String> =
            team.iter().map(|agent| format!("--- {}\n{}", agent.name(), agent.report())).collect();
        format!("last seen: {last}\n{}", reports.join("\n"))
    })
}

/// Ten agents over three relays edit together. A relay is killed, then NATS, then both come back; people go on writing all
/// the while. In the end all ten folders are identical, and every edit is in them.
#[test]
fn relays_and_nats_die_and_nothing_is_lost() -> Result<()> {
    let stage = Stage::open()?;
    let mut nats = Nats::start(&stage.root().join("nats.log"))?;
    let balancer = Balancer::listen()?;
    let flags: Vec<String> = [
        "--nats",
        &nats.url(),
        "--public-url",
        &balancer.url(),
        "--token-key",
        &"5c".repeat(32),
        // All ten and their proxy are one address.
        "--token-requests-per-minute",
        "6000",
    ]
    .map(str::to_owned)
    .into();
    let mut relays = Vec::new();
    for number in 0..3 {
        relays.push(Relay::start(&stage.root().join(format!("relay{number}.log")), 0, &flags)?);
    }
    balancer.spread_over(relays.iter().map(Relay::address))?;

    let first = stage.agent("person0")?;
    first.write("shared.md", "What everybody did:\n")?;
    first.init(&[&balancer.url()])?;
    let mut team = vec![first];
    for number in 1..PEOPLE {
        let agent = stage.agent(&format!("person{number}"))?;
        let inviter = team.first().context("nobody invites")?;
        agent.join(&inviter.invite()?)?;
        team.push(agent);
    }
    let everybody: Vec<&Agent> = team.iter().collect();
    wait_same_within(&everybody, PATIENT)?;
    // All see all, wherever they are connected, and they are not all at one place.
    for agent in &team {
        agent.wait_connected(PEOPLE - 1)?;
    }

    let mut written = BTreeMap::new();
    everybody_writes(&team, 0, &mut written)?;
    round_is_everywhere(&team, 0)?;

    // A relay dies: those who were there come back elsewhere.
    let mut relays = relays.into_iter();
    let (mut dies, stays, also) = (relays.next(), relays.next(), relays.next());
    let dying = dies.as_mut().context("no relay")?;
    dying.kill()?;
    everybody_writes(&team, 1, &mut written)?;
    round_is_everywhere(&team, 1)?;

    // NATS dies too: each relay that is left goes on alone. People at the same one hear each other; nobody fails.
    nats.kill()?;
    everybody_writes(&team, 2, &mut written)?;
    for agent in &team {
        let name = agent.name();
        wait("local edits to be taken in", LONG, || Ok((agent.status()?.number("/pending/read") == 0).then_some(())))
            .with_context(|| format!("{name} stands still without NATS"))?;
    }

    // Both come back.
    dying.restart()?;
    nats.restart()?;
    everybody_writes(&team, 3, &mut written)?;
    for round in 0..4 {
        round_is_everywhere(&team, round)?;
    }
    let all = wait_same_within(&everybody, PATIENT)?;
    ensure!(all.len() == written.len() + 1, "{} files instead of {}", all.len(), written.len() + 1);
    for agent in &team {
        for (path, text) in &written {
            ensure!(agent.read(path)? == *text, "{path} of {} is not what was written", agent.name());
        }
    }
    // It is a test of relays only if they carried it: each has seen connections.
    for relay in [&dies, &stays, &also].into_iter().flatten() {
        ensure!(!relay.output().contains("panicked"), "{}", relay.output());
    }
    Ok(())
}
