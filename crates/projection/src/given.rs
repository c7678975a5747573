//! Given / when / then: tests of a projector without a log, a wire or a store.
//!
//! ```
//! # use fleetlog_projection::given::{given, unit_meta};
//! # use fleetlog_event::{EntityKey, Recorded, Reject, robot::{Connected, RobotEvent}};
//! # use fleetlog_projection::{FoldProjector, HotWrite};
//! # struct Connects;
//! # impl FoldProjector for Connects {
//! #     const ID: &'static str = "connects";
//! #     type Event = RobotEvent; type Write = HotWrite; type State = u64;
//! #     fn home(&self, key: &EntityKey) -> String { format!("connects:{key}") }
//! #     fn apply(&self, n: &mut u64, _: &Recorded<RobotEvent>) -> Result<(), Reject> { *n += 1; Ok(()) }
//! #     fn writes(&self, _: &EntityKey, n: &u64, out: &mut Vec<HotWrite>) {
//! #         out.push(HotWrite::field("connects", n.to_string()));
//! #     }
//! # }
//! given(Connects)
//!     .event(Connected { meta: unit_meta("504", "1"), protocol: None })
//!     .event(Connected { meta: unit_meta("504", "1"), protocol: None })
//!     .then_state("s504.u1", |connects| assert_eq!(*connects, 2))
//!     .then_field("s504.u1", "connects", Some("2"));
//! ```
//! Events go the way they go in a lane: as records, decoded, checked (key, partition, values), projected; each state
//! is stored as JSON and read again. [`assert_cuts_do_not_matter`] is the property every projector has to have.

use std::{any::Any, collections::BTreeMap, fmt::Debug, sync::Arc};

use bytes::Bytes;
use fleetlog_event::{Decode, EntityKey, EventId, EventMeta, EventSet, LogId, Reason, Reject, TimestampMs};
use uuid::Uuid;

use crate::{
    EntityChange, Fold, FoldProjector, Headers, HotWrite, LaneScope, Map, MapProjector, Projected,
    Projection, Record, RecordMap, RecordProjector, RowChange, Rulings, StoredState,
};

/// The only lane there is here.
const SCOPE: LaneScope =
    LaneScope { topic: 0, log: LogId(Uuid::from_u128(0x91e4)), partition: 0, partitions: 1 };

/// The time of events made by [`unit_meta`]: 2024-01-01T00:00:00Z.
pub const START: TimestampMs = TimestampMs(1_704_067_200_000);

/// The head of an event about a unit, at [`START`].
#[must_use]
pub fn unit_meta(site_uid: &str, unit_uid: &str) -> EventMeta {
    EventMeta { unit_uid: Some(unit_uid.to_owned()), ..site_meta(site_uid) }
}

/// The head of an event that names no unit, at [`START`].
#[must_use]
pub fn site_meta(site_uid: &str) -> EventMeta {
    EventMeta {
        event_id: EventId::derived("given", 0),
        occurred_at: START,
        recorded_at: START,
        site_uid: site_uid.to_owned(),
        unit_uid: None,
        sequence: None,
        sequence_scope: None,
        source: "given/1".to_owned(),
        correlation_id: None,
        causation_id: None,
    }
}

/// The same head, so many ms later: at the source and in fleetlog.
#[must_use]
pub fn later(meta: EventMeta, by_ms: i64) -> EventMeta {
    let later = |time: TimestampMs| TimestampMs(time.0 + by_ms);
    EventMeta { occurred_at: later(meta.occurred_at), recorded_at: later(meta.recorded_at), ..meta }
}

type Maker = Arc<dyn Fn() -> Box<dyn Any> + Send + Sync>;

/// A log in memory, and the decoder of its records: no wire, so any event of any set can lie on it, also one that
/// could not be encoded.
#[derive(Clone, Default)]
pub struct MemoryLog {
    makers: Vec<Maker>,
    records: Vec<Record>,
}

impl MemoryLog {
    /// Appends an event under its own key, with `recorded_at` as the record's timestamp. Returns its offset.
    pub fn append<S: EventSet + Clone>(&mut self, event: S) -> i64 {
        let key = event.entity();
        self.append_under(event, key.as_str())
    }

