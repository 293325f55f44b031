//! The binary: reads the command line, runs a command, and turns what happened into an exit code.

mod args;
mod command;
mod exit_code;
mod failure;
mod gpus;
mod input;
mod launcher;
mod one_gpu;
mod output;
mod page;
mod process;
mod progress;
mod settings;
mod signals;
mod time_limit;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    let code = match &cli.command {
        None => command::demo::run(cli.quiet),
        Some(Command::Run(args)) => command::run::run(args, cli.quiet),
        Some(Command::Bench(args)) => command::bench::run(args, cli.quiet),
        Some(Command::Analyze(args)) => command::analyze::run(args),
        Some(Command::Import(args)) => command::import::run(args),
        Some(Command::Compare(args)) => command::compare::run(args),
        Some(Command::Fleet(args)) => command::fleet::run(args),
        Some(Command::Plan(args)) => command::plan::run(args),
        Some(Command::Simulate(args)) => command::simulate::run(args),
        Some(Command::Mfu(args)) => command::mfu::run(args),
        Some(Command::Specs(args)) => command::specs::run(args),
        Some(Command::Validate(args)) => command::validate::run(args),
        Some(Command::Doctor(args)) => command::doctor::run(args),
        Some(Command::Witness) => command::witness::run(),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        output::talk(&failure::message(&error));
        failure::code(&error)
    }))
}

/// Logs to stderr, off unless asked for by -v or LAGGARD_LOG.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "off",
        1 => "laggard=info,laggard_measure=info,laggard_import=info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("LAGGARD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
