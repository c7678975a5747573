//! States of a fold: one row an entity, with what people read of it, put in the place of the one before.
//!
//! Rows come by binary COPY into a temporary table and go from there into their own by one upsert. The chain has decided
//! by then that this lane may write; the upsert looks at versions all the same, and an entity that is further than what
//! is to be written, or of another log, stops the projection: somebody wrote beside the lanes.

use std::collections::HashMap;

use fleetlog_event::LogId;
use fleetlog_projection::{
    CopyEncoder, EntityChange, FOLD_COLUMNS, HistoryRow, LaneId, Stored, StoredState, Table, Version,
};
use sqlx::Row;

use crate::{
    connections::Lease,
    copy::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, copy_into},
    fault::{BUG, Failure},
    ledger,
};

const FOREIGN: &str = "somebody wrote beside the lanes: rebuild the projection";

/// Reads what is stored for a lane, with the states at `homes`, all at one moment.
pub(crate) async fn read(
    lease: &mut Lease<'_>,
    table: &Table,
    lane: &LaneId,
    homes: &[String],
) -> Result<Stored, Failure> {
    lease.begin_read().await?;
    let mut stored = ledger::read(lease, lane).await?;
    let mut found = states(lease, table, homes).await?;
    lease.run("COMMIT").await?;
    stored.states = homes.iter().map(|home| found.remove(home.as_str())).collect();
    Ok(stored)
}

async fn states(
    lease: &mut Lease<'_>,
    table: &Table,
    homes: &[String],
) -> Result<HashMap<String, StoredState>, Failure> {
    let (name, key) = (table.name, key(table));
    let sql =
        format!("SELECT \"{key}\", {} FROM \"{name}\" WHERE \"{key}\" = ANY($1)", fold_columns().join(", "));
    // SQL has no text with a NUL: there is no such key, and asking for it would be an error.
    let storable: Vec<&str> = homes.iter().map(String::as_str).filter(|home| !home.contains('\0')).collect();
    let home = lease.home();
    let rows = home.bounded(sqlx::query(&sql).bind(storable).fetch_all(lease.connection())).await?;
    let state = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
        let version = Version {
            log: LogId(row.try_get(1)?),
            partition: row.try_get(2)?,
            next: row.try_get(3)?,
            revision: row.try_get::<i32, _>(4)?.cast_unsigned(),
        };
        Ok((row.try_get(0)?, StoredState { version, state: row.try_get::<String, _>(5)?.into_bytes() }))
    };
    Ok(rows.iter().map(state).collect::<Result<_, _>>()?)
}

/// Stores entities, in the transaction that has moved the lane's chain.
pub(crate) async fn store<W: HistoryRow>(
    lease: &mut Lease<'_>,
    table: &Table,
    changes: &[EntityChange<W>],
) -> Result<(), Failure> {
    let staged = format!("fleetlog_staged_{}", table.name);
    // Made once a connection; in each transaction all the same, for poolers that change connections between them.
    lease
        .run(&format!(
            "SET LOCAL client_min_messages = warning;
             CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE \"{}\") ON COMMIT DELETE ROWS",
            table.name
        ))
        .await?;
    let columns: Vec<&str> = columns(table).collect();
    let mut rest = changes;
    while !rest.is_empty() {
        let (taken, bytes) = encode_chunk(table, rest)?;
        copy_into(lease, &staged, &columns, &bytes).await?;
        rest = &rest[taken..];
    }
    let home = lease.home();
    let upsert = upsert(table, &staged);
    let done = home.bounded(sqlx::query(&upsert).execute(lease.connection())).await?;
    if done.rows_affected() == changes.len() as u64 {
        Ok(())
    } else {
        Err(overtaken(lease, table, &staged).await?)
    }
}

/// How many of the first entities go into one COPY, up to its bounds. `changes` is not empty.
fn encode_chunk<W: HistoryRow>(
    table: &Table,
    changes: &[EntityChange<W>],
) -> Result<(usize, Vec<u8>), Failure> {
    let mut encoder = CopyEncoder::new();
    let mut taken = 0;
    for change in changes.iter().take(CHUNK_ROWS_MAX) {
        if encoder.len_bytes() > CHUNK_BYTES_MAX {
            break;
        }
        let row = match change.writes.as_slice() {
            [row] if row.table() == table => row,
            other => {
                let what =
                    format!("`{}` has {} rows, expected one of `{}`", change.home, other.len(), table.name);
                return Err(Failure::States { what, remedy: BUG });
            }
        };
        encoder.entity(row, &change.version, &change.state);
        taken += 1;
    }
    Ok((taken, encoder.finish()))
}

/// Whether the stored row `t` may be replaced by the row of that name.
fn guard(new: &str) -> String {
    format!(
        "t.fold_log = {new}.fold_log AND t.fold_partition = {new}.fold_partition \
         AND (t.fold_next, t.fold_revision) <= ({new}.fold_next, {new}.fold_revision)"
    )
}

fn upsert(table: &Table, staged: &str) -> String {
    let (name, key) = (table.name, key(table));
    let columns: Vec<String> = columns(table).map(|column| format!("\"{column}\"")).collect();
    let sets: Vec<String> =
        columns[1..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO \"{name}\" AS t ({columns}) SELECT {columns} FROM {staged} ORDER BY \"{key}\" \
         ON CONFLICT (\"{key}\") DO UPDATE SET {sets} WHERE {guard}",
        columns = columns.join(", "),
        sets = sets.join(", "),
        guard = guard("excluded"),
    )
}

/// Which entity the upsert passed over, and why.
async fn overtaken(lease: &mut Lease<'_>, table: &Table, staged: &str) -> Result<Failure, Failure> {
    let (name, key) = (table.name, key(table));
    let sql = format!(
        "SELECT format('row %L of `{name}` is of log %s/%s at offset %s, which is to become %s/%s at %s',
                       s.\"{key}\", t.fold_log, t.fold_partition, t.fold_next, s.fold_log, s.fold_partition, s.fold_next)
         FROM {staged} s JOIN \"{name}\" t USING (\"{key}\") WHERE NOT ({guard}) LIMIT 1",
        guard = guard("s"),
    );
    let home = lease.home();
    let found: Option<String> =
        home.bounded(sqlx::query_scalar(&sql).fetch_optional(lease.connection())).await?;
    let what =
        found.unwrap_or_else(|| format!("rows of `{name}` were not taken; a rule or trigger keeps them out"));
    Ok(Failure::States { what, remedy: FOREIGN })
}

/// The table's primary key.
fn key(table: &Table) -> &'static str {
    table.columns[0].name
}

fn columns(table: &Table) -> impl Iterator<Item = &'static str> {
    table.columns.iter().chain(&FOLD_COLUMNS).map(|column| column.name)
}

fn fold_columns() -> [&'static str; 5] {
    FOLD_COLUMNS.map(|column| column.name)
}
