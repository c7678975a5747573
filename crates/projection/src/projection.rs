//! What a lane drives: a projector together with how its batches are projected.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::{Decode, EntityKey, EventSet, LogId, Position, Reason, Recorded, Reject, partition_of};

use crate::{EntityChange, Record, RowChange, SetAside, StoredState, mutant::wrongly_rejected};

/// Which part of the log a lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneScope {
    /// Which of the projection's topics, by its place in [`Projection::topics`].
    pub topic: usize,
    /// The topic's id.
    pub log: LogId,
    /// The lane's partition.
    pub partition: i32,
    /// How many partitions the topic has.
    pub partitions: i32,
}

/// What was decided about positions of a batch before it is projected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rulings {
    /// Offsets that the ledger names already: not taken, not judged again.
    pub named: BTreeSet<i64>,
    /// Offsets whose rows the store refused in an earlier try of this batch, and what it said.
    pub refused: BTreeMap<i64, String>,
}

/// A batch, projected.
#[derive(Debug)]
pub struct Projected<W, P> {
    /// New states of the entities that the batch touched (fold): to be taken into the cache.
    pub pending: P,
    /// Rows added (map), in log order.
    pub rows: Vec<RowChange<W>>,
    /// Events not taken, in log order.
    pub set_aside: Vec<SetAside>,
}

/// By how many bytes memory grew, or shrank, by the rules of [`Projection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// What the states in the cache take.
    pub cached_bytes: isize,
    /// What it takes beside the cache to have touched entities, until they are written.
    pub touched_bytes: isize,
    /// What a write of all entities touched will take, from [`Projection::changes`] to the store's answer.
    pub write_bytes: isize,
}

/// A stored state that this projection cannot go on from: Permanent.
#[derive(Debug, thiserror::Error)]
pub enum BadState {
    /// The state's JSON is not this version's.
    #[error(
        "the stored state at `{home}` cannot be read: {source}; rebuild the projection, or raise its VERSION"
    )]
    Unreadable {
        /// Where it lives.
        home: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The state was folded from another log or partition.
    #[error(
        "the stored state at `{home}` was folded from {found}, this lane reads {expected}; rebuild, or adopt"
    )]
    OtherLog {
        /// Where it lives.
        home: String,
        /// log/partition of the state.
        found: String,
        /// log/partition of the lane.
        expected: String,
    },
}

/// A read model as a lane drives it. Implemented by [`crate::Map`], [`crate::Fold`] and [`crate::RecordMap`], not by
/// authors.
///
/// What is about states is written for a projection that has none; [`crate::Fold`] has them, and writes all of it anew.
pub trait Projection: Send + Sync + 'static {
    /// What it writes.
    type Write: Send + Sync + 'static;
    /// States of entities that a lane keeps between batches, as the log has them up to what was folded last. Dropped
    /// as a whole when the chain is broken.
    type Cache: Default + Send + Sync + 'static;
    /// New states of one batch.
    type Pending: Send + 'static;
    /// Which entities were folded and not written yet.
    type Touched: Default + Send + Sync + 'static;
    /// Whether it decodes records, so that their schemas have to be looked up before [`Self::project`].
    const READS_EVENTS: bool = true;

    /// The projection's ID.
    fn id(&self) -> &'static str;
    /// The projection's VERSION.
    fn version(&self) -> u32;
    /// Stems of the topics it reads.
    fn topics(&self) -> &'static [&'static str];

    /// Where the state of an entity lives; none where there are no states (a map).
    fn home(&self, _key: &EntityKey) -> Option<String> {
        None
    }

    /// The entities of the batch whose states have to be read before [`Self::project`], each once, with their homes.
    fn missing(&self, _cache: &Self::Cache, _records: &[&Record]) -> Vec<(EntityKey, String)> {
        Vec::new()
    }

    /// Takes a state that was read (or its absence) into the cache; by how many bytes that grew.
    ///
    /// # Errors
    /// When the state is not one to go on from.
    fn admit(
        &self,
        _cache: &mut Self::Cache,
        _scope: &LaneScope,
        _key: EntityKey,
        _stored: Option<StoredState>,
    ) -> Result<usize, BadState> {
        Ok(0)
    }

    /// Projects the records of a batch (duplicates already dropped). Pure.
    fn project<D: Decode>(
        &self,
        scope: &LaneScope,
        decode: &D,
        records: &[&Record],
        rulings: &Rulings,
        cache: &Self::Cache,
    ) -> Projected<Self::Write, Self::Pending>;

    /// Takes the new states of a batch into the cache, ahead of their being written: batches are folded one onto the
    /// other while an earlier write is under way, and each entity is written once for all of them. Says what that
    /// takes of memory.
    fn fold_ahead(
        &self,
        _cache: &mut Self::Cache,
        _touched: &mut Self::Touched,
        _pending: Self::Pending,
    ) -> Grown {
        Grown::default()
    }

    /// How many entities were touched.
    fn touched_entities(&self, _touched: &Self::Touched) -> usize {
        0
    }

    /// What to write of the entities touched, as the cache has them, in the order in which they were first touched: of as
    /// many as a write of `bytes_max` bytes takes, one at least, and these are taken out of `touched`. From then on the
    /// cache takes it for written: so either it is, or the cache goes.
    fn changes(
        &self,
        _cache: &mut Self::Cache,
        _touched: &mut Self::Touched,
        _bytes_max: usize,
    ) -> Vec<EntityChange<Self::Write>> {
        Vec::new()
    }

    /// Forgets states of about so many bytes, none that is not written; of how many indeed. They can be read again.
    fn forget(&self, _cache: &mut Self::Cache, _bytes: usize) -> usize {
        0
    }

    /// Forgets what is known of an entity, which is written: it is read again when it is needed. Of how many bytes.
    fn forget_entity(&self, _cache: &mut Self::Cache, _key: &EntityKey) -> usize {
        0
    }

    /// Folds one batch and says what to write of it: for those who write batch by batch.
    fn settle(&self, cache: &mut Self::Cache, pending: Self::Pending) -> Vec<EntityChange<Self::Write>> {
        let mut touched = Self::Touched::default();
        let _ = self.fold_ahead(cache, &mut touched, pending);
        self.changes(cache, &mut touched, usize::MAX)
    }
}

