//! Topic `ops`: what operators did, keyed by the consumer group whose work it changes. The audit trail of the fleet's
//! tools: kept for ever, one partition, so that all of it has one order.
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

events! {
    topic "ops", head OPS_HEAD by ops_head, entity |event| event.group.as_str().into();
    DeadLettersDiscarded {
        action_id: Rule::Id, group: Rule::Id, operator: Rule::Id, why: Rule::Id,
        part: number(1.0, 2_147_483_647.0), parts: number(1.0, 2_147_483_647.0),
    } [letters { origin: Rule::Id, place: Rule::Id }]
        r#"{"action_id": "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11", "group": "prod-fleetlog-task-state-v1", "operator": "anna@control-1", "why": "test robot, its tasks were never real", "selection": "key=T-17", "part": 1, "parts": 1, "letters": [{"origin": "prod-task/3/1207", "log": "c1f7a4d2b8e94f0f8a3d5b6c7d8e9f01", "place": "task-dlq/0/12", "set_aside_at": 1795251856866, "reason": "unknown_task"}]}"#
}

event_set! {
    /// Every event of topic `ops`.
    OpsEvent on "ops" {
        DeadLettersDiscarded,
        RedriveStarted,
        RedriveProgressed,
        RedriveEnded,
        DeadLettersRedriven,
    }
}
