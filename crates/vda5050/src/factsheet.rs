//! `factsheet` → `Registered`: what the vehicle is, and its limits.

use std::collections::BTreeMap;

use fleetlog_event::robot::{Registered, UnitType};
use serde_json::Value;

use crate::{
    Verdict,
    emit::Emit,
    json::{elements, filled, text, to_text},
    mapper::Mapped,
    topic::Address,
    vehicle::Vehicle,
};

/// Attribute of `Registered` ← where it stands in the factsheet, by the names of the versions of VDA 5050 (JSON
/// pointers; lists are joined). One name of 3.0 has a space at its end in the official schema, and one is written in two
/// ways: both are read.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("series_description", &["/typeSpecification/seriesDescription"]),
    ("class", &["/typeSpecification/agvClass", "/typeSpecification/mobileRobotClass"]),
    (
        "kinematics",
        &[
            "/typeSpecification/agvKinematic",
            "/typeSpecification/mobileRobotKinematics",
            "/typeSpecification/mobileRobotKinematic",
        ],
    ),
    ("load_mass_max_kg", &["/typeSpecification/maxLoadMass", "/typeSpecification/maximumLoadMass"]),
    ("localization_types", &["/typeSpecification/localizationTypes"]),
    ("navigation_types", &["/typeSpecification/navigationTypes"]),
    ("supported_zones", &["/typeSpecification/supportedZones"]),
    ("speed_min_m_s", &["/physicalParameters/speedMin", "/physicalParameters/minimumSpeed"]),
    ("speed_max_m_s", &["/physicalParameters/speedMax", "/physicalParameters/maximumSpeed"]),
    (
        "angular_speed_min_rad_s",
        &["/physicalParameters/angularSpeedMin", "/physicalParameters/minimumAngularSpeed"],
    ),
    (
        "angular_speed_max_rad_s",
        &["/physicalParameters/angularSpeedMax", "/physicalParameters/maximumAngularSpeed"],
    ),
    (
        "acceleration_max_m_s2",
        &["/physicalParameters/accelerationMax", "/physicalParameters/maximumAcceleration"],
    ),
    (
        "deceleration_max_m_s2",
        &["/physicalParameters/decelerationMax", "/physicalParameters/maximumDeceleration"],
    ),
    ("height_min_m", &["/physicalParameters/heightMin", "/physicalParameters/minimumHeight"]),
    ("height_max_m", &["/physicalParameters/heightMax", "/physicalParameters/maximumHeight"]),
    ("width_m", &["/physicalParameters/width"]),
    ("length_m", &["/physicalParameters/length"]),
    (
        "message_length_max",
        &[
            "/protocolLimits/maxStringLens/msgLen",
            "/protocolLimits/maximumStringLengths/maximumMessageLength",
        ],
    ),
    (
        "topic_serial_length_max",
        &[
            "/protocolLimits/maxStringLens/topicSerialLen",
            "/protocolLimits/maximumStringLengths/maximumTopicSerialLength",
        ],
    ),
    (
        "topic_element_length_max",
        &[
            "/protocolLimits/maxStringLens/topicElemLen",
            "/protocolLimits/maximumStringLengths/maximumTopicElementLength",
        ],
    ),
    (
        "id_length_max",
        &["/protocolLimits/maxStringLens/idLen", "/protocolLimits/maximumStringLengths/maximumIdLength"],
    ),
    (
        "id_numerical_only",
        &[
            "/protocolLimits/maxStringLens/idNumericalOnly",
            "/protocolLimits/maximumStringLengths/idNumericalOnly",
        ],
    ),
    ("enum_length_max", &["/protocolLimits/maxStringLens/enumLen"]),
    (
        "load_id_length_max",
        &[
            "/protocolLimits/maxStringLens/loadIdLen",
            "/protocolLimits/maximumStringLengths/maximumLoadIdLength",
        ],
    ),
    (
        "order_interval_min_s",
        &["/protocolLimits/timing/minOrderInterval", "/protocolLimits/timing/minimumOrderInterval"],
    ),
    (
        "state_interval_min_s",
        &["/protocolLimits/timing/minStateInterval", "/protocolLimits/timing/minimumStateInterval"],
    ),
    ("state_interval_s", &["/protocolLimits/timing/defaultStateInterval"]),
    ("visualization_interval_s", &["/protocolLimits/timing/visualizationInterval"]),
    ("load_positions", &["/loadSpecification/loadPositions"]),
    (
        "battery_critical_percent",
        &[
            "/mobileRobotConfiguration/batteryCharging/criticalLowChargingLevel",
            "/mobileRobotConfiguration/batteryCharging /criticalLowChargingLevel",
        ],
    ),
    (
        "battery_min_percent",
        &[
            "/mobileRobotConfiguration/batteryCharging/minimumDesiredChargingLevel",
            "/mobileRobotConfiguration/batteryCharging /minimumDesiredChargingLevel",
        ],
    ),
    (
        "battery_max_percent",
        &[
            "/mobileRobotConfiguration/batteryCharging/maximumDesiredChargingLevel",
            "/mobileRobotConfiguration/batteryCharging /maximumDesiredChargingLevel",
        ],
    ),
    (
        "charging_time_min_s",
        &[
            "/mobileRobotConfiguration/batteryCharging/minimumChargingTime",
            "/mobileRobotConfiguration/batteryCharging /minimumChargingTime",
        ],
    ),
    ("actions", &["/protocolFeatures/agvActions", "/protocolFeatures/mobileRobotActions"]),
    ("load_types", &["/loadSpecification/loadSets"]),
];

