//! The mapper: from a message to its vehicle and its kind.

use std::collections::HashMap;

use fleetlog_event::TimestampMs;
use serde_json::Value;

use crate::{
    DeadReason, Line, MessageKind, Outcome, Verdict, connection, emit::Emit, factsheet, instant_actions,
    outcome::Dead, state, telemetry, time::timestamp_ms, topic::Address, vehicle::Vehicle, version,
};

/// Maps VDA 5050 messages to events, one by one, in the order of their arrival.
#[derive(Debug)]
pub struct Mapper {
    source_digest: String,
    /// By `<interface>/<manufacturer>/<serial number>`: vehicles are never forgotten, their orders are.
    vehicles: HashMap<String, Vehicle>,
}

/// What a kind's own code answers: the verdict for a live message.
pub(crate) type Mapped = Result<Verdict, Dead>;

impl Mapper {
    /// A mapper for one source. `source_digest` identifies it (such as the digest of the recording) and goes, with the
    /// line number, into every event's id: the same recording imported twice gives the same ids.
    #[must_use]
    pub fn new(source_digest: impl Into<String>) -> Self {
        Self { source_digest: source_digest.into(), vehicles: HashMap::new() }
    }

    /// Maps a line of a recording that is not yet known to be one; one that is not is dead.
    pub fn raw_line(&mut self, bytes: &[u8], line_number: u64, recorded_at: TimestampMs) -> Outcome {
        match Line::parse(bytes) {
            Ok(line) => self.line(&line, line_number, recorded_at),
            Err(error) => dead(MessageKind::Other, (DeadReason::BadLine, error.to_string())),
        }
    }

    /// Maps one message. `line_number` counts from 1; `recorded_at` is when fleetlog takes it in: it stands in the
    /// events and nothing else depends on it.
    pub fn line(&mut self, line: &Line, line_number: u64, recorded_at: TimestampMs) -> Outcome {
        let address = match Address::parse(&line.topic) {
            Ok(address) => address,
            Err(why) => return dead(MessageKind::Other, why),
        };
        let kind = address.kind;
        let plain = |verdict| Outcome { kind, events: Vec::new(), verdict, omitted: Vec::new() };
        if line.payload.is_empty() {
            return plain(Verdict::Deleted);
        }
        let body = match parse(&line.payload) {
            Ok(body) => body,
            Err(why) => return dead(kind, why),
        };
        if let Err(why) = version::check(&address, &body).and_then(|()| has_events(kind)) {
            return dead(kind, why);
        }
        match (kind, line.retain) {
            (MessageKind::Connection | MessageKind::Factsheet, _) | (_, false) => {
                let position = format!("{}:{line_number}", self.source_digest);
                self.map(&address, line, &body, position, recorded_at)
            }
            (_, true) => plain(Verdict::RetainedReplay),
        }
    }

    fn map(
        &mut self,
        address: &Address<'_>,
        line: &Line,
        body: &Value,
        position: String,
        recorded_at: TimestampMs,
    ) -> Outcome {
        let key = format!("{}/{}", address.interface, address.unit_uid());
        let vehicle = self.vehicles.entry(key).or_default();
        let mut emit = Emit {
            position,
            site_uid: address.interface,
            unit_uid: address.unit_uid(),
            recorded_at,
            occurred_at: TimestampMs(
                timestamp_ms(body).unwrap_or_else(|| vehicle.clock.arrival_ms(line.ts_ms)),
            ),
            events: Vec::new(),
            omitted: Vec::new(),
        };
        let mapped = match address.kind {
            MessageKind::State => state::map(vehicle, body, line.ts_ms, &mut emit),
            MessageKind::Visualization => telemetry::map_visualization(vehicle, body, line.ts_ms, &mut emit),
            MessageKind::Connection => connection::map(vehicle, address, body, line, &mut emit),
            MessageKind::Factsheet => factsheet::map(vehicle, address, body, line.retain, &mut emit),
            MessageKind::Order => vehicle.orders.on_order(body, &mut emit),
            MessageKind::InstantActions => instant_actions::map(vehicle, body, &mut emit),
            MessageKind::ZoneSet | MessageKind::Responses | MessageKind::Other => {
                has_events(address.kind).map(|()| Verdict::NoChange)
            }
        };
        match mapped {
            Ok(verdict) => {
                Outcome { kind: address.kind, events: emit.events, verdict, omitted: emit.omitted }
            }
            Err(why) => dead(address.kind, why),
        }
    }
}

fn parse(payload: &str) -> Result<Value, Dead> {
    let body: Value = serde_json::from_str(payload)
        .map_err(|error| (DeadReason::NotJson, format!("the payload is no JSON: {error}")))?;
    if body.is_object() {
        return Ok(body);
    }
    Err((DeadReason::NotAnObject, "the payload is JSON, but no object".to_owned()))
}

/// Some kinds are understood, and are no news of a unit or task: a map of zones, a permission.
fn has_events(kind: MessageKind) -> Result<(), Dead> {
    let what = match kind {
        MessageKind::ZoneSet => "zones for a vehicle",
        MessageKind::Responses => "answers to a vehicle's requests",
        _ => return Ok(()),
    };
    Err((DeadReason::NoEvent, format!("`{kind}` carries {what}, which no event says")))
}

fn dead(kind: MessageKind, (reason, detail): Dead) -> Outcome {
    Outcome { kind, events: Vec::new(), verdict: Verdict::Dead { reason, detail }, omitted: Vec::new() }
}
