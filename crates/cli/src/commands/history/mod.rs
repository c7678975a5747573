//! `fleetlog history`: what happened to a unit or task, as PostgreSQL holds it.
//!
//! Rows are handed on as they come: memory does not grow with their number. Ranges go by `recorded_at` (when fleetlog took
//! the event in), since a device's clock may say anything; rows come in the order of the log, which is also right where
//! fleetlog's own clock was turned back.

mod print;
mod query;

use anyhow::Context;
use fleetlog_event::UnitKey;
use futures_util::TryStreamExt;
use sqlx::{ConnectOptions, Executor, PgConnection, Row, postgres::PgConnectOptions};

use crate::{
    commands::migrate,
    config::{self, Config},
    exit::{Code, Failure},
    output::OutputFormat,
    when::When,
    wiring,
};

use print::Printer;
pub(crate) use print::{text, what};
use query::{Select, Table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog history swerk1.uNordFTS%2F0001 --since 2h\n  \
                        fleetlog history swerk1.uNordFTS%2F0001 --type FaultRaised,FaultCleared --all\n  \
                        fleetlog history swerk1.uNordFTS%2F0001.oORD-0101-0001 --format json\n  \
                        fleetlog history swerk1.uNordFTS%2F0001 --telemetry --since 2026-11-21 --until 2026-11-22 --all \
                        --format csv > day.csv\n\n\
                        Times: RFC 3339, a date (its beginning, in UTC), or how long ago (90s, 15m, 2h, 3d). They go by \
                        recorded_at, when fleetlog took the event in, not by the device's clock. Rows come in the order of \
                        the log.")]
pub(crate) struct History {
    /// The unit, as `s{site}.u{unit}`, or a task's id
    subject: String,
    /// A unit's telemetry instead of its events
    #[arg(long)]
    telemetry: bool,
    /// Recorded at or after this time
    #[arg(long, alias = "from", value_name = "TIME")]
    since: Option<When>,
    /// Recorded before this time
    #[arg(long, alias = "to", value_name = "TIME")]
    until: Option<When>,
    /// Only these event types (separated by commas), such as FaultRaised
    #[arg(long = "type", value_name = "EVENT", value_delimiter = ',', conflicts_with = "telemetry")]
    event_types: Vec<String>,
    /// The newest so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Opens a connection for reading. Times are told in UTC; compiling a query costs more than what is asked here.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<PgConnection> {
    let url = config::redact_url(&config.postgres.url);
    let connecting = async {
        // A long answer is what was asked for: nothing to warn of.
        let options = config.postgres.url.parse::<PgConnectOptions>()?.disable_statement_logging();
        let mut connection = options.connect().await?;
        connection.execute("SET timezone = 'UTC'; SET jit = off").await?;
        Ok::<_, sqlx::Error>(connection)
    };
    let timeout = std::time::Duration::from_millis(config.postgres.timeout_ms);
    let unreachable = |why: &(dyn std::error::Error + 'static)| {
        let message = format!("postgresql at {url} does not answer: {why}");
        Failure::new(Code::Unreachable, message, wiring::hint("postgres", why))
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => Ok(connected.map_err(|error| unreachable(&error))?),
        Err(_) => {
            let late = format!("no answer in {} ms", config.postgres.timeout_ms);
            Err(unreachable(&std::io::Error::other(late)).into())
        }
    }
}

pub(crate) async fn run(history: &History, config: &Config, format: OutputFormat) -> anyhow::Result<Code> {
    let select = select(history)?;
    let mut postgres = connect(config).await?;
    let mut printer = Printer::new(format, select.table);
    let shown = print_rows(&mut postgres, &select, &mut printer).await?;
    printer.finish();
    if shown == 0 {
        return Err(nothing(history, &mut postgres, &select).await.into());
    }
    if select.limit == Some(shown) && select.has_more(&mut postgres).await? {
        eprintln!("the newest {shown} shown: --limit or --all shows more");
    }
    Ok(Code::Done)
}

/// The newest `limit` events of a unit, in log order.
pub(crate) async fn newest(
    postgres: &mut PgConnection,
    unit: &UnitKey,
    limit: i64,
) -> anyhow::Result<Vec<serde_json::Value>> {
    let select = Select::of_unit(unit, Table::UnitEvent, limit);
    let rows = select.query(postgres).await?;
    Ok(rows.iter().map(|row| serde_json::from_str(row)).collect::<Result<_, _>>()?)
}

fn select(history: &History) -> anyhow::Result<Select> {
    let unit = UnitKey::parse(&history.subject).ok();
    let (table, unit) = match unit {
        Some(unit) if history.telemetry => (Table::Telemetry, Some(unit)),
        Some(unit) => (Table::UnitEvent, Some(unit)),
        None if history.telemetry => {
            let message = format!("`{}` is no unit: telemetry is kept by unit", history.subject);
            let hint = "units are written `s{site}.u{unit}`: fleetlog unit list";
            return Err(Failure::new(Code::Usage, message, hint).into());
        }
        None => (Table::TaskEvent, None),
    };
    let now_ms = migrate::now().0;
    let [since, until] = [history.since, history.until].map(|when| when.map(|when| when.at(now_ms)));
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        let message = format!("--since {since} is not before --until {until}");
        return Err(Failure::new(Code::Usage, message, "nothing can lie between them").into());
    }
    let event_types = table.event_types(&history.event_types).map_err(|unknown| {
        let message =
            format!("no event of a {} is called `{unknown}`", if unit.is_some() { "unit" } else { "task" });
        Failure::new(Code::Usage, message, format!("events: {}", table.known_events().join(", ")))
    })?;
    let (first, second) = match unit {
        Some(unit) => (unit.unit_uid, unit.site_uid),
        None => (history.subject.clone(), String::new()),
    };
    Ok(Select {
        table,
        first,
        second,
        since,
        until,
        event_types,
        limit: (!history.all).then_some(history.limit),
    })
}

/// Prints rows as they come; how many there were.
async fn print_rows(
    postgres: &mut PgConnection,
    select: &Select,
    printer: &mut Printer,
) -> anyhow::Result<i64> {
    let sql = select.sql();
    let mut rows = select.bound(&sql).fetch(postgres);
    let mut shown = 0;
    while let Some(row) = rows.try_next().await.context(query::READING)? {
        printer.row(row.try_get(0)?)?;
        shown += 1;
    }
    Ok(shown)
}

/// Why nothing was shown: the subject is unknown, or nothing of it is in the range.
async fn nothing(history: &History, postgres: &mut PgConnection, select: &Select) -> Failure {
    let subject = &history.subject;
    let narrowed = select.since.is_some() || select.until.is_some() || !select.event_types.is_empty();
    let known = select.without_conditions().query(postgres).await.is_ok_and(|rows| !rows.is_empty());
    if narrowed && known {
        let message = format!("history has nothing of `{subject}` in that range and of those types");
        return Failure::new(
            Code::Found,
            message,
            "ranges go by recorded_at, when fleetlog took an event in",
        );
    }
    let hint = "fleetlog status shows whether the projections lag; units are written `s{site}.u{unit}`";
    Failure::new(Code::Found, format!("history knows nothing of `{subject}`"), hint)
}
