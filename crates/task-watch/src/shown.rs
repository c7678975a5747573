//! What hot state shows of a task.

use fleetlog_event::{Position, TimestampMs};

/// How a task stands, as far as its watch minds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Something is to come, and nothing holds it: the state's name.
    Open(String),
    /// Somebody holds it.
    Paused,
    /// It ended.
    Over,
    /// A state that a later version writes: nothing to meddle with.
    Unknown(String),
}

/// What the hash `task:{id}` says of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// How it stands.
    pub standing: Standing,
    /// The partition of its events.
    pub partition: i32,
    /// One past the last event that is in it.
    pub next: i64,
    /// When fleetlog took in the last event that moved it.
    pub moved_at: TimestampMs,
    /// It was told that it stands still, and nothing moved it since.
    pub is_told: bool,
    /// The unit that has it.
    pub unit_uid: Option<String>,
}

/// A hash that is none of `task-state`'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its field `{name}` is {found}, expected {expected}")]
pub struct Unreadable {
    /// Which.
    pub name: &'static str,
    /// What it holds.
    pub found: String,
    /// What it should.
    pub expected: &'static str,
}

impl Shown {
    /// Fields of the hash that [`Self::read`] needs, in its order.
    pub const FIELDS: [&'static str; 4] = ["state", "recorded_at", "stalled_at", "unit_uid"];

    /// Reads the fields of a hash that is there. `partition` and `next` are those of its version.
    ///
    /// # Errors
    /// [`Unreadable`] names the field that is missing or wrong.
    pub fn read(partition: i32, next: i64, fields: &[Option<String>]) -> Result<Self, Unreadable> {
        let field = |index: usize| fields.get(index).and_then(Option::as_deref);
        let wrong = |index: usize, expected| {
            let found = field(index).map_or_else(|| "not there".to_owned(), |text| format!("`{text}`"));
            Unreadable { name: Self::FIELDS[index], found, expected }
        };
        let standing = match field(0) {
            Some(state @ ("created" | "assigned" | "started")) => Standing::Open(state.to_owned()),
            Some("paused") => Standing::Paused,
            Some("completed" | "failed" | "cancelled" | "rejected") => Standing::Over,
            Some(other) => Standing::Unknown(other.to_owned()),
            None => return Err(wrong(0, "a state")),
        };
        Ok(Self {
            standing,
            partition,
            next,
            moved_at: field(1).and_then(parsed).ok_or_else(|| wrong(1, "a time"))?,
            is_told: field(2).is_some(),
            unit_uid: field(3).map(str::to_owned),
        })
    }

    /// Whether the event at a position is in it, or one behind it.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        self.partition == position.partition && self.next > position.offset
    }
}

/// A time as projections write it: RFC 3339, or, beyond the years that has, `<ms>ms`.
fn parsed(text: &str) -> Option<TimestampMs> {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok().map(TimestampMs),
        None => text.parse::<jiff::Timestamp>().ok().map(|time| TimestampMs(time.as_millisecond())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: [Option<&str>; 4]) -> Result<Shown, Unreadable> {
        Shown::read(3, 8, &fields.map(|field| field.map(str::to_owned)))
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let at = |text| read([Some("started"), Some(text), None, None]).map(|shown| shown.moved_at.0);
        assert_eq!(at("2024-01-01T00:00:05.250Z"), Ok(1_704_067_205_250));
        assert_eq!(at("9223372036854775807ms"), Ok(i64::MAX));
        assert_eq!(
            at("soon").map_err(|error| error.to_string()),
            Err("its field `recorded_at` is `soon`, expected a time".to_owned())
        );
    }

    #[test]
    fn what_is_missing_is_named_and_what_a_later_version_writes_is_left_alone() {
        let time = Some("2024-01-01T00:00:00.000Z");
        let missing = |fields| read(fields).map_err(|error| error.name);
        assert_eq!(missing([None, time, None, None]), Err("state"));
        assert_eq!(missing([Some("started"), None, None, None]), Err("recorded_at"));
        let later = read([Some("on_hold"), time, None, None]).expect("is read");
        assert_eq!(later.standing, Standing::Unknown("on_hold".to_owned()));
    }
}
