//! First sync of many files, A's folder to B's folder: time, memory of both agents, and what is stored.
//!
//! The clock starts when the second person joins a workspace whose files the first has already taken in, and again, apart, from
//! the first file's import to the last file's arrival with both already there.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use weft_tests::bench::{Cost, files_kib};
use weft_tests::e2e::{Agent, Corpus, Stage, rss_peak_kib, snapshot, wait};

#[derive(Parser)]
#[command(about = "First sync of many files: time, memory, stored size")]
struct Arguments {
    /// How many files.
    #[arg(long, default_value_t = 10_000)]
    files: usize,
    /// Size of each, in bytes.
    #[arg(long, default_value_t = 2_000)]
    bytes: usize,
    /// Use the folder named by WEFT_CORPUS instead.
    #[arg(long)]
    corpus: bool,
}

fn fill(folder: &Path, arguments: &Arguments) -> Result<()> {
    if arguments.corpus {
        Corpus::from_env(arguments.files).place(folder)?;
        return Ok(());
    }
    for number in 0..arguments.files {
        let parent = folder.join(format!("part-{}", number / 100));
        std::fs::create_dir_all(&parent).context("a folder")?;
        let mut text = format!("# Document {number}\n\n");
        let mut line = 0;
        while text.len() < arguments.bytes {
            // Words that differ from file to file, so that nothing shrinks by being repeated.
            let hash = blake3::hash(format!("{number} {line}").as_bytes()).to_hex();
            text.push_str(&format!("Line {line} of {number} says {hash}.\n"));
            line += 1;
        }
        text.truncate(arguments.bytes);
        std::fs::write(parent.join(format!("{number}.md")), text).context("a file")?;
    }
    Ok(())
}

/// Until `agent` holds `files` files and is settled.
fn wait_files(agent: &Agent, files: usize) -> Result<()> {
    wait("all files", Duration::from_secs(1800), || {
        if snapshot(agent.folder())?.len() < files {
            return Ok(None);
        }
        Ok(agent.not_settled()?.is_none().then_some(()))
    })
    .with_context(|| agent.report())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let (ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    let source = stage.root().join("source");
    std::fs::create_dir(&source).context("a folder")?;
    fill(&source, &arguments)?;
    let files = snapshot(&source)?.len();

    // Both are there; the files appear in A's folder by one rename.
    ada.init(&[relay.url()])?;
    ben.join(&ada.invite()?)?;
    wait_files(&ben, 0)?;
    let started = Instant::now();
    std::fs::rename(&source, ada.folder().join("all")).context("the files cannot be moved in")?;
    wait_files(&ben, files)?;
    println!("{files} files, both there: import on A to settled on B {:.2} s", started.elapsed().as_secs_f64());

    // Somebody who comes when all is there.
    let cleo = stage.agent("cleo")?;
    let link = ada.invite()?;
    let started = Instant::now();
    cleo.join(&link)?;
    wait_files(&cleo, files)?;
    println!("{files} files, a newcomer: join to settled {:.2} s", started.elapsed().as_secs_f64());

    let raw_kib = files_kib(ada.folder(), "");
    for agent in [&ada, &ben, &cleo] {
        let pid = agent.pid().context("the agent is gone")?;
        let cost = Cost::of(pid)?;
        let status = agent.status()?;
        println!(
            "{}: {:.1} MB now, {:.1} MB at most, {:.1} s of CPU; stored {:.1} MB for {:.1} MB of files ({:.2}), documents {:.1} MB",
            agent.name(),
            cost.rss_kib as f64 / 1024.0,
            rss_peak_kib(pid).unwrap_or(0) as f64 / 1024.0,
            cost.cpu_s,
            files_kib(agent.home(), "") as f64 / 1024.0,
            raw_kib as f64 / 1024.0,
            files_kib(agent.home(), "") as f64 / raw_kib.max(1) as f64,
            status.number("/document_bytes") as f64 / 1e6,
        );
    }
    Ok(())
}