    /// Appends an event under another key.
    pub fn append_under<S: EventSet + Clone>(&mut self, event: S, key: &str) -> i64 {
        let index = self.makers.len();
        let mut value = event.meta().event_id.0.as_bytes().to_vec();
        value.extend_from_slice(&index.to_le_bytes());
        let record = Record {
            offset: self.end(),
            timestamp: event.meta().recorded_at,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::from(value)),
            headers: Headers::default(),
        };
        let offset = record.offset;
        self.makers.push(Arc::new(move || Box::new(event.clone())));
        self.records.push(record);
        offset
    }

    /// Appends a record that is no event, or one that nobody can read.
    pub fn append_raw(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers,
        timestamp: TimestampMs,
    ) -> i64 {
        let own = |part: Option<&[u8]>| part.map(Bytes::copy_from_slice);
        let record = Record { offset: self.end(), timestamp, key: own(key), value: own(value), headers };
        let offset = record.offset;
        self.records.push(record);
        offset
    }

    fn end(&self) -> i64 {
        i64::try_from(self.records.len()).unwrap_or(i64::MAX)
    }

    /// Its records, in order; offsets count from 0.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

impl Decode for MemoryLog {
    fn decode<S: EventSet>(&self, payload: Option<&[u8]>) -> Result<S, Reject> {
        let index = payload.and_then(|p| p.get(16..)?.try_into().ok()).map(usize::from_le_bytes);
        let maker = index.and_then(|index| self.makers.get(index));
        let maker =
            maker.ok_or_else(|| Reject::new(Reason::Undecodable, "no record of this log in memory"))?;
        let foreign = |_| Reject::new(Reason::UnknownEventType, "an event of another set");
        maker().downcast::<S>().map(|event| *event).map_err(foreign)
    }

    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId> {
        Uuid::from_slice(payload?.get(..16)?).ok().map(EventId)
    }
}

/// What a projection made of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<W> {
    /// Entities by home, as they were last written.
    pub entities: BTreeMap<String, EntityChange<W>>,
    /// Rows in log order.
    pub rows: Vec<RowChange<W>>,
    /// Set-asides by offset: why.
    pub set_aside: BTreeMap<i64, Reject>,
}

/// Begins a test of a fold.
pub fn given<P: FoldProjector>(projector: P) -> Given<Fold<P>>
where
    P::Write: Clone,
{
    Given::new(Fold::new(projector))
}

/// Begins a test of a map.
pub fn given_map<P: MapProjector>(projector: P) -> Given<Map<P>>
where
    P::Write: Clone,
{
    Given::new(Map(projector))
}

/// Begins a test of a projector of records, on topics without a prefix; every record lies on the first of them.
pub fn given_records<P: RecordProjector>(projector: P) -> Given<RecordMap<P>>
where
    P::Write: Clone,
{
    Given::new(RecordMap::new(projector, ""))
}

/// A projection and what it has made of the events given so far.
pub struct Given<P: Projection> {
    projection: P,
    log: MemoryLog,
    outcome: Outcome<P::Write>,
    /// Why the last event was rejected, if it was.
    last: Option<Reject>,
}

impl<P: Projection> Given<P>
where
    P::Write: Clone,
{
    fn new(projection: P) -> Self {
        let outcome = Outcome { entities: BTreeMap::new(), rows: Vec::new(), set_aside: BTreeMap::new() };
        Self { projection, log: MemoryLog::default(), outcome, last: None }
    }

    fn project_from(&mut self, from: usize) {
        let batch: Vec<&Record> = self.log.records()[from..].iter().collect();
        // A cache that is new each time: every state is read as it was stored.
        let mut cache = P::Cache::default();
        project_batch(&self.projection, &self.log, &batch, &mut cache, &mut self.outcome);
    }
}

