//! What goes out: topic, key, value, headers, and how large it is.

use std::sync::Arc;

use bytes::Bytes;
use fleetlog_event::{EventId, TimestampMs};
use fleetlog_kafka::HeaderName;
use rdkafka::message::OwnedHeaders;

use crate::{cloud_events::EventHeaders, metrics::TopicMetrics};

/// A record whose bytes are the caller's own: for dead letters, commands, places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// The topic's physical name.
    pub topic: String,
    /// The partition; by the key if none.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The record's timestamp; now if none.
    pub timestamp: Option<TimestampMs>,
    /// The headers, in this order.
    pub headers: Vec<(HeaderName, Option<Bytes>)>,
}

/// Where records go, with its counters.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: TopicMetrics,
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<Topic>,
    pub(crate) event_id: Option<EventId>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) headers: RecordHeaders,
}

#[derive(Debug)]
pub(crate) enum RecordHeaders {
    Event(EventHeaders),
    Raw(Vec<(HeaderName, Option<Bytes>)>),
}

/// What a record costs in memory beside its bytes: librdkafka's message, our entry, header objects.
const OVERHEAD_BYTES: usize = 512;

impl Outgoing {
    pub(crate) fn raw(topic: Arc<Topic>, record: RawRecord) -> Self {
        let RawRecord { topic: _, partition, key, value, timestamp, headers } = record;
        Self { topic, event_id: None, partition, key, value, timestamp, headers: RecordHeaders::Raw(headers) }
    }

    /// What it costs in memory until it is acknowledged, in bytes: key and value stand here and in librdkafka.
    pub(crate) fn cost_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = match &self.headers {
            RecordHeaders::Event(_) => 0,
            RecordHeaders::Raw(headers) => {
                headers.iter().map(|(name, value)| name.len() + length(value)).sum()
            }
        };
        OVERHEAD_BYTES + 2 * (length(&self.key) + length(&self.value) + headers)
    }

    pub(crate) fn native_headers(&self) -> Option<OwnedHeaders> {
        match &self.headers {
            RecordHeaders::Event(headers) => Some(headers.to_native(self.key.as_deref().unwrap_or_default())),
            RecordHeaders::Raw(headers) => fleetlog_kafka::native_headers(headers),
        }
    }
}
