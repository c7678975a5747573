//! The ledger of a lane: a hash, offset → JSON of the entry.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use fleetlog_event::{Reason, Reject, TimestampMs};
use fleetlog_projection::{EntryState, Fault, LaneId, LedgerEntry, SinkError};
use redis::{FromRedisValue, Pipeline, Value};
use serde::{Deserialize, Serialize};

use crate::{
    keys::{lane_key, ledger_key},
    sink::{RedisSink, text},
};

/// Fields of one step of a search through a ledger: Redis serves nobody else meanwhile.
const ENTRIES_PER_STEP: usize = 1000;

/// An entry as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    reason: Cow<'a, str>,
    detail: Cow<'a, str>,
    key: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    state: Cow<'a, str>,
    /// ms since 1970.
    made_at: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    replays: u32,
    /// ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed_at: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// An entry's JSON.
pub(crate) fn entry_json(entry: &LedgerEntry) -> String {
    let stored = Stored {
        reason: entry.reject.reason.as_str().into(),
        detail: entry.reject.detail.as_str().into(),
        key: entry.key.as_deref().map(Cow::Borrowed),
        event_type: entry.event_type.as_deref().map(Cow::Borrowed),
        state: entry.state.as_str().into(),
        made_at: entry.made_at.0,
        replays: entry.replays,
        changed_at: entry.changed_at.map(|at| at.0),
    };
    serde_json::to_string(&stored).unwrap_or_else(|error| panic!("a ledger entry has no JSON form: {error}"))
}

fn parse_entry(json: &str) -> Result<LedgerEntry, String> {
    let stored: Stored<'_> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let reason = Reason::parse(&stored.reason).ok_or_else(|| format!("the reason `{}`", stored.reason))?;
    Ok(LedgerEntry {
        reject: Reject::new(reason, stored.detail),
        event_type: stored.event_type.map(Cow::into_owned),
        key: stored.key.map(Cow::into_owned),
        made_at: TimestampMs(stored.made_at),
        state: EntryState::parse(&stored.state).ok_or_else(|| format!("the state `{}`", stored.state))?,
        replays: stored.replays,
        changed_at: stored.changed_at.map(TimestampMs),
    })
}

impl RedisSink {
    fn ledger_of(&self, lane: &LaneId) -> String {
        let settings = self.settings();
        ledger_key(&lane_key(&settings.key_prefix, &settings.lane_prefix, lane))
    }

    fn parsed(&self, key: &str, offset: i64, json: &Value) -> Result<LedgerEntry, SinkError> {
        text(json).and_then(|json| parse_entry(&json)).map_err(|what| {
            let address = self.connection().address();
            let what = format!("redis at {address}: entry {offset} of `{key}`: {what}: of a newer fleetlog?");
            SinkError::new(Fault::Permanent, what)
        })
    }

    pub(crate) async fn ledger_entries(
        &self,
        lane: &LaneId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        let (key, mut found) = (self.ledger_of(lane), BTreeMap::new());
        for offsets in offsets.chunks(ENTRIES_PER_STEP) {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("HMGET").arg(&key).arg(offsets);
            let replies = self.run(&format!("reading the ledger of lane {lane}"), &pipeline).await?;
            let Some(Value::Array(entries)) = replies.into_iter().next_back() else { continue };
            for (offset, entry) in offsets.iter().zip(&entries).filter(|(_, entry)| **entry != Value::Nil) {
                found.insert(*offset, self.parsed(&key, *offset, entry)?);
            }
        }
        Ok(found)
    }

    pub(crate) async fn ledger_not_taken(
        &self,
        lane: &LaneId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        let (key, mut named) = (self.ledger_of(lane), BTreeSet::new());
        let mut cursor = "0".to_owned();
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("HSCAN").arg(&key).arg(&cursor).arg("COUNT").arg(ENTRIES_PER_STEP);
            let replies = self.run(&format!("searching the ledger of lane {lane}"), &pipeline).await?;
            let step = replies.into_iter().next_back().unwrap_or(Value::Nil);
            let (next, fields): (String, Vec<Value>) = FromRedisValue::from_redis_value(step)
                .map_err(|error| SinkError::caused(Fault::Permanent, format!("`{key}`"), error))?;
            for pair in fields.chunks_exact(2) {
                let offset = text(&pair[0]).ok().and_then(|offset| offset.parse().ok());
                let Some(offset) = offset.filter(|offset| range.contains(offset)) else { continue };
                if !self.parsed(&key, offset, &pair[1])?.state.is_taken() {
                    named.insert(offset);
                }
            }
            if next == "0" {
                return Ok(named);
            }
            cursor = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_also_one_of_before_there_were_commands() {
        let entry = LedgerEntry {
            reject: Reject::new(Reason::WrongKey, "`\"` and ä"),
            event_type: None,
            key: Some("s1.u2".into()),
            made_at: TimestampMs(5),
            state: EntryState::Parked,
            replays: 3,
            changed_at: Some(TimestampMs(7)),
        };
        assert_eq!(parse_entry(&entry_json(&entry)), Ok(entry));
        let before =
            r#"{"reason":"no_key","detail":"d","key":null,"event_type":null,"state":"open","made_at":5}"#;
        assert!(parse_entry(before).is_ok_and(|entry| entry.state.is_open() && entry.replays == 0));
        assert!(parse_entry(&before.replace("no_key", "odd")).is_err());
        assert!(parse_entry(&before.replace("open", "odd")).is_err());
    }
}
