//! Reads a range of a topic's log, outside any group's progress: for `verify`, tools, dead letters, import places.
//!
//! Guarantees: `read_committed`; every record of the ranges exactly once, in offset order per partition; the end is
//! reached also where the last offsets hold no records (transaction markers, compacted or aborted records). A range
//! whose begin is no longer there is an error that names it, never a silent skip.

mod error;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetlog_event::TimestampMs;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::{
    Bootstrap, ClusterError, HeaderName, KafkaFault, KafkaSettings, Offsets, PartitionOffsets,
    TracingContext, classify, error_code, headers, position,
};

pub use error::ReadError;

/// How long the log may end before a range that it had when reading began: until a new leader knows what is committed.
const STABLE_END_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one poll of [`LogReader::for_each`] may wait.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two looks at a log that seems to end too early.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What to read of a partition: `[from, to)`; without `to` it never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset to stop before; none to follow the log.
    pub to: Option<i64>,
}

/// What [`LogReader::poll`] found.
pub enum Read<'r> {
    /// The next record.
    Record(RecordView<'r>),
    /// Nothing within the timeout: the log is quiet, or the brokers are away.
    Idle,
    /// Every range was read to its end.
    End,
}

/// A record as it lies in librdkafka's buffer: copied only where asked for.
pub struct RecordView<'r>(BorrowedMessage<'r>);

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp (by the topic's timestamp type); -1 where it has none.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers, in order, names repeated where they are.
    pub headers: Vec<(HeaderName, Option<Bytes>)>,
}

impl RecordView<'_> {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// The offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// The record's timestamp (by the topic's timestamp type); -1 where it has none.
    #[must_use]
    pub fn timestamp(&self) -> TimestampMs {
        TimestampMs(self.0.timestamp().to_millis().unwrap_or(-1))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// The value of the last header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        headers(&self.0).filter(|(found, _)| *found == name.as_bytes()).last()?.1
    }

    /// The headers, in order. A name is a text by the protocol, and whatever bytes somebody sent in fact.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        headers(&self.0)
    }

    /// Copies the record out of librdkafka's buffer.
    #[must_use]
    pub fn to_owned_record(&self) -> OwnedRecord {
        OwnedRecord {
            topic: self.0.topic().into(),
            partition: self.partition(),
            offset: self.offset(),
            timestamp: self.timestamp(),
            key: self.key().map(Bytes::copy_from_slice),
            value: self.value().map(Bytes::copy_from_slice),
            headers: headers(&self.0)
                .map(|(name, value)| (name.into(), value.map(Bytes::copy_from_slice)))
                .collect(),
        }
    }
}

/// Reads ranges of one topic. *Blocking*: for a thread of its own. Commits nothing and joins no group.
pub struct LogReader {
    topic: String,
    /// To ask what became of a range that is not there any more.
    offsets: Offsets,
    consumer: BaseConsumer<TracingContext>,
    bootstrap: Bootstrap,
    open: Open,
}

/// A partition not read to its end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    next: i64,
    to: Option<i64>,
    /// Since when the log seems to end before `to`.
    short_since: Option<Instant>,
    /// It was fetched once more after the cluster had said that the log reaches `to`.
    looked_again: bool,
}

/// What the end of a partition means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The range is read, or was before.
    Finished,
    /// The range has no end.
    Follows,
    /// The log ends before the range does, as far as one can tell.
    Short(Rest),
}

/// The partitions not read to their end yet.
#[derive(Debug, Default)]
struct Open {
    ranges: BTreeMap<i32, Rest>,
    /// Partitions that reached their end since the consumer was told to leave them alone.
    finished: Vec<i32>,
}

impl Open {
    /// Whether a record at that place is wanted; takes note of it.
    fn wants(&mut self, partition: i32, offset: i64) -> bool {
        let Some(rest) = self.ranges.get_mut(&partition) else { return false };
        if rest.to.is_some_and(|to| offset >= to) {
            self.finish(partition);
            return false;
        }
        if offset < rest.next {
            return false;
        }
        *rest = Rest { next: offset + 1, to: rest.to, short_since: None, looked_again: false };
        if rest.to == Some(rest.next) {
            self.finish(partition);
        }
        true
    }