/// Projects one batch as a lane does: reads the states it misses, projects, stores, tells the cache.
fn project_batch<P: Projection>(
    projection: &P,
    log: &MemoryLog,
    batch: &[&Record],
    cache: &mut P::Cache,
    outcome: &mut Outcome<P::Write>,
) where
    P::Write: Clone,
{
    for (key, home) in projection.missing(cache, batch) {
        let stored = outcome.entities.get(&home);
        let stored =
            stored.map(|entity| StoredState { version: entity.version, state: entity.state.clone() });
        if let Err(error) = projection.admit(cache, &SCOPE, key, stored) {
            panic!("`{}` cannot read its own state: {error}", projection.id());
        }
    }
    let projected = projection.project(&SCOPE, log, batch, &Rulings::default(), cache);
    let Projected { pending, rows, set_aside } = projected;
    for entity in projection.settle(cache, pending) {
        let after = entity.onto(outcome.entities.get(&entity.home));
        outcome.entities.insert(entity.home.clone(), after);
    }
    outcome.rows.extend(rows);
    outcome.set_aside.extend(set_aside.into_iter().map(|entry| (entry.record.offset, entry.reject)));
}

/// The events that a projection reads.
pub trait Reads {
    /// Their set.
    type Event: EventSet + Clone;
}

impl<P: FoldProjector<Event: Clone>> Reads for Fold<P> {
    type Event = P::Event;
}

impl<P: MapProjector<Event: Clone>> Reads for Map<P> {
    type Event = P::Event;
}

impl<P: Projection + Reads> Given<P>
where
    P::Write: Clone,
{
    /// An event that lies on the log and was taken.
    ///
    /// # Panics
    /// When the projector rejects it.
    #[must_use]
    pub fn event(self, event: impl Into<P::Event>) -> Self {
        self.when(event).then_taken()
    }

    /// Events of one type that lie on the log and were taken.
    #[must_use]
    pub fn events<E: Into<P::Event>>(self, events: impl IntoIterator<Item = E>) -> Self {
        events.into_iter().fold(self, Self::event)
    }

    /// An event arrives; a `then_` says what becomes of it.
    #[must_use]
    pub fn when(mut self, event: impl Into<P::Event>) -> Self {
        let offset = self.log.append(event.into());
        self.project_from(self.log.records().len() - 1);
        self.last = self.outcome.set_aside.get(&offset).cloned();
        self
    }

    /// The last event was taken.
    #[must_use]
    pub fn then_taken(self) -> Self {
        if let Some(reject) = &self.last {
            panic!("`{}` rejected the event: {reject}", self.projection.id());
        }
        self
    }

    /// The last event was rejected for that reason. That it left no trace is checked by
    /// [`assert_cuts_do_not_matter`].
    #[must_use]
    pub fn then_rejected(self, reason: Reason) -> Self {
        let found = self.last.as_ref().map(|reject| reject.reason);
        assert_eq!(found, Some(reason), "`{}`: {:?}", self.projection.id(), self.last);
        self
    }

    /// The text of the last rejection contains `part`.
    #[must_use]
    pub fn then_told(self, part: &str) -> Self {
        let detail = self.last.as_ref().map_or("", |reject| reject.detail.as_str());
        assert!(detail.contains(part), "`{detail}` does not contain `{part}`");
        self
    }

    /// Looks at everything that was made so far.
    pub fn then(self, look: impl FnOnce(&Outcome<P::Write>)) -> Self {
        look(&self.outcome);
        self
    }
}

impl<P: RecordProjector> Given<RecordMap<P>>
where
    P::Write: Clone,
{
    /// A record that lies on the log.
    #[must_use]
    pub fn record(mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers) -> Self {
        self.log.append_raw(key, value, headers, START);
        self.project_from(self.log.records().len() - 1);
        self
    }

    /// Looks at everything that was made so far.
    pub fn then_rows(self, look: impl FnOnce(&[RowChange<P::Write>])) -> Self {
        assert!(self.outcome.set_aside.is_empty(), "`{}` set something aside", self.projection.id());
        look(&self.outcome.rows);
        self
    }
}

impl<P: FoldProjector> Given<Fold<P>> {
    /// Looks at an entity's state.
    ///
    /// # Panics
    /// When no event of it was taken.
    pub fn then_state(self, key: &str, look: impl FnOnce(&P::State)) -> Self {
        look(
            &serde_json::from_slice(&self.entity(key).state)
                .unwrap_or_else(|e| panic!("state of `{key}`: {e}")),
        );
        self
    }

