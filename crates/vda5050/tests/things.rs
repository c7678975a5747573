//! The 17 things that a consumer of VDA 5050 has to deal with, each by a few messages made by hand. The recording as a
//! whole is in `facts.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{FIRST_MS, Vehicle, event, names, names_on, order};
use fleetlog_event::EventSet;
use fleetlog_vda5050::{Outcome, Verdict};
use serde_json::{Value, json};

const NOTHING: [&str; 0] = [];

fn online(header_id: u64, timestamp: &str) -> Value {
    json!({"connectionState": "ONLINE", "headerId": header_id, "timestamp": timestamp})
}

fn will(timestamp: &str) -> Value {
    json!({"connectionState": "CONNECTIONBROKEN", "headerId": 0, "timestamp": timestamp})
}

fn error(error_type: &str, references: Value) -> Value {
    json!({"errorType": error_type, "errorLevel": "WARNING", "errorDescription": "wrong", "errorReferences": references})
}

fn refusal(error_type: &str, order_id: &str, update_id: &str) -> Value {
    let reference = |key: &str, value: &str| json!({"referenceKey": key, "referenceValue": value});
    error(
        error_type,
        json!([
            reference("topic", "order"),
            reference("orderId", order_id),
            reference("orderUpdateId", update_id)
        ]),
    )
}

fn action(id: &str, status: &str) -> Value {
    json!({"actionId": id, "actionType": "pick", "actionStatus": status})
}

#[test]
fn thing_01_a_vehicle_is_maker_and_serial_number_from_the_topic() {
    let mut hall = Vehicle::new();
    let state =
        json!({"orderId": "", "lastNodeId": "17", "agvPosition": {"x": 1, "y": 2, "mapId": "EG / Halle 2"},
                       "manufacturer": "Somebody", "serialNumber": "else"})
        .to_string();
    let keys: Vec<String> =
        ["werk1/v2/NordFTS/0001", "werk1/v2/Rollwerk/0001", "hub/v2/Kranich Robotik/ü:_.1"]
            .map(|vehicle| {
                hall.line(&format!("{vehicle}/state"), false, &state).events[0].entity().to_string()
            })
            .into();
    assert_eq!(
        keys,
        ["swerk1.uNordFTS%2F0001", "swerk1.uRollwerk%2F0001", "shub.uKranich%20Robotik%2F%C3%BC%3A_%2E1"]
    );
    let telemetry = event("Telemetry", &hall.line("hub/v2/M/1/state", false, &state));
    assert_eq!((&telemetry["last_node_id"], &telemetry["map_id"]), (&json!("17"), &json!("EG / Halle 2")));
    assert_eq!(telemetry["meta"]["unit_uid"], "M/1");
}

#[test]
fn thing_02_counters_count_per_channel_and_incarnation() {
    let mut vehicle = Vehicle::new();
    let mut scopes = Vec::new();
    for (kind, header_id) in
        [("state", 7), ("visualization", 3), ("state", 9), ("state", 0), ("visualization", 3), ("state", 1)]
    {
        let outcome = vehicle.live(kind, json!({"headerId": header_id, "orderId": ""}));
        let meta = outcome.events[0].meta();
        scopes.push((meta.sequence_scope.clone().unwrap(), meta.sequence.unwrap()));
    }
    let expected = [
        ("state#0", 7),
        ("visualization#0", 3),
        ("state#0", 9),
        ("state#1", 0),
        ("visualization#0", 3),
        ("state#1", 1),
    ];
    assert_eq!(scopes, expected.map(|(scope, n)| (scope.to_owned(), n)));
    // A master counts over all its vehicles: its numbers say nothing about loss here.
    let mut body = order("O1", json!(0));
    body["headerId"] = json!(812);
    assert_eq!(event("Created", &vehicle.live("order", body))["meta"]["sequence"], Value::Null);
    // What is no whole number does not count.
    let odd = vehicle.live("state", json!({"headerId": "2", "orderId": ""}));
    assert_eq!(odd.events[0].meta().sequence, None);
}

