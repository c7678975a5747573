//! `fleetlog migrate`

use fleetlog_event::TimestampMs;
use fleetlog_projection::Fault;
use fleetlog_sink_timescale::{MigrateError, Migrator, Retention};

use crate::{
    config::{self, Config},
    exit::{Code, Failure},
    output, wiring,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: fleetlog migrate --dry-run")]
pub(crate) struct Migrate {
    /// Only show what is missing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(migrate: &Migrate, config: &Config) -> anyhow::Result<Code> {
    let database = wiring::database(config)?;
    let migrator = Migrator::new(&database);
    let done = if migrate.dry_run { migrator.plan().await } else { migrator.apply().await };
    let plan = done.map_err(|error| failure(config, &error))?;
    for migration in &plan.pending {
        let verb = if migrate.dry_run { "missing" } else { "applied" };
        output::line(&format!("{verb} {:04}_{}", migration.version, migration.name));
    }
    if migrate.dry_run {
        output::line(&format!("version {}, {} missing: {}", plan.version, plan.pending.len(), plan.flavour));
        return Ok(if plan.pending.is_empty() { Code::Done } else { Code::Found });
    }
    let maintained = database.maintain(now(), retention(config)).await?;
    output::line(&format!(
        "the schema is up to date ({} migrations applied, {} partitions made): {}",
        plan.pending.len(),
        maintained.made.len(),
        plan.flavour
    ));
    Ok(Code::Done)
}

/// How long history is kept.
pub(crate) fn retention(config: &Config) -> Retention {
    let days = config.postgres.telemetry_retention_days;
    Retention { telemetry_days: (days > 0).then_some(days) }
}

/// The wall clock.
pub(crate) fn now() -> TimestampMs {
    TimestampMs(jiff::Timestamp::now().as_millisecond())
}

fn failure(config: &Config, error: &MigrateError) -> anyhow::Error {
    if let MigrateError::Store(store) = error
        && store.fault == Fault::Transient
    {
        let message = format!("postgresql at {}: {store}", config::redact_url(&config.postgres.url));
        return Failure::new(Code::Unreachable, message, "is it running, and is postgres.url right?").into();
    }
    Failure { code: Code::Failed, message: error.to_string(), hint: None }.into()
}
