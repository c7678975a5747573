//! Topic `ops`: what operators did, keyed by the consumer group whose work it changes. The audit trail of the fleet's
//! tools: kept for ever, one partition, so that all of it has one order.
//!
//! It also says which projections and handlers stand still: one that is halted stays so, in every process and over restarts,
//! until it is resumed here; and whose circuit is open.
//!
//! An action names every dead letter that it changed, one by one: the state of a letter is what the newest action on it
//! says, and nobody has to trust that a selection, evaluated again later, would still mean the same.

mod redriven;

use serde::{Deserialize, Serialize};

use crate::{
    EventMeta, Rule, TimestampMs,
    event::{event_set, events},
    validate::number,
};

pub use redriven::{
    DeadLettersRedriven, RedriveEnd, RedriveEnded, RedriveOutcome, RedriveProgressed, RedriveStarted,
    RedrivenLetter,
};

/// A dead letter as an action names it. Together with the event's group it is what dead letters are counted by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterRef {
    /// Where the record lay that could not be processed: `topic/partition/offset`, or `file:line` of an import; the
    /// letter's own place where nobody wrote that down.
    pub origin: String,
    /// The id of the topic that the record lay on (KIP-516), 32 hex digits; none where nobody wrote it down.
    #[serde(default)]
    pub log: Option<String>,
    /// Where the letter itself lies: `topic/partition/offset` of a dead-letter topic.
    pub place: String,
    /// The letter's own timestamp: what was set aside later is not meant.
    pub set_aside_at: TimestampMs,
    /// Why it was set aside, as the letter says.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Dead letters were discarded: nobody will process them. Their bytes stay on the dead-letter topic until its retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLettersDiscarded {
    /// The head; `site_uid` is empty where an action is not about one site.
    pub meta: EventMeta,
    /// Which action: all events of one command carry the same.
    pub action_id: String,
    /// The consumer group that had not taken them: the key.
    pub group: String,
    /// Who did it, as `user@host`.
    pub operator: String,
    /// Why, in the operator's words.
    pub why: String,
    /// What was asked for, as selectors.
    pub selection: String,
    /// The number of this event among those of the action, from 1.
    pub part: i32,
    /// How many events the action has.
    pub parts: i32,
    /// The letters, each once.
    pub letters: Vec<DeadLetterRef>,
}

/// What halts a projection. On the wire it is a text, so that a cause that is added later leaves the event readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltCause {
    /// Too many events one after the other would have been set aside, and none taken between.
    SetAsidesInARow,
    /// Too large a part of the last events would have been set aside.
    SetAsideRatio,
    /// It failed: a panic, a log that was lost, a store that does not fit.
    Failed,
}

impl HaltCause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SetAsidesInARow, Self::SetAsideRatio, Self::Failed];

    /// The name on the wire, in metrics and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SetAsidesInARow => "set_asides_in_a_row",
            Self::SetAsideRatio => "set_aside_ratio",
            Self::Failed => "failed",
        }
    }

    /// The cause of that name. One that this version does not know counts as [`Failed`](Self::Failed): it halts all the same.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name).unwrap_or(Self::Failed)
    }
}

/// A projection was halted: nobody goes on with it until somebody says so. What its breaker judged was not set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectionHalted {
    /// The head; `site_uid` is empty.
    pub meta: EventMeta,
    /// The consumer group that stands still: the key.
    pub group: String,
    /// The projection.
    pub projection: String,
    /// Its version; 1 of a handler, which has none.
    pub version: i32,
    /// What halted it: a [`HaltCause`] by name.
    pub why: String,
    /// The process that found it, by `run.instance`; or a person, as `user@host`.
    pub who: String,
    /// The topic (physical name) where that was found.
    #[serde(default)]
    pub topic: Option<String>,
    /// The partition.
    #[serde(default)]
    pub partition: Option<i32>,
    /// The offset of the first event that would have been set aside.
    #[serde(default)]
    pub offset: Option<i64>,
    /// What was found, in words.
    pub detail: String,
}

impl ProjectionHalted {
    /// What halted it.
    #[must_use]
    pub fn cause(&self) -> HaltCause {
        HaltCause::parse(&self.why)
    }