#[test]
fn thing_03_a_last_will_happened_when_it_arrived() {
    let mut vehicle = Vehicle::new();
    vehicle.live("connection", online(1, "2026-11-21T09:04:16.100Z"));
    vehicle.state(json!({"timestamp": "2026-11-21T09:04:16.200Z"}));
    let outcome = vehicle.live("connection", will("2026-11-21T09:04:12.000Z"));
    let lost = event("Disconnected", &outcome);
    assert_eq!(lost["reason"], "broken");
    assert_eq!(lost["meta"]["occurred_at"], FIRST_MS + 200);
    assert_eq!(
        (&lost["meta"]["sequence"], &lost["meta"]["sequence_scope"]),
        (&json!(0), &json!("connection#1"))
    );
}

#[test]
fn thing_04_states_go_on_while_the_connection_is_broken() {
    let mut vehicle = Vehicle::new();
    assert_eq!(names(&vehicle.live("connection", online(1, "2026-11-21T09:04:16Z"))), ["Connected"]);
    assert_eq!(names(&vehicle.live("connection", will("2026-11-21T09:04:15Z"))), ["Disconnected"]);
    let state = vehicle.state(json!({}));
    assert_eq!(names_on("telemetry", &state), ["Telemetry"]);
    assert!(!names(&state).contains(&"Connected"), "a state says nothing about the connection");
    assert_eq!(names(&vehicle.live("connection", will("2026-11-21T09:04:15Z"))), ["Disconnected"]);
}

#[test]
fn thing_05_retained_replays_are_no_events() {
    let mut vehicle = Vehicle::new();
    let hello = online(1, "2026-11-21T09:04:16Z");
    let factsheet = json!({"typeSpecification": {"seriesName": "T1"}, "version": "2.0.0"});
    vehicle.live("connection", hello.clone());
    vehicle.live("factsheet", factsheet.clone());
    for (kind, body) in
        [("connection", &hello), ("factsheet", &factsheet), ("state", &json!({"orderId": ""}))]
    {
        let outcome = vehicle.replay(kind, body.clone());
        assert_eq!((names(&outcome), outcome.verdict), (vec![], Verdict::RetainedReplay), "{kind}");
    }
    for kind in ["connection", "state", "order"] {
        let outcome = vehicle.raw(kind, false, "");
        assert_eq!((names(&outcome), outcome.verdict), (vec![], Verdict::Deleted), "{kind}");
    }
}

#[test]
fn thing_05_a_replay_of_what_nobody_told_is_news_and_does_not_count() {
    let mut vehicle = Vehicle::new();
    let outcome = vehicle.replay("connection", online(4, "2026-11-21T09:00:00Z"));
    assert_eq!(outcome.verdict, Verdict::RetainedNews);
    let connected = event("Connected", &outcome);
    assert_eq!(
        (&connected["meta"]["sequence"], &connected["meta"]["occurred_at"]),
        (&Value::Null, &json!(FIRST_MS - 256_100))
    );
    vehicle.state(json!({"timestamp": "2026-11-21T09:04:16.200Z"}));
    // The sign-off was lost (QoS 0); the broker's store has it. It does not move time back.
    let lost = vehicle
        .replay("connection", json!({"connectionState": "OFFLINE", "timestamp": "2026-11-21T09:00:01Z"}));
    assert_eq!(event("Disconnected", &lost)["meta"]["occurred_at"], FIRST_MS + 200);
}

#[test]
fn thing_06_lost_messages_of_qos_0_do_no_harm() {
    let mut vehicle = Vehicle::new();
    // Neither ONLINE nor the order's update 1 was received.
    vehicle.order("O1", json!(0));
    assert_eq!(names_on("task", &vehicle.state(json!({"orderId": "O1", "orderUpdateId": 0}))), ["Assigned"]);
    assert_eq!(names_on("task", &vehicle.state(json!({"orderId": "O1", "orderUpdateId": 1}))), NOTHING);
    // An order that nobody saw is no task; where the vehicle works on it is told all the same.
    let state = vehicle.state(json!({"orderId": "O2"}));
    assert_eq!(names_on("task", &state), ["Cancelled"]);
    assert_eq!(event("Telemetry", &state)["task_id"], "swerk1.uNordFTS%2F0001.oO2");
}

