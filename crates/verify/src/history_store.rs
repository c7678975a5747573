//! SQL, read by SELECT.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fleetlog_event::LogId;
use fleetlog_projection::{LaneId, Table};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};

use crate::{
    VerifyError,
    hot_store::LaneProgress,
    progress::{Lane, LaneSource},
    row::{Fields, sql_forms, sql_hash},
};

/// SQL, read by SELECT.
#[derive(Clone, Debug)]
pub struct HistoryStore {
    pub(crate) pool: PgPool,
}

/// How many rows a range of offsets has, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    pub(crate) hashes: u128,
}

/// A range of offsets of a partition, by number: `range_offsets` offsets each.
pub(crate) type RangeId = (i32, i64);

impl HistoryStore {
    /// Connects with one connection; waits at most `timeout_ms` for it.
    ///
    /// # Errors
    /// When the server does not answer, or not to this user.
    pub async fn connect(url: &str, timeout_ms: u64) -> Result<Self, VerifyError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(timeout_ms))
            .connect(url)
            .await
            .map_err(|source| VerifyError::Sql { what: "connecting".to_owned(), source })?;
        Ok(Self { pool })
    }

    /// Count and hash of every range that the lanes' parts of the table have rows in.
    pub(crate) async fn sums(
        &self,
        table: &Table,
        lanes: &[Lane],
        range_offsets: i64,
    ) -> Result<HashMap<RangeId, Sum>, VerifyError> {
        let query = format!(
            "SELECT t.log_partition, t.log_offset / $4 AS range, count(*) AS rows, sum({hash})::text AS hashes \
             FROM \"{table}\" t \
             JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS lane(partition, low, upto) \
               ON t.log_partition = lane.partition AND t.log_offset >= lane.low AND t.log_offset < lane.upto \
             GROUP BY 1, 2",
            hash = sql_hash(table),
            table = table.name,
        );
        let what = || format!("summing up `{}`", table.name);
        let failed = |source| VerifyError::Sql { what: what(), source };
        let rows = sqlx::query(&query)
            .bind(lanes.iter().map(|lane| lane.id.partition).collect::<Vec<_>>())
            .bind(lanes.iter().map(|lane| lane.low).collect::<Vec<_>>())
            .bind(lanes.iter().map(|lane| lane.to).collect::<Vec<_>>())
            .bind(range_offsets)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let mut sums = HashMap::new();
        for row in rows {
            let (count, hashes): (i64, String) =
                (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
            let hashes = hashes
                .parse()
                .map_err(|_| VerifyError::Malformed(format!("sql: {}: `{hashes}` is no sum", what())))?;
            let id = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            sums.insert(id, Sum { rows: count.unsigned_abs(), hashes });
        }
        Ok(sums)
    }

    /// The rows of `[from, to)` of a partition, by offset.
    pub(crate) async fn rows(
        &self,
        table: &Table,
        partition: i32,
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<i64, Vec<Fields>>, VerifyError> {
        let query = format!(
            "SELECT log_offset, ARRAY[{forms}]::bytea[] FROM \"{table}\" \
             WHERE log_partition = $1 AND log_offset >= $2 AND log_offset < $3",
            forms = sql_forms(table)?.join(", "),
            table = table.name,
        );
        let failed = |source| VerifyError::Sql {
            what: format!("reading `{}` from offset {from} on", table.name),
            source,
        };
        let rows = sqlx::query(&query).bind(partition).bind(from).bind(to).fetch_all(&self.pool).await;
        let mut by_offset: BTreeMap<i64, Vec<Fields>> = BTreeMap::new();
        for row in rows.map_err(failed)? {
            let fields: Fields = row.try_get(1).map_err(failed)?;
            by_offset.entry(row.try_get(0).map_err(failed)?).or_default().push(fields);
        }
        Ok(by_offset)
    }

    /// The last offset that the table has of each partition.
    pub(crate) async fn last_offsets(&self, table: &Table) -> Result<Vec<(i32, i64)>, VerifyError> {
        let query = format!("SELECT log_partition, max(log_offset) FROM \"{}\" GROUP BY 1", table.name);
        let last = sqlx::query_as(&query).fetch_all(&self.pool).await;
        last.map_err(|source| VerifyError::Sql {
            what: format!("reading the last offsets of `{}`", table.name),
            source,
        })
    }

    /// The rows of a partition from `offset` on: their offsets.
    pub(crate) async fn offsets_from(
        &self,
        table: &Table,
        partition: i32,
        offset: i64,
    ) -> Result<Vec<i64>, VerifyError> {
        let query = format!(
            "SELECT log_offset FROM \"{}\" WHERE log_partition = $1 AND log_offset >= $2 ORDER BY 1",
            table.name
        );
        let offsets = sqlx::query_scalar(&query).bind(partition).bind(offset).fetch_all(&self.pool).await;
        offsets.map_err(|source| VerifyError::Sql {
            what: format!("reading the end of `{}`", table.name),
            source,
        })
    }
}

impl LaneSource for HistoryStore {
    async fn progress(&self, lane: &LaneId) -> Result<Option<LaneProgress>, VerifyError> {
        let query = "SELECT log, main FROM fleetlog_progress \
                     WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4";
        let row: Option<(uuid::Uuid, i64)> = sqlx::query_as(query)
            .bind(&lane.projection)
            .bind(lane.version.cast_signed())
            .bind(&lane.topic)
            .bind(lane.partition)
            .fetch_optional(&self.pool)
            .await
            .map_err(|source| VerifyError::Sql { what: format!("reading progress of {lane}"), source })?;
        Ok(row.map(|(log, main)| LaneProgress { log: LogId(log), main }))
    }

    async fn ledger(&self, lane: &LaneId, log: LogId) -> Result<BTreeSet<i64>, VerifyError> {
        let query = "SELECT log_offset FROM fleetlog_set_aside \
                     WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4 AND log = $5 \
                     AND status <> 'redriven'";
        let rows = sqlx::query_scalar::<_, i64>(query)
            .bind(&lane.projection)
            .bind(lane.version.cast_signed())
            .bind(&lane.topic)
            .bind(lane.partition)
            .bind(log.0)
            .fetch_all(&self.pool)
            .await
            .map_err(|source| VerifyError::Sql { what: format!("reading the ledger of {lane}"), source })?;
        Ok(rows.into_iter().collect())
    }
}
