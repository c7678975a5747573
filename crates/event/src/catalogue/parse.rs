//! Reading topic files: strict, and with every problem at once.

use toml::{Table, Value};

use super::{Catalogue, Cleanup, DeadLetters, KeyKind, Retention, TimestampType, Topic};
use crate::FleetEvent;

/// One thing wrong in a topic file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topics/{file}: {field}: {problem}")]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// The field, such as `dead_letters.retention`; the file itself if it is no TOML.
    pub field: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// Everything that is wrong in the topic files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CatalogueError {
    /// One entry per problem, in the order of files.
    pub problems: Vec<Problem>,
}

pub(super) fn catalogue(files: &[(&str, &str)]) -> Result<Catalogue, CatalogueError> {
    let mut problems = Vec::new();
    let topics = files.iter().filter_map(|(file, text)| topic(file, text, &mut problems)).collect();
    if problems.is_empty() { Ok(Catalogue { topics }) } else { Err(CatalogueError { problems }) }
}

fn topic(file: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Topic> {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let problem = format!("not readable as TOML: {}", error.to_string().trim_end());
            problems.push(Problem { file: file.to_owned(), field: "file".to_owned(), problem });
            return None;
        }
    };
    let before = problems.len();
    let stem = file.strip_suffix(".toml").unwrap_or(file).to_owned();
    let mut fields = Fields { file, prefix: "", table, problems };
    fields.stem(&stem);
    let read = fields.topic(&stem);
    // A value of a file with problems is not used: `catalogue` then fails as a whole.
    read.filter(|_| problems.len() == before)
}

/// Takes fields out of a table one by one; what is left is unknown.
struct Fields<'a> {
    file: &'a str,
    prefix: &'static str,
    table: Table,
    problems: &'a mut Vec<Problem>,
}

