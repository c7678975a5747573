//! The way out shared by all producers: bounded in records and bytes, one poll thread, a new client when one dies.
//!
//! Order: every record has a number, taken in the order of the calls. A record goes straight to librdkafka's queue
//! while the client is well. When it died, the poll thread purges it, which returns every record that was not
//! acknowledged; those, and what was sent meanwhile, go to a new client sorted by number, before anything newer.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use fleetlog_event::TimestampMs;
use fleetlog_kafka::{Bootstrap, ClusterError, KafkaSettings};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{Producer, PurgeConfig},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::{
    ProducerMetrics,
    client::{Callbacks, Client, dies_with_client, heals_with_new_client, produce},
    error::{Cause, ConnectError, DeliveryError, SendError},
    record::{Outgoing, Topic},
};

/// How long one poll waits: the longest that a fatal error or the end goes unnoticed. The client spins for the last
/// millisecond of each (rdkafka 0.39 rounds what is left of it down): at 20 ms that was 4 % of a core for every producer.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait between two new clients that both died at once.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How much may be on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProducerSettings {
    /// Records sent and not acknowledged yet; what is more waits in `send`.
    pub in_flight_records_max: usize,
    /// Memory they may take, in bytes, by estimate.
    pub in_flight_bytes_max: usize,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self { in_flight_records_max: 100_000, in_flight_bytes_max: 128 << 20 }
    }
}

/// Where an acknowledged record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The time that the broker stamped it with, by its own clock; none on topics that keep the time of who sends.
    pub appended_at: Option<TimestampMs>,
}

impl std::fmt::Display for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

type Outcome = Result<Delivered, DeliveryError>;

/// The outcome of one send, to be awaited. Dropping it changes nothing: the record is delivered all the same.
#[derive(Debug)]
pub struct Delivery {
    receiver: oneshot::Receiver<Outcome>,
    topic: Arc<str>,
    event_id: Option<fleetlog_event::EventId>,
}

impl Future for Delivery {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.receiver).poll(context).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                let (event_id, topic) = (self.event_id, Arc::clone(&self.topic));
                Err(DeliveryError { event_id, topic, cause: Cause::GivenUp })
            })
        })
    }
}

/// What became of what was sent: see `flush` and `close`.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Records acknowledged since the producer was made.
    pub delivered: u64,
    /// Records that failed and whose [`Delivery`] nobody kept, or that were given up by `close`; told once.
    pub undelivered: Vec<DeliveryError>,
    /// Records neither acknowledged nor given up yet.
    pub in_flight: usize,
}

/// A record on its way, with what to do when its fate is known.
#[derive(Debug)]
pub(crate) struct Pending {
    number: u64,
    pub(crate) outgoing: Outgoing,
    cost_bytes: u32,
    outcome: oneshot::Sender<Outcome>,
    since: Instant,
}

/// What the senders, the poll thread and the callbacks share.
pub(crate) struct Shared {
    records: Semaphore,
    bytes: Semaphore,
    bytes_max: u32,
    in_flight: AtomicUsize,
    idle: Notify,
    delivered: AtomicU64,
    undelivered: Mutex<Vec<DeliveryError>>,
    giving_up: AtomicBool,
    metrics: ProducerMetrics,
}

