//! From a task and what hot state shows of it to what is to be done. No clock, no I/O.

use std::time::Duration;

use fleetlog_event::{
    EventId, EventMeta, Position, TimestampMs,
    task::{Created, Failed, Stalled, TaskEvent},
};

use crate::{Policy, Rules, Shown, Standing};

/// Who made the events: stands in `meta.source`.
const SOURCE: &str = concat!("fleetlog-task-watch/", env!("CARGO_PKG_VERSION"));
/// A task is looked at again after so long, whatever it waits for: then settings that were changed, and clocks that were set,
/// are minded soon. No longer than a retry tier can be, or it would only go round more often.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(30);

/// A task that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The event that it is watched by.
    pub created: &'a Created,
    /// Where that lies in the log.
    pub position: Position,
}

/// What is known of a task now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What hot state shows; none where it knows no such task.
    pub task: Option<Shown>,
    /// Whether it shows all that lay on the task's partition at the time that it is judged by; or it may be older.
    pub is_covered: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing any more: it is over, or nobody knows it.
    Done,
    /// To look again after so long.
    Wait {
        /// How long.
        after: Duration,
        /// What it waits for.
        why: String,
    },
    /// To look again at once, at no less than all that lies on the log ([`Look::is_covered`]).
    LookCloser,
    /// To say something.
    Say {
        /// What.
        event: Box<TaskEvent>,
        /// When to look again after that; none: it is over by that.
        again: Option<Duration>,
    },
}

/// Decides about a task as it is at `now`, which has to be no later than the look began.
///
/// What is said has an id that is derived from the task and the last event that is in it: whoever says it, and however often,
/// says the same event.
#[must_use]
pub fn decide(rules: &Rules, watched: Watched<'_>, look: &Look, now: TimestampMs) -> Decision {
    let Watched { created, position } = watched;
    let Some(timeout_ms) = rules.timeout_ms(&created.task_type) else { return Decision::Done };
    let Some(task) = look.task.as_ref().filter(|task| task.holds(position)) else {
        // Covered, and not there: it was set aside, or was over for so long that it is forgotten.
        return if look.is_covered { Decision::Done } else { Decision::LookCloser };
    };
    let state = match &task.standing {
        Standing::Over => return Decision::Done,
        Standing::Paused if !rules.while_paused => {
            return wait(timeout_ms, format!("task `{}` is paused", created.task_id));
        }
        Standing::Unknown(state) => {
            return wait(timeout_ms, format!("task `{}` is `{state}`", created.task_id));
        }
        Standing::Paused => "paused",
        Standing::Open(state) => state,
    };
    let due = TimestampMs(task.moved_at.0.saturating_add(timeout_ms));
    // Whatever comes from now on makes it due no earlier than a whole timeout from now; so what is shown may be old.
    if now < due {
        let left_ms = due.0.saturating_sub(now.0);
        return wait(
            left_ms,
            format!("task `{}` is {state}, and due in {left_ms} ms if nothing moves it", created.task_id),
        );
    }
    if rules.policy == Policy::Alert && task.is_told {
        return wait(timeout_ms, format!("task `{}` stands still, which was told", created.task_id));
    }
    if !look.is_covered {
        return Decision::LookCloser;
    }
    Decision::Say {
        event: Box::new(said(rules.policy, watched, task, state, timeout_ms)),
        again: (rules.policy == Policy::Alert).then(|| soon(timeout_ms)),
    }
}

fn wait(ms: i64, why: String) -> Decision {
    Decision::Wait { after: soon(ms), why }
}

fn soon(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LOOK_AGAIN_MAX)
}

/// The event: it happened when the task became due.
fn said(policy: Policy, watched: Watched<'_>, task: &Shown, state: &str, timeout_ms: i64) -> TaskEvent {
    let Watched { created, position } = watched;
    let Created { task_id, task_type, .. } = created;
    let what = match policy {
        Policy::Fail => "failed",
        Policy::Alert => "stalled",
    };
    let base = format!("{}:{}:{}@{}", position.log, task.partition, task.next, task.moved_at.0);
    let meta = EventMeta {
        event_id: EventId::derived(&format!("task-watch:{what}:{task_id}:{base}"), 0),
        occurred_at: TimestampMs(task.moved_at.0.saturating_add(timeout_ms)),
        // Filled in by the producer: the wall clock stands only where it is recorded.
        recorded_at: TimestampMs(0),
        site_uid: created.meta.site_uid.clone(),
        unit_uid: task.unit_uid.clone(),
        sequence: None,
        sequence_scope: None,
        source: SOURCE.to_owned(),
        correlation_id: created.meta.correlation_id,
        causation_id: Some(created.meta.event_id),
    };
    let task_id = task_id.clone();
    match policy {
        Policy::Fail => {
            let detail = format!(
                "it was {state}, and nothing moved it for {timeout_ms} ms, which is what type `{task_type}` may go without"
            );
            Failed { meta, task_id, reason: "timeout".to_owned(), detail: Some(detail) }.into()
        }
        Policy::Alert => {
            Stalled { meta, task_id, status: state.to_owned(), since: task.moved_at, timeout_ms }.into()
        }
    }
}

#[cfg(test)]
mod tests;
