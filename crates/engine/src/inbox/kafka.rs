//! Inboxes on Kafka, followed by one client for the whole process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use fleetlog_event::TimestampMs;
use fleetlog_kafka::{
    Bootstrap, ClusterError, KafkaSettings, LogReader, Offsets, PartitionRange, ReadError, TracingContext,
};
use fleetlog_projection::{Headers, Record};
use futures_util::{FutureExt as _, future::BoxFuture};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tracing::{debug, warn};

use super::{Inbox, InboxAt, InboxFeed, InboxWriter};
use crate::Failure;

/// How long one poll may wait: also how late it is noticed that a lane came or went.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a seek waits for librdkafka's own thread.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// What librdkafka may fetch ahead of all inboxes together.
const QUEUE_KBYTES: &str = "2048";
/// Polls between two looks at what is followed.
const POLLS_PER_ROUND: usize = 1_000;
/// How long it may take to notice that an inbox was made.
const METADATA_INTERVAL_MS: &str = "10000";
/// How long the brokers may be silent while it is looked where inboxes end; then it is tried anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Until a client that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// [`Inbox`] over Kafka. Its thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct KafkaInbox {
    sender: Arc<Sender<(InboxAt, i64, InboxWriter)>>,
    settings: KafkaSettings,
}

impl KafkaInbox {
    /// Starts the thread that follows; it connects once there is something to follow.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: &KafkaSettings) -> std::io::Result<Self> {
        let (sender, orders) = channel();
        let (settings, of_thread) = (settings.clone(), settings.clone());
        thread::Builder::new().name("inbox".to_owned()).spawn(move || {
            let (settings, followed) = (of_thread, BTreeMap::new());
            let bootstrap = Bootstrap::new(&settings.brokers);
            Follower { settings, bootstrap, orders, followed, trouble: None }.run();
        })?;
        Ok(Self { sender: Arc::new(sender), settings })
    }
}

impl Inbox for KafkaInbox {
    fn follow(&self, at: InboxAt, from: i64) -> InboxFeed {
        let (feed, writer) = InboxFeed::new(from);
        // The thread lives as long as this handle.
        let _ = self.sender.send((at, from, writer));
        feed
    }

    fn last(&self, from: BTreeMap<InboxAt, i64>) -> BoxFuture<'_, Result<BTreeMap<InboxAt, i64>, Failure>> {
        async move {
            let settings = self.settings.clone();
            let looking = tokio::task::spawn_blocking(move || last(&settings, &from));
            let looked =
                looking.await.map_err(|_| Failure::transient("looking at inboxes was interrupted"))?;
            looked.map_err(|error| Failure::of_cluster(error.fault(), format!("looking at inboxes: {error}")))
        }
        .boxed()
    }
}

