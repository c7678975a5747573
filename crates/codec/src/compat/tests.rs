//! Tests of the checks: each catches what it is for. That the project's own files pass is a contract test.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// The project's files with `path`'s text changed.
fn with(path: &str, from: &str, to: &str) -> Vec<SchemaText> {
    let mut texts = builtin_texts();
    let text = texts.iter_mut().find(|text| text.path == path).unwrap();
    assert!(text.json.contains(from), "{path} has no {from}");
    text.json = text.json.replacen(from, to, 1);
    texts
}

/// What is found says `words`, about `path`.
fn finds(texts: &[SchemaText], path: &str, words: &str) {
    let findings = check(texts);
    let all = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(findings.iter().any(|f| f.path == path && f.problem.contains(words)), "`{words}` not in:\n{all}");
}

/// A second version of an event that has one, made from the first.
fn second(event: &str, from: &str, to: &str) -> (Vec<SchemaText>, String) {
    let mut texts = builtin_texts();
    let first = texts.iter().find(|text| text.path == format!("{event}.v1.avsc")).unwrap().clone();
    assert!(first.json.contains(from), "{event} has no {from}");
    let path = format!("{event}.v2.avsc");
    texts.push(SchemaText { path: path.clone(), json: first.json.replacen(from, to, 1) });
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    (texts, path)
}

#[test]
fn the_files_of_the_project_pass() {
    assert_eq!(check(&builtin_texts()), []);
}