    fn entity(&self, key: &str) -> &EntityChange<P::Write> {
        let key = EntityKey::from(key);
        let entity = self.outcome.entities.values().find(|entity| entity.key == key);
        entity.unwrap_or_else(|| panic!("no event of `{key}` was taken"))
    }
}

impl<P: FoldProjector<Write = HotWrite>> Given<Fold<P>> {
    /// The entity's readable field has that value; none if it is absent.
    pub fn then_field(self, key: &str, field: &str, value: Option<&str>) -> Self {
        let mut found = None;
        for write in &self.entity(key).writes {
            match write {
                HotWrite::Field { name, value } if name == field => found = Some(value.as_deref()),
                _ => {}
            }
        }
        let found = found.unwrap_or_else(|| panic!("`{}` writes no field `{field}`", P::ID));
        assert_eq!(found, value, "field `{field}` of `{key}`");
        self
    }

    /// The entity's place in a list; none if it has none.
    pub fn then_ranked(self, key: &str, list: &str, score: Option<f64>) -> Self {
        let places = self.entity(key).writes.iter().filter_map(|write| match write {
            HotWrite::Ranked { list: name, member, score } if name == list && member == key => Some(*score),
            _ => None,
        });
        let found: Vec<Option<f64>> = places.collect();
        assert_eq!(found, [score], "places of `{key}` in `{list}`");
        self
    }

    /// From when on the store may forget the entity.
    pub fn then_expires(self, key: &str, at: Option<TimestampMs>) -> Self {
        let expiries = self.entity(key).writes.iter().filter_map(|write| match write {
            HotWrite::ExpireAt(at) => Some(*at),
            _ => None,
        });
        assert_eq!(expiries.collect::<Vec<_>>(), [at], "expiry of `{key}`");
        self
    }
}

/// The result does not depend on how the log was cut into batches, on what a lane's cache still holds, or on whether
/// states went through the store; and a rejected event leaves no trace. Compares batches of `cuts` (cycled), with
/// caches dropped now and then, with one event at a time out of the store.
///
/// # Panics
/// With the two outcomes, when they differ.
pub fn assert_cuts_do_not_matter<P>(projection: &P, log: &MemoryLog, cuts: &[usize])
where
    P: Projection,
    P::Write: Clone + PartialEq + Debug,
{
    let one_by_one = outcome_of(projection, log, &[1], true);
    let cut = outcome_of(projection, log, cuts, false);
    assert_eq!(
        cut,
        one_by_one,
        "`{}`: batches of {cuts:?} (left) against one event at a time (right)",
        projection.id()
    );
    let offsets_taken: Vec<i64> =
        log.records().iter().map(|r| r.offset).filter(|o| !one_by_one.set_aside.contains_key(o)).collect();
    let without = outcome_without(projection, log, &offsets_taken);
    assert_eq!(without, cut.entities, "`{}`: rejected events left a trace (right)", projection.id());
}

fn outcome_of<P: Projection>(
    projection: &P,
    log: &MemoryLog,
    cuts: &[usize],
    forget: bool,
) -> Outcome<P::Write>
where
    P::Write: Clone,
{
    let mut outcome = Outcome { entities: BTreeMap::new(), rows: Vec::new(), set_aside: BTreeMap::new() };
    let mut cache = P::Cache::default();
    let mut rest = log.records();
    for (round, cut) in cuts.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (batch, tail) = rest.split_at((*cut).clamp(1, rest.len()));
        if forget || round % 3 == 2 {
            cache = P::Cache::default();
        }
        let batch: Vec<&Record> = batch.iter().collect();
        project_batch(projection, log, &batch, &mut cache, &mut outcome);
        rest = tail;
    }
    outcome
}

/// The entities of a log in which only `offsets` lie.
fn outcome_without<P: Projection>(
    projection: &P,
    log: &MemoryLog,
    offsets: &[i64],
) -> BTreeMap<String, EntityChange<P::Write>>
where
    P::Write: Clone,
{
    let mut outcome = Outcome { entities: BTreeMap::new(), rows: Vec::new(), set_aside: BTreeMap::new() };
    let batch: Vec<&Record> =
        log.records().iter().filter(|r| offsets.binary_search(&r.offset).is_ok()).collect();
    project_batch(projection, log, &batch, &mut P::Cache::default(), &mut outcome);
    outcome.entities
}
