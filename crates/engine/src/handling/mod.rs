//! Runs one handler: reads what it is called for, and what waits to be, and does what its
//! [`Dispatcher`](fleetlog_handler::Dispatcher) says.
//!
//! ```text
//! poll thread:  consumer ─► Dispatcher ─► actions         (driver)
//! runtime:      prepare, call, send, ask the broker's time (tasks), each told back to the poll thread
//! ```
//!
//! One thread owns the consumer and the dispatcher, and never waits for anything but what it is told; so an endpoint that does not
//! answer, a tier that is not due and a broker that is away hold up neither each other nor membership.

mod carried;
mod circuits;
mod driver;
mod floods;
mod lanes;
mod mutants;
mod starts;
mod tasks;
mod told;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use fleetlog_event::catalogue::{held_name, retry_name};
use fleetlog_handler::{Change, CircuitSettings, DispatcherSettings, Handler, LaneKind, RetryPolicy};
use fleetlog_kafka::KafkaSettings;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    End, EngineConfig, Failure, HandlerMetrics, Intake, ProjectionRuntime, StatusHandle,
    halting::Halting,
    handler_metrics::Figures,
    lane::SharedLogs,
    member::{Member, Served, watch_ends},
    membership::{KafkaMembership, Membership},
    ports::{Circuits, DeadLetters, Halts, Logs, Schemas, WaitingTopics},
    restarts::{Alarm, Restarting, ShowRun as _},
    status::ProjectionStatus,
};
use circuits::{Circuitry, Whose};
use driver::{Driver, DriverEnd};
use told::{Teller, channel};

/// How long a broker may hold its answer to a fetch. A partition that is full is paused, which throws away what was fetched ahead, and
/// read on a moment later; librdkafka has one fetch under way, and tiers are mostly silent. With its default of 500 ms a handler spent
/// most of its time waiting (ADR 22).
const FETCH_WAIT_MS: u64 = 10;
/// How often the ends of the lanes' logs are asked for, for lag.
const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// What closing the consumer may take beyond the drain deadline.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Records of a partition that are held here at least: what is paused throws away what was fetched ahead.
const BUFFER_RECORDS_MIN: usize = 2_048;
/// How long what is done may wait to be committed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// Where a source topic is begun that the group has committed nothing of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With what comes from now on.
    #[default]
    End,
    /// With the first record that is still there.
    Begin,
}

/// What is particular to a handler's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSettings {
    /// Records of a partition that may be under way at a time, and that may be handled again after a crash.
    pub in_flight_max: usize,
    /// The tiers.
    pub retry: RetryPolicy,
    /// The circuit.
    pub circuit: CircuitSettings,
    /// Where a source topic is begun that the group has committed nothing of.
    pub start_at: StartAt,
    /// How long a call may take, whatever the handler itself says (DESIGN §7: 60 s).
    pub call_timeout: Duration,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            retry: RetryPolicy::default(),
            circuit: CircuitSettings::default(),
            start_at: StartAt::default(),
            call_timeout: Duration::from_secs(60),
        }
    }
}

/// What a runner is made of.
pub struct HandlerParts<H, C> {
    /// The handler.
    pub handler: H,
    /// Where writer schemas come from.
    pub schemas: C,
    /// Where events wait.
    pub waiting: Arc<dyn WaitingTopics>,
    /// Where dead letters go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Facts about logs.
    pub logs: Arc<dyn Logs>,
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The topics that it is called for, by stem.
    pub topics: Vec<String>,
    /// What is particular to this handler.
    pub settings: HandlerSettings,
    /// Settings of the process.
    pub config: EngineConfig,
    /// The process's metrics.
    pub metrics: HandlerMetrics,
    /// The handler's own runtime.
    pub runtime: ProjectionRuntime,
}

/// One handler, ready to run.
pub struct HandlerRunner<H, C> {
    shared: Arc<Shared<H, C>>,
    kafka: KafkaSettings,
    runtime: ProjectionRuntime,
    halts: Option<Arc<dyn Halts>>,
    circuits: Option<Arc<dyn Circuits>>,
}

/// What poll thread and tasks share.
struct Shared<H, C> {
    handler: H,
    id: String,
    group: String,
    schemas: C,
    waiting: Arc<dyn WaitingTopics>,
    dead_letters: Arc<dyn DeadLetters>,
    logs: SharedLogs,
    topics: Vec<HandlerTopic>,
    settings: HandlerSettings,
    config: Arc<EngineConfig>,
    status: Arc<ProjectionStatus>,
    figures: Figures,
    halting: Halting,
    /// The poll thread ends by itself.
    alarm: Alarm,
    circuitry: Circuitry,
    /// How many partitions topics have: known before the first record is.
    partitions: Mutex<BTreeMap<String, i32>>,
}

