//! `task-state`: the life of each task as a checked state machine.
//!
//! Hash `task:{id}`, and sorted set `tasks:active:{site}`: tasks that are not over, by priority (higher is sooner).
//!
//! | event | possible in | leads to |
//! |---|---|---|
//! | Created | (unknown) | created |
//! | Assigned | created | assigned |
//! | Started | assigned | started |
//! | Paused | started | paused |
//! | Resumed | paused | started |
//! | Reassigned | assigned, started, paused | assigned |
//! | StepChanged | assigned, started, paused | (stays) |
//! | Completed | assigned, started, paused | completed |
//! | Failed | created, assigned, started, paused | failed |
//! | Cancelled | created, assigned, started, paused | cancelled |
//! | Rejected | created | rejected |
//! | Rejected of an update | assigned, started, paused, completed, failed, cancelled, rejected | (stays) |
//! | Stalled | created, assigned, started, paused, completed, failed, cancelled, rejected | (stays) |
//!
//! Anything else is set aside as `impossible_transition`, or as `unknown_task` where nobody knows the task: after its
//! end nothing moves a task. A unit may refuse an update of a task at any time, also of one that is over: that is
//! noted and counted, the task goes on as it was.
//!
//! That it stands still moves no task: `recorded_at` stays that of the last event that did, and `stalled_at` is there until the
//! next one does. Told of a task that ended meanwhile it changes nothing.
//!
//! Steps are what the source says of them: a step that the plan does not have is added (orders grow while they run),
//! and a status may go back (a failed step is tried again).
//!
//! Expiry is a rule of this fold: later than 7 days after its end, by record time, a task is unknown; a new Created
//! begins it anew. The store's own expiry only tidies, an hour later.

use std::collections::BTreeMap;

use fleetlog_event::{
    EntityKey, EventSet, Reason, Recorded, Reject, TimestampMs,
    task::{Created, Rejected, StepChanged, StepStatus, TaskEvent},
};
use fleetlog_projection::{FoldProjector, HotWrite};
use serde::{Deserialize, Serialize};

use crate::{json_text, place, symbol, time_text};

/// How long a task is known after its end, in ms.
pub const KNOWN_AFTER_END_MS: i64 = 7 * 24 * 3600 * 1000;

/// How much longer the store keeps it, in ms: clocks of machines differ, and the store must never be earlier.
pub const EXPIRY_SLACK_MS: i64 = 3600 * 1000;

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody knows it (any more).
    #[default]
    Unknown,
    /// It exists.
    Created,
    /// A unit has it.
    Assigned,
    /// Work is under way.
    Started,
    /// Work is held.
    Paused,
    /// Done.
    Completed,
    /// Could not be done.
    Failed,
    /// Called off.
    Cancelled,
    /// Refused by the unit.
    Rejected,
}

impl Status {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Created,
        Self::Assigned,
        Self::Started,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Whether the task is over.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Rejected)
    }
}

/// Where `event` leads from `from`; none if it is impossible there. The table of this module's documentation.
#[must_use]
pub fn transition(from: Status, event: &TaskEvent) -> Option<Status> {
    use Status::{Assigned, Cancelled, Completed, Created, Failed, Paused, Rejected, Started, Unknown};
    match (event, from) {
        (TaskEvent::Created(_), Unknown) => Some(Created),
        (TaskEvent::Assigned(_), Created) => Some(Assigned),
        (TaskEvent::Started(_), Assigned) | (TaskEvent::Resumed(_), Paused) => Some(Started),
        (TaskEvent::Paused(_), Started) => Some(Paused),
        (TaskEvent::Reassigned(_), Assigned | Started | Paused) => Some(Assigned),
        (TaskEvent::StepChanged(_), Assigned | Started | Paused) => Some(from),
        (TaskEvent::Completed(_), Assigned | Started | Paused) => Some(Completed),
        (TaskEvent::Failed(_), Created | Assigned | Started | Paused) => Some(Failed),
        (TaskEvent::Cancelled(_), Created | Assigned | Started | Paused) => Some(Cancelled),
        (TaskEvent::Rejected(_), Created) => Some(Rejected),
        (TaskEvent::Rejected(event), from) if from != Unknown && event.update_id.is_some() => Some(from),
        (TaskEvent::Stalled(_), from) if from != Unknown => Some(from),
        _ => None,
    }
}

/// A step of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Identifies it within the task.
    pub step_id: String,
    /// Its kind.
    pub step_type: Option<String>,
    /// Where it is to be done.
    pub node_id: Option<String>,
    /// How far it is.
    pub status: StepStatus,
    /// What came of it.
    pub result: Option<String>,
    /// The source's time of its last change; none if it did not change yet.
    pub changed_at: Option<TimestampMs>,
}

