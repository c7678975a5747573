//! `fleetlog topics plan|apply`

use std::path::PathBuf;

use fleetlog_kafka::Plan;

use crate::{
    config::Config,
    exit::Code,
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show how the cluster's topics differ from the files; changes nothing
    #[command(after_help = "Example: fleetlog topics plan --format json")]
    Plan(Source),
    /// Make the cluster's topics as the files say; never deletes, refuses what would break order
    #[command(after_help = "Example: FLEETLOG_KAFKA__REPLICATION=1 fleetlog topics apply")]
    Apply(Source),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// Folder of topic files; without it, those compiled in
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    let (Command::Plan(source) | Command::Apply(source)) = command;
    let desired = wiring::topic_specs(config, &wiring::catalogue(source.dir.as_deref())?);
    let admin = wiring::admin(config).await?;
    let plan = admin.plan(&desired).await?;
    match format {
        Format::Json => output::json(&plan)?,
        Format::Table => output::line(&plan.to_string()),
    }
    if matches!(command, Command::Apply(_)) && !plan.changes.is_empty() {
        admin.apply(&plan).await?;
        let left: Plan = admin.left(&desired).await?;
        eprintln!("applied {} changes; {} left", plan.changes.len(), left.changes.len());
        return Ok(if left.is_empty() { Code::Done } else { Code::Found });
    }
    Ok(if plan.refusals.is_empty() { Code::Done } else { Code::Found })
}
