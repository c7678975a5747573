//! Topic `task`: the life of a task, keyed by the task id.
//!
//! ```text
//!            ┌────────────── Rejected ◄─┐
//! Created ──►│ created ──Assigned──► assigned ──Started──► started ◄──Resumed── paused
//!            │    │   ▲                │  │                  │ │ └────Paused────►  │
//!            │    │   └─── Reassigned ─┘  │                  │ │                   │
//!            └────┴───────────────────────┴── Completed │ Failed │ Cancelled ◄─────┘
//! ```
//! The exact rules, which transition is possible and which is rejected, are in projection `task-state`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    EventMeta, Rule, TimestampMs,
    event::{event_set, events},
    validate::number,
};

/// How far a step of a task is (VDA 5050 `actionStatus`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Waiting,
    /// Being prepared.
    Initializing,
    /// Under way.
    Running,
    /// Held.
    Paused,
    /// Failed, and held until it is tried again or given up (VDA 5050 3.0).
    Retriable,
    /// Done.
    Finished,
    /// Given up.
    Failed,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// A planned step of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Identifies the step within the task.
    pub step_id: String,
    /// The kind, such as `pick` or `drop`.
    #[serde(default)]
    pub step_type: Option<String>,
    /// Where it is to be done.
    #[serde(default)]
    pub node_id: Option<String>,
}

/// A task exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// The head; `unit_uid` if a unit was chosen already.
    pub meta: EventMeta,
    /// The task: the key of all its events.
    pub task_id: String,
    /// The kind, such as `delivery` or `transport`.
    pub task_type: String,
    /// Higher is sooner.
    #[serde(default)]
    pub priority: i32,
    /// The source's own number of the task, such as the VDA 5050 `orderId`.
    #[serde(default)]
    pub external_id: Option<String>,
    /// The plan.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Further facts as text.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// A unit took the task (`meta.unit_uid`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// The head; names the unit.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
}

/// Work began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
}

/// A step of the task moved on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepChanged {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// The step.
    pub step_id: String,
    /// The kind of step.
    #[serde(default)]
    pub step_type: Option<String>,
    /// Its status now.
    #[serde(default)]
    pub status: StepStatus,
    /// What came of it, in words.
    #[serde(default)]
    pub result: Option<String>,
}

/// Work is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paused {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Work goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
}

/// The task is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// How many of its steps failed all the same.
    #[serde(default)]
    pub failed_steps: i32,
}

/// The task could not be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// Why: a short code, such as `lost` (the unit restarted and forgot it) or `timeout`.
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub detail: Option<String>,
}

/// The task was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// Why: a short code, such as `requested` or `superseded` (another task was stitched onto it).
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub detail: Option<String>,
}

/// The task went from one unit to another (`meta.unit_uid`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reassigned {
    /// The head; names the new unit.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// The unit that had it.
    #[serde(default)]
    pub from_unit_uid: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Nothing was heard of the task for longer than its type allows: somebody should look. It stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stalled {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// In which state it stands, such as `started`.
    pub status: String,
    /// When fleetlog took in the last event that moved it.
    pub since: TimestampMs,
    /// How long its type may go without one.
    pub timeout_ms: i64,
}

/// A unit refused the task, or an update to it (then the task goes on as it was).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The head.
    pub meta: EventMeta,
    /// The task.
    pub task_id: String,
    /// Which update of the task was refused, as the source writes it; none where the task itself was.
    #[serde(default)]
    pub update_id: Option<String>,
    /// Why: a short code, such as `noRouteError`.
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub detail: Option<String>,
}

events! {
    topic "task", head TASK_HEAD by task_head, entity |event| event.task_id.as_str().into();
    Created { task_id: Rule::Id, task_type: Rule::Id } [steps { step_id: Rule::Id }]
        r#"{"task_id": "T-17", "task_type": "delivery", "priority": 2, "steps": [{"step_id": "pick", "step_type": "pick", "node_id": "N05"}, {"step_id": "drop", "step_type": "drop", "node_id": "N12"}]}"#
    Started { task_id: Rule::Id } r#"{"task_id": "T-17"}"#
    StepChanged { task_id: Rule::Id, step_id: Rule::Id }
        r#"{"task_id": "T-17", "step_id": "pick", "step_type": "pick", "status": "finished"}"#
    Paused { task_id: Rule::Id } r#"{"task_id": "T-17", "reason": "door blocked"}"#
    Resumed { task_id: Rule::Id } r#"{"task_id": "T-17"}"#
    Completed { task_id: Rule::Id, failed_steps: number(0.0, 2_147_483_647.0) }
        r#"{"task_id": "T-17", "failed_steps": 0}"#
    Failed { task_id: Rule::Id, reason: Rule::Id }
        r#"{"task_id": "T-17", "reason": "timeout", "detail": "nobody opened the door for 10 min"}"#
    Cancelled { task_id: Rule::Id, reason: Rule::Id } r#"{"task_id": "T-17", "reason": "requested"}"#
    Rejected { task_id: Rule::Id, reason: Rule::Id }
        r#"{"task_id": "T-17", "reason": "noRouteError", "detail": "N12 cannot be reached"}"#
    Stalled { task_id: Rule::Id, status: Rule::Id }
        r#"{"task_id": "T-17", "status": "started", "since": 1795251856866, "timeout_ms": 1800000}"#
}

// Whose unit is the news.
events! {
    topic "task", head UNIT_HEAD by unit_head, entity |event| event.task_id.as_str().into();
    Assigned { task_id: Rule::Id } r#"{"task_id": "T-17"}"#
    Reassigned { task_id: Rule::Id }
        r#"{"task_id": "T-17", "from_unit_uid": "1010020007", "reason": "battery low"}"#
}

event_set! {
    /// Every event of topic `task`.
    TaskEvent on "task" {
        Created, Assigned, Started, StepChanged, Paused, Resumed, Completed, Failed, Cancelled, Reassigned, Rejected, Stalled,
    }
}