#[test]
fn thing_07_a_brokers_shutdown_breaks_all_vehicles_at_once() {
    let mut hall = Vehicle::new();
    let mut ids = std::collections::HashSet::new();
    for serial in 0..50 {
        let topic = format!("werk1/v2/NordFTS/{serial:04}/connection");
        hall.ts_ms = FIRST_MS;
        let outcome = hall.line(&topic, false, &will("2026-11-21T09:00:00Z").to_string());
        let lost = event("Disconnected", &outcome);
        assert_eq!(
            (&lost["reason"], &lost["meta"]["occurred_at"]),
            (&json!("broken"), &json!(FIRST_MS + 100))
        );
        ids.insert(lost["meta"]["event_id"].to_string());
    }
    assert_eq!(ids.len(), 50);
}

#[test]
fn thing_08_clocks_are_taken_as_they_are() {
    let mut vehicle = Vehicle::new();
    let at = |outcome: &Outcome| outcome.events[0].meta().occurred_at.0;
    for (timestamp, expected) in [
        ("2026-11-21T09:03:34.100Z", FIRST_MS - 42_000),
        ("2026-11-21T09:03:34.20Z", FIRST_MS - 41_900),
        ("2026-11-21T09:03:35Z", FIRST_MS - 41_100),
        ("1970-01-01T00:00:00Z", 0),
        ("2100-01-01T00:00:00.000Z", 4_102_444_800_000),
        ("2026-11-21T09:03:36Z", FIRST_MS - 40_100),
    ] {
        assert_eq!(at(&vehicle.state(json!({ "timestamp": timestamp }))), expected, "{timestamp}");
    }
    // Without a time that can be read: what the vehicle's clock would have said, 100 ms later.
    assert_eq!(at(&vehicle.state(json!({"timestamp": "soon"}))), FIRST_MS - 40_000);
    // A burst after a radio stall arrives late and in order.
    vehicle.ts_ms += 15_000;
    assert_eq!(at(&vehicle.state(json!({"timestamp": "2026-11-21T09:03:37Z"}))), FIRST_MS - 39_100);
}

#[test]
fn thing_09_states_of_one_timestamp_are_told_apart_and_visualization_carries_little() {
    let mut vehicle = Vehicle::new();
    let state = json!({"timestamp": "2026-11-21T09:04:16.2Z", "headerId": 1});
    let (first, second) = (vehicle.state(state.clone()), vehicle.state(state));
    assert_eq!(first.events[0].meta().occurred_at, second.events[0].meta().occurred_at);
    assert_ne!(first.events[0].meta().event_id, second.events[0].meta().event_id);
    // On a timer, nothing changed: one measurement, nothing else.
    assert_eq!(names(&second), ["Telemetry"]);
    let visualization = vehicle.live(
        "visualization",
        json!({"agvPosition": {"x": 3.5, "y": -2, "theta": 1.5, "mapId": "EG"}, "velocity": {"vx": 3, "vy": -4}}),
    );
    let telemetry = event("Telemetry", &visualization);
    assert_eq!(
        (&telemetry["channel"], &telemetry["x_m"], &telemetry["y_m"]),
        (&json!("visualization"), &json!(3.5), &json!(-2.0))
    );
    assert_eq!((&telemetry["heading_rad"], &telemetry["speed_m_s"]), (&json!(1.5), &json!(5.0)));
    for absent in ["battery_percent", "charging", "driving", "paused", "last_node_id", "task_id"] {
        assert_eq!(telemetry[absent], Value::Null, "{absent}");
    }
}