/// The state of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// Where it is in its life.
    pub status: Status,
    /// The site that created it.
    pub site_uid: String,
    /// The unit that has it, or is to have it.
    pub unit_uid: Option<String>,
    /// Its kind.
    pub task_type: String,
    /// Higher is sooner.
    pub priority: i32,
    /// The source's own number of it.
    pub external_id: Option<String>,
    /// Further facts.
    pub parameters: BTreeMap<String, String>,
    /// Planned steps, and those that came later.
    pub steps: Vec<StepState>,
    /// The source's time of Created.
    pub created_at: TimestampMs,
    /// Of the last Assigned or Reassigned.
    pub assigned_at: Option<TimestampMs>,
    /// Of the first Started.
    pub started_at: Option<TimestampMs>,
    /// Of the last Paused, while it is.
    pub paused_at: Option<TimestampMs>,
    /// Of the end.
    pub ended_at: Option<TimestampMs>,
    /// When fleetlog took the end in: from here its expiry counts.
    pub end_recorded_at: Option<TimestampMs>,
    /// Why it is paused or ended.
    pub reason: Option<String>,
    /// In words.
    pub detail: Option<String>,
    /// How many steps failed although it was completed.
    pub failed_steps: Option<i32>,
    /// How often it was assigned.
    pub assignments: u32,
    /// How often it was paused.
    pub pauses: u32,
    /// Refusals, of the task or of updates of it, by reason.
    pub rejections: BTreeMap<String, u32>,
    /// The update refused last.
    pub rejected_update_id: Option<String>,
    /// When fleetlog took in that it stands still; none once something moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_at: Option<TimestampMs>,
    /// The source's time of the last event that moved it.
    pub occurred_at: TimestampMs,
    /// When fleetlog took in the last event that moved it.
    pub recorded_at: TimestampMs,
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskStateProjector;

impl FoldProjector for TaskStateProjector {
    const ID: &'static str = "task-state";
    type Event = TaskEvent;
    type Write = HotWrite;
    type State = TaskState;

    fn home(&self, key: &EntityKey) -> String {
        format!("task:{key}")
    }

    fn apply(&self, state: &mut TaskState, event: &Recorded<TaskEvent>) -> Result<(), Reject> {
        if state.is_expired(event.recorded_at) {
            *state = TaskState::default();
        }
        let Some(next) = transition(state.status, &event.event) else {
            return Err(impossible(state, event));
        };
        if matches!(event.event, TaskEvent::Stalled(_)) {
            state.stalled_at = (!state.status.is_end()).then_some(event.recorded_at);
            return Ok(());
        }
        let before = state.status;
        (state.status, state.occurred_at, state.recorded_at, state.stalled_at) =
            (next, event.event.meta().occurred_at, event.recorded_at, None);
        state.take(before, &event.event);
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &TaskState, out: &mut Vec<HotWrite>) {
        state.write_task(key, out);
        state.write_progress(out);
        let active = !state.status.is_end();
        let list = format!("tasks:active:{}", state.site_uid);
        out.push(place(list, key, active.then_some(i64::from(state.priority))));
        let tidied_at = |end: TimestampMs| {
            TimestampMs(end.0.saturating_add(KNOWN_AFTER_END_MS).saturating_add(EXPIRY_SLACK_MS))
        };
        out.push(HotWrite::ExpireAt(state.end_recorded_at.map(tidied_at)));
    }
}

fn impossible(state: &TaskState, event: &Recorded<TaskEvent>) -> Reject {
    let name = event.event.event_type().short_name();
    let task = &event.key;
    if state.status == Status::Unknown {
        return Reject::new(Reason::UnknownTask, format!("{name}: nobody knows task `{task}`"));
    }
    let status = symbol(&state.status);
    Reject::new(
        Reason::ImpossibleTransition,
        format!("{name} is impossible for task `{task}`, which is {status}"),
    )
}

impl TaskState {
    fn is_expired(&self, now: TimestampMs) -> bool {
        self.end_recorded_at.is_some_and(|end| now.0.saturating_sub(end.0) > KNOWN_AFTER_END_MS)
    }

    /// What a possible event changes beside the status.
    fn take(&mut self, before: Status, event: &TaskEvent) {
        let at = Some(self.occurred_at);
        let resume = |state: &mut Self| (state.paused_at, state.reason) = (None, None);
        match event {
            TaskEvent::Created(e) => self.create(e),
            TaskEvent::Assigned(_) | TaskEvent::Reassigned(_) => {
                resume(self);
                self.unit_uid.clone_from(&event.meta().unit_uid);
                self.assigned_at = at;
                self.assignments += 1;
            }
            TaskEvent::Started(_) => self.started_at = self.started_at.or(at),
            TaskEvent::StepChanged(e) => self.change_step(e),
            TaskEvent::Paused(e) => {
                (self.paused_at, self.reason) = (at, e.reason.clone());
                self.pauses += 1;
            }
            TaskEvent::Resumed(_) => resume(self),
            TaskEvent::Completed(e) => {
                self.failed_steps = Some(e.failed_steps);
                self.end(None, None);
            }
            TaskEvent::Failed(e) => self.end(Some(&e.reason), e.detail.as_deref()),
            TaskEvent::Cancelled(e) => self.end(Some(&e.reason), e.detail.as_deref()),
            TaskEvent::Rejected(e) => self.reject(before, e),
            TaskEvent::Stalled(_) => {}
        }
    }

