//! How many dead letters there are, by what one asks first.

use std::collections::BTreeMap;

use fleetlog_event::TimestampMs;
use serde::Serialize;

use crate::{Letter, State, UNKNOWN, letter::time_text};

const HOUR_MS: i64 = 3_600_000;

/// Counts of dead letters by (group, origin).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// How many.
    pub letters: u64,
    /// By state.
    pub states: BTreeMap<String, u64>,
    /// By reason.
    pub reasons: BTreeMap<String, u64>,
    /// By class.
    pub classes: BTreeMap<String, u64>,
    /// By event type.
    pub types: BTreeMap<String, u64>,
    /// By consumer group.
    pub groups: BTreeMap<String, u64>,
    /// By the hour (UTC, its beginning) in which they were set aside.
    pub hours: BTreeMap<String, u64>,
    /// When the oldest was set aside, milliseconds since 1970; none where there are none.
    pub oldest_ms: Option<i64>,
    /// When the newest was set aside, milliseconds since 1970.
    pub newest_ms: Option<i64>,
}

impl Stats {
    /// Counts a letter.
    pub fn add(&mut self, letter: &Letter, state: &State) {
        self.letters += 1;
        let mut count = |of: fn(&mut Self) -> &mut BTreeMap<String, u64>, name: &str| {
            *of(self).entry(name.to_owned()).or_default() += 1;
        };
        count(|it| &mut it.states, state.name());
        count(|it| &mut it.reasons, &letter.reason);
        count(|it| &mut it.classes, letter.class.as_deref().unwrap_or(UNKNOWN));
        count(|it| &mut it.types, letter.event_type.as_deref().unwrap_or(UNKNOWN));
        count(|it| &mut it.groups, &letter.group);
        let TimestampMs(at_ms) = letter.set_aside_at;
        count(|it| &mut it.hours, &time_text(TimestampMs(at_ms.div_euclid(HOUR_MS).saturating_mul(HOUR_MS))));
        self.oldest_ms = Some(self.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
        self.newest_ms = Some(self.newest_ms.map_or(at_ms, |newest| newest.max(at_ms)));
    }
}
