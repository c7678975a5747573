//! What the handler `task-watch` needs of the world: hot state in Redis with how far it is behind the log, and the log itself.

use std::{
    collections::BTreeMap,
    sync::{Mutex as BlockingMutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use fleetlog_event::{EntityKey, EventSet, FleetEvent, LogId, catalogue::physical_name, task::TaskEvent};
use fleetlog_kafka::{Admin, Offsets};
use fleetlog_producer::{EventProducer, ProducerMetrics};
use fleetlog_projection::FoldProjector;
use fleetlog_projections::{Described, TaskStateProjector};
use fleetlog_sink_redis::HotReader;
use fleetlog_task_watch::{HotTasks, Rules, Say, Shown, TaskWatch, Unknowable};
use tokio::sync::Mutex;

use crate::{commands::migrate, config::Config, lanes, wiring};

/// How long hot state is waited for that does not show yet what lay on the log when it was asked.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const REACH_INTERVAL: Duration = Duration::from_millis(20);
/// An event that is not acknowledged within this is given up, and the task is judged again: what waits for a cluster that is away
/// must not be said minutes later.
const DELIVERY_TIMEOUT_MS: u64 = 10_000;

/// The watch of the settings.
pub(crate) fn handler(
    config: &Config,
    rules: &Rules,
    metrics: ProducerMetrics,
) -> anyhow::Result<TaskWatch<HotState, Log>> {
    let kafka = wiring::giving_up_after(wiring::kafka_settings(config), DELIVERY_TIMEOUT_MS);
    let log = Log { producer: wiring::producer_with(config, &kafka, metrics)? };
    Ok(TaskWatch::new(rules.clone(), HotState::new(config)?, log, Box::new(migrate::now)))
}

/// Hot state of tasks.
pub(crate) struct HotState {
    hot: HotReader,
    offsets: Offsets,
    admin: Admin,
    projection: Described,
    topic: String,
    /// Shared by calls that ask at the same time: many tasks may be due at once.
    ends: Mutex<Option<Ends>>,
    /// Why nobody is judged, as last said.
    told: BlockingMutex<Option<Unknowable>>,
}

/// Topic `task` at a moment.
#[derive(Clone, Debug)]
struct Ends {
    asked_at: Instant,
    log: LogId,
    by_partition: BTreeMap<i32, i64>,
}

impl HotState {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let kafka = wiring::kafka_settings(config);
        let projection = lanes::chosen(&[TaskStateProjector::ID.to_owned()])?.pop();
        Ok(Self {
            hot: HotReader::open(wiring::redis_settings(config)?)?,
            offsets: Offsets::new(&kafka)?,
            admin: Admin::new(&kafka)?,
            projection: projection.context("there is no task-state")?,
            topic: physical_name(&kafka.topic_prefix, TaskEvent::TYPES[0].topic),
            ends: Mutex::default(),
            told: BlockingMutex::default(),
        })
    }

    async fn shown(&self, task: &EntityKey) -> Result<Option<Shown>, Unknowable> {
        let home = TaskStateProjector.home(task);
        let entity = self.hot.entity(&home, &Shown::FIELDS).await.map_err(away)?;
        let read = entity.map(|entity| {
            let version = entity.version;
            Shown::read(version.partition, version.next, &entity.fields)
        });
        read.transpose().map_err(|error| Unknowable::Away(format!("hash `{home}`: {error}")))
    }

    /// Ends of the log that were asked for no earlier than now.
    async fn ends(&self) -> Result<Ends, Unknowable> {
        let now = Instant::now();
        let mut known = self.ends.lock().await;
        if let Some(ends) = known.as_ref().filter(|ends| ends.asked_at >= now) {
            return Ok(ends.clone());
        }
        let asked_at = Instant::now();
        let topic = self.topic.as_str();
        let log = self.admin.topic_ids(&[topic]).await.map_err(away)?.remove(topic);
        let ranges = self.offsets.ranges(&[topic]).await.map_err(away)?;
        let ends = Ends {
            asked_at,
            log: log.ok_or_else(|| Unknowable::Away(format!("topic `{topic}` has no id")))?,
            by_partition: ranges.into_iter().map(|((_, partition), range)| (partition, range.end)).collect(),
        };
        Ok(known.insert(ends).clone())
    }

    /// Waits until everything is folded that lies on a partition now.
    async fn reach(&self, partition: i32) -> Result<(), Unknowable> {
        let ends = self.ends().await?;
        let end = ends.by_partition.get(&partition).copied().unwrap_or(0);
        let lane = [lanes::lane_id(&self.projection, &self.topic, partition)];
        let begun = Instant::now();
        loop {
            let progress = self.hot.progress(&lane).await.map_err(away)?.pop().flatten();
            let next = progress.filter(|(log, _)| *log == ends.log).map(|(_, next)| next);
            if next.is_some_and(|next| next >= end) {
                return Ok(());
            }
            if begun.elapsed() >= REACH_TIMEOUT {
                let at = next.map_or_else(|| "nowhere on this log".to_owned(), |next| next.to_string());
                return Err(Unknowable::Behind(format!("{} is at {at}, the log at {end}", lane[0])));
            }
            tokio::time::sleep(REACH_INTERVAL).await;
        }
    }

    /// Tells people, once each, that nobody is judged, and that it goes on. What was asked for may be of use although hot state is
    /// behind: that is over only once a look at the whole log succeeds.
    fn tell<T>(&self, outcome: &Result<T, Unknowable>, is_whole: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, told.as_ref()) {
            (Err(now), None) => {
                tracing::warn!(handler = fleetlog_task_watch::ID, "no task is judged meanwhile: {now}");
                *told = Some(now.clone());
            }
            (Ok(_), Some(before)) if is_whole || matches!(before, Unknowable::Away(_)) => {
                tracing::info!(handler = fleetlog_task_watch::ID, "tasks are judged again");
                *told = None;
            }
            (Err(_), Some(_)) | (Ok(_), _) => {}
        }
    }
}

impl HotTasks for HotState {
    async fn glance(&self, task: &EntityKey) -> Result<Option<Shown>, Unknowable> {
        let shown = self.shown(task).await;
        self.tell(&shown, false);
        shown
    }

    /// The end of the log, then how far the lane is, then what it wrote: so what is shown is no older than the end.
    async fn look(&self, task: &EntityKey, partition: i32) -> Result<Option<Shown>, Unknowable> {
        let shown = match self.reach(partition).await {
            Ok(()) => self.shown(task).await,
            Err(unknowable) => Err(unknowable),
        };
        self.tell(&shown, true);
        shown
    }
}

fn away(error: impl std::fmt::Display) -> Unknowable {
    Unknowable::Away(error.to_string())
}

/// The log of tasks.
pub(crate) struct Log {
    producer: EventProducer,
}

impl Say for Log {
    async fn say(&self, event: TaskEvent) -> Result<(), String> {
        let said = format!("{} for task `{}`", event.event_type().short_name(), event.entity());
        let delivery =
            self.producer.send_any(FleetEvent::Task(event)).await.map_err(|error| error.to_string())?;
        delivery.await.map_err(|error| error.to_string())?;
        tracing::info!(handler = fleetlog_task_watch::ID, "nothing moved it for its time: {said}");
        Ok(())
    }
}
