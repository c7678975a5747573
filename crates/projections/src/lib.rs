#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]
//! The read models, one file each.
//!
//! | projection | reads | writes |
//! |---|---|---|
//! | [`unit_consensus`] | `telemetry` | Redis: `UnitConsensus@s{site}.u{unit}`, `seen:{site}` |
//! | [`unit_status`] | `robot` | Redis: `unit:s{site}.u{unit}`, `online:{site}`, `units:{type}` |
//! | [`task_state`] | `task` | Redis: `task:{id}`, `tasks:active:{site}` |
//! | [`task_ledger`] | `task` | SQL: `t_app_task_ledger2` |
//! | [`telemetry_history`] | `telemetry` | SQL: `telemetry` |
//! | [`event_history`] | `robot`, `task` | SQL: `unit_event`, `task_event` |
//! | [`dead_letters`] | every `*-dlq` | SQL: `dead_letter` |
//! | [`dead_letter_actions`] | `ops` | SQL: `dead_letter_action` |
//!
//! [`for_each_projection!`] names them all, for the places that run, check or list them.

pub mod dead_letter_actions;
pub mod dead_letters;
pub mod event_history;
mod sql_text;
pub mod task_ledger;
pub mod task_state;
pub mod telemetry_history;
#[cfg(test)]
mod testing;
pub mod unit_consensus;
pub mod unit_status;

use fleetlog_event::{EntityKey, EventSet, TimestampMs};
use fleetlog_projection::{Column, EntityRow, FoldProjector, HotWrite, MapProjector, RecordProjector};
use serde::Serialize;

pub use dead_letter_actions::DeadLetterActions;
pub use dead_letters::DeadLetters;
pub use event_history::EventHistory;
pub use task_ledger::TaskLedger;
pub use task_state::TaskStateProjector;
pub use telemetry_history::TelemetryHistory;
pub use unit_consensus::UnitConsensus;
pub use unit_status::UnitStatus;

/// Calls `$action!(fold, projector)`, `$action!(ledger, projector)`, `$action!(map, projector)` or
/// `$action!(letters, projector)` for every projection, in order. A fold lands in hot state (its writes are [`HotWrite`]s), a
/// map in history (its writes are rows); a ledger is a fold that lands in SQL (its writes are [`EntityRow`]s: a row per
/// entity); letters are a map over records as they lie on the log, events or not ([`RecordProjector`]).
///
/// This is the one list to which a new projection is added.
#[macro_export]
macro_rules! for_each_projection {
    ($action:path) => {
        $action!(fold, $crate::UnitConsensus);
        $action!(fold, $crate::UnitStatus);
        $action!(fold, $crate::TaskStateProjector);
        $action!(ledger, $crate::TaskLedger);
        $action!(map, $crate::TelemetryHistory);
        $action!(map, $crate::EventHistory);
        $action!(letters, $crate::DeadLetters);
        $action!(map, $crate::DeadLetterActions);
    };
}

/// Where a projection lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Hot state (Redis).
    Hot,
    /// History and ledgers (SQL).
    History,
}

/// What is known of a projection without running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its ID.
    pub id: &'static str,
    /// Its VERSION.
    pub version: u32,
    /// Stems of the topics it reads.
    pub topics: &'static [&'static str],
    /// Where it lands.
    pub sink: SinkKind,
    /// Whether it folds (and so needs a log that is kept, or keeps last values only).
    pub folds: bool,
}

/// Every projection, in the order of [`for_each_projection!`].
#[must_use]
pub fn all() -> Vec<Described> {
    fn fold<P: FoldProjector<Write = HotWrite>>(_: P) -> Described {
        Described {
            id: P::ID,
            version: P::VERSION,
            topics: P::Event::TOPICS,
            sink: SinkKind::Hot,
            folds: true,
        }
    }
    fn ledger<P: FoldProjector<Write: EntityRow>>(_: P) -> Described {
        Described {
            id: P::ID,
            version: P::VERSION,
            topics: P::Event::TOPICS,
            sink: SinkKind::History,
            folds: true,
        }
    }
    fn map<P: MapProjector>(_: P) -> Described {
        Described {
            id: P::ID,
            version: P::VERSION,
            topics: P::Event::TOPICS,
            sink: SinkKind::History,
            folds: false,
        }
    }
    fn letters<P: RecordProjector>(_: P) -> Described {
        Described { id: P::ID, version: P::VERSION, topics: P::TOPICS, sink: SinkKind::History, folds: false }
    }
    let mut described = Vec::new();
    macro_rules! describe {
        ($kind:ident, $projector:expr) => {
            described.push($kind($projector));
        };
    }
    for_each_projection!(describe);
    described
}

/// A column of a table.
const fn column(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type }
}

const TIMESTAMP: &str = "timestamp with time zone";

/// A time for people: RFC 3339 in UTC with milliseconds; beyond the years -9999 to 9999 the milliseconds since 1970.
fn time_text(time: TimestampMs) -> String {
    match jiff::Timestamp::from_millisecond(time.0) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => format!("{}ms", time.0),
    }
}

/// An enum's symbol, as its schema writes it.
fn symbol<S: Serialize>(value: &S) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(symbol)) => symbol,
        other => panic!("no symbol of an enum: {other:?}"),
    }
}

/// JSON for people. The values here are texts, numbers that were checked, and symbols: they always have a JSON form.
fn json_text<S: Serialize>(value: &S) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| panic!("no JSON form: {error}"))
}

/// The entity's place in a sorted set; none takes it out. Scores are 64-bit floats: whole up to 2^53, which is the
/// year 287396 in milliseconds.
fn place(list: String, key: &EntityKey, score: Option<i64>) -> HotWrite {
    HotWrite::Ranked { list, member: key.as_str().to_owned(), score: score.map(|score| score as f64) }
}
