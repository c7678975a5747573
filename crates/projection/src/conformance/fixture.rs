//! An owner of a lane, and the model of what the store has to hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetlog_event::{EntityKey, LogId, Reason, Reject, TimestampMs};

use super::{Harness, WriteOf};
use crate::{
    Base, Chain, Commit, EntityChange, Fault, Headers, LaneId, LastRecord, Link, Progress, Record, RowChange,
    SetAside, Sink, SinkError, UnitOfWork, Version,
};

/// The log of every conformance test.
pub(super) const LOG: LogId = LogId(uuid_of(0xf1ee));

const fn uuid_of(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

/// What a unit of work does, before it has links.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// How many things (entities, rows) it writes, from the first on.
    pub things: i64,
    /// The value they show afterwards.
    pub value: i64,
    /// How many events it sets aside.
    pub set_aside: i64,
}

/// A plan that writes `things` things showing `value`.
pub(super) fn writes(things: i64, value: i64) -> Plan {
    Plan { things, value, set_aside: 0 }
}

impl Plan {
    /// The same, and `count` events set aside.
    pub(super) fn and_set_aside(self, count: i64) -> Self {
        Self { set_aside: count, ..self }
    }
}

/// An owner of a lane: its end of the chain and where it is.
pub(super) struct Owner<'h, H: Harness> {
    pub harness: &'h H,
    pub lane: LaneId,
    pub chain: Chain,
    pub main: i64,
    /// What it wrote last, by home: a lane says what of it is as it was.
    wrote: BTreeMap<String, Vec<WriteOf<H>>>,
}

impl<'h, H: Harness> Owner<'h, H> {
    /// The first owner of a lane never used before.
    pub(super) fn first(harness: &'h H) -> Self {
        Self::of(harness, harness.lane(), Chain::resume(1, None), 0)
    }

    /// An owner who goes on from there, and wrote nothing yet.
    pub(super) fn of(harness: &'h H, lane: LaneId, chain: Chain, main: i64) -> Self {
        Self { harness, lane, chain, main, wrote: BTreeMap::new() }
    }

    /// Another owner, who takes the lane up as the store has it now.
    pub(super) async fn takes_over(&self, sink: &H::Sink, nonce: u64) -> Self {
        let stored = sink.read(&self.lane, &[]).await.expect("the store answers");
        let main = stored.progress.map_or(0, |progress| progress.main);
        Self::of(self.harness, self.lane.clone(), Chain::resume(nonce, stored.link), main)
    }

    /// The home of the lane's `n`-th entity.
    pub(super) fn home(&self, n: i64) -> String {
        format!("conformance:{}:{n}", self.lane.topic)
    }

    /// The next unit of work, which goes on from this owner's progress. Its rows come first, then its set-asides.
    pub(super) fn unit(&mut self, plan: &Plan) -> UnitOfWork<WriteOf<H>> {
        let (follows, leaves) = self.chain.next();
        let first_set_aside = self.main + plan.things;
        let main = first_set_aside + plan.set_aside;
        let last = LastRecord { offset: main - 1, hash: u64::MAX - plan.value.unsigned_abs() };
        UnitOfWork {
            lane: self.lane.clone(),
            follows,
            leaves,
            progress: Progress { log: LOG, main, inbox: plan.value, last: (main > 0).then_some(last) },
            entities: if H::STORES_ENTITIES { self.entities(plan) } else { Vec::new() },
            rows: if H::STORES_ROWS { self.rows(plan) } else { Vec::new() },
            set_aside: (first_set_aside..main).map(set_aside).collect(),
            entries: Vec::new(),
            made_at: TimestampMs(1_700_000_000_000 + plan.value),
        }
    }

    fn entities(&self, plan: &Plan) -> Vec<EntityChange<WriteOf<H>>> {
        let entity = |n: i64| {
            let home = self.home(n);
            let writes = self.harness.entity_writes(&home, plan.value);
            let as_before = |before: &Vec<WriteOf<H>>| {
                Base::Written(writes.iter().zip(before).map(|(now, before)| now == before).collect())
            };
            EntityChange {
                base: self.wrote.get(&home).map_or(Base::Unknown, as_before),
                key: EntityKey::from(format!("entity-{n}")),
                version: Version {
                    log: LOG,
                    partition: self.lane.partition,
                    next: self.main + n + 1,
                    revision: 0,
                },
                state: plan.value.to_string().into_bytes(),
                writes,
                home,
            }
        };
        (0..plan.things).map(entity).collect()
    }

    fn rows(&self, plan: &Plan) -> Vec<RowChange<WriteOf<H>>> {
        let row = |n: i64| {
            let offset = self.main + n;
            RowChange { offset, write: self.harness.row(&self.lane, offset, plan.value) }
        };
        (0..plan.things).map(row).collect()
    }

