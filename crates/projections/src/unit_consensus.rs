//! `unit-consensus`: where each unit is and how it does, by its last ping.
//!
//! Hash `UnitConsensus@s{site}.u{unit}`, and sorted set `seen:{site}`: units by the time of their last telemetry.
//!
//! A last-value fold: a field holds the value that a message last gave for it, a message that says nothing about a
//! field leaves it. So it may be folded from a log with retention. Log order rules: `occurred_at` is the device's
//! own clock, which may be late, 1970 or 2100, and a device that is wrong once would otherwise hide its right values
//! for ever. What is shown as the time of the last ping is therefore `recorded_at`.

use std::collections::BTreeMap;

use fleetlog_event::{
    EntityKey, Recorded, Reject, TimestampMs,
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{FoldProjector, HotWrite};
use serde::{Deserialize, Serialize};

use crate::{json_text, place, time_text};

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
    // What later versions of the event told first is left out where it is not known: states written before are the same.
    /// Whether it knows where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub localized: Option<bool>,
    /// Whether it asks for more of its route to be released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_base_request: Option<bool>,
    /// The zones that it goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_set_id: Option<String>,
    /// What it last told people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub information: BTreeMap<String, String>,
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
            HotWrite::maybe("localized", state.localized),
            HotWrite::maybe("new_base_request", state.new_base_request),
            HotWrite::maybe("zone_set_id", state.zone_set_id.as_deref()),
            HotWrite::maybe(
                "information",
                (!state.information.is_empty()).then(|| json_text(&state.information)),
            ),
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
    state.localized = telemetry.localized.or(state.localized);
    state.new_base_request = telemetry.new_base_request.or(state.new_base_request);
    if !telemetry.information.is_empty() && telemetry.information != state.information {
        state.information.clone_from(&telemetry.information);
    }
    let texts = [
        (&mut state.map_id, &telemetry.map_id),
        (&mut state.last_node_id, &telemetry.last_node_id),
        (&mut state.task_id, &telemetry.task_id),
        (&mut state.zone_set_id, &telemetry.zone_set_id),
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

#[cfg(test)]
mod tests {
    use fleetlog_event::{EventMeta, Reason};
    use fleetlog_projection::{
        Fold,
        given::{MemoryLog, START, assert_cuts_do_not_matter, given, later, unit_meta},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{cuts, telemetry};

    const UNIT: &str = "s504.u7";

    fn at(seconds: i64) -> EventMeta {
        later(unit_meta("504", "7"), seconds * 1000)
    }

    #[test]
    fn a_field_keeps_its_last_known_value() {
        let state = Telemetry {
            x_m: Some(1.5),
            battery_percent: Some(80.0),
            driving: Some(true),
            ..Telemetry::silent(at(1))
        };
        let visualization =
            Telemetry { x_m: Some(2.5), map_id: Some("hall".to_owned()), ..Telemetry::silent(at(2)) };
        let _ = given(UnitConsensus)
            .events([state, visualization])
            .then_field(UNIT, "x_m", Some("2.5"))
            .then_field(UNIT, "battery_percent", Some("80"))
            .then_field(UNIT, "driving", Some("true"))
            .then_field(UNIT, "map_id", Some("hall"))
            .then_field(UNIT, "y_m", None)
            .then_field(UNIT, "recorded_at", Some("2024-01-01T00:00:02.000Z"))
            .then_ranked(UNIT, "seen:504", Some((START.0 + 2000) as f64));
    }

    #[test]
    fn an_empty_text_is_a_value() {
        let task = |task_id: &str, seconds| Telemetry {
            task_id: Some(task_id.to_owned()),
            ..Telemetry::silent(at(seconds))
        };
        let _ =
            given(UnitConsensus).events([task("T1", 1), task("", 2)]).then_field(UNIT, "task_id", Some(""));
    }

    #[test]
    fn what_it_told_people_stays_until_it_tells_something_else() {
        let told = |text: &str, seconds| Telemetry {
            information: [("wifiRssi".to_owned(), text.to_owned())].into(),
            zone_set_id: Some("zones-4".to_owned()),
            ..Telemetry::silent(at(seconds))
        };
        let asks = |asks, seconds| Telemetry {
            new_base_request: Some(asks),
            localized: Some(true),
            ..Telemetry::silent(at(seconds))
        };
        let _ = given(UnitConsensus)
            .event(Telemetry::silent(at(1)))
            .then_field(UNIT, "information", None)
            .then_field(UNIT, "new_base_request", None)
            .events([told("rssi -66 dBm", 2), told("rssi -45 dBm", 3), asks(true, 4), asks(false, 5)])
            .then_field(UNIT, "information", Some(r#"{"wifiRssi":"rssi -45 dBm"}"#))
            .then_field(UNIT, "zone_set_id", Some("zones-4"))
            .then_field(UNIT, "new_base_request", Some("false"))
            .then_field(UNIT, "localized", Some("true"));
    }

    /// Log order rules: device clocks do not.
    #[test]
    fn a_message_of_1970_or_2100_is_folded_where_it_lies() {
        let clocked = |x_m, occurred_at, seconds| {
            let meta = EventMeta { occurred_at: TimestampMs(occurred_at), ..at(seconds) };
            Telemetry { x_m: Some(x_m), ..Telemetry::silent(meta) }
        };
        let _ = given(UnitConsensus)
            .events([clocked(1.0, 4_102_444_800_000, 1), clocked(2.0, 0, 2)])
            .then_field(UNIT, "x_m", Some("2"))
            .then_field(UNIT, "occurred_at", Some("1970-01-01T00:00:00.000Z"))
            .then_field(UNIT, "recorded_at", Some("2024-01-01T00:00:02.000Z"))
            .event(clocked(3.0, i64::MAX, 3))
            .then_field(UNIT, "occurred_at", Some("9223372036854775807ms"));
    }

    #[test]
    fn a_number_that_is_none_is_rejected() {
        for x_m in [f64::NAN, f64::INFINITY, 1e300] {
            let _ = given(UnitConsensus)
                .when(Telemetry { x_m: Some(x_m), ..Telemetry::silent(at(1)) })
                .then_rejected(Reason::OutOfRange)
                .then_told("x_m");
        }
    }

    proptest! {
        #[test]
        fn the_cut_of_the_log_does_not_matter(events in prop::collection::vec(telemetry(), 0..60), cuts in cuts()) {
            let mut log = MemoryLog::default();
            for event in events {
                log.append(event);
            }
            assert_cuts_do_not_matter(&Fold::new(UnitConsensus), &log, &cuts);
        }
    }
}
