//! What a projection and its lanes are doing, for people, probes and `--once`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use fleetlog_event::ops::HaltCause;
use fleetlog_projection::{LaneId, Progress};

use crate::intake::LaneAt;

/// What a lane is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LaneState {
    /// Reads its progress and the log's facts.
    #[default]
    Starting,
    /// Takes batches.
    Running,
    /// Waits for something that is down: what it does and what was said.
    Waiting(String),
    /// The group has another generation: waits until it is clear whose the partition is.
    Parked,
    /// Stopped for good: why.
    Stopped(String),
}

/// One lane's figures. Counters only grow while the lane stays.
#[derive(Debug, Default)]
pub(crate) struct LaneStatus {
    state: Mutex<LaneState>,
    paused: AtomicBool,
    progress: AtomicI64,
    inbox: AtomicI64,
    end: AtomicI64,
    fenced: AtomicU64,
}

impl LaneStatus {
    /// Unknown offsets.
    const UNKNOWN: i64 = -1;

    fn new() -> Self {
        Self {
            progress: AtomicI64::new(Self::UNKNOWN),
            inbox: AtomicI64::new(Self::UNKNOWN),
            end: AtomicI64::new(Self::UNKNOWN),
            ..Self::default()
        }
    }

    /// Changes the state; says whether it is another one.
    pub(crate) fn set_state(&self, state: LaneState) -> bool {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *current != state;
        *current = state;
        changed
    }

    pub(crate) fn set_progress(&self, progress: &Progress) {
        self.progress.store(progress.main, Ordering::Relaxed);
        self.inbox.store(progress.inbox, Ordering::Relaxed);
    }

    /// The next offset that is not done.
    pub(crate) fn set_next(&self, offset: i64) {
        self.progress.store(offset, Ordering::Relaxed);
    }

    pub(crate) fn set_end(&self, end: i64) {
        self.end.store(end, Ordering::Relaxed);
    }

    pub(crate) fn count_fenced(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> LaneState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next offset it will take; none before it has read its progress.
    pub(crate) fn progress(&self) -> Option<i64> {
        Some(self.progress.load(Ordering::Relaxed)).filter(|offset| *offset >= 0)
    }

    /// The offset in its inbox up to which it has carried out what is there; none before it has read its progress.
    pub(crate) fn inbox(&self) -> Option<i64> {
        Some(self.inbox.load(Ordering::Relaxed)).filter(|offset| *offset >= 0)
    }

    /// Where the log ended when last looked at.
    pub(crate) fn end(&self) -> Option<i64> {
        Some(self.end.load(Ordering::Relaxed)).filter(|offset| *offset >= 0)
    }

    /// How often it was fenced.
    pub(crate) fn fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }
}

/// A projection's figures.
#[derive(Debug, Default)]
pub(crate) struct ProjectionStatus {
    lanes: Mutex<BTreeMap<LaneAt, (LaneId, Arc<LaneStatus>)>>,
    assigned: AtomicBool,
    trouble: Mutex<Option<String>>,
    stopped: Mutex<Option<String>>,
    halted: Mutex<Option<Stillstand>>,
    pub(crate) counts: Counts,
}

/// Totals of a run.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) set_aside: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// That a projection stands still until somebody resumes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stillstand {
    /// Why, as metrics name it.
    pub cause: HaltCause,
    /// Why in words, and the command to go on with.
    pub text: String,
}

/// One moment of a projection's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSnapshot {
    /// The group has given it partitions at least once since it joined.
    pub assigned: bool,
    /// What the consumer complains about, if it does.
    pub trouble: Option<String>,
    /// Why it failed, if it did: in this process alone, until it is resumed or the process is started anew.
    pub stopped: Option<String>,
    /// That it is halted, in every process.
    pub halted: Option<Stillstand>,
    /// Its lanes, each with what it does.
    pub lanes: Vec<LaneSnapshot>,
}

/// One moment of a lane's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// The lane.
    pub lane: LaneId,
    /// What it is doing.
    pub state: LaneState,
    /// Its partition is paused because it stays full.
    pub paused: bool,
    /// The next offset it will take.
    pub progress: Option<i64>,
    /// Where the log ended when last looked at.
    pub end: Option<i64>,
    /// How often it was fenced.
    pub fenced: u64,
}

impl LaneSnapshot {
    /// Offsets between progress and the log's end; never negative.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        Some((self.end? - self.progress?).max(0))
    }
}

impl StatusSnapshot {
    /// Runs, as far as it is this process's part: nothing stopped for good. A projection that is halted waits for a person,
    /// whatever process runs it.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.stopped.is_none() || self.halted.is_some()
    }

    /// Has its partitions, and every lane knows its place and waits for nothing.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.healthy()
            && self.halted.is_none()
            && self.assigned
            && self.lanes.iter().all(|lane| lane.state == LaneState::Running)
    }
}