    /// The consumer saw the end of the partition, and its place is `position`: past everything delivered and past
    /// transaction markers, but not past what was aborted or compacted away.
    fn saw_end(&mut self, partition: i32, position: Option<i64>) -> Ended {
        let Some(rest) = self.ranges.get_mut(&partition) else { return Ended::Finished };
        rest.next = rest.next.max(position.unwrap_or(rest.next));
        match rest.to {
            None => Ended::Follows,
            Some(to) if rest.next >= to || rest.looked_again => {
                self.finish(partition);
                Ended::Finished
            }
            Some(_) => Ended::Short(*rest),
        }
    }

    fn finish(&mut self, partition: i32) {
        if self.ranges.remove(&partition).is_some() {
            self.finished.push(partition);
        }
    }
}

impl LogReader {
    /// Begins to read the ranges; ranges that are empty are at their end at once.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] or [`ReadError::PastEnd`] if the log does not have a range, or the cluster
    /// cannot be asked.
    pub fn open(settings: &KafkaSettings, topic: &str, ranges: &[PartitionRange]) -> Result<Self, ReadError> {
        let log = Offsets::new(settings)?.ranges_blocking(&[topic])?;
        Self::open_within(settings, topic, ranges, &log)
    }

    /// As [`open`](Self::open), without asking the cluster: `log` is what was seen of the partitions before. A range that
    /// has gone since then is told while reading.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_within(
        settings: &KafkaSettings,
        topic: &str,
        ranges: &[PartitionRange],
        log: &BTreeMap<(String, i32), PartitionOffsets>,
    ) -> Result<Self, ReadError> {
        let mut open = Open::default();
        let mut list = TopicPartitionList::new();
        let wrap = |error: KafkaError| ClusterError::kafka(format!("reading topic `{topic}`"), error);
        for range in ranges {
            let &PartitionRange { partition, from, to } = range;
            let at = (topic.to_owned(), partition);
            let there =
                log.get(&at).ok_or_else(|| ClusterError::UnknownTopic(format!("{topic}/{partition}")))?;
            if to.is_some_and(|to| from >= to) {
                continue;
            }
            if from < there.low || from > there.end {
                let (wanted, low, end) = (from, there.low, there.end);
                return Err(ReadError::OffsetOutOfRange { topic: at.0, partition, wanted, low, end });
            }
            if let Some(wanted) = to.filter(|to| *to > there.end) {
                return Err(ReadError::PastEnd { topic: at.0, partition, wanted, end: there.end });
            }
            open.ranges.insert(partition, Rest { next: from, to, short_since: None, looked_again: false });
            list.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(wrap)?;
        }
        let consumer: BaseConsumer<TracingContext> = settings
            .consumer(&settings.topic("fleetlog-reader"))
            // How long a broker holds an answer that has nothing to tell. Behind the last record may lie a transaction
            // marker, so the end is often told by an empty answer.
            .set("fetch.wait.max.ms", "10")
            .create_with_context(TracingContext)
            .map_err(wrap)?;
        consumer.assign(&list).map_err(wrap)?;
        Ok(Self {
            topic: topic.to_owned(),
            offsets: Offsets::new(settings)?,
            consumer,
            bootstrap: Bootstrap::new(&settings.brokers),
            open,
        })
    }

    /// Begins to read all that is there now, of all partitions.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_all(settings: &KafkaSettings, topic: &str) -> Result<Self, ReadError> {
        let log = Offsets::new(settings)?.ranges_blocking(&[topic])?;
        let ranges: Vec<PartitionRange> = log
            .iter()
            .map(|((_, partition), there)| PartitionRange {
                partition: *partition,
                from: there.low,
                to: Some(there.end),
            })
            .collect();
        Self::open_within(settings, topic, &ranges, &log)
    }

    /// The topic that is read.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next record, or what else there is to say after `timeout` at the latest.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] if retention was quicker, or an error that does not pass by waiting.
    /// Passing ones are logged and told as [`Read::Idle`].
    pub fn poll(&mut self, timeout: Duration) -> Result<Read<'_>, ReadError> {
        let consumer = &self.consumer;
        loop {
            leave_finished(consumer, &self.topic, &mut self.open)?;
            if self.open.ranges.is_empty() {
                return Ok(Read::End);
            }
            match consumer.poll(timeout) {
                None => {
                    self.bootstrap.look_after(consumer.client());
                    return Ok(Read::Idle);
                }
                Some(Ok(message)) => {
                    if self.open.wants(message.partition(), message.offset()) {
                        return Ok(Read::Record(RecordView(message)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    match self.open.saw_end(partition, position(consumer, &self.topic, partition)) {
                        Ended::Finished => {}
                        Ended::Follows => return Ok(Read::Idle),
                        Ended::Short(rest) => {
                            look_again(
                                consumer,
                                &self.topic,
                                &self.offsets,
                                &mut self.open,
                                (partition, rest),
                            )?;
                        }
                    }
                }
                Some(Err(error)) => {
                    passing(&self.topic, &self.offsets, &self.open, error)?;
                    return Ok(Read::Idle);
                }
            }
        }
    }

    /// Reads on to the end of all ranges, and waits for brokers for as long as they are away. With ranges that never end it
    /// only returns by an error or by `each`.
    ///
    /// # Errors
    /// As [`poll`](Self::poll); or the first error of `each`.
    pub fn for_each<E: From<ReadError>>(
        &mut self,
        each: impl FnMut(&RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.for_each_within(Duration::MAX, each)
    }

    /// As [`for_each`](Self::for_each), but waits for brokers no longer than `silence_max` at a time: for ranges that end.
    ///
    /// # Errors
    /// [`ReadError::Silent`] after that; and as there.
    pub fn for_each_within<E: From<ReadError>>(
        &mut self,
        silence_max: Duration,
        mut each: impl FnMut(&RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut heard_at = Instant::now();
        loop {
            match self.poll(POLL_TIMEOUT)? {
                Read::Record(record) => {
                    each(&record)?;
                    heard_at = Instant::now();
                }
                Read::Idle if heard_at.elapsed() < silence_max => {}
                Read::Idle => {
                    let (topic, silence_s) = (self.topic.clone(), silence_max.as_secs());
                    return Err(ReadError::Silent { topic, silence_s }.into());
                }
                Read::End => return Ok(()),
            }
        }
    }
}

/// Stops fetching partitions that are read to their end: the rest of the log may be large.
fn leave_finished(
    consumer: &BaseConsumer<TracingContext>,
    topic: &str,
    open: &mut Open,
) -> Result<(), ClusterError> {
    if open.finished.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    for partition in open.finished.drain(..) {
        list.add_partition(topic, partition);
    }
    let wrap = |error| ClusterError::kafka(format!("reading topic `{topic}`"), error);
    consumer.incremental_unassign(&list).map_err(wrap)
}

/// The log ended before the range. Either its last offsets hold no records, or the broker that said so had just become
/// leader and did not know yet what is committed. So the cluster is asked how far the log goes, and the rest is
/// fetched once more.
fn look_again(
    consumer: &BaseConsumer<TracingContext>,
    topic: &str,
    offsets: &Offsets,
    open: &mut Open,
    (partition, mut rest): (i32, Rest),
) -> Result<(), ReadError> {
    let log = offsets.ranges_blocking(&[topic])?;
    let end = log.get(&(topic.to_owned(), partition)).map_or(0, |there| there.end);
    let wanted = rest.to.unwrap_or(rest.next);
    rest.looked_again = end >= wanted;
    let since = *rest.short_since.get_or_insert_with(Instant::now);
    if !rest.looked_again {
        if since.elapsed() > STABLE_END_TIMEOUT {
            return Err(ReadError::PastEnd { topic: topic.to_owned(), partition, wanted, end });
        }
        offsets.wait(LOOK_INTERVAL);
    }
    open.ranges.insert(partition, rest);
    let wrap = |error| ClusterError::kafka(format!("reading topic `{topic}`"), error);
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    consumer.incremental_unassign(&list).map_err(wrap)?;
    list.set_partition_offset(topic, partition, Offset::Offset(rest.next)).map_err(wrap)?;
    Ok(consumer.incremental_assign(&list).map_err(wrap)?)
}

/// Passes over errors that pass by themselves; names the range where an offset is gone.
fn passing(topic: &str, offsets: &Offsets, open: &Open, error: KafkaError) -> Result<(), ReadError> {
    if matches!(
        error_code(&error),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    ) {
        let log = offsets.ranges_blocking(&[topic])?;
        for (partition, Rest { next, .. }) in &open.ranges {
            if let Some(there) = log.get(&(topic.to_owned(), *partition))
                && (*next < there.low || *next > there.end)
            {
                return Err(ReadError::OffsetOutOfRange {
                    topic: topic.to_owned(),
                    partition: *partition,
                    wanted: *next,
                    low: there.low,
                    end: there.end,
                });
            }
        }
    }
    match classify(&error) {
        KafkaFault::Transient => {
            tracing::warn!(topic, %error, "reading waits for the brokers");
            Ok(())
        }
        KafkaFault::Permanent => Err(ClusterError::kafka(format!("reading topic `{topic}`"), error).into()),
    }
}
