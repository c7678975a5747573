//! PostgreSQL with TimescaleDB: rows, disk, and the jobs that have one process each.

use serde::Serialize;

use crate::{Figures, Load, ProjectionLoad, Rates, SECONDS_PER_DAY};

const DAY: f64 = SECONDS_PER_DAY;

/// How long rows stay as they came: the policy's age and a chunk, which is compressed as a whole (migrations 2 and 5).
const TELEMETRY_RAW_S: f64 = (2.0 + 1.0) * DAY;
const EVENT_RAW_S: f64 = (60.0 + 30.0) * DAY;
/// A chunk of an aggregate is ten of those it is made of.
const MINUTE_RAW_S: f64 = (9.0 + 10.0) * DAY;
/// With a shorter retention of telemetry, minutes go with the measurements.
const MINUTE_KEPT_FROM_S: f64 = 9.0 * DAY;
const MINUTE_S: f64 = 60.0;

/// The database of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sql {
    /// Rows of telemetry, a second.
    pub rows_per_s: f64,
    /// Transactions, a second, at most.
    pub writes_per_s: f64,
    /// Cores for what fleetlog writes.
    pub write_cores: f64,
    /// Share of its one core that the job behind `telemetry_1m` takes.
    pub rollup_cores: f64,
    /// Share of its one core that the compression of telemetry takes.
    pub compress_cores: f64,
    /// Connections that write telemetry at once.
    pub connections: f64,
    /// WAL, a second.
    pub wal_bytes_per_s: f64,
    /// Memory that the end of the index (unit, time) takes: what lies on disk is read for each row.
    pub index_memory_bytes: f64,
    /// Telemetry on disk, by its retention: as it came, then compressed.
    pub telemetry_bytes: f64,
    /// `telemetry_1m` on disk, which is kept for ever, at the horizon.
    pub minutes_bytes: f64,
    /// `unit_event` and `task_event` at the horizon.
    pub events_bytes: f64,
    /// Ledger and milestones at the horizon.
    pub tasks_bytes: f64,
    /// All of it.
    pub disk_bytes: f64,
    /// The same on plain PostgreSQL, which compresses nothing and has `telemetry_1m` as a view.
    pub plain_disk_bytes: f64,
}

/// Bytes of rows kept for `kept_s`, of which the first `raw_s` as they came.
fn aged(rows_per_s: f64, kept_s: f64, raw_s: f64, raw_bytes: f64, compressed_bytes: f64) -> f64 {
    let raw = kept_s.min(raw_s);
    rows_per_s * (raw * raw_bytes + (kept_s - raw) * compressed_bytes)
}

impl Sql {
    pub(crate) fn of(load: &Load, rates: &Rates, projections: &[ProjectionLoad], figures: &Figures) -> Self {
        let rows_per_s = rates.telemetry_per_s;
        let events_per_s = rates.robot_per_s + rates.task_per_s;
        let sql = projections.iter().filter(|projection| !projection.is_hot);
        let writes_per_s = sql.map(|projection| projection.writes_per_s).sum::<f64>();
        let row_bytes = figures.sql_row_bytes.value + figures.sql_row_index_bytes.value;
        let disk = Disk::of(load, rates, row_bytes, figures);
        let day_bytes = rows_per_s * DAY * figures.sql_row_index_bytes.value;
        Self {
            rows_per_s,
            writes_per_s,
            write_cores: rows_per_s * figures.sql_us_per_row.cpu_s()
                + events_per_s * figures.sql_us_per_other_event.cpu_s()
                + writes_per_s * figures.sql_us_per_write.cpu_s(),
            rollup_cores: rows_per_s * figures.sql_rollup_us_per_row.cpu_s(),
            compress_cores: rows_per_s * figures.sql_compress_us_per_row.cpu_s(),
            connections: (rows_per_s / (figures.sql_rows_per_connection.value * load.usable())).ceil(),
            wal_bytes_per_s: rows_per_s * figures.sql_wal_bytes_per_row.value,
            // A unit's rows of a day lie side by side: it grows at one page of its own, once a day has more than that.
            index_memory_bytes: day_bytes.min(load.units * figures.index_leaf_bytes.value),
            telemetry_bytes: disk.telemetry,
            minutes_bytes: disk.minutes,
            events_bytes: disk.events,
            tasks_bytes: disk.tasks,
            disk_bytes: disk.telemetry + disk.minutes + disk.events + disk.tasks,
            plain_disk_bytes: disk.plain,
        }
    }

    /// Cores of the database: what is written, and its jobs.
    #[must_use]
    pub fn cores(&self) -> f64 {
        self.write_cores + self.rollup_cores + self.compress_cores
    }
}

/// Bytes on disk.
struct Disk {
    telemetry: f64,
    minutes: f64,
    events: f64,
    tasks: f64,
    plain: f64,
}

impl Disk {
    fn of(load: &Load, rates: &Rates, row_bytes: f64, figures: &Figures) -> Self {
        let (kept_s, horizon_s) = (load.retention_s, load.horizon_s);
        let compressed = figures.sql_row_compressed_bytes.value;
        let minutes_kept_s = if kept_s < MINUTE_KEPT_FROM_S { kept_s } else { horizon_s };
        let minute_bytes = figures.sql_minute_row_bytes.value;
        let events = [
            (rates.robot_per_s, figures.sql_unit_event_bytes.value),
            (rates.task_per_s, figures.sql_task_event_bytes.value),
        ];
        let small = figures.sql_event_compressed_bytes.value;
        let tasks = rates.tasks_begun_per_s * horizon_s * figures.sql_task_bytes.value;
        let plain_events: f64 = events.iter().map(|(per_s, bytes)| per_s * horizon_s * bytes).sum();
        Self {
            telemetry: aged(rates.telemetry_per_s, kept_s, TELEMETRY_RAW_S, row_bytes, compressed),
            minutes: aged(
                load.units * load.hz.min(1.0 / MINUTE_S),
                minutes_kept_s,
                MINUTE_RAW_S,
                minute_bytes,
                figures.sql_minute_compressed_bytes.value,
            ),
            events: events
                .iter()
                .map(|(per_s, bytes)| aged(*per_s, horizon_s, EVENT_RAW_S, *bytes, small))
                .sum(),
            tasks,
            plain: rates.telemetry_per_s * kept_s * row_bytes + plain_events + tasks,
        }
    }
}
