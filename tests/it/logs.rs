//! Logs as machines read them: a line each set-aside event, with where it lies and which trace it is of, and never a flood.

use bytes::Bytes;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use fleetlog_tests::{LIMIT, World};
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// On one partition, so of one lane, which has a bound on lines.
const POISONS: usize = 200;
const LINES_MAX: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_set_aside_event_is_a_line_with_its_place_and_trace_and_a_flood_is_not() {
    let world = World::new("logs").await;
    let settings = world.kafka();
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&settings, &ProducerSettings::default(), metrics).unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..POISONS {
        let record = RawRecord {
            topic: settings.topic("robot"),
            partition: Some(2),
            key: Some(Bytes::from_static(b"ss.up")),
            value: Some(Bytes::from_static(b"no event")),
            timestamp: None,
            headers: vec![(
                "traceparent".into(),
                Some(Bytes::from(format!("00-{TRACE}-00f067aa0ba902b7-01"))),
            )],
        };
        deliveries.push(producer.send(record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let fleetlog = world.fleetlog.clone().env("FLEETLOG_LOG__FORMAT", "json");
    let output = fleetlog.run(&["run", "--once", "--projections", "unit-status"], LIMIT).await.unwrap();
    assert_eq!(output.code(), Some(0), "{}", output.stderr);

    let lines: Vec<Value> = output
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let told: Vec<&Value> = lines.iter().filter(|line| line["reason"] == "unknown_framing").collect();
    assert!(!told.is_empty() && told.len() <= LINES_MAX, "{} lines for {POISONS} events", told.len());
    let first = told[0];
    for (name, value) in [
        ("level", Value::from("WARN")),
        ("projection", "unit-status".into()),
        ("topic", settings.topic("robot").into()),
        ("partition", 2.into()),
        ("offset", 0.into()),
        ("trace_id", TRACE.into()),
    ] {
        assert_eq!(first[name], value, "{name} of {first}");
    }
    assert!(first["message"].as_str().unwrap().starts_with("set aside: "), "{first}");
    assert!(first["lane"].as_str().unwrap().starts_with("unit-status@1:"), "{first}");
    // Lines and what they say was left unsaid are no more than there were.
    let unsaid: u64 = lines.iter().filter_map(|line| line["unsaid"].as_u64()).sum();
    assert!(told.len() as u64 + unsaid <= POISONS as u64, "{unsaid} unsaid");
}
