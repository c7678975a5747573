//! Events and raw records in one Kafka transaction: all of them become visible, or none.
//!
//! For importing with a place: the events of a batch of lines and the record that says how far the file was read.
//! The transactional id fences: a second process with the same id takes over, the first one stops.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fleetlog_event::{EventSet, EventVisitor, FleetEvent};
use fleetlog_kafka::{
    Bootstrap, ClusterError, KafkaFault, KafkaSettings, Offsets, classify, error_code, log_error, log_line,
};
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message as _},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use crate::{
    ConnectError, ProducerMetrics, RawRecord, Schemas, SendError, SendOptions, TransactionError,
    client::dies_with_client,
    event_producer::{outgoing, stamp},
    record::{Outgoing, Topic},
};

/// How long one transactional call may take before it is asked again.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one poll waits: the longest that the end goes unnoticed.
const POLL: Duration = Duration::from_millis(50);
/// How often a batch is tried whose transactions are aborted for reasons that are not its own.
const ABORTED_TRIES: u32 = 3;
/// How often a call that timed out is asked again before the outcome counts as unknown.
const CALL_TRIES: u32 = 12;
/// Between two looks whether what was committed can be read.
const VISIBLE_INTERVAL: Duration = Duration::from_millis(20);

/// Sends batches, each in a transaction of its own, one after the other.
pub struct TransactionalProducer {
    client: Arc<BaseProducer<Outcomes>>,
    kafka: KafkaSettings,
    transactional_id: String,
    schemas: Arc<Schemas>,
    metrics: ProducerMetrics,
    _polling: Polling,
}

/// Serves callbacks on a thread of its own until dropped: committing and aborting wait for them within librdkafka.
struct Polling {
    stop: Arc<AtomicBool>,
}

