//! fleetlog's pure parts as workloads: nothing but the CPU is needed, and the same work is done each time.
//!
//! A workload calls the code of production: the codec, `Projection` as a lane drives it, the sink's encoding of rows. What it
//! works on is the same in every process: ids, times and the simulated fleet hang on constants alone. Each checks that its
//! events were taken: what is set aside costs less and is not what is measured.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
    hint::black_box,
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_codec::{Decoder, Encoder, NoSource, Prepared};
use fleetlog_event::{
    Decode as _, EventId, EventSet as _, FleetEvent, LogId, TimestampMs,
    catalogue::Catalogue,
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{
    DedupWindow, EntityChange, Fold, Headers, LaneScope, Map, Projection, Record, RowChange, Rulings,
    StoredState, Version,
};
use fleetlog_projections::{
    TaskStateProjector, TelemetryHistory, UnitConsensus, telemetry_history::TelemetryRow,
};
use fleetlog_simulate::Fleet;
use fleetlog_sink_timescale::{encode_chunk, in_index_order};
use uuid::Uuid;

use crate::telemetry::measurement;

/// Records of a batch.
const RECORDS: u32 = 10_000;
/// The only partition of the only log.
const SCOPE: LaneScope =
    LaneScope { topic: 0, log: LogId(Uuid::from_u128(0x91e4)), partition: 0, partitions: 1 };
/// 2024-01-01T00:00:00Z
const START: TimestampMs = TimestampMs(1_704_067_200_000);
/// Of the simulated fleet.
const FLEET_UNITS: u32 = 500;
const SEED: u64 = 7;

/// For callgrind's `--toggle-collect`: the name of [`Workload::counted`].
pub const COUNTED: &str = "*Workload::counted*";

/// One pure part, with everything that it needs made beforehand.
pub struct Workload {
    items: u64,
    once: Box<dyn FnMut()>,
}

impl Workload {
    fn new(items: usize, once: impl FnMut() + 'static) -> Self {
        Self { items: items as u64, once: Box::new(once) }
    }

    /// Events, records, states or rows of one go.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// One go.
    pub fn once(&mut self) {
        (self.once)();
    }

    /// So many goes that are counted: callgrind counts what is done in here, by the function's name ([`COUNTED`]).
    #[inline(never)]
    pub fn counted(&mut self, times: u64) {
        (0..times).for_each(|_| self.once());
    }
}

type Make = fn() -> Workload;

const ALL: [(&str, Make); 9] = [
    ("encode", encode),
    ("decode", decode),
    ("duplicates window", duplicates_window),
    ("fold unit-consensus, 100 units", || fold_known(100)),
    ("fold unit-consensus, 10,000 units", || fold_known(10_000)),
    ("fold unit-consensus, 10,000 states read", fold_read),
    ("fold task-state", fold_tasks),
    ("map telemetry-history", map_history),
    ("rows of telemetry-history for COPY", rows_for_copy),
];

/// The names of all, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// Makes the one of that name.
#[must_use]
pub fn named(name: &str) -> Option<Workload> {
    ALL.into_iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

/// Records of one partition, and what decodes them.
struct Log {
    records: Vec<Record>,
    prepared: Prepared,
}

impl Log {
    /// The events under their keys, from offset 0 on.
    fn of(events: impl IntoIterator<Item = FleetEvent>) -> Self {
        let encoder = Encoder::single_object();
        let record = |(offset, event): (i64, FleetEvent)| {
            let mut payload = Vec::new();
            encoder.encode_any(&event, &mut payload).expect("an event of ours fits its schema");
            Record {
                offset,
                timestamp: event.meta().recorded_at,
                key: Some(Bytes::copy_from_slice(event.entity().as_str().as_bytes())),
                value: Some(payload.into()),
                // No pure part looks at them.
                headers: Headers::default(),
            }
        };
        let records: Vec<Record> = (0..).zip(events).map(record).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
        let decoder = Decoder::new(Arc::new(NoSource));
        let prepare = decoder.prepare(records.iter().map(|record| record.value.as_deref()));
        let prepared = runtime.block_on(prepare).expect("schemas of ours are compiled in");
        Self { records, prepared }
    }

    /// A batch of measurements of so many units.
    fn of_units(units: u64) -> Self {
        Self::of(measurements(units).map(|event| FleetEvent::Telemetry(event.into())))
    }

    /// A batch of events of the simulated fleet's tasks.
    fn of_tasks() -> Self {
        let events = Fleet::new(FLEET_UNITS, SEED, START.0).map(|(_, event)| event);
        Self::of(events.filter(|event| matches!(event, FleetEvent::Task(_))).take(RECORDS as usize))
    }

    /// The same records once more, so many offsets further on.
    fn move_on(&mut self, by_offsets: i64) {
        self.records.iter_mut().for_each(|record| record.offset += by_offsets);
    }
}

fn measurements(units: u64) -> impl Iterator<Item = Telemetry> {
    (0..RECORDS).map(move |n| {
        let mut event = measurement(n.into(), units, START, EventId::derived("bench", n));
        event.meta.recorded_at = event.meta.occurred_at;
        event
    })
}

fn encode() -> Workload {
    let events: Vec<Telemetry> = measurements(1_000).collect();
    let (encoder, mut payload) = (Encoder::single_object(), Vec::new());
    Workload::new(events.len(), move || {
        for event in &events {
            payload.clear();
            encoder.encode(event, &mut payload).expect("an event of ours fits its schema");
            black_box(&payload);
        }
    })
}

fn decode() -> Workload {
    let Log { records, prepared } = Log::of_units(1_000);
    Workload::new(records.len(), move || {
        for record in &records {
            let event = prepared.decode::<TelemetryEvent>(record.value.as_deref());
            black_box(event.expect("an event of ours is read"));
        }
    })
}

fn duplicates_window() -> Workload {
    let mut log = Log::of_units(1_000);
    let catalogue = Catalogue::builtin();
    let span = catalogue.topic("telemetry").and_then(|topic| topic.dedup_window_offsets);
    let span = span.expect("a topic of events has a window");
    let mut window = DedupWindow::new(span);
    Workload::new(log.records.len(), move || {
        // Each record lies further on than the window is long, so the same ids are no duplicates, and the window is full.
        log.move_on(span + 1);
        let found = window.sift(&log.records, |record| log.prepared.event_id(record.value.as_deref()));
        assert!(!found.contains(&true), "a record was taken for a duplicate");
    })
}

/// States in a store, by their homes. Hashed without a seed: the same work in each process.
type States = HashMap<String, StoredState, BuildHasherDefault<DefaultHasher>>;

/// A batch as a lane takes it: what the cache lacks is read, the batch is projected, and each entity is written once.
fn step<P: Projection>(
    projection: &P,
    log: &Log,
    stored: &States,
    cache: &mut P::Cache,
) -> Vec<EntityChange<P::Write>> {
    let records: Vec<&Record> = log.records.iter().collect();
    for (key, home) in projection.missing(cache, &records) {
        let state = stored.get(&home).cloned();
        projection.admit(cache, &SCOPE, key, state).expect("a state of ours is read");
    }
    let projected = projection.project(&SCOPE, &log.prepared, &records, &Rulings::default(), cache);
    assert_eq!(projected.set_aside, [], "events were set aside");
    projection.settle(cache, projected.pending)
}

/// Units whose states are in the cache.
fn fold_known(units: u64) -> Workload {
    let (fold, stored) = (Fold::new(UnitConsensus), States::default());
    let (mut log, mut cache) = (Log::of_units(units), Default::default());
    step(&fold, &log, &stored, &mut cache);
    Workload::new(log.records.len(), move || {
        log.move_on(RECORDS.into());
        let changes = step(&fold, &log, &stored, &mut cache);
        assert_eq!(changes.len() as u64, units, "units were not written");
        black_box(changes);
    })
}

/// Units whose states have to be read first, one event each: what a lane does that just began, or whose units are more than
/// its cache takes.
fn fold_read() -> Workload {
    let fold = Fold::new(UnitConsensus);
    let log = Log::of_units(RECORDS.into());
    let written = step(&fold, &log, &States::default(), &mut Default::default());
    let stored: States = written
        .into_iter()
        .map(|change| {
            let version = Version { next: 0, ..change.version };
            (change.home, StoredState { version, state: change.state })
        })
        .collect();
    Workload::new(log.records.len(), move || {
        let changes = step(&fold, &log, &stored, &mut Default::default());
        assert_eq!(changes.len(), stored.len(), "units were not written");
        black_box(changes);
    })
}

/// Lives of tasks that nobody knew before.
fn fold_tasks() -> Workload {
    let (fold, log, stored) = (Fold::new(TaskStateProjector), Log::of_tasks(), States::default());
    Workload::new(log.records.len(), move || {
        black_box(step(&fold, &log, &stored, &mut Default::default()));
    })
}

fn rows(log: &Log) -> Vec<RowChange<TelemetryRow>> {
    let records: Vec<&Record> = log.records.iter().collect();
    let map = Map(TelemetryHistory);
    let projected = map.project(&SCOPE, &log.prepared, &records, &Rulings::default(), &());
    assert_eq!(projected.rows.len(), records.len(), "events were set aside");
    projected.rows
}

fn map_history() -> Workload {
    let log = Log::of_units(1_000);
    Workload::new(log.records.len(), move || drop(black_box(rows(&log))))
}

fn rows_for_copy() -> Workload {
    let rows = rows(&Log::of_units(1_000));
    Workload::new(rows.len(), move || {
        let sorted = in_index_order(&rows);
        let mut rest = &sorted[..];
        while !rest.is_empty() {
            let (taken, bytes) = encode_chunk(rest);
            black_box(bytes);
            rest = &rest[taken..];
        }
    })
}
