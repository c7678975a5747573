//! Rows of a fold in SQL, read by SELECT.

use std::collections::HashMap;

use fleetlog_event::LogId;
use fleetlog_projection::Table;
use sqlx::Row;

use crate::{
    HistoryStore, VerifyError,
    row::{Fields, sql_forms},
};

/// An entity's row.
#[derive(Debug)]
pub(crate) struct StoredRow {
    pub(crate) log: LogId,
    pub(crate) partition: i32,
    /// One past the last event that it took.
    pub(crate) next: i64,
    /// The exact state, JSON.
    pub(crate) state: String,
    /// What people read.
    pub(crate) fields: Fields,
}

impl HistoryStore {
    /// The keys of all rows.
    pub(crate) async fn keys(&self, table: &Table) -> Result<Vec<String>, VerifyError> {
        let query = format!("SELECT \"{}\" FROM \"{}\"", table.columns[0].name, table.name);
        let keys = sqlx::query_scalar(&query).fetch_all(&self.pool).await;
        keys.map_err(|source| VerifyError::Sql {
            what: format!("reading the keys of `{}`", table.name),
            source,
        })
    }

    /// The rows of these keys, at one moment.
    pub(crate) async fn entities(
        &self,
        table: &Table,
        keys: &[&str],
    ) -> Result<HashMap<String, StoredRow>, VerifyError> {
        let key = table.columns[0].name;
        let query = format!(
            "SELECT \"{key}\", fold_log, fold_partition, fold_next, fold_state, ARRAY[{forms}]::bytea[] \
             FROM \"{table}\" WHERE \"{key}\" = ANY($1)",
            forms = sql_forms(table)?.join(", "),
            table = table.name,
        );
        let failed = |source| {
            let from = keys.first().copied().unwrap_or_default();
            let what = format!("reading {} rows of `{}` from `{from}` on", keys.len(), table.name);
            VerifyError::Sql { what, source }
        };
        let rows = sqlx::query(&query).bind(keys).fetch_all(&self.pool).await.map_err(failed)?;
        let read = |row: &sqlx::postgres::PgRow| {
            let stored = StoredRow {
                log: LogId(row.try_get(1)?),
                partition: row.try_get(2)?,
                next: row.try_get(3)?,
                state: row.try_get(4)?,
                fields: row.try_get(5)?,
            };
            Ok((row.try_get(0)?, stored))
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(failed)
    }
}
