//! `factsheet` → `Registered`.

use std::collections::BTreeMap;

use fleetlog_event::robot::{Registered, UnitType};
use serde_json::Value;

use crate::{
    Verdict,
    emit::Emit,
    json::{filled, to_text},
    mapper::Mapped,
    topic::Address,
    vehicle::Vehicle,
};

/// Attribute of `Registered` ← (section of the factsheet, names of its field in the versions of VDA 5050).
const ATTRIBUTES: [(&str, &str, &[&str]); 11] = [
    ("series_description", "typeSpecification", &["seriesDescription"]),
    ("class", "typeSpecification", &["agvClass", "mobileRobotClass"]),
    ("kinematics", "typeSpecification", &["agvKinematic", "mobileRobotKinematics"]),
    ("load_mass_max_kg", "typeSpecification", &["maxLoadMass", "maximumLoadMass"]),
    ("speed_min_m_s", "physicalParameters", &["speedMin", "minimumSpeed"]),
    ("speed_max_m_s", "physicalParameters", &["speedMax", "maximumSpeed"]),
    ("acceleration_max_m_s2", "physicalParameters", &["accelerationMax", "maximumAcceleration"]),
    ("deceleration_max_m_s2", "physicalParameters", &["decelerationMax", "maximumDeceleration"]),
    ("height_max_m", "physicalParameters", &["heightMax", "maximumHeight"]),
    ("width_m", "physicalParameters", &["width"]),
    ("length_m", "physicalParameters", &["length"]),
];

/// The protocol a message speaks: its own `version`; the topic's where it names none.
pub(crate) fn protocol(address: &Address<'_>, body: &Value) -> String {
    let version = filled(body, "version").unwrap_or_else(|| address.version.trim_start_matches('v'));
    format!("VDA5050/{version}")
}

/// An event when the vehicle is told of for the first time, and when what is told of it changed. A factsheet may have
/// its header only: then it takes nothing back.
pub(crate) fn map(
    vehicle: &mut Vehicle,
    address: &Address<'_>,
    body: &Value,
    retain: bool,
    emit: &mut Emit<'_>,
) -> Mapped {
    let registered = read(address, body, emit);
    let says_nothing = registered.model.is_none() && registered.attributes.is_empty();
    let unchanged = vehicle.registered.as_ref().is_some_and(|known| {
        let same = (&known.model, &known.protocol, &known.attributes)
            == (&registered.model, &registered.protocol, &registered.attributes);
        same || says_nothing
    });
    if unchanged {
        return Ok(if retain { Verdict::RetainedReplay } else { Verdict::NoChange });
    }
    vehicle.registered = Some(registered.clone());
    emit.robot(registered);
    Ok(if retain { Verdict::RetainedNews } else { Verdict::Mapped })
}

fn read(address: &Address<'_>, body: &Value, emit: &Emit<'_>) -> Registered {
    let mut attributes = BTreeMap::new();
    for (attribute, section, fields) in ATTRIBUTES {
        let values = body.get(section);
        let value = values.and_then(|values| fields.iter().find_map(|field| values.get(field)));
        if let Some(value) = value.filter(|value| !value.is_null()) {
            attributes.insert(attribute.to_owned(), to_text(value));
        }
    }
    let series = body.get("typeSpecification").and_then(|section| filled(section, "seriesName"));
    Registered {
        meta: emit.meta(),
        unit_type: UnitType::Robot,
        manufacturer: Some(address.manufacturer.to_owned()),
        model: series.map(str::to_owned),
        serial_number: Some(address.serial_number.to_owned()),
        protocol: Some(protocol(address, body)),
        attributes,
    }
}
