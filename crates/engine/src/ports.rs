//! What the engine uses without knowing who provides it. The binary connects them; tests put fakes here.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fleetlog_event::{
    Decode, EventId, TimestampMs,
    ops::{CircuitChanged, ProjectionHalted},
};
use fleetlog_kafka::{GroupOffsets, HeaderName};
use fleetlog_projection::{LogNow, Record};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::Receiver;

use crate::{DeadLetter, Failure};

/// Where writer schemas come from.
pub trait Schemas: Send + Sync + 'static {
    /// Decodes the records it was prepared for, without I/O.
    type Decode: Decode + Send + Sync;

    /// Looks up every schema that these records need. A schema that is denied for good is not an error here: the
    /// records that need it are rejected when decoded.
    ///
    /// # Errors
    /// A schema cannot be looked up now (Transient).
    fn prepare(&self, records: &[&Record]) -> impl Future<Output = Result<Self::Decode, Failure>> + Send;

    /// The event's identity, read without its schema.
    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId>;
}

/// Where dead letters go.
pub trait DeadLetters: Send + Sync + 'static {
    /// Sends dead letters and awaits the acknowledgement of every one.
    ///
    /// # Errors
    /// When one was not acknowledged; all of them may be sent again.
    fn publish<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), Failure>>;
}

/// What is known of a group's halts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The halt that nobody has answered.
    pub halt: Option<ProjectionHalted>,
    /// How often it was resumed, whether or not it was halted.
    pub resumes: u64,
    /// How many more events each lane may set aside before its breaker counts.
    pub set_asides_max: u64,
}

/// Which projections are halted: what all processes know, and what outlives each of them.
pub trait Halts: Send + Sync + 'static {
    /// What is known of a group now, read no earlier than this was called. Where nothing can be written down nothing is
    /// known, and that is no error.
    ///
    /// # Errors
    /// Transient if it cannot be read now.
    fn current<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Standing, Failure>>;

    /// Waits until something else is known than `known`.
    fn changed<'a>(&'a self, group: &'a str, known: &'a Standing) -> BoxFuture<'a, Standing>;

    /// Writes down that a group is halted, and awaits the acknowledgement. Written again it is the same halt.
    ///
    /// # Errors
    /// Transient when it was not acknowledged; Permanent where it cannot be written down, with what to do.
    fn halt<'a>(&'a self, halt: &'a ProjectionHalted) -> BoxFuture<'a, Result<(), Failure>>;
}

/// What is told of the circuits of handlers: in the order in which it happened, for whoever asks why nothing was delivered.
pub trait Circuits: Send + Sync + 'static {
    /// Whether the circuit of that group was last said to be open by the process of that name, as far as is known.
    fn is_open(&self, group: &str, who: &str) -> bool;

    /// Writes down that a circuit changed, and awaits the acknowledgement.
    ///
    /// # Errors
    /// Transient when it was not acknowledged; Permanent where it cannot be written down, with what to do.
    fn changed<'a>(&'a self, change: &'a CircuitChanged) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Every partition of some topics (physical name, partition) as it is now.
pub type LogFacts = BTreeMap<(String, i32), LogNow>;

/// A record on its way to a topic on which it waits: a retry tier, or what is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The topic's physical name.
    pub topic: String,
    /// Where its key does not say: of a record without one.
    pub partition: Option<i32>,
    /// The record's key, untouched.
    pub key: Option<Bytes>,
    /// The record's value, untouched.
    pub value: Option<Bytes>,
    /// Its headers, with those of its journey.
    pub headers: Vec<(HeaderName, Option<Bytes>)>,
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The partition.
    pub partition: i32,
    /// The time that the broker stamped it with; none where it did not tell.
    pub stamp: Option<TimestampMs>,
}

/// The topics on which a handler's events wait.
pub trait WaitingTopics: Send + Sync + 'static {
    /// Appends a record and awaits the acknowledgement of all in-sync replicas.
    ///
    /// # Errors
    /// When it was not acknowledged: Transient if it may be sent again, Permanent with what to do.
    fn append(&self, record: Onward) -> BoxFuture<'_, Result<Appended, Failure>>;
}

/// What the cluster says about logs.
pub trait Logs: Send + Sync + 'static {
    /// Every partition of the topics (physical names) as it is now; [`LaneScope::topic`](fleetlog_projection::LaneScope) is a
    /// topic's place among them.
    ///
    /// # Errors
    /// Transient if the brokers cannot be asked, Permanent if a topic does not exist.
    fn look<'a>(&'a self, topics: &'a [String]) -> BoxFuture<'a, Result<LogFacts, Failure>>;

    /// What a group has committed of topics (physical names); partitions without a commit are absent.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    fn committed<'a>(
        &'a self,
        group: &'a str,
        topics: &'a [String],
    ) -> BoxFuture<'a, Result<GroupOffsets, Failure>>;

    /// The records under some keys in a part of a log, in log order, piece by piece. A piece also tells up to where the
    /// log was looked through; the last one reaches the end of the part. An error ends the search: it can go on from there.
    fn search(&self, part: LogPart, keys: Arc<HashSet<Bytes>>) -> Receiver<Result<Piece, Failure>>;
}

/// A part of a partition: `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The topic's physical name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset; if it is gone by now, with the first one that is there.
    pub from: i64,
    /// The offset to stop before.
    pub to: i64,
}

/// A piece of what was searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// From where on the log was looked through: where the part begins, or what is left of it, or the piece before ended.
    pub from: i64,
    /// The records, by offset.
    pub records: Vec<Record>,
    /// Everything below was looked through.
    pub next: i64,
}

/// Shared: all projections of a process know what one of them has looked up.
impl<T: Schemas> Schemas for Arc<T> {
    type Decode = T::Decode;

    fn prepare(&self, records: &[&Record]) -> impl Future<Output = Result<Self::Decode, Failure>> + Send {
        T::prepare(self, records)
    }

    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId> {
        T::event_id(self, payload)
    }
}

impl Schemas for fleetlog_codec::Decoder {
    type Decode = fleetlog_codec::Prepared;

    async fn prepare(&self, records: &[&Record]) -> Result<Self::Decode, Failure> {
        let payloads = records.iter().map(|record| record.value.as_deref());
        fleetlog_codec::Decoder::prepare(self, payloads)
            .await
            .map_err(|error| Failure::transient(error.to_string()))
    }

    fn event_id(&self, payload: Option<&[u8]>) -> Option<EventId> {
        fleetlog_codec::frame::event_id(payload)
    }
}