#[test]
fn thing_10_an_order_is_completed_once_and_stays_in_the_states() {
    let mut vehicle = Vehicle::new();
    let created = vehicle.order("O1", json!(0));
    assert_eq!(event("Created", &created)["steps"][0]["step_id"], "O1-pick");
    let working = json!({"orderId": "O1", "driving": true, "nodeStates": [{"nodeId": "N2", "sequenceId": 2}],
                         "actionStates": [action("O1-pick", "WAITING")]});
    assert_eq!(names_on("task", &vehicle.state(working)), ["Assigned", "Started"]);
    // At the end, but one of its actions is not: not idle.
    let picking =
        json!({"orderId": "O1", "lastNodeSequenceId": 2, "actionStates": [action("O1-pick", "RUNNING")]});
    assert_eq!(names_on("task", &vehicle.state(picking)), ["StepChanged"]);
    let done =
        json!({"orderId": "O1", "lastNodeSequenceId": 2, "actionStates": [action("O1-pick", "FAILED")]});
    let outcome = vehicle.state(done.clone());
    assert_eq!(names_on("task", &outcome), ["StepChanged", "Completed"]);
    assert_eq!(event("Completed", &outcome)["failed_steps"], 1);
    assert_eq!(names_on("task", &vehicle.state(done)), NOTHING);
    // The next order, or a restart: nothing is taken from a task that is over.
    assert_eq!(names_on("task", &vehicle.state(json!({"orderId": ""}))), NOTHING);
}

#[test]
fn thing_10_an_order_that_a_restart_forgot_is_lost() {
    let mut vehicle = Vehicle::new();
    vehicle.order("O1", json!(0));
    vehicle.state(json!({"orderId": "O1", "driving": true}));
    let outcome = vehicle.state(json!({"orderId": ""}));
    assert_eq!(event("Failed", &outcome)["reason"], "lost");
    assert_eq!(event("Telemetry", &outcome)["task_id"], "");
}

#[test]
fn thing_11_updates_are_accepted_refused_or_ignored() {
    let mut vehicle = Vehicle::new();
    assert_eq!(vehicle.order("O1", json!(0)).verdict, Verdict::Mapped);
    vehicle.state(json!({"orderId": "O1", "driving": true}));
    assert_eq!(vehicle.order("O1", json!(1)).verdict, Verdict::Noted);
    assert_eq!(vehicle.order("O1", json!(1)).verdict, Verdict::NoChange);
    // A refused update leaves the task as it was.
    let refused = vehicle.state(json!({"orderId": "O1", "errors": [refusal("orderUpdateError", "O1", "1")]}));
    let rejected = event("Rejected", &refused);
    assert_eq!((&rejected["update_id"], &rejected["reason"]), (&json!("1"), &json!("orderUpdateError")));
    let working = vehicle.state(json!({"orderId": "O1", "paused": true}));
    assert_eq!(names_on("task", &working), ["Paused"]);
    // A new order is stitched onto the old one, which never completes; some send the number as a string.
    assert_eq!(names(&vehicle.order("O2", json!("0"))), ["Created"]);
    let stitched = vehicle.state(json!({"orderId": "O2", "orderUpdateId": 0}));
    assert_eq!(names_on("task", &stitched), ["Cancelled", "Assigned"]);
    assert_eq!(event("Cancelled", &stitched)["reason"], "superseded");
}

#[test]
fn thing_11_a_wrong_order_is_a_task_that_is_rejected() {
    let mut vehicle = Vehicle::new();
    let mut no_nodes = order("O1", json!(0));
    no_nodes.as_object_mut().unwrap().remove("nodes");
    assert_eq!(names(&vehicle.live("order", no_nodes)), ["Created"]);
    let errors = json!([refusal("validationError", "O1", "0")]);
    let outcome = vehicle.state(json!({ "errors": errors }));
    assert_eq!(names_on("task", &outcome), ["Rejected"]);
    assert_eq!(names_on("task", &vehicle.state(json!({"errors": []}))), NOTHING);
    // Rejected is final: even a vehicle that reports it all the same does not move it.
    assert_eq!(names_on("task", &vehicle.state(json!({"orderId": "O1", "errors": errors}))), NOTHING);
}

