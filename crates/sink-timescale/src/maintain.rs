//! Partitions made ahead, and retention. To be called at start and every hour or so.
//!
//! On TimescaleDB chunks come by themselves and a policy job drops old ones; here only the policy is kept in step with
//! the setting. On plain PostgreSQL this does the work. Rows outside all partitions (a clock far in the future, a
//! rebuild of old history) lie in the table's DEFAULT partition: nothing is refused for want of a partition.

use fleetlog_event::TimestampMs;
use fleetlog_projection::SinkError;
use sqlx::Row;

use crate::{
    Database, Migrator,
    connections::Lease,
    fault::{Failure, Meaning},
    migrate::{Flavour, TURN},
};

/// How long history is kept. `unit_event` and `task_event` are kept for ever, as their topics are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days of `telemetry`; none is for ever.
    pub telemetry_days: Option<u32>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions made.
    pub made: Vec<String>,
    /// Partitions dropped for their age.
    pub dropped: Vec<String>,
    /// Partitions that could not be made or dropped now, since writers held their tables; the next call tries again.
    pub postponed: Vec<String>,
}

/// How a plain table is partitioned.
struct Layout {
    table: &'static str,
    /// Of `date_trunc`.
    period: &'static str,
    /// Name of a partition: the table's, and its first day by this pattern.
    suffix: &'static str,
    /// Periods made ahead.
    ahead: i32,
}

const TELEMETRY: &str = "telemetry";
const LAYOUTS: [Layout; 3] = [
    Layout { table: TELEMETRY, period: "day", suffix: "YYYYMMDD", ahead: 3 },
    Layout { table: "unit_event", period: "month", suffix: "YYYYMM", ahead: 2 },
    Layout { table: "task_event", period: "month", suffix: "YYYYMM", ahead: 2 },
];

impl Database {
    /// Makes partitions ahead of `now` and drops those beyond retention. Safe on several servers at a time.
    ///
    /// Where this clock and the database's differ, the earlier one counts: a host whose clock is in the future must not
    /// drop history that is not old.
    ///
    /// # Errors
    /// As any statement: Transient, or Permanent with what to do.
    pub async fn maintain(&self, now: TimestampMs, retention: Retention) -> Result<Maintained, SinkError> {
        let plan = Migrator::new(self).plan().await?;
        plan.require_current()?;
        let now =
            self.earlier(now).await.map_err(|failure| failure.into_sink_error("asking for the time"))?;
        let failed = |failure: Failure| failure.into_sink_error("maintenance of history tables");
        let mut done = Maintained::default();
        match plan.flavour {
            Flavour::Timescale => {
                let mut lease = self.lease().await.map_err(failed)?;
                keep_policy(&mut lease, retention).await.map_err(failed)?;
                lease.give_back();
            }
            Flavour::Plain => {
                for layout in &LAYOUTS {
                    self.make_ahead(layout, now, &mut done).await.map_err(failed)?;
                }
                if let Some(days) = retention.telemetry_days {
                    self.drop_old(now, days, &mut done).await.map_err(failed)?;
                }
            }
        }
        Ok(done)
    }

    /// The earlier of this moment and the database's.
    async fn earlier(&self, now: TimestampMs) -> Result<TimestampMs, Failure> {
        let mut lease = self.lease().await?;
        let home = lease.home();
        let query = sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint");
        let theirs: i64 = home.bounded(query.fetch_one(lease.connection())).await?;
        lease.give_back();
        Ok(TimestampMs(now.0.min(theirs)))
    }

    async fn make_ahead(
        &self,
        layout: &Layout,
        now: TimestampMs,
        done: &mut Maintained,
    ) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let wanted = wanted(&mut lease, layout, now).await?;
        lease.give_back();
        for partition in wanted {
            let mut lease = self.lease().await?;
            match make(&mut lease, layout.table, &partition).await {
                Ok(made) => {
                    lease.give_back();
                    if made {
                        done.made.push(partition.name);
                    }
                }
                Err(failure) => postpone(failure, partition.name, done)?,
            }
        }
        Ok(())
    }

    async fn drop_old(&self, now: TimestampMs, days: u32, done: &mut Maintained) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let old = older(&mut lease, now, days).await?;
        lease.give_back();
        for name in old {
            let mut lease = self.lease().await?;
            match drop_partition(&mut lease, &name).await {
                Ok(()) => {
                    lease.give_back();
                    done.dropped.push(name);
                }
                Err(failure) => postpone(failure, name, done)?,
            }
        }
        let mut lease = self.lease().await?;
        let sql =
            "DELETE FROM telemetry_default WHERE recorded_at < fleetlog_time($1) - make_interval(days => $2)";
        let query = sqlx::query(sql).bind(now.0).bind(days_of(days));
        let home = lease.home();
        home.bounded(query.execute(lease.connection())).await?;
        lease.give_back();
        Ok(())
    }
}

/// Days as PostgreSQL takes them.
fn days_of(days: u32) -> i32 {
    i32::try_from(days).unwrap_or(i32::MAX)
}

