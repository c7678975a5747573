//! What a simulated fleet promises.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap, HashSet};

use fleetlog_event::{EventSet, FleetEvent, robot::RobotEvent, task::TaskEvent, telemetry::TelemetryEvent};
use fleetlog_simulate::Fleet;

const START_MS: i64 = 1_800_000_000_000;

fn events(units: u32, seed: u64, count: usize) -> Vec<(i64, FleetEvent)> {
    Fleet::new(units, seed, START_MS).take(count).collect()
}

fn bytes(events: &[(i64, FleetEvent)]) -> Vec<u8> {
    let json: Vec<_> = events.iter().map(|(_, event)| event.to_json().unwrap()).collect();
    serde_json::to_vec(&json).unwrap()
}

fn count_by_name(events: &[(i64, FleetEvent)]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, event) in events {
        *counts.entry(event.event_type().short_name()).or_default() += 1;
    }
    counts
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    assert_eq!(bytes(&events(30, 7, 20_000)), bytes(&events(30, 7, 20_000)));
    assert_ne!(bytes(&events(30, 7, 1000)), bytes(&events(30, 8, 1000)));
}

#[test]
fn a_fleet_started_again_later_makes_new_tasks_and_events() {
    let ids = |start_ms| -> HashSet<String> {
        let fleet = Fleet::new(20, 7, start_ms).take(20_000);
        let created = |(_, event): (i64, FleetEvent)| match event {
            FleetEvent::Task(TaskEvent::Created(created)) => {
                Some([created.task_id, created.meta.event_id.to_string()])
            }
            _ => None,
        };
        fleet.filter_map(created).flatten().collect()
    };
    let (first, second) = (ids(START_MS), ids(START_MS + 1));
    assert!(first.len() > 200 && first.is_disjoint(&second));
}

#[test]
fn events_are_valid_in_order_and_have_ids_of_their_own() {
    let mut ids = HashSet::new();
    let mut last_ms = START_MS;
    for (at_ms, event) in events(60, 3, 100_000) {
        event.validate().unwrap();
        assert!(at_ms >= last_ms);
        assert_eq!(event.meta().occurred_at.0, at_ms);
        assert!(ids.insert(event.meta().event_id));
        last_ms = at_ms;
    }
}

#[test]
fn the_mix_is_that_of_a_fleet() {
    let events = events(120, 1, 300_000);
    let counts = count_by_name(&events);
    let telemetry = counts["Telemetry"] * 100 / events.len();
    assert!((70..95).contains(&telemetry), "{telemetry} % telemetry: {counts:?}");
    // A simulated fleet has no operators.
    for event_type in FleetEvent::types().filter(|event_type| event_type.topic != "ops") {
        let name = event_type.short_name();
        // A unit that has left would be silent for the rest of the simulation, and nobody watches its tasks.
        let is_missing = ["Decommissioned", "Stalled"].contains(&name);
        assert_eq!(is_missing, !counts.contains_key(name), "{name} in {counts:?}");
    }
    assert_eq!(counts["Registered"], 120);
    assert!(counts["Completed"] * 100 / counts["Created"] > 70, "{counts:?}");
    let sites: HashSet<&str> = events.iter().map(|(_, event)| event.meta().site_uid.as_str()).collect();
    assert_eq!(sites.len(), 3);
}

#[test]
fn batteries_are_used_and_charged() {
    let mut charge = HashMap::<String, (f64, f64)>::new();
    for (_, event) in events(20, 5, 200_000) {
        let FleetEvent::Telemetry(TelemetryEvent::Telemetry(telemetry)) = event else { continue };
        let now = telemetry.battery_percent.unwrap();
        let (least, most) = charge.entry(telemetry.meta.unit_uid.unwrap()).or_insert((now, now));
        (*least, *most) = (least.min(now), most.max(now));
    }
    assert_eq!(charge.len(), 20);
    assert!(charge.values().all(|(least, most)| *least > 0.0 && *least < 26.0 && *most > 90.0), "{charge:?}");
}

/// The life cycle that projection `task-state` checks.
#[test]
fn the_events_of_a_task_are_a_legal_life() {
    let mut states = HashMap::<String, &'static str>::new();
    for (_, event) in events(100, 11, 400_000) {
        let FleetEvent::Task(task) = event else { continue };
        let state = states.entry(task.entity().to_string()).or_insert("unknown");
        *state = match (*state, &task) {
            ("unknown", TaskEvent::Created(_)) => "created",
            ("created", TaskEvent::Assigned(_)) | ("assigned", TaskEvent::Reassigned(_)) => "assigned",
            ("assigned", TaskEvent::Started(_)) | ("paused", TaskEvent::Resumed(_)) => "started",
            ("started", TaskEvent::Paused(_)) => "paused",
            ("started", TaskEvent::StepChanged(_)) => "started",
            ("started", TaskEvent::Completed(_) | TaskEvent::Cancelled(_))
            | ("created", TaskEvent::Rejected(_)) => "over",
            ("created" | "assigned" | "started" | "paused", TaskEvent::Failed(_)) => "over",
            (state, task) => panic!("a task that is {state}: {task:?}"),
        };
    }
    assert!(states.len() > 1000);
}

#[test]
fn counters_connections_and_faults_are_consistent() {
    let mut sequences = HashMap::<String, (String, i64)>::new();
    let mut online = HashSet::<String>::new();
    let mut faults = HashSet::<(String, String)>::new();
    let (mut gaps, mut resets) = (0, 0);
    for (_, event) in events(50, 2, 300_000) {
        let Some(unit) = event.meta().unit_uid.clone() else { continue };
        match &event {
            FleetEvent::Robot(RobotEvent::Connected(_)) => assert!(online.insert(unit)),
            FleetEvent::Robot(RobotEvent::Disconnected(_)) => assert!(online.remove(&unit)),
            FleetEvent::Robot(RobotEvent::FaultRaised(f)) => {
                assert!(faults.insert((unit, f.fault_id.clone())))
            }
            FleetEvent::Robot(RobotEvent::FaultCleared(f)) => {
                assert!(faults.remove(&(unit, f.fault_id.clone())))
            }
            FleetEvent::Telemetry(TelemetryEvent::Telemetry(telemetry)) => {
                assert!(online.contains(&unit));
                let meta = &telemetry.meta;
                let now = (meta.sequence_scope.clone().unwrap(), meta.sequence.unwrap());
                if let Some((scope, sequence)) = sequences.insert(unit, now.clone()) {
                    assert!(scope != now.0 || now.1 > sequence);
                    resets += i32::from(scope != now.0);
                    gaps += i32::from(scope == now.0 && now.1 > sequence + 1);
                }
            }
            _ => {}
        }
    }
    assert!(gaps > 10 && resets > 10, "{gaps} gaps, {resets} resets");
}
