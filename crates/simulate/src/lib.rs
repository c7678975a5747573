//! A deterministic fleet to size things with.
//!
//! [`Fleet`] is a set of robots on several sites: they drive, charge, work on tasks, have faults, are stopped, lose
//! their connection and restart. It is pure: the same units, seed and start give the same events, byte for byte, on
//! every platform (the generator of random numbers is its own). Every event is valid, the events of a task are a legal
//! life, and counters, connections and faults are consistent, so that projections of them can be checked.
//!
//! The time is that of the simulation: every unit speaks once a second. A caller that sends at another rate puts its own
//! times into the heads (`event.meta_mut()`); at any rate `recorded_at` is the caller's to fill in.

mod random;
mod task;
mod unit;

use std::collections::VecDeque;

use fleetlog_event::{EventId, EventMeta, FleetEvent, TimestampMs};
use uuid::Builder;

use random::{Random, mix};
use unit::Unit;

/// Units of a site, so that a fleet of hundreds has several.
pub const UNITS_PER_SITE: u32 = 50;

/// How long a unit is silent between two measurements, in milliseconds.
pub const TICK_MS: i64 = 1000;

/// Who made the events: stands in `meta.source`.
const SOURCE: &str = concat!("fleetlog-simulate/", env!("CARGO_PKG_VERSION"));

/// A fleet that goes on for ever: an iterator over (time in milliseconds since 1970, event), in the order of time.
#[derive(Debug)]
pub struct Fleet {
    units: Vec<Unit>,
    /// Who speaks next.
    next_unit: usize,
    /// How often the whole fleet has spoken.
    round: i64,
    start_ms: i64,
    pending: VecDeque<(i64, FleetEvent)>,
    run: u64,
    events_made: u64,
}

impl Fleet {
    /// A fleet of `units` robots, at least one, that begins at `start_ms` (milliseconds since 1970).
    ///
    /// The robots are the same for every seed and start (`s501.u1010000000` and so on). What happens to them depends on
    /// the seed only; the ids of tasks and events depend on seed and start, so that a fleet started again later makes new
    /// ones.
    #[must_use]
    pub fn new(units: u32, seed: u64, start_ms: i64) -> Self {
        let units: Vec<Unit> = (0..units.max(1)).map(|number| Unit::new(number, seed)).collect();
        let run = mix(seed ^ mix(start_ms.cast_unsigned()));
        Self { units, next_unit: 0, round: 0, start_ms, pending: VecDeque::new(), run, events_made: 0 }
    }

    /// The next event, and when it happened. `occurred_at` and `recorded_at` are both that time.
    pub fn next_event(&mut self) -> (i64, FleetEvent) {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            self.tick();
        }
    }

    /// One unit's second. The units speak one after the other, evenly spread over the second.
    fn tick(&mut self) {
        let units = i64::try_from(self.units.len()).unwrap_or(i64::MAX);
        let number = i64::try_from(self.next_unit).unwrap_or(i64::MAX);
        let at_ms = self.start_ms.saturating_add(self.round * TICK_MS + number * TICK_MS / units);
        let mut out =
            Out { run: self.run, events_made: &mut self.events_made, at_ms, events: &mut self.pending };
        self.units[self.next_unit].tick(self.round, &mut out);
        self.next_unit += 1;
        if self.next_unit == self.units.len() {
            self.next_unit = 0;
            self.round += 1;
        }
    }
}

impl Iterator for Fleet {
    type Item = (i64, FleetEvent);

    /// Never none.
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_event())
    }
}

/// Where a unit puts its events.
struct Out<'a> {
    run: u64,
    events_made: &'a mut u64,
    at_ms: i64,
    events: &'a mut VecDeque<(i64, FleetEvent)>,
}

impl Out<'_> {
    /// The head of the next event. Its id is made of the run and of how many events came before it.
    fn meta(&mut self, site_uid: &str, unit_uid: &str) -> EventMeta {
        let mut random = Random::new(self.run ^ mix(*self.events_made));
        *self.events_made += 1;
        let bytes = ((u128::from(random.next()) << 64) | u128::from(random.next())).to_be_bytes();
        EventMeta {
            event_id: EventId(Builder::from_custom_bytes(bytes).into_uuid()),
            occurred_at: TimestampMs(self.at_ms),
            recorded_at: TimestampMs(self.at_ms),
            site_uid: site_uid.to_owned(),
            unit_uid: Some(unit_uid.to_owned()),
            sequence: None,
            sequence_scope: None,
            source: SOURCE.to_owned(),
            correlation_id: None,
            causation_id: None,
        }
    }

    fn robot(&mut self, event: impl Into<fleetlog_event::robot::RobotEvent>) {
        self.events.push_back((self.at_ms, FleetEvent::Robot(event.into())));
    }

    fn task(&mut self, event: impl Into<fleetlog_event::task::TaskEvent>) {
        self.events.push_back((self.at_ms, FleetEvent::Task(event.into())));
    }

    fn telemetry(&mut self, event: impl Into<fleetlog_event::telemetry::TelemetryEvent>) {
        self.events.push_back((self.at_ms, FleetEvent::Telemetry(event.into())));
    }
}
