//! What an author of a handler writes.

use std::time::Duration;

use fleetlog_event::{EventId, EventSet, Recorded, Reject, TimestampMs};

/// A consumer with effects outside the sinks. It is called at least once for each event: [`Call::idempotence_key`] is the same
/// each time.
pub trait Handler: Send + Sync + 'static {
    /// The events that it is called for.
    type Event: EventSet;

    /// Names its consumer group and retry topics: lower-case letters, digits and hyphens.
    fn id(&self) -> &str;

    /// Whether an event concerns it at all. One that does not is done without a call, and does not wait for an endpoint that is
    /// down.
    fn wants(&self, event: &Self::Event) -> bool {
        let _ = event;
        true
    }

    /// Does what is to be done about an event. Dropped when the time for a call is up: that counts as a failure.
    ///
    /// # Errors
    /// What to do about the event instead of going on: see [`HandlerError`]. A panic is a bug, and stops the handler.
    fn handle(&self, call: &Call<Self::Event>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// One call about one event.
#[derive(Clone, Debug)]
pub struct Call<E> {
    /// The event, with where it lies in the log: there also where it comes back from a retry topic or a redrive.
    pub event: Recorded<E>,
    /// Which call it is: 1 for the first. Calls that were cut short by an endpoint going down are not counted.
    pub attempt: u32,
    /// When the first call failed; none before.
    pub first_failed_at: Option<TimestampMs>,
    /// An operator sent it back from the dead letters.
    pub is_redrive: bool,
    /// The offset of the newest event of the same key that this process has seen: that of the event itself or a later one.
    pub newest_offset: i64,
    /// The trace that the event is part of, to be passed on: its record's header `traceparent` where that is well-formed (W3C Trace
    /// Context, section 3.2).
    pub traceparent: Option<String>,
}

impl<E: EventSet> Call<E> {
    /// What whoever is called can tell repeated calls by: the event's id.
    #[must_use]
    pub fn idempotence_key(&self) -> EventId {
        self.event.event.meta().event_id
    }

    /// A later event of the same key was seen: a handler that tells the newest state can drop this one.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.newest_offset > self.event.position.offset
    }
}

/// Why an event is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// It may work later: the next retry tier, then the dead letters.
    #[error("{0}")]
    Retry(String),
    /// As `Retry`, but no sooner than whoever was called asked for.
    #[error("{detail} (asked for {} s)", .after.as_secs())]
    RetryAfter {
        /// How long to wait at least.
        after: Duration,
        /// What failed.
        detail: String,
    },
    /// Nothing failed, and nothing is to be done yet: it is called for again once so long has passed, however often. That uses
    /// up none of its calls, and the circuit takes it for an answer. Needs a retry tier to wait in.
    #[error("not before {} ms: {why}", .after.as_millis())]
    NotYet {
        /// How long to wait at least; as long as the longest tier or longer goes round.
        after: Duration,
        /// What it waits for.
        why: String,
    },
    /// It will never work for this event: a dead letter at once. The circuit does not count it.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// It will work for no event before a person has mended something: the handler stops, and the event stays where it is.
    #[error("{0}")]
    Stop(String),
}