#[test]
fn thing_12_only_the_orders_own_actions_are_steps() {
    let mut vehicle = Vehicle::new();
    vehicle.order("O1", json!(0));
    let asked = vehicle.live(
        "instantActions",
        json!({"instantActions": [{"actionId": "i1", "actionType": "cancelOrder"},
                                  {"actionId": "i2", "actionType": "beep", "actionParameters": [{"key": "n", "value": 2}]}]}),
    );
    assert_eq!(names(&asked), ["ActionRequested", "ActionRequested"]);
    let mixed = json!({"orderId": "O1", "actionStates":
        [action("i1", "RUNNING"), action("i2", "FINISHED"), action("O1-pick", "INITIALIZING"), action("old", "FAILED")]});
    let outcome = vehicle.state(mixed);
    assert_eq!(names_on("task", &outcome), ["Assigned", "Started", "StepChanged"]);
    assert_eq!(event("StepChanged", &outcome)["step_id"], "O1-pick");
    // The cancellation is finished, then vanishes from the states.
    let cancelled = vehicle.state(json!({"orderId": "O1", "actionStates": [action("i1", "FINISHED")]}));
    assert_eq!(names_on("task", &cancelled), ["Cancelled"]);
    assert_eq!(event("Cancelled", &cancelled)["reason"], "requested");
    assert_eq!(names_on("task", &vehicle.state(json!({"orderId": "O1"}))), NOTHING);
}

#[test]
fn thing_13_errors_are_raised_and_cleared_and_a_rejection_counts_once() {
    let mut vehicle = Vehicle::new();
    vehicle.order("O1", json!(0));
    let reference = |value: &str| json!([{"referenceKey": "component", "referenceValue": value}]);
    let scanner = |value: &str| error("laserScannerDirty", reference(value));
    let both = json!([scanner("front"), scanner("rear"), scanner("rear")]);
    assert_eq!(
        names_on("robot", &vehicle.state(json!({"errors": both})))[2..],
        ["FaultRaised", "FaultRaised"]
    );
    assert_eq!(names(&vehicle.state(json!({"errors": both}))), ["Telemetry"]);
    let one = vehicle.state(json!({"errors": [scanner("rear"), refusal("noRouteError", "O1", "0")]}));
    assert_eq!(names(&one), ["Telemetry", "FaultCleared", "FaultRaised", "Rejected"]);
    // Raised again, by the same id; without the list nothing is known.
    let again = vehicle.state(json!({"errors": both}));
    assert_eq!(names_on("robot", &again), ["FaultCleared", "FaultRaised"]);
    assert_eq!(event("FaultRaised", &again)["fault_id"], event("FaultCleared", &one)["fault_id"]);
    assert_eq!(names(&vehicle.state(json!({"errors": null}))), ["Telemetry"]);
    // The refusal is raised again as a fault; as a rejection it has counted.
    let repeated = vehicle.state(json!({"errors": [refusal("noRouteError", "O1", "0")]}));
    assert_eq!(names(&repeated), ["Telemetry", "FaultCleared", "FaultCleared", "FaultRaised"]);
}

#[test]
fn thing_13_an_error_about_an_action_refuses_no_order() {
    let mut vehicle = Vehicle::new();
    vehicle.order("O1", json!(0));
    let with_action = |error_type: &str| {
        let mut error = refusal(error_type, "O1", "0");
        let references = error["errorReferences"].as_array_mut().unwrap();
        references.push(json!({"referenceKey": "actionId", "referenceValue": "O1-pick"}));
        error
    };
    let about_action = vehicle.state(json!({"errors": [with_action("orderActionError")]}));
    assert_eq!(names_on("task", &about_action), NOTHING);
    let about_order = vehicle.state(json!({"errors": [with_action("orderError")]}));
    assert_eq!(names_on("task", &about_order), ["Rejected"]);
}

#[test]
fn thing_14_failing_the_official_schema_is_no_reason_to_drop() {
    let mut vehicle = Vehicle::new();
    for list in ["actions", "instantActions"] {
        let body = json!({ list: [{"actionId": "i", "actionType": "stateRequest"}] });
        assert_eq!(names(&vehicle.live("instantActions", body)), ["ActionRequested"], "{list}");
    }
    vehicle.order("O1", json!(0));
    let held = json!({"orderId": "O1", "actionStates": [action("O1-pick", "PAUSED")],
                      "nodeStates": [{"nodeId": "N2", "nodePosition": {"x": 1, "y": 2}}], "agvPosition": {"x": 1, "y": 2}});
    let outcome = vehicle.state(held);
    assert_eq!(event("StepChanged", &outcome)["status"], "paused");
    assert_eq!(event("Telemetry", &outcome)["heading_rad"], Value::Null);
    // Nothing of a header, wrong types, numbers out of range: what can be read is, the rest is named.
    let odd = vehicle.state(json!({"driving": "yes", "actionStates": 5, "loads": [7], "lastNodeId": 3,
                                   "batteryState": {"batteryCharge": 250, "charging": true}}));
    let telemetry = event("Telemetry", &odd);
    assert_eq!((&telemetry["battery_percent"], &telemetry["charging"]), (&Value::Null, &json!(true)));
    assert_eq!(odd.omitted, ["batteryState.batteryCharge"]);
}

