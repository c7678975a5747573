//! A member of a Kafka consumer group that polls record by record.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fleetlog_event::TimestampMs;
use fleetlog_kafka::{Bootstrap, KafkaSettings, TracingContext};
use fleetlog_projection::{Headers, Record};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Message as _},
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};
use tracing::warn;

use super::{CommitError, EndOfMembership, Intake, LaneAt, Polled, RebalanceEvent};
use crate::{EngineConfig, Failure};

/// How long a seek waits for librdkafka's own thread (not for a broker).
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// Records are copied into chunks of this size, one chunk per lane, so that most need no allocation of their own.
const CHUNK_BYTES: usize = 64 << 10;

/// [`Intake`] over Kafka: classic group protocol, cooperative-sticky, a static member.
pub struct KafkaIntake {
    consumer: BaseConsumer<GroupContext>,
    topics: Vec<String>,
    chunks: BTreeMap<LaneAt, Chunk>,
    /// What is to be told at the next poll.
    untold: VecDeque<Polled>,
    bootstrap: Bootstrap,
    /// Lanes that were taken up and not given back.
    lanes: usize,
}

/// Where a lane's records go.
struct Chunk {
    bytes: BytesMut,
    headers_from: i64,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), headers_from: i64::MIN }
    }
}

impl KafkaIntake {
    /// Joins `group` as the static member `name` once it is polled, for topics by physical name.
    ///
    /// # Errors
    /// Permanent when the settings are wrong.
    pub fn new(
        kafka: &KafkaSettings,
        engine: &EngineConfig,
        group: &str,
        name: &str,
        topics: Vec<String>,
    ) -> Result<Self, Failure> {
        let fail = |error: KafkaError| Failure::permanent(format!("consumer of group `{group}`: {error}"));
        let fetch_bytes = engine.fetch_bytes();
        let mut client = kafka.consumer(group);
        client
            .set("group.instance.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", engine.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (engine.session_timeout_ms / 5).to_string())
            .set("max.poll.interval.ms", engine.poll_interval_ms_max.to_string())
            .set("queued.max.messages.kbytes", engine.queue_kbytes().to_string())
            // librdkafka insists on no less than its `message.max.bytes`, which for a consumer means nothing else.
            .set("message.max.bytes", fetch_bytes.to_string())
            .set("fetch.max.bytes", fetch_bytes.to_string())
            .set("fetch.message.max.bytes", (fetch_bytes / 4).to_string())
            .set("fetch.wait.max.ms", engine.fetch_wait_ms.to_string());
        for (name, value) in &kafka.properties {
            client.set(name, value);
        }
        let consumer: BaseConsumer<GroupContext> =
            client.create_with_context(GroupContext::default()).map_err(fail)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(fail)?;
        Ok(Self {
            consumer,
            topics,
            chunks: BTreeMap::new(),
            untold: VecDeque::new(),
            bootstrap: Bootstrap::new(&kafka.brokers),
            lanes: 0,
        })
    }

    fn lane_of(&self, topic: &str, partition: i32) -> Option<LaneAt> {
        let topic = self.topics.iter().position(|name| name == topic)?;
        Some(LaneAt { topic, partition })
    }

    fn lane_of_message(&self, message: &BorrowedMessage<'_>) -> Option<LaneAt> {
        // Most projections read one topic, and its name need not be compared for every record.
        match self.topics.as_slice() {
            [_] => Some(LaneAt { topic: 0, partition: message.partition() }),
            _ => self.lane_of(message.topic(), message.partition()),
        }
    }

    fn list(&self, lanes: impl IntoIterator<Item = (LaneAt, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (lane, offset) in lanes {
            if let Err(error) = list.add_partition_offset(&self.topics[lane.topic], lane.partition, offset) {
                // Only for offsets that cannot be represented; ours are positions of records.
                warn!(%error, partition = lane.partition, ?offset, "offset left out");
            }
        }
        list
    }

    fn lanes(&self, places: &[Place]) -> Vec<LaneAt> {
        places.iter().filter_map(|place| self.lane_of(&place.topic, place.partition)).collect()
    }

    fn offsets(&self, offsets: &[(LaneAt, i64)]) -> TopicPartitionList {
        self.list(offsets.iter().map(|(lane, offset)| (*lane, Offset::Offset(*offset))))
    }

    fn next_event(&self) -> Option<Polled> {
        let event = self.consumer.context().events().pop_front()?;
        Some(match event {
            GroupEvent::Assigned(places) => Polled::Rebalance(RebalanceEvent::Assigned(self.lanes(&places))),
            GroupEvent::Revoked(places) => {
                let lost = self.consumer.assignment_lost();
                Polled::Rebalance(RebalanceEvent::Revoked { lanes: self.lanes(&places), lost })
            }
            GroupEvent::Committed(places, answer) => {
                let committed = places.iter().filter_map(|place| {
                    let Offset::Offset(offset) = place.offset else { return None };
                    let taken = answer.is_err() || place.is_fine;
                    Some((self.lane_of(&place.topic, place.partition).filter(|_| taken)?, offset))
                });
                Polled::Committed(committed.collect(), answer.map_err(refused))
            }
        })
    }
}

impl Intake for KafkaIntake {
    fn poll(&mut self, timeout: Duration) -> Polled {
        if let Some(event) = self.untold.pop_front().or_else(|| self.next_event()) {
            return event;
        }
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => {
                let Some(lane) = self.lane_of_message(&message) else {
                    return Polled::Nothing;
                };
                let chunk = self.chunks.entry(lane).or_default();
                Polled::Record(lane, copy(&message, chunk))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Polled::End(partition),
            Some(Err(error)) => self.consumer.context().judge(&error),
            None => match self.consumer.client().fatal_error() {
                Some((code, text)) => over(code, &format!("{code:?}: {text}")),
                None => {
                    let event = self.next_event();
                    // Who has lanes hears of it when the group does: they are lost then.
                    if event.is_none() && self.lanes == 0 {
                        self.bootstrap.look_after(self.consumer.client());
                    }
                    event.unwrap_or(Polled::Nothing)
                }
            },
        }
    }

