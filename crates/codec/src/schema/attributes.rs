//! Attributes of a schema that apache-avro trusts to be of the right type.
//!
//! It keeps attributes that a type does not have, and then panics on them when it computes the canonical form:
//! `"symbols": 5` on a record, `"scale": 0.5` on a long. Whoever can register a schema could stop a projection with one.

use serde_json::Value;

use super::SchemaError;

/// Names whose values the canonical form looks into.
const PARTS: [&str; 7] = ["name", "type", "fields", "symbols", "items", "values", "order"];
/// Names whose values it takes for whole numbers, as numbers or as text.
const NUMBERS: [&str; 3] = ["size", "precision", "scale"];

/// Refuses a schema with such an attribute of the wrong type, wherever it is.
pub(super) fn check_attributes(schema: &Value) -> Result<(), SchemaError> {
    match schema {
        Value::Array(parts) => parts.iter().try_for_each(check_attributes),
        Value::Object(object) => object.iter().try_for_each(|(name, value)| {
            let fits = match name.as_str() {
                name if NUMBERS.contains(&name) => whole(value),
                name if PARTS.contains(&name) => is_part(value),
                _ => return Ok(()),
            };
            if !fits {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "a truth value",
                    Value::Number(_) => "a number",
                    Value::String(_) => "a text",
                    Value::Array(_) | Value::Object(_) => "a list or object",
                };
                return Err(SchemaError::Invalid(format!(
                    "`{name}` is {kind}, which it cannot be in a schema"
                )));
            }
            check_attributes(value)
        }),
        _ => Ok(()),
    }
}

fn whole(value: &Value) -> bool {
    value.as_i64().is_some() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok())
}

fn is_part(value: &Value) -> bool {
    match value {
        Value::Array(parts) => parts.iter().all(is_part),
        Value::String(_) | Value::Object(_) => true,
        _ => false,
    }
}