/// A topic that a handler reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerTopic {
    /// Its physical name.
    pub name: Arc<str>,
    /// What it is to the handler.
    pub kind: LaneKind,
}

/// The consumer group of a handler: `<prefix>fleetlog-<id>`. It has no version: nothing is ever rebuilt from a handler.
#[must_use]
pub fn handler_group(topic_prefix: &str, id: &str) -> String {
    format!("{topic_prefix}fleetlog-{id}")
}

impl<H: Handler, C: Schemas> HandlerRunner<H, C> {
    /// Puts the parts together. Connects to nothing yet.
    ///
    /// # Errors
    /// Permanent: every problem of the settings at once, or no topic to read.
    pub fn new(parts: HandlerParts<H, C>) -> Result<Self, Failure> {
        let HandlerParts { handler, schemas, waiting, dead_letters, logs, kafka, .. } = parts;
        let HandlerParts { topics, settings, config, metrics, runtime, .. } = parts;
        config.check().map_err(|problems| Failure::permanent(problems.to_string()))?;
        let id = handler.id().to_owned();
        if topics.is_empty() {
            return Err(Failure::permanent(format!("handler `{id}` reads no topic")));
        }
        let group = handler_group(&kafka.topic_prefix, &id);
        let topics = handler_topics(&group, topics.iter().map(|stem| kafka.topic(stem)), &settings.retry);
        let names = topics.iter().map(|topic| topic.name.to_string()).collect();
        let shared = Shared {
            figures: metrics.of(&id),
            handler,
            id,
            group,
            schemas,
            waiting,
            dead_letters,
            logs: SharedLogs::new(logs, names),
            topics,
            settings,
            config: Arc::new(EngineConfig { fetch_wait_ms: FETCH_WAIT_MS, ..config }),
            status: Arc::default(),
            halting: Halting::default(),
            alarm: Alarm::default(),
            circuitry: Circuitry::default(),
            partitions: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), kafka, runtime, halts: None, circuits: None })
    }

    /// Lets it know of halts, and tell its own and of its circuit: then it stands still while it is halted or has failed, and goes
    /// on when it is resumed. Without them it ends.
    #[must_use]
    pub fn with_ops(self, halts: Arc<dyn Halts>, circuits: Arc<dyn Circuits>) -> Self {
        Self { halts: Some(halts), circuits: Some(circuits), ..self }
    }

    /// What it is doing, from anywhere at any time.
    #[must_use]
    pub fn status(&self) -> StatusHandle {
        StatusHandle::of(&self.shared.status)
    }

    /// The handler's consumer group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// Runs until `stop` is cancelled. Then drains: what is under way ends (up to the deadline), what is done is committed, the
    /// consumer closes. Where something permanent stops it, or too much of what it is called for would be dead letters, it waits to
    /// be resumed if it knows of halts, and ends if not.
    pub async fn run(self, stop: CancellationToken) -> End {
        let Shared { config, group, id, topics, .. } = &*self.shared;
        let topics = topics.iter().map(|topic| topic.name.to_string()).collect();
        let membership = KafkaMembership { kafka: &self.kafka, config, group, projection: id, topics };
        let writing = self.circuits.as_ref().map(|circuits| {
            self.shared.circuitry.write_to(Arc::clone(circuits), Arc::clone(&self.shared.config))
        });
        let end = self.run_on(&membership, &stop).await;
        self.shared.figures.show(false, None);
        if let Some(writing) = writing {
            self.shared.circuitry.end(self.shared.whose(), writing).await;
        }
        end
    }

    /// Runs as a member of the group until it is stopped, over halts and failures.
    pub(crate) async fn run_on<M: Membership>(&self, membership: &M, stop: &CancellationToken) -> End {
        let Shared { group, halting, alarm, figures, .. } = &*self.shared;
        let attempt = |stop: CancellationToken| async move { self.drive(membership, &stop).await }.boxed();
        let restarting =
            Restarting { member: self.member(), group, halting, alarm, shows: figures, once: false };
        restarting.run(self.halts.as_deref(), stop, &attempt).await
    }

    fn member(&self) -> Member<'_> {
        let Shared { id, status, logs, config, .. } = &*self.shared;
        Member { id, status, logs, config }
    }

    /// From the beginning to the first end.
    async fn drive<M: Membership>(&self, membership: &M, stop: &CancellationToken) -> End {
        self.shared.circuitry.begin(self.shared.whose(), self.circuits.as_deref());
        self.shared.figures.circuit(Change::Closed);
        let shared = Arc::clone(&self.shared);
        let lag = self.runtime.handle().spawn(async move {
            watch_ends(&shared.logs, &shared.status, LAG_INTERVAL, || shared.tell_lag()).await;
        });
        let end = self.member().serve(membership, stop, |intake| self.serve(intake, stop).boxed()).await;
        lag.abort();
        end
    }

    /// Runs the poll thread over `intake` until the end of its membership.
    async fn serve<I: Intake + 'static>(&self, intake: I, stop: &CancellationToken) -> Served {
        let (teller, told) = channel();
        let polling = CancellationToken::new();
        let driver = Driver::new(
            Arc::clone(&self.shared),
            intake,
            (teller.clone(), told),
            self.runtime.handle().clone(),
            polling.clone(),
        );
        let mut ended = match self.start(driver) {
            Ok(ended) => ended,
            Err(error) => {
                return Served::Ended(End::Failed(format!("the poll thread cannot be started: {error}")));
            }
        };
        let end = tokio::select! {
            biased;
            end = &mut ended => end,
            () = stop.cancelled() => self.drained(&polling, &teller, ended).await,
        };
        match end {
            Ok(DriverEnd::Stopped) => Served::Ended(End::Stopped),
            Ok(DriverEnd::Failed(why)) => Served::Ended(End::Failed(why)),
            Ok(DriverEnd::Replaced(what)) => Served::Replaced(what),
            Err(_) => Served::Ended(End::Failed("the poll thread panicked: this is a bug".to_owned())),
        }
    }

    /// Asks the poll thread to stop, and waits until it has.
    async fn drained(
        &self,
        polling: &CancellationToken,
        teller: &Teller<H::Event>,
        ended: oneshot::Receiver<DriverEnd>,
    ) -> Result<DriverEnd, oneshot::error::RecvError> {
        let begun = Instant::now();
        polling.cancel();
        teller.wake();
        let deadline = self.shared.config.drain_deadline() + CLOSE_TIMEOUT;
        if let Ok(end) = tokio::time::timeout(deadline, ended).await {
            info!(handler = self.shared.id, after_ms = begun.elapsed().as_millis(), "drained");
            return end;
        }
        warn!(handler = self.shared.id, "the consumer did not close in time; left behind");
        Ok(DriverEnd::Stopped)
    }

    fn start<I: Intake + 'static>(
        &self,
        driver: Driver<I, H, C>,
    ) -> std::io::Result<oneshot::Receiver<DriverEnd>> {
        let (sender, ended) = oneshot::channel();
        let cpu = self.runtime.cpu();
        thread::Builder::new().name(format!("poll-{}", self.shared.id)).spawn(move || {
            cpu.enter();
            let (end, intake) = driver.run();
            // Nobody waits any more if the deadline has passed.
            let _ = sender.send(end);
            // Everything is committed, and a static member does not leave its group: nothing hangs on how long this takes.
            drop(intake);
            cpu.leave();
        })?;
        Ok(ended)
    }
}

