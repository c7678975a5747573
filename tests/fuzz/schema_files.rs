//! Schema files as `fleetlog schemas check` reads them.

use fleetlog_codec::compat::{self, SchemaText};
use fleetlog_testkit::fuzz::{Allowance, Answer, Target};
use serde_json::Value;

use crate::{project, writer_schemas::WORDS};

/// Random data of the schema is made, written and read, up to a bound of its own (`compat::Random`).
const ALLOWANCE: Allowance = Allowance { base_bytes: 64 << 20, per_byte: 400 };

#[test]
fn schema_files() {
    let target = Target::new("schema-files", 1_500, ALLOWANCE).files(&project("schemas"));
    target.run(
        |mutator, corpus| {
            let (base, other) = (mutator.pick(corpus), mutator.pick(corpus));
            match (serde_json::from_slice::<Value>(base), serde_json::from_slice::<Value>(other)) {
                (Ok(base), Ok(other)) if !mutator.once_in(6) => {
                    mutator.json(&base, &other, &WORDS).to_string().into_bytes()
                }
                _ => mutator.bytes(corpus, &[b"{\"type\":", b"[\"null\",", b"\"fields\":["]),
            }
        },
        check,
    );
}

fn check(input: &[u8]) -> Answer {
    let Ok(json) = std::str::from_utf8(input) else { return Ok("no text") };
    let path = path_of(json);
    let findings = compat::check(&[SchemaText { path: path.clone(), json: json.to_owned() }]);
    let about: Vec<_> = findings.iter().filter(|finding| finding.path == path).collect();
    if let Some(empty) = findings.iter().find(|finding| finding.problem.is_empty()) {
        return Err(format!("a finding without words: {empty:?}"));
    }
    match about.as_slice() {
        [] => Ok("fits"),
        [one, ..] if one.problem.contains("not an Avro schema") => Ok("no schema"),
        [one, ..] if one.problem.contains("refused") => Ok("refused"),
        _ => Ok("problems found"),
    }
}

/// Where the file would have to lie by its own name, so that checks go on beyond the name.
fn path_of(json: &str) -> String {
    let parsed: Value = serde_json::from_str(json).unwrap_or_default();
    let text = |name: &str| parsed[name].as_str().unwrap_or_default().to_owned();
    let full = if text("namespace").is_empty() {
        text("name")
    } else {
        format!("{}.{}", text("namespace"), text("name"))
    };
    match full.strip_prefix("fleetlog.").and_then(|rest| rest.split_once('.')) {
        Some((topic, event)) => format!("{topic}/{event}.v1.avsc"),
        None => "robot/Connected.v1.avsc".to_owned(),
    }
}
