//! `larder-agent`: one per node. Reads the command line, and turns an ending into the exit code of the contract.
//! Must not decide anything else: `run` is the life of the agent, `config` reads its settings.

mod admin;
mod config;
mod installer;
mod log;
mod metrics;
mod reload;
mod replace;
mod report;
mod run;
mod run_dir;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};

/// A pull-through cache for the containerd of this node.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Settings file; without it, the seven usual registries are served from ./larder-data
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Tell every mistake in the settings file, with its line
    Check,
    /// Drop an image from the running agent's cache
    Forget {
        /// REGISTRY/NAME, REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST
        image: socket::Image,
    },
}

fn main() -> ExitCode {
    umask(Mode::from_bits_truncate(0o027));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stream is no reason to end differently.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(run::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match (arguments.command, arguments.config.as_deref()) {
        (None, file) => run::agent(file),
        (Some(Command::Check), file) => config::check(file),
        (Some(Command::Forget { image }), file) => socket::ask_to_forget(file, &image),
    }
}
