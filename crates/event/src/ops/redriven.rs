//! What is written down of redrives: who sends what back, and what came of each letter.

use serde::{Deserialize, Serialize};

use crate::{EventMeta, Rule, TimestampMs, event::events, validate::number};

/// What came of a dead letter that was sent back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveOutcome {
    /// The group took it: the entry of its ledger is closed.
    Taken,
    /// It was rejected again: a new letter says why.
    Rejected,
    /// It was rejected again, as often as it may be: its letter lies on the parking topic.
    Parked,
    /// Nothing: its entry was not open any more, or the lane has none.
    Nothing,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// How a redrive ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveEnd {
    /// Everything was sent and answered.
    Done,
    /// The operator stopped it.
    Stopped,
    /// Too few of the first were taken.
    Canary,
    /// Nobody answered.
    Stalled,
    /// A server was away, or another process took over.
    Failed,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// A dead letter that was sent back, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RedrivenLetter {
    /// Where the record lies that could not be processed: `topic/partition/offset`.
    pub origin: String,
    /// The id of the topic that the record lies on (KIP-516), 32 hex digits.
    #[serde(default)]
    pub log: Option<String>,
    /// Where the letter itself lies: `topic/partition/offset` of a dead-letter topic.
    pub place: String,
    /// The letter's own timestamp: what was set aside later is not meant.
    pub set_aside_at: TimestampMs,
    /// Why it was set aside; of one that was rejected again, why this time.
    #[serde(default)]
    pub reason: Option<String>,
    /// What came of it.
    #[serde(default)]
    pub outcome: RedriveOutcome,
}

/// A redrive of a group begins. Until `lease_until`, or the end that is written down, no other redrives the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedriveStarted {
    /// The head; `site_uid` is empty where an action is not about one site.
    pub meta: EventMeta,
    /// Which job: all its events carry the same.
    pub action_id: String,
    /// The consumer group whose letters are sent back: the key.
    pub group: String,
    /// Who does it, as `user@host`.
    pub operator: String,
    /// Why, in the operator's words.
    pub why: String,
    /// What was asked for, as selectors.
    pub selection: String,
    /// How many letters of the group are to be sent back.
    pub letters: i32,
    /// Until when the group is this job's, if it says nothing more.
    pub lease_until: TimestampMs,
}

/// A redrive goes on: its lease is renewed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedriveProgressed {
    /// The head; `site_uid` is empty where an action is not about one site.
    pub meta: EventMeta,
    /// Which job.
    pub action_id: String,
    /// The consumer group: the key.
    pub group: String,
    /// Until when the group is this job's, if it says nothing more.
    pub lease_until: TimestampMs,
}

/// A redrive of a group has ended; the group is free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedriveEnded {
    /// The head; `site_uid` is empty where an action is not about one site.
    pub meta: EventMeta,
    /// Which job.
    pub action_id: String,
    /// The consumer group: the key.
    pub group: String,
    /// How.
    #[serde(default)]
    pub end: RedriveEnd,
    /// Letters that the group took.
    pub taken: i32,
    /// Letters that were rejected again.
    pub rejected: i32,
    /// Letters that were rejected as often as they may be.
    pub parked: i32,
    /// Letters of which nothing came.
    pub nothing: i32,
}

/// Dead letters were sent back to the group that had not taken them, and it has answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLettersRedriven {
    /// The head; `site_uid` is empty where an action is not about one site.
    pub meta: EventMeta,
    /// Which job: all events of one command carry the same.
    pub action_id: String,
    /// The consumer group that had not taken them: the key.
    pub group: String,
    /// Who did it, as `user@host`.
    pub operator: String,
    /// Why, in the operator's words.
    pub why: String,
    /// What was asked for, as selectors.
    pub selection: String,
    /// The number of this event among those of the job and group, from 1.
    pub part: i32,
    /// Letters here that were taken.
    pub taken: i32,
    /// Letters here that were rejected again.
    pub rejected: i32,
    /// Letters here that were rejected as often as they may be.
    pub parked: i32,
    /// Letters here of which nothing came.
    pub nothing: i32,
    /// The letters, each once.
    pub letters: Vec<RedrivenLetter>,
}

const COUNT: Rule = number(0.0, 2_147_483_647.0);

events! {
    topic "ops", head OPS_HEAD by ops_head, entity |event| event.group.as_str().into();
    RedriveStarted {
        action_id: Rule::Id, group: Rule::Id, operator: Rule::Id, why: Rule::Id, letters: COUNT,
    }
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b12", "group": "prod-fleetlog-task-state-v1", "operator": "anna@control-1", "why": "the schema is registered now", "selection": "reason=unknown_schema", "letters": 120, "lease_until": 1795251916866}"#
    RedriveProgressed { action_id: Rule::Id, group: Rule::Id }
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b12", "group": "prod-fleetlog-task-state-v1", "lease_until": 1795251931866}"#
    RedriveEnded {
        action_id: Rule::Id, group: Rule::Id, taken: COUNT, rejected: COUNT, parked: COUNT, nothing: COUNT,
    }
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b12", "group": "prod-fleetlog-task-state-v1", "end": "done", "taken": 119, "rejected": 1, "parked": 0, "nothing": 0}"#
    DeadLettersRedriven {
        action_id: Rule::Id, group: Rule::Id, operator: Rule::Id, why: Rule::Id,
        part: number(1.0, 2_147_483_647.0), taken: COUNT, rejected: COUNT, parked: COUNT, nothing: COUNT,
    } [letters { origin: Rule::Id, place: Rule::Id }]
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b12", "group": "prod-fleetlog-task-state-v1", "operator": "anna@control-1", "why": "the schema is registered now", "selection": "reason=unknown_schema", "part": 1, "taken": 1, "rejected": 0, "parked": 0, "nothing": 0, "letters": [{"origin": "prod-task/3/1207", "log": "c1f7a4d2b8e94f0f8a3d5b6c7d8e9f01", "place": "task-dlq/0/12", "set_aside_at": 1795251856866, "reason": "unknown_schema", "outcome": "taken"}]}"#
}