impl Fields<'_> {
    fn problem(&mut self, field: &str, problem: impl Into<String>) {
        let field = format!("{}{field}", self.prefix);
        self.problems.push(Problem { file: self.file.to_owned(), field, problem: problem.into() });
    }

    /// A stem becomes part of a Kafka topic name.
    fn stem(&mut self, stem: &str) {
        if stem.is_empty() || !stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            self.problem(
                "file",
                "the name before `.toml` must consist of lower-case letters, digits and hyphens",
            );
        }
    }

    fn topic(mut self, stem: &str) -> Option<Topic> {
        let key = self.choice("key", &KEYS);
        let partitions = self.integer("partitions", 1..=1000);
        let replication = self.integer("replication", 1..=9);
        let min_insync_replicas = self.integer("min_insync_replicas", 1..=9);
        let retention = self.retention();
        let cleanup = self.choice("cleanup", &CLEANUPS);
        let timestamp_type = self.choice("timestamp_type", &TIMESTAMP_TYPES);
        let message_bytes_max = self.integer("message_bytes_max", 1024..=100 << 20);
        let dedup_window_offsets = self.optional("dedup_window_offsets", |f, n| f.integer(n, 1..=1_000_000));
        let events = self.events(stem);
        let dead_letters = self.optional("dead_letters", Self::dead_letters);
        if let (Some(min), Some(all)) = (min_insync_replicas, replication)
            && min > all
        {
            self.problem("min_insync_replicas", format!("is {min}, more than replication, which is {all}"));
        }
        if let (Some(Some(dead)), Some(own)) = (&dead_letters, message_bytes_max)
            && i64::from(dead.message_bytes_max) <= own
        {
            let problem = format!("must be more than the topic's own {own}: a dead letter has more headers");
            self.problem("dead_letters.message_bytes_max", problem);
        }
        let is_source = events.as_ref().is_some_and(|events| !events.is_empty());
        if is_source && dedup_window_offsets == Some(None) {
            self.problem("dedup_window_offsets", "is missing; a topic with events needs it");
        }
        if is_source && dead_letters == Some(None) {
            self.problem(
                "dead_letters",
                "is missing; a topic with events needs a place for what is set aside",
            );
        }
        self.nothing_left();
        Some(Topic {
            stem: stem.to_owned(),
            key: key?,
            partitions: i32::try_from(partitions?).ok()?,
            replication: i32::try_from(replication?).ok()?,
            min_insync_replicas: i32::try_from(min_insync_replicas?).ok()?,
            retention: retention?,
            cleanup: cleanup?,
            timestamp_type: timestamp_type?,
            message_bytes_max: i32::try_from(message_bytes_max?).ok()?,
            dedup_window_offsets: dedup_window_offsets?,
            events: events?,
            dead_letters: dead_letters?,
        })
    }

    fn dead_letters(&mut self, name: &str) -> Option<DeadLetters> {
        let Some(Value::Table(table)) = self.table.remove(name) else {
            self.problem(name, "expected a table `[dead_letters]`");
            return None;
        };
        let mut fields = Fields { file: self.file, prefix: "dead_letters.", table, problems: self.problems };
        let partitions = fields.integer("partitions", 1..=1000);
        let retention = fields.retention();
        let message_bytes_max = fields.integer("message_bytes_max", 1024..=100 << 20);
        fields.nothing_left();
        Some(DeadLetters {
            partitions: i32::try_from(partitions?).ok()?,
            retention: retention?,
            message_bytes_max: i32::try_from(message_bytes_max?).ok()?,
        })
    }

    fn nothing_left(&mut self) {
        for name in std::mem::take(&mut self.table).keys() {
            // TOML allows a name without a character.
            self.problem(if name.is_empty() { "\"\"" } else { name }, "unknown field");
        }
    }

    /// The outer option is none where the field is there and wrong.
    fn optional<T>(&mut self, name: &str, read: impl Fn(&mut Self, &str) -> Option<T>) -> Option<Option<T>> {
        if self.table.contains_key(name) { read(self, name).map(Some) } else { Some(None) }
    }

    fn integer(&mut self, name: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        match self.table.remove(name) {
            Some(Value::Integer(n)) if range.contains(&n) => return Some(n),
            Some(other) => self.problem(name, format!("is {other}, {expected}")),
            None => self.problem(name, format!("is missing, {expected}")),
        }
        None
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        match self.table.remove(name) {
            Some(Value::String(text)) => match choices.iter().find(|(name, _)| *name == text) {
                Some((_, choice)) => return Some(*choice),
                None => self.problem(name, format!("is \"{text}\", expected one of {names}")),
            },
            Some(other) => self.problem(name, format!("is {other}, expected one of {names}")),
            None => self.problem(name, format!("is missing, expected one of {names}")),
        }
        None
    }

    fn retention(&mut self) -> Option<Retention> {
        const EXPECTED: &str = "expected \"forever\" or a number with a unit: \"7d\", \"12h\", \"30m\"";
        match self.table.remove("retention") {
            Some(Value::String(text)) => match retention(&text) {
                Some(retention) => return Some(retention),
                None => self.problem("retention", format!("is \"{text}\", {EXPECTED}")),
            },
            Some(other) => self.problem("retention", format!("is {other}, {EXPECTED}")),
            None => self.problem("retention", format!("is missing, {EXPECTED}")),
        }
        None
    }

    /// Full names of the events; a list that differs from the structs of that topic is a problem.
    fn events(&mut self, stem: &str) -> Option<Vec<String>> {
        let names: Vec<String> = match self.table.remove("events") {
            None => Vec::new(),
            Some(value) => {
                let Ok(names) = value.try_into() else {
                    self.problem("events", "expected a list of names, such as [\"Connected\"]");
                    return None;
                };
                names
            }
        };
        let known = |name: &str| FleetEvent::types().any(|t| t.topic == stem && t.short_name() == name);
        let before = self.problems.len();
        for (n, name) in names.iter().enumerate() {
            if !known(name) {
                self.problem(
                    "events",
                    format!("there is no event `{name}` of topic `{stem}` in crates/event"),
                );
            }
            if names[..n].contains(name) {
                self.problem("events", format!("`{name}` is listed twice"));
            }
        }
        for event in FleetEvent::types().filter(|t| t.topic == stem) {
            if !names.iter().any(|name| name == event.short_name()) {
                self.problem("events", format!("`{}` is not listed", event.short_name()));
            }
        }
        let full = names.into_iter().map(|name| format!("fleetlog.{stem}.{name}")).collect();
        (self.problems.len() == before).then_some(full)
    }
}

const KEYS: [(&str, KeyKind); 6] = [
    ("unit", KeyKind::Unit),
    ("task", KeyKind::Task),
    ("fingerprint", KeyKind::Fingerprint),
    ("file", KeyKind::File),
    ("group", KeyKind::Group),
    ("none", KeyKind::None),
];
const CLEANUPS: [(&str, Cleanup); 2] = [("delete", Cleanup::Delete), ("compact", Cleanup::Compact)];
const TIMESTAMP_TYPES: [(&str, TimestampType); 2] =
    [("create_time", TimestampType::CreateTime), ("log_append_time", TimestampType::LogAppendTime)];

fn retention(text: &str) -> Option<Retention> {
    if text == "forever" {
        return Some(Retention::Forever);
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "d" => 86_400_000,
        "h" => 3_600_000,
        "m" => 60_000,
        "s" => 1000,
        _ => return None,
    };
    let count = number.parse::<u32>().ok().filter(|count| *count > 0)?;
    i64::from(count).checked_mul(unit_ms).map(Retention::Millis)
}
