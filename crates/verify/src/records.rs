//! Rows of records, events or not, against the log, mapped again.
//!
//! There are few of them beside history (dead letters), so every row is compared with its record: no counts and hashes. Rows
//! of a topic that was made anew since, or of records that retention took, are not looked at: the log tells of neither.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::LogId;
use fleetlog_projection::{PlacedRow, RecordPlace, RecordProjector, Table};

use crate::{
    HistoryStore, Kind, Log, Report, Topic, VerifyError, VerifySettings,
    progress::{Lane, LaneSource, await_progress},
    row::{Fields, difference, fields, shown, sql_forms},
    states::at,
};

/// Maps the records of every topic again and compares with the rows in SQL.
///
/// Works while the projection runs: rows below the progress read at the start do not change any more. That there is nothing to
/// compare is no fault here: topics without a record and a table without a row agree.
///
/// # Errors
/// When log or store cannot be read. Differences are no error: see [`Report::is_clean`].
pub async fn verify_records<P, L>(
    projector: &P,
    log: &L,
    store: &HistoryStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: RecordProjector<Write: PlacedRow>,
    L: Log,
{
    let mut report = Report::new(P::ID, P::VERSION, settings).that_may_be_idle(true);
    for &stem in P::TOPICS {
        let topic = log.topic(stem).await?;
        let lanes = await_progress(P::ID, P::VERSION, &topic, store, settings, &mut report).await?;
        let recount = Recount { projector, log, store, stem, topic: &topic, table: P::Write::TABLE };
        for lane in &lanes {
            recount.lane(lane, settings.range_offsets, &mut report).await?;
        }
        recount.beyond_the_end(&mut report).await?;
    }
    Ok(report)
}

struct Recount<'a, P, L> {
    projector: &'a P,
    log: &'a L,
    store: &'a HistoryStore,
    stem: &'static str,
    topic: &'a Topic,
    table: &'static Table,
}

/// Rows by the offset of their record.
type Rows = BTreeMap<i64, Vec<Fields>>;

impl<P, L> Recount<'_, P, L>
where
    P: RecordProjector<Write: PlacedRow>,
    L: Log,
{
    async fn lane(&self, lane: &Lane, range_offsets: i64, report: &mut Report) -> Result<(), VerifyError> {
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let mut from = lane.low;
        while from < lane.to {
            let to = lane.to.min(from + range_offsets);
            let mut expected = self.expected(lane, from, to).await?;
            report.set_aside += named.range(from..to).count() as u64;
            expected.retain(|offset, _| !named.contains(offset));
            report.compared += expected.values().map(|rows| rows.len() as u64).sum::<u64>();
            let of = Placed { topic: &self.topic.name, log: self.topic.log, partition: lane.id.partition };
            let found = self.store.placed_rows(self.table, of, from, to).await?;
            compare(self.table, lane, &expected, &found, report);
            from = to;
        }
        Ok(())
    }

    /// The rows that the records of `[from, to)` make.
    async fn expected(&self, lane: &Lane, from: i64, to: i64) -> Result<Rows, VerifyError> {
        let (topic, log) = (&self.topic.name, self.topic.log);
        let place = RecordPlace { stem: self.stem, topic, log, partition: lane.id.partition };
        let mut batches = self.log.read(topic, place.partition, from, to);
        let (mut expected, mut made) = (Rows::new(), Vec::new());
        while let Some(batch) = batches.recv().await {
            for record in batch? {
                self.projector.map(&record, &place, &mut made);
                let rows = made.drain(..).map(|row| fields(&row)).collect::<Result<_, _>>()?;
                expected.insert(record.offset, rows);
            }
        }
        Ok(expected)
    }

    /// Rows of offsets that the log does not reach. Rows are looked for first: what is stored then was in the log before.
    async fn beyond_the_end(&self, report: &mut Report) -> Result<(), VerifyError> {
        for (partition, range) in self.topic.numbered() {
            let of = Placed { topic: &self.topic.name, log: self.topic.log, partition };
            let stored = self.store.placed_offsets(self.table, of, range.end).await?;
            if stored.is_empty() {
                continue;
            }
            let now = self.log.topic(self.stem).await?;
            let end = now.numbered().find(|(number, _)| *number == partition).map_or(0, |(_, now)| now.end);
            for offset in stored.into_iter().filter(|offset| *offset >= end) {
                report.differ(Kind::Extra, self.place(partition, offset), || {
                    format!("the log of partition {partition} ends at {end}")
                });
            }
        }
        Ok(())
    }

    fn place(&self, partition: i32, offset: i64) -> String {
        format!("{} {}/{partition}/{offset}", self.table.name, self.topic.name)
    }
}