/// The last records behind these offsets, *blocking*: behind them lie markers of transactions, so ends do not tell.
fn last(
    settings: &KafkaSettings,
    from: &BTreeMap<InboxAt, i64>,
) -> Result<BTreeMap<InboxAt, i64>, ReadError> {
    let offsets = Offsets::new(settings)?;
    let mut last = BTreeMap::new();
    for topic in from.keys().map(|at| &at.topic).collect::<BTreeSet<_>>() {
        let log = match offsets.ranges_blocking(&[topic]) {
            Ok(log) => log,
            Err(ClusterError::UnknownTopic(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let range = |(at, from): (&InboxAt, &i64)| {
            let there = log.get(&(at.topic.clone(), at.partition))?;
            // An inbox that was made anew may end before.
            let from = if *from > there.end { there.low } else { (*from).max(there.low) };
            (from < there.end).then_some(PartitionRange {
                partition: at.partition,
                from,
                to: Some(there.end),
            })
        };
        let ranges: Vec<PartitionRange> =
            from.iter().filter(|(at, _)| at.topic == *topic).filter_map(range).collect();
        if ranges.is_empty() {
            continue;
        }
        LogReader::open_within(settings, topic, &ranges, &log)?.for_each_within(SILENCE_MAX, |record| {
            last.insert(InboxAt { topic: topic.clone(), partition: record.partition() }, record.offset());
            Ok::<_, ReadError>(())
        })?;
    }
    Ok(last)
}

struct Followed {
    writer: InboxWriter,
    /// The next offset to be handed over.
    next: i64,
    paused: bool,
}

struct Follower {
    settings: KafkaSettings,
    bootstrap: Bootstrap,
    orders: Receiver<(InboxAt, i64, InboxWriter)>,
    followed: BTreeMap<InboxAt, Followed>,
    /// What was said last of what is wrong.
    trouble: Option<&'static str>,
}

impl Follower {
    fn run(mut self) {
        let mut consumer = None;
        loop {
            // Without anything to follow there is nothing to poll either.
            let patience = if self.followed.is_empty() { Duration::from_secs(1) } else { Duration::ZERO };
            let mut is_changed = match self.orders.recv_timeout(patience) {
                Ok(order) => self.begin(order),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Ok(order) = self.orders.try_recv() {
                is_changed |= self.begin(order);
            }
            let before = self.followed.len();
            self.followed.retain(|_, followed| followed.writer.wants_more().is_some());
            is_changed |= self.followed.len() != before;
            if self.followed.is_empty() {
                consumer = None;
                continue;
            }
            let client = match &consumer {
                Some(client) => client,
                None => match self.connect() {
                    Ok(client) => {
                        is_changed = true;
                        consumer.insert(client)
                    }
                    Err(error) => {
                        warn!(%error, "inboxes cannot be read; trying again");
                        if let Ok(order) = self.orders.recv_timeout(AGAIN) {
                            self.begin(order);
                        }
                        continue;
                    }
                },
            };
            if is_changed && let Err(error) = self.assign(client) {
                warn!(%error, "inboxes cannot be read; trying again");
                consumer = None;
                continue;
            }
            self.resume(client);
            self.poll(client);
        }
    }

    fn begin(&mut self, (at, next, writer): (InboxAt, i64, InboxWriter)) -> bool {
        self.followed.insert(at, Followed { writer, next, paused: false });
        true
    }

    fn connect(&self) -> Result<BaseConsumer<TracingContext>, KafkaError> {
        self.settings
            // A name for quotas and logs; nothing is committed under it, and no group is joined.
            .consumer(&self.settings.topic("fleetlog-inbox"))
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "false")
            .set("queued.max.messages.kbytes", QUEUE_KBYTES)
            .set("topic.metadata.refresh.interval.ms", METADATA_INTERVAL_MS)
            .create_with_context(TracingContext)
    }

    /// Reads what is followed now, each inbox from where it was handed over to.
    fn assign(&mut self, client: &BaseConsumer<TracingContext>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (at, followed) in &mut self.followed {
            followed.paused = false;
            list.add_partition_offset(&at.topic, at.partition, Offset::Offset(followed.next))?;
        }
        // librdkafka keeps a partition's pause over assignments.
        client.assign(&list)?;
        client.resume(&list)
    }

    fn resume(&mut self, client: &BaseConsumer<TracingContext>) {
        for (at, followed) in self.followed.iter_mut().filter(|(_, followed)| followed.paused) {
            if followed.writer.wants_more() != Some(true) {
                continue;
            }
            let resumed = one(at).and_then(|list| client.resume(&list)).and_then(|()| {
                client.seek(&at.topic, at.partition, Offset::Offset(followed.next), SEEK_TIMEOUT)
            });
            match resumed {
                Ok(()) => followed.paused = false,
                Err(error) => debug!(%error, topic = at.topic, partition = at.partition, "seek put off"),
            }
        }
    }

    fn poll(&mut self, client: &BaseConsumer<TracingContext>) {
        let mut timeout = POLL_TIMEOUT;
        for _ in 0..POLLS_PER_ROUND {
            let Some(polled) = client.poll(timeout) else {
                self.bootstrap.look_after(client.client());
                return;
            };
            timeout = Duration::ZERO;
            match polled {
                Ok(message) => {
                    self.trouble = None;
                    self.hand_over(client, &message);
                }
                Err(error) => self.tell(&error),
            }
        }
    }

    /// Says once what is wrong: nobody waits for commands that cannot be read.
    fn tell(&mut self, error: &KafkaError) {
        let is_absent = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
        );
        let what = if is_absent {
            "inboxes are missing: nothing can be redriven, repaired or skipped there; fleetlog topics apply"
        } else {
            "reading inboxes; waiting until it passes"
        };
        if self.trouble.replace(what) != Some(what) {
            warn!(%error, "{what}");
        }
    }

    fn hand_over(&mut self, client: &BaseConsumer<TracingContext>, message: &BorrowedMessage<'_>) {
        let at = InboxAt { topic: message.topic().to_owned(), partition: message.partition() };
        let Some(followed) = self.followed.get_mut(&at) else { return };
        // Behind a pause; it is read again after it.
        if followed.paused {
            return;
        }
        if message.offset() < followed.next {
            let (wanted, offset) = (followed.next, message.offset());
            warn!(
                topic = at.topic,
                partition = at.partition,
                wanted,
                offset,
                "the inbox was made anew; reading it from its begin"
            );
        }
        followed.next = message.offset() + 1;
        if followed.writer.push(record(message)) == Some(false) {
            match one(&at).and_then(|list| client.pause(&list)) {
                Ok(()) => followed.paused = true,
                Err(error) => debug!(%error, topic = at.topic, partition = at.partition, "not paused"),
            }
        }
    }
}

fn one(at: &InboxAt) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&at.topic, at.partition, Offset::Invalid)?;
    Ok(list)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: message.offset(),
        timestamp: TimestampMs(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: Headers::pack(fleetlog_kafka::headers(message)),
    }
}
