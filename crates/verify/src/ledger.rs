//! A fold's rows in SQL against the fold of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetlog_event::{EntityKey, EventSet, partition_of};
use fleetlog_projection::{EntityRow, FoldProjector, Table};
use serde_json::Value;

use crate::{
    HistoryStore, Kind, Log, Report, Topic, VerifyError, VerifySettings,
    entity::{Expected, Look, is_told},
    ledger_store::StoredRow,
    progress::{Lane, LaneSource, await_progress},
    row::{Fields, difference, fields},
    settled::settled,
    states::{self, Ahead},
};

/// Rows read in one call.
const ROWS_PER_READ: usize = 1000;

/// Folds the log and compares every entity with its row: version, exact state, and every column that people read.
///
/// Works while the projection runs: progress is read first, then the rows, then the set-asides; an entity that is
/// further than that progress is compared at its own version, for which the log is read on. Expected states of one
/// partition are held in memory at a time.
///
/// Events that are redriven meanwhile are no differences: then it is counted once more.
///
/// # Errors
/// When log or store cannot be read. Differences are no error: see [`Report::is_clean`].
pub async fn verify_ledger<P, L>(
    projector: &P,
    log: &L,
    store: &HistoryStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: FoldProjector<Write: EntityRow>,
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
    P: FoldProjector<Write: EntityRow>,
    L: Log,
{
    let topic = log.topic(P::Event::TOPICS[0]).await?;
    let mut report = Report::new(P::ID, P::VERSION, settings);
    let lanes = await_progress(P::ID, P::VERSION, &topic, store, settings, &mut report).await?;
    let mut found: HashMap<i32, BTreeSet<String>> = HashMap::new();
    for key in store.keys(P::Write::TABLE).await? {
        found.entry(partition_of(key.as_bytes(), topic.count())).or_default().insert(key);
    }
    let mut recount = Recount { projector, log, store, topic: &topic, report };
    for lane in lanes {
        let found = found.remove(&lane.id.partition).unwrap_or_default();
        recount.lane(&lane, found).await?;
    }
    Ok(recount.report)
}

struct Recount<'a, P, L> {
    projector: &'a P,
    log: &'a L,
    store: &'a HistoryStore,
    topic: &'a Topic,
    report: Report,
}