    /// The unit was taken: the owner goes on behind it.
    pub(super) fn written(&mut self, unit: &UnitOfWork<WriteOf<H>>) {
        self.chain.written(unit.leaves);
        self.main = unit.progress.main;
        for entity in &unit.entities {
            let n = entity.home.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or_default();
            let value = String::from_utf8_lossy(&entity.state).parse().unwrap_or_default();
            debug_assert_eq!(self.home(n), entity.home);
            self.wrote.insert(entity.home.clone(), self.harness.entity_writes(&entity.home, value));
        }
    }
}

/// An event that was set aside, with bytes that are no text.
fn set_aside(offset: i64) -> SetAside {
    SetAside {
        record: Record {
            offset,
            timestamp: TimestampMs(offset),
            key: Some(Bytes::from(format!("entity-{offset}"))),
            value: Some(Bytes::from_static(&[0, 0xff, 0xfe])),
            headers: Headers::default(),
        },
        reject: Reject::new(Reason::Undecodable, format!("offset {offset}: `\"` and 'ä' are no trouble")),
        event_type: (offset % 2 == 0).then(|| "fleetlog.robot.Connected".to_owned()),
    }
}

/// What the store has to hold for a lane.
#[derive(Clone, Debug)]
pub(super) struct Model {
    lane: LaneId,
    link: Option<Link>,
    progress: Option<Progress>,
    entities: BTreeMap<String, (Version, i64)>,
    rows: BTreeMap<i64, i64>,
    ledger: BTreeMap<i64, String>,
}

impl Model {
    /// A lane that nobody wrote to.
    pub(super) fn empty(lane: &LaneId) -> Self {
        Self {
            lane: lane.clone(),
            link: None,
            progress: None,
            entities: BTreeMap::new(),
            rows: BTreeMap::new(),
            ledger: BTreeMap::new(),
        }
    }

    /// The unit is stored.
    pub(super) fn take<W>(&mut self, unit: &UnitOfWork<W>) {
        self.link = Some(unit.leaves);
        self.progress = Some(unit.progress);
        let value = unit.made_at.0 - 1_700_000_000_000;
        for change in &unit.entities {
            self.entities.insert(change.home.clone(), (change.version, value));
        }
        self.rows.extend(unit.rows.iter().map(|row| (row.offset, value)));
        let entries = unit.set_aside.iter();
        self.ledger.extend(entries.map(|entry| (entry.record.offset, entry.reject.reason.to_string())));
    }

    /// Asserts that the store holds exactly this.
    pub(super) async fn assert_held<H: Harness>(&self, harness: &H, sink: &H::Sink) {
        let homes: Vec<String> = self.entities.keys().cloned().collect();
        let stored = sink.read(&self.lane, &homes).await.expect("the store answers");
        assert_eq!(stored.link, self.link, "link");
        assert_eq!(stored.progress, self.progress, "progress");
        let from = self.progress.map_or(i64::MIN, |progress| progress.main);
        let named: Vec<i64> = self.ledger.range(from..).map(|(&offset, _)| offset).collect();
        let begun = sink.read(&self.lane, &[]).await.expect("the store answers");
        assert_eq!(sorted(begun.named), named, "named: ledger entries at or above progress");
        assert_eq!(stored.states.len(), homes.len(), "a state (or none) for each home asked for");
        // Readers are asked about the first and the last hundred: thousands of look-ups show nothing more.
        let shown = |i: usize| i < 100 || i + 100 > homes.len();
        for (i, (state, (home, &(version, value)))) in stored.states.iter().zip(&self.entities).enumerate() {
            let state = state.as_ref().unwrap_or_else(|| panic!("`{home}` has no state"));
            assert_eq!(state.version, version, "version of `{home}`");
            assert_eq!(state.state, value.to_string().into_bytes(), "state of `{home}`");
            if shown(i) {
                assert_eq!(harness.shown(home).await, Some(value), "what readers of `{home}` see");
            }
        }
        if H::STORES_ROWS {
            let expected: Vec<(i64, i64)> =
                self.rows.iter().map(|(&offset, &value)| (offset, value)).collect();
            assert_eq!(harness.rows(&self.lane).await, expected, "rows");
        }
        assert_eq!(harness.ledger(&self.lane).await, self.ledger, "ledger");
    }
}

fn sorted(mut offsets: Vec<i64>) -> Vec<i64> {
    offsets.sort_unstable();
    offsets
}

/// Commits and asserts that it was applied.
pub(super) async fn apply<H: Harness>(
    owner: &mut Owner<'_, H>,
    sink: &H::Sink,
    model: &mut Model,
    plan: &Plan,
) -> UnitOfWork<WriteOf<H>> {
    let unit = owner.unit(plan);
    assert_eq!(sink.commit(&unit).await.expect("the commit succeeds"), Commit::Applied);
    owner.written(&unit);
    model.take(&unit);
    unit
}

/// Asserts that a commit is fenced and says so with the fault.
pub(super) async fn assert_fenced<S: Sink>(sink: &S, unit: &UnitOfWork<S::Write>, why: &str) {
    match sink.commit(unit).await {
        Err(SinkError { fault: Fault::Fenced, .. }) => {}
        other => panic!("{why}: expected Fenced, got {other:?}"),
    }
}
