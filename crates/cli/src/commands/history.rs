//! `fleetlog history`: what happened to a unit or task, as PostgreSQL holds it.

use anyhow::Context;
use fleetlog_event::UnitKey;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};

use crate::{
    config::{self, Config},
    exit::{Code, Failure},
    output::{self, Format},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog history swerk1.uNordFTS%2F0001 --limit 20\n  \
                        fleetlog history swerk1.uNordFTS%2F0001.oORD-0101-0001\n  \
                        fleetlog history swerk1.uNordFTS%2F0001 --telemetry --from 2026-11-21T09:00:00Z")]
pub(crate) struct History {
    /// The unit, as `s{site}.u{unit}`, or a task's id
    subject: String,
    /// A unit's telemetry instead of its events
    #[arg(long)]
    telemetry: bool,
    /// Recorded at or after this time (RFC 3339)
    #[arg(long)]
    from: Option<jiff::Timestamp>,
    /// Recorded before this time (RFC 3339)
    #[arg(long)]
    to: Option<jiff::Timestamp>,
    /// The newest so many
    #[arg(long, default_value_t = 100)]
    limit: i64,
}

/// Opens a connection for reading.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<PgConnection> {
    let url = config::redact_url(&config.postgres.url);
    let connecting = PgConnection::connect(&config.postgres.url);
    let timeout = std::time::Duration::from_millis(config.postgres.timeout_ms);
    let unreachable = |why: String| {
        let hint = "is it running, and is postgres.url right? (fleetlog config show)";
        Failure::new(Code::Unreachable, format!("postgresql at {url} does not answer: {why}"), hint)
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => Ok(connected.map_err(|error| unreachable(error.to_string()))?),
        Err(_) => Err(unreachable(format!("no answer in {} ms", config.postgres.timeout_ms)).into()),
    }
}

/// The three tables have the columns that are asked for here in common; `to_jsonb` gives the rest.
const UNIT_EVENTS: &str = "SELECT to_jsonb(t) FROM unit_event t WHERE site_uid = $1 AND unit_uid = $2 ";
const TELEMETRY: &str = "SELECT to_jsonb(t) FROM telemetry t WHERE site_uid = $1 AND unit_uid = $2 ";
const TASK_EVENTS: &str = "SELECT to_jsonb(t) FROM task_event t WHERE task_id = $1 AND $2 = '' ";
const RANGE: &str = "AND ($3::timestamptz IS NULL OR recorded_at >= $3::timestamptz) \
                     AND ($4::timestamptz IS NULL OR recorded_at < $4::timestamptz) \
                     ORDER BY recorded_at DESC, log_offset DESC LIMIT $5";

pub(crate) async fn run(history: &History, config: &Config, format: Format) -> anyhow::Result<Code> {
    let unit = UnitKey::parse(&history.subject).ok();
    let (select, first, second) = match unit {
        Some(unit) if history.telemetry => (TELEMETRY, unit.site_uid, unit.unit_uid),
        Some(unit) => (UNIT_EVENTS, unit.site_uid, unit.unit_uid),
        None if history.telemetry => {
            let message = format!("`{}` is no unit: telemetry is kept by unit", history.subject);
            return Err(Failure::new(
                Code::Usage,
                message,
                "units are written `s{site}.u{unit}`: fleetlog unit list",
            )
            .into());
        }
        None => (TASK_EVENTS, history.subject.clone(), String::new()),
    };
    let mut postgres = connect(config).await?;
    let statement = format!("{select}{RANGE}");
    let mut rows = sqlx::query(&statement)
        .bind(first)
        .bind(second)
        .bind(history.from.map(|time| time.to_string()))
        .bind(history.to.map(|time| time.to_string()))
        .bind(history.limit)
        .fetch_all(&mut postgres)
        .await
        .context("reading history; are the tables there? (fleetlog migrate)")?
        .into_iter()
        .map(|row| row.try_get::<Value, _>(0))
        .collect::<Result<Vec<_>, _>>()?;
    rows.reverse();
    if rows.is_empty() {
        let hint = "fleetlog status shows whether the projections lag; units are written `s{site}.u{unit}`";
        return Err(Failure::new(
            Code::Found,
            format!("history knows nothing of `{}`", history.subject),
            hint,
        )
        .into());
    }
    match format {
        Format::Json => rows.iter().for_each(|row| output::line(&row.to_string())),
        Format::Table => {
            let shown =
                ["recorded_at", "occurred_at", if history.telemetry { "channel" } else { "event_type" }];
            output::table(
                [shown[0], shown[1], shown[2], "position", "what"],
                rows.iter().map(|row| {
                    let position = format!("{}:{}", row["log_partition"], row["log_offset"]);
                    [text(row, shown[0]), text(row, shown[1]), text(row, shown[2]), position, what(row)]
                }),
            );
        }
    }
    Ok(Code::Done)
}

fn text(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The facts of a row in one line: what is neither null nor where, when and who.
fn what(row: &Value) -> String {
    const HEAD: [&str; 13] = [
        "recorded_at",
        "occurred_at",
        "site_uid",
        "unit_uid",
        "event_type",
        "channel",
        "log_partition",
        "log_offset",
        "event_id",
        "sequence",
        "sequence_scope",
        "source",
        "payload",
    ];
    let facts = match &row["payload"] {
        Value::Object(payload) => payload,
        _ => match row {
            Value::Object(columns) => columns,
            _ => return String::new(),
        },
    };
    let facts = facts.iter().filter(|(name, value)| !value.is_null() && !HEAD.contains(&name.as_str()));
    facts
        .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"')))
        .collect::<Vec<_>>()
        .join(" ")
}
