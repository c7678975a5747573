//! `task-ledger`: one row per task in table `t_app_task_ledger2`, kept for ever.
//!
//! The same fold as `task-state` ([`crate::task_state`]: its states, its transitions, its reasons), landing in SQL, where
//! nothing expires: a task's row and its hash agree as long as the hash is there. So an end that comes a month late ends
//! its task, a second end is set aside, and a Created later than 7 days after its task's end begins the row anew; what
//! was before is kept in short in column `earlier`.
//!
//! Triggers on the table keep `task_milestone`: creation and end of each task, which the aggregates by the hour are over;
//! and `task_figure`: the totals that `/metrics` shows.
//!
//! Times are those of the source; whoever made the event, his clock. A duration over two clocks that contradict each
//! other (an end before its beginning) is NULL, never negative.
//!
//! What SQL could not hold is set aside here, so that the database has nothing to refuse: a task id with a NUL character,
//! and a unit named in more than [`UNIT_BYTES_MAX`] bytes, which no index takes. In other texts NUL is shown as `␀`.

use fleetlog_event::{
    EntityKey, EventSet, Reason, Recorded, Reject, TimestampMs, task::StepStatus, task::TaskEvent,
};
use fleetlog_projection::{CopyEncoder, EntityRow, FoldProjector, HistoryRow, Table};
use serde::{Deserialize, Serialize};

use crate::{
    TIMESTAMP, TaskStateProjector, column, json_text,
    sql_text::{shown, shown_json},
    symbol,
    task_state::{Status, TaskState},
};

/// The longest name of a unit that the ledger takes, in bytes: events about units are held to the same limit.
pub const UNIT_BYTES_MAX: usize = 512;

/// The table of [`LedgerRow`].
pub static TASK_LEDGER: Table = Table {
    name: "t_app_task_ledger2",
    columns: &[
        column("task_id", "text"),
        column("site_uid", "text"),
        column("unit_uid", "text"),
        column("task_type", "text"),
        column("priority", "integer"),
        column("external_id", "text"),
        column("status", "text"),
        column("created_at", TIMESTAMP),
        column("assigned_at", TIMESTAMP),
        column("started_at", TIMESTAMP),
        column("paused_at", TIMESTAMP),
        column("finished_at", TIMESTAMP),
        column("wait_ms", "bigint"),
        column("work_ms", "bigint"),
        column("total_ms", "bigint"),
        column("pause_reason", "text"),
        column("failure_reason", "text"),
        column("failure_detail", "text"),
        column("step_count", "integer"),
        column("steps_finished", "integer"),
        column("steps_failed", "integer"),
        column("steps", "jsonb"),
        column("parameters", "jsonb"),
        column("assignments", "integer"),
        column("pauses", "integer"),
        column("rejections", "integer"),
        column("occurred_at", TIMESTAMP),
        column("recorded_at", TIMESTAMP),
        column("created_recorded_at", TIMESTAMP),
        column("finished_recorded_at", TIMESTAMP),
        column("earlier", "jsonb"),
    ],
};

/// What a task's events make of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerState {
    /// As in hot state.
    pub task: TaskState,
    /// When fleetlog took in that it was created.
    pub created_recorded_at: TimestampMs,
    /// Tasks that had the id before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierTask>,
}

/// A task that ended, and whose id was used again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierTask {
    /// The site that created it.
    pub site_uid: String,
    /// Its kind.
    pub task_type: String,
    /// How it ended.
    pub status: Status,
    /// When fleetlog took in that it was created.
    pub created_recorded_at: TimestampMs,
    /// When fleetlog took in its end.
    pub finished_recorded_at: TimestampMs,
    /// From started to finished, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_ms: Option<i64>,
    /// From created to finished, in ms.
    pub total_ms: Option<i64>,
}

impl LedgerState {
    /// From started to finished, in ms.
    fn work_ms(&self) -> Option<i64> {
        elapsed_ms(self.task.started_at, self.task.ended_at)
    }

    /// From created to finished, in ms.
    fn total_ms(&self) -> Option<i64> {
        elapsed_ms(Some(self.task.created_at), self.task.ended_at)
    }

    /// The task in short, if it is over.
    fn ended(&self) -> Option<EarlierTask> {
        Some(EarlierTask {
            site_uid: self.task.site_uid.clone(),
            task_type: self.task.task_type.clone(),
            status: self.task.status,
            created_recorded_at: self.created_recorded_at,
            finished_recorded_at: self.task.end_recorded_at?,
            work_ms: self.work_ms(),
            total_ms: self.total_ms(),
        })
    }
}

/// A task's row.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRow {
    /// The task.
    pub task_id: String,
    /// What its events make of it.
    pub state: LedgerState,
}

impl LedgerRow {
    /// From created to started, in ms.
    #[must_use]
    pub fn wait_ms(&self) -> Option<i64> {
        elapsed_ms(Some(self.state.task.created_at), self.state.task.started_at)
    }

    /// From started to finished, in ms, pauses included.
    #[must_use]
    pub fn work_ms(&self) -> Option<i64> {
        self.state.work_ms()
    }