    fn assign(&mut self, lanes: &[(LaneAt, Option<i64>)]) -> Result<(), Failure> {
        // Where progress is not known yet the partition is paused, before it is assigned as well, so that nothing is
        // fetched. Its place until then is a number, never `End`: librdkafka would look that up, and a seek while the
        // answer is on its way does not end the looking up. It is asked again half a second after the seek, and reading
        // jumps to the end of the log, over everything between (`outdated offset response` in its
        // `rd_kafka_toppar_handle_Offset`).
        let list = self.list(lanes.iter().map(|(lane, offset)| (*lane, Offset::Offset(offset.unwrap_or(0)))));
        let fail = |error: KafkaError| Failure::transient(format!("taking up partitions: {error}"));
        // librdkafka keeps a partition's pause when it is given up: one that comes back would stand still for ever.
        let known = lanes.iter().filter(|(_, offset)| offset.is_some());
        let read = self.list(known.map(|(lane, _)| (*lane, Offset::Invalid)));
        if read.count() > 0 {
            self.consumer.resume(&read).map_err(fail)?;
        }
        let unknown = lanes.iter().filter(|(_, offset)| offset.is_none());
        let paused = self.list(unknown.map(|(lane, _)| (*lane, Offset::Invalid)));
        if paused.count() > 0 {
            // Not all versions can pause what is not assigned; it is done again below.
            drop(self.consumer.pause(&paused));
        }
        self.lanes += lanes.len();
        self.consumer.incremental_assign(&list).map_err(fail)?;
        if paused.count() > 0 { self.consumer.pause(&paused).map_err(fail) } else { Ok(()) }
    }

    fn unassign(&mut self, lanes: &[LaneAt]) -> Result<(), Failure> {
        let list = self.list(lanes.iter().map(|lane| (*lane, Offset::Invalid)));
        lanes.iter().for_each(|lane| drop(self.chunks.remove(lane)));
        self.lanes = self.lanes.saturating_sub(lanes.len());
        let fail = |error: KafkaError| Failure::transient(format!("giving up partitions: {error}"));
        self.consumer.incremental_unassign(&list).map_err(fail)
    }

    fn seek(&mut self, lane: LaneAt, offset: i64) -> Result<(), Failure> {
        let fail = |error: KafkaError| Failure::transient(format!("reading from {offset}: {error}"));
        let list = self.list([(lane, Offset::Invalid)]);
        self.consumer.resume(&list).map_err(fail)?;
        // Also right after resuming: by itself a resumed partition goes on wherever librdkafka had been.
        self.consumer
            .seek(&self.topics[lane.topic], lane.partition, Offset::Offset(offset), SEEK_TIMEOUT)
            .map_err(fail)
    }

    fn read_headers_from(&mut self, lane: LaneAt, offset: i64) {
        self.chunks.entry(lane).or_default().headers_from = offset;
    }

    fn pause(&mut self, lane: LaneAt) {
        let list = self.list([(lane, Offset::Invalid)]);
        if let Err(error) = self.consumer.pause(&list) {
            warn!(%error, topic = self.topics[lane.topic], partition = lane.partition, "not paused");
        }
    }

    fn on_readable(&mut self, notify: Box<dyn Fn() + Send + Sync>) {
        self.consumer.set_nonempty_callback(notify);
    }

    fn position(&mut self, lane: LaneAt) -> Option<i64> {
        fleetlog_kafka::position(&self.consumer, &self.topics[lane.topic], lane.partition)
    }

    fn commit(&mut self, offsets: &[(LaneAt, i64)]) {
        if let Err(error) = fleetlog_kafka::commit_and_tell(&self.consumer, &self.offsets(offsets)) {
            let told = Polled::Committed(offsets.to_vec(), Err(refused(error)));
            self.untold.push_back(told);
        }
    }

