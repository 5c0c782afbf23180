//! The `weft-relay` binary: options, logs, signals.
//!
//! Invariant: nothing that is printed or logged here holds a value of the configuration, for it may be a secret: help hides
//! what the environment holds, and an error names the key and the place.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};
use weft_relay::options::{LogFormat, Options, OptionsError};
#[cfg(feature = "opentelemetry")]
use weft_relay::telemetry::Telemetry;
use weft_relay::{Config, Reloader, Server, health, learn};

/// Forwards sealed bytes between the peers of a room; keeps nothing, and cannot read what passes.
#[derive(Parser)]
#[command(name = "weft-relay", version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// TOML file with the options below, their dashes as underscores; environment and flags go before it
    #[arg(long, env = "WEFT_RELAY_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print all options as they are in force, secrets hidden, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is wrong with the configuration, and where, or that nothing is
    CheckConfig,
    /// Say what a relay can and cannot learn
    Learn,
    /// Ask the relay that runs with this configuration whether it is ready
    Health,
}

/// Whether a variable is there and holds nothing, as compose files and charts set what was left out: it counts as not set.
fn is_empty(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// The command as the struct says, and of every option: help shows its default, and never what the environment holds.
fn command() -> clap::Command {
    let defaults = Options::defaults().texts();
    Args::command().mut_args(|arg| {
        let arg = arg.hide_env_values(true);
        let arg = if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg };
        let default = defaults.iter().find(|(key, _)| *key == arg.get_id().as_str()).map(|(_, value)| value);
        match (default, arg.get_help().map(ToString::to_string)) {
            (Some(default), Some(help)) => arg.help(format!("{help} [default: {default}]")),
            _ => arg,
        }
    })
}

/// What was said on the command line and in the environment; ends the process if it cannot be understood.
fn parse() -> Args {
    let parsed = command().try_get_matches().and_then(|matches| Args::from_arg_matches(&matches));
    parsed.unwrap_or_else(|mut error| {
        if error.get(ContextKind::InvalidValue).is_some() {
            error.insert(ContextKind::InvalidValue, ContextValue::String("(hidden)".to_owned()));
        }
        error.exit()
    })
}

/// An error and what caused it, each text once: some say their cause themselves.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(|cause: &(dyn Error + 'static)| cause.to_string()).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

/// Where the file sets the key that an error is about.
fn at(file: Option<&Path>, key: &str) -> String {
    let line = file.and_then(|path| Some((path, Options::line_of(path, key)?)));
    line.map(|(path, line)| format!("{}: line {line}: ", path.display())).unwrap_or_default()
}

impl Args {
    /// The configuration that these make together with the file.
    fn to_config(&self, options: &Options) -> anyhow::Result<Config> {
        options.to_config().map_err(|error| {
            let key = if let OptionsError::Conflict { key, .. } = &error { key } else { "" };
            anyhow::anyhow!("{}{error}", at(self.config.as_deref(), key))
        })
    }

    /// What was said, wherever.
    fn options(&self) -> anyhow::Result<Options> {
        let file = self.config.as_deref().map(Options::from_file).transpose()?.unwrap_or_default();
        Ok(self.options.clone().or(file))
    }
}

fn main() -> ExitCode {
    match run(parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-relay: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    if matches!(args.command, Some(Command::Learn)) {
        say(learn::text().trim_end());
        return Ok(());
    }
    let options = args.options()?;
    if args.print_config {
        say(options.or(Options::defaults()).print().trim_end());
        return Ok(());
    }
    let config = args.to_config(&options)?;
    match args.command {
        Some(Command::CheckConfig) => check(config),
        Some(Command::Health) => {
            let (address, tls) =
                config.admin_listen.map_or((config.listen, config.tls.is_some()), |addr| (addr, false));
            let address = health::address(address);
            health::check(address, tls).with_context(|| format!("{address} is not healthy"))
        }
        Some(Command::Learn) | None => {
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours());
            let logs = match options.log_format.unwrap_or(LogFormat::Text) {
                LogFormat::Text => logs.boxed(),
                LogFormat::Json => logs.json().boxed(),
            };
            // Below that, libraries tell what passes through them: addresses, passwords of NATS, frames.
            let plain = filter_fn(|about| *about.level() <= Level::INFO || about.target().starts_with("weft"));
            let registry = tracing_subscriber::registry().with(filter).with(plain).with(logs);
            #[cfg(feature = "opentelemetry")]
            let telemetry = {
                let endpoint = options.otlp_endpoint.as_ref().map(|url| Telemetry::new(&url.0));
                let telemetry = endpoint.transpose().context("otlp_endpoint")?;
                registry.with(telemetry.as_ref().map(Telemetry::layer)).init();
                telemetry
            };
            #[cfg(not(feature = "opentelemetry"))]
            registry.init();
            warn_of_unknown_variables();
            let served = runtime()?.block_on(serve(config, args));
            #[cfg(feature = "opentelemetry")]
            telemetry.into_iter().for_each(Telemetry::stop);
            served
        }
    }
}

/// Colours are for people at a terminal (<https://no-color.org>); in a file or a journal they are noise.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Reads every file that a start would read, and binds nothing that is in use.
fn check(mut config: Config) -> anyhow::Result<()> {
    config.warnings(true).iter().for_each(|warning| eprintln!("weft-relay: warning: {warning}"));
    config.listen.set_port(0);
    config.admin_listen = None;
    runtime()?.block_on(Server::bind(config))?;
    say("the configuration is good");
    Ok(())
}

/// Kubernetes puts variables of its own beside ours (`WEFT_RELAY_SERVICE_HOST`), so they cannot be errors.
fn warn_of_unknown_variables() {
    let command = command();
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("WEFT_RELAY_"));
        if ours && !is_empty(&name) && !known.contains(&name.as_os_str()) {
            tracing::warn!(?name, "an environment variable that is no option was ignored");
        }
    }
}

async fn serve(config: Config, args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hang_up = signal(SignalKind::hangup())?;
    config.warnings(false).iter().for_each(|warning| tracing::warn!("{warning}"));
    let server = Server::bind(config.clone()).await?;
    let scheme = if config.tls.is_some() { "wss" } else { "ws" };
    say(&format!("weft-relay listening on {scheme}://{}", server.local_addr()));
    if let Some(admin) = server.admin_addr() {
        say(&format!("weft-relay admin on http://{admin}"));
    }
    let reloading = tokio::spawn(reload(hang_up, server.reloader(), args));
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("second signal: ending at once");
            std::process::exit(130);
        });
    };
    server.run(shutdown).await;
    reloading.abort();
    Ok(())
}

/// At each SIGHUP takes what may change while running. What cannot be taken leaves everything as it was.
async fn reload(mut hang_up: Signal, reloader: Reloader, args: Args) {
    while hang_up.recv().await.is_some() {
        let config = args.options().and_then(|options| args.to_config(&options));
        if let Ok(config) = &config {
            config.warnings(false).iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        match config.and_then(|config| Ok(reloader.reload(&config)?)) {
            Ok(()) => tracing::info!("configuration read again; addresses and limits change at a restart only"),
            Err(error) => tracing::error!("the configuration was not taken: {}", told(&error)),
        }
    }
}

/// Programs that start a relay on port 0 read these lines. A closed standard output is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
