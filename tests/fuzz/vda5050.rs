//! Recorded MQTT messages: a few lines at a time, to a mapper that has seen nothing before.

use fleetlog_event::{EventSet, TimestampMs};
use fleetlog_testkit::fuzz::{Allowance, Answer, Mutator, Target};
use fleetlog_vda5050::{Mapper, Outcome, Verdict};
use serde_json::{Value, json};

use crate::{frames::round_trip, recording};

/// JSON of two bytes a value becomes a tree of 72; a fault of 20 bytes becomes an event with both ids of the unit.
const ALLOWANCE: Allowance = Allowance::per_byte(400);

#[test]
fn messages() {
    let lines = recording().into_iter().step_by(37);
    let target = Target::new("vda5050", 15_000, ALLOWANCE).made(lines.chain(version_3()));
    target.run(
        |mutator, corpus| {
            if mutator.once_in(6) {
                return mutator.bytes(
                    corpus,
                    &[b"{\"ts_ms\":", b"\\u0000", b"\\ud800", b"[[[[[[[[", b"1e999", b"\"retain\":true"],
                );
            }
            let lines: Vec<Vec<u8>> = (0..=mutator.below(4)).map(|_| changed(mutator, corpus)).collect();
            lines.join(&b'\n')
        },
        check,
    );
}

/// A message of each kind of version 3.0, as lines.
fn version_3() -> impl Iterator<Item = Vec<u8>> {
    const MESSAGES: [(&str, &str); 8] = [
        ("connection", include_str!("../../crates/vda5050/tests/version_3/connection.json")),
        ("factsheet", include_str!("../../crates/vda5050/tests/version_3/factsheet.json")),
        ("order", include_str!("../../crates/vda5050/tests/version_3/order.json")),
        ("instantActions", include_str!("../../crates/vda5050/tests/version_3/instantActions.json")),
        ("state", include_str!("../../crates/vda5050/tests/version_3/state.json")),
        ("visualization", include_str!("../../crates/vda5050/tests/version_3/visualization.json")),
        ("zoneSet", include_str!("../../crates/vda5050/tests/version_3/zoneSet.json")),
        ("responses", include_str!("../../crates/vda5050/tests/version_3/responses.json")),
    ];
    MESSAGES.into_iter().map(|(kind, payload)| {
        let topic = format!("werk1/v3/NordFTS/0001/{kind}");
        json!({"ts_ms": 1_795_251_856_000_i64, "topic": topic, "payload": payload}).to_string().into_bytes()
    })
}

/// One line, its payload changed as JSON.
fn changed(mutator: &mut Mutator, corpus: &[Vec<u8>]) -> Vec<u8> {
    let (base, other) = (mutator.pick(corpus).clone(), mutator.pick(corpus).clone());
    let parsed = |line: &[u8]| {
        let line: Value = serde_json::from_slice(line).ok()?;
        let payload: Value = serde_json::from_str(line["payload"].as_str()?).ok()?;
        Some((line, payload))
    };
    let (Some((mut line, payload)), Some((_, other))) = (parsed(&base), parsed(&other)) else { return base };
    let payload = if mutator.once_in(4) { payload } else { mutator.json(&payload, &other, &WORDS) };
    line["payload"] = payload.to_string().into();
    match mutator.below(12) {
        0 => line["ts_ms"] = (*mutator.pick(&[i64::MIN, i64::MAX, 0, -1])).into(),
        1 => line["retain"] = true.into(),
        // One vehicle and few orders, so that messages meet.
        2..=6 => {
            let kind = line["topic"]
                .as_str()
                .and_then(|topic| topic.rsplit('/').next())
                .unwrap_or("state")
                .to_owned();
            line["topic"] = format!("werk1/v2/NordFTS/0001/{kind}").into();
        }
        7 => line = mutator.json(&line, &json!({"topic": "a/v2/b/c/state"}), &WORDS),
        _ => {}
    }
    line.to_string().into_bytes()
}

const WORDS: [&str; 76] = [
    "state",
    "headerId",
    "timestamp",
    "orderId",
    "orderUpdateId",
    "nodes",
    "edges",
    "sequenceId",
    "actions",
    "actionId",
    "actionType",
    "actionStatus",
    "actionStates",
    "instantActions",
    "actionParameters",
    "key",
    "value",
    "lastNodeId",
    "lastNodeSequenceId",
    "nodeStates",
    "edgeStates",
    "driving",
    "paused",
    "operatingMode",
    "agvPosition",
    "batteryState",
    "errors",
    "errorType",
    "errorReferences",
    "referenceKey",
    "referenceValue",
    "topic",
    "order",
    "orderError",
    "cancelOrder",
    "FINISHED",
    "FAILED",
    "RUNNING",
    "WAITING",
    "ONLINE",
    "CONNECTIONBROKEN",
    "connectionState",
    "safetyState",
    "eStop",
    "loads",
    "loadDimensions",
    "length",
    "information",
    "infoType",
    "infoDescriptor",
    "newBaseRequest",
    "zoneSetId",
    "zoneSets",
    "zoneSetStatus",
    "zoneRequests",
    "ENABLED",
    "RETRIABLE",
    "HIBERNATING",
    "instantActionStates",
    "mobileRobotPosition",
    "localized",
    "powerSupply",
    "stateOfCharge",
    "typeSpecification",
    "protocolLimits",
    "maximumArrayLengths",
    "loadSets",
    "maximumWeight",
    "mobileRobotActions",
    "mobileRobotConfiguration",
    "versions",
    "version",
    "4.0.0",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "2026-11-21T09:04:16.2Z",
];

fn check(input: &[u8]) -> Answer {
    let mut mapper = Mapper::new("fuzz");
    let mut answer = "nothing new";
    for (number, line) in (1..).zip(input.split(|byte| *byte == b'\n')) {
        let outcome = mapper.raw_line(line, number, TimestampMs(1_795_251_856_000));
        judge(&outcome)?;
        match outcome.verdict {
            Verdict::Mapped | Verdict::RetainedNews => answer = "mapped",
            Verdict::Dead { reason, .. } if answer != "mapped" => answer = reason.as_str(),
            _ => {}
        }
    }
    Ok(answer)
}

fn judge(outcome: &Outcome) -> Result<(), String> {
    for event in &outcome.events {
        event.validate().map_err(|reject| format!("an event that is not valid: {reject:?}"))?;
        round_trip(event)?;
    }
    match &outcome.verdict {
        Verdict::Mapped | Verdict::RetainedNews => Ok(()),
        Verdict::Dead { detail, .. } if detail.is_empty() || detail.len() > 2_000 => {
            Err(format!("a reason of {} bytes", detail.len()))
        }
        other if outcome.events.is_empty() => {
            let _ = other;
            Ok(())
        }
        other => Err(format!("{} events although {other:?}", outcome.events.len())),
    }
}
