//! `unit-consensus`: where each unit is and how it does, by its last ping.
//!
//! Hash `UnitConsensus@s{site}.u{unit}`, and sorted set `seen:{site}`: units by the time of their last telemetry.
//!
//! A last-value fold: a field holds the value that a message last gave for it, a message that says nothing about a
//! field leaves it. So it may be folded from a log with retention. Log order rules: `occurred_at` is the device's
//! own clock, which may be late, 1970 or 2100, and a device that is wrong once would otherwise hide its right values
//! for ever. What is shown as the time of the last ping is therefore `recorded_at`.

use fleetlog_event::{
    EntityKey, Recorded, Reject, TimestampMs,
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{FoldProjector, HotWrite};
use serde::{Deserialize, Serialize};

use crate::{place, time_text};

/// The last known value of everything that telemetry tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitConsensusState {
    /// The unit's site, as its source names it.
    pub site_uid: String,
    /// The unit, as its source names it.
    pub unit_uid: String,
    /// The device's time of the last message.
    pub occurred_at: TimestampMs,
    /// When fleetlog took the last message in.
    pub recorded_at: TimestampMs,
    /// The channel of the last message.
    pub channel: Option<String>,
    /// The source's counter in the last message, and what it counts.
    pub sequence: Option<i64>,
    /// What `sequence` counts.
    pub sequence_scope: Option<String>,
    /// Who made the last message into an event.
    pub source: String,
    /// Position on the map, in metres.
    pub x_m: Option<f64>,
    /// Position on the map, in metres.
    pub y_m: Option<f64>,
    /// Heading, in radians.
    pub heading_rad: Option<f64>,
    /// The map.
    pub map_id: Option<String>,
    /// WGS 84 latitude, in degrees.
    pub latitude_deg: Option<f64>,
    /// WGS 84 longitude, in degrees.
    pub longitude_deg: Option<f64>,
    /// State of charge, 0 to 100.
    pub battery_percent: Option<f64>,
    /// Whether it is being charged.
    pub charging: Option<bool>,
    /// Speed, in m/s.
    pub speed_m_s: Option<f64>,
    /// Whether it moves.
    pub driving: Option<bool>,
    /// Whether it is paused.
    pub paused: Option<bool>,
    /// The last node that it reached.
    pub last_node_id: Option<String>,
    /// The task that it works on, or last worked on.
    pub task_id: Option<String>,
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnitConsensus;

impl FoldProjector for UnitConsensus {
    const ID: &'static str = "unit-consensus";
    type Event = TelemetryEvent;
    type Write = HotWrite;
    type State = UnitConsensusState;

    fn home(&self, key: &EntityKey) -> String {
        format!("UnitConsensus@{key}")
    }

    fn apply(&self, state: &mut UnitConsensusState, event: &Recorded<TelemetryEvent>) -> Result<(), Reject> {
        let TelemetryEvent::Telemetry(telemetry) = &event.event;
        set(&mut state.site_uid, &telemetry.meta.site_uid);
        set(&mut state.unit_uid, telemetry.meta.unit_uid.as_deref().unwrap_or_default());
        set(&mut state.source, &telemetry.meta.source);
        state.occurred_at = telemetry.meta.occurred_at;
        state.recorded_at = event.recorded_at;
        state.sequence = telemetry.meta.sequence;
        replace(&mut state.sequence_scope, telemetry.meta.sequence_scope.as_deref());
        replace(&mut state.channel, telemetry.channel.as_deref());
        keep_or_take(state, telemetry);
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &UnitConsensusState, out: &mut Vec<HotWrite>) {
        out.extend([
            HotWrite::field("site_uid", state.site_uid.as_str()),
            HotWrite::field("unit_uid", state.unit_uid.as_str()),
            HotWrite::field("occurred_at", time_text(state.occurred_at)),
            HotWrite::field("recorded_at", time_text(state.recorded_at)),
            HotWrite::field("recorded_at_ms", state.recorded_at.0.to_string()),
            HotWrite::maybe("channel", state.channel.as_deref()),
            HotWrite::maybe("sequence", state.sequence),
            HotWrite::maybe("sequence_scope", state.sequence_scope.as_deref()),
            HotWrite::field("source", state.source.as_str()),
            HotWrite::maybe("x_m", state.x_m),
            HotWrite::maybe("y_m", state.y_m),
            HotWrite::maybe("heading_rad", state.heading_rad),
            HotWrite::maybe("map_id", state.map_id.as_deref()),
            HotWrite::maybe("latitude_deg", state.latitude_deg),
            HotWrite::maybe("longitude_deg", state.longitude_deg),
            HotWrite::maybe("battery_percent", state.battery_percent),
            HotWrite::maybe("charging", state.charging),
            HotWrite::maybe("speed_m_s", state.speed_m_s),
            HotWrite::maybe("driving", state.driving),
            HotWrite::maybe("paused", state.paused),
            HotWrite::maybe("last_node_id", state.last_node_id.as_deref()),
            HotWrite::maybe("task_id", state.task_id.as_deref()),
            place(format!("seen:{}", state.site_uid), key, Some(state.recorded_at.0)),
        ]);
    }
}

/// Takes every value that the message gives, keeps the last known one where it says nothing.
fn keep_or_take(state: &mut UnitConsensusState, telemetry: &Telemetry) {
    state.x_m = telemetry.x_m.or(state.x_m);
    state.y_m = telemetry.y_m.or(state.y_m);
    state.heading_rad = telemetry.heading_rad.or(state.heading_rad);
    state.latitude_deg = telemetry.latitude_deg.or(state.latitude_deg);
    state.longitude_deg = telemetry.longitude_deg.or(state.longitude_deg);
    state.battery_percent = telemetry.battery_percent.or(state.battery_percent);
    state.charging = telemetry.charging.or(state.charging);
    state.speed_m_s = telemetry.speed_m_s.or(state.speed_m_s);
    state.driving = telemetry.driving.or(state.driving);
    state.paused = telemetry.paused.or(state.paused);
    let texts = [
        (&mut state.map_id, &telemetry.map_id),
        (&mut state.last_node_id, &telemetry.last_node_id),
        (&mut state.task_id, &telemetry.task_id),
    ];
    for (known, said) in texts {
        if said.is_some() {
            replace(known, said.as_deref());
        }
    }
}

/// Writes a text over another. At 1 Hz a unit says the same texts again and again: equal ones are left alone, others
/// reuse their memory.
fn set(known: &mut String, said: &str) {
    if known != said {
        known.clear();
        known.push_str(said);
    }
}

fn replace(known: &mut Option<String>, said: Option<&str>) {
    match (known.as_mut(), said) {
        (Some(known), Some(said)) => set(known, said),
        (_, said) => *known = said.map(str::to_owned),
    }
}
