//! Tests of the author.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use fleetlog_codec::Encoder;
use fleetlog_event::{EventSet, FleetEvent, robot::RobotEvent, task::TaskEvent, telemetry::TelemetryEvent};

use super::*;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn author() -> Author {
    Author::with_clock("504", "door-service", "1.4.0", || NOW)
}

fn robot(event: impl Into<RobotEvent>) -> FleetEvent {
    FleetEvent::Robot(event.into())
}

fn task(event: impl Into<TaskEvent>) -> FleetEvent {
    FleetEvent::Task(event.into())
}

/// One call of every method.
fn one_of_each() -> Vec<FleetEvent> {
    let author = author();
    let (unit, job) = (author.unit("lift-2"), author.task("T-17").of_unit("1010020021"));
    vec![
        robot(unit.registered(UnitType::Station)),
        robot(unit.connected()),
        robot(unit.disconnected(DisconnectReason::Graceful)),
        robot(unit.mode_changed(OperatingMode::Service)),
        robot(unit.fault_raised("motor-7", "motorOvertemperature", FaultLevel::Warning)),
        robot(unit.fault_cleared("motor-7", "motorOvertemperature")),
        robot(unit.safety_changed(EmergencyStop::Manual, false)),
        robot(unit.load_changed(vec![Load { weight_kg: Some(3.5), ..Load::default() }])),
        robot(unit.authenticated("badge-51c0", true)),
        robot(unit.door_changed("front", DoorState::Open)),
        robot(unit.action_requested("a-1", "startCharging")),
        robot(unit.decommissioned()),
        FleetEvent::Telemetry(TelemetryEvent::from(unit.telemetry())),
        task(job.created("delivery")),
        task(job.assigned("1010020021")),
        task(job.started()),
        task(job.step_changed("pick", StepStatus::Running)),
        task(job.paused()),
        task(job.resumed()),
        task(job.completed()),
        task(job.failed("timeout")),
        task(job.cancelled("requested")),
        task(job.reassigned("1010020022")),
        task(job.rejected("noRouteError")),
        task(job.stalled("started", TimestampMs(0), 60_000)),
    ]
}

#[test]
fn every_event_has_its_method_and_goes_out_as_it_is_made() {
    let events = one_of_each();
    let made: BTreeSet<&str> = events.iter().map(|event| event.event_type().name).collect();
    // What operators did is written down by the tools alone.
    let services = FleetEvent::types().filter(|event| event.topic != "ops");
    let all: BTreeSet<&str> = services.map(|event| event.name).collect();
    assert_eq!(made, all, "an event without a method in crates/producer/src/author.rs");
    let encoder = Encoder::single_object();
    let mut ids = BTreeSet::new();
    for event in events {
        event.validate().unwrap();
        encoder.encode_any(&event, &mut Vec::new()).unwrap();
        let meta = event.meta();
        assert!(ids.insert(meta.event_id), "{event:?} shares its identity");
        assert_eq!((meta.occurred_at, meta.recorded_at), (NOW, NOW));
        assert_eq!((meta.site_uid.as_str(), meta.source.as_str()), ("504", "door-service/1.4.0"));
    }
}

#[test]
fn circumstances_go_into_the_head() {
    let author = author().on_site("505");
    let asked = author.unit("1010020021").action_requested("a-1", "startCharging");
    let answer = author.unit("1010020021").at(TimestampMs(5)).counted(7, "state#0").caused_by(&asked.meta);
    let meta = answer.mode_changed(OperatingMode::Automatic).meta;
    assert_eq!((meta.site_uid.as_str(), meta.unit_uid.as_deref()), ("505", Some("1010020021")));
    assert_eq!((meta.occurred_at, meta.recorded_at), (TimestampMs(5), NOW));
    assert_eq!((meta.sequence, meta.sequence_scope.as_deref()), (Some(7), Some("state#0")));
    assert_eq!(
        (meta.causation_id, meta.correlation_id),
        (Some(asked.meta.event_id), Some(asked.meta.event_id))
    );
    // What it causes in turn belongs to the same process.
    let next = author.task("T-17").caused_by(&meta).started().meta;
    assert_eq!((next.causation_id, next.correlation_id), (Some(meta.event_id), Some(asked.meta.event_id)));
    let process = EventId::derived("process", 1);
    let other = author.task("T-17").correlated(process).caused_by(&meta).started().meta;
    assert_eq!((other.correlation_id, other.unit_uid), (Some(process), None));
}

#[test]
fn a_task_goes_to_the_unit_that_the_event_names() {
    let author = author();
    let job = author.task("T-17").of_unit("1");
    assert_eq!(job.assigned("2").meta.unit_uid.as_deref(), Some("2"));
    assert_eq!(job.reassigned("3").meta.unit_uid.as_deref(), Some("3"));
    assert_eq!(job.completed().meta.unit_uid.as_deref(), Some("1"));
}

#[test]
fn what_is_left_out_is_refused_by_its_check() {
    let author = author();
    let door = robot(author.unit("lift-2").door_changed("", DoorState::Open));
    assert!(door.validate().unwrap_err().detail.starts_with("door is empty, expected a text"));
    let nobody = task(author.task("T-17").assigned(""));
    assert!(nobody.validate().unwrap_err().detail.starts_with("meta.unit_uid is empty"));
}

#[test]
fn the_system_clock_tells_the_time() {
    let author = Author::new("504", "door-service", "1.4.0");
    let (before, meta, after) = (now(), author.unit("1").connected().meta, now());
    assert!(before <= meta.recorded_at && meta.recorded_at <= after);
    assert_eq!(format!("{author:?}"), "Author(door-service/1.4.0 on site 504)");
}
