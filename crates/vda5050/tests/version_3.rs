//! Version 3.0: messages that the official schemas of 3.0.0 take, what becomes of each, and that the documentation speaks
//! of every field of those schemas.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{
    Vehicle, event, names,
    schema::{official, problems, resolved},
};
use fleetlog_vda5050::{DeadReason, Outcome, Verdict};
use serde_json::{Value, json};

const SAMPLES: [(&str, &str); 8] = [
    ("connection", include_str!("version_3/connection.json")),
    ("factsheet", include_str!("version_3/factsheet.json")),
    ("order", include_str!("version_3/order.json")),
    ("instantActions", include_str!("version_3/instantActions.json")),
    ("state", include_str!("version_3/state.json")),
    ("visualization", include_str!("version_3/visualization.json")),
    ("zoneSet", include_str!("version_3/zoneSet.json")),
    ("responses", include_str!("version_3/responses.json")),
];

fn sample(kind: &str) -> Value {
    let (_, text) = SAMPLES.iter().find(|(of, _)| *of == kind).unwrap();
    serde_json::from_str(text).unwrap()
}

fn vehicle() -> Vehicle {
    let mut vehicle = Vehicle::new();
    vehicle.topic = "werk1/v3/NordFTS/0001".to_owned();
    vehicle
}

/// What becomes of the samples, one after the other.
fn all() -> Vec<(&'static str, Outcome)> {
    let mut vehicle = vehicle();
    SAMPLES.iter().map(|(kind, _)| (*kind, vehicle.live(kind, sample(kind)))).collect()
}

fn outcome(kind: &str) -> Outcome {
    all().into_iter().find(|(of, _)| *of == kind).unwrap().1
}

#[test]
fn the_samples_are_as_the_official_schemas_want_them() {
    for (kind, _) in SAMPLES {
        let schema = official("3.0.0", kind);
        assert_eq!(problems(&schema, &sample(kind)), [""; 0], "{kind}");
        let mut wrong = sample(kind);
        wrong["headerId"] = json!("7");
        wrong.as_object_mut().unwrap().remove("timestamp");
        assert_eq!(problems(&schema, &wrong).len(), 2, "{kind}: a wrong message passes");
    }
    // What is conditional is checked too.
    let mut zones = sample("zoneSet");
    zones["zoneSet"]["zones"][1].as_object_mut().unwrap().remove("maximumSpeed");
    assert_eq!(problems(&official("3.0.0", "zoneSet"), &zones), ["/zoneSet/zones/1/maximumSpeed is missing"]);
}

#[test]
fn every_kind_is_mapped_or_set_aside_with_its_reason() {
    let made: Vec<(&str, Vec<&str>, &str)> = all()
        .iter()
        .map(|(kind, outcome)| {
            let reason = match &outcome.verdict {
                Verdict::Dead { reason, .. } => reason.as_str(),
                other => other.label(),
            };
            (*kind, names(outcome), reason)
        })
        .collect();
    let state = [
        "Telemetry",
        "ModeChanged",
        "SafetyChanged",
        "LoadChanged",
        "FaultRaised",
        "Assigned",
        "Started",
        "StepChanged",
    ];
    assert_eq!(
        made,
        [
            ("connection", vec!["Connected"], "mapped"),
            ("factsheet", vec!["Registered"], "mapped"),
            ("order", vec!["Created"], "mapped"),
            ("instantActions", vec!["ActionRequested"], "mapped"),
            ("state", state.to_vec(), "mapped"),
            ("visualization", vec!["Telemetry"], "mapped"),
            ("zoneSet", vec![], "no_event"),
            ("responses", vec![], "no_event"),
        ]
    );
}

#[test]
fn a_connection_tells_its_protocol_and_why_it_ended() {
    assert_eq!(event("Connected", &outcome("connection"))["protocol"], "VDA5050/3.0.0");
    let mut vehicle = vehicle();
    for (said, reason) in
        [("HIBERNATING", "hibernating"), ("CONNECTION_BROKEN", "broken"), ("OFFLINE", "graceful")]
    {
        let mut body = sample("connection");
        body["connectionState"] = said.into();
        assert_eq!(problems(&official("3.0.0", "connection"), &body), [""; 0]);
        assert_eq!(event("Disconnected", &vehicle.live("connection", body))["reason"], reason);
    }
}