impl<H, C> Shared<H, C> {
    fn whose(&self) -> Whose<'_> {
        Whose { group: &self.group, handler: &self.id, config: &self.config }
    }

    fn dispatcher_settings(&self) -> DispatcherSettings {
        let HandlerSettings { in_flight_max, retry, circuit, .. } = &self.settings;
        DispatcherSettings {
            in_flight_max: *in_flight_max,
            policy: retry.clone(),
            circuit: *circuit,
            buffer_records_max: BUFFER_RECORDS_MIN.max(2 * in_flight_max),
            // The other half is librdkafka's, and what is under way takes beside its record.
            buffer_bytes_max: self.config.memory_bytes_max / 2,
            commit_interval: COMMIT_INTERVAL,
        }
    }

    /// How far it is, for whoever asks: also where it stands still.
    fn tell_lag(&self) {
        for lane in self.status.snapshot().lanes {
            if let Some(lag) = lane.lag() {
                self.figures.lag(&lane.lane.topic, lane.lane.partition, lag);
            }
        }
    }

    /// The topic of what is held: the last one, by [`handler_topics`].
    fn held(&self) -> usize {
        self.topics.len() - 1
    }

    /// The topic of a tier.
    fn tier(&self, tier: usize) -> Option<usize> {
        let is_tier = |at: &usize| matches!(self.topics[*at].kind, LaneKind::Tier(_));
        (0..self.topics.len()).filter(is_tier).nth(tier)
    }
}

/// What a handler reads: its sources (physical names), then its tiers, the shortest first, then what is held.
#[must_use]
pub fn handler_topics(
    group: &str,
    sources: impl IntoIterator<Item = String>,
    retry: &RetryPolicy,
) -> Vec<HandlerTopic> {
    let topic = |name: String, kind| HandlerTopic { name: name.into(), kind };
    let sources = sources.into_iter().map(|name| topic(name, LaneKind::Source));
    let tiers = retry.delays().iter().map(|delay| {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        topic(retry_name(group, delay_ms), LaneKind::Tier(*delay))
    });
    sources.chain(tiers).chain([topic(held_name(group), LaneKind::Held)]).collect()
}
