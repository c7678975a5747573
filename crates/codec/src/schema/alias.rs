//! Aliases: a writer's schema, rewritten with the names that the reader uses now (Avro specification, "Aliases").
//!
//! apache-avro's resolution matches by name only, so this is done before it.

use std::collections::HashMap;

use apache_avro::Schema;
use serde_json::Value;

use super::SchemaError;

/// Field names by (unqualified record name, name used before).
type Renamed<'a> = HashMap<(&'a str, &'a str), &'a str>;

/// The JSON of the writer's schema, its fields renamed wherever `reader` has an alias for them.
pub(crate) fn with_names_of(writer_json: &str, reader: &Schema) -> Result<String, SchemaError> {
    let mut renamed = Renamed::new();
    collect(reader, &mut renamed);
    if renamed.is_empty() {
        return Ok(writer_json.to_owned());
    }
    let mut writer =
        serde_json::from_str(writer_json).map_err(|error| SchemaError::Invalid(error.to_string()))?;
    rename(&mut writer, &renamed);
    Ok(writer.to_string())
}

fn collect<'a>(schema: &'a Schema, renamed: &mut Renamed<'a>) {
    match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                for alias in &field.aliases {
                    renamed.insert((record.name.name(), alias), &field.name);
                }
                collect(&field.schema, renamed);
            }
        }
        Schema::Array(array) => collect(&array.items, renamed),
        Schema::Map(map) => collect(&map.types, renamed),
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect(variant, renamed)),
        _ => {}
    }
}

fn rename(json: &mut Value, renamed: &Renamed<'_>) {
    match json {
        Value::Array(parts) => parts.iter_mut().for_each(|part| rename(part, renamed)),
        Value::Object(object) => {
            let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
            let record = name.rsplit('.').next().unwrap_or(name).to_owned();
            if let Some(Value::Array(fields)) = object.get_mut("fields") {
                rename_fields(&record, fields, renamed);
            }
            for part in ["fields", "type", "items", "values"] {
                if let Some(part) = object.get_mut(part) {
                    rename(part, renamed);
                }
            }
        }
        _ => {}
    }
}

fn rename_fields(record: &str, fields: &mut [Value], renamed: &Renamed<'_>) {
    let has = |fields: &[Value], name: &str| fields.iter().any(|field| field["name"] == name);
    for n in 0..fields.len() {
        let name = fields[n]["name"].as_str().unwrap_or_default().to_owned();
        // A field that the writer has under the reader's own name comes first.
        if let Some(now) = renamed.get(&(record, name.as_str()))
            && !has(fields, now)
        {
            fields[n]["name"] = Value::from(*now);
        }
    }
}
