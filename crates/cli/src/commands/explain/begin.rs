//! Where the events of a unit or task begin, by history: so that the log need not be read from its beginning.
//!
//! What history says is a hint. If it does not lead to what the store holds, the log is read from its beginning all the same.

use fleetlog_event::{UnitKey, catalogue::physical_name};
use fleetlog_projections::telemetry_history::TELEMETRY;
use fleetlog_verify::Begin;
use sqlx::PgConnection;

use super::Explain;
use crate::{commands::history, config::Config, exit};

/// Measurements of a unit that are looked through for the last one with another value.
const ROWS_MAX: i64 = 1_000_000;

pub(super) async fn find(config: &Config, topic: &str, args: &Explain) -> Result<Begin, String> {
    let mut postgres = history::connect(config).await.map_err(|error| exit::text(&error))?;
    let unit = UnitKey::parse(&args.subject).ok();
    let found = match (topic, &unit) {
        ("telemetry", Some(unit)) if !args.all => other_value(&mut postgres, unit, &args.field).await,
        ("robot", Some(unit)) => first(config, &mut postgres, topic, Subject::Unit(unit)).await,
        ("task", _) => first(config, &mut postgres, topic, Subject::Task(&args.subject)).await,
        _ => return Ok(Begin::Log),
    };
    found.map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
enum Subject<'a> {
    Unit(&'a UnitKey),
    Task(&'a str),
}

/// The first event that history has, or has set aside.
async fn first(
    config: &Config,
    postgres: &mut PgConnection,
    topic: &str,
    subject: Subject<'_>,
) -> Result<Begin, sqlx::Error> {
    const SET_ASIDE: &str = "SELECT log_offset FROM fleetlog_set_aside \
                             WHERE projection = 'event-history' AND topic = $3 AND record_key = convert_to($4, 'UTF8')";
    let rows = match subject {
        Subject::Unit(_) => "SELECT log_offset FROM unit_event WHERE unit_uid = $1 AND site_uid = $2",
        Subject::Task(_) => "SELECT log_offset FROM task_event WHERE task_id = $1 AND $2 = ''",
    };
    let (first, second, key) = match subject {
        Subject::Unit(unit) => (unit.unit_uid.as_str(), unit.site_uid.as_str(), unit.to_string()),
        Subject::Task(task) => (task, "", task.to_owned()),
    };
    let offset: Option<i64> =
        sqlx::query_scalar(&format!("SELECT min(log_offset) FROM ({rows} UNION ALL {SET_ASIDE}) AS own"))
            .bind(first)
            .bind(second)
            .bind(physical_name(&config.kafka.topic_prefix, topic))
            .bind(key)
            .fetch_one(postgres)
            .await?;
    Ok(offset.map_or(Begin::Log, Begin::First))
}

/// The last measurement that gave the field another value than the last one that gave it any.
async fn other_value(postgres: &mut PgConnection, unit: &UnitKey, field: &str) -> Result<Begin, sqlx::Error> {
    // Shown twice: as text, and in milliseconds.
    let field = if field == "recorded_at_ms" { "recorded_at" } else { field };
    let Some(column) = TELEMETRY.columns.iter().find(|column| column.name == field) else {
        return Ok(Begin::Log);
    };
    let column = column.name;
    let sql = format!(
        "WITH own AS (
             SELECT {column} AS value, recorded_at, log_offset FROM telemetry
             WHERE unit_uid = $1 AND site_uid = $2 ORDER BY recorded_at DESC, log_offset DESC LIMIT $3
         ), told AS (
             SELECT * FROM own WHERE value IS NOT NULL
         )
         SELECT log_offset FROM told
         WHERE value <> (SELECT value FROM told ORDER BY recorded_at DESC, log_offset DESC LIMIT 1)
         ORDER BY recorded_at DESC, log_offset DESC LIMIT 1"
    );
    let offset: Option<i64> = sqlx::query_scalar(&sql)
        .bind(&unit.unit_uid)
        .bind(&unit.site_uid)
        .bind(ROWS_MAX)
        .fetch_optional(postgres)
        .await?;
    Ok(offset.map_or(Begin::Log, Begin::Within))
}
