//! What every schema file has to be by itself.

use apache_avro::{
    Schema,
    schema::{RecordSchema, UuidSchema},
};

use super::{Finding, SchemaText, parts_of};
use crate::schema::{check_bounds, parse_avro};

/// A file that could be read.
pub(super) struct File {
    pub(super) path: String,
    /// `robot/Connected`.
    pub(super) stem: String,
    pub(super) version: u32,
    /// Full name of the record.
    pub(super) name: String,
    pub(super) json: String,
    pub(super) schema: Schema,
}

/// Reads and checks one file; none if it is of no use for further checks.
pub(super) fn read(text: &SchemaText, findings: &mut Vec<Finding>) -> Option<File> {
    let mut problem = |problem: String| findings.push(Finding { path: text.path.clone(), problem });
    let Some((stem, version)) = parts_of(&text.path) else {
        problem("is not called <topic>/<Event>.v<N>.avsc, with N from 1".to_owned());
        return None;
    };
    let schema = match parse_avro(&text.json).and_then(|schema| check_bounds(&schema).map(|()| schema)) {
        Ok(schema) => schema,
        Err(error) => {
            problem(error.to_string());
            return None;
        }
    };
    let name = format!("fleetlog.{}", stem.replace('/', "."));
    let Schema::Record(record) = &schema else {
        problem("is no record".to_owned());
        return None;
    };
    if record.name.fullname(None) != name {
        problem(format!("its record is called `{}`, the path says `{name}`", record.name));
        return None;
    }
    if !begins_with_event_id(record) {
        problem(
            "its first field is not `meta` of type fleetlog.EventMeta, beginning with `event_id` as a fixed of 16 bytes \
             and logical type uuid; copy it from another schema"
                .to_owned(),
        );
    }
    let mut habits = Vec::new();
    check_habits("", &schema, &mut habits);
    habits.into_iter().for_each(problem);
    Some(File {
        path: text.path.clone(),
        stem: stem.to_owned(),
        version,
        name,
        json: text.json.clone(),
        schema,
    })
}

/// Dedup reads the id from the first 16 bytes, without the schema.
fn begins_with_event_id(record: &RecordSchema) -> bool {
    let first = |record: &RecordSchema, name: &str| {
        record.fields.first().filter(|field| field.name == name).map(|field| field.schema.clone())
    };
    let Some(Schema::Record(meta)) = first(record, "meta") else { return false };
    let id = first(&meta, "event_id");
    meta.name.fullname(None) == "fleetlog.EventMeta"
        && matches!(id, Some(Schema::Uuid(UuidSchema::Fixed(fixed))) if fixed.size == 16)
}

/// Docs everywhere, and enums that can grow.
fn check_habits(at: &str, schema: &Schema, problems: &mut Vec<String>) {
    let undocumented = |doc: &Option<String>| doc.as_deref().is_none_or(|doc| doc.trim().is_empty());
    match schema {
        Schema::Record(record) => {
            if undocumented(&record.doc) {
                problems.push(format!("record `{}` has no doc", record.name));
            }
            for field in &record.fields {
                let at = if at.is_empty() { field.name.clone() } else { format!("{at}.{}", field.name) };
                if undocumented(&field.doc) {
                    problems.push(format!("`{at}` has no doc; say what it is, with its unit"));
                }
                check_habits(&at, &field.schema, problems);
            }
        }
        Schema::Enum(symbols) => {
            if undocumented(&symbols.doc) {
                problems.push(format!("enum `{}` has no doc", symbols.name));
            }
            if symbols.default.as_deref() != Some("unknown") {
                problems.push(format!(
                    "enum `{}` needs the symbol and default \"unknown\", or it can never grow",
                    symbols.name
                ));
            }
        }
        Schema::Array(array) => check_habits(at, &array.items, problems),
        Schema::Map(map) => check_habits(at, &map.types, problems),
        Schema::Union(union) => {
            union.variants().iter().for_each(|variant| check_habits(at, variant, problems))
        }
        _ => {}
    }
}