impl Polling {
    fn start(client: &Arc<BaseProducer<Outcomes>>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Arc::clone(client), Arc::clone(&stop));
        std::thread::Builder::new().name("fleetlog-transactions".into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                client.poll(POLL);
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl TransactionalProducer {
    /// Takes over the transactional id: ends what a former process left open (committing what it had decided to,
    /// aborting the rest) and fences that process. Waits for the brokers.
    ///
    /// # Errors
    /// When the settings are wrong or the brokers do not answer.
    pub async fn connect(
        kafka: &KafkaSettings,
        transactional_id: &str,
        schemas: Schemas,
        metrics: ProducerMetrics,
    ) -> Result<Self, ConnectError> {
        let mut config: ClientConfig = kafka.producer();
        config.set("transactional.id", transactional_id);
        let context = format!("taking over transactional id `{transactional_id}`");
        let wrap = |source| ConnectError(ClusterError::Kafka { context: context.clone(), source });
        let client: BaseProducer<Outcomes> =
            config.create_with_context(Outcomes::new(&kafka.brokers)).map_err(wrap)?;
        let client = Arc::new(client);
        let polling = Polling::start(&client).map_err(|error| {
            ConnectError(ClusterError::Interrupted(format!("starting a producer's thread: {error}")))
        })?;
        let taking = Arc::clone(&client);
        let taken = tokio::task::spawn_blocking(move || {
            again_while_retriable(&taking, || taking.init_transactions(CALL_TIMEOUT))
        });
        match taken.await {
            Ok(taken) => taken.map_err(wrap)?,
            Err(_) => return Err(ConnectError(ClusterError::Interrupted(context))),
        }
        Ok(Self {
            client,
            transactional_id: transactional_id.to_owned(),
            schemas: Arc::new(schemas),
            kafka: kafka.clone(),
            metrics,
            _polling: polling,
        })
    }

    /// Sends everything in one transaction and commits it: events first, then the raw records, each in order.
    /// `recorded_at` is filled in where it is 0.
    ///
    /// # Errors
    /// See [`TransactionError`]: after `Event` and `Aborted` nothing is visible and this producer can go on; after
    /// the others it has to be made anew.
    pub async fn transact(
        &mut self,
        events: Vec<FleetEvent>,
        records: Vec<RawRecord>,
    ) -> Result<(), TransactionError> {
        let mut batch = Vec::with_capacity(events.len() + records.len());
        for event in events {
            batch.push(self.prepare(event).await?);
        }
        batch.extend(records.into_iter().map(|record| Outgoing::raw(self.topic(&record.topic), record)));
        let (client, id) = (Arc::clone(&self.client), self.transactional_id.clone());
        let done = tokio::task::spawn_blocking(move || commit_on(&client, &id, &batch)).await;
        done.unwrap_or_else(|_| Err(TransactionError::Unknown(KafkaError::Canceled)))
    }

    /// Waits until `read_committed` consumers reach everything this producer committed. Kafka acknowledges a commit once it
    /// is decided, and writes the markers that make it readable afterwards (KIP-98). False if that did not come within
    /// `patience`: the transaction of somebody else, begun earlier on the same partitions, may be open.
    ///
    /// # Errors
    /// When the brokers cannot be asked where the partitions end.
    pub async fn until_visible(&self, patience: Duration) -> Result<bool, ClusterError> {
        let last = self.client.context().last_offsets();
        let mut topics: Vec<&str> = last.keys().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        if topics.is_empty() {
            return Ok(true);
        }
        let (offsets, deadline) = (Offsets::new(&self.kafka)?, Instant::now() + patience);
        loop {
            let ranges = offsets.ranges(&topics).await?;
            if last.iter().all(|(at, last)| ranges.get(at).is_some_and(|range| range.end > *last)) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(VISIBLE_INTERVAL).await;
        }
    }

    /// The last offset that this producer wrote to each partition (physical topic, partition), as the brokers acknowledged it;
    /// whether it was committed is what [`transact`](Self::transact) says.
    #[must_use]
    pub fn last_offsets(&self) -> BTreeMap<(String, i32), i64> {
        self.client.context().last_offsets()
    }

    async fn prepare(&self, mut event: FleetEvent) -> Result<Outgoing, SendError> {
        stamp(event.meta_mut());
        let event_type = event.event_type();
        let topic = self.topic(&self.kafka.topic(event_type.topic));
        self.schemas.ready(event_type.name, &topic.name).await?;
        event.visit(Prepare { topic, schemas: &self.schemas })
    }

    fn topic(&self, name: &str) -> Arc<Topic> {
        Arc::new(Topic { name: name.into(), metrics: self.metrics.topic(name) })
    }
}

struct Prepare<'a> {
    topic: Arc<Topic>,
    schemas: &'a Schemas,
}

impl EventVisitor for Prepare<'_> {
    type Output = Result<Outgoing, SendError>;

    fn event<E: fleetlog_event::Event>(self, event: &E) -> Self::Output {
        outgoing(event, self.topic, self.schemas, SendOptions::default())
    }
}

/// One transaction, begun again if it had to be aborted for a reason that is not the batch's, *blocking*.
///
/// An aborted transaction is invisible, so the whole batch can go again. The first transaction after one that was
/// aborted for a refused record needs this: librdkafka finds that record's sequence number skipped, and heals by an
/// abort with a new epoch.
fn commit_on(client: &BaseProducer<Outcomes>, id: &str, batch: &[Outgoing]) -> Result<(), TransactionError> {
    let mut outcome = commit(client, id, batch);
    for _ in 1..ABORTED_TRIES {
        match &outcome {
            Err(TransactionError::Aborted(error))
                if dies_with_client(error) || classify(error) == KafkaFault::Transient =>
            {
                tracing::warn!(%error, "a transaction was aborted, and is begun again");
                outcome = commit(client, id, batch);
            }
            _ => break,
        }
    }
    outcome
}

