//! `state` → `Telemetry`, and an event for each thing that changed since the vehicle's last state.

use fleetlog_event::{
    FleetEvent,
    robot::{EmergencyStop, Load, LoadChanged, ModeChanged, OperatingMode, SafetyChanged},
};
use serde_json::Value;

use crate::{
    Verdict,
    emit::Emit,
    faults,
    json::{elements, flag, text},
    mapper::Mapped,
    orders::task_id,
    telemetry::{need_one_of, note_time, read},
    vehicle::Vehicle,
};

/// Fields of a `state` that the mapping reads; one of them has to be there.
const STATE_FIELDS: [&str; 21] = [
    "headerId",
    "orderId",
    "lastNodeId",
    "driving",
    "paused",
    "operatingMode",
    "nodeStates",
    "agvPosition",
    "mobileRobotPosition",
    "velocity",
    "loads",
    "actionStates",
    "instantActionStates",
    "batteryState",
    "powerSupply",
    "errors",
    "safetyState",
    "information",
    "newBaseRequest",
    "zoneSetId",
    "zoneSets",
];

/// What version 3.0 lists of requests and zone actions: no event says it.
const WITHOUT_EVENT: [&str; 3] = ["zoneRequests", "edgeRequests", "zoneActionStates"];

/// The measurement first, then what changed of the unit, then what changed of its tasks. The first state of a vehicle
/// tells everything that it says; later ones what differs. A field that is absent has not changed.
pub(crate) fn map(vehicle: &mut Vehicle, body: &Value, arrived_ms: i64, emit: &mut Emit<'_>) -> Mapped {
    need_one_of(body, &STATE_FIELDS)?;
    note_time(vehicle, body, arrived_ms);
    let mut telemetry = read(body, "state", &mut vehicle.state_counter, emit);
    telemetry.task_id = working_on(body, emit);
    emit.events.push(FleetEvent::Telemetry(telemetry.into()));
    mode(vehicle, body, emit);
    safety(vehicle, body, emit);
    loads(vehicle, body, emit);
    faults::map(vehicle, body, emit);
    vehicle.orders.on_state(body, emit);
    let without_event = WITHOUT_EVENT.into_iter().filter(|field| !elements(body, field).is_empty());
    emit.omitted.extend(without_event);
    Ok(Verdict::Mapped)
}

/// The task the state names; an empty text where it says that there is none (`orderId` is empty).
fn working_on(body: &Value, emit: &mut Emit<'_>) -> Option<String> {
    let order_id = text(body, "orderId")?;
    if order_id.is_empty() {
        return Some(String::new());
    }
    let id = task_id(emit.site_uid, &emit.unit_uid, order_id);
    if id.is_none() {
        emit.omitted.push("orderId");
    }
    id
}

fn mode(vehicle: &mut Vehicle, body: &Value, emit: &mut Emit<'_>) {
    let Some(said) = text(body, "operatingMode") else { return };
    let mode = match said {
        "AUTOMATIC" => OperatingMode::Automatic,
        "SEMIAUTOMATIC" => OperatingMode::Semiautomatic,
        "MANUAL" => OperatingMode::Manual,
        "SERVICE" => OperatingMode::Service,
        "TEACHIN" | "TEACH_IN" => OperatingMode::TeachIn,
        "STARTUP" => OperatingMode::Startup,
        "INTERVENED" => OperatingMode::Intervened,
        _ => {
            emit.omitted.push("operatingMode");
            OperatingMode::Unknown
        }
    };
    if vehicle.mode != Some(mode) {
        vehicle.mode = Some(mode);
        emit.robot(ModeChanged { meta: emit.meta(), mode });
    }
}

fn safety(vehicle: &mut Vehicle, body: &Value, emit: &mut Emit<'_>) {
    let Some(said) = body.get("safetyState").filter(|said| said.is_object()) else { return };
    let known = vehicle.safety.as_ref();
    let stop = text(said, "eStop").or_else(|| text(said, "activeEmergencyStop"));
    let emergency_stop = match stop {
        Some("NONE") => EmergencyStop::None,
        Some("MANUAL") => EmergencyStop::Manual,
        Some("REMOTE") => EmergencyStop::Remote,
        Some("AUTOACK") => EmergencyStop::AutoAck,
        Some(_) => {
            emit.omitted.push("safetyState.eStop");
            EmergencyStop::Unknown
        }
        None => known.map_or(EmergencyStop::Unknown, |known| known.emergency_stop),
    };
    let field_violation =
        flag(said, "fieldViolation").unwrap_or_else(|| known.is_some_and(|known| known.field_violation));
    if known.is_some_and(|k| (k.emergency_stop, k.field_violation) == (emergency_stop, field_violation)) {
        return;
    }
    let changed = SafetyChanged { meta: emit.meta(), emergency_stop, field_violation };
    vehicle.safety = Some(changed.clone());
    emit.robot(changed);
}

/// An absent list means that the vehicle does not know; an empty one that it carries nothing. A vehicle that carries
/// nothing when it is first heard of has not changed.
fn loads(vehicle: &mut Vehicle, body: &Value, emit: &mut Emit<'_>) {
    let Some(list) = body.get("loads").and_then(Value::as_array) else { return };
    let loads: Vec<Load> =
        list.iter().filter(|load| load.is_object()).map(|load| read_load(load, emit)).collect();
    let known = vehicle.loads.replace(loads.clone()).unwrap_or_default();
    if known != loads {
        emit.robot(LoadChanged { meta: emit.meta(), loads });
    }
}

/// Where a load's length, width and height come from.
const DIMENSIONS: &str = "loads.loadDimensions";

fn read_load(load: &Value, emit: &mut Emit<'_>) -> Load {
    let named = |field| text(load, field).map(str::to_owned);
    let dimension = |side| load.get("loadDimensions")?.get(side)?.as_f64();
    Load {
        load_id: named("loadId"),
        load_type: named("loadType"),
        load_position: named("loadPosition"),
        weight_kg: emit.number::<LoadChanged>(
            "loads[].weight_kg",
            "loads.weight",
            load.get("weight").and_then(Value::as_f64),
        ),
        length_m: emit.number::<LoadChanged>("loads[].length_m", DIMENSIONS, dimension("length")),
        width_m: emit.number::<LoadChanged>("loads[].width_m", DIMENSIONS, dimension("width")),
        height_m: emit.number::<LoadChanged>("loads[].height_m", DIMENSIONS, dimension("height")),
    }
}
