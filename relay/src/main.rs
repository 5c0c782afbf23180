//! The `weft-relay` binary: flags and environment, logs, signals.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::RangedI64ValueParser;
use clap::{Args as ClapArgs, Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weft_protocol::admission::Audience;
use weft_protocol::id::unhex;
use weft_protocol::limits::JOINED_PEERS_MAX;
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
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Each limit's default and reason is in `weft_protocol::limits`.
#[derive(ClapArgs)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections in all
    #[arg(long, env = "WEFT_RELAY_CONNECTIONS_MAX", value_name = "N", value_parser = at_least(1))]
    connections_max: Option<u32>,
    /// Connections an IPv4 address or IPv6 /64
    #[arg(long, env = "WEFT_RELAY_CONNECTIONS_PER_IP_MAX", value_name = "N", value_parser = at_least(1))]
    connections_per_ip_max: Option<u32>,
    /// Token requests a minute and address
    #[arg(long, env = "WEFT_RELAY_TOKEN_REQUESTS_PER_MINUTE", value_name = "N", value_parser = at_least(1))]
    token_requests_per_minute: Option<u32>,
    /// Peers a room (at most 4096)
    #[arg(long, env = "WEFT_RELAY_ROOM_PEERS_MAX", value_name = "N", value_parser = room_peers())]
    room_peers_max: Option<u32>,
    /// Rooms a connection
    #[arg(long, env = "WEFT_RELAY_ROOMS_PER_CONNECTION_MAX", value_name = "N", value_parser = at_least(1))]
    rooms_per_connection_max: Option<u32>,
    /// Messages a second a connection; twice as many may come at once
    #[arg(long, env = "WEFT_RELAY_MESSAGES_PER_SECOND", value_name = "N", value_parser = at_least(1))]
    messages_per_second: Option<u32>,
    /// Bytes a second a connection; twice as many may come at once
    #[arg(long, env = "WEFT_RELAY_BYTES_PER_SECOND", value_name = "BYTES", value_parser = at_least(1 << 20))]
    bytes_per_second: Option<u32>,
    /// Bytes that may wait for one client; senders are told
    #[arg(long, env = "WEFT_RELAY_QUEUE_BYTES_MAX", value_name = "BYTES", value_parser = at_least(1 << 20))]
    queue_bytes_max: Option<u32>,
    /// Frames that may wait for one client
    #[arg(long, env = "WEFT_RELAY_QUEUE_FRAMES_MAX", value_name = "N", value_parser = at_least(64))]
    queue_frames_max: Option<u32>,
}

fn at_least(least: i64) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..)
}

/// A `Joined` frame lists no more peers than this.
fn room_peers() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=JOINED_PEERS_MAX as i64)
}

impl LimitArgs {
    fn apply(&self, config: &mut Config) {
        let set = |to: &mut usize, from: Option<u32>| {
            if let Some(from) = from {
                *to = from as usize;
            }
        };
        set(&mut config.connections_max, self.connections_max);
        set(&mut config.connections_per_ip_max, self.connections_per_ip_max);
        let settings = &mut config.settings;
        set(&mut settings.room_peers_max, self.room_peers_max);
        set(&mut settings.rooms_per_connection_max, self.rooms_per_connection_max);
        set(&mut settings.queue_bytes_max, self.queue_bytes_max);
        set(&mut settings.queue_frames_max, self.queue_frames_max);
        if let Some(rate) = self.messages_per_second {
            (settings.messages_per_second, settings.messages_burst) = (rate, rate.saturating_mul(2));
        }
        if let Some(rate) = self.bytes_per_second {
            (settings.bytes_per_second, settings.bytes_burst) = (rate, rate.saturating_mul(2));
        }
        if let Some(rate) = self.token_requests_per_minute {
            config.token_requests_per_minute = rate;
        }
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    let mut config = Config { listen: args.listen, admin_listen: args.admin_listen, ..Config::default() };
    args.limits.apply(&mut config);
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
