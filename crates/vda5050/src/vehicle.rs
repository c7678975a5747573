//! What is remembered of a vehicle.

use std::collections::BTreeMap;

use fleetlog_event::{
    EventMeta,
    robot::{Load, OperatingMode, Registered, SafetyChanged},
};
use serde_json::Value;

use crate::{connection::ConnectionState, orders::Orders};

/// What is remembered of a vehicle: only what the next message is compared with.
#[derive(Debug, Default)]
pub(crate) struct Vehicle {
    pub(crate) clock: Clock,
    pub(crate) state_counter: Counter,
    pub(crate) visualization_counter: Counter,
    pub(crate) connection_counter: Counter,
    pub(crate) connection: Option<ConnectionState>,
    pub(crate) mode: Option<OperatingMode>,
    pub(crate) safety: Option<SafetyChanged>,
    pub(crate) loads: Option<Vec<Load>>,
    /// The faults that hold: id → type.
    pub(crate) faults: BTreeMap<String, String>,
    pub(crate) registered: Option<Registered>,
    pub(crate) orders: Orders,
}

/// The vehicle's own clock, beside the recorder's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// What the vehicle wrote last, and when that arrived; both in milliseconds since 1970.
    last: Option<(i64, i64)>,
}

impl Clock {
    /// Notes that a message with this device time arrived.
    pub(crate) fn seen(&mut self, device_ms: i64, arrived_ms: i64) {
        self.last = Some((device_ms, arrived_ms));
    }

    /// What the vehicle's clock would have said at an arrival: for messages that carry no time, or a stale one. Never
    /// before what the vehicle itself said last; the time of arrival where the vehicle has said nothing yet.
    pub(crate) fn arrival_ms(self, arrived_ms: i64) -> i64 {
        self.last.map_or(arrived_ms, |(device_ms, then_ms)| {
            device_ms.saturating_add(arrived_ms.saturating_sub(then_ms).max(0))
        })
    }

    /// The device time last seen, in milliseconds since 1970.
    pub(crate) fn last_ms(self) -> Option<i64> {
        self.last.map(|(device_ms, _)| device_ms)
    }
}

/// One of a vehicle's `headerId` counters. It begins a new incarnation where it goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    previous: Option<i64>,
    incarnation: u64,
}

impl Counter {
    /// Writes the message's `headerId` into an event's head. Within one incarnation (`sequence_scope`) the counter
    /// never falls, so that gaps, repeats and resets can be counted over the events alone. A `headerId` that is no
    /// whole number does not count.
    pub(crate) fn count(&mut self, channel: &str, body: &Value, meta: &mut EventMeta) {
        let Some(header_id) = body.get("headerId").and_then(Value::as_i64) else { return };
        if self.previous.is_some_and(|previous| header_id < previous) {
            self.incarnation += 1;
        }
        self.previous = Some(header_id);
        meta.sequence = Some(header_id);
        meta.sequence_scope = Some(format!("{channel}#{}", self.incarnation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_told_by_the_vehicles_clock_and_never_goes_back() {
        let mut clock = Clock::default();
        assert_eq!(clock.arrival_ms(100_000), 100_000);
        clock.seen(58_000, 100_000);
        assert_eq!(clock.arrival_ms(101_500), 59_500);
        assert_eq!(clock.arrival_ms(99_000), 58_000);
        clock.seen(i64::MAX, i64::MIN);
        assert_eq!(clock.arrival_ms(i64::MAX), i64::MAX);
    }
}
