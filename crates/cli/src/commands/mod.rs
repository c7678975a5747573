//! One file a command.

pub(crate) mod config;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod emit;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod hot;
pub(crate) mod import;
pub(crate) mod migrate;
pub(crate) mod plan_capacity;
pub(crate) mod presence;
pub(crate) mod progress;
pub(crate) mod repair;
pub(crate) mod run;
pub(crate) mod schemas;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod topics;
pub(crate) mod unit_show;
pub(crate) mod verify;
pub(crate) mod webhook;

use crate::{
    args::{Args, Command},
    config::Config,
    exit::Code,
    output::Format,
};

/// Carries out the command.
pub(crate) async fn dispatch(args: &Args, config: Config) -> anyhow::Result<Code> {
    let format = match &args.command {
        // Takes CSV as well.
        Command::History(_) => Format::default(),
        _ => args.format.without_csv()?,
    };
    match &args.command {
        Command::Config(command) => config::run(command, args),
        Command::Completions(completions) => generate::completions(completions),
        Command::Man(man) => generate::man(man),
        Command::PlanCapacity(plan) => plan_capacity::run(plan, format),
        Command::Health(health) => health::run(health, &config).await,
        Command::Topics(command) => topics::run(command, &config, format).await,
        Command::Migrate(migrate) => migrate::run(migrate, &config).await,
        Command::Doctor(doctor) => doctor::run(doctor, &config, format).await,
        Command::Status(status) => status::run(status, &config, format).await,
        Command::Events(events) => events::run(events, &config).await,
        Command::Progress(command) => progress::run(command, &config, format).await,
        Command::Dlq(command) => dlq::run(command, &config, format).await,
        Command::Webhook(command) => webhook::run(command, format).await,
        Command::Repair(repair) => repair::run(repair, &config, format).await,
        Command::Schemas(command) => schemas::run(command, &config, format).await,
        Command::Import(command) => import::run(command, &config, format).await,
        Command::Simulate(simulate) => simulate::run(simulate, &config, format).await,
        Command::Emit(emit) => emit::run(emit, &config, format).await,
        Command::Run(run) => run::run(run, &config, format).await,
        Command::Presence(command) => presence::run(command, &config).await,
        Command::Verify(verify) => verify::run(verify, &config, format).await,
        Command::History(history) => history::run(history, &config, args.format).await,
        Command::Explain(explain) => explain::run(explain, &config, format).await,
        Command::Unit(command) => hot::unit(command, &config, format).await,
        Command::Task(command) => hot::task(command, &config, format).await,
    }
}
