//! `telemetry-history`: every measurement as a row of table `telemetry`.
//!
//! One event is one row; what a message did not say is NULL. `recorded_at` (when fleetlog took it in) is the time of
//! partitions and retention, `occurred_at` is the device's own clock, wild as it may be.

use fleetlog_event::{
    Recorded, Reject, TimestampMs,
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{CopyEncoder, HistoryRow, MapProjector, Table};

use crate::{TIMESTAMP, column, json_text, sql_text::shown_json};

/// The table of [`TelemetryRow`].
pub static TELEMETRY: Table = Table {
    name: "telemetry",
    columns: &[
        column("recorded_at", TIMESTAMP),
        column("occurred_at", TIMESTAMP),
        column("site_uid", "text"),
        column("unit_uid", "text"),
        column("log_partition", "integer"),
        column("log_offset", "bigint"),
        column("event_id", "uuid"),
        column("channel", "text"),
        column("x_m", "double precision"),
        column("y_m", "double precision"),
        column("heading_rad", "double precision"),
        column("map_id", "text"),
        column("latitude_deg", "double precision"),
        column("longitude_deg", "double precision"),
        column("battery_percent", "double precision"),
        column("charging", "boolean"),
        column("speed_m_s", "double precision"),
        column("driving", "boolean"),
        column("paused", "boolean"),
        column("last_node_id", "text"),
        column("task_id", "text"),
        column("sequence", "bigint"),
        column("sequence_scope", "text"),
        column("source", "text"),
        column("correlation_id", "uuid"),
        column("causation_id", "uuid"),
        column("localized", "boolean"),
        column("new_base_request", "boolean"),
        column("zone_set_id", "text"),
        column("information", "jsonb"),
    ],
};

/// A row of table `telemetry`.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryRow {
    /// The record's timestamp.
    pub recorded_at: TimestampMs,
    /// The partition of topic `telemetry`.
    pub log_partition: i32,
    /// The record's offset.
    pub log_offset: i64,
    /// The measurement.
    pub telemetry: Telemetry,
}

impl HistoryRow for TelemetryRow {
    fn table(&self) -> &'static Table {
        &TELEMETRY
    }

    fn encode(&self, out: &mut CopyEncoder) {
        let Telemetry { meta, channel, map_id, last_node_id, task_id, zone_set_id, information, .. } =
            &self.telemetry;
        out.timestamptz(self.recorded_at);
        out.timestamptz(meta.occurred_at);
        out.text(&meta.site_uid);
        out.maybe_text(meta.unit_uid.as_deref());
        out.int4(self.log_partition);
        out.int8(self.log_offset);
        out.uuid(meta.event_id);
        out.maybe_text(channel.as_deref());
        out.maybe_float8(self.telemetry.x_m);
        out.maybe_float8(self.telemetry.y_m);
        out.maybe_float8(self.telemetry.heading_rad);
        out.maybe_text(map_id.as_deref());
        out.maybe_float8(self.telemetry.latitude_deg);
        out.maybe_float8(self.telemetry.longitude_deg);
        out.maybe_float8(self.telemetry.battery_percent);
        out.maybe_bool(self.telemetry.charging);
        out.maybe_float8(self.telemetry.speed_m_s);
        out.maybe_bool(self.telemetry.driving);
        out.maybe_bool(self.telemetry.paused);
        out.maybe_text(last_node_id.as_deref());
        out.maybe_text(task_id.as_deref());
        out.maybe_int8(meta.sequence);
        out.maybe_text(meta.sequence_scope.as_deref());
        out.text(&meta.source);
        out.maybe_uuid(meta.correlation_id);
        out.maybe_uuid(meta.causation_id);
        out.maybe_bool(self.telemetry.localized);
        out.maybe_bool(self.telemetry.new_base_request);
        out.maybe_text(zone_set_id.as_deref());
        let information = (!information.is_empty()).then(|| shown_json(json_text(information)));
        out.maybe_jsonb(information.as_deref());
    }

    fn sort_key(&self) -> (&str, i64) {
        (self.telemetry.meta.unit_uid.as_deref().unwrap_or_default(), self.recorded_at.0)
    }
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct TelemetryHistory;

impl MapProjector for TelemetryHistory {
    const ID: &'static str = "telemetry-history";
    type Event = TelemetryEvent;
    type Write = TelemetryRow;

    fn map(&self, event: &Recorded<TelemetryEvent>, out: &mut Vec<TelemetryRow>) -> Result<(), Reject> {
        let TelemetryEvent::Telemetry(telemetry) = &event.event;
        out.push(TelemetryRow {
            recorded_at: event.recorded_at,
            log_partition: event.position.partition,
            log_offset: event.position.offset,
            telemetry: telemetry.clone(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_event::Reason;
    use fleetlog_projection::{
        Map,
        given::{MemoryLog, START, assert_cuts_do_not_matter, given_map, later, unit_meta},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{cuts, telemetry};

    #[test]
    fn a_measurement_is_a_row_with_its_place_in_the_log() {
        let first = Telemetry { x_m: Some(1.5), ..Telemetry::silent(unit_meta("504", "7")) };
        let second = Telemetry::silent(later(unit_meta("504", "7"), 1000));
        let _ = given_map(TelemetryHistory).events([first.clone(), second.clone()]).then(|made| {
            let row = |telemetry, log_offset, by_ms| TelemetryRow {
                recorded_at: TimestampMs(START.0 + by_ms),
                log_partition: 0,
                log_offset,
                telemetry,
            };
            let rows: Vec<_> = made.rows.iter().map(|row| (row.offset, row.write.clone())).collect();
            assert_eq!(rows, [(0, row(first, 0, 0)), (1, row(second, 1, 1000))]);
        });
    }

    #[test]
    fn a_latitude_beyond_the_pole_is_rejected() {
        let _ = given_map(TelemetryHistory)
            .when(Telemetry { latitude_deg: Some(90.5), ..Telemetry::silent(unit_meta("504", "7")) })
            .then_rejected(Reason::OutOfRange)
            .then_told("latitude_deg is 90.5");
    }

    /// A text that the database will refuse goes on its way: it is for the sink to name.
    #[test]
    fn a_nul_character_is_left_in() {
        let telemetry =
            Telemetry { map_id: Some("a\0b".to_owned()), ..Telemetry::silent(unit_meta("504", "7")) };
        let _ = given_map(TelemetryHistory)
            .event(telemetry)
            .then(|made| assert_eq!(made.rows[0].write.telemetry.map_id.as_deref(), Some("a\0b")));
    }

    proptest! {
        #[test]
        fn the_cut_of_the_log_does_not_matter(events in prop::collection::vec(telemetry(), 0..40), cuts in cuts()) {
            let mut log = MemoryLog::default();
            for event in events {
                log.append(event);
            }
            assert_cuts_do_not_matter(&Map(TelemetryHistory), &log, &cuts);
        }

        /// As many columns are written as the table has (asserted by the encoder).
        #[test]
        fn every_row_can_be_encoded(event in telemetry()) {
            let TelemetryEvent::Telemetry(telemetry) = event;
            let row = TelemetryRow { recorded_at: START, log_partition: 0, log_offset: 1, telemetry };
            let mut out = CopyEncoder::new();
            out.row(&row);
            prop_assert_eq!(columns_of_first_row(&out.finish()), TELEMETRY.columns.len());
        }
    }

    /// The field count that precedes a row, behind the 19 bytes of the header.
    fn columns_of_first_row(copy: &[u8]) -> usize {
        usize::from(u16::from_be_bytes([copy[19], copy[20]]))
    }
}