#[test]
fn an_added_field_needs_a_default() {
    let field = r#"{ "name": "door", "type": "string", "doc": "Which of the unit's doors." }"#;
    let added = format!(r#"{field}, {{ "name": "floor", "type": "int", "doc": "Floor number." }}"#);
    let (texts, path) = second("robot/DoorChanged", field, &added);
    let words = "does not read what version 1 writes: `floor`: was added or removed without a default";
    finds(&texts, &path, words);
}

#[test]
fn a_removed_field_needed_a_default() {
    let field = r#"{ "name": "door", "type": "string", "doc": "Which of the unit's doors." },"#;
    let (texts, _) = second("robot/DoorChanged", field, "");
    finds(
        &texts,
        "robot/DoorChanged.v1.avsc",
        "does not read what version 2 writes: `door`: was added or removed",
    );
}

#[test]
fn types_stay_even_where_avro_would_promote() {
    for (event, from, to, words) in [
        (
            "task/Completed",
            r#""type": "int""#,
            r#""type": "long""#,
            "`failed_steps`: its type was changed from int to long",
        ),
        (
            "task/Failed",
            r#"{ "name": "task_id", "type": "string""#,
            r#"{ "name": "task_id", "type": "bytes""#,
            "from string to bytes",
        ),
        (
            "robot/Connected",
            r#""logicalType": "timestamp-millis""#,
            r#""logicalType": "timestamp-micros""#,
            "`meta.occurred_at`: its type was changed from timestampmillis",
        ),
        (
            "robot/Connected",
            r#"["null", "long"]"#,
            r#"["null", "long", "string"]"#,
            "`meta.sequence`: its union has no branch for string",
        ),
        (
            "robot/DoorChanged",
            r#""name": "DoorState""#,
            r#""name": "GateState""#,
            "`fleetlog.robot.DoorState` was renamed to `fleetlog.robot.GateState`",
        ),
    ] {
        let (texts, _) = second(event, from, to);
        let all = check(&texts).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(all.contains(words), "`{words}` not in:\n{all}");
    }
}

#[test]
fn a_symbol_may_come_and_go_only_beside_a_default() {
    let (writer, reader) = (r#"["a", "b"]"#, r#"["a"]"#);
    let schema = |symbols: &str, default: &str| {
        apache_avro::Schema::parse_str(&format!(
            r#"{{"type":"enum","name":"E","symbols":{symbols}{default}}}"#
        ))
        .unwrap()
    };
    let words = ["symbol `b` is not there and the enum has no default".to_owned()];
    assert_eq!(unreadable(&schema(writer, ""), &schema(reader, "")), words);
    assert_eq!(unreadable(&schema(reader, ""), &schema(writer, "")), [""; 0]);
    assert_eq!(unreadable(&schema(writer, ""), &schema(reader, r#","default":"a""#)), [""; 0]);
    finds(
        &with("robot/DoorChanged.v1.avsc", r#""default": "unknown""#, r#""default": "open""#),
        "robot/DoorChanged.v1.avsc",
        "needs the symbol and default \"unknown\"",
    );
}

#[test]
fn a_fixed_keeps_its_size() {
    let schema = |size| {
        apache_avro::Schema::parse_str(&format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#)).unwrap()
    };
    assert_eq!(unreadable(&schema(4), &schema(8)), ["has 8 bytes, 4 were written"]);
}

#[test]
fn a_recursive_type_ends() {
    let json =
        r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"],"default":null}]}"#;
    let schema = apache_avro::Schema::parse_str(json).unwrap();
    assert_eq!(unreadable(&schema, &schema), [""; 0]);
}

#[test]
fn the_newest_schema_is_the_struct() {
    let path = "robot/Connected.v1.avsc";
    finds(
        &with(path, r#""name": "protocol""#, r#""name": "protokoll""#),
        path,
        "the fields of `fleetlog.robot.Connected` are",
    );
    finds(
        &with(path, r#""name": "sequence""#, r#""name": "sequenz""#),
        path,
        "the fields of `fleetlog.EventMeta` are",
    );
    finds(
        &with("task/Completed.v1.avsc", r#""type": "int""#, r#""type": "long""#),
        "task/Completed.v1.avsc",
        "does not read it",
    );
    let order = r#""opening", "closed""#;
    finds(
        &with("robot/DoorChanged.v1.avsc", order, r#""closed", "opening""#),
        "robot/DoorChanged.v1.avsc",
        "the symbols of",
    );
    let alias = r#""aliases": ["vendor"]"#;
    finds(
        &with("robot/Registered.v2.avsc", alias, r#""aliases": ["maker"]"#),
        "robot/Registered.v2.avsc",
        "names and aliases",
    );
}

/// A serde default other than the schema's is found even before there is a second version.
#[test]
fn the_default_of_the_struct_is_that_of_the_schema() {
    let path = "task/Completed.v1.avsc";
    let texts = with(path, r#""type": "int", "default": 0"#, r#""type": "int", "default": 7"#);
    finds(&texts, path, "written without the fields that have defaults: the struct reads");
}

#[test]
fn files_and_structs_belong_together() {
    let mut texts = builtin_texts();
    texts.retain(|text| text.path != "task/Paused.v1.avsc");
    finds(&texts, "task/Paused.v1.avsc", "is missing: `fleetlog.task.Paused` in crates/event has no schema");
    texts.retain(|text| text.path != "task/Created.v1.avsc");
    finds(&texts, "task/Created.v2.avsc", "version 1 is missing before it");

    let mut texts = builtin_texts();
    let exploded = texts
        .iter()
        .find(|text| text.path == "task/Paused.v1.avsc")
        .unwrap()
        .json
        .replace("\"Paused\"", "\"Exploded\"");
    texts.push(SchemaText { path: "task/Exploded.v1.avsc".to_owned(), json: exploded });
    finds(&texts, "task/Exploded.v1.avsc", "there is no struct for `fleetlog.task.Exploded`");
}

#[test]
fn a_file_is_named_and_headed_as_all_are() {
    let mut texts = builtin_texts();
    texts.push(SchemaText { path: "robot/notes.txt".to_owned(), json: String::new() });
    texts.push(SchemaText { path: "README.md".to_owned(), json: String::new() });
    finds(&texts, "robot/notes.txt", "is not called <topic>/<Event>.v<N>.avsc");
    finds(&texts, "README.md", "is not called");
    let path = "robot/Connected.v1.avsc";
    finds(
        &with(path, r#""name": "Connected""#, r#""name": "Linked""#),
        path,
        "called `fleetlog.robot.Linked`, the path says `fleetlog.robot.Connected`",
    );
    finds(&with(path, r#""logicalType": "uuid","#, ""), path, "its first field is not `meta`");
    finds(&with(path, "The protocol it speaks, with its version.", " "), path, "`protocol` has no doc");
    finds(&with(path, r#""type": "record""#, r#""type": "recor""#), path, "not an Avro schema");
}

#[test]
fn random_data_is_the_same_for_a_seed() {
    let schema = crate::newest("fleetlog.task.Created").unwrap();
    let value = |seed| Random::new(seed).value(schema.schema(), false).unwrap();
    assert_eq!(value(3), value(3));
    assert_ne!(value(3), value(4));
}
