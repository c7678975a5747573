//! The handler, and what it needs of the world.

use std::{fmt, time::Duration};

use fleetlog_event::{EntityKey, TimestampMs, task::TaskEvent};
use fleetlog_handler::{Call, Handler, HandlerError};

use crate::{Decision, Look, Rules, Shown, Watched, decide};

/// The handler's id.
pub const ID: &str = "task-watch";

/// After how long a task is looked at again that hot state was behind for.
const BEHIND_AGAIN: Duration = Duration::from_secs(1);
/// After how long, where it could not be asked at all.
const AWAY_AGAIN: Duration = Duration::from_secs(5);

/// What tells the time, in ms since 1970: the one by which events are stamped when they are taken in.
pub type Clock = Box<dyn Fn() -> TimestampMs + Send + Sync>;

/// Why nothing can be said of a task now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknowable {
    /// Hot state does not show yet what lies on the log.
    #[error("hot state is behind the log: {0}")]
    Behind(String),
    /// Hot state, or the log, does not answer.
    #[error("{0}")]
    Away(String),
}

/// Hot state, as a reader sees it.
pub trait HotTasks: Send + Sync + 'static {
    /// What it shows of a task; none where it knows no such task. May be older than the log.
    ///
    /// # Errors
    /// When it does not answer.
    fn glance(&self, task: &EntityKey) -> impl Future<Output = Result<Option<Shown>, Unknowable>> + Send;

    /// The same, with all that lay on that partition of topic `task` when this was called.
    ///
    /// # Errors
    /// When it shows less, or does not answer.
    fn look(
        &self,
        task: &EntityKey,
        partition: i32,
    ) -> impl Future<Output = Result<Option<Shown>, Unknowable>> + Send;
}

/// Puts events on the log.
pub trait Say: Send + Sync + 'static {
    /// Sends an event, and waits until it is acknowledged.
    ///
    /// # Errors
    /// Why it is not on the log, or may not be.
    fn say(&self, event: TaskEvent) -> impl Future<Output = Result<(), String>> + Send;
}

/// The handler.
pub struct TaskWatch<T, S> {
    rules: Rules,
    tasks: T,
    log: S,
    clock: Clock,
}

impl<T, S> fmt::Debug for TaskWatch<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskWatch").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl<T: HotTasks, S: Say> TaskWatch<T, S> {
    /// A watch by these rules.
    pub fn new(rules: Rules, tasks: T, log: S, clock: Clock) -> Self {
        Self { rules, tasks, log, clock }
    }

    /// What is to be done about a task as it is now.
    async fn decide(&self, watched: Watched<'_>, key: &EntityKey) -> Result<Decision, Unknowable> {
        // Before the looks: what they show is no older than that.
        let now = (self.clock)();
        let glance = Look { task: self.tasks.glance(key).await?, is_covered: false };
        match decide(&self.rules, watched, &glance, now) {
            Decision::LookCloser => {}
            decided => return Ok(decided),
        }
        let task = self.tasks.look(key, watched.position.partition).await?;
        Ok(decide(&self.rules, watched, &Look { task, is_covered: true }, now))
    }

    async fn say(&self, event: TaskEvent, again: Option<Duration>) -> Result<(), HandlerError> {
        self.log.say(event).await.map_err(HandlerError::Retry)?;
        let why = || "it stands still, which was told".to_owned();
        again.map_or(Ok(()), |after| Err(HandlerError::NotYet { after, why: why() }))
    }
}

impl<T: HotTasks, S: Say> Handler for TaskWatch<T, S> {
    type Event = TaskEvent;

    fn id(&self) -> &str {
        ID
    }

    /// Tasks are watched by their first event, as far as their type has a timeout.
    fn wants(&self, event: &TaskEvent) -> bool {
        matches!(event, TaskEvent::Created(created) if self.rules.timeout_ms(&created.task_type).is_some())
    }

    async fn handle(&self, call: &Call<TaskEvent>) -> Result<(), HandlerError> {
        let TaskEvent::Created(created) = &call.event.event else { return Ok(()) };
        let watched = Watched { created, position: call.event.position };
        match self.decide(watched, &call.event.key).await {
            Ok(Decision::Done) => Ok(()),
            Ok(Decision::Wait { after, why }) => Err(HandlerError::NotYet { after, why }),
            Ok(Decision::Say { event, again }) => self.say(*event, again).await,
            Ok(Decision::LookCloser) => {
                let why = "a covered look was not enough: a bug".to_owned();
                Err(HandlerError::Stop(why))
            }
            Err(unknowable) => {
                let after = match unknowable {
                    Unknowable::Behind(_) => BEHIND_AGAIN,
                    Unknowable::Away(_) => AWAY_AGAIN,
                };
                Err(HandlerError::NotYet { after, why: unknowable.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
