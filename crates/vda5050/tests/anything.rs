//! Whatever arrives: no panic, and only events that are valid.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{TAKEN_IN, Vehicle};
use fleetlog_event::EventSet;
use fleetlog_vda5050::{Mapper, Outcome, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

fn check(outcome: &Outcome) {
    for event in &outcome.events {
        event.validate().unwrap();
    }
    assert!(outcome.events.is_empty() || matches!(outcome.verdict, Verdict::Mapped | Verdict::RetainedNews));
}

/// Small values of every type, among them those that mean something.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "0",
            "O1",
            "O2",
            "a1",
            "a2",
            "order",
            "cancelOrder",
            "FINISHED",
            "RUNNING",
            "WAITING",
            "FAILED",
            "ONLINE",
            "CONNECTIONBROKEN",
            "2026-11-21T09:04:16.2Z",
            "9999-12-31T23:59:59Z",
            "-009999-01-01T00:00:00Z",
            "orderError",
            "topic",
            "orderId",
            "orderUpdateId",
            "actionId",
            "ENABLED",
            "RETRIABLE",
            "CONNECTION_BROKEN",
            "4.0.0",
        ])
        .prop_map(Value::from),
        ".{0,600}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let fields = prop::sample::select(FIELDS.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((fields, inner), 0..8)
                .prop_map(|pairs| json!(pairs.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

const FIELDS: &[&str] = &[
    "headerId",
    "timestamp",
    "version",
    "connectionState",
    "orderId",
    "orderUpdateId",
    "nodes",
    "edges",
    "nodeId",
    "edgeId",
    "sequenceId",
    "actions",
    "actionId",
    "actionType",
    "actionStatus",
    "actionStates",
    "instantActions",
    "actionParameters",
    "key",
    "value",
    "lastNodeId",
    "lastNodeSequenceId",
    "nodeStates",
    "edgeStates",
    "driving",
    "paused",
    "operatingMode",
    "agvPosition",
    "x",
    "y",
    "theta",
    "mapId",
    "velocity",
    "vx",
    "vy",
    "loads",
    "loadId",
    "weight",
    "batteryState",
    "batteryCharge",
    "charging",
    "errors",
    "errorType",
    "errorLevel",
    "errorDescription",
    "errorReferences",
    "referenceKey",
    "referenceValue",
    "safetyState",
    "eStop",
    "fieldViolation",
    "typeSpecification",
    "seriesName",
    "physicalParameters",
    "protocolLimits",
    "maximumArrayLengths",
    "mobileRobotConfiguration",
    "batteryCharging",
    "versions",
    "loadSpecification",
    "loadSets",
    "maximumWeight",
    "protocolFeatures",
    "mobileRobotActions",
    "loadDimensions",
    "length",
    "information",
    "infoType",
    "infoDescriptor",
    "newBaseRequest",
    "zoneSetId",
    "zoneSets",
    "zoneSetStatus",
    "zoneRequests",
    "mobileRobotPosition",
    "localized",
    "powerSupply",
    "stateOfCharge",
    "instantActionStates",
];

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "state",
        "visualization",
        "connection",
        "order",
        "instantActions",
        "factsheet",
        "zoneSet",
        "responses",
    ])
}

fn message() -> impl Strategy<Value = (&'static str, bool, Value)> {
    let body =
        prop::collection::vec((prop::sample::select(FIELDS.to_vec()), value()), 0..14).prop_map(|fields| {
            json!(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<serde_json::Map<_, _>>())
        });
    (kind(), any::<bool>(), body)
}

proptest! {
    #[test]
    fn any_bytes_are_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200), number: u64) {
        check(&Mapper::new("any").raw_line(&bytes, number, TAKEN_IN));
    }

    #[test]
    fn any_topic_and_payload_are_a_message(topic in ".{0,60}", payload in ".{0,60}", retain: bool) {
        let mut vehicle = Vehicle::new();
        check(&vehicle.line(&topic, retain, &payload));
        check(&vehicle.line(&format!("a/{}/c/d/state", topic.replace('/', "")), retain, &payload));
    }

    #[test]
    fn any_json_is_mapped_to_valid_events(messages in prop::collection::vec(message(), 1..12)) {
        let mut vehicle = Vehicle::new();
        for (kind, retain, body) in messages {
            check(&vehicle.raw(kind, retain, &body.to_string()));
        }
    }
}