    /// The state in words, with what to do about it.
    #[must_use]
    pub fn state(&self) -> String {
        format!("halted: {}; go on with: {}", self.detail, resume_command(&self.projection))
    }
}

/// The command that lets a projection go on.
#[must_use]
pub fn resume_command(projection: &str) -> String {
    format!("fleetlog progress resume {projection} --why TEXT")
}

/// A projection may go on: every halt of its group before this is over, and whoever stopped with a failure tries again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectionResumed {
    /// The head; `site_uid` is empty.
    pub meta: EventMeta,
    /// The consumer group that may go on: the key.
    pub group: String,
    /// The projection.
    pub projection: String,
    /// Who said so, as `user@host`.
    pub operator: String,
    /// Why, in the operator's words.
    pub why: String,
    /// The `event_id` of the halt that this answers; none where there was none.
    #[serde(default)]
    pub halt: Option<String>,
    /// How many more events each lane may set aside before its breaker counts; none: it counts at once.
    #[serde(default)]
    pub set_asides_max: Option<i64>,
}

/// Whether a circuit lets calls through. On the wire it is a text, so that a state that is added later leaves the event readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Nothing is called, or only trials are.
    Open,
    /// Everything is.
    Closed,
}

impl CircuitState {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A handler's circuit opened or closed in one process: its endpoint is left alone, or called again. Trials that fail are not
/// told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CircuitChanged {
    /// The head; `site_uid` is empty.
    pub meta: EventMeta,
    /// The handler's consumer group: the key.
    pub group: String,
    /// The handler.
    pub handler: String,
    /// What it is now: a [`CircuitState`] by name.
    pub state: String,
    /// The process whose circuit it is, by `run.instance`.
    pub who: String,
    /// Why, in words.
    pub detail: String,
}

impl CircuitChanged {
    /// Whether it opened; a state that this version does not know is none that lets everything through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != CircuitState::Closed.as_str()
    }
}

events! {
    topic "ops", head OPS_HEAD by ops_head, entity |event| event.group.as_str().into();
    DeadLettersDiscarded {
        action_id: Rule::Id, group: Rule::Id, operator: Rule::Id, why: Rule::Id,
        part: number(1.0, 2_147_483_647.0), parts: number(1.0, 2_147_483_647.0),
    } [letters { origin: Rule::Id, place: Rule::Id }]
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11", "group": "prod-fleetlog-task-state-v1", "operator": "anna@control-1", "why": "test robot, its tasks were never real", "selection": "key=T-17", "part": 1, "parts": 1, "letters": [{"origin": "prod-task/3/1207", "log": "c1f7a4d2b8e94f0f8a3d5b6c7d8e9f01", "place": "task-dlq/0/12", "set_aside_at": 1795251856866, "reason": "unknown_task"}]}"#
    CircuitChanged { group: Rule::Id, handler: Rule::Id, state: Rule::Id, who: Rule::Id }
        r#"{"group": "prod-fleetlog-webhook-orders", "handler": "webhook-orders", "state": "open", "who": "worker-1-0", "detail": "more than 3 calls failed one after the other: HTTP 503"}"#
    ProjectionHalted {
        group: Rule::Id, projection: Rule::Id, version: number(1.0, 2_147_483_647.0), why: Rule::Id, who: Rule::Id,
    }
        r#"{"group": "prod-fleetlog-unit-status-v1", "projection": "unit-status", "version": 1, "why": "set_asides_in_a_row", "who": "worker-1-0", "topic": "prod-robot", "partition": 3, "offset": 1207, "detail": "1,000 events in a row would be set aside"}"#
    ProjectionResumed { group: Rule::Id, projection: Rule::Id, operator: Rule::Id, why: Rule::Id }
        r#"{"group": "prod-fleetlog-unit-status-v1", "projection": "unit-status", "operator": "anna@control-1", "why": "the bridge of site 504 sent JSON; its events are lost", "halt": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11", "set_asides_max": 5000}"#
}

event_set! {
    /// Every event of topic `ops`.
    OpsEvent on "ops" {
        CircuitChanged,
        DeadLettersDiscarded,
        ProjectionHalted,
        ProjectionResumed,
        RedriveStarted,
        RedriveProgressed,
        RedriveEnded,
        DeadLettersRedriven,
    }
}
