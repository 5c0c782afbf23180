//! The `weft-relay` binary: flags and environment, logs, signals.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weft_protocol::admission::Audience;
use weft_protocol::id::unhex;
use weft_relay::{Config, Server};

/// Forwards sealed bytes between the peers of a room; keeps nothing, and cannot read what passes.
#[derive(Parser)]
#[command(name = "weft-relay", version)]
struct Args {
    /// Where to listen; port 0 binds a free one
    #[arg(long, env = "WEFT_RELAY_LISTEN", default_value = "0.0.0.0:7017", value_name = "ADDR")]
    listen: SocketAddr,
    /// Where to serve health and figures apart from the public port
    #[arg(long, env = "WEFT_RELAY_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// The URL that clients dial (ws:// or wss://), as often as there are; without one: loopback names and own addresses
    #[arg(long = "public-url", env = "WEFT_RELAY_PUBLIC_URL", value_delimiter = ',', value_name = "URL")]
    public_urls: Vec<String>,
    /// Keys of relay tokens, 64 hexadecimal digits each; the first signs, all verify; drawn afresh if not given
    #[arg(
        long = "token-key",
        env = "WEFT_RELAY_TOKEN_KEYS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "HEX"
    )]
    token_keys: Vec<String>,
    /// How logs are written, to standard error; RUST_LOG chooses what
    #[arg(long, env = "WEFT_RELAY_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    let mut config = Config { listen: args.listen, admin_listen: args.admin_listen, ..Config::default() };
    for url in &args.public_urls {
        let audience = Audience::from_url(url).with_context(|| format!("--public-url {url}"))?;
        config.audiences.push(audience);
    }
    for key in &args.token_keys {
        config.token_keys.push(unhex(key.trim()).context("--token-key: 64 hexadecimal digits each")?);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::bind(config).await?;
    say(&format!("weft-relay listening on ws://{}", server.local_addr()));
    if let Some(admin) = server.admin_addr() {
        say(&format!("weft-relay admin on http://{admin}"));
    }
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("second signal: ending at once");
            std::process::exit(130);
        });
    };
    server.run(shutdown).await;
    Ok(())
}

/// Programs that start a relay on port 0 read these lines. A closed standard output is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
