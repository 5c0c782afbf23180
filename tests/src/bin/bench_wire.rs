//! Bytes on the wire per change, counted by a proxy between two agents and a real relay.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use anyhow::{Result, bail};
use clap::Parser;
use weft_tests::e2e::{Proxy, Relay, Stage, wait_same, wait_text};

#[derive(Parser)]
#[command(about = "Bytes on the wire per change")]
struct Arguments {
    /// How many edits are counted.
    #[arg(long, default_value_t = 50)]
    edits: u32,
    /// Size of the text, in bytes.
    #[arg(long, default_value_t = 10_000)]
    bytes: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stage = Stage::open()?;
    // A's traffic only: B dials the relay itself.
    let proxy = Proxy::listen()?;
    let flags = ["--public-url".to_owned(), proxy.url()];
    let relay = Relay::start(&stage.root().join("relay.log"), 0, &flags)?;
    proxy.connect_to(relay.address());
    let url = proxy.url();
    let (ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    ada.init(&[&url])?;
    ben.join(&ada.invite()?)?;
    let base = "a line of sixty-three characters, which is about what people do\n".repeat(arguments.bytes.div_ceil(64));
    ada.write("text.md", &base)?;
    wait_text(&ben, "text.md", &base)?;
    wait_same(&[&ada, &ben])?;

    let (up, down) = proxy.totals();
    let mut text = base;
    for edit in 0..arguments.edits {
        text.push_str(&format!("edit number {edit}, one line of text\n"));
        ada.write("text.md", &text)?;
        wait_text(&ben, "text.md", &text)?;
    }
    wait_same(&[&ada, &ben])?;
    let (up_after, down_after) = proxy.totals();
    if arguments.edits == 0 {
        bail!("nothing to count");
    }
    // Both agents pass the proxy: what A sends up comes down to B.
    println!(
        "{} one-line edits of a text of {} bytes, two agents: {:.0} bytes up and {:.0} bytes down per edit, everything counted \
         (envelopes, beacons, receipts, WebSocket frames)",
        arguments.edits,
        arguments.bytes,
        (up_after - up) as f64 / f64::from(arguments.edits),
        (down_after - down) as f64 / f64::from(arguments.edits),
    );
    Ok(())
}
