//! What a database says of itself, for those who judge whether it is fit for history.

use std::collections::BTreeMap;

use fleetlog_projection::SinkError;
use sqlx::Row;

use crate::{Database, connections::Lease, fault::Failure};

/// A database, as it describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Settings in force by name, as `pg_settings` tells them; those that this user may not see are absent.
    pub settings: BTreeMap<String, String>,
    /// The version of TimescaleDB in this database.
    pub timescale: Option<String>,
    /// The version of TimescaleDB that the server could put there.
    pub timescale_available: Option<String>,
    /// Connections to all databases of the server.
    pub connections: i64,
    /// Connections of this user.
    pub connections_of_user: i64,
    /// Connections to this database.
    pub connections_of_database: i64,
    /// Most connections of this user; none: no limit of its own.
    pub connections_max_of_user: Option<i64>,
    /// Most connections to this database; none: no limit of its own.
    pub connections_max_of_database: Option<i64>,
    /// It follows another server and takes no writes.
    pub is_standby: bool,
    /// What the database takes on its disk, in bytes.
    pub bytes: i64,
    /// The process that answered, as its host numbers them.
    pub process: i32,
    /// What TimescaleDB does by itself with the tables of this database, in the order of their ids.
    pub jobs: Vec<JobFacts>,
    /// Why that could not be seen.
    pub jobs_unseen: Option<String>,
}

/// A job of TimescaleDB: the policy of a table or an aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Its id.
    pub id: i32,
    /// What it does, such as `policy_retention`.
    pub procedure: String,
    /// The table or aggregate.
    pub of: String,
    /// Whether it runs by itself.
    pub is_scheduled: bool,
    /// How often it ran.
    pub runs: i64,
    /// How many of these failed.
    pub failures: i64,
    /// Whether the last one did.
    pub has_failed: bool,
    /// For how long it should have been running again, in seconds; none: it is not due, or runs now.
    pub overdue_s: Option<i64>,
}

impl DatabaseFacts {
    /// A setting; empty if it is not told.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// A setting that is a whole number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).parse().ok()
    }
}

impl Database {
    /// Asks it to describe itself. Changes nothing.
    ///
    /// # Errors
    /// Transient when it does not answer; Permanent when it does not let this user in.
    pub async fn facts(&self) -> Result<DatabaseFacts, SinkError> {
        let failed = |failure: Failure| failure.into_sink_error("look at the server");
        let mut lease = self.lease().await.map_err(failed)?;
        let mut facts = look(&mut lease).await.map_err(failed)?;
        lease.give_back();
        if facts.timescale.is_some() {
            // On its own: a user who may not see them is told all else.
            match self.jobs().await {
                Ok(jobs) => facts.jobs = jobs,
                Err(failure) => {
                    facts.jobs_unseen =
                        Some(failure.into_sink_error("looking at TimescaleDB's jobs").to_string());
                }
            }
        }
        Ok(facts)
    }

    /// What its clock says, in ms since 1970.
    ///
    /// # Errors
    /// Transient when it does not answer.
    pub async fn time_ms(&self) -> Result<i64, SinkError> {
        let failed = |failure: Failure| failure.into_sink_error("asking for the time");
        let mut lease = self.lease().await.map_err(failed)?;
        let home = lease.home();
        let query = sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint");
        let time_ms = home.bounded(query.fetch_one(lease.connection())).await.map_err(failed)?;
        lease.give_back();
        Ok(time_ms)
    }

    /// The policies, each with what became of it. `next_start` is -infinity while one runs.
    async fn jobs(&self) -> Result<Vec<JobFacts>, Failure> {
        let mut lease = self.lease().await?;
        let sql = "SELECT j.job_id, j.proc_name::text AS procedure, coalesce(a.view_name, j.hypertable_name)::text AS of,
                          j.scheduled, coalesce(s.total_runs, 0) AS runs, coalesce(s.total_failures, 0) AS failures,
                          s.last_run_status IS NOT DISTINCT FROM 'Failed' AS has_failed,
                          CASE WHEN isfinite(s.next_start) AND s.next_start < now()
                               THEN extract(epoch FROM now() - s.next_start)::bigint END AS overdue_s
                   FROM timescaledb_information.jobs j
                   LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id
                   LEFT JOIN timescaledb_information.continuous_aggregates a
                     ON a.materialization_hypertable_name = j.hypertable_name
                   WHERE j.hypertable_name IS NOT NULL
                   ORDER BY j.job_id";
        let home = lease.home();
        let rows = home.bounded(sqlx::query(sql).fetch_all(lease.connection())).await?;
        lease.give_back();
        rows.iter()
            .map(|row| {
                Ok(JobFacts {
                    id: row.try_get("job_id")?,
                    procedure: row.try_get("procedure")?,
                    of: row.try_get("of")?,
                    is_scheduled: row.try_get("scheduled")?,
                    runs: row.try_get("runs")?,
                    failures: row.try_get("failures")?,
                    has_failed: row.try_get("has_failed")?,
                    overdue_s: row.try_get("overdue_s")?,
                })
            })
            .collect()
    }
}

async fn look(lease: &mut Lease<'_>) -> Result<DatabaseFacts, Failure> {
    let home = lease.home();
    let sql = "SELECT name, coalesce(setting, '') AS setting FROM pg_settings
               WHERE name IN ('server_version', 'server_version_num', 'server_encoding', 'synchronous_commit', 'fsync',
                              'full_page_writes', 'max_connections', 'superuser_reserved_connections',
                              'reserved_connections', 'default_transaction_read_only', 'autovacuum', 'data_directory')";
    let rows = home.bounded(sqlx::query(sql).fetch_all(lease.connection())).await?;
    let mut settings = BTreeMap::<String, String>::new();
    for row in &rows {
        settings.insert(row.try_get("name")?, row.try_get("setting")?);
    }
    let sql =
        "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescale,
                (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb') AS available,
                (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database) AS connections,
                (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS by_user,
                (SELECT numbackends::bigint FROM pg_stat_database WHERE datname = current_database()) AS to_database,
                (SELECT nullif(rolconnlimit, -1)::bigint FROM pg_roles WHERE rolname = current_user) AS of_user,
                (SELECT nullif(datconnlimit, -1)::bigint FROM pg_database WHERE datname = current_database()) AS of_database,
                pg_is_in_recovery() AS is_standby,
                pg_database_size(current_database()) AS bytes,
                pg_backend_pid() AS process";
    let row = home.bounded(sqlx::query(sql).fetch_one(lease.connection())).await?;
    Ok(DatabaseFacts {
        settings,
        timescale: row.try_get("timescale")?,
        timescale_available: row.try_get("available")?,
        connections: row.try_get("connections")?,
        connections_of_user: row.try_get("by_user")?,
        connections_of_database: row.try_get("to_database")?,
        connections_max_of_user: row.try_get("of_user")?,
        connections_max_of_database: row.try_get("of_database")?,
        is_standby: row.try_get("is_standby")?,
        bytes: row.try_get("bytes")?,
        process: row.try_get("process")?,
        ..DatabaseFacts::default()
    })
}
