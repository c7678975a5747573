//! Topic `telemetry`: where a unit is and how it does, 1 Hz or faster, keyed by the unit, kept 7 days.

use serde::{Deserialize, Serialize};

use crate::{
    EntityKey, Event, EventMeta, Reject,
    event::event_set,
    robot::unit_of,
    validate::{number, unit_meta},
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
}

/// Beyond any map or coordinate in metres; what is larger is a unit mistake or garbage.
const METRES_MAX: f64 = 1e8;

impl Event for Telemetry {
    const NAME: &'static str = "fleetlog.telemetry.Telemetry";
    const TOPIC: &'static str = "telemetry";
    fn meta(&self) -> &EventMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut EventMeta {
        &mut self.meta
    }
    fn entity(&self) -> EntityKey {
        unit_of(&self.meta)
    }
    fn validate(&self) -> Result<(), Reject> {
        unit_meta(&self.meta)?;
        number("x_m", self.x_m, -METRES_MAX..=METRES_MAX)?;
        number("y_m", self.y_m, -METRES_MAX..=METRES_MAX)?;
        number("heading_rad", self.heading_rad, -1e3..=1e3)?;
        number("latitude_deg", self.latitude_deg, -90.0..=90.0)?;
        number("longitude_deg", self.longitude_deg, -180.0..=180.0)?;
        number("battery_percent", self.battery_percent, 0.0..=100.0)?;
        number("speed_m_s", self.speed_m_s, -1e3..=1e3)
    }
}

event_set! {
    /// Every event of topic `telemetry`.
    TelemetryEvent on "telemetry" { Telemetry }
}