#[test]
fn a_factsheet_registers_model_and_limits() {
    let registered = event("Registered", &outcome("factsheet"));
    assert_eq!(
        (
            &registered["model"],
            &registered["manufacturer"],
            &registered["serial_number"],
            &registered["protocol"]
        ),
        (&json!("NordFTS T3"), &json!("NordFTS"), &json!("0001"), &json!("VDA5050/3.0.0"))
    );
    assert_eq!(
        registered["attributes"],
        json!({
            "acceleration_max_m_s2": "1.0", "actions": "pick, beep", "angular_speed_max_rad_s": "1.5",
            "angular_speed_min_rad_s": "0.01", "array_length_max.order.nodes": "100",
            "array_length_max.state.errors": "20", "battery_critical_percent": "15.0",
            "battery_max_percent": "90.0", "battery_min_percent": "30.0", "charging_time_min_s": "600.0",
            "class": "FORKLIFT", "deceleration_max_m_s2": "1.2", "height_max_m": "2.1", "height_min_m": "1.9",
            "id_length_max": "64", "id_numerical_only": "false", "kinematics": "THREE_WHEEL", "length_m": "1.8",
            "load_id_length_max": "48", "load_mass_max_kg": "1000", "load_positions": "fork",
            "load_types": "EPAL, KLT", "load_weight_max_kg": "1000", "localization_types": "NATURAL, REFLECTOR",
            "message_length_max": "65536", "navigation_types": "FREELY_NAVIGATING", "order_interval_min_s": "1",
            "series_description": "fork lift", "speed_max_m_s": "2.5", "speed_min_m_s": "0.05",
            "state_interval_min_s": "0.2", "state_interval_s": "30", "supported_zones": "RELEASE, SPEED_LIMIT",
            "topic_element_length_max": "64", "topic_serial_length_max": "32", "version.firmware": "4.2.1",
            "visualization_interval_s": "0.5", "width_m": "0.9",
        })
    );
    let mut vehicle = vehicle();
    vehicle.live("factsheet", sample("factsheet"));
    assert_eq!(vehicle.live("factsheet", sample("factsheet")).verdict, Verdict::NoChange);
    let mut faster = sample("factsheet");
    faster["protocolLimits"]["timing"]["defaultStateInterval"] = json!(10);
    assert_eq!(names(&vehicle.live("factsheet", faster)), ["Registered"], "a limit changed");
}

#[test]
fn an_order_is_a_task_with_its_steps() {
    let created = event("Created", &outcome("order"));
    assert_eq!(created["task_id"], "swerk1.uNordFTS%2F0001.oO-1");
    assert_eq!(
        created["steps"],
        json!([
            {"step_id": "b-1", "step_type": "beep", "node_id": "E1"},
            {"step_id": "p-1", "step_type": "pick", "node_id": "N2"},
        ])
    );
    assert_eq!(created["parameters"]["description"], "pallet to line 4");
}

#[test]
fn an_instant_action_is_a_request() {
    let requested = event("ActionRequested", &outcome("instantActions"));
    assert_eq!(
        (&requested["action_id"], &requested["action_type"]),
        (&json!("i-1"), &json!("enableZoneSet"))
    );
    assert_eq!(requested["parameters"], json!({"zoneSetId": "zones-4"}));
}

#[test]
fn a_state_is_measurement_and_changes() {
    let outcome = outcome("state");
    let telemetry = event("Telemetry", &outcome);
    for (field, value) in [
        ("x_m", json!(1.5)),
        ("y_m", json!(2.0)),
        ("heading_rad", json!(0.25)),
        ("map_id", json!("hall-2")),
        ("localized", json!(true)),
        ("speed_m_s", json!(1.0)),
        ("battery_percent", json!(77.5)),
        ("charging", json!(false)),
        ("driving", json!(true)),
        ("paused", json!(false)),
        ("last_node_id", json!("N1")),
        ("new_base_request", json!(true)),
        ("zone_set_id", json!("zones-4")),
        ("information", json!({"wifiRssi": "rssi -66 dBm"})),
        ("task_id", json!("swerk1.uNordFTS%2F0001.oO-1")),
    ] {
        assert_eq!(telemetry[field], value, "{field}");
    }
    assert_eq!(event("ModeChanged", &outcome)["mode"], "intervened");
    let safety = event("SafetyChanged", &outcome);
    assert_eq!((&safety["emergency_stop"], &safety["field_violation"]), (&json!("remote"), &json!(true)));
    assert_eq!(
        event("LoadChanged", &outcome)["loads"],
        json!([{"load_id": "RFID-1", "load_type": "EPAL", "load_position": "fork", "weight_kg": 310.5,
                "length_m": 1.2, "width_m": 0.8, "height_m": 1.5}])
    );
    let fault = event("FaultRaised", &outcome);
    assert_eq!((&fault["level"], &fault["references"]), (&json!("urgent"), &json!({"nodeId": "N1"})));
    let step = event("StepChanged", &outcome);
    assert_eq!((&step["status"], &step["result"]), (&json!("retriable"), &json!("fork blocked")));
    assert_eq!(outcome.omitted, ["zoneRequests", "edgeRequests", "zoneActionStates"], "what no event says");
}

