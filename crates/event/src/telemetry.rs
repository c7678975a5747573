//! Topic `telemetry`: where a unit is and how it does, 1 Hz or faster, keyed by the unit, kept 7 days.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    EventMeta,
    event::{event_set, events},
    robot::unit_of,
    validate::number,
};

/// One measurement. What a message did not say is absent, not zero; a reader keeps the last known value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The head.
    pub meta: EventMeta,
    /// Which of the unit's channels it came by, such as `state` or `visualization`.
    #[serde(default)]
    pub channel: Option<String>,
    /// Position on the map, in metres.
    #[serde(default)]
    pub x_m: Option<f64>,
    /// Position on the map, in metres.
    #[serde(default)]
    pub y_m: Option<f64>,
    /// Heading on the map, in radians (VDA 5050 `theta`).
    #[serde(default)]
    pub heading_rad: Option<f64>,
    /// Which map the position is on.
    #[serde(default)]
    pub map_id: Option<String>,
    /// WGS 84 latitude, in degrees.
    #[serde(default)]
    pub latitude_deg: Option<f64>,
    /// WGS 84 longitude, in degrees.
    #[serde(default)]
    pub longitude_deg: Option<f64>,
    /// State of charge, 0 to 100.
    #[serde(default)]
    pub battery_percent: Option<f64>,
    /// Whether it is being charged.
    #[serde(default)]
    pub charging: Option<bool>,
    /// Speed over ground, in m/s.
    #[serde(default)]
    pub speed_m_s: Option<f64>,
    /// Whether it moves (or turns).
    #[serde(default)]
    pub driving: Option<bool>,
    /// Whether it is paused.
    #[serde(default)]
    pub paused: Option<bool>,
    /// The last node of the route that it reached.
    #[serde(default)]
    pub last_node_id: Option<String>,
    /// The task that it works on, or last worked on.
    #[serde(default)]
    pub task_id: Option<String>,
    /// Whether it knows where it is; if not, position and heading cannot be trusted (VDA 5050 `positionInitialized`,
    /// 3.0 `localized`).
    #[serde(default)]
    pub localized: Option<bool>,
    /// Whether it has almost reached the end of what was released to it, and slows down unless it gets more (VDA 5050
    /// `newBaseRequest`).
    #[serde(default)]
    pub new_base_request: Option<bool>,
    /// The zones that it goes by on its map; an empty text where it has none.
    #[serde(default)]
    pub zone_set_id: Option<String>,
    /// What else it told people: kind and text, such as `wifiRssi` → `rssi -66 dBm`. For looking at, not for deciding by.
    #[serde(default)]
    pub information: BTreeMap<String, String>,
}

impl Telemetry {
    /// A measurement that says nothing but who and when: what was measured is set by struct update.
    #[must_use]
    pub fn silent(meta: EventMeta) -> Self {
        Self {
            meta,
            channel: None,
            x_m: None,
            y_m: None,
            heading_rad: None,
            map_id: None,
            latitude_deg: None,
            longitude_deg: None,
            battery_percent: None,
            charging: None,
            speed_m_s: None,
            driving: None,
            paused: None,
            last_node_id: None,
            task_id: None,
            localized: None,
            new_base_request: None,
            zone_set_id: None,
            information: BTreeMap::new(),
        }
    }
}

/// Beyond any map or coordinate in metres; what is larger is a unit mistake or garbage.
const METRES_MAX: f64 = 1e8;

events! {
    topic "telemetry", head UNIT_HEAD by unit_head, entity |event| unit_of(&event.meta);
    Telemetry {
        x_m: number(-METRES_MAX, METRES_MAX),
        y_m: number(-METRES_MAX, METRES_MAX),
        heading_rad: number(-1e3, 1e3),
        latitude_deg: number(-90.0, 90.0),
        longitude_deg: number(-180.0, 180.0),
        battery_percent: number(0.0, 100.0),
        speed_m_s: number(-1e3, 1e3),
    } r#"{"x_m": 12.5, "y_m": 3.25, "heading_rad": 1.57, "map_id": "hall-2", "battery_percent": 81.5, "speed_m_s": 0.8, "driving": true}"#
}

event_set! {
    /// Every event of topic `telemetry`.
    TelemetryEvent on "telemetry" { Telemetry }
}