/// Most lanes that an answer names: one is mostly enough to know what is down.
const LANES_NAMED_MAX: usize = 3;

impl StatusSnapshot {
    /// Why it is not ready, in words for whoever asks the probe; none if it is.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        if self.ready() {
            return None;
        }
        if let Some(halted) = &self.halted {
            return Some(halted.text.clone());
        }
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend(self.stopped.as_ref().map(|why| format!("stopped for good: {why}")));
        if !self.assigned {
            reasons.push("has no partitions yet".to_owned());
        }
        reasons.extend(self.trouble.clone());
        let mut waiting = self.lanes.iter().filter_map(|lane| {
            let what = match &lane.state {
                LaneState::Running => return None,
                LaneState::Starting => "looks for its start",
                LaneState::Parked => "waits to be assigned anew",
                LaneState::Waiting(why) | LaneState::Stopped(why) => why,
            };
            Some(format!("{}/{}: {what}", lane.lane.topic, lane.lane.partition))
        });
        reasons.extend(waiting.by_ref().take(LANES_NAMED_MAX));
        let more = waiting.count();
        if more > 0 {
            reasons.push(format!("{more} more lanes"));
        }
        Some(reasons.join("; "))
    }
}

impl ProjectionStatus {
    fn lanes(&self) -> MutexGuard<'_, BTreeMap<LaneAt, (LaneId, Arc<LaneStatus>)>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lane_joined(&self, at: LaneAt, lane: &LaneId) -> Arc<LaneStatus> {
        let status = Arc::new(LaneStatus::new());
        self.lanes().insert(at, (lane.clone(), Arc::clone(&status)));
        status
    }

    /// The lanes that this member has.
    pub(crate) fn assigned_lanes(&self) -> Vec<LaneAt> {
        self.lanes().keys().copied().collect()
    }

    pub(crate) fn lane_left(&self, at: LaneAt) {
        self.lanes().remove(&at);
    }

    pub(crate) fn lane_paused(&self, at: LaneAt, paused: bool) {
        if let Some((_, lane)) = self.lanes().get(&at) {
            lane.paused.store(paused, Ordering::Relaxed);
        }
    }

    pub(crate) fn lane(&self, at: LaneAt) -> Option<Arc<LaneStatus>> {
        self.lanes().get(&at).map(|(_, lane)| Arc::clone(lane))
    }

    pub(crate) fn assigned(&self) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    /// It is no member any more.
    pub(crate) fn membership_lost(&self) {
        self.assigned.store(false, Ordering::Relaxed);
    }

    pub(crate) fn was_assigned(&self) -> bool {
        self.assigned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The first reason stays.
    pub(crate) fn set_stopped(&self, why: &str) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }

    pub(crate) fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is halted; whether that was not known before.
    pub(crate) fn set_halted(&self, cause: HaltCause, text: &str) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Some(Stillstand { cause, text: text.to_owned() });
        let changed = *halted != now;
        *halted = now;
        changed
    }

    /// It runs from the beginning: what an earlier attempt said does not count any more.
    pub(crate) fn begin_anew(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.halted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.set_trouble(None);
        self.membership_lost();
    }

    /// This moment.
    pub(crate) fn snapshot(&self) -> StatusSnapshot {
        let snapshot = |(lane, status): &(LaneId, Arc<LaneStatus>)| LaneSnapshot {
            lane: lane.clone(),
            state: status.state(),
            paused: status.paused.load(Ordering::Relaxed),
            progress: status.progress(),
            end: status.end(),
            fenced: status.fenced(),
        };
        let lanes = self.lanes().values().map(snapshot).collect();
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StatusSnapshot { assigned: self.was_assigned(), trouble, stopped: self.stopped(), halted, lanes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(partition: i32, state: LaneState) -> LaneSnapshot {
        let lane = LaneId { projection: "p".into(), version: 1, topic: "x-robot".into(), partition };
        LaneSnapshot { lane, state, paused: false, progress: None, end: None, fenced: 0 }
    }

    #[test]
    fn what_is_not_ready_says_which_lanes_wait_and_for_what() {
        let mut status = StatusSnapshot { assigned: true, ..StatusSnapshot::default() };
        status.lanes = vec![lane(0, LaneState::Running)];
        assert_eq!(status.not_ready(), None);
        let waiting = || LaneState::Waiting("writing: redis at r:6379 refused the connection".into());
        status.lanes.extend((1..6).map(|partition| lane(partition, waiting())));
        let why = status.not_ready().unwrap_or_default();
        assert!(
            why.starts_with("x-robot/1: writing: redis at r:6379 refused the connection; x-robot/2: "),
            "{why}"
        );
        assert!(why.ends_with("; 2 more lanes"), "{why}");
        status = StatusSnapshot { trouble: Some("all brokers are down".into()), ..StatusSnapshot::default() };
        assert_eq!(status.not_ready().as_deref(), Some("has no partitions yet; all brokers are down"));
    }
}
