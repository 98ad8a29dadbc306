//! larder-installer: reads the settings, starts what was asked for, and turns the outcome into an exit code. Everything
//! that touches certs.d is in the library.

mod watch;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use larder_installer::{PrepareError, Uninstalled};
use larder_wire::settings::{LogFormat, LogSettings, Mistake, Settings, parse};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Bad command line or settings.
const USAGE: u8 = 64;
/// Something broke: a file, the runtime, a part of our own.
const BROKEN: u8 = 70;
/// A `run` holds the lock.
const IN_USE: u8 = 75;
/// A directory that is not to be given to the agent.
const REFUSED: u8 = 77;

/// Adds Larder's entries to containerd's certs.d and takes them out again.
#[derive(Parser)]
#[command(name = "larder-installer", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep certs.d as the settings say; SIGTERM takes our entries out and ends it.
    Run(Config),
    /// Print REGISTRY, STATE and REASON, a line a registry.
    Status(Config),
    /// Take everything of ours out of certs.d.
    Uninstall(Config),
    /// Make data_dir and run_dir the agent's (uid 19500), before it starts; needs CAP_CHOWN.
    Prepare(Config),
}

#[derive(clap::Args)]
struct Config {
    /// The agent's settings file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nowhere to tell it when the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let (Command::Run(config)
    | Command::Status(config)
    | Command::Uninstall(config)
    | Command::Prepare(config)) = &arguments.command;
    let settings = match load(&config.config) {
        Ok((settings, told)) => {
            told.iter().for_each(|line| tell(line));
            settings
        }
        Err(unusable) => {
            unusable.lines.iter().for_each(|line| tell(line));
            if let (Command::Run(_), Some(settings)) = (&arguments.command, unusable.settings) {
                take_out(&settings);
            }
            return ExitCode::from(USAGE);
        }
    };
    let ended = match arguments.command {
        Command::Run(config) => run(&config.config, settings),
        Command::Status(_) => status(&settings),
        Command::Uninstall(_) => uninstall(&settings),
        Command::Prepare(_) => prepare(&settings),
    };
    ended.unwrap_or_else(|error| {
        tell(&format!("larder-installer: {error:#}"));
        ExitCode::from(BROKEN)
    })
}

/// Everything that is wrong with a settings file, a line each.
struct Unusable {
    lines: Vec<String>,
    /// What it says all the same about where our entries may lie.
    settings: Option<Box<Settings>>,
}

/// Reads the settings, with what is wrong but does not spoil them, a line each.
fn load(path: &Path) -> Result<(Settings, Vec<String>), Unusable> {
    let text = larder_installer::read_settings(path)
        .map_err(|error| Unusable { lines: vec![format!("{}: {error}", path.display())], settings: None })?;
    let parsed = parse(&text);
    let line = |mistake: &Mistake| format!("{}:{}: {}", path.display(), mistake.line, mistake.what);
    let lines = parsed.mistakes.iter().chain(&parsed.unknown).map(line).collect();
    if parsed.is_usable() {
        return Ok((parsed.settings, lines));
    }
    let settings = larder_installer::names_certs_dir(&parsed).then(|| Box::new(parsed.settings));
    Err(Unusable { lines, settings })
}

/// Nobody will take care of entries that an earlier run left.
fn take_out(settings: &Settings) {
    match larder_installer::take_out_left_over(settings) {
        Ok(left) => left.iter().for_each(|(path, why)| tell(&format!("{}: {why}", path.display()))),
        Err(error) => tell(&format!("cannot take out what an earlier run left: {error}")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: &Path, settings: Settings) -> anyhow::Result<ExitCode> {
    start_log(&settings.log);
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt, hangup) = (
        signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
        signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?,
    );
    let ended = stop.clone();
    let (sender, receiver) = tokio::sync::watch::channel(settings);
    let installer = larder_installer::run(receiver, stop);
    let watching = watch::follow(config, sender, hangup);
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ended.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = installer => done?,
        () = watching => {}
        () = signalled => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn status(settings: &Settings) -> anyhow::Result<ExitCode> {
    let all = larder_installer::status(settings, &mut io::stdout().lock(), &mut io::stderr().lock())?;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn uninstall(settings: &Settings) -> anyhow::Result<ExitCode> {
    Ok(match larder_installer::uninstall(settings)? {
        Uninstalled::Clean => ExitCode::SUCCESS,
        Uninstalled::Running => {
            tell(&format!(
                "an installer runs on this node (it holds {}/installer.lock); stop it first",
                settings.run_dir.display()
            ));
            ExitCode::from(IN_USE)
        }
        Uninstalled::Left(left) => {
            for (path, why) in left {
                writeln!(io::stdout(), "{}\t{why}", path.display())?;
            }
            ExitCode::FAILURE
        }
    })
}

fn prepare(settings: &Settings) -> anyhow::Result<ExitCode> {
    match larder_installer::prepare(settings) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ PrepareError::Refused { .. }) => {
            tell(&format!("larder-installer: {error}"));
            Ok(ExitCode::from(REFUSED))
        }
        Err(error) => Err(error.into()),
    }
}

fn start_log(log: &LogSettings) {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level).unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}

/// To the terminal, before there is a log.
fn tell(text: &str) {
    // Nowhere to tell it when the terminal is gone.
    let _ = writeln!(io::stderr(), "{text}");
}
