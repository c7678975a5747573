//! The measurements of `state` and `visualization` → `Telemetry`.

use fleetlog_event::{FleetEvent, telemetry::Telemetry};
use serde_json::Value;

use crate::{
    DeadReason, Verdict,
    emit::Emit,
    json::{flag, text},
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
        x_m: emit.number("agvPosition.x", number(position, "x"), -1e8..=1e8),
        y_m: emit.number("agvPosition.y", number(position, "y"), -1e8..=1e8),
        heading_rad: emit.number("agvPosition.theta", number(position, "theta"), -1e3..=1e3),
        map_id: position.and_then(|position| text(position, "mapId")).map(str::to_owned),
        latitude_deg: None,
        longitude_deg: None,
        battery_percent: emit.number("batteryState.batteryCharge", charge, 0.0..=100.0),
        charging: battery.and_then(|battery| flag(battery, "charging")),
        speed_m_s: emit.number("velocity", speed, 0.0..=1e3),
        driving: flag(body, "driving"),
        paused: flag(body, "paused"),
        last_node_id: text(body, "lastNodeId").map(str::to_owned),
        task_id: None,
    }
}