#[test]
fn a_visualization_says_whether_it_is_localized() {
    let telemetry = event("Telemetry", &outcome("visualization"));
    assert_eq!((&telemetry["localized"], &telemetry["speed_m_s"]), (&json!(false), &json!(0.5)));
}

/// The zones of 3.0 are those that are enabled for the map it is on; those of 2.x are named.
#[test]
fn the_zones_in_use_are_told_by_all_versions() {
    let zones = |changes: Value| event("Telemetry", &vehicle().state(changes))["zone_set_id"].clone();
    let on = |map: &str| json!({"x": 0.0, "y": 0.0, "theta": 0.0, "mapId": map, "localized": true});
    let sets = json!([
        {"zoneSetId": "a", "mapId": "m1", "zoneSetStatus": "ENABLED"},
        {"zoneSetId": "b", "mapId": "m2", "zoneSetStatus": "ENABLED"},
        {"zoneSetId": "c", "mapId": "m3", "zoneSetStatus": "DISABLED"},
    ]);
    assert_eq!(zones(json!({"zoneSetId": "two"})), "two");
    assert_eq!(zones(json!({"zoneSets": sets, "mobileRobotPosition": on("m2")})), "b");
    assert_eq!(zones(json!({"zoneSets": sets, "mobileRobotPosition": on("m3")})), "", "none is enabled");
    assert_eq!(zones(json!({"zoneSets": sets})), Value::Null, "which of two is not known");
    assert_eq!(zones(json!({"zoneSets": [sets[0], sets[2]]})), "a");
    assert_eq!(zones(json!({"zoneSets": []})), "");
    assert_eq!(zones(json!({})), Value::Null);
}

#[test]
fn a_version_to_come_is_set_aside() {
    let mut vehicle = vehicle();
    for (kind, _) in SAMPLES {
        let mut body = sample(kind);
        body["version"] = "4.0.0".into();
        let Verdict::Dead { reason, detail } = vehicle.live(kind, body).verdict else {
            panic!("{kind} is mapped")
        };
        assert_eq!(reason, DeadReason::UnknownVersion);
        assert!(detail.contains("version 4 "), "{detail}");
    }
    // The payload's version counts where it contradicts the topic; the topic's where there is none.
    vehicle.topic = "werk1/v4/NordFTS/0001".to_owned();
    assert_eq!(vehicle.live("state", sample("state")).verdict, Verdict::Mapped);
    let silent = vehicle.live("state", json!({"headerId": 1})).verdict;
    assert!(matches!(silent, Verdict::Dead { reason: DeadReason::UnknownVersion, .. }), "{silent:?}");
}

/// `docs/vda5050.md` lists the official schemas field by field: `| kind.path | what becomes of it |`. A field that is not
/// carried stands for all below it.
#[test]
fn the_documentation_lists_every_field() {
    let docs = include_str!("../../../docs/vda5050.md");
    let rows: Vec<(&str, &str)> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(path, rest)| (path, rest.trim_end_matches(" |")))
        .collect();
    let mut missing = Vec::new();
    for (kind, _) in SAMPLES {
        let schema = official("3.0.0", kind);
        walk(&schema, &schema, kind, &rows, &mut missing);
    }
    assert!(missing.is_empty(), "docs/vda5050.md says nothing of\n{}", missing.join("\n"));
    assert!(rows.iter().filter(|(path, _)| path.starts_with("state.")).count() > 40);
}

fn walk(root: &Value, schema: &Value, at: &str, rows: &[(&str, &str)], missing: &mut Vec<String>) {
    let schema = resolved(root, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        // The head of the message is the same for all kinds.
        let path = match name.as_str() {
            "headerId" | "timestamp" | "version" | "manufacturer" | "serialNumber" if !at.contains('.') => {
                format!("*.{name}")
            }
            name => format!("{at}.{}", name.trim()),
        };
        match rows.iter().find(|(of, _)| *of == path) {
            None => missing.push(path),
            Some((_, what)) if what.starts_with('–') => {}
            Some(_) => {
                let inner = resolved(root, inner);
                let (below, suffix) =
                    if inner["items"].is_object() { (&inner["items"], "[]") } else { (inner, "") };
                walk(root, below, &format!("{path}{suffix}"), rows, missing);
            }
        }
    }
}