fn compare(table: &Table, lane: &Lane, expected: &Rows, found: &Rows, report: &mut Report) {
    let offsets: BTreeSet<i64> = expected.keys().chain(found.keys()).copied().collect();
    let none = Vec::new();
    for offset in offsets {
        let mut expected = expected.get(&offset).unwrap_or(&none).iter();
        let mut found = found.get(&offset).unwrap_or(&none).iter();
        let at = || format!("{} {}", table.name, at(&lane.id, offset));
        loop {
            match (expected.next(), found.next()) {
                (None, None) => break,
                (Some(row), None) => {
                    report.differ(Kind::Missing, at(), || format!("no such row: {}", shown(table, row)));
                }
                (None, Some(row)) => report.differ(Kind::Extra, at(), || {
                    format!("the log makes no such row: {}", shown(table, row))
                }),
                (Some(row), Some(other)) if row == other => {}
                (Some(row), Some(other)) => {
                    report.differ(Kind::Different, at(), || difference(table, row, other));
                }
            }
        }
    }
}

/// Whose rows.
#[derive(Clone, Copy)]
struct Placed<'a> {
    topic: &'a str,
    log: LogId,
    partition: i32,
}

impl HistoryStore {
    /// The rows of `[from, to)` of a topic's partition, by offset.
    async fn placed_rows(
        &self,
        table: &Table,
        of: Placed<'_>,
        from: i64,
        to: i64,
    ) -> Result<Rows, VerifyError> {
        let sql = format!(
            "SELECT log_offset, ARRAY[{forms}]::bytea[] FROM \"{table}\" \
             WHERE topic = $1 AND log = $2 AND log_partition = $3 AND log_offset >= $4 AND log_offset < $5",
            forms = sql_forms(table)?.join(", "),
            table = table.name,
        );
        let query = sqlx::query_as::<_, (i64, Fields)>(&sql).bind(of.topic).bind(of.log.0).bind(of.partition);
        let rows = query.bind(from).bind(to).fetch_all(&self.pool).await.map_err(|source| {
            VerifyError::Sql { what: format!("reading `{}` from offset {from} on", table.name), source }
        })?;
        let mut by_offset = Rows::new();
        for (offset, fields) in rows {
            by_offset.entry(offset).or_default().push(fields);
        }
        Ok(by_offset)
    }

    /// The offsets of a topic's partition from `offset` on that have rows.
    async fn placed_offsets(
        &self,
        table: &Table,
        of: Placed<'_>,
        offset: i64,
    ) -> Result<Vec<i64>, VerifyError> {
        let sql = format!(
            "SELECT log_offset FROM \"{}\" \
             WHERE topic = $1 AND log = $2 AND log_partition = $3 AND log_offset >= $4 ORDER BY 1",
            table.name
        );
        let query = sqlx::query_scalar(&sql).bind(of.topic).bind(of.log.0).bind(of.partition).bind(offset);
        query.fetch_all(&self.pool).await.map_err(|source| VerifyError::Sql {
            what: format!("reading the end of `{}`", table.name),
            source,
        })
    }
}
