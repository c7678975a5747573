//! CloudEvents 1.0 in binary mode (Kafka protocol binding): the value is the event alone, attributes are headers.

use fleetlog_event::{EventId, EventMeta, TimestampMs};
use rdkafka::message::{Header, OwnedHeaders};

/// The media type of both framings.
const CONTENT_TYPE: &str = "application/avro";

/// The attributes of one event; `ce_subject` is the record's key.
#[derive(Debug)]
pub(crate) struct EventHeaders {
    pub(crate) id: EventId,
    pub(crate) name: &'static str,
    pub(crate) source: String,
    pub(crate) occurred_at: TimestampMs,
    pub(crate) traceparent: Option<String>,
}

impl EventHeaders {
    pub(crate) fn new(name: &'static str, meta: &EventMeta, traceparent: Option<String>) -> Self {
        Self {
            id: meta.event_id,
            name,
            source: meta.source.clone(),
            occurred_at: meta.occurred_at,
            traceparent,
        }
    }

    pub(crate) fn to_native(&self, key: &[u8]) -> OwnedHeaders {
        let mut id = [0_u8; 36];
        let id: &[u8] = self.id.0.hyphenated().encode_lower(&mut id).as_bytes();
        let headers = OwnedHeaders::new_with_capacity(8)
            .insert(header("ce_specversion", b"1.0"))
            .insert(header("ce_id", id))
            .insert(header("ce_source", self.source.as_bytes()))
            .insert(header("ce_type", self.name.as_bytes()))
            .insert(header("ce_subject", key))
            .insert(header("content-type", CONTENT_TYPE.as_bytes()));
        let headers = match rfc3339(self.occurred_at) {
            Some(time) => headers.insert(header("ce_time", time.as_bytes())),
            None => headers,
        };
        match &self.traceparent {
            Some(traceparent) => headers.insert(header("traceparent", traceparent.as_bytes())),
            None => headers,
        }
    }
}

fn header<'a>(key: &'a str, value: &'a [u8]) -> Header<'a, &'a [u8]> {
    Header { key, value: Some(value) }
}

/// The time as RFC 3339 with milliseconds, in UTC; none outside the years 0 to 9999, which it cannot write.
fn rfc3339(time: TimestampMs) -> Option<String> {
    const DAY_MS: i64 = 86_400_000;
    let (days, ms) = (time.0.div_euclid(DAY_MS), time.0.rem_euclid(DAY_MS));
    // Days to a civil date by the Gregorian calendar's 400-year cycle, years beginning in March
    // (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (second, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (ms, text) in [
            (0, Some("1970-01-01T00:00:00.000Z")),
            (1_709_210_096_789, Some("2024-02-29T12:34:56.789Z")),
            (4_102_444_799_999, Some("2099-12-31T23:59:59.999Z")),
            (4_107_542_400_000, Some("2100-03-01T00:00:00.000Z")),
            (-1, Some("1969-12-31T23:59:59.999Z")),
            (253_402_300_799_999, Some("9999-12-31T23:59:59.999Z")),
            (253_402_300_800_000, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(rfc3339(TimestampMs(ms)).as_deref(), text, "{ms}");
        }
    }
}
