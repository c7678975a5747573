//! Following one field of one entity through its events. Pure.

use std::collections::VecDeque;

use fleetlog_event::{EntityKey, EventId, EventSet, Recorded, Reject, TimestampMs};
use fleetlog_projection::FoldProjector;

/// An event that changed the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The partition of the entity's topic.
    pub partition: i32,
    /// The event's offset.
    pub offset: i64,
    /// The event's type, such as `fleetlog.robot.Connected`.
    pub event_type: &'static str,
    /// The event's identity.
    pub event_id: EventId,
    /// Time at the source, by its own clock.
    pub occurred_at: TimestampMs,
    /// When fleetlog took it in.
    pub recorded_at: TimestampMs,
    /// Which service or bridge made it, with its version.
    pub source: String,
    /// The site that it names.
    pub site_uid: String,
    /// The unit that it names.
    pub unit_uid: Option<String>,
    /// The business process it belongs to.
    pub correlation_id: Option<EventId>,
    /// The event that caused it.
    pub causation_id: Option<EventId>,
    /// The value before; none if the field was absent.
    pub before: Option<String>,
    /// Whether the value before is known. Not, where what was read does not begin with the entity's first event.
    pub before_is_told: bool,
    /// The value since; none if the event took the field away.
    pub value: Option<String>,
}

/// The fold of one entity, with a look at one field after each event.
pub(super) struct Trace<'a, P: FoldProjector, V> {
    projector: &'a P,
    /// Reads the field out of a state.
    value_of: V,
    key: &'a EntityKey,
    /// Whether the first event taken is the entity's first.
    from_its_beginning: bool,
    changes_max: usize,
    pub(super) state: P::State,
    pub(super) value: Option<String>,
    /// One past the last event taken; none before the first.
    pub(super) next: Option<i64>,
    pub(super) events: u64,
    pub(super) changes: VecDeque<Change>,
    pub(super) changes_total: u64,
}

impl<'a, P, V> Trace<'a, P, V>
where
    P: FoldProjector,
    V: FnMut(&EntityKey, &P::State) -> Option<String>,
{
    /// Begins before the entity's first event, or (`from_its_beginning` false) before some other one. Keeps the last
    /// `changes_max` changes.
    pub(super) fn new(
        projector: &'a P,
        key: &'a EntityKey,
        from_its_beginning: bool,
        changes_max: usize,
        value_of: V,
    ) -> Self {
        Self {
            projector,
            value_of,
            key,
            from_its_beginning,
            changes_max,
            state: P::State::default(),
            value: None,
            next: None,
            events: 0,
            changes: VecDeque::new(),
            changes_total: 0,
        }
    }

    /// Takes an event, on a copy: a rejected one leaves no trace.
    pub(super) fn take(&mut self, event: &Recorded<P::Event>) -> Result<(), Reject> {
        let mut state = self.state.clone();
        self.projector.apply(&mut state, event)?;
        self.state = state;
        self.events += 1;
        self.next = Some(event.position.offset + 1);
        let value = (self.value_of)(self.key, &self.state);
        if value != self.value {
            // Seen in an earlier event of what was read, or certainly absent before it.
            let before_is_told = self.from_its_beginning || self.value.is_some() || self.changes_total > 0;
            let before = std::mem::replace(&mut self.value, value.clone());
            self.keep(change(event, before, before_is_told, value));
        }
        Ok(())
    }

    fn keep(&mut self, change: Change) {
        self.changes_total += 1;
        if self.changes.len() == self.changes_max {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }
}

fn change<S: EventSet>(
    event: &Recorded<S>,
    before: Option<String>,
    before_is_told: bool,
    value: Option<String>,
) -> Change {
    let meta = event.event.meta();
    Change {
        partition: event.position.partition,
        offset: event.position.offset,
        event_type: event.event.event_type().name,
        event_id: meta.event_id,
        occurred_at: meta.occurred_at,
        recorded_at: event.recorded_at,
        source: meta.source.clone(),
        site_uid: meta.site_uid.clone(),
        unit_uid: meta.unit_uid.clone(),
        correlation_id: meta.correlation_id,
        causation_id: meta.causation_id,
        before,
        before_is_told,
        value,
    }
}
