//! What the stores hold and count: bytes of tables, of hot state and of records, calls and transactions.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleetlog_kafka::{Admin, KafkaSettings};

use crate::stack::Stack;

/// How long the broker may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a copy of `telemetry_1m` is kept while it is looked at.
const PROBE: &str = "telemetry_1m_probe";

/// What a table takes on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) rows: f64,
    heap_bytes: f64,
    index_bytes: f64,
}

impl Table {
    pub(crate) fn bytes(&self) -> f64 {
        self.heap_bytes + self.index_bytes
    }

    pub(crate) fn bytes_per_row(&self) -> f64 {
        self.bytes() / self.rows
    }

    pub(crate) fn heap_bytes_per_row(&self) -> f64 {
        self.heap_bytes / self.rows
    }

    pub(crate) fn index_bytes_per_row(&self) -> f64 {
        self.index_bytes / self.rows
    }
}

/// A table of the database, with its partitions or chunks.
pub(crate) fn table(stack: &Stack, database: &str, name: &str) -> Result<Table> {
    let sizes = if is_hypertable(stack, database, name)? {
        format!(
            "SELECT coalesce(sum(coalesce(table_bytes, 0) + coalesce(toast_bytes, 0)), 0) || ' ' || \
                    coalesce(sum(index_bytes), 0) FROM hypertable_detailed_size('{name}')"
        )
    } else {
        // A table without partitions has no tree.
        format!(
            "SELECT coalesce(sum(pg_table_size(relid)), 0) || ' ' || coalesce(sum(pg_indexes_size(relid)), 0) \
             FROM (SELECT relid FROM pg_partition_tree('{name}') WHERE isleaf \
                   UNION SELECT oid FROM pg_class WHERE oid = '{name}'::regclass AND relkind = 'r') parts"
        )
    };
    let told = stack.psql(Some(database), &[&format!("SELECT count(*) FROM {name}"), &sizes])?;
    let mut numbers = told.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().with_context(|| format!("{name}: {told}"))?.context("a number");
    let (rows, heap_bytes, index_bytes) = (next()?, next()?, next()?);
    anyhow::ensure!(rows > 0.0, "{name} has no rows");
    Ok(Table { rows, heap_bytes, index_bytes })
}

fn has_timescale(stack: &Stack, database: &str) -> Result<bool> {
    let told =
        stack.psql(Some(database), &["SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"])?;
    Ok(told.trim() != "0")
}

fn is_hypertable(stack: &Stack, database: &str, name: &str) -> Result<bool> {
    if !has_timescale(stack, database)? {
        return Ok(false);
    }
    let asked =
        format!("SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = '{name}'");
    Ok(stack.psql(Some(database), &[&asked])?.trim() != "0")
}

/// All minutes of telemetry, computed as the aggregate's job does, by one process; a table of them with the indexes that the
/// aggregate has, and how many seconds it took without these.
pub(crate) fn roll_up(stack: &Stack, database: &str) -> Result<(Table, f64)> {
    let begun = Instant::now();
    let make = format!("CREATE TABLE {PROBE} AS SELECT * FROM telemetry_1m");
    stack.psql(Some(database), &["SET max_parallel_workers_per_gather = 0", "SET jit = off", &make])?;
    let seconds = begun.elapsed().as_secs_f64();
    for columns in ["minute", "site_uid, minute", "unit_uid, minute"] {
        stack.psql(Some(database), &[&format!("CREATE INDEX ON {PROBE} ({columns})")])?;
    }
    let probe = table(stack, database, PROBE)?;
    Ok((probe, seconds))
}

/// Telemetry with all chunks compressed, and how many seconds that took; none on a database that cannot.
pub(crate) fn squeeze(stack: &Stack, database: &str) -> Result<Option<(Table, f64)>> {
    if !has_timescale(stack, database)? {
        return Ok(None);
    }
    let begun = Instant::now();
    let compress =
        "SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('telemetry') chunk";
    stack.psql(Some(database), &[compress])?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Some((table(stack, database, "telemetry")?, seconds)))
}

/// What servers count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Script calls of Redis.
    pub(crate) redis_calls: f64,
    /// Transactions of the database.
    pub(crate) commits: f64,
    /// WAL of the server.
    pub(crate) wal_bytes: f64,
}

impl Counters {
    pub(crate) fn read(stack: &Stack, database: &str) -> Result<Self> {
        let asked = "SELECT xact_commit || ' ' || pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') \
                     FROM pg_stat_database WHERE datname = current_database()";
        let told = stack.psql(Some(database), &[asked])?;
        let (commits, wal) = told.trim().split_once(' ').with_context(|| told.clone())?;
        Ok(Self { redis_calls: redis_calls(stack)?, commits: commits.parse()?, wal_bytes: wal.parse()? })
    }

    /// What came since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            redis_calls: self.redis_calls - before.redis_calls,
            commits: self.commits - before.commits,
            wal_bytes: self.wal_bytes - before.wal_bytes,
        }
    }
}

fn redis_info(stack: &Stack, section: &str) -> Result<String> {
    let mut redis = redis::Client::open(stack.redis_url())?.get_connection()?;
    Ok(redis::cmd("INFO").arg(section).query(&mut redis)?)
}

/// What Redis' data take, and what it needs to hold them.
pub(crate) fn redis_memory_bytes(stack: &Stack) -> Result<f64> {
    let info = redis_info(stack, "memory")?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("INFO memory tells no used_memory")?.trim().parse()?)
}

/// Script calls since Redis began: commits, and readings of states.
fn redis_calls(stack: &Stack) -> Result<f64> {
    let info = redis_info(stack, "commandstats")?;
    let calls = |line: &str| -> Option<f64> {
        line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok()
    };
    // None yet is no line.
    Ok(info.lines().find_map(calls).unwrap_or(0.0))
}

/// Bytes of a topic's log files, where they lie on this host.
pub(crate) async fn kafka_disk_bytes(kafka: &KafkaSettings, stem: &str) -> Result<Option<f64>> {
    let admin = Admin::new(kafka)?;
    let begins = format!("{}-", kafka.topic(stem));
    let mut bytes = None;
    for broker in admin.overview(BROKER_TIMEOUT).await?.brokers {
        let configs = admin.broker_configs(broker.id).await?;
        let folders = configs.get("log.dirs").or_else(|| configs.get("log.dir"));
        for folder in folders.map(String::as_str).unwrap_or_default().split(',') {
            if let Some(found) = log_bytes(Path::new(folder.trim()), &begins)? {
                *bytes.get_or_insert(0.0) += found;
            }
        }
    }
    Ok(bytes)
}

/// Bytes of the log files of partitions whose folders begin so; none where there is no such folder. (Index files are made
/// large and empty.)
fn log_bytes(folder: &Path, begins: &str) -> Result<Option<f64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        entries => entries?,
    };
    let mut bytes = None;
    for partition in entries {
        let partition = partition?;
        let number = partition.file_name().to_string_lossy().strip_prefix(begins).map(str::parse::<u32>);
        if !matches!(number, Some(Ok(_))) {
            continue;
        }
        for file in fs::read_dir(partition.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                *bytes.get_or_insert(0.0) += file.metadata()?.len() as f64;
            }
        }
    }
    Ok(bytes)
}