/// A lock that did not come free in time is no failure of the maintenance.
fn postpone(failure: Failure, name: String, done: &mut Maintained) -> Result<(), Failure> {
    if failure.is_lock_timeout() {
        tracing::warn!(partition = name, "its table is busy: maintenance is postponed");
        done.postponed.push(name);
        return Ok(());
    }
    debug_assert_ne!(failure.meaning(), Meaning::Refused, "maintenance writes no rows of its own");
    Err(failure)
}

/// A partition that should be there.
struct Partition {
    name: String,
    from: String,
    to: String,
}

/// The period of yesterday (a record on its way), of now, and those ahead, in UTC, as far as they are missing.
async fn wanted(lease: &mut Lease<'_>, layout: &Layout, now: TimestampMs) -> Result<Vec<Partition>, Failure> {
    let sql = "
        WITH periods AS (
            SELECT first, first + ('1 ' || $2)::interval AS after
            FROM generate_series(date_trunc($2, fleetlog_time($1) AT TIME ZONE 'UTC' - interval '1 day'),
                                 date_trunc($2, fleetlog_time($1) AT TIME ZONE 'UTC') + $3 * ('1 ' || $2)::interval,
                                 ('1 ' || $2)::interval) AS first
        )
        SELECT $4 || '_' || to_char(first, $5) AS name, first::text || '+00' AS lower, after::text || '+00' AS upper
        FROM periods
        WHERE to_regclass($4 || '_' || to_char(first, $5)) IS NULL
        ORDER BY first";
    let query = sqlx::query(sql)
        .bind(now.0)
        .bind(layout.period)
        .bind(layout.ahead)
        .bind(layout.table)
        .bind(layout.suffix);
    let home = lease.home();
    let rows = home.bounded(query.fetch_all(lease.connection())).await?;
    rows.iter()
        .map(|row| {
            Ok(Partition {
                name: row.try_get("name")?,
                from: row.try_get("lower")?,
                to: row.try_get("upper")?,
            })
        })
        .collect()
}

/// Makes a partition, with the rows of its time that lie in the DEFAULT partition. False: another server made it.
async fn make(lease: &mut Lease<'_>, table: &str, partition: &Partition) -> Result<bool, Failure> {
    let Partition { name, from, to } = partition;
    lease.begin().await?;
    lease.run(&format!("SELECT pg_advisory_xact_lock({TURN})")).await?;
    let home = lease.home();
    // Not to_regclass: it answers from a cache that waiting for the turn does not refresh.
    let there = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relnamespace = current_schema()::regnamespace)",
    )
    .bind(name);
    let there: bool = home.bounded(there.fetch_one(lease.connection())).await?;
    if there {
        lease.run("ROLLBACK").await?;
        return Ok(false);
    }
    // Names and bounds come from the layouts and from the database's own calendar, not from outside.
    lease
        .run(&format!(
            "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
             LOCK TABLE {table}_default IN SHARE ROW EXCLUSIVE MODE;
             WITH moved AS (
                 DELETE FROM {table}_default WHERE recorded_at >= '{from}' AND recorded_at < '{to}' RETURNING *
             ) INSERT INTO {name} SELECT * FROM moved;
             ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}');
             COMMIT"
        ))
        .await?;
    Ok(true)
}

/// Partitions of `telemetry` whose last moment is older than that.
async fn older(lease: &mut Lease<'_>, now: TimestampMs, days: u32) -> Result<Vec<String>, Failure> {
    let sql = "
        SELECT c.relname::text
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass('telemetry') AND c.relname ~ '^telemetry_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1
              <= (fleetlog_time($1) AT TIME ZONE 'UTC' - make_interval(days => $2))
        ORDER BY c.relname";
    let home = lease.home();
    let query = sqlx::query_scalar(sql).bind(now.0).bind(days_of(days));
    home.bounded(query.fetch_all(lease.connection())).await
}

async fn drop_partition(lease: &mut Lease<'_>, name: &str) -> Result<(), Failure> {
    lease.begin().await?;
    lease.run(&format!("DROP TABLE IF EXISTS {name}; COMMIT")).await
}

/// The extension's own job drops old chunks; it is replaced only when the setting changed.
async fn keep_policy(lease: &mut Lease<'_>, retention: Retention) -> Result<(), Failure> {
    let sql = "
        SELECT (config ->> 'drop_after')::interval = make_interval(days => $1) IS TRUE
        FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND hypertable_name = 'telemetry'";
    let days = retention.telemetry_days.map(days_of);
    let home = lease.home();
    let query = sqlx::query_scalar(sql).bind(days);
    let as_set: Option<bool> = home.bounded(query.fetch_optional(lease.connection())).await?;
    if as_set.unwrap_or(days.is_none()) {
        return Ok(());
    }
    lease.begin().await?;
    lease.run(&format!("SELECT remove_retention_policy('{TELEMETRY}', if_exists => true)")).await?;
    if let Some(days) = days {
        lease
            .run(&format!("SELECT add_retention_policy('{TELEMETRY}', make_interval(days => {days}))"))
            .await?;
    }
    lease.run("COMMIT").await
}