/// The text of the record's key.
///
/// # Errors
/// It has none, or one that is no text.
pub fn key_text_of(record: &Record) -> Result<&str, Reject> {
    match record.key_text() {
        Some(key) => Ok(key),
        None if record.key.is_none() => Err(Reject::new(Reason::NoKey, "the record has no key")),
        None => Err(Reject::new(Reason::NoKey, "the record's key is no UTF-8")),
    }
}

/// Decodes a record that lies in `scope` and checks what holds for every reader of events: the values, the key, the partition.
/// On error the event's type is given too, if it could be read.
///
/// # Errors
/// What is wrong with it.
pub fn read_event<D: Decode, S: EventSet>(
    scope: &LaneScope,
    decode: &D,
    record: &Record,
    key: EntityKey,
) -> Result<Recorded<S>, (Reject, Option<String>)> {
    let event: S = decode.decode(record.value.as_deref()).map_err(|reject| (reject, None))?;
    let typed = |reject| (reject, Some(event.event_type().name.to_owned()));
    let entity = event.entity();
    if entity != key {
        return Err(typed(Reject::new(
            Reason::WrongKey,
            format!("the record's key is `{key}`, the event is about `{entity}`"),
        )));
    }
    let partition = partition_of(key.as_str().as_bytes(), scope.partitions);
    if partition != scope.partition {
        let detail = format!(
            "key `{key}` belongs to partition {partition} of {}, the record lies in {}; set the producer's \
             partitioner to murmur2_random",
            scope.partitions, scope.partition
        );
        return Err(typed(Reject::new(Reason::WrongPartition, detail)));
    }
    event.validate().map_err(typed)?;
    let position = Position { log: scope.log, partition: scope.partition, offset: record.offset };
    Ok(Recorded { position, recorded_at: record.timestamp, key, event })
}

/// The same for a projection, with the mistakes that tests make in it.
pub(crate) fn read_event_for<D: Decode, S: EventSet>(
    projection: &'static str,
    scope: &LaneScope,
    decode: &D,
    record: &Record,
    key: EntityKey,
) -> Result<Recorded<S>, (Reject, Option<String>)> {
    let recorded: Recorded<S> = read_event(scope, decode, record, key)?;
    match wrongly_rejected(projection, &recorded.event) {
        None => Ok(recorded),
        Some(reject) => Err((reject, Some(recorded.event.event_type().name.to_owned()))),
    }
}

/// The rejection of a position whose row the store refused.
pub(crate) fn refused(detail: &str) -> Reject {
    Reject::new(Reason::RefusedByStore, detail)
}