/// One transaction, *blocking*.
fn commit(client: &BaseProducer<Outcomes>, id: &str, batch: &[Outgoing]) -> Result<(), TransactionError> {
    client.context().take_failure();
    client.begin_transaction().map_err(|error| judged(client, id, error))?;
    for outgoing in batch {
        send(client, outgoing).map_err(|error| judged(client, id, error))?;
    }
    let committed = again_while_retriable(client, || client.commit_transaction(CALL_TIMEOUT));
    committed.map_err(|error| {
        let first = client.context().take_failure();
        match judged(client, id, error) {
            // The delivery's own error says more than "the transaction requires abort".
            TransactionError::Aborted(error) => TransactionError::Aborted(first.unwrap_or(error)),
            other => other,
        }
    })?;
    for outgoing in batch {
        outgoing.topic.metrics.acknowledged.inc();
    }
    Ok(())
}

fn send(client: &BaseProducer<Outcomes>, outgoing: &Outgoing) -> Result<(), KafkaError> {
    let mut record = BaseRecord {
        topic: &outgoing.topic.name,
        partition: outgoing.partition,
        payload: outgoing.value.as_deref(),
        key: outgoing.key.as_deref(),
        timestamp: outgoing.timestamp.map(|time| time.0),
        headers: outgoing.native_headers(),
        delivery_opaque: (),
    };
    loop {
        match client.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) if error_code(&error) == Some(RDKafkaErrorCode::QueueFull) => {
                record = back;
                // Serves acknowledgements, which make room.
                client.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// What an error within a transaction means, after having done what librdkafka asks for: abort where that is enough.
fn judged(client: &BaseProducer<Outcomes>, id: &str, error: KafkaError) -> TransactionError {
    let fatal = client.client().fatal_error().map(|(code, _)| code).or_else(|| fatal_code(&error));
    match fatal {
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch,
        ) => TransactionError::Fenced(id.to_owned()),
        Some(_) => TransactionError::Unknown(error),
        None if is_retriable(&error) => TransactionError::Unknown(error),
        None => match again_while_retriable(client, || client.abort_transaction(CALL_TIMEOUT)) {
            Ok(()) => TransactionError::Aborted(error),
            Err(abort) => match client.client().fatal_error() {
                Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced, _)) => {
                    TransactionError::Fenced(id.to_owned())
                }
                _ => TransactionError::Unknown(abort),
            },
        },
    }
}

fn fatal_code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) if inner.is_fatal() => Some(inner.code()),
        _ => None,
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(inner) => inner.is_retriable(),
        // `commit_transaction` flushes first, and that timed out: the transaction is still open.
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
        _ => false,
    }
}

/// Transactional calls can be resumed by calling again where librdkafka says so. A client that lost its brokers is looked after
/// in between.
fn again_while_retriable(
    client: &BaseProducer<Outcomes>,
    call: impl Fn() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    let mut bootstrap = Bootstrap::new(&client.context().servers);
    let mut result = call();
    for _ in 1..CALL_TRIES {
        match &result {
            Err(error) if is_retriable(error) && client.client().fatal_error().is_none() => {
                bootstrap.look_after(client.client());
                result = call();
            }
            _ => break,
        }
    }
    result
}

/// What became of the records.
struct Outcomes {
    /// Whom to ask for brokers.
    servers: String,
    /// The first record of this transaction that was not delivered: the reason why it has to be aborted.
    first_failure: Mutex<Option<KafkaError>>,
    /// The last offset written to each partition.
    last_offsets: Mutex<BTreeMap<(String, i32), i64>>,
}

impl Outcomes {
    fn new(servers: &str) -> Self {
        Self { servers: servers.to_owned(), first_failure: Mutex::default(), last_offsets: Mutex::default() }
    }

    fn take_failure(&self) -> Option<KafkaError> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn last_offsets(&self) -> BTreeMap<(String, i32), i64> {
        self.last_offsets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Outcomes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(record) => {
                // A record whose acknowledgement was a duplicate's has no offset.
                let (at, offset) = ((record.topic().to_owned(), record.partition()), record.offset());
                let mut last = self.last_offsets.lock().unwrap_or_else(PoisonError::into_inner);
                last.entry(at).and_modify(|last| *last = offset.max(*last)).or_insert(offset);
            }
            Err((error, _)) => {
                let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}
