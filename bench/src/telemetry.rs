//! Measurements like a fleet's.

use fleetlog_event::{EventId, EventMeta, TimestampMs, telemetry::Telemetry};

/// The site of all units.
pub const SITE: &str = "504";

/// The unit of that number, as its source names it.
#[must_use]
pub fn unit_uid(unit: u64) -> String {
    format!("10100{unit:05}")
}

/// The `n`-th measurement of so many units: they take turns, a second passes from one turn to the next.
#[must_use]
pub fn measurement(n: u64, units: u64, start: TimestampMs, event_id: EventId) -> Telemetry {
    let (unit, turn) = (n % units, n / units);
    let meta = EventMeta {
        event_id,
        occurred_at: TimestampMs(start.0 + i64::try_from(turn).unwrap_or(i64::MAX) * 1000),
        recorded_at: TimestampMs(0),
        site_uid: SITE.into(),
        unit_uid: Some(unit_uid(unit)),
        sequence: i64::try_from(turn).ok(),
        sequence_scope: Some("state#0".into()),
        source: "bench/1".into(),
        correlation_id: None,
        causation_id: None,
    };
    Telemetry {
        channel: Some("state".into()),
        x_m: Some(turn as f64 * 0.5),
        y_m: Some(unit as f64),
        heading_rad: Some(0.25),
        map_id: Some("hall".into()),
        battery_percent: Some(100.0 - (turn % 100) as f64),
        charging: Some(false),
        speed_m_s: Some(0.5),
        driving: Some(true),
        ..Telemetry::silent(meta)
    }
}
