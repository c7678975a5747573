//! One entity: what the log says of it against what Redis shows.

use std::collections::BTreeMap;

use fleetlog_event::{LogId, TimestampMs};
use fleetlog_projection::HotWrite;
use serde::Serialize;
use serde_json::Value;

use crate::{Kind, Topic, VerifyError, hot_store::Shown, progress::Lane};

/// What the log makes of an entity.
pub(crate) struct Expected<S> {
    pub(crate) state: S,
    /// One past the last event taken.
    pub(crate) next: i64,
}

/// What became of a look at an entity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It was judged.
    Done,
    /// It took events up to here, past what was folded.
    Ahead(i64),
}

/// An entity's exact part as Redis has it.
pub(crate) struct Stored {
    log: String,
    partition: i32,
    pub(crate) next: i64,
    state: Value,
}

impl Stored {
    pub(crate) fn read(shown: &Shown) -> Result<Self, String> {
        if shown.kind != "hash" {
            return Err(format!("holds a {}, not a hash", shown.kind));
        }
        let version = shown.fields.get("_version").ok_or("has no `_version`")?;
        let parts: Vec<&str> = version.split(':').collect();
        let wrong = || format!("its `_version` is `{version}`, not log:partition:next:revision");
        let [log, partition, next, _revision] = parts.as_slice() else { return Err(wrong()) };
        let state = shown.fields.get("_state").ok_or("has no `_state`")?;
        Ok(Self {
            log: (*log).to_owned(),
            partition: partition.parse().map_err(|_| wrong())?,
            next: next.parse().map_err(|_| wrong())?,
            state: serde_json::from_str(state)
                .map_err(|error| format!("its `_state` is no JSON: {error}: {state}"))?,
        })
    }

    /// Log, partition, and one past the last event that it took.
    pub(crate) fn version(&self) -> Result<(LogId, i32, i64), VerifyError> {
        let log = uuid::Uuid::parse_str(&self.log).map_err(|error| {
            VerifyError::Malformed(format!("redis: `_version` names log `{}`: {error}", self.log))
        })?;
        Ok((LogId(log), self.partition, self.next))
    }

    pub(crate) fn is_of(&self, log: LogId, partition: i32) -> bool {
        self.log == log.to_string() && self.partition == partition
    }
}

/// The places in lists that writes speak of.
pub(crate) fn places(writes: &[HotWrite]) -> Vec<(String, String)> {
    let place = |write: &HotWrite| match write {
        HotWrite::Ranked { list, member, .. } => Some((list.clone(), member.clone())),
        _ => None,
    };
    writes.iter().filter_map(place).collect()
}

/// From when on the store may have forgotten the entity.
pub(crate) fn expires_at(writes: &[HotWrite]) -> Option<TimestampMs> {
    let expiry = |write: &HotWrite| match write {
        HotWrite::ExpireAt(at) => Some(*at),
        _ => None,
    };
    writes.iter().rev().find_map(expiry).flatten()
}

/// How an entity differs from what the log says, if it does.
pub(crate) fn compare<S: Serialize>(
    lane: &Lane,
    topic: &Topic,
    expected: &Expected<S>,
    writes: &[HotWrite],
    stored: &Stored,
    shown: &Shown,
    asked: &[(String, String)],
) -> Option<(Kind, String)> {
    if !stored.is_of(topic.log, lane.id.partition) {
        let (log, partition) = (&stored.log, stored.partition);
        let what = format!("it was folded from {log}/{partition}, not {}/{}", topic.log, lane.id.partition);
        return Some((Kind::Different, what));
    }
    if stored.next < expected.next {
        let what = format!(
            "the event at offset {} is neither taken nor set aside: its version is at {}, progress is at {}",
            expected.next - 1,
            stored.next,
            lane.progress
        );
        return Some((Kind::Missing, what));
    }
    if stored.next > expected.next {
        let what = format!(
            "its version is at {}, but the last event that counts is at offset {}",
            stored.next,
            expected.next - 1
        );
        return Some((Kind::Different, what));
    }
    // Where retention cut the log, the store may know more: what was said before the cut and never since.
    let cut = lane.low > 0;
    let mut wrong = Vec::new();
    let state = serde_json::to_value(&expected.state).unwrap_or(Value::Null);
    if !is_told(&state, &stored.state, cut) {
        wrong.push(format!("`_state` is {}, the log says {state}", stored.state));
    }
    compare_fields(writes, shown, cut, &mut wrong);
    compare_places(writes, shown, asked, cut, &mut wrong);
    (!wrong.is_empty()).then(|| (Kind::Different, wrong.join("; ")))
}

/// Whether a state is as expected; if the log is cut, in all that the log tells.
pub(crate) fn is_told(expected: &Value, stored: &Value, cut: bool) -> bool {
    match (expected, stored) {
        (Value::Null, _) if cut => true,
        (Value::Object(expected), Value::Object(stored)) if cut => {
            expected.iter().all(|(name, value)| is_told(value, stored.get(name).unwrap_or(&Value::Null), cut))
        }
        _ => expected == stored,
    }
}

fn compare_fields(writes: &[HotWrite], shown: &Shown, cut: bool, wrong: &mut Vec<String>) {
    let mut expected: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for write in writes {
        if let HotWrite::Field { name, value } = write {
            expected.insert(name, value.as_deref());
        }
    }
    for (name, value) in &expected {
        let stored = shown.fields.get(*name).map(String::as_str);
        if *value != stored && !(cut && value.is_none()) {
            wrong.push(format!("field `{name}` is {}, the log says {}", text(stored), text(*value)));
        }
    }
    for (name, value) in &shown.fields {
        if !name.starts_with('_') && !expected.contains_key(name.as_str()) {
            wrong.push(format!("field `{name}` is `{value}`, the projection has no such field"));
        }
    }
}

fn compare_places(
    writes: &[HotWrite],
    shown: &Shown,
    asked: &[(String, String)],
    cut: bool,
    wrong: &mut Vec<String>,
) {
    let mut expected: BTreeMap<(&str, &str), Option<f64>> = BTreeMap::new();
    for write in writes {
        if let HotWrite::Ranked { list, member, score } = write {
            expected.insert((list, member), *score);
        }
    }
    for ((list, member), score) in expected {
        // A place that was not asked for came with later events: the list was not read at the entity's moment.
        let Some(index) = asked.iter().position(|(l, m)| l == list && m == member) else { continue };
        let stored = shown.places[index];
        if score != stored && !(cut && score.is_none()) {
            let number =
                |score: Option<f64>| score.map_or_else(|| "absent".to_owned(), |score| score.to_string());
            wrong.push(format!(
                "its place in `{list}` is {}, the log says {}",
                number(stored),
                number(score)
            ));
        }
    }
}

fn text(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
}
