//! Events as services make them (`Author`) and as people write them (`fleetlog emit`), until they are seen.

use fleetlog_codec::reference::{describe, example};
use fleetlog_event::{
    EventSet, FleetEvent, TimestampMs,
    robot::{Decommissioned, DoorState, EmergencyStop, FaultLevel, Load, Registered, UnitType},
    telemetry::Telemetry,
};
use fleetlog_producer::{Author, EventProducer};
use serde_json::{Value, json};

use fleetlog_tests::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_station_lives_from_registration_to_decommission() {
    let world = World::new("station").await;
    let producer = EventProducer::connect(&world.kafka()).unwrap();
    let author = Author::new("504", "lift-service", "2.0.1");
    let lift = author.unit("lift-2");
    let attributes = [("load_mass_max_kg".to_owned(), "1000".to_owned())].into();
    let registered =
        Registered { model: Some("L2".to_owned()), attributes, ..lift.registered(UnitType::Station) };
    let load = Load { load_id: Some("RFID-1".to_owned()), length_m: Some(1.2), ..Load::default() };
    producer.send(registered).await.unwrap();
    producer.send(lift.connected()).await.unwrap();
    producer.send(lift.authenticated("badge-51c0", true)).await.unwrap();
    producer.send(lift.door_changed("front", DoorState::Open)).await.unwrap();
    producer.send(lift.load_changed(vec![load])).await.unwrap();
    producer.send(lift.safety_changed(EmergencyStop::None, true)).await.unwrap();
    producer.send(lift.fault_raised("motor-7", "motorOvertemperature", FaultLevel::Warning)).await.unwrap();
    let measured = Telemetry { new_base_request: Some(false), ..lift.telemetry() };
    producer.send(measured).await.unwrap();
    let asked = lift.action_requested("a-1", "goToFloor");
    let answer = lift.clone().caused_by(&asked.meta).fault_cleared("motor-7", "motorOvertemperature");
    producer.send(asked.clone()).await.unwrap();
    producer.send(answer.clone()).await.unwrap().await.unwrap();
    let ride = author.task("T-17").caused_by(&asked.meta).of_unit("lift-2");
    producer.send(ride.created("ride")).await.unwrap();
    producer.send(ride.assigned("lift-2")).await.unwrap();
    producer.send(ride.started()).await.unwrap();
    producer.send(ride.stalled("started", TimestampMs(0), 60_000)).await.unwrap();
    producer.send(ride.completed()).await.unwrap().await.unwrap();
    world.ok(&["run", "--once"]).await;
    let status = world.json(&["unit", "show", "s504.ulift-2"]).await["status"].clone();
    for (field, value) in [
        ("unit_type", "station"),
        ("model", "L2"),
        ("connection", "online"),
        ("last_authenticated", "badge-51c0"),
        ("doors", r#"{"front":"open"}"#),
        ("field_violation", "true"),
        ("fault_count", "0"),
        ("last_action_type", "goToFloor"),
    ] {
        assert_eq!(text(&status[field]), value, "{field}: {status:#}");
    }
    assert!(text(&status["loads"]).contains(r#""length_m":1.2"#), "{status:#}");
    let task = world.json(&["task", "show", "T-17"]).await;
    assert!(task.to_string().contains("completed"), "{task:#}");
    // What caused what is in history.
    let rows = world.ok(&["history", "s504.ulift-2", "--format", "json"]).await;
    let cleared = rows.lines().find(|row| row.contains("FaultCleared")).unwrap();
    assert!(cleared.contains(&asked.meta.event_id.to_string()), "{cleared}");
    let gone = Decommissioned { reason: Some("replaced".to_owned()), ..lift.decommissioned() };
    producer.send(gone).await.unwrap().await.unwrap();
    world.ok(&["run", "--once"]).await;
    let status = world.json(&["unit", "show", "s504.ulift-2"]).await["status"].clone();
    assert_eq!(
        (text(&status["connection"]), text(&status["decommission_reason"])),
        ("decommissioned".to_owned(), "replaced".to_owned())
    );
    world.verified().await;
}

/// A field as the command prints it: text as it is, everything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The examples of `docs/events.md`, as they stand there.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_documentation_can_be_emitted() {
    let world = World::new("examples").await;
    for event in FleetEvent::types() {
        let example = example(event).unwrap().to_string();
        let sent = world.json(&["emit", event.short_name(), "--json", &example]).await;
        let topic = sent["topic"].as_str().unwrap();
        assert!(topic.ends_with(event.topic), "{sent}");
    }
    let events = world.ok(&["events"]).await;
    assert_eq!(events.lines().count(), FleetEvent::TYPES.len(), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_described_at_the_prompt() {
    let world = World::bare("describe").await;
    let said = world.ok(&["schemas", "describe", "Telemetry"]).await;
    for told in
        ["battery_percent", "a number from 0 to 100", "meta.unit_uid", "fleetlog emit Telemetry --json '{"]
    {
        assert!(said.contains(told), "`{told}` is not in:\n{said}");
    }
    let described = world.json(&["schemas", "describe", "robot.DoorChanged"]).await;
    let door = FleetEvent::types().find(|event| event.short_name() == "DoorChanged").unwrap();
    assert_eq!(described["version"], json!(describe(door).unwrap().version));
    assert_eq!(described["example"], example(door).unwrap());
    assert!(world.fails(2, &["schemas", "describe", "Dor"]).await.stderr.contains("there is no event `Dor`"));
}
