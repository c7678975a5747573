//! Tests of writer schemas.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn every_event_has_a_compiled_in_schema() {
    for event in FleetEvent::types() {
        assert!(
            newest(event.name).is_some(),
            "schemas/{}/{}.v1.avsc is missing",
            event.topic,
            event.short_name()
        );
    }
    assert_eq!(builtin_schemas().len(), FILES.len());
}

#[test]
fn a_compiled_in_schema_is_recognised_in_whatever_form() {
    let known = newest("fleetlog.robot.Connected").unwrap();
    let canonical = known.schema().canonical_form();
    let parsed = WriterSchema::parse(&canonical).unwrap();
    assert!(Arc::ptr_eq(&parsed, &known));
    assert_eq!(parsed.version(), Some(1));
    assert_eq!(WriterSchema::builtin(known.fingerprint()).unwrap().name(), "fleetlog.robot.Connected");
}

/// The vectors of the specification's own test data (`schema-tests.txt`).
#[test]
fn fingerprints_are_those_of_other_implementations() {
    for (json, expected) in [
        (r#""null""#, 7195948357588979594_i64),
        (r#"{"type":"fixed", "name":"foo", "size":15, "doc": "x"}"#, 1756455273707447556),
    ] {
        assert_eq!(fingerprint(json).unwrap().cast_signed(), expected, "{json}");
    }
}

/// Computed with fastavro 1.12: `fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")` of the file, whose
/// text is the 8 bytes in the order of the wire.
#[test]
fn the_fingerprint_of_a_schema_with_logical_types_is_that_of_other_implementations() {
    let of = |name| newest(name).unwrap().fingerprint().to_le_bytes();
    assert_eq!(of("fleetlog.robot.Connected"), 0xb6f9_4fb5_3881_cf46_u64.to_be_bytes());
}

#[test]
fn versions_are_read_from_file_names() {
    assert_eq!(file_version("robot/Connected.v2.avsc"), Some(2));
    for path in
        ["robot/Connected.avsc", "robot/Connected.v0.avsc", "robot/Connected.v01.avsc", "robot/C.v1.json"]
    {
        assert_eq!(file_version(path), None, "{path}");
    }
}

#[test]
fn a_schema_that_could_exhaust_us_is_refused() {
    let deep =
        (0..70).fold("\"int\"".to_owned(), |inner, _| format!(r#"{{"type":"array","items":{inner}}}"#));
    let record = |fields: &str| format!(r#"{{"type":"record","name":"x.R","fields":[{fields}]}}"#);
    for (json, words) in [
        (record(r#"{"name":"next","type":["null","x.R"]}"#), "recursive"),
        (record(&format!(r#"{{"name":"a","type":{deep}}}"#)), "nested deeper than 64"),
        (
            record(r#"{"name":"a","type":{"type":"fixed","name":"F","size":99999999}}"#),
            "fixed type of 99999999 bytes",
        ),
        (record(r#"{"name":"a","type":{"type":"array","items":"null"}}"#), "`items` takes no bytes"),
        (record(r#"{"name":"a","type":"null"}"#), "`a` takes no bytes"),
        (record(r#"{"name":"a","type":{"type":"record","name":"E","fields":[]}}"#), "`a` takes no bytes"),
        (format!(r#"{{"type":"fixed","name":"{}","size":1}}"#, "x".repeat(500)), "its name has 500 bytes"),
        (" ".repeat(SCHEMA_BYTES_MAX + 1), "at most 1048576 are read"),
    ] {
        let error = WriterSchema::parse(&json).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_type_used_often_is_walked_once() {
    // 60 levels of records that each use the one below twice: 2^60 paths.
    let mut json = r#"{"type":"record","name":"R0","fields":[{"name":"a","type":"int"}]}"#.to_owned();
    for level in 1..60 {
        let below = level - 1;
        json = format!(
            r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":{json}}},{{"name":"b","type":"R{below}"}}]}}"#
        );
    }
    // Deeper than the JSON parser goes is refused there; either way the answer comes at once.
    let _ = WriterSchema::parse(&json);
}

#[test]
fn what_is_no_schema_is_named() {
    let error = WriterSchema::parse("{\"type\":\"recor\"}").unwrap_err();
    assert!(matches!(error, SchemaError::Invalid(_)), "{error}");
}

/// Each of them made apache-avro 0.22 panic.
#[test]
fn an_attribute_of_the_wrong_type_is_named() {
    for (attribute, words) in [
        ("\"symbols\":5", "`symbols` is a number"),
        ("\"values\":null", "`values` is null"),
        ("\"scale\":0.5", "`scale` is a number"),
        ("\"size\":\"large\"", "`size` is a text"),
        ("\"items\":[[true]]", "`items` is a list"),
    ] {
        let json = format!(
            r#"{{"type":"record","name":"x.R","fields":[{{"name":"a","type":{{"type":"int",{attribute}}}}}]}}"#
        );
        let error = WriterSchema::parse(&json).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(fingerprint(&json).unwrap_err().to_string(), error);
    }
}
