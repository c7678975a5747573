//! Tests of the pure parts.

mod acting;
mod conventions;
mod counting;
mod foreign;
mod halting;

use bytes::Bytes;
use fleetlog_event::TimestampMs;
use fleetlog_kafka::{HeaderName, OwnedRecord};

use crate::Letter;

type Header = (HeaderName, Option<Bytes>);

fn header(name: &str, value: &[u8]) -> Header {
    (name.into(), Some(Bytes::copy_from_slice(value)))
}

/// A record of `x-robot-dlq`, partition 1.
fn record(offset: i64, at_ms: i64, headers: Vec<Header>) -> OwnedRecord {
    OwnedRecord {
        topic: "x-robot-dlq".into(),
        partition: 1,
        offset,
        timestamp: TimestampMs(at_ms),
        key: Some(Bytes::from_static(b"s504.u7")),
        value: Some(Bytes::from_static(b"\xC3\x01value")),
        headers,
    }
}

/// A letter of ours about `x-robot/3/{origin}`.
fn letter(offset: i64, at_ms: i64, group: &str, origin: i64, reason: &str) -> Letter {
    let text = |name: &str, value: &str| header(&format!("fleetlog-dlq-{name}"), value.as_bytes());
    let headers = vec![
        text("group", group),
        text("reason", reason),
        text("class", "reject"),
        text("topic", "x-robot"),
        text("partition", "3"),
        text("offset", &origin.to_string()),
    ];
    Letter::read(&record(offset, at_ms, headers), "robot-dlq")
}
