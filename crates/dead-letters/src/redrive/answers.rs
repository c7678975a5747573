//! Waiting for lanes to answer: until their stored inbox progress is past what was sent to them.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::ops::RedriveOutcome;
use fleetlog_projection::{EntryState, Fault, LedgerEntry};
use tokio::time::Instant;

use super::{LaneRef, Lanes, Trouble};

/// Between two looks at lanes that have not answered: soon at first, more rarely later.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// What a lane is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The last command that was sent to it: its offset on the inbox.
    pub command: i64,
    /// The furthest position that a command names: a lane answers only once it is past it. None if none names one.
    pub position: Option<i64>,
}

/// How waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Every lane has answered.
    All,
    /// Nothing went on for as long as one waits.
    Stalled {
        /// The lanes that have not answered, each with its main progress if it is not past the position yet.
        lanes: Vec<LaneRef>,
        /// Those of them that have yet to reach the position that a command names.
        behind: usize,
        /// What a server said meanwhile.
        trouble: Option<String>,
    },
}

/// What a lane shows of itself while it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    main: i64,
    inbox: i64,
}

impl Awaited {
    /// Whether the lane came nearer to an answer. Its main progress counts as long as a command waits for it: afterwards a
    /// lane that takes events and no commands would be waited for for ever.
    fn nearer(&self, before: Seen, now: Seen) -> bool {
        now.inbox > before.inbox
            || (now.main > before.main && self.position.is_some_and(|position| before.main <= position))
    }
}

/// Waits for all lanes, for at most `patience` without any progress. A server that does not answer is asked again; `between`
/// runs between two looks.
///
/// # Errors
/// What does not pass by waiting, and the first error of `between`.
pub(crate) async fn await_answers<L: Lanes>(
    lanes: &L,
    awaited: &BTreeMap<LaneRef, Awaited>,
    patience: Duration,
    mut between: impl AsyncFnMut() -> Result<(), Trouble>,
) -> Result<Answered, Trouble> {
    let mut seen: BTreeMap<&LaneRef, Option<Seen>> = awaited.keys().map(|lane| (lane, None)).collect();
    let (mut last_progress, mut look, mut trouble) = (Instant::now(), LOOK_MIN, None);
    loop {
        let mut went_on = false;
        for (lane, before) in std::mem::take(&mut seen) {
            let now = match lanes.progress(lane).await {
                Ok(progress) => progress.map_or(Seen { main: 0, inbox: 0 }, |progress| Seen {
                    main: progress.main,
                    inbox: progress.inbox,
                }),
                Err(error) if error.fault == Fault::Transient => {
                    trouble = Some(error.what);
                    seen.insert(lane, before);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let awaited = &awaited[lane];
            if now.inbox > awaited.command {
                went_on = true;
            } else {
                went_on |= before.is_some_and(|before| awaited.nearer(before, now));
                seen.insert(lane, Some(now));
            }
        }
        if seen.is_empty() {
            return Ok(Answered::All);
        }
        if went_on {
            (last_progress, look, trouble) = (Instant::now(), LOOK_MIN, None);
        } else if last_progress.elapsed() >= patience {
            return Ok(stalled(awaited, seen, trouble));
        }
        between().await?;
        tokio::time::sleep(look).await;
        look = (look * 2).min(LOOK_MAX);
    }
}

fn stalled(
    awaited: &BTreeMap<LaneRef, Awaited>,
    seen: BTreeMap<&LaneRef, Option<Seen>>,
    trouble: Option<String>,
) -> Answered {
    let is_behind = |(lane, seen): &(&&LaneRef, &Option<Seen>)| {
        seen.is_some_and(|seen| awaited[**lane].position.is_some_and(|position| seen.main <= position))
    };
    let behind = seen.iter().filter(is_behind).count();
    Answered::Stalled { lanes: seen.into_keys().cloned().collect(), behind, trouble }
}

/// What came of a command, by the entry before it and after its answer; with why, if it was rejected again.
pub(crate) fn outcome(before: &LedgerEntry, after: Option<&LedgerEntry>) -> (RedriveOutcome, Option<String>) {
    let Some(after) = after else { return (RedriveOutcome::Nothing, None) };
    let again = after.replays > before.replays;
    let reason = || Some(after.reject.reason.to_string());
    match after.state {
        EntryState::Redriven | EntryState::EmittedAnew => (RedriveOutcome::Taken, None),
        EntryState::Parked if again => (RedriveOutcome::Parked, reason()),
        EntryState::Open if again => (RedriveOutcome::Rejected, reason()),
        EntryState::Open | EntryState::Parked => (RedriveOutcome::Nothing, None),
    }
}
