//! Events out of JSON that a person or a small program wrote.
//!
//! What is wrong is told with the field, its value and what it has to be, before serde could only say where in the text
//! it stopped. A field or a symbol that the newest schema does not have is a typing error here, not a newer version's.

use fleetlog_event::{DecodeOne, Event, EventId, EventSet, EventType, FleetEvent, Reject, TimestampMs};
use serde_json::{Map, Value};

use crate::{newest, reference::symbols};

/// Longest value that an error repeats, in characters.
const VALUE_CHARS_MAX: usize = 80;

/// What a person at a prompt does not want to write: filled in where the head lacks it.
#[derive(Clone, Debug)]
pub struct Blanks {
    /// The identity.
    pub event_id: EventId,
    /// Both times.
    pub now: TimestampMs,
    /// Who made it.
    pub source: String,
}

/// Why JSON is no event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ByHandError {
    /// There is no schema of that event.
    #[error("there is no event `{0}`")]
    NoSuchEvent(String),
    /// A field that the event does not have.
    #[error("there is no field `{field}`, expected one of {expected}")]
    UnknownField {
        /// Its path.
        field: String,
        /// The fields that there are at this place.
        expected: String,
    },
    /// A field that has to be there.
    #[error("{field} is missing, expected {expected}")]
    Missing {
        /// Its path.
        field: String,
        /// What it has to be.
        expected: String,
    },
    /// A value that is none of the field's type.
    #[error("{field} is {value}, expected {expected}")]
    Wrong {
        /// The field's path.
        field: String,
        /// What was there, shortened.
        value: String,
        /// What it has to be.
        expected: String,
    },
    /// A value that the event's checks refuse.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// It is as the schema says, and the struct does not read it all the same.
    #[error("not readable: {0}")]
    Unreadable(String),
}

/// Reads an event of that type and checks it.
///
/// # Errors
/// When `json` is none, or one that every reader would reject.
pub fn read(event: EventType, mut json: Value, blanks: &Blanks) -> Result<FleetEvent, ByHandError> {
    let no_such = || ByHandError::NoSuchEvent(event.name.to_owned());
    let schema = newest(event.name).ok_or_else(no_such)?;
    let schema: Value =
        serde_json::from_str(schema.json()).map_err(|error| ByHandError::Unreadable(error.to_string()))?;
    fill_in(&mut json, blanks);
    check(&schema, &json, "the event")?;
    let read = FleetEvent::decode(event.name, FromJson(json)).ok_or_else(no_such)?;
    let read = read.map_err(|error| ByHandError::Unreadable(error.to_string()))?;
    read.validate()?;
    Ok(read)
}

struct FromJson(Value);

impl DecodeOne for FromJson {
    type Error = serde_json::Error;
    fn one<E: Event>(self) -> Result<E, serde_json::Error> {
        serde_json::from_value(self.0)
    }
}

fn fill_in(json: &mut Value, blanks: &Blanks) {
    let Value::Object(event) = json else { return };
    let meta = event.entry("meta").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(meta) = meta else { return };
    meta.entry("event_id").or_insert_with(|| blanks.event_id.to_string().into());
    for time in ["occurred_at", "recorded_at"] {
        meta.entry(time).or_insert_with(|| blanks.now.0.into());
    }
    meta.entry("source").or_insert_with(|| blanks.source.as_str().into());
}

/// Whether `json` is as `schema` says. `at` is the path of its place.
fn check(schema: &Value, json: &Value, at: &str) -> Result<(), ByHandError> {
    if let Value::Array(variants) = schema {
        let mut others = variants.iter().filter(|variant| *variant != "null");
        return match others.next() {
            Some(other) if !json.is_null() => check(other, json, at),
            _ => Ok(()),
        };
    }
    let right = match kind(schema) {
        "record" => return check_record(schema, json, at),
        "array" => {
            let elements = json.as_array().ok_or_else(|| wrong(schema, json, at))?;
            let mut elements = elements.iter().enumerate();
            return elements
                .try_for_each(|(n, element)| check(&schema["items"], element, &format!("{at}[{n}]")));
        }
        "map" => {
            let values = json.as_object().ok_or_else(|| wrong(schema, json, at))?;
            let mut values = values.iter();
            return values
                .try_for_each(|(name, value)| check(&schema["values"], value, &format!("{at}.{name}")));
        }
        "enum" => json.as_str().is_some_and(|text| symbols(schema).any(|symbol| symbol == text)),
        "string" => json.is_string(),
        "boolean" => json.is_boolean(),
        "double" => json.is_number(),
        "int" => json.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "long" => json.as_i64().is_some(),
        // The one named type that is referred to: an id.
        _ => json.as_str().is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()),
    };
    if right { Ok(()) } else { Err(wrong(schema, json, at)) }
}

fn check_record(schema: &Value, json: &Value, at: &str) -> Result<(), ByHandError> {
    let given = json.as_object().ok_or_else(|| wrong(schema, json, at))?;
    let fields = || schema["fields"].as_array().into_iter().flatten();
    let path = |name: &str| if at == "the event" { name.to_owned() } else { format!("{at}.{name}") };
    let names = || fields().filter_map(|field| field["name"].as_str());
    if let Some(unknown) = given.keys().find(|name| !names().any(|known| known == *name)) {
        let expected = names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(ByHandError::UnknownField { field: path(unknown), expected });
    }
    for field in fields() {
        let name = field["name"].as_str().unwrap_or_default();
        match given.get(name) {
            Some(value) => check(&field["type"], value, &path(name))?,
            None if field.get("default").is_some() => {}
            None => {
                let expected = expected(&field["type"]);
                return Err(ByHandError::Missing { field: path(name), expected });
            }
        }
    }
    Ok(())
}

fn kind(schema: &Value) -> &str {
    schema.as_str().or_else(|| schema["type"].as_str()).unwrap_or_default()
}

fn expected(schema: &Value) -> String {
    let text = match kind(schema) {
        "record" => "an object",
        "array" => "a list",
        "map" => "an object whose values are texts",
        "enum" => {
            let symbols = symbols(schema).map(|symbol| format!("\"{symbol}\"")).collect::<Vec<_>>();
            return format!("one of {}", symbols.join(", "));
        }
        "string" => "a text",
        "boolean" => "true or false",
        "double" => "a number",
        "int" => "a whole number of 32 bits",
        "long" => "a whole number",
        _ => "a UUID",
    };
    text.to_owned()
}

fn wrong(schema: &Value, json: &Value, at: &str) -> ByHandError {
    let mut value: String = json.to_string().chars().take(VALUE_CHARS_MAX + 1).collect();
    if value.chars().count() > VALUE_CHARS_MAX {
        value.pop();
        value.push('…');
    }
    ByHandError::Wrong { field: at.to_owned(), value, expected: expected(schema) }
}

#[cfg(test)]
#[path = "by_hand/tests.rs"]
mod tests;
