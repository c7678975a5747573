//! Where partitions begin and end, and what groups have committed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetlog_event::{LogId, TimestampMs};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Serialize;

use crate::{
    Bootstrap, ClusterError, KafkaFault, KafkaSettings, TracingContext,
    bootstrap::{ASK_TIMEOUT, PATIENCE},
    error_code, native,
};

/// Between two looks whether the client knows a new topic.
const METADATA_INTERVAL: Duration = Duration::from_millis(50);

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionOffsets {
    /// The first offset still there.
    pub low: i64,
    /// The last stable offset: what a `read_committed` consumer can reach. Behind it may be an open transaction.
    pub end: i64,
}

/// What a group has committed, per topic and partition; partitions without a commit are absent.
pub type GroupOffsets = BTreeMap<(String, i32), i64>;

/// Where a consumer goes on reading a partition: past everything delivered and past markers behind it. None if it does not
/// know yet, as right after a seek.
#[must_use]
pub fn position<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> Option<i64> {
    let positions = consumer.position().ok()?;
    match positions.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Asks about offsets. Cheap to clone. Read committed offsets *before* ends, or lag looks larger than it is.
#[derive(Clone)]
pub struct Offsets {
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer<TracingContext>>,
}

impl Offsets {
    /// A client for questions. Does not connect yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ClusterError> {
        let group = settings.topic("fleetlog-offsets");
        Ok(Self { settings: settings.clone(), consumer: Arc::new(consumer(settings, &group)?) })
    }

    /// Begin and end of every partition of the named topics.
    ///
    /// # Errors
    /// [`ClusterError::UnknownTopic`], or the brokers cannot be asked.
    pub async fn ranges(
        &self,
        topics: &[&str],
    ) -> Result<BTreeMap<(String, i32), PartitionOffsets>, ClusterError> {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.blocking("reading offsets", move |this| {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            this.ranges_now(&topics)
        })
        .await
    }

    /// Like [`ranges`](Self::ranges), *blocking*.
    ///
    /// # Errors
    /// As there.
    pub fn ranges_blocking(
        &self,
        topics: &[&str],
    ) -> Result<BTreeMap<(String, i32), PartitionOffsets>, ClusterError> {
        self.until_answered(|this| this.ranges_now(topics))
    }

    fn ranges_now(&self, topics: &[&str]) -> Result<BTreeMap<(String, i32), PartitionOffsets>, ClusterError> {
        let partitions = self.partitions(topics)?;
        let low = self.list(&partitions, Offset::Beginning)?;
        let end = self.list(&partitions, Offset::End)?;
        Ok(low
            .into_iter()
            .filter_map(|(at, low)| Some((at.clone(), PartitionOffsets { low, end: *end.get(&at)? })))
            .collect())
    }

    /// The first offset of each partition with a record at or after `time`; the partition's end where there is none.
    ///
    /// # Errors
    /// As [`ranges`](Self::ranges).
    pub async fn at_time(&self, topic: &str, time: TimestampMs) -> Result<BTreeMap<i32, i64>, ClusterError> {
        let topic = topic.to_owned();
        self.blocking("looking for a time", move |this| {
            let partitions = this.partitions(&[&topic])?;
            let end = this.list(&partitions, Offset::End)?;
            let found = this.list(&partitions, Offset::Offset(time.0.max(0)))?;
            Ok(end.into_iter().map(|(at, end)| (at.1, found.get(&at).copied().unwrap_or(end))).collect())
        })
        .await
    }

    /// What `group` has committed for the topics' partitions.
    ///
    /// # Errors
    /// [`ClusterError::UnknownTopic`], or the brokers cannot be asked.
    pub async fn committed(&self, group: &str, topics: &[&str]) -> Result<GroupOffsets, ClusterError> {
        let (group, topics): (_, Vec<String>) =
            (group.to_owned(), topics.iter().map(|t| (*t).to_owned()).collect());
        self.blocking("reading committed offsets", move |this| {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut list = TopicPartitionList::new();
            for (topic, partition) in this.partitions(&topics)? {
                list.add_partition(&topic, partition);
            }
            let context = || format!("reading what group `{group}` has committed");
            let answer = consumer(&this.settings, &group)?
                .committed_offsets(list, ASK_TIMEOUT)
                .map_err(|error| ClusterError::kafka(context(), error))?;
            let mut committed = GroupOffsets::new();
            for element in answer.elements() {
                element.error().map_err(|error| ClusterError::kafka(context(), error))?;
                if let Offset::Offset(offset) = element.offset() {
                    committed.insert((element.topic().to_owned(), element.partition()), offset);
                }
            }
            Ok(committed)
        })
        .await
    }

    /// The topic's id (KIP-516), *blocking*.
    pub(crate) fn log_id_blocking(&self, topic: &str) -> Result<LogId, ClusterError> {
        self.until_answered(|this| this.log_id_now(topic))
    }

    fn log_id_now(&self, topic: &str) -> Result<LogId, ClusterError> {
        let context = || format!("describing topic `{topic}`");
        let described = native::describe_topics(self.consumer.client(), &[topic], ASK_TIMEOUT)
            .map_err(|error| ClusterError::kafka(context(), error))?;
        match described.into_iter().next().map(|topic| topic.facts) {
            Some(Ok(facts)) => Ok(LogId(facts.id)),
            None | Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                Err(ClusterError::UnknownTopic(topic.to_owned()))
            }
            Some(Err(code)) => Err(ClusterError::code(context(), code)),
        }
    }

    /// The topics' partitions, *blocking*.
    fn partitions(&self, topics: &[&str]) -> Result<Vec<(String, i32)>, ClusterError> {
        let mut partitions = Vec::new();
        for topic in topics {
            let context = || format!("reading the partitions of topic `{topic}`");
            let metadata = self
                .consumer
                .fetch_metadata(Some(topic), ASK_TIMEOUT)
                .map_err(|error| ClusterError::kafka(context(), error))?;
            let found = metadata.topics().iter().find(|found| found.name() == *topic);
            let found = found.ok_or_else(|| ClusterError::UnknownTopic((*topic).to_owned()))?;
            match found.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    return Err(ClusterError::UnknownTopic((*topic).to_owned()));
                }
                Some(code) => return Err(ClusterError::code(context(), code)),
            }
            partitions
                .extend(found.partitions().iter().map(|partition| ((*topic).to_owned(), partition.id())));
        }
        Ok(partitions)
    }

    /// One ListOffsets round: `what` is a timestamp or one of librdkafka's logical offsets (which have the same
    /// values as the protocol's). Partitions without an answer (nothing at or after that time) are absent.
    fn list(
        &self,
        partitions: &[(String, i32)],
        what: Offset,
    ) -> Result<BTreeMap<(String, i32), i64>, ClusterError> {
        let context = "asking for offsets";
        let wrap = |error: KafkaError| ClusterError::kafka(context, error);
        // Serves this client's log lines, which would pile up otherwise.
        self.consumer.poll(Duration::ZERO);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, what).map_err(wrap)?;
        }
        let answer = self.consumer.offsets_for_times(list, ASK_TIMEOUT).map_err(wrap)?;
        let mut found = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(|error| {
                ClusterError::kafka(
                    format!("{context} of {}/{}", element.topic(), element.partition()),
                    error,
                )
            })?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(found)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        context: &'static str,
        ask: impl Fn(&Self) -> Result<T, ClusterError> + Send + 'static,
    ) -> Result<T, ClusterError> {
        let this = self.clone();
        let asked = tokio::task::spawn_blocking(move || this.until_answered(ask)).await;
        asked.unwrap_or_else(|_| Err(ClusterError::Interrupted(context.to_owned())))
    }

    /// Asks again while a leader or coordinator is changing or no broker answers, *blocking*.
    fn until_answered<T>(&self, ask: impl Fn(&Self) -> Result<T, ClusterError>) -> Result<T, ClusterError> {
        let (begun, mut bootstrap) = (Instant::now(), Bootstrap::new(&self.settings.brokers));
        loop {
            let answer = ask(self);
            if !answer.as_ref().is_err_and(passes) || begun.elapsed() >= PATIENCE {
                return answer;
            }
            bootstrap.look_after(self.consumer.client());
            self.wait(METADATA_INTERVAL);
        }
    }

    /// Serves the client for as long, *blocking*: nothing is assigned to it, so nothing comes.
    pub(crate) fn wait(&self, length: Duration) {
        drop(self.consumer.poll(length));
    }
}

/// Whether a question may be answered when it is asked again.
fn passes(error: &ClusterError) -> bool {
    // A broker told of the partitions that are asked for; the client has yet to take note of a new topic.
    let is_new = |source| error_code(source) == Some(RDKafkaErrorCode::UnknownPartition);
    error.fault() == KafkaFault::Transient
        || matches!(error, ClusterError::Kafka { source, .. } if is_new(source))
}

fn consumer(settings: &KafkaSettings, group: &str) -> Result<BaseConsumer<TracingContext>, ClusterError> {
    settings
        .consumer(group)
        .create_with_context(TracingContext)
        .map_err(|error| ClusterError::kafka("creating a consumer", error))
}
