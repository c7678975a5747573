//! The recording, and messages made by hand.

#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "shared by tests that use a part of it"
)]

use std::{fs::File, io::BufRead, path::PathBuf};

use fleetlog_event::{EventSet, FleetEvent, TimestampMs};
use fleetlog_vda5050::{Line, Mapper, Outcome};
use serde_json::{Value, json};

/// When everything was taken in, in these tests.
pub const TAKEN_IN: TimestampMs = TimestampMs(1_800_000_000_000);

pub mod schema;

/// A file beside the recording.
pub fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "data", "vda5050", name].iter().collect()
}

/// The lines of the recording.
pub fn recording() -> Vec<String> {
    let file = File::open(data("A.jsonl.zst")).unwrap();
    let reader = std::io::BufReader::new(zstd::Decoder::new(file).unwrap());
    reader.lines().map(Result::unwrap).collect()
}

/// What was computed over the recording by a third party.
pub fn facts() -> Value {
    serde_json::from_reader(File::open(data("facts_A.json")).unwrap()).unwrap()
}

/// Maps lines of a recording.
pub fn map_all(lines: &[String]) -> Vec<Outcome> {
    let mut mapper = Mapper::new("recording-a");
    (1..).zip(lines).map(|(number, line)| mapper.raw_line(line.as_bytes(), number, TAKEN_IN)).collect()
}

/// A vehicle that is spoken for by hand, message by message, 100 ms apart.
pub struct Vehicle {
    pub mapper: Mapper,
    pub topic: String,
    pub ts_ms: i64,
    line_number: u64,
}

/// When the first message of a vehicle made by hand arrives: 2026-11-21T09:04:16.100Z.
pub const FIRST_MS: i64 = 1_795_251_856_100;

impl Vehicle {
    pub fn new() -> Self {
        Self {
            mapper: Mapper::new("by-hand"),
            topic: "werk1/v2/NordFTS/0001".to_owned(),
            ts_ms: FIRST_MS - 100,
            line_number: 0,
        }
    }

    /// A message of any bytes.
    pub fn raw(&mut self, kind: &str, retain: bool, payload: &str) -> Outcome {
        let topic = format!("{}/{kind}", self.topic);
        self.line(&topic, retain, payload)
    }

    pub fn line(&mut self, topic: &str, retain: bool, payload: &str) -> Outcome {
        self.ts_ms += 100;
        self.line_number += 1;
        let line =
            Line { ts_ms: self.ts_ms, topic: topic.to_owned(), qos: 0, retain, payload: payload.to_owned() };
        self.mapper.line(&line, self.line_number, TAKEN_IN)
    }

    /// A live message.
    pub fn live(&mut self, kind: &str, body: Value) -> Outcome {
        self.raw(kind, false, &body.to_string())
    }

    /// A replay.
    pub fn replay(&mut self, kind: &str, body: Value) -> Outcome {
        self.raw(kind, true, &body.to_string())
    }

    /// A state of an idle vehicle, changed by `changes`.
    pub fn state(&mut self, changes: Value) -> Outcome {
        let mut body = json!({
            "orderId": "", "orderUpdateId": 0, "lastNodeId": "N1", "lastNodeSequenceId": 0, "driving": false,
            "paused": false, "operatingMode": "AUTOMATIC", "nodeStates": [], "edgeStates": [], "actionStates": [],
            "batteryState": {"batteryCharge": 50.0, "charging": false}, "errors": [],
            "safetyState": {"eStop": "NONE", "fieldViolation": false},
        });
        for (field, value) in changes.as_object().unwrap() {
            if value.is_null() {
                body.as_object_mut().unwrap().remove(field);
            } else {
                body[field] = value.clone();
            }
        }
        self.live("state", body)
    }

    /// An order from node 0 to node 2, with a pick at its end.
    pub fn order(&mut self, order_id: &str, update_id: Value) -> Outcome {
        self.live("order", order(order_id, update_id))
    }
}

/// An order from node 0 to node 2, with a pick called `<order_id>-pick` at its end.
pub fn order(order_id: &str, update_id: Value) -> Value {
    json!({
        "orderId": order_id, "orderUpdateId": update_id,
        "nodes": [
            {"nodeId": "N1", "sequenceId": 0, "released": true, "actions": []},
            {"nodeId": "N2", "sequenceId": 2, "released": true,
             "actions": [{"actionId": format!("{order_id}-pick"), "actionType": "pick"}]},
        ],
        "edges": [{"edgeId": "N1_N2", "sequenceId": 1, "released": true, "actions": []}],
    })
}

/// The short names of an outcome's events.
pub fn names(outcome: &Outcome) -> Vec<&'static str> {
    outcome.events.iter().map(|event| event.event_type().short_name()).collect()
}

/// The short names of an outcome's events of one topic.
pub fn names_on(topic: &str, outcome: &Outcome) -> Vec<&'static str> {
    let on_topic = outcome.events.iter().filter(|event| event.event_type().topic == topic);
    on_topic.map(|event| event.event_type().short_name()).collect()
}

/// The first event of that name, as JSON.
pub fn event(name: &str, outcome: &Outcome) -> Value {
    let found = outcome.events.iter().find(|event| event.event_type().short_name() == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", names(outcome))).to_json().unwrap()
}

/// `<site>/<unit>` as the facts name a vehicle.
pub fn vehicle_of(event: &FleetEvent) -> String {
    let meta = event.meta();
    format!("{}/{}", meta.site_uid, meta.unit_uid.as_deref().unwrap())
}
