//! `fleetlog`: the event log of a robot fleet.
//!
//! The only place where concrete parts meet: settings, Kafka, the schema source, the sinks, the projections. Data goes
//! to stdout, everything else to stderr. Exit codes: see [`exit`].

#[cfg(not(test))]
mod allocator;
mod args;
mod command_lanes;
mod commands;
mod config;
mod engine_parts;
mod exit;
#[cfg(feature = "fault-injection")]
mod fault_injection;
mod figures;
#[cfg(test)]
mod fuzz;
mod halts;
mod handlers;
mod http;
mod instance;
mod lanes;
mod memory;
mod orders;
mod output;
mod presence;
mod task_watch;
mod when;
mod wiring;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::{args::Args, config::Config};

/// How long the end waits for what nobody waits for.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    #[cfg(feature = "fault-injection")]
    match fault_injection::arm() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return exit::report(&error).into(),
    }
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error).into(),
    }
}

fn run(args: &Args) -> anyhow::Result<exit::Code> {
    // What needs no settings, or says itself what is wrong with them.
    match &args.command {
        args::Command::Config(command) => return commands::config::run(command, args),
        args::Command::Completions(completions) => return commands::generate::completions(completions),
        args::Command::Man(man) => return commands::generate::man(man),
        args::Command::PlanCapacity(plan) => {
            return commands::plan_capacity::run(plan, args.format.without_csv()?);
        }
        _ => {}
    }
    let loaded = Config::load(args.config.as_deref())?;
    start_log(&loaded.config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(commands::dispatch(args, loaded.config));
    // Everything that has to end has been awaited. A question to a server that is away may still run for seconds on a thread
    // of its own, and nobody waits for its answer any more.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome
}

fn start_log(log: &config::Log) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    use tracing_subscriber::{filter::Targets, prelude::*};

    let filter: Targets = log.filter.parse()?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        config::LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        config::LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(())
}
