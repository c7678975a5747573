//! Collects the events of one message, each with its head.

use fleetlog_event::{Event, EventId, EventMeta, FleetEvent, Rule, TimestampMs};

/// Who made the events: stands in `meta.source`.
const SOURCE: &str = concat!("fleetlog-vda5050/", env!("CARGO_PKG_VERSION"));

/// The events of one message.
pub(crate) struct Emit<'a> {
    /// `<digest>:<line>`: what the events' ids are derived from.
    pub(crate) position: String,
    pub(crate) site_uid: &'a str,
    pub(crate) unit_uid: String,
    pub(crate) recorded_at: TimestampMs,
    /// When what the message tells of was so.
    pub(crate) occurred_at: TimestampMs,
    pub(crate) events: Vec<FleetEvent>,
    pub(crate) omitted: Vec<&'static str>,
}

impl Emit<'_> {
    /// The head of the next event: its id depends on the message's position and on how many came before it.
    pub(crate) fn meta(&self) -> EventMeta {
        let n = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        EventMeta {
            event_id: EventId::derived(&self.position, n),
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            site_uid: self.site_uid.to_owned(),
            unit_uid: Some(self.unit_uid.clone()),
            sequence: None,
            sequence_scope: None,
            source: SOURCE.to_owned(),
            correlation_id: None,
            causation_id: None,
        }
    }

    /// One more event; its head is from [`Self::meta`].
    pub(crate) fn robot(&mut self, event: impl Into<fleetlog_event::robot::RobotEvent>) {
        self.events.push(FleetEvent::Robot(event.into()));
    }

    /// One more event; its head is from [`Self::meta`].
    pub(crate) fn task(&mut self, event: impl Into<fleetlog_event::task::TaskEvent>) {
        self.events.push(FleetEvent::Task(event.into()));
    }

    /// `text` as an identifying text; notes `field` if it had to be shortened.
    pub(crate) fn fit(&mut self, field: &'static str, text: &str) -> String {
        let (text, shortened) = crate::json::fit(text);
        if shortened {
            self.omitted.push(field);
        }
        text
    }

    /// `value` if event `E` may carry it in `checked`; notes `field`, where it came from, if not.
    pub(crate) fn number<E: Event>(
        &mut self,
        checked: &str,
        field: &'static str,
        value: Option<f64>,
    ) -> Option<f64> {
        let value = value?;
        let rule = E::CHECKS.iter().find(|check| check.field == checked).map(|check| check.rule);
        let right = match rule {
            Some(Rule::Number { min, max }) => (min..=max).contains(&value),
            _ => value.is_finite(),
        };
        if !right {
            self.omitted.push(field);
        }
        right.then_some(value)
    }
}
