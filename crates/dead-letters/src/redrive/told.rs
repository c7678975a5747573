//! What a job says of itself, and how it is asked to end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fleetlog_event::ops::RedriveEnd;
use tokio::{sync::Notify, time::Instant};

use super::{LaneRef, Outcomes, Trouble};

/// Asks a job to end after the batch that is under way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_waiters();
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Returns once it was asked, or that moment has come.
    pub(super) async fn or_at(&self, moment: Instant) {
        let asked = self.0.1.notified();
        if !self.is_asked() {
            tokio::select! {
                () = asked => {}
                () = tokio::time::sleep_until(moment) => {}
            }
        }
    }
}

/// What a job tells while it is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// No process runs the projection: commands wait in its inbox.
    NobodyRuns {
        /// The group.
        group: &'a str,
    },
    /// Commands of an earlier job are not answered yet.
    Waits {
        /// Lanes that have some.
        lanes: usize,
    },
    /// A batch was answered.
    Batch {
        /// All that was answered so far.
        outcomes: Outcomes,
    },
}

/// How a job ended.
#[derive(Clone, Debug, Default)]
pub enum Ended {
    /// Everything was sent and answered.
    #[default]
    Done,
    /// The operator stopped it.
    Stopped,
    /// Too few of the first letters of a group were taken.
    Canary {
        /// The group.
        group: String,
        /// How many were taken.
        taken: u64,
        /// Of how many.
        of: u64,
    },
    /// Lanes did not answer.
    Stalled {
        /// The lanes.
        lanes: Vec<LaneRef>,
        /// Those of them that have yet to reach the positions that commands name.
        behind: usize,
        /// Groups of these lanes that no process runs.
        unmanned: Vec<String>,
        /// The commands are an earlier job's, and nothing new was sent.
        is_earlier: bool,
        /// What a server said meanwhile.
        trouble: Option<String>,
    },
    /// A server was away for too long, or another job took over.
    Failed(Trouble),
}

impl Ended {
    pub(super) fn written(&self) -> RedriveEnd {
        match self {
            Self::Done => RedriveEnd::Done,
            Self::Stopped => RedriveEnd::Stopped,
            Self::Canary { .. } => RedriveEnd::Canary,
            Self::Stalled { .. } => RedriveEnd::Stalled,
            Self::Failed(_) => RedriveEnd::Failed,
        }
    }
}

/// What a job did; by default nothing, which there was to do.
#[derive(Clone, Debug, Default)]
pub struct Redriven {
    /// What came of the letters that were sent, and of those that were found closed just before.
    pub outcomes: Outcomes,
    /// Why letters were rejected again.
    pub rejected_for: BTreeMap<String, u64>,
    /// Letters that retention took away before they could be sent.
    pub gone: u64,
    /// Letters that could not be emitted anew, by why.
    pub not_emitted: BTreeMap<String, u64>,
    /// Letters that an earlier job had redriven and not written down.
    pub written_down: u64,
    /// Letters that were not come to.
    pub left: u64,
    /// How it ended.
    pub ended: Ended,
}