impl Shared {
    fn new(settings: &ProducerSettings, metrics: ProducerMetrics) -> Self {
        let bytes_max = u32::try_from(settings.in_flight_bytes_max).unwrap_or(u32::MAX).max(1);
        Self {
            records: Semaphore::new(settings.in_flight_records_max.clamp(1, Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(bytes_max as usize),
            bytes_max,
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            delivered: AtomicU64::new(0),
            undelivered: Mutex::default(),
            giving_up: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether what is returned now has to end as given up.
    pub(crate) fn gives_up(&self) -> bool {
        self.giving_up.load(Ordering::Acquire)
    }

    /// Waits until there is room for a record.
    async fn reserve(&self, cost_bytes: u32) -> Result<(), SendError> {
        let records = self.records.acquire().await.map_err(|_| SendError::Closed)?;
        let bytes = self.bytes.acquire_many(cost_bytes).await.map_err(|_| SendError::Closed)?;
        records.forget();
        bytes.forget();
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.metrics.in_flight_records.inc();
        self.metrics.in_flight_bytes.add(i64::from(cost_bytes));
        Ok(())
    }

    /// The fate of a record is known: tells it, and makes room.
    pub(crate) fn finish(&self, pending: Pending, outcome: Result<Delivered, Cause>) {
        let Pending { outgoing, cost_bytes, outcome: sender, since, .. } = pending;
        match outcome {
            Ok(delivered) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                outgoing.topic.metrics.acknowledged.inc();
                self.metrics.acknowledgement_seconds.observe(since.elapsed().as_secs_f64());
                // A dropped receiver is a caller that counts on `flush`.
                drop(sender.send(Ok(delivered)));
            }
            Err(cause) => {
                outgoing.topic.metrics.failed.inc();
                let topic = Arc::clone(&outgoing.topic.name);
                let error = DeliveryError { event_id: outgoing.event_id, topic, cause };
                let unheard = sender.send(Err(error.clone())).is_err();
                if unheard || self.gives_up() {
                    self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
            }
        }
        self.metrics.in_flight_records.dec();
        self.metrics.in_flight_bytes.sub(i64::from(cost_bytes));
        self.records.add_permits(1);
        self.bytes.add_permits(cost_bytes as usize);
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    async fn until_idle(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    fn report(&self) -> Report {
        Report {
            delivered: self.delivered.load(Ordering::Relaxed),
            undelivered: std::mem::take(
                &mut *self.undelivered.lock().unwrap_or_else(PoisonError::into_inner),
            ),
            in_flight: self.in_flight.load(Ordering::Acquire),
        }
    }
}

/// Where a record goes now.
enum State {
    /// To this client.
    Ready(Arc<Client>),
    /// Onto the pile that the next client begins with.
    Recovering,
    /// Nowhere: no client can help.
    Failed(Arc<str>),
}

/// The core of a producer. Ends its poll thread when dropped.
pub(crate) struct Outbox {
    lane: Arc<Lane>,
}

/// What the poll thread keeps alive.
struct Lane {
    shared: Arc<Shared>,
    config: ClientConfig,
    state: RwLock<State>,
    parked: Mutex<Vec<Pending>>,
    number: AtomicU64,
    topics: RwLock<HashMap<String, Arc<Topic>>>,
    stop: AtomicBool,
    fatal_errors: AtomicU64,
}

impl Outbox {
    /// Starts a client and its poll thread. Does not wait for a broker.
    pub(crate) fn start(
        kafka: &KafkaSettings,
        settings: &ProducerSettings,
        metrics: ProducerMetrics,
    ) -> Result<Self, ConnectError> {
        let mut config = kafka.producer();
        // Bounded by the semaphores, below which librdkafka's own queue must never be full.
        config.set("queue.buffering.max.messages", "0").set("queue.buffering.max.kbytes", "2147483647");
        let shared = Arc::new(Shared::new(settings, metrics));
        let wrap = |error| {
            ConnectError(ClusterError::Kafka { context: "creating a producer".into(), source: error })
        };
        let client: Client = config.create_with_context(Callbacks::new(Arc::clone(&shared))).map_err(wrap)?;
        let lane = Arc::new(Lane {
            shared,
            config,
            state: RwLock::new(State::Ready(Arc::new(client))),
            parked: Mutex::default(),
            number: AtomicU64::new(0),
            topics: RwLock::default(),
            stop: AtomicBool::new(false),
            fatal_errors: AtomicU64::new(0),
        });
        let poller = Arc::clone(&lane);
        let spawned =
            std::thread::Builder::new().name("fleetlog-producer".into()).spawn(move || poller.poll_on());
        spawned.map_err(|error| {
            let context = format!("starting a producer's thread: {error}");
            ConnectError(ClusterError::Interrupted(context))
        })?;
        Ok(Self { lane })
    }

    /// The topic of that physical name, with its counters.
    pub(crate) fn topic(&self, name: &str) -> Arc<Topic> {
        let topics = &self.lane.topics;
        if let Some(topic) = topics.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(topic);
        }
        let mut topics = topics.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Topic { name: name.into(), metrics: self.lane.shared.metrics.topic(name) });
        Arc::clone(topics.entry(name.to_owned()).or_insert_with(new))
    }

    /// Waits for room, then hands the record over.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Delivery, SendError> {
        let shared = &self.lane.shared;
        let cost_bytes = u32::try_from(outgoing.cost_bytes()).unwrap_or(u32::MAX).min(shared.bytes_max);
        shared.reserve(cost_bytes).await?;
        let (outcome, receiver) = oneshot::channel();
        let (topic, event_id) = (Arc::clone(&outgoing.topic.name), outgoing.event_id);
        self.lane.enqueue(outgoing, cost_bytes, outcome);
        Ok(Delivery { receiver, topic, event_id })
    }

    /// Waits, at most so long, until everything sent so far has an outcome.
    pub(crate) async fn flush(&self, at_most: Duration) -> Report {
        let shared = &self.lane.shared;
        // What is not done by then is told by the report.
        let _ = tokio::time::timeout(at_most, shared.until_idle()).await;
        shared.report()
    }

    /// Takes nothing more, waits at most so long, then gives up what is left.
    pub(crate) async fn close(&self, at_most: Duration) -> Report {
        let shared = &self.lane.shared;
        shared.records.close();
        shared.bytes.close();
        let _ = tokio::time::timeout(at_most, shared.until_idle()).await;
        self.lane.end();
        shared.until_idle().await;
        shared.report()
    }

    /// How many fatal errors were survived.
    pub(crate) fn fatal_errors(&self) -> u64 {
        self.lane.fatal_errors.load(Ordering::Relaxed)
    }

    /// Puts the present client into a fatal error, as a broker that lost its state would.
    pub(crate) fn fail_for_test(&self) {
        if let State::Ready(client) = &*self.lane.state.read().unwrap_or_else(PoisonError::into_inner) {
            fleetlog_kafka::fail_client_for_test(client.client());
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.lane.end();
    }
}

impl Lane {
    fn end(&self) {
        self.shared.giving_up.store(true, Ordering::Release);
        self.stop.store(true, Ordering::Release);
    }

    fn enqueue(&self, outgoing: Outgoing, cost_bytes: u32, outcome: oneshot::Sender<Outcome>) {
        // Under the read lock, so that the poll thread sees either this record or the state it was parked in.
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let pending = Box::new(Pending { number, outgoing, cost_bytes, outcome, since: Instant::now() });
        match &*state {
            State::Ready(client) => self.hand_over(client, pending),
            State::Recovering => self.park(pending),
            State::Failed(why) => self.shared.finish(*pending, Err(Cause::Failed(Arc::clone(why)))),
        }
    }

    fn hand_over(&self, client: &Client, pending: Box<Pending>) {
        match produce(client, pending) {
            Ok(()) => {}
            // The poll thread is about to notice, too.
            Err((error, pending)) if dies_with_client(&error) => self.park(pending),
            Err((error, pending)) => self.shared.finish(*pending, Err(Cause::Kafka(error))),
        }
    }

    fn park(&self, pending: Box<Pending>) {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).push(*pending);
    }

    fn take_parked(&self) -> Vec<Pending> {
        std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn client(&self) -> Option<Arc<Client>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Ready(client) => Some(Arc::clone(client)),
            State::Recovering | State::Failed(_) => None,
        }
    }

    fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The poll thread: serves callbacks, replaces a client that died, ends when told to.
    fn poll_on(&self) {
        let (mut backoff, mut delivered_before) = (Backoff::default(), 0);
        let mut bootstrap = Bootstrap::new(self.config.get("bootstrap.servers").unwrap_or_default());
        while let Some(client) = self.client() {
            client.poll(POLL);
            let delivered = self.shared.delivered.load(Ordering::Relaxed);
            if delivered == delivered_before && client.in_flight_count() > 0 {
                bootstrap.look_after(client.client());
            }
            delivered_before = delivered;
            if self.stop.load(Ordering::Acquire) {
                return self.give_up(&client);
            }
            let fatal = client.client().fatal_error();
            if fatal.is_none() && !client.context().has_returned() {
                continue;
            }
            self.fatal_errors.fetch_add(1, Ordering::Relaxed);
            self.shared.metrics.fatal_errors.inc();
            match fatal {
                Some((code, reason)) if !heals_with_new_client(code) => {
                    tracing::error!(%code, reason, "the producer failed for good");
                    return self.fail(&client, &format!("{code}: {reason}"));
                }
                fatal => {
                    tracing::warn!(
                        ?fatal,
                        "the producer's client died: what is not acknowledged goes to a new one"
                    );
                }
            }
            backoff.wait(&client, self.shared.delivered.load(Ordering::Relaxed));
            if let Err(error) = self.replace(&client) {
                return self.fail(&client, &error.to_string());
            }
        }
    }

    /// Moves everything not acknowledged from a dead client to a new one, in order.
    fn replace(&self, dead: &Client) -> Result<(), KafkaError> {
        // From here on, what is sent is parked: no sender still holds the dead client.
        self.set_state(State::Recovering);
        purge(dead);
        let client: Client = self.config.create_with_context(Callbacks::new(Arc::clone(&self.shared)))?;
        let client = Arc::new(client);
        let mut returned = dead.context().take_returned();
        loop {
            returned.append(&mut self.take_parked());
            returned.sort_unstable_by_key(|pending| pending.number);
            for pending in returned.drain(..) {
                self.hand_over(&client, Box::new(pending));
            }
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            // Parked by the new client's death: the poll thread takes that up in its next round.
            if parked.is_empty() || client.client().fatal_error().is_some() {
                *state = State::Ready(client);
                return Ok(());
            }
        }
    }

    /// No client can help: everything ends with an error, now and from now on.
    fn fail(&self, dead: &Client, why: &str) {
        let why: Arc<str> = why.into();
        self.set_state(State::Failed(Arc::clone(&why)));
        purge(dead);
        for pending in dead.context().take_returned().into_iter().chain(self.take_parked()) {
            self.shared.finish(pending, Err(Cause::Failed(Arc::clone(&why))));
        }
    }

    /// The end: what is not acknowledged is given up, and told.
    fn give_up(&self, client: &Client) {
        let why = Arc::from("the producer was closed");
        self.set_state(State::Failed(why));
        purge(client);
        for pending in client.context().take_returned().into_iter().chain(self.take_parked()) {
            self.shared.finish(pending, Err(Cause::GivenUp));
        }
    }
}

/// Makes a client return every record that it has not delivered, and serves the callbacks that tell so.
fn purge(client: &Client) {
    client.purge(PurgeConfig::default().queue().inflight());
    while client.in_flight_count() > 0 {
        client.poll(Duration::ZERO);
    }
}

/// Waits longer and longer between clients that die without having delivered anything.
#[derive(Default)]
struct Backoff {
    wait: Duration,
    delivered: u64,
}

impl Backoff {
    fn wait(&mut self, client: &Client, delivered: u64) {
        if delivered == self.delivered && !self.wait.is_zero() {
            client.poll(self.wait);
            self.wait = (self.wait * 2).min(BACKOFF_MAX);
        } else {
            self.wait = Duration::from_millis(100);
        }
        self.delivered = delivered;
    }
}
