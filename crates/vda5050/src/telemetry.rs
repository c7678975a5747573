//! The measurements of `state` and `visualization` → `Telemetry`.

use std::collections::BTreeMap;

use fleetlog_event::{FleetEvent, telemetry::Telemetry};
use serde_json::Value;

use crate::{
    DeadReason, Verdict,
    emit::Emit,
    json::{elements, filled, flag, text},
    mapper::Mapped,
    time::timestamp_ms,
    vehicle::{Counter, Vehicle},
};

/// Fields of a `visualization` that the mapping reads; one of them has to be there.
const VISUALIZATION_FIELDS: [&str; 4] = ["headerId", "agvPosition", "mobileRobotPosition", "velocity"];

/// Position and speed, nothing else.
pub(crate) fn map_visualization(
    vehicle: &mut Vehicle,
    body: &Value,
    arrived_ms: i64,
    emit: &mut Emit<'_>,
) -> Mapped {
    need_one_of(body, &VISUALIZATION_FIELDS)?;
    note_time(vehicle, body, arrived_ms);
    let telemetry = read(body, "visualization", &mut vehicle.visualization_counter, emit);
    emit.events.push(FleetEvent::Telemetry(telemetry.into()));
    Ok(Verdict::Mapped)
}

/// A message without any field that the mapping reads tells nothing.
pub(crate) fn need_one_of(body: &Value, fields: &[&str]) -> Result<(), (DeadReason, String)> {
    if fields.iter().any(|field| body.get(field).is_some_and(|value| !value.is_null())) {
        return Ok(());
    }
    Err((DeadReason::MissingField, format!("none of `{}` is there", fields.join("`, `"))))
}

/// Notes the vehicle's own clock.
pub(crate) fn note_time(vehicle: &mut Vehicle, body: &Value, arrived_ms: i64) {
    if let Some(device_ms) = timestamp_ms(body) {
        vehicle.clock.seen(device_ms, arrived_ms);
    }
}

/// What both kinds of message can say, by the names of all versions of VDA 5050. What it does not say is absent.
pub(crate) fn read(body: &Value, channel: &str, counter: &mut Counter, emit: &mut Emit<'_>) -> Telemetry {
    let mut meta = emit.meta();
    counter.count(channel, body, &mut meta);
    let position = body.get("agvPosition").or_else(|| body.get("mobileRobotPosition"));
    let battery = body.get("batteryState").or_else(|| body.get("powerSupply"));
    let number = |section: Option<&Value>, field: &str| section?.get(field)?.as_f64();
    let velocity = body.get("velocity");
    let speed = match (number(velocity, "vx"), number(velocity, "vy")) {
        (None, None) => None,
        (vx, vy) => Some(vx.unwrap_or_default().hypot(vy.unwrap_or_default())),
    };
    let charge = number(battery, "batteryCharge").or_else(|| number(battery, "stateOfCharge"));
    Telemetry {
        meta,
        channel: Some(channel.to_owned()),
        x_m: emit.number::<Telemetry>("x_m", "agvPosition.x", number(position, "x")),
        y_m: emit.number::<Telemetry>("y_m", "agvPosition.y", number(position, "y")),
        heading_rad: emit.number::<Telemetry>("heading_rad", "agvPosition.theta", number(position, "theta")),
        map_id: position.and_then(|position| text(position, "mapId")).map(str::to_owned),
        latitude_deg: None,
        longitude_deg: None,
        battery_percent: emit.number::<Telemetry>("battery_percent", "batteryState.batteryCharge", charge),
        charging: battery.and_then(|battery| flag(battery, "charging")),
        speed_m_s: emit.number::<Telemetry>("speed_m_s", "velocity", speed),
        driving: flag(body, "driving"),
        paused: flag(body, "paused"),
        last_node_id: text(body, "lastNodeId").map(str::to_owned),
        task_id: None,
        localized: position.and_then(|position| {
            flag(position, "positionInitialized").or_else(|| flag(position, "localized"))
        }),
        new_base_request: flag(body, "newBaseRequest"),
        zone_set_id: zone_set_id(body, position),
        information: information(body),
    }
}

/// Up to 2.1 a state names its zones. In 3.0 it lists all that the vehicle stores: it goes by the enabled one of its map,
/// and by none if no set of that map is enabled. Where it is on no map, one that is enabled alone is meant.
fn zone_set_id(body: &Value, position: Option<&Value>) -> Option<String> {
    if let Some(said) = text(body, "zoneSetId") {
        return Some(said.to_owned());
    }
    let sets = body.get("zoneSets")?.as_array()?;
    let enabled = || sets.iter().filter(|set| text(set, "zoneSetStatus") == Some("ENABLED"));
    let name = |set: &Value| text(set, "zoneSetId").unwrap_or_default().to_owned();
    if let Some(map_id) = position.and_then(|position| text(position, "mapId")) {
        let of_map = enabled().find(|set| text(set, "mapId") == Some(map_id));
        return Some(of_map.map(name).unwrap_or_default());
    }
    let mut all = enabled();
    match (all.next(), all.next()) {
        (None, _) => Some(String::new()),
        (Some(only), None) => Some(name(only)),
        _ => None,
    }
}

/// What the vehicle tells people: kind → text. Its level and references are not carried.
fn information(body: &Value) -> BTreeMap<String, String> {
    let mut told = BTreeMap::<String, String>::new();
    for info in elements(body, "information") {
        let Some(kind) = filled(info, "infoType") else { continue };
        let words =
            text(info, "infoDescription").or_else(|| text(info, "infoDescriptor")).unwrap_or_default();
        told.entry(kind.to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(words);
            })
            .or_insert_with(|| words.to_owned());
    }
    told
}
