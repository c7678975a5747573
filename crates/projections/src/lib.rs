//! The read models, one file each.

pub mod event_history;
pub mod telemetry_history;

use fleetlog_projection::Column;

/// A column of a table.
const fn column(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type }
}

const TIMESTAMP: &str = "timestamp with time zone";
