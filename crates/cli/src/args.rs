//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{commands, output::OutputFormat};

/// The event log of a robot fleet: events on Kafka, hot state in Redis, history in TimescaleDB, nothing missing or
/// doubled.
#[derive(Debug, Parser)]
#[command(
    name = "fleetlog",
    version,
    after_help = "Exit codes: 0 done, 1 found something wrong, 2 wrong usage or settings, 3 a server could not be \
                  reached, 4 failed otherwise.\nSettings: fleetlog config show --defaults"
)]
pub(crate) struct Args {
    /// File of settings (TOML)
    #[arg(long, global = true, env = "FLEETLOG_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at the settings
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Topics: the difference between files and cluster, and carrying it out
    #[command(subcommand)]
    Topics(commands::topics::Command),
    /// Event schemas: check files, look at them
    #[command(subcommand)]
    Schemas(commands::schemas::Command),
    /// Bring the database's schema up to date
    Migrate(commands::migrate::Migrate),
    /// Turn recorded traffic into events
    #[command(subcommand)]
    Import(commands::import::Command),
    /// Send the events of a simulated fleet
    Simulate(commands::simulate::Simulate),
    /// Send one event by hand
    Emit(commands::emit::Emit),
    /// Run the projectors
    Run(commands::run::Run),
    /// Watch for units that fall silent, and say so
    Presence(commands::presence::PresenceCommand),
    /// Ask the projectors that run here whether they are well
    Health(commands::health::Health),
    /// Read the log again and compare with what Redis and PostgreSQL hold
    Verify(commands::verify::Verify),
    /// Look at all servers, topics, schemas and groups: what is wrong, why it matters, what to do
    Doctor(commands::doctor::Doctor),
    /// How far every projection is
    Status(commands::status::Status),
    /// The log as it is, decoded, as JSON lines
    Events(commands::events::Events),
    /// Where each lane is, and passing a position that blocks one
    #[command(subcommand)]
    Progress(commands::progress::Command),
    /// What could not be processed
    #[command(subcommand)]
    Dlq(commands::dlq::Command),
    /// Endpoints that are told what happened: call one by hand
    #[command(subcommand)]
    Webhook(commands::webhook::Command),
    /// Fold the states of units and tasks anew from the log
    Repair(commands::repair::Repair),
    /// Look at units as they are now
    #[command(subcommand)]
    Unit(commands::hot::UnitCommand),
    /// Look at tasks as they are now
    #[command(subcommand)]
    Task(commands::hot::TaskCommand),
    /// What happened to a unit or task
    History(commands::history::History),
    /// Which event gave a field of a unit or task its value
    Explain(commands::explain::Explain),
    /// How many partitions, processes, Redis and databases a fleet needs, by formulas over measured costs
    PlanCapacity(commands::plan_capacity::PlanCapacity),
    /// A script that completes commands and options in a shell
    Completions(commands::generate::Completions),
    /// Pages for man
    Man(commands::generate::Man),
}
