//! The watch for tasks that stand still: a section that is there or not, with a table by types of tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use fleetlog_handler::{PolicyError, RetryPolicy};
use fleetlog_task_watch::{Policy, Rules};
use serde::{Deserialize, Serialize};

use super::{
    Config, StartAt,
    webhooks::{IN_FLIGHT, between, tiers},
};

/// The section.
pub(super) const SECTION: &str = "task_watch";
/// How its keys begin.
pub(super) const BELOW: &str = "task_watch.";
/// The table of timeouts by type, also as one text.
pub(super) const TIMEOUTS: &str = "task_watch.timeouts_ms";
/// Keys below this one are named by whoever writes them: types of tasks.
pub(super) const TIMEOUTS_BELOW: &str = "task_watch.timeouts_ms.";

/// Shorter, and hot state could hardly show in time that a task moved; longer than a year, and it is forgotten before.
const TIMEOUT_MS: RangeInclusive<u64> = 1_000..=31_622_400_000;

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskWatch {
    pub(crate) timeout_ms: u64,
    #[serde(default)]
    pub(crate) timeouts_ms: BTreeMap<String, u64>,
    #[serde(with = "PolicyText")]
    pub(crate) policy: Policy,
    pub(crate) while_paused: bool,
    pub(crate) in_flight_max: usize,
    pub(crate) retry_delays_ms: Vec<u64>,
    pub(crate) start_at: StartAt,
}

/// How [`Policy`] is written.
#[derive(Deserialize, Serialize)]
#[serde(remote = "Policy", rename_all = "snake_case")]
enum PolicyText {
    Fail,
    Alert,
}

impl TaskWatch {
    /// As the crate of the watch has it.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            timeouts_ms: self.timeouts_ms.clone(),
            timeout_ms: self.timeout_ms,
            policy: self.policy,
            while_paused: self.while_paused,
        }
    }

    /// Its tiers.
    pub(crate) fn retry(&self) -> Result<RetryPolicy, PolicyError> {
        tiers(&self.retry_delays_ms)
    }
}

/// Timeouts by type that were written as one text, `TYPE=ms` with commas between.
pub(super) fn timeouts_of(text: &str) -> Result<Vec<(String, u64)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let timeout = |part: &str| {
        let (task_type, ms) = part.rsplit_once('=')?;
        let (task_type, ms) = (task_type.trim(), ms.trim().parse().ok()?);
        (!task_type.is_empty()).then(|| (task_type.to_owned(), ms))
    };
    let wrong = |part: &str| format!("holds `{part}`, expected TYPE=ms, such as DELIVERY=1800000");
    parts.map(|part| timeout(part).ok_or_else(|| wrong(part))).collect()
}

/// What to write in the place of a variable for one type.
pub(super) fn no_variable(key: &str) -> String {
    format!(
        "`{key}` cannot be set by a variable of its own, whose name tells no capital letters: write \
         FLEETLOG_TASK_WATCH__TIMEOUTS_MS=TYPE=ms,TYPE=ms"
    )
}

/// Whether the watch can be carried out. Of a key whose own value was refused already nothing is said.
pub(super) fn check(config: &Config, refused: &BTreeSet<String>, wrong: &mut impl FnMut(&str, String)) {
    let Some(watch) = &config.task_watch else { return };
    let mut wrong = |within: &str, what: String| {
        let key = format!("{BELOW}{within}");
        if !refused.contains(&key) {
            wrong(&key, what);
        }
    };
    let mut timeout = |within: &str, timeout_ms: u64| {
        if timeout_ms > 0 && !TIMEOUT_MS.contains(&timeout_ms) {
            let (least, most) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
            wrong(within, format!("is {timeout_ms}, expected {least} to {most}, or 0: for ever"));
        }
    };
    timeout("timeout_ms", watch.timeout_ms);
    for (task_type, timeout_ms) in &watch.timeouts_ms {
        timeout(&format!("timeouts_ms.{task_type}"), *timeout_ms);
    }
    let is_refused = refused.iter().any(|key| key.starts_with(TIMEOUTS));
    if watch.timeout_ms == 0 && watch.timeouts_ms.values().all(|ms| *ms == 0) && !is_refused {
        let what =
            "is 0, and no type has a time of its own in `task_watch.timeouts_ms`: nothing would be watched";
        wrong("timeout_ms", what.into());
    }
    let delays = &watch.retry_delays_ms;
    match watch.retry() {
        Err(error) => wrong("retry_delays_ms", format!("is {delays:?}: {error}")),
        Ok(tiers) if tiers.delays().is_empty() => {
            wrong("retry_delays_ms", "is empty: tasks wait there to be looked at again".into());
        }
        Ok(_) => {}
    }
    between("in_flight_max", watch.in_flight_max, &IN_FLIGHT, &mut wrong);
}

#[cfg(test)]
mod tests;
