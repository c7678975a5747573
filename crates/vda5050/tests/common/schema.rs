//! The official JSON schemas, and as much of JSON Schema as they use. A keyword that is not known here fails, so that
//! nothing passes for want of a check.

use serde_json::Value;

/// Keywords that say nothing about a value.
const WORDS: [&str; 10] = [
    "$schema",
    "title",
    "description",
    "subtopic",
    "examples",
    "unit",
    "format",
    "definitions",
    "$ref",
    "required",
];

/// The official schema of a kind of message. Three files of 3.0.0 have commas too many, which are no JSON.
pub fn official(version: &str, kind: &str) -> Value {
    let name = format!("schemas/{version}/json_schemas/{kind}.schema");
    let text = std::fs::read_to_string(super::data(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut tidy = String::with_capacity(text.len());
    let mut in_string = false;
    for (at, character) in text.char_indices() {
        if character == '"' && !text[..at].ends_with('\\') {
            in_string = !in_string;
        }
        let next = text[at + character.len_utf8()..].trim_start().chars().next();
        if in_string || character != ',' || !matches!(next, Some('}' | ']')) {
            tidy.push(character);
        }
    }
    serde_json::from_str(&tidy).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a schema says is wrong with a value, with its place.
pub fn problems(root: &Value, value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(root, root, value, "", &mut problems);
    problems
}

/// The schema itself, or what it refers to.
pub fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/definitions/")) {
        Some(name) => &root["definitions"][name],
        None => schema,
    }
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    let schema = resolved(root, schema);
    let object = schema.as_object().unwrap_or_else(|| panic!("no schema at `{at}`"));
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            problems.push(format!("{at}/{name} is missing"));
        }
    }
    for (keyword, says) in object {
        let number = || says.as_f64().zip(value.as_f64());
        let right = match keyword.as_str() {
            "type" => says.as_array().map_or_else(|| is(value, says), |all| all.iter().any(|t| is(value, t))),
            "enum" => says.as_array().unwrap().contains(value),
            "const" => value == says,
            "minimum" => number().is_none_or(|(bound, value)| value >= bound),
            "maximum" => number().is_none_or(|(bound, value)| value <= bound),
            "exclusiveMinimum" => number().is_none_or(|(bound, value)| value > bound),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= says.as_u64().unwrap()),
            "properties" => {
                for (name, schema) in says.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{at}/{name}"), problems);
                    }
                }
                true
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, says, item, &format!("{at}/{n}"), problems);
                }
                true
            }
            "allOf" => {
                says.as_array().unwrap().iter().for_each(|part| check(root, part, value, at, problems));
                true
            }
            "if" => {
                let mut unmet = Vec::new();
                check(root, says, value, at, &mut unmet);
                if unmet.is_empty() {
                    check(root, &schema["then"], value, at, problems);
                }
                true
            }
            "then" => true,
            other => {
                assert!(WORDS.contains(&other), "keyword `{other}` at `{at}` is not checked here");
                true
            }
        };
        if !right {
            problems.push(format!("{at} is {value}, against {keyword} {says}"));
        }
    }
}

fn is(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("type `{other}`"),
    }
}