impl<P, L> Recount<'_, P, L>
where
    P: FoldProjector<Write: EntityRow>,
    L: Log,
{
    const TABLE: &'static Table = <P::Write as EntityRow>::TABLE;

    async fn lane(&mut self, lane: &Lane, mut found: BTreeSet<String>) -> Result<(), VerifyError> {
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let part = (lane, self.topic);
        let expected = states::fold_part(self.projector, self.log, part, &named, &mut self.report).await?;
        for key in expected.keys() {
            found.remove(key.as_str());
        }
        let unknown = found.into_iter().map(|name| (EntityKey::from(name), None));
        let mut entities: Vec<_> =
            expected.into_iter().map(|(key, expected)| (key, Some(expected))).chain(unknown).collect();
        entities.sort_by(|a, b| a.0.cmp(&b.0));
        let mut ahead = BTreeMap::new();
        let mut entities = entities.into_iter();
        loop {
            let chunk: Vec<_> = entities.by_ref().take(ROWS_PER_READ).collect();
            if chunk.is_empty() {
                break;
            }
            let keys: Vec<&str> = chunk.iter().map(|(key, _)| key.as_str()).collect();
            let mut stored = self.store.entities(Self::TABLE, &keys).await?;
            for (key, expected) in chunk {
                let Some(row) = stored.remove(key.as_str()) else {
                    self.no_row(&key, expected.is_some());
                    continue;
                };
                if let Look::Ahead(next) = self.look(lane, &key, expected.as_ref(), &row, lane.to)? {
                    ahead.insert(key, Ahead { next, expected, seen: row });
                }
            }
        }
        if ahead.is_empty() { Ok(()) } else { self.compare_ahead(lane, ahead).await }
    }

    fn no_row(&mut self, key: &EntityKey, is_expected: bool) {
        // One that was unknown, and whose row has gone since its key was read, is in order.
        if is_expected {
            self.report.compared += 1;
            self.report.differ(Kind::Missing, at(Self::TABLE, key), || "there is no such row".to_owned());
        }
    }

    /// Reads the log on for entities that took more than it, and compares each at its own version.
    async fn compare_ahead(
        &mut self,
        lane: &Lane,
        mut ahead: BTreeMap<EntityKey, Ahead<P::State, StoredRow>>,
    ) -> Result<(), VerifyError> {
        // After the rows: a set-aside is entered with what the entity's version covers.
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let part = (lane, self.topic);
        let end =
            states::read_on(self.projector, self.log, part, &named, &mut ahead, &mut self.report).await?;
        for (key, entity) in ahead {
            if entity.next > end {
                self.report.compared += 1;
                self.report.differ(Kind::Different, at(Self::TABLE, &key), || {
                    format!("its version is at offset {}, the log ends at {end}", entity.next)
                });
                continue;
            }
            self.look(lane, &key, entity.expected.as_ref(), &entity.seen, i64::MAX)?;
        }
        Ok(())
    }

    /// Looks at an entity's row. `to` is how far the log was folded.
    fn look(
        &mut self,
        lane: &Lane,
        key: &EntityKey,
        expected: Option<&Expected<P::State>>,
        stored: &StoredRow,
        to: i64,
    ) -> Result<Look, VerifyError> {
        let is_of_lane = (stored.log, stored.partition) == (self.topic.log, lane.id.partition);
        if is_of_lane && stored.next > to {
            return Ok(Look::Ahead(stored.next));
        }
        let Some(expected) = expected else {
            if lane.low > 0 && stored.next <= lane.low {
                self.report.untold += 1;
            } else {
                self.report.differ(Kind::Extra, at(Self::TABLE, key), || {
                    format!("the log has no such entity (its version: {})", stored.next)
                });
            }
            return Ok(Look::Done);
        };
        if stored.next < expected.next && lane.is_cut_near(expected.next - 1, self.topic) {
            self.report.untold += 1;
            return Ok(Look::Done);
        }
        self.report.compared += 1;
        let difference = if is_of_lane {
            self.compare(lane, key, expected, stored)?
        } else {
            let (log, partition) = (stored.log, stored.partition);
            let right = format!("{}/{}", self.topic.log, lane.id.partition);
            Some((Kind::Different, format!("it was folded from {log}/{partition}, not {right}")))
        };
        if let Some((kind, what)) = difference {
            self.report.differ(kind, at(Self::TABLE, key), || what);
        }
        Ok(Look::Done)
    }

    /// How a row of this lane differs from what the log says, if it does.
    fn compare(
        &self,
        lane: &Lane,
        key: &EntityKey,
        expected: &Expected<P::State>,
        stored: &StoredRow,
    ) -> Result<Option<(Kind, String)>, VerifyError> {
        let last = expected.next - 1;
        if stored.next < expected.next {
            let what = format!(
                "the event at offset {last} is neither taken nor set aside: its version is at {}, progress is at {}",
                stored.next, lane.progress
            );
            return Ok(Some((Kind::Missing, what)));
        }
        if stored.next > expected.next {
            let what = format!(
                "its version is at {}, but the last event that counts is at offset {last}",
                stored.next
            );
            return Ok(Some((Kind::Different, what)));
        }
        // Where retention cut the log, the store may know more: what was said before the cut and never since.
        let cut = lane.low > 0;
        let mut wrong = Vec::new();
        let state = serde_json::to_value(&expected.state).unwrap_or(Value::Null);
        let is_right = serde_json::from_str(&stored.state).is_ok_and(|stored| is_told(&state, &stored, cut));
        if !is_right {
            wrong.push(format!("`fold_state` is {}, the log says {state}", stored.state));
        }
        let row = self.row(key, &expected.state)?;
        let found: Fields = if cut { untold_left_out(&row, &stored.fields) } else { stored.fields.clone() };
        if row != found {
            wrong.push(difference(Self::TABLE, &row, &found));
        }
        Ok((!wrong.is_empty()).then(|| (Kind::Different, wrong.join("; "))))
    }

    /// The columns as the projector writes them.
    fn row(&self, key: &EntityKey, state: &P::State) -> Result<Fields, VerifyError> {
        let mut writes = Vec::new();
        self.projector.writes(key, state, &mut writes);
        match writes.as_slice() {
            [row] => fields(row),
            other => {
                let (id, rows) = (P::ID, other.len());
                Err(VerifyError::Malformed(format!(
                    "projection `{id}` makes {rows} rows of `{key}`, not one"
                )))
            }
        }
    }
}

/// What is stored, without what the log does not tell of.
fn untold_left_out(expected: &Fields, stored: &Fields) -> Fields {
    expected.iter().zip(stored).map(|(told, found)| told.as_ref().and(found.clone())).collect()
}

fn at(table: &Table, key: &EntityKey) -> String {
    format!("{} {key}", table.name)
}
