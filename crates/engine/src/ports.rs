//! What the engine uses without knowing who provides it. The binary connects them; tests put fakes here.

use std::{collections::BTreeMap, sync::Arc};

use fleetlog_event::{Decode, EventId};
use fleetlog_projection::{LogNow, Record};
use futures_util::future::BoxFuture;

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

/// Every partition of some topics (physical name, partition) as it is now.
pub type LogFacts = BTreeMap<(String, i32), LogNow>;

/// What the cluster says about logs.
pub trait Logs: Send + Sync + 'static {
    /// Every partition of the topics (physical names) as it is now; [`LaneScope::topic`](fleetlog_projection::LaneScope) is a
    /// topic's place among them.
    ///
    /// # Errors
    /// Transient if the brokers cannot be asked, Permanent if a topic does not exist.
    fn look<'a>(&'a self, topics: &'a [String]) -> BoxFuture<'a, Result<LogFacts, Failure>>;
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
