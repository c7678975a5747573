//! `schemas/` against the event structs.

use std::collections::BTreeMap;

use fleetlog_codec::compat::{builtin_texts, check, read_folder};
use fleetlog_event::FleetEvent;
use serde_json::Value;
use uuid::Uuid;

use crate::project;

/// Names, docs, heads, FULL_TRANSITIVE between all versions, newest version = struct (names, order, types, symbols),
/// fast path = full resolution, and no file without struct or the reverse.
#[test]
fn every_schema_keeps_the_contract() {
    let texts = read_folder(&project("schemas")).unwrap();
    assert!(texts.len() >= FleetEvent::types().count(), "only {} files were read", texts.len());
    let findings = check(&texts).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(findings.is_empty(), "\n{findings}\nrules: crates/codec/src/compat.rs");
}

/// What is compiled in is what lies there (a build script lists the files).
#[test]
fn every_schema_file_is_compiled_in() {
    assert_eq!(read_folder(&project("schemas")).unwrap(), builtin_texts());
}

/// Evolution is exercised, not only possible.
#[test]
fn some_events_have_more_than_one_version() {
    let second = builtin_texts().into_iter().filter(|text| text.path.ends_with(".v2.avsc")).count();
    assert!(second >= 2, "{second}");
}

/// A version that was released is never edited: data written with it lies on logs for ever, under its fingerprint.
#[test]
fn no_released_version_was_edited() {
    let listed: BTreeMap<&str, &str> =
        include_str!("released_schemas.txt").lines().filter_map(|line| line.split_once(' ')).collect();
    let mut problems = Vec::new();
    let texts = builtin_texts();
    for text in &texts {
        let now = content_hash(&text.json);
        match listed.get(text.path.as_str()) {
            Some(released) if *released == now => {}
            Some(_) => problems.push(format!(
                "schemas/{}: was edited after its release: put it back as it was, and add the next version beside it",
                text.path
            )),
            None => problems.push(format!(
                "schemas/{}: is new: once nobody will edit it any more, add `{} {now}` to tests/contract/released_schemas.txt",
                text.path, text.path
            )),
        }
    }
    for gone in listed.keys().filter(|path| !texts.iter().any(|text| text.path == **path)) {
        problems.push(format!("schemas/{gone}: was released and is gone: put it back"));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Of everything but the docs, which may become clearer: names, order, types, defaults, aliases.
fn content_hash(json: &str) -> String {
    fn without_docs(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(without_docs),
            Value::Object(fields) => {
                fields.shift_remove("doc");
                fields.values_mut().for_each(without_docs);
            }
            _ => {}
        }
    }
    let mut schema: Value = serde_json::from_str(json).unwrap();
    without_docs(&mut schema);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, schema.to_string().as_bytes()).simple().to_string()
}

#[test]
fn an_edited_version_would_be_noticed_and_a_clearer_doc_is_none() {
    let text = &builtin_texts()[0].json;
    let edited = |edit: fn(&mut Value)| {
        let mut json: Value = serde_json::from_str(text).unwrap();
        edit(&mut json);
        content_hash(&json.to_string())
    };
    assert_eq!(edited(|json| json["doc"] = "clearer".into()), content_hash(text));
    assert_ne!(edited(|json| json["fields"][1]["default"] = Value::Null), content_hash(text));
    assert_ne!(edited(|json| json["fields"][1]["name"] = "renamed".into()), content_hash(text));
}
