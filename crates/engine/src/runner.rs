//! Runs one projection: its runtime, its poll thread, its lanes, from start to drain.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use fleetlog_event::{catalogue::Catalogue, ops::HaltCause};
use fleetlog_kafka::KafkaSettings;
use fleetlog_projection::{LaneId, LogNow, Projection, Sink, inbox_name};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    EngineConfig, Failure, Inbox, Intake, LaneAt, ProjectionRuntime, StatusSnapshot,
    halting::Halting,
    intake::{LaneFeed, LaneTask, PollEnd, PollThread, PollThreadParts},
    lane::{HeadersWanted, Lane, Shared, SharedLogs, Telling},
    member::{Member, Served, watch_ends},
    membership::{KafkaMembership, Membership},
    metrics::EngineMetrics,
    ports::{DeadLetters, Halts, Logs, Schemas},
    restarts::{Alarm, Restarting, ShowRun},
    status::ProjectionStatus,
};

mod goals;

use goals::Goals;

/// How often the ends of the lanes' logs are asked for, for lag.
const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// What closing the consumer may take beyond the drain deadline.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// Until stopped.
    Continuous,
    /// Until every partition's progress is at the end offset seen at the start, and the commands that lay in the inboxes then
    /// are carried out; each member of the group does its part.
    Once,
}

/// What a runner is made of.
pub struct RunnerParts<P, S, C> {
    /// The projection.
    pub projection: P,
    /// Where it lands; connected on `runtime`, so that its work is counted.
    pub sink: S,
    /// Where writer schemas come from.
    pub schemas: C,
    /// Where dead letters go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Facts about logs.
    pub logs: Arc<dyn Logs>,
    /// Where commands come from.
    pub inbox: Arc<dyn Inbox>,
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The topics: how far back duplicates are looked for.
    pub catalogue: Arc<Catalogue>,
    /// Settings.
    pub config: EngineConfig,
    /// The process's metrics.
    pub metrics: EngineMetrics,
    /// The projection's own runtime.
    pub runtime: ProjectionRuntime,
}

/// One projection, ready to run.
pub struct ProjectionRunner<P, S, C> {
    shared: Arc<Shared<P, S, C>>,
    topics: Vec<Topic>,
    kafka: KafkaSettings,
    metrics: EngineMetrics,
    runtime: ProjectionRuntime,
    failed: Alarm,
    halts: Option<Arc<dyn Halts>>,
}

#[derive(Clone)]
struct Topic {
    name: String,
    /// Of commands to the lanes.
    inbox: String,
    dedup_span_offsets: i64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to stop.
    Stopped,
    /// All that was there at the start is done.
    CaughtUp,
    /// Something permanent: what, and what to do.
    Failed(String),
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What it did.
    pub stats: Stats,
}

/// Figures of a run, for this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Events taken, set-aside ones included, duplicates not.
    pub events: u64,
    /// Records dropped as the same event sent again.
    pub duplicates: u64,
    /// Events set aside.
    pub set_aside: u64,
    /// Batches written.
    pub batches: u64,
    /// Bytes of records read.
    pub bytes: u64,
    /// Wall-clock time in seconds.
    pub seconds: f64,
    /// CPU time of the projection's threads in seconds (librdkafka's own threads not included).
    pub cpu_seconds: f64,
}

