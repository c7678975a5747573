//! The events described for people: fields with types, defaults, versions and checks, and an example of each.
//!
//! Everything is read from the schema files and from what the events declare ([`Event::CHECKS`]
//! (fleetlog_event::Event::CHECKS)), so that it cannot say anything else than they do. [`page`] is `docs/events.md`.

mod page;

use fleetlog_event::{EventType, FleetEvent, Rule};
use serde_json::Value;

pub use page::page;

use crate::builtin_schemas;

/// One event type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventReference {
    /// Its names.
    pub event: EventType,
    /// The newest version of its schema.
    pub version: u32,
    /// What it means.
    pub doc: String,
    /// Its fields without those of the head, in the order of the schema; a record's own fields follow it.
    pub fields: Vec<FieldReference>,
}

/// One field of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldReference {
    /// Its path; `[]` stands for every element of a list.
    pub path: String,
    /// Its Avro type in words; an enum's symbols.
    pub type_name: String,
    /// What a reader takes where it was not written; none where it has to be.
    pub default: Option<Value>,
    /// The first version that has it.
    pub since: u32,
    /// What it was called in earlier versions.
    pub aliases: Vec<String>,
    /// What has to hold of it beside its type.
    pub rule: Option<Rule>,
    /// What it means.
    pub doc: String,
}

/// The description of `event`; none if it has no schema file.
#[must_use]
pub fn describe(event: EventType) -> Option<EventReference> {
    let versions = versions(event)?;
    let newest = versions.last()?;
    let mut fields = Vec::new();
    for field in newest.get("fields")?.as_array()?.iter().filter(|field| field["name"] != "meta") {
        push(field, "", &mut fields);
    }
    add_rules(event, &mut fields);
    for field in &mut fields {
        field.since = since(field, &versions);
    }
    Some(EventReference {
        event,
        version: u32::try_from(versions.len()).unwrap_or(u32::MAX),
        doc: text(newest, "doc"),
        fields,
    })
}

/// The fields of the head of `event`: the same for all, but that an event about a task need not name a unit.
#[must_use]
pub fn head(event: EventType) -> Vec<FieldReference> {
    let mut fields = Vec::new();
    let versions = versions(event);
    let meta = versions.as_ref().and_then(|versions| versions.last()).map(|schema| &schema["fields"][0]);
    for field in meta.and_then(|meta| meta["type"]["fields"].as_array()).into_iter().flatten() {
        push(field, "meta.", &mut fields);
    }
    add_rules(event, &mut fields);
    fields
}

/// The example of `event` as [`by_hand::read`](crate::by_hand::read) takes it: with as much of a head as a person has
/// to write.
#[must_use]
pub fn example(event: EventType) -> Option<Value> {
    let own: Value = serde_json::from_str(FleetEvent::declared(event.name)?.example).ok()?;
    let mut example = serde_json::Map::new();
    example.insert("meta".to_owned(), serde_json::json!({ "site_uid": "504", "unit_uid": "1010020021" }));
    example.extend(own.as_object()?.clone());
    Some(Value::Object(example))
}

/// All versions of an event's schema, the newest last.
fn versions(event: EventType) -> Option<Vec<Value>> {
    let of_event = builtin_schemas().iter().filter(|schema| schema.name() == event.name);
    of_event.map(|schema| serde_json::from_str(schema.json()).ok()).collect()
}

fn add_rules(event: EventType, fields: &mut [FieldReference]) {
    let checks = FleetEvent::declared(event.name).map_or(&[][..], |declared| declared.checks);
    for field in fields {
        field.rule = checks.iter().find(|check| check.field == field.path).map(|check| check.rule);
    }
}

fn push(field: &Value, before: &str, out: &mut Vec<FieldReference>) {
    let path = format!("{before}{}", text(field, "name"));
    let aliases = field["aliases"].as_array().into_iter().flatten();
    out.push(FieldReference {
        type_name: type_name(&field["type"]),
        default: field.get("default").cloned(),
        since: 1,
        aliases: aliases.filter_map(Value::as_str).map(str::to_owned).collect(),
        rule: None,
        // An enum says what its symbols mean.
        doc: [text(field, "doc"), text(&field["type"], "doc")].join(" ").trim_end().to_owned(),
        path: path.clone(),
    });
    let items = &field["type"]["items"];
    for inner in items["fields"].as_array().into_iter().flatten() {
        push(inner, &format!("{path}[]."), out);
    }
}

/// The first version that has the field, under whatever name.
fn since(field: &FieldReference, versions: &[Value]) -> u32 {
    let first = versions.iter().position(|schema| {
        let mut fields = Vec::new();
        schema["fields"].as_array().into_iter().flatten().for_each(|field| push(field, "", &mut fields));
        fields.iter().any(|known| known.path == field.path || field.aliases.contains(&known.path))
    });
    first.and_then(|n| u32::try_from(n + 1).ok()).unwrap_or(1)
}

/// An Avro type in words.
fn type_name(schema: &Value) -> String {
    match schema {
        Value::String(name) if name.ends_with("EventId") => "UUID".to_owned(),
        Value::String(name) => name.clone(),
        Value::Array(variants) => {
            let others = variants.iter().filter(|variant| *variant != "null");
            others.map(type_name).collect::<Vec<_>>().join(" or ")
        }
        _ => match schema["type"].as_str().unwrap_or_default() {
            "enum" => symbols(schema).map(|symbol| format!("`{symbol}`")).collect::<Vec<_>>().join(", "),
            "array" => format!("list of {}", type_name(&schema["items"])),
            "map" => format!("map of {}", type_name(&schema["values"])),
            "record" => text(schema, "name"),
            "fixed" => "UUID".to_owned(),
            "long" if schema["logicalType"] == "timestamp-millis" => "ms since 1970".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// The symbols of an enum.
pub(crate) fn symbols(schema: &Value) -> impl Iterator<Item = &str> {
    schema["symbols"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
