//! `larder-gateway`: in front of the main registry. Reads the command line, and turns an ending into the exit
//! code of the contract. Must not decide anything else: `run` is the life of the gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder_gateway::run;

/// Limits on what is pushed to a registry; everything else passes through.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Settings file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Tell every mistake in the settings file, with its line
    Check,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stream is no reason to end differently.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(run::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match (arguments.command, arguments.config) {
        (_, None) => run::without_file(),
        (None, Some(file)) => run::gateway(&file),
        (Some(Command::Check), Some(file)) => run::check(&file),
    }
}