impl<P, S, C> ProjectionRunner<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Puts the parts together. Connects to nothing yet.
    ///
    /// # Errors
    /// Permanent: every problem of the settings at once, or a topic that the catalogue lacks.
    pub fn new(parts: RunnerParts<P, S, C>) -> Result<Self, Failure> {
        let RunnerParts {
            projection,
            sink,
            schemas,
            dead_letters,
            logs,
            inbox,
            kafka,
            catalogue,
            config,
            metrics,
            runtime,
        } = parts;
        config.check().map_err(|problems| Failure::permanent(problems.to_string()))?;
        let group = group_name(&kafka.topic_prefix, projection.id(), projection.version());
        let topics = projection.topics().iter().map(|stem| {
            let dedup_span_offsets = catalogue.dedup_window_offsets(stem);
            let dedup_span_offsets = dedup_span_offsets
                .ok_or_else(|| Failure::permanent(format!("topic `{stem}` is not in the catalogue")))?;
            Ok(Topic { name: kafka.topic(stem), inbox: inbox_name(&group, stem), dedup_span_offsets })
        });
        let topics: Vec<Topic> = topics.collect::<Result<_, Failure>>()?;
        let names = topics.iter().map(|topic| topic.name.clone()).collect();
        let status = Arc::new(ProjectionStatus::default());
        let failed = Alarm::default();
        let shared = Shared {
            projection,
            sink,
            schemas,
            dead_letters,
            logs: SharedLogs::new(logs, names),
            inbox,
            config: Arc::new(config),
            group,
            status: Arc::clone(&status),
            halting: Halting::default(),
            fail: fail_into(&status, &failed),
        };
        Ok(Self { shared: Arc::new(shared), topics, kafka, metrics, runtime, failed, halts: None })
    }

    /// Lets it know of halts, and tell its own: then it stands still while it is halted, and goes on when it is resumed.
    /// Without them it ends.
    #[must_use]
    pub fn with_halts(self, halts: Arc<dyn Halts>) -> Self {
        Self { halts: Some(halts), ..self }
    }

    /// What it is doing, from anywhere at any time.
    #[must_use]
    pub fn status(&self) -> StatusHandle {
        StatusHandle(Arc::clone(&self.shared.status))
    }

    /// The projection's consumer group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// Runs until `stop` is cancelled, the mode's end is reached, or something permanent stops it. Then drains: the
    /// writes in flight finish (up to the deadline), offsets are committed, the consumer closes. A run that goes on
    /// ([`RunMode::Continuous`]) and knows of halts drains where something stops it, and waits to be resumed.
    pub async fn run(self, mode: RunMode, stop: CancellationToken) -> Outcome {
        let begun = Instant::now();
        self.metrics.show_run(self.shared.projection.id(), true, None);
        let end = self.run_on(&self.membership(), mode, &stop).await;
        Outcome { end, stats: self.stats(begun) }
    }

    /// Runs as a member of the group until it is stopped or has caught up, over halts and failures.
    pub(crate) async fn run_on<M: Membership>(
        &self,
        membership: &M,
        mode: RunMode,
        stop: &CancellationToken,
    ) -> End {
        let Shared { group, halting, .. } = &*self.shared;
        let attempt =
            |stop: CancellationToken| async move { self.attempt(membership, mode, &stop).await }.boxed();
        let restarting = Restarting {
            member: self.member(),
            group,
            halting,
            alarm: &self.failed,
            shows: self,
            once: mode == RunMode::Once,
        };
        restarting.run(self.halts.as_deref(), stop, &attempt).await
    }

    /// From the beginning to the first end.
    async fn attempt<M: Membership>(&self, membership: &M, mode: RunMode, stop: &CancellationToken) -> End {
        match self.prepare(mode, stop).await {
            Ok(goals) => self.drive(membership, goals, stop).await,
            Err(end) => end,
        }
    }

    /// Waits until the store can keep the guarantees; for `--once` sees how far there is to go.
    async fn prepare(&self, mode: RunMode, stop: &CancellationToken) -> Result<Option<Goals>, End> {
        self.insist("checking the store", stop, || async { Ok(self.shared.sink.check().await?) }).await?;
        match mode {
            RunMode::Continuous => Ok(None),
            RunMode::Once => {
                self.insist("looking how far there is to go", stop, || self.goals()).await.map(Some)
            }
        }
    }

    /// Tries until it works, is permanent, or is stopped: also in the middle of a call.
    async fn insist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        doing: &str,
        stop: &CancellationToken,
        call: impl FnMut() -> F,
    ) -> Result<T, End> {
        self.member().insist(doing, stop, call).await
    }

    fn member(&self) -> Member<'_> {
        let Shared { projection, status, logs, config, .. } = &*self.shared;
        Member { id: projection.id(), status, logs, config }
    }

    fn membership(&self) -> KafkaMembership<'_> {
        let Shared { projection, config, group, .. } = &*self.shared;
        let topics = self.topics.iter().map(|topic| topic.name.clone()).collect();
        KafkaMembership { kafka: &self.kafka, config, group, projection: projection.id(), topics }
    }

    /// Runs poll thread and lanes until the end.
    pub(crate) async fn drive<M: Membership>(
        &self,
        membership: &M,
        goals: Option<Goals>,
        stop: &CancellationToken,
    ) -> End {
        let shared = Arc::clone(&self.shared);
        let lag = self.runtime.handle().spawn(async move {
            watch_ends(&shared.logs, &shared.status, LAG_INTERVAL, || {}).await;
        });
        let serve = |intake| self.serve(intake, goals.clone(), stop).boxed();
        let end = self.member().serve(membership, stop, serve).await;
        lag.abort();
        end
    }

    /// Runs poll thread and lanes over `intake` until the end of its membership.
    async fn serve<I: Intake + 'static>(
        &self,
        intake: I,
        goals: Option<Goals>,
        stop: &CancellationToken,
    ) -> Served {
        let polling = CancellationToken::new();
        let mut ended = match self.start_poll_thread(intake, polling.clone()) {
            Ok(ended) => ended,
            Err(error) => {
                return Served::Ended(End::Failed(format!("the poll thread cannot be started: {error}")));
            }
        };
        let end = tokio::select! {
            biased;
            () = self.failed.raised() => None,
            poll_end = &mut ended => match poll_end {
                Ok(PollEnd::Replaced(what)) => return Served::Replaced(what),
                // Membership is over, which has been told, or it panicked.
                _ => {
                    self.shared.status.set_stopped("the poll thread ended by itself: this is a bug of the engine");
                    None
                }
            },
            () = stop.cancelled() => Some(End::Stopped),
            () = self.caught_up(goals) => Some(End::CaughtUp),
        };
        polling.cancel();
        let deadline = self.shared.config.drain_deadline() + CLOSE_TIMEOUT;
        if !ended.is_terminated() && tokio::time::timeout(deadline, ended).await.is_err() {
            warn!(
                projection = self.shared.projection.id(),
                "the consumer did not close in time; left behind"
            );
        }
        info!(projection = self.shared.projection.id(), "drained");
        Served::Ended(match self.shared.status.stopped() {
            Some(why) => End::Failed(why),
            None => end.unwrap_or(End::Stopped),
        })
    }

    fn start_poll_thread<I: Intake + 'static>(
        &self,
        intake: I,
        stop: CancellationToken,
    ) -> std::io::Result<oneshot::Receiver<PollEnd>> {
        let id = self.shared.projection.id();
        let parts = PollThreadParts {
            projection: id,
            intake,
            config: Arc::clone(&self.shared.config),
            runtime: self.runtime.handle().clone(),
            spawn: self.spawner(),
            fail: fail_into(&self.shared.status, &self.failed),
            stop,
            status: Arc::clone(&self.shared.status),
        };
        let (sender, ended) = oneshot::channel();
        let cpu = self.runtime.cpu();
        thread::Builder::new().name(format!("poll-{id}")).spawn(move || {
            cpu.enter();
            let end = PollThread::new(parts).run();
            cpu.leave();
            // Nobody waits any more if the deadline has passed.
            let _ = sender.send(end);
        })?;
        Ok(ended)
    }

    fn spawner(&self) -> Box<dyn Fn(LaneAt, LaneFeed) -> LaneTask + Send> {
        let (shared, metrics, topics) = (Arc::clone(&self.shared), self.metrics.clone(), self.topics.clone());
        let runtime = self.runtime.handle().clone();
        Box::new(move |at, feed| {
            let topic = &topics[at.topic];
            let lane = lane_id(&shared.projection, topic, at.partition);
            let stop = CancellationToken::new();
            let lane = Lane {
                status: shared.status.lane_joined(at, &lane),
                metrics: metrics.lane(&lane),
                telling: Telling::default(),
                headers: HeadersWanted::new(),
                shared: Arc::clone(&shared),
                lane,
                dedup_span_offsets: topic.dedup_span_offsets,
                feed,
                inbox_topic: topic.inbox.clone(),
                inbox: Mutex::default(),
                stop: stop.clone(),
            };
            let (id, failing) = (lane.lane.to_string(), Arc::clone(&shared));
            let work = AssertUnwindSafe(Arc::new(lane).run()).catch_unwind().map(move |ended| {
                if ended.is_err() {
                    (failing.fail)(Failure::permanent(format!("lane {id} panicked: this is a bug")));
                }
            });
            LaneTask { stop, ended: runtime.spawn(work) }
        })
    }

    fn stats(&self, begun: Instant) -> Stats {
        let counts = &self.shared.status.counts;
        Stats {
            events: counts.events.load(Ordering::Relaxed),
            duplicates: counts.duplicates.load(Ordering::Relaxed),
            set_aside: counts.set_aside.load(Ordering::Relaxed),
            batches: counts.batches.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: self.runtime.cpu().total().as_secs_f64(),
        }
    }
}

