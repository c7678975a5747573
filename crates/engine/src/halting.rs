//! What a projection or handler knows of its own halts: that a breaker tripped, and how much an operator lets pass.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use fleetlog_event::{
    EventId, EventMeta, Reject,
    ops::{HaltCause, ProjectionHalted},
};

use crate::{
    EngineConfig,
    lane::{Breaker, Limits, Trip, now},
};

/// Longest text of why an event would be set aside, in characters; all of it is in the event.
const DETAIL_CHARS_MAX: usize = 300;

/// A breaker that tripped: whose, and where.
pub(crate) struct Tripped<'a> {
    pub(crate) group: &'a str,
    /// The projection or handler.
    pub(crate) id: &'a str,
    /// Of a projection; 1 of a handler, which has none.
    pub(crate) version: u32,
    /// Whose events were counted, in words.
    pub(crate) counted: String,
    pub(crate) trip: Trip,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    /// The first event that would have been set aside, and why.
    pub(crate) first: Option<(i64, &'a Reject)>,
    /// What may be wrong.
    pub(crate) hint: &'static str,
}

/// Shared by a projection's lanes; of a handler, its poll thread's.
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
    pub(crate) fn tripped(&self, config: &EngineConfig, found: &Tripped<'_>) -> ProjectionHalted {
        let halt = ProjectionHalted {
            meta: ops_meta(config),
            group: found.group.to_owned(),
            projection: found.id.to_owned(),
            version: i32::try_from(found.version).unwrap_or(i32::MAX),
            why: cause(found.trip).as_str().to_owned(),
            who: config.instance.clone(),
            topic: Some(found.topic.to_owned()),
            partition: Some(found.partition),
            offset: found.first.map(|(offset, _)| offset),
            detail: detail(config, found),
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

fn detail(config: &EngineConfig, found: &Tripped<'_>) -> String {
    let what = match found.trip {
        Trip::InARow(events) => format!(
            "{events} events in a row would be set aside and not one taken (at most {})",
            config.set_aside_in_a_row_max
        ),
        Trip::Ratio { set_aside, of } => format!(
            "{set_aside} of the last {of} events would be set aside (at most a part of {})",
            config.set_aside_ratio_max
        ),
    };
    let such_as = found.first.map(|(offset, reject)| {
        let why: String = reject.to_string().chars().take(DETAIL_CHARS_MAX).collect();
        format!(", such as {}/{}/{offset} ({why})", found.topic, found.partition)
    });
    format!(
        "{}: {what}{}; {} --set-asides-max N lets so many pass",
        found.counted,
        such_as.unwrap_or_default(),
        found.hint
    )
}

/// The head of what an engine writes on topic `ops`.
pub(crate) fn ops_meta(config: &EngineConfig) -> EventMeta {
    EventMeta::of_ops(EventId::now_v7(), format!("fleetlog-engine/{}", config.application_version), now())
}