/// The attributes that are lists of objects: the field of an object that is told.
const TOLD_OF_OBJECTS: [(&str, &str); 2] = [("actions", "actionType"), ("load_types", "loadType")];

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
    let series = body.get("typeSpecification").and_then(|section| filled(section, "seriesName"));
    Registered {
        meta: emit.meta(),
        unit_type: UnitType::Robot,
        manufacturer: Some(address.manufacturer.to_owned()),
        model: series.map(str::to_owned),
        serial_number: Some(address.serial_number.to_owned()),
        protocol: Some(protocol(address, body)),
        attributes: attributes(body),
    }
}

fn attributes(body: &Value) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for (attribute, places) in ATTRIBUTES {
        let value = places.iter().find_map(|place| body.pointer(place));
        let told = TOLD_OF_OBJECTS.iter().find(|(of, _)| of == attribute).map(|(_, field)| *field);
        if let Some(text) = value.and_then(|value| as_text(value, told)) {
            attributes.insert((*attribute).to_owned(), text);
        }
    }
    for list in ["maxArrayLens", "maximumArrayLengths"] {
        let limits = body.pointer("/protocolLimits").and_then(|limits| limits.get(list)?.as_object());
        for (of, limit) in limits.into_iter().flatten().filter(|(_, limit)| limit.is_number()) {
            attributes.insert(format!("array_length_max.{of}"), limit.to_string());
        }
    }
    if let Some(weight_kg) = load_weight_max_kg(body) {
        attributes.insert("load_weight_max_kg".to_owned(), weight_kg.to_string());
    }
    for section in ["vehicleConfig", "mobileRobotConfiguration"] {
        for version in body.get(section).map_or(&[][..], |section| elements(section, "versions")) {
            if let (Some(of), Some(value)) = (filled(version, "key"), version.get("value")) {
                attributes.insert(format!("version.{of}"), to_text(value));
            }
        }
    }
    attributes
}

/// A value as text: the elements of a list joined, of objects the field `told`. None for what says nothing.
fn as_text(value: &Value, told: Option<&str>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(elements) => {
            let mut texts: Vec<String> = Vec::new();
            for element in elements {
                let text = match told {
                    Some(field) => text(element, field).map(str::to_owned),
                    None => Some(to_text(element)),
                };
                // Sets of loads repeat their types.
                texts.extend(text.filter(|text| texts.last() != Some(text)));
            }
            (!texts.is_empty()).then(|| texts.join(", "))
        }
        other => Some(to_text(other)),
    }
}

/// The heaviest load of any set.
fn load_weight_max_kg(body: &Value) -> Option<f64> {
    let sets = body.get("loadSpecification").map_or(&[][..], |section| elements(section, "loadSets"));
    let weight = |set: &Value| set.get("maxWeight").or_else(|| set.get("maximumWeight"))?.as_f64();
    sets.iter().filter_map(weight).reduce(f64::max)
}
