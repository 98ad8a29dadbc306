//! `larder-controller`: one per cluster. Reads the command line, and turns an ending into an exit code.
//! Must not decide anything else.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use larder_controller::config::Config;
use larder_controller::{crd, error, install, run};

/// Custom resources for node caches, the main registry and its gateway.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the custom resources until a signal
    Run(Box<Config>),
    /// Print the custom resource definitions as YAML
    Crds {
        /// Apply them to the cluster instead; refused when the group has another owner
        #[arg(long)]
        apply: bool,
    },
    /// Delete every NodeCache and wait until the nodes have taken their entries out of certs.d
    Uninstall {
        /// How long to wait, as Go writes it: 5m, 1h30m
        #[arg(long, default_value = "5m", value_parser = duration)]
        timeout: Duration,
        /// The controller's own namespace
        #[arg(long, env = "POD_NAMESPACE", default_value = "larder-system")]
        namespace: String,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    larder_wire::units::parse_duration(text).map_err(|error| error.to_string())
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
    match arguments.command {
        Command::Run(config) => run::controller(*config),
        Command::Crds { apply: false } => say(&Ok(crd::yaml())),
        Command::Crds { apply: true } => say(&run::briefly(async |client| {
            let applied = install::apply_definitions(client).await?;
            Ok(applied.iter().map(|name| format!("applied {name}\n")).collect())
        })),
        Command::Uninstall { timeout, namespace } => say(&run::briefly(async |client| {
            let count = install::uninstall(client, &namespace, timeout).await?;
            Ok(format!("no NodeCache is left ({count} removed)\n"))
        })),
    }
}

/// Prints what was done, or why it was not. What cannot be printed cannot be told either.
fn say(done: &Result<String, run::Failure>) -> ExitCode {
    match done {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{}", error::chain(failure));
            ExitCode::from(failure.code())
        }
    }
}
