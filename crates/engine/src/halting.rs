//! What a projection knows of its own halts: that a breaker tripped, and how much an operator lets pass.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use fleetlog_event::{
    EventId, EventMeta,
    ops::{HaltCause, ProjectionHalted},
};
use fleetlog_projection::{LaneId, SetAside};

use crate::{
    EngineConfig,
    lane::{Breaker, Limits, Trip, now},
};

/// Longest text of why an event would be set aside, in characters; all of it is in the event.
const DETAIL_CHARS_MAX: usize = 300;

/// Shared by a projection's lanes.
#[derive(Debug, Default)]
pub(crate) struct Halting {
    tripped: Mutex<Option<ProjectionHalted>>,
    spare: AtomicU64,
}

impl Halting {
    /// Before lanes begin: nothing has tripped, and each may set `spare` events aside before its breaker counts.
    pub(crate) fn begin(&self, spare: u64) {
        self.take();
        self.spare.store(spare, Ordering::Relaxed);
    }

    /// The breaker of a lane that begins.
    pub(crate) fn breaker(&self, config: &EngineConfig) -> Breaker {
        let limits = Limits {
            in_a_row_max: config.set_aside_in_a_row_max,
            ratio_max: config.set_aside_ratio_max,
            ratio_events: config.set_aside_ratio_events,
        };
        Breaker::new(limits, self.spare.load(Ordering::Relaxed))
    }

    /// A breaker tripped. The first one stands for all of them.
    pub(crate) fn tripped(
        &self,
        config: &EngineConfig,
        group: &str,
        lane: &LaneId,
        trip: Trip,
        first: Option<&SetAside>,
    ) -> ProjectionHalted {
        let halt = ProjectionHalted {
            meta: meta(config),
            group: group.to_owned(),
            projection: lane.projection.clone(),
            version: i32::try_from(lane.version).unwrap_or(i32::MAX),
            why: cause(trip).as_str().to_owned(),
            who: config.instance.clone(),
            topic: Some(lane.topic.clone()),
            partition: Some(lane.partition),
            offset: first.map(|aside| aside.record.offset),
            detail: detail(config, lane, trip, first),
        };
        self.tripped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(halt).clone()
    }

    /// What has tripped, told once.
    pub(crate) fn take(&self) -> Option<ProjectionHalted> {
        self.tripped.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn cause(trip: Trip) -> HaltCause {
    match trip {
        Trip::InARow(_) => HaltCause::SetAsidesInARow,
        Trip::Ratio { .. } => HaltCause::SetAsideRatio,
    }
}

fn detail(config: &EngineConfig, lane: &LaneId, trip: Trip, first: Option<&SetAside>) -> String {
    let what = match trip {
        Trip::InARow(events) => format!(
            "{events} events in a row would be set aside and not one taken (at most {})",
            config.set_aside_in_a_row_max
        ),
        Trip::Ratio { set_aside, of } => format!(
            "{set_aside} of the last {of} events would be set aside (at most a part of {})",
            config.set_aside_ratio_max
        ),
    };
    let such_as = first.map(|aside| {
        let why: String = aside.reject.to_string().chars().take(DETAIL_CHARS_MAX).collect();
        format!(", such as {}/{}/{} ({why})", lane.topic, lane.partition, aside.record.offset)
    });
    format!(
        "lane {lane}: {what}{}; is the topic, the registry or the producers' version wrong? --set-asides-max N lets so \
         many pass",
        such_as.unwrap_or_default()
    )
}

fn meta(config: &EngineConfig) -> EventMeta {
    EventMeta::of_ops(EventId::now_v7(), format!("fleetlog-engine/{}", config.application_version), now())
}