    fn create(&mut self, event: &Created) {
        self.created_at = self.occurred_at;
        self.site_uid.clone_from(&event.meta.site_uid);
        self.unit_uid.clone_from(&event.meta.unit_uid);
        self.task_type.clone_from(&event.task_type);
        self.priority = event.priority;
        self.external_id.clone_from(&event.external_id);
        self.parameters.clone_from(&event.parameters);
        let planned = event.steps.iter().map(|step| StepState {
            step_id: step.step_id.clone(),
            step_type: step.step_type.clone(),
            node_id: step.node_id.clone(),
            status: StepStatus::Waiting,
            result: None,
            changed_at: None,
        });
        self.steps = planned.collect();
    }

    fn change_step(&mut self, event: &StepChanged) {
        let changed_at = Some(self.occurred_at);
        let (step_id, result) = (&event.step_id, event.result.clone());
        if let Some(step) = self.steps.iter_mut().find(|step| step.step_id == *step_id) {
            step.step_type = event.step_type.clone().or(step.step_type.take());
            (step.status, step.result, step.changed_at) = (event.status, result, changed_at);
            return;
        }
        self.steps.push(StepState {
            step_id: step_id.clone(),
            step_type: event.step_type.clone(),
            node_id: None,
            status: event.status,
            result,
            changed_at,
        });
    }

    fn reject(&mut self, before: Status, event: &Rejected) {
        *self.rejections.entry(event.reason.clone()).or_default() += 1;
        self.rejected_update_id.clone_from(&event.update_id);
        if self.status != before {
            self.end(Some(&event.reason), event.detail.as_deref());
        }
    }

    fn end(&mut self, reason: Option<&str>, detail: Option<&str>) {
        (self.ended_at, self.end_recorded_at) = (Some(self.occurred_at), Some(self.recorded_at));
        (self.reason, self.detail) = (reason.map(str::to_owned), detail.map(str::to_owned));
        self.paused_at = None;
    }

    fn write_task(&self, key: &EntityKey, out: &mut Vec<HotWrite>) {
        out.extend([
            HotWrite::field("task_id", key.as_str()),
            HotWrite::field("state", symbol(&self.status)),
            HotWrite::field("site_uid", self.site_uid.as_str()),
            HotWrite::maybe("unit_uid", self.unit_uid.as_deref()),
            HotWrite::field("task_type", self.task_type.as_str()),
            HotWrite::field("priority", self.priority.to_string()),
            HotWrite::maybe("external_id", self.external_id.as_deref()),
            HotWrite::maybe("parameters", (!self.parameters.is_empty()).then(|| json_text(&self.parameters))),
            HotWrite::field("created_at", time_text(self.created_at)),
            HotWrite::maybe("assigned_at", self.assigned_at.map(time_text)),
            HotWrite::maybe("started_at", self.started_at.map(time_text)),
            HotWrite::maybe("paused_at", self.paused_at.map(time_text)),
            HotWrite::maybe("ended_at", self.ended_at.map(time_text)),
            HotWrite::maybe("stalled_at", self.stalled_at.map(time_text)),
            HotWrite::field("occurred_at", time_text(self.occurred_at)),
            HotWrite::field("recorded_at", time_text(self.recorded_at)),
        ]);
    }

    fn write_progress(&self, out: &mut Vec<HotWrite>) {
        let in_status = |status: StepStatus| self.steps.iter().filter(|step| step.status == status).count();
        out.extend([
            HotWrite::maybe("reason", self.reason.as_deref()),
            HotWrite::maybe("detail", self.detail.as_deref()),
            HotWrite::maybe("failed_steps", self.failed_steps),
            HotWrite::field("assignments", self.assignments.to_string()),
            HotWrite::field("pauses", self.pauses.to_string()),
            HotWrite::field("step_count", self.steps.len().to_string()),
            HotWrite::field("steps_finished", in_status(StepStatus::Finished).to_string()),
            HotWrite::maybe("steps", (!self.steps.is_empty()).then(|| self.steps_text())),
            HotWrite::field("rejection_count", self.rejections.values().sum::<u32>().to_string()),
            HotWrite::maybe("rejections", (!self.rejections.is_empty()).then(|| json_text(&self.rejections))),
            HotWrite::maybe("rejected_update_id", self.rejected_update_id.as_deref()),
        ]);
    }

    /// A JSON array of the steps, in the order of the plan.
    pub(crate) fn steps_text(&self) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            step_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            step_type: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            node_id: Option<&'a str>,
            status: StepStatus,
            #[serde(skip_serializing_if = "Option::is_none")]
            result: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            changed_at: Option<String>,
        }
        let shown: Vec<Shown<'_>> = self
            .steps
            .iter()
            .map(|step| Shown {
                step_id: &step.step_id,
                step_type: step.step_type.as_deref(),
                node_id: step.node_id.as_deref(),
                status: step.status,
                result: step.result.as_deref(),
                changed_at: step.changed_at.map(time_text),
            })
            .collect();
        json_text(&shown)
    }
}

#[cfg(test)]
mod tests;