    /// From created to finished, in ms.
    #[must_use]
    pub fn total_ms(&self) -> Option<i64> {
        self.state.total_ms()
    }

    /// Why it is paused, while it is.
    #[must_use]
    pub fn pause_reason(&self) -> Option<&str> {
        self.state.task.reason.as_deref().filter(|_| self.state.task.status == Status::Paused)
    }

    /// Why it ended otherwise than completed: reason and detail.
    #[must_use]
    pub fn failure(&self) -> (Option<&str>, Option<&str>) {
        match self.state.task.status {
            Status::Failed | Status::Cancelled | Status::Rejected => {
                (self.state.task.reason.as_deref(), self.state.task.detail.as_deref())
            }
            _ => (None, None),
        }
    }

    fn encode_life(&self, out: &mut CopyEncoder) {
        let state = &self.state.task;
        out.timestamptz(state.created_at);
        for time in [state.assigned_at, state.started_at, state.paused_at, state.ended_at] {
            out.maybe_timestamptz(time);
        }
        for duration_ms in [self.wait_ms(), self.work_ms(), self.total_ms()] {
            out.maybe_int8(duration_ms);
        }
        let (reason, detail) = self.failure();
        for text in [self.pause_reason(), reason, detail] {
            out.maybe_text(text.map(shown).as_deref());
        }
    }

    fn encode_steps(&self, out: &mut CopyEncoder) {
        let in_status = |status| self.state.task.steps.iter().filter(|step| step.status == status).count();
        out.int4(count(self.state.task.steps.len()));
        out.int4(count(in_status(StepStatus::Finished)));
        out.int4(count(in_status(StepStatus::Failed)));
        out.jsonb(&shown_json(self.state.task.steps_text()));
        out.jsonb(&shown_json(json_text(&self.state.task.parameters)));
    }
}

impl HistoryRow for LedgerRow {
    fn table(&self) -> &'static Table {
        &TASK_LEDGER
    }

    fn encode(&self, out: &mut CopyEncoder) {
        let state = &self.state.task;
        out.text(&self.task_id);
        out.text(&shown(&state.site_uid));
        out.maybe_text(state.unit_uid.as_deref().map(shown).as_deref());
        out.text(&shown(&state.task_type));
        out.int4(state.priority);
        out.maybe_text(state.external_id.as_deref().map(shown).as_deref());
        out.text(&symbol(&state.status));
        self.encode_life(out);
        self.encode_steps(out);
        for times in [state.assignments, state.pauses, state.rejections.values().sum()] {
            out.int4(i32::try_from(times).unwrap_or(i32::MAX));
        }
        out.timestamptz(state.occurred_at);
        out.timestamptz(state.recorded_at);
        out.timestamptz(self.state.created_recorded_at);
        out.maybe_timestamptz(state.end_recorded_at);
        out.jsonb(&shown_json(json_text(&self.state.earlier)));
    }

    /// That of the primary key.
    fn sort_key(&self) -> (&str, i64) {
        (&self.task_id, 0)
    }
}

impl EntityRow for LedgerRow {
    const TABLE: &'static Table = &TASK_LEDGER;
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskLedger;

impl FoldProjector for TaskLedger {
    const ID: &'static str = "task-ledger";
    type Event = TaskEvent;
    type Write = LedgerRow;
    type State = LedgerState;

    /// The row's primary key.
    fn home(&self, key: &EntityKey) -> String {
        key.as_str().to_owned()
    }

    fn apply(&self, state: &mut LedgerState, event: &Recorded<TaskEvent>) -> Result<(), Reject> {
        storable(&event.key, event.event.meta().unit_uid.as_deref().unwrap_or_default())?;
        if !matches!(event.event, TaskEvent::Created(_)) {
            return TaskStateProjector.apply(&mut state.task, event);
        }
        let before = state.ended();
        TaskStateProjector.apply(&mut state.task, event)?;
        state.earlier.extend(before);
        state.created_recorded_at = event.recorded_at;
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &LedgerState, out: &mut Vec<LedgerRow>) {
        out.push(LedgerRow { task_id: key.as_str().to_owned(), state: state.clone() });
    }
}

/// Whether SQL can hold the task under its id, and beside its unit.
fn storable(key: &EntityKey, unit_uid: &str) -> Result<(), Reject> {
    if key.as_str().contains('\0') {
        let detail = "task_id has a NUL character, which SQL cannot hold";
        return Err(Reject::new(Reason::InvalidText, detail));
    }
    if unit_uid.len() > UNIT_BYTES_MAX {
        let detail =
            format!("meta.unit_uid has {} bytes, at most {UNIT_BYTES_MAX} are allowed", unit_uid.len());
        return Err(Reject::new(Reason::InvalidText, detail));
    }
    Ok(())
}

/// Time from one moment to a later one, in ms; none where one is missing, or the later one is earlier.
fn elapsed_ms(from: Option<TimestampMs>, to: Option<TimestampMs>) -> Option<i64> {
    to?.0.checked_sub(from?.0).filter(|elapsed_ms| *elapsed_ms >= 0)
}

/// A count for a column of type `integer`.
fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
