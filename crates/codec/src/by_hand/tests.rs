//! Tests of reading events that were written by hand.
#![expect(clippy::unwrap_used, reason = "tests")]

use fleetlog_event::{Reason, Rule};
use serde_json::json;

use super::*;
use crate::reference::example;

fn event_type(name: &str) -> EventType {
    FleetEvent::types().find(|event| event.short_name() == name).unwrap()
}

fn blanks() -> Blanks {
    Blanks {
        event_id: EventId::derived("by-hand", 0),
        now: TimestampMs(1_700_000_000_000),
        source: "test/1".to_owned(),
    }
}

/// Puts `value` to where `path` says in the example of event `name`, and reads it.
fn with(name: &str, path: &str, value: Value) -> Result<FleetEvent, ByHandError> {
    let mut json = example(event_type(name)).unwrap();
    let mut place = &mut json;
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    read(event_type(name), json, &blanks())
}

#[test]
fn the_head_is_filled_in_where_it_lacks_something() {
    let event =
        read(event_type("DoorChanged"), example(event_type("DoorChanged")).unwrap(), &blanks()).unwrap();
    let meta = event.meta();
    assert_eq!(
        (meta.event_id, meta.occurred_at, meta.recorded_at),
        (blanks().event_id, blanks().now, blanks().now)
    );
    assert_eq!((meta.site_uid.as_str(), meta.source.as_str()), ("504", "test/1"));
    let event = with("DoorChanged", "meta.occurred_at", json!(5)).unwrap();
    assert_eq!((event.meta().occurred_at.0, event.meta().recorded_at), (5, blanks().now));
}

#[test]
fn what_is_wrong_is_told_with_field_value_and_rule() {
    for (name, path, value, told) in [
        ("DoorChanged", "state", json!("opne"), "state is \"opne\", expected one of \"open\", \"opening\""),
        (
            "DoorChanged",
            "dor",
            json!("x"),
            "there is no field `dor`, expected one of `meta`, `door`, `state`",
        ),
        ("DoorChanged", "meta.sit", json!("x"), "there is no field `meta.sit`, expected one of `event_id`"),
        ("DoorChanged", "meta.event_id", json!("x"), "meta.event_id is \"x\", expected a UUID"),
        ("DoorChanged", "meta", json!([]), "meta is [], expected an object"),
        ("Authenticated", "accepted", json!("yes"), "accepted is \"yes\", expected true or false"),
        ("Telemetry", "x_m", json!("12"), "x_m is \"12\", expected a number"),
        ("Completed", "failed_steps", json!(1.5), "failed_steps is 1.5, expected a whole number of 32 bits"),
        ("Created", "steps.1", json!({"step_type": "drop"}), "steps[1].step_id is missing, expected a text"),
        ("Created", "steps", json!("drop"), "steps is \"drop\", expected a list"),
        ("Created", "parameters", json!({"a": 1}), "parameters.a is 1, expected a text"),
        ("LoadChanged", "loads.0.weight", json!(3), "there is no field `loads[0].weight`"),
        (
            "FaultRaised",
            "fault_id",
            json!("x".repeat(600)),
            "fault_id has 600 bytes, expected a text of 1 to 512",
        ),
        (
            "Telemetry",
            "battery_percent",
            json!(250),
            "battery_percent is 250, expected a number from 0 to 100",
        ),
        ("Telemetry", "x_m", json!(1e300), "x_m is 1e300, expected a number from -100000000 to 100000000"),
        (
            "LoadChanged",
            "loads.0.weight_kg",
            json!(-1),
            "loads[0].weight_kg is -1, expected a number from 0 to",
        ),
        (
            "Created",
            "steps.0.step_id",
            json!(""),
            "steps[0].step_id is empty, expected a text of 1 to 512 bytes",
        ),
        (
            "Completed",
            "failed_steps",
            json!(-1),
            "failed_steps is -1, expected a number from 0 to 2147483647",
        ),
        ("Started", "meta.site_uid", json!(""), "meta.site_uid is empty, expected a text of 1 to 512 bytes"),
    ] {
        let error = with(name, path, value).unwrap_err().to_string();
        assert!(error.contains(told), "{name} {path}: {error}");
    }
    let none = read(event_type("DoorChanged"), json!("open"), &blanks()).unwrap_err().to_string();
    assert_eq!(none, "the event is \"open\", expected an object");
    let long = with("DoorChanged", "state", json!("ä".repeat(5000))).unwrap_err().to_string();
    assert!(long.len() < 500, "{long}");
}

/// Every declared check is asked: the example with that one field made wrong is rejected, by the field's name.
#[test]
fn every_declared_check_is_asked() {
    let mut asked = 0;
    for event in FleetEvent::types() {
        for check in FleetEvent::declared(event.name).unwrap().checks {
            #[expect(clippy::cast_possible_truncation, reason = "bounds are whole")]
            let wrong = match check.rule {
                Rule::Id => json!(""),
                Rule::Number { min, .. } => json!((min - 1.0) as i64),
            };
            let path = check.field.replace("[]", ".0");
            match with(event.short_name(), &path, wrong) {
                Err(ByHandError::Rejected(reject)) => {
                    let field = check.field.replace("[]", "[0]");
                    assert!(reject.detail.starts_with(&field), "{event:?} {field}: {reject}");
                    assert!(matches!(reject.reason, Reason::InvalidText | Reason::OutOfRange));
                }
                other => panic!("{event:?} {}: {other:?}", check.field),
            }
            asked += 1;
        }
    }
    assert!(asked > 24 * 3, "{asked}");
}
