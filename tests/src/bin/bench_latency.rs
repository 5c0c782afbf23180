//! Save on A -> the file on B: a distribution, through a real relay with real agents on this machine.
//!
//! One text of `--bytes` is edited (one line, in the middle) and saved `--saves` times by atomic rename; the time ends when
//! the other folder holds exactly the new text. Warm-up saves are not counted.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use weft_tests::bench::Figures;
use weft_tests::e2e::{Agent, Editor, Stage, wait_same};

#[derive(Parser)]
#[command(about = "Save on A -> the file on B, through a relay, with real agents")]
struct Arguments {
    /// How many saves are measured.
    #[arg(long, default_value_t = 200)]
    saves: u32,
    /// Size of the text, in bytes.
    #[arg(long, default_value_t = 10_000)]
    bytes: usize,
    /// Agents besides the one that saves; the time ends when the last of them holds the text.
    #[arg(long, default_value_t = 1)]
    receivers: usize,
    /// Pause between two saves, in milliseconds: people do not save back to back.
    #[arg(long, default_value_t = 50)]
    pause_ms: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.receivers > 0, "somebody must receive");
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let names: Vec<String> = (0..=arguments.receivers).map(|number| format!("p{number}")).collect();
    let team = stage.team(&relay, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let Some((writer, readers)) = team.split_first() else { bail!("no team") };
    let lines = arguments.bytes.div_ceil(80).max(1);
    let text = |save: u32| -> String {
        (0..lines)
            .map(|line| {
                let word = if line == lines / 2 { format!("save {save:08}") } else { format!("line {line:08}") };
                format!("{word:<79}\n")
            })
            .collect()
    };
    writer.write("text.md", text(0))?;
    wait_same(&team.iter().collect::<Vec<_>>())?;
    let mut figures = Figures::new()?;
    for save in 1..=arguments.saves + 20 {
        let text = text(save);
        std::thread::sleep(Duration::from_millis(arguments.pause_ms));
        let started = Instant::now();
        Editor::AtomicRename.save(&writer.folder().join("text.md"), &text)?;
        for reader in readers {
            wait_for(reader, &text, started)?;
        }
        if save > 20 {
            figures.record(started.elapsed());
        }
    }
    println!("save {} bytes -> {} other folder(s): {}", lines * 80, arguments.receivers, figures.line());
    Ok(())
}

/// Looks every 200 µs: that is the resolution of the figures.
fn wait_for(reader: &Agent, text: &str, started: Instant) -> Result<()> {
    let path = reader.folder().join("text.md");
    while !std::fs::read(&path).is_ok_and(|bytes| bytes == text.as_bytes()) {
        ensure!(started.elapsed() < Duration::from_secs(60), "it never came:\n{}", reader.report());
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