/// A projection's status, readable while it runs.
#[derive(Clone, Debug)]
pub struct StatusHandle(Arc<ProjectionStatus>);

impl StatusHandle {
    pub(crate) fn of(status: &Arc<ProjectionStatus>) -> Self {
        Self(Arc::clone(status))
    }

    /// This moment.
    #[must_use]
    pub fn snapshot(&self) -> StatusSnapshot {
        self.0.snapshot()
    }
}

/// The consumer group of a projection version: `<prefix>fleetlog-<projection>-v<version>`.
#[must_use]
pub fn group_name(topic_prefix: &str, projection: &str, version: u32) -> String {
    format!("{topic_prefix}fleetlog-{projection}-v{version}")
}

/// The lane over a partition, as logs are looked at: topics by their place among the projection's.
fn lane_at(log: &LogNow) -> LaneAt {
    LaneAt { topic: log.scope.topic, partition: log.scope.partition }
}

fn lane_id(projection: &impl Projection, topic: &Topic, partition: i32) -> LaneId {
    LaneId {
        projection: projection.id().to_owned(),
        version: projection.version(),
        topic: topic.name.clone(),
        partition,
    }
}

impl<P: Projection, S: Sink<Write = P::Write>, C: Schemas> ShowRun for ProjectionRunner<P, S, C> {
    fn show(&self, is_up: bool, halted: Option<HaltCause>) {
        self.metrics.show_run(self.shared.projection.id(), is_up, halted);
    }
}

/// Remembers why, then lets the run end.
fn fail_into(status: &Arc<ProjectionStatus>, failed: &Alarm) -> Box<dyn Fn(Failure) + Send + Sync> {
    let (status, failed) = (Arc::clone(status), failed.clone());
    Box::new(move |failure| {
        status.set_stopped(&failure.what);
        failed.raise();
    })
}