    fn commit_and_wait(&mut self, offsets: &[(LaneAt, i64)]) -> Result<(), CommitError> {
        self.consumer.commit(&self.offsets(offsets), CommitMode::Sync).map_err(refused)
    }
}

/// What a commit that was not taken means.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn refused(error: KafkaError) -> CommitError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::AssignmentLost
            | RDKafkaErrorCode::Fatal,
        ) => CommitError::NotOurs(error.to_string()),
        _ => CommitError::Transient(error.to_string()),
    }
}

impl Drop for KafkaIntake {
    /// The consumer closes when it is dropped, and that revokes what is still assigned: answered in the callback.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::SeqCst);
    }
}

/// Copies a message into its lane's chunk.
fn copy(message: &BorrowedMessage<'_>, Chunk { bytes: chunk, headers_from }: &mut Chunk) -> Record {
    let (key, value, offset) = (message.key(), message.payload(), message.offset());
    // Asking for them takes them apart.
    let headers = (offset >= *headers_from).then(|| fleetlog_kafka::headers(message));
    let headers_bytes = headers.clone().map_or(0, Headers::packed_bytes);
    let needed = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers_bytes;
    if chunk.capacity() - chunk.len() < needed {
        *chunk = BytesMut::with_capacity(CHUNK_BYTES.max(needed));
    }
    let mut part = |bytes: Option<&[u8]>| -> Option<Bytes> {
        let bytes = bytes?;
        chunk.extend_from_slice(bytes);
        Some(chunk.split().freeze())
    };
    Record {
        offset,
        timestamp: TimestampMs(message.timestamp().to_millis().unwrap_or_default()),
        key: part(key),
        value: part(value),
        headers: headers.map_or(Headers::UNREAD, |headers| Headers::pack_into(chunk, headers)),
    }
}

fn over(code: RDKafkaErrorCode, what: &str) -> Polled {
    Polled::Over(if code == RDKafkaErrorCode::FencedInstanceId {
        EndOfMembership::Replaced(what.to_owned())
    } else {
        EndOfMembership::Failed(Failure::permanent(format!("the consumer cannot go on: {what}")))
    })
}

enum GroupEvent {
    Assigned(Vec<Place>),
    Revoked(Vec<Place>),
    Committed(Vec<Place>, Result<(), KafkaError>),
}

/// What a list of librdkafka's says of a partition. Never the list itself: it holds on to what it names, and the client waits for
/// that when it is destroyed, while what its context keeps goes after it.
struct Place {
    topic: String,
    partition: i32,
    offset: Offset,
    is_fine: bool,
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    let place = |element: TopicPartitionListElem<'_>| Place {
        topic: element.topic().to_owned(),
        partition: element.partition(),
        offset: element.offset(),
        is_fine: element.error().is_ok(),
    };
    list.elements().into_iter().map(place).collect()
}

/// Keeps what the group said for the poll thread, which answers it outside of the callback.
#[derive(Default)]
struct GroupContext {
    events: Mutex<VecDeque<GroupEvent>>,
    closing: AtomicBool,
}

impl GroupContext {
    fn events(&self) -> std::sync::MutexGuard<'_, VecDeque<GroupEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, error: &KafkaError) -> Polled {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(code), _) => over(*code, &error.to_string()),
            (_, Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) => Polled::OutOfRange,
            (
                _,
                Some(
                    code @ (Code::Fatal
                    | Code::FencedInstanceId
                    | Code::GroupAuthorizationFailed
                    | Code::TopicAuthorizationFailed
                    | Code::Authentication),
                ),
            ) => over(code, &error.to_string()),
            _ => Polled::Trouble(error.to_string()),
        }
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        TracingContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            TracingContext.error(error, reason);
        }
    }
}

impl ConsumerContext for GroupContext {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.events().push_back(GroupEvent::Committed(places(offsets), result));
    }

    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let answer = if assigned { Ok(()) } else { consumer.incremental_unassign(list) };
            if answer.is_err() {
                // Nothing left to lose: the consumer is going away.
                let _ = consumer.unassign();
            }
            return;
        }
        let places = places(list);
        self.events().push_back(if assigned {
            GroupEvent::Assigned(places)
        } else {
            GroupEvent::Revoked(places)
        });
    }
}

/// Shared with tests: the context is only reachable through the consumer.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_judged_case_by_case() {
        let context = GroupContext::default();
        let judge = |code| context.judge(&KafkaError::MessageConsumption(code));
        assert!(matches!(judge(RDKafkaErrorCode::AutoOffsetReset), Polled::OutOfRange));
        assert!(matches!(judge(RDKafkaErrorCode::AllBrokersDown), Polled::Trouble(_)));
        let is_over = |polled| match polled {
            Polled::Over(end) => end,
            other => panic!("{other:?}"),
        };
        let denied = is_over(judge(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(matches!(denied, EndOfMembership::Failed(failure) if failure.what.contains("cannot go on")));
        let fatal = |code| is_over(context.judge(&KafkaError::MessageConsumptionFatal(code)));
        assert!(matches!(fatal(RDKafkaErrorCode::FencedInstanceId), EndOfMembership::Replaced(_)));
        assert!(matches!(fatal(RDKafkaErrorCode::InvalidProducerEpoch), EndOfMembership::Failed(_)));
    }
}
