//! History against the log, mapped again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetlog_event::{EventSet, Recorded};
use fleetlog_projection::{HistoryRow, MapProjector, Table};

use crate::{
    HistoryStore, Kind, Log, Report, Topic, VerifyError, VerifySettings,
    history_store::{RangeId, Sum},
    judged::{self, Judged, Part},
    progress::{Lane, LaneSource, await_progress},
    row::{Fields, difference, fields, hash, shown},
    settled::settled,
    states::{at, not_set_aside},
};

/// Maps the log again and compares with the rows in SQL: by count and hash per range of offsets, and row by row in
/// the ranges where these differ.
///
/// Works while the projection runs: rows below the progress read at the start do not change any more. A table that no
/// event of a topic was mapped to cannot be known, and is not looked at.
///
/// Events that are redriven meanwhile are no differences: then it is counted once more.
///
/// # Errors
/// When log or store cannot be read. Differences are no error: see [`Report::is_clean`].
pub async fn verify_map<P, L>(
    projector: &P,
    log: &L,
    store: &HistoryStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: MapProjector<Write: HistoryRow>,
    L: Log,
{
    let lanes = (P::ID, P::VERSION, P::Event::TOPICS);
    settled(log, store, lanes, async || recount(projector, log, store, settings).await).await
}

async fn recount<P, L>(
    projector: &P,
    log: &L,
    store: &HistoryStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: MapProjector<Write: HistoryRow>,
    L: Log,
{
    let mut report = Report::new(P::ID, P::VERSION, settings).that_may_be_idle(P::MAY_BE_IDLE);
    for stem in P::Event::TOPICS {
        let topic = log.topic(stem).await?;
        let lanes = await_progress(P::ID, P::VERSION, &topic, store, settings, &mut report).await?;
        let mut recount = Recount {
            projector,
            log,
            store,
            settings,
            stem,
            topic: &topic,
            report: &mut report,
            tables: BTreeMap::new(),
        };
        let expected = recount.expected(&lanes).await?;
        recount.compare(&lanes, &expected).await?;
        recount.beyond_the_end().await?;
    }
    Ok(report)
}

struct Recount<'a, P, L> {
    projector: &'a P,
    log: &'a L,
    store: &'a HistoryStore,
    settings: &'a VerifySettings,
    stem: &'a str,
    topic: &'a Topic,
    report: &'a mut Report,
    /// Tables that the topic's events were mapped to.
    tables: BTreeMap<&'static str, &'static Table>,
}

type Sums = HashMap<(&'static str, RangeId), Sum>;

impl<P, L> Recount<'_, P, L>
where
    P: MapProjector<Write: HistoryRow>,
    L: Log,
{
    /// Count and hash of every range, by the log.
    async fn expected(&mut self, lanes: &[Lane]) -> Result<Sums, VerifyError> {
        let (mut sums, mut failed) = (Sums::new(), None);
        for lane in lanes {
            let named = self.store.ledger(&lane.id, self.topic.log).await?;
            let mut unseen: BTreeSet<i64> = named.range(lane.low..lane.to.max(lane.low)).copied().collect();
            let part = Part { topic: self.topic, partition: lane.id.partition, from: lane.low, to: lane.to };
            let (report, projector, tables) = (&mut *self.report, self.projector, &mut self.tables);
            let mut rows = Vec::new();
            judged::each::<L, P::Event>(self.log, part, |offset, judged| {
                let mapped = match judged {
                    Judged::Duplicate => {
                        report.duplicates += 1;
                        return;
                    }
                    _ if named.contains(&offset) => {
                        unseen.remove(&offset);
                        report.set_aside += 1;
                        return;
                    }
                    Judged::Rejected(reject) => Err(reject),
                    Judged::Event(event) => projector.map(&event, &mut rows),
                };
                if let Err(reject) = mapped {
                    rows.clear();
                    not_set_aside(report, &lane.id, offset, &reject);
                    return;
                }
                for row in rows.drain(..) {
                    report.compared += 1;
                    let table = row.table();
                    tables.insert(table.name, table);
                    let range = (lane.id.partition, offset / self.settings.range_offsets);
                    let sum = sums.entry((table.name, range)).or_default();
                    sum.rows += 1;
                    match fields(&row).and_then(|fields| hash(table, &fields)) {
                        Ok(hash) => sum.hashes += u128::from(hash.unsigned_abs()),
                        Err(error) => failed = Some(error),
                    }
                }
            })
            .await?;
            for offset in unseen.into_iter().filter(|offset| !lane.is_cut_near(*offset, self.topic)) {
                self.report.differ(Kind::Extra, at(&lane.id, offset), || {
                    "the ledger names it, but the log has no event there, or a duplicate".to_owned()
                });
            }
        }
        failed.map_or(Ok(sums), Err)
    }

    /// Compares the sums, and row by row where they differ.
    async fn compare(&mut self, lanes: &[Lane], expected: &Sums) -> Result<(), VerifyError> {
        for table in self.tables.clone().into_values() {
            let found = self.store.sums(table, lanes, self.settings.range_offsets).await?;
            let of_table = expected.keys().filter(|(name, _)| *name == table.name).map(|(_, range)| *range);
            let ranges: BTreeSet<RangeId> = of_table.chain(found.keys().copied()).collect();
            for range in ranges {
                let expected = expected.get(&(table.name, range)).copied().unwrap_or_default();
                let found = found.get(&range).copied().unwrap_or_default();
                if expected != found {
                    self.compare_rows(table, lanes, range).await?;
                }
            }
        }
        Ok(())
    }

    async fn compare_rows(
        &mut self,
        table: &'static Table,
        lanes: &[Lane],
        range: RangeId,
    ) -> Result<(), VerifyError> {
        let (partition, number) = range;
        let Some(lane) = lanes.iter().find(|lane| lane.id.partition == partition) else { return Ok(()) };
        let from = lane.low.max(number * self.settings.range_offsets);
        let to = lane.to.min((number + 1) * self.settings.range_offsets);
        let mut found = self.store.rows(table, partition, from, to).await?;
        let mut expected = self.mapped_rows(table, lane, from, to).await?;
        let offsets: BTreeSet<i64> = found.keys().chain(expected.keys()).copied().collect();
        for offset in offsets {
            let mut found = found.remove(&offset).unwrap_or_default();
            let mut expected = expected.remove(&offset).unwrap_or_default();
            expected.retain(|row| match found.iter().position(|other| other == row) {
                Some(same) => {
                    found.swap_remove(same);
                    false
                }
                None => true,
            });
            self.tell(table, lane, offset, expected, found);
        }
        Ok(())
    }

    /// The rows of `[from, to)` that the log makes for a table, by offset.
    async fn mapped_rows(
        &self,
        table: &'static Table,
        lane: &Lane,
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<i64, Vec<Fields>>, VerifyError> {
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let part = Part { topic: self.topic, partition: lane.id.partition, from, to };
        let (mut by_offset, mut failed) = (BTreeMap::<i64, Vec<Fields>>::new(), None);
        judged::each::<L, P::Event>(self.log, part, |offset, judged| {
            let Judged::Event(event) = judged else { return };
            if named.contains(&offset) {
                return;
            }
            match rows_of(self.projector, &event, table) {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => drop(by_offset.insert(offset, rows)),
                Err(error) => failed = Some(error),
            }
        })
        .await?;
        failed.map_or(Ok(by_offset), Err)
    }

    /// Tells what is left when equal rows of an offset are taken away on both sides.
    fn tell(&mut self, table: &Table, lane: &Lane, offset: i64, expected: Vec<Fields>, found: Vec<Fields>) {
        let at = || format!("{} {}/{offset}", table.name, lane.id.partition);
        let (mut expected, mut found) = (expected.into_iter(), found.into_iter());
        loop {
            match (expected.next(), found.next()) {
                (None, None) => return,
                (Some(_), None) if lane.is_cut_near(offset, self.topic) => self.report.untold += 1,
                (Some(row), None) => {
                    self.report
                        .differ(Kind::Missing, at(), || format!("no such row: {}", shown(table, &row)));
                }
                (None, Some(row)) => {
                    self.report.differ(Kind::Extra, at(), || {
                        format!("the log makes no such row: {}", shown(table, &row))
                    });
                }
                (Some(row), Some(other)) => {
                    self.report.differ(Kind::Different, at(), || difference(table, &row, &other));
                }
            }
        }
    }

    /// Rows of offsets that the log does not reach. Rows are looked for first: what is stored then was in the log
    /// before.
    async fn beyond_the_end(&mut self) -> Result<(), VerifyError> {
        for table in self.tables.clone().into_values() {
            let last = self.store.last_offsets(table).await?;
            let now = self.log.topic(self.stem).await?;
            for (partition, last) in last {
                let index = usize::try_from(partition).unwrap_or(usize::MAX);
                let end = now.partitions.get(index).map_or(0, |range| range.end);
                if last < end {
                    continue;
                }
                for offset in self.store.offsets_from(table, partition, end).await? {
                    self.report.differ(Kind::Extra, format!("{} {partition}/{offset}", table.name), || {
                        format!("the log of partition {partition} ends at {end}")
                    });
                }
            }
        }
        Ok(())
    }
}

fn rows_of<P: MapProjector<Write: HistoryRow>>(
    projector: &P,
    event: &Recorded<P::Event>,
    table: &Table,
) -> Result<Vec<Fields>, VerifyError> {
    let mut rows = Vec::new();
    if projector.map(event, &mut rows).is_err() {
        // Told when the ranges were summed up.
        return Ok(Vec::new());
    }
    rows.iter().filter(|row| row.table().name == table.name).map(fields).collect()
}
