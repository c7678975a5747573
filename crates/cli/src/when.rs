//! Times as people type them, and times as people read them.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};

/// A moment: named, or so long before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    /// In milliseconds.
    Ago(i64),
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoTime;

impl std::error::Error for NoTime {}

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a time: give RFC 3339 (2026-11-21T09:00:00Z), a date (2026-11-21: its beginning, in UTC), or how long \
             ago (90s, 15m, 2h, 3d)",
        )
    }
}

impl FromStr for When {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time));
        }
        if text.len() == "2026-11-21".len()
            && let Ok(date) = text.parse::<Date>()
        {
            let begin = date.to_zoned(TimeZone::UTC).map_err(|_| NoTime)?;
            return Ok(Self::At(begin.timestamp()));
        }
        let length = span(text).ok_or(NoTime)?;
        i64::try_from(length.as_millis().abs()).map(Self::Ago).map_err(|_| NoTime)
    }
}

/// A length of time as people type it. Months and years have no length of their own: they are refused.
fn span(text: &str) -> Option<SignedDuration> {
    let span: jiff::Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// How long something takes or is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length(SignedDuration);

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoLength;

impl std::error::Error for NoLength {}

impl fmt::Display for NoLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a length of time: give how long (90s, 15m, 2h, 3d, 4w); months and years have none")
    }
}

impl FromStr for Length {
    type Err = NoLength;

    fn from_str(text: &str) -> Result<Self, NoLength> {
        span(text).filter(|length| length.is_positive()).map(Self).ok_or(NoLength)
    }
}

impl Length {
    /// In seconds, above 0.
    pub(crate) fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl When {
    /// The moment, if it is `now_ms` (milliseconds since 1970). What lies before the earliest time there is, is that.
    pub(crate) fn at(self, now_ms: i64) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago_ms) => {
                Timestamp::from_millisecond(now_ms.saturating_sub(ago_ms)).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

/// How long ago something was, in the two largest units: `3 s ago`, `2 h 5 min ago`, `4 d 1 h ago`.
pub(crate) fn ago(elapsed_ms: i64) -> String {
    if elapsed_ms < -1000 {
        return format!("{} ahead of this machine's clock", length(elapsed_ms.unsigned_abs()));
    }
    format!("{} ago", length(elapsed_ms.max(0).unsigned_abs()))
}

fn length(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let seconds = ms / 1000;
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let rest = UNITS.get(first + 1).filter(|(smaller, _)| seconds % unit / smaller > 0);
    let more = rest.map_or(String::new(), |(smaller, name)| format!(" {} {name}", seconds % unit / smaller));
    format!("{} {name}{more}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_dates_and_ages_are_understood() {
        let now_ms = 1_795_262_400_000; // 2026-11-21T12:00:00Z
        for (text, expected) in [
            ("2026-11-21T09:00:00Z", "2026-11-21T09:00:00Z"),
            ("2026-11-21T09:00:00.5+02:00", "2026-11-21T07:00:00.5Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2h", "2026-11-21T10:00:00Z"),
            ("90s", "2026-11-21T11:58:30Z"),
            ("15m", "2026-11-21T11:45:00Z"),
            ("1d 12h", "2026-11-20T00:00:00Z"),
            ("2h ago", "2026-11-21T10:00:00Z"),
            ("1w", "2026-11-14T12:00:00Z"),
        ] {
            assert_eq!(
                text.parse::<When>().map(|when| when.at(now_ms).to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for wrong in
            ["", "2", "yesterday", "2026-11-21T09:00", "2026-13-01", "1 month", "2026-11-21T09:00:00Z x"]
        {
            assert_eq!(wrong.parse::<When>(), Err(NoTime), "{wrong}");
        }
        assert_eq!("9000000d".parse::<When>().map(|when| when.at(now_ms)), Err(NoTime));
    }

    #[test]
    fn lengths_are_understood_and_what_is_none_is_refused() {
        for (text, seconds) in [("30d", 2_592_000.0), ("1500ms", 1.5), ("1w", 604_800.0), ("2h 30m", 9000.0)]
        {
            assert_eq!(text.parse::<Length>().map(Length::seconds), Ok(seconds), "{text}");
        }
        for wrong in ["", "30", "0d", "2h ago", "-3d", "1 month", "forever", "99999999999999999d"] {
            assert_eq!(wrong.parse::<Length>(), Err(NoLength), "{wrong}");
        }
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (ms, expected) in [
            (0, "0 s ago"),
            (3999, "3 s ago"),
            (60_000, "1 min ago"),
            (7_500_000, "2 h 5 min ago"),
            (7_205_000, "2 h ago"),
            (350_000_000, "4 d 1 h ago"),
            (-500, "0 s ago"),
            (-61_000, "1 min 1 s ahead of this machine's clock"),
            (i64::MIN, "106751991167 d 7 h ahead of this machine's clock"),
        ] {
            assert_eq!(ago(ms), expected);
        }
    }
}
