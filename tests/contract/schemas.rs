//! `schemas/` against the event structs.

use fleetlog_codec::compat::{builtin_texts, check, read_folder};
use fleetlog_event::FleetEvent;

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
