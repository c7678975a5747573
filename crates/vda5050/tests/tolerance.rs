//! The names of later versions, what is dead and what is forgotten.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Vehicle, event, names_on};
use fleetlog_vda5050::{DeadReason, MessageKind, Outcome, Verdict, unit_and_order_of};
use serde_json::json;

fn dead_reason(outcome: &Outcome) -> Option<DeadReason> {
    match &outcome.verdict {
        Verdict::Dead { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// The names of VDA 5050 3.0.
#[test]
fn version_3_is_read_by_its_own_names() {
    let mut vehicle = Vehicle::new();
    vehicle.order("O1", json!(0));
    vehicle.live("instantActions", json!({"actions": [{"actionId": "i1", "actionType": "cancelOrder"}]}));
    let state = vehicle.live("state", json!({
        "orderId": "O1", "orderUpdateId": 0, "operatingMode": "TEACH_IN", "mobileRobotPosition": {"x": 1.0, "y": 2.0},
        "powerSupply": {"stateOfCharge": 77.5, "charging": false},
        "safetyState": {"activeEmergencyStop": "REMOTE", "fieldViolation": false},
        "errors": [{"errorType": "x", "errorLevel": "URGENT"}],
        "actionStates": [{"actionId": "O1-pick", "actionStatus": "RETRIABLE"}],
        "instantActionStates": [{"actionId": "i1", "actionStatus": "FINISHED"}],
    }));
    let telemetry = event("Telemetry", &state);
    assert_eq!((&telemetry["x_m"], &telemetry["battery_percent"]), (&json!(1.0), &json!(77.5)));
    assert_eq!(event("ModeChanged", &state)["mode"], "teach_in");
    assert_eq!(event("SafetyChanged", &state)["emergency_stop"], "remote");
    assert_eq!(event("FaultRaised", &state)["level"], "urgent");
    assert_eq!(event("StepChanged", &state)["status"], "retriable");
    assert_eq!(names_on("task", &state), ["Assigned", "Started", "StepChanged", "Cancelled"]);
    for (state, reason) in [("CONNECTION_BROKEN", "broken"), ("HIBERNATING", "hibernating")] {
        let outcome = vehicle.live("connection", json!({"connectionState": state}));
        assert_eq!(event("Disconnected", &outcome)["reason"], reason);
    }
    for kind in ["zoneSet", "responses"] {
        for outcome in [vehicle.live(kind, json!({})), vehicle.replay(kind, json!({}))] {
            assert_eq!(dead_reason(&outcome), Some(DeadReason::NoEvent));
        }
    }
}

/// What goes to the dead letters, and nothing else.
#[test]
fn only_what_cannot_be_mapped_is_dead() {
    let mut vehicle = Vehicle::new();
    let long_id = "x".repeat(600);
    for (kind, payload, expected) in [
        ("state", "{", Some(DeadReason::NotJson)),
        ("state", "\u{c3}\u{1}noise", Some(DeadReason::NotJson)),
        ("state", "{\"headerId\": NaN}", Some(DeadReason::NotJson)),
        ("state", "[]", Some(DeadReason::NotAnObject)),
        ("state", "{}", Some(DeadReason::MissingField)),
        ("state", "{\"headerId\": 1}", None),
        ("visualization", "{\"version\": \"2.0.0\"}", Some(DeadReason::MissingField)),
        ("visualization", "{\"headerId\": 1}", None),
        ("connection", "{\"headerId\": 1}", Some(DeadReason::MissingField)),
        ("connection", "{\"connectionState\": \"MAYBE\"}", Some(DeadReason::UnknownValue)),
        ("order", "{\"orderUpdateId\": 0}", Some(DeadReason::MissingField)),
        ("order", "{\"orderId\": 17}", Some(DeadReason::MissingField)),
        ("order", &format!("{{\"orderId\": \"{long_id}\"}}"), Some(DeadReason::TooLong)),
        ("order", "{\"orderId\": \"17\"}", None),
        ("instantActions", "{}", Some(DeadReason::MissingField)),
        ("instantActions", "{\"actions\": [{\"actionId\": \"1\"}]}", Some(DeadReason::MissingField)),
        ("instantActions", "{\"actions\": []}", None),
        ("factsheet", "{}", None),
        ("elsewhere", "{}", Some(DeadReason::NotVdaTopic)),
        ("state", "{\"headerId\": 1, \"version\": \"4.0.0\"}", Some(DeadReason::UnknownVersion)),
        ("state", "{\"headerId\": 1, \"version\": \"3.7.1\"}", None),
        ("state", "{\"headerId\": 1, \"version\": \"vier\"}", None),
        ("zoneSet", "{\"version\": \"5\"}", Some(DeadReason::UnknownVersion)),
    ] {
        let outcome = vehicle.raw(kind, false, payload);
        assert_eq!(dead_reason(&outcome), expected, "{kind} {payload}: {:?}", outcome.verdict);
        assert!(expected.is_none() || outcome.events.is_empty());
    }
    let outcome = vehicle.mapper.raw_line(b"not even a line", 99, common::TAKEN_IN);
    assert_eq!((outcome.kind, dead_reason(&outcome)), (MessageKind::Other, Some(DeadReason::BadLine)));
}

#[test]
fn an_order_longest_not_heard_of_is_forgotten_first() {
    let mut vehicle = Vehicle::new();
    vehicle.order("first", json!(0));
    vehicle.state(json!({"orderId": "first", "driving": true}));
    for n in 0..=fleetlog_vda5050::ORDERS_MAX {
        vehicle.order(&format!("O{n}"), json!(0));
    }
    // The order under way is kept, whatever comes.
    let next = vehicle.state(json!({"orderId": format!("O{}", fleetlog_vda5050::ORDERS_MAX)}));
    assert_eq!(names_on("task", &next), ["Cancelled", "Assigned"]);
    assert_eq!(vehicle.order("O0", json!(0)).verdict, Verdict::Mapped, "forgotten");
    assert_eq!(vehicle.order("O9", json!(0)).verdict, Verdict::NoChange, "remembered");
    let task = event("Cancelled", &next)["task_id"].as_str().unwrap().to_owned();
    assert_eq!(unit_and_order_of(&task).unwrap().1, "first");
}

/// The documentation names the tests and the words that there are.
#[test]
fn the_documentation_says_what_there_is() {
    let docs = include_str!("../../../docs/vda5050.md");
    let things = include_str!("things.rs");
    let tests: Vec<&str> =
        things.lines().filter_map(|line| line.strip_prefix("fn thing_")?.split('(').next()).collect();
    for number in 1..=17 {
        assert!(
            tests.iter().any(|test| test.starts_with(&format!("{number:02}_"))),
            "thing {number} has no test"
        );
    }
    for test in tests {
        assert!(docs.contains(&format!("`thing_{test}`")), "docs/vda5050.md does not name thing_{test}");
    }
    let reasons = DeadReason::ALL.iter().map(|reason| reason.as_str());
    for word in Verdict::LABELS.into_iter().chain(reasons) {
        assert!(docs.contains(&format!("| `{word}` |")), "docs/vda5050.md does not explain {word}");
    }
}