#[test]
fn thing_15_optional_fields_come_and_go() {
    let mut vehicle = Vehicle::new();
    let load = json!([{"loadId": "L1", "loadType": "EPAL", "weight": 10.5}]);
    assert!(!names(&vehicle.state(json!({"loads": []}))).contains(&"LoadChanged"));
    let loaded = vehicle.state(json!({ "loads": load }));
    assert_eq!(event("LoadChanged", &loaded)["loads"][0]["weight_kg"], 10.5);
    assert_eq!(names(&vehicle.state(json!({"information": [], "newBaseRequest": true}))), ["Telemetry"]);
    assert_eq!(names(&vehicle.state(json!({ "loads": load }))), ["Telemetry"]);
    assert_eq!(event("LoadChanged", &vehicle.state(json!({"loads": []})))["loads"], json!([]));
    // A factsheet of the header only takes nothing back.
    let full = json!({"typeSpecification": {"seriesName": "T1", "maxLoadMass": 1000}, "version": "2.0.0"});
    assert_eq!(names(&vehicle.live("factsheet", json!({"version": "2.0.0"}))), ["Registered"]);
    let registered = vehicle.live("factsheet", full);
    assert_eq!(event("Registered", &registered)["attributes"]["load_mass_max_kg"], "1000");
    assert_eq!(vehicle.live("factsheet", json!({"version": "2.0.0"})).verdict, Verdict::NoChange);
}

#[test]
fn thing_16_flags_are_independent_of_each_other() {
    let mut vehicle = Vehicle::new();
    assert_eq!(names(&vehicle.state(json!({}))), ["Telemetry", "ModeChanged", "SafetyChanged"]);
    let paused = vehicle.state(json!({"paused": true, "driving": true}));
    assert_eq!(names(&paused), ["Telemetry"]);
    assert_eq!(
        (&event("Telemetry", &paused)["paused"], &event("Telemetry", &paused)["driving"]),
        (&json!(true), &json!(true))
    );
    let stopped = vehicle.state(json!({"safetyState": {"eStop": "AUTOACK", "fieldViolation": false}}));
    assert_eq!(event("SafetyChanged", &stopped)["emergency_stop"], "auto_ack");
    let violated = vehicle.state(json!({"safetyState": {"eStop": "AUTOACK", "fieldViolation": true}}));
    assert_eq!(names(&violated), ["Telemetry", "SafetyChanged"]);
    let manual = vehicle.state(json!({"operatingMode": "MANUAL", "safetyState": null}));
    assert_eq!(event("ModeChanged", &manual)["mode"], "manual");
    assert!(!names(&manual).contains(&"SafetyChanged"));
}

#[test]
fn thing_17_the_payloads_version_counts_where_it_contradicts_the_topic() {
    let mut vehicle = Vehicle::new();
    "werk2/v1/AltTrans/AT:17".clone_into(&mut vehicle.topic);
    let protocol = |outcome: &Outcome| event("Connected", outcome)["protocol"].clone();
    let mut hello = online(1, "2026-11-21T09:04:16Z");
    assert_eq!(protocol(&vehicle.live("connection", hello.clone())), "VDA5050/1");
    hello["version"] = json!("2.1.0");
    assert_eq!(protocol(&vehicle.live("connection", hello)), "VDA5050/2.1.0");
    let registered = vehicle.live("factsheet", json!({"version": "2.1.0", "manufacturer": "Other"}));
    assert_eq!(event("Registered", &registered)["manufacturer"], "AltTrans");
}
