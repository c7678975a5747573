//! The producer against a real Kafka: where events lie, what happens when it is too much, too large, or fatal.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use fleetlog_codec::{RegistryClient, RegistrySettings, SchemaSource};
use fleetlog_event::{
    EventId, EventMeta, FleetEvent, TimestampMs, partition_of,
    robot::{ActionRequested, Connected, Registered},
};
use fleetlog_kafka::{KafkaFault, KafkaSettings, OwnedRecord};
use fleetlog_producer::{
    Cause, EventProducer, ProducerMetrics, ProducerSettings, RawProducer, RawRecord, Schemas, SendError,
    SendOptions, TransactionError, TransactionalProducer,
};

use fleetlog_testkit::{KafkaServer, Stack};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};

use crate::kafka::{cluster, create_topics};

const TIMEOUT: Duration = Duration::from_secs(120);

fn meta(unit: &str) -> EventMeta {
    EventMeta {
        event_id: EventId::now_v7(),
        occurred_at: TimestampMs(1_709_210_096_789),
        recorded_at: TimestampMs(0),
        site_uid: "werk1".into(),
        unit_uid: Some(unit.into()),
        sequence: None,
        sequence_scope: None,
        source: "it/1".into(),
        correlation_id: None,
        causation_id: None,
    }
}

fn connected(unit: &str) -> Connected {
    Connected { meta: meta(unit), protocol: None }
}

/// Everything visible on a topic, by partition and offset.
async fn log(settings: &KafkaSettings, stem: &str) -> Vec<OwnedRecord> {
    fleetlog_testkit::records(settings, &settings.topic(stem)).await.unwrap()
}

/// Lets the client send what the broker refuses.
fn take_large_records(settings: &mut KafkaSettings) {
    for (name, value) in [("message.max.bytes", "10000000"), ("compression.type", "none")] {
        settings.properties.insert(name.into(), value.into());
    }
}

fn header<'r>(record: &'r OwnedRecord, name: &str) -> Option<&'r str> {
    let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
    Some(std::str::from_utf8(value.as_deref().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_lies_where_javas_partitioner_puts_it_with_its_headers() {
    let settings = cluster("headers");
    create_topics(&settings).await;
    let producer = EventProducer::connect(&settings).unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let options = SendOptions { traceparent: Some(trace.into()) };
    for unit in 0..40 {
        let mut event = connected(&format!("NordFTS/{unit:04}"));
        event.meta.recorded_at = TimestampMs(1_700_000_000_000 + unit);
        let delivered = producer.send_with(event, options.clone()).await.unwrap().await.unwrap();
        let key = format!("swerk1.uNordFTS%2F{unit:04}");
        assert_eq!(delivered.partition, partition_of(key.as_bytes(), 6), "{key}");
    }
    let records = log(&settings, "robot").await;
    assert_eq!(records.len(), 40);
    for record in &records {
        let key = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
        let unit: i64 = key[key.len() - 4..].parse().unwrap();
        assert_eq!(record.timestamp, TimestampMs(1_700_000_000_000 + unit));
        assert_eq!(&record.value.as_ref().unwrap()[..2], [0xc3, 0x01]);
        let id = fleetlog_codec::frame::event_id(record.value.as_deref()).unwrap();
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", id.to_string().as_str()),
            ("ce_source", "it/1"),
            ("ce_type", "fleetlog.robot.Connected"),
            ("ce_subject", key),
            ("ce_time", "2024-02-29T12:34:56.789Z"),
            ("content-type", "application/avro"),
            ("traceparent", trace),
        ] {
            assert_eq!(header(record, name), Some(value), "{name}");
        }
        assert_eq!(record.headers.len(), 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_at_is_filled_in_and_every_schema_is_there_before_the_first_event() {
    let settings = cluster("stamp");
    create_topics(&settings).await;
    let producer = EventProducer::connect(&settings).unwrap();
    let before = TimestampMs(
        i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
        )
        .unwrap(),
    );
    let events = [FleetEvent::Robot(connected("1").into())];
    for event in events {
        producer.send_any(event).await.unwrap().await.unwrap();
    }
    let record = log(&settings, "robot").await.remove(0);
    assert!(record.timestamp >= before, "{:?} {before:?}", record.timestamp);
    let schemas = log(&settings, "schemas").await;
    assert_eq!(schemas.len(), fleetlog_codec::builtin_schemas().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_registry_events_carry_the_id_of_their_schema() {
    let settings = cluster("registry");
    create_topics(&settings).await;
    let url = Stack::from_env().registry_url.unwrap();
    let registry = RegistryClient::new(&RegistrySettings::new(url)).unwrap();
    let schemas = Schemas::in_registry(registry.clone());
    let limits = ProducerSettings::default();
    let producer =
        EventProducer::connect_with(&settings, schemas, &limits, ProducerMetrics::default()).unwrap();
    producer.send(connected("1")).await.unwrap().await.unwrap();
    let record = log(&settings, "robot").await.remove(0);
    let value = record.value.unwrap();
    assert_eq!(value[0], 0);
    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
    assert_eq!(registry.by_id(id).await.unwrap().name(), "fleetlog.robot.Connected");
    assert!(log(&settings, "schemas").await.is_empty(), "the schema topic is not used then");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_readers_would_reject_is_not_sent() {
    let settings = cluster("invalid");
    create_topics(&settings).await;
    let producer = EventProducer::connect(&settings).unwrap();
    let event = connected("");
    let id = event.meta.event_id;
    let error = producer.send(event).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "event {id} (fleetlog.robot.Connected) is not sent: invalid_text: meta.unit_uid is empty, expected a text of 1 to 512 bytes"
        )
    );
    assert!(log(&settings, "robot").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_in_flight_waits_and_nothing_is_dropped() {
    let settings = cluster("pressure");
    create_topics(&settings).await;
    let metrics = ProducerMetrics::default();
    let limits = ProducerSettings { in_flight_records_max: 7, in_flight_bytes_max: 1 << 20 };
    let schemas = Schemas::on_topic(&settings).unwrap();
    let producer = EventProducer::connect_with(&settings, schemas, &limits, metrics).unwrap();
    let batch = producer.send_all((0..500).map(|n| connected(&format!("{}", n % 10)))).await;
    let report = producer.flush(Duration::ZERO).await;
    assert!(report.in_flight <= 7, "{report:?}");
    assert_eq!(batch.all().await.unwrap().len(), 500);
    let report = producer.close(TIMEOUT).await;
    assert_eq!((report.delivered, report.in_flight, report.undelivered.len()), (500, 0, 0));
    assert_eq!(log(&settings, "robot").await.len(), 500);
    assert!(matches!(producer.send(connected("1")).await, Err(SendError::Closed)));
}

#[tokio::test]
async fn without_a_broker_sending_waits_and_closing_tells_what_was_given_up() {
    let settings = KafkaSettings::at("127.0.0.1:1");
    for limits in [
        ProducerSettings { in_flight_records_max: 3, in_flight_bytes_max: 1 << 20 },
        ProducerSettings { in_flight_records_max: 100, in_flight_bytes_max: 3 * (512 + 2 * 5) },
    ] {
        let producer = RawProducer::connect(&settings, &limits, ProducerMetrics::default()).unwrap();
        let record =
            || RawRecord { topic: "t".into(), value: Some(Bytes::from("value")), ..RawRecord::default() };
        let kept = producer.send(record()).await.unwrap();
        for _ in 0..2 {
            drop(producer.send(record()).await.unwrap());
        }
        let fourth = tokio::time::timeout(Duration::from_millis(100), producer.send(record())).await;
        assert!(fourth.is_err(), "the fourth waits for room");
        let report = producer.flush(Duration::from_millis(10)).await;
        assert_eq!((report.delivered, report.in_flight, report.undelivered.len()), (0, 3, 0));
        let report = producer.close(Duration::from_millis(10)).await;
        assert_eq!((report.delivered, report.in_flight, report.undelivered.len()), (0, 0, 3), "{report:?}");
        let error = kept.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "a record was not acknowledged on topic `t`: the producer was closed before an answer came"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_loses_nothing_and_keeps_the_order() {
    const EVENTS: i64 = 30_000;
    let settings = cluster("fatal");
    create_topics(&settings).await;
    let producer = EventProducer::connect(&settings).unwrap();
    let mut deliveries = Vec::new();
    for n in 0..EVENTS {
        let mut event = connected(&format!("{}", n % 50));
        event.meta.sequence = Some(n);
        event.meta.source = n.to_string();
        if n % 7_000 == 3_500 {
            producer.fail_client_for_test();
        }
        deliveries.push(producer.send(event).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert!(producer.fatal_errors() >= 1, "no fatal error was survived");
    let records = log(&settings, "robot").await;
    assert_eq!(in_order_per_key(&records), EVENTS as usize, "of {} records", records.len());
    let report = producer.close(TIMEOUT).await;
    assert_eq!((report.delivered, report.undelivered.len()), (EVENTS as u64, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_cluster_refuses_is_named_and_the_others_go_on() {
    let mut settings = cluster("refused");
    create_topics(&settings).await;
    take_large_records(&mut settings);
    let producer = EventProducer::connect(&settings).unwrap();
    let large = ActionRequested {
        meta: meta("1"),
        action_id: "a1".into(),
        action_type: "map".into(),
        parameters: [("map".to_owned(), "x".repeat(3_000_000))].into(),
    };
    let id = large.meta.event_id;
    let refused = producer.send(large).await.unwrap();
    let taken = producer.send(connected("1")).await.unwrap();
    let error = refused.await.unwrap_err();
    assert_eq!((error.event_id, error.fault()), (Some(id), KafkaFault::Permanent), "{error}");
    assert!(error.to_string().starts_with(&format!("event {id} was not acknowledged on topic `")), "{error}");
    assert!(matches!(error.cause, Cause::Kafka(_)));
    taken.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_an_error_that_names_the_event() {
    let mut settings = cluster("missing");
    settings.properties.insert("topic.metadata.propagation.max.ms".into(), "500".into());
    let producer =
        RawProducer::connect(&settings, &ProducerSettings::default(), ProducerMetrics::default()).unwrap();
    let record = RawRecord { topic: settings.topic("robot"), ..RawRecord::default() };
    let error = producer.send(record).await.unwrap().await.unwrap_err();
    assert_eq!(error.fault(), KafkaFault::Permanent, "{error}");
    let events = EventProducer::connect(&settings).unwrap();
    let error = events.send(connected("1")).await.unwrap_err();
    assert!(error.to_string().contains("schemas` does not exist: `fleetlog topics plan`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_records_keep_their_bytes_and_partition() {
    let settings = cluster("raw");
    create_topics(&settings).await;
    let producer =
        RawProducer::connect(&settings, &ProducerSettings::default(), ProducerMetrics::default()).unwrap();
    let record = RawRecord {
        topic: settings.topic("task-dlq"),
        partition: Some(2),
        key: Some(Bytes::from_static(b"\xff\x00")),
        value: Some(Bytes::from_static(b"\x00\x01poison")),
        timestamp: None,
        headers: vec![("a".into(), Some(Bytes::from_static(&[0, 0, 0, 7]))), ("a".into(), None)],
    };
    let outcomes = producer.send_all([record.clone(), RawRecord { value: None, ..record.clone() }]).await;
    assert_eq!(outcomes.all().await.unwrap().len(), 2);
    let read = log(&settings, "task-dlq").await;
    assert_eq!(read[0].partition, 2);
    assert_eq!(
        (&read[0].key, &read[0].value, &read[0].headers),
        (&record.key, &record.value, &record.headers)
    );
    assert_eq!(read[1].value, None);
}

fn registered(unit: &str) -> FleetEvent {
    let meta = meta(unit);
    let event: Registered = serde_json::from_value(serde_json::json!({ "meta": meta })).unwrap();
    FleetEvent::Robot(event.into())
}

async fn transactional(settings: &KafkaSettings) -> TransactionalProducer {
    let schemas = Schemas::on_topic(settings).unwrap();
    TransactionalProducer::connect(settings, &settings.topic("import"), schemas, ProducerMetrics::default())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_whole_or_not_at_all() {
    let mut settings = cluster("transaction");
    create_topics(&settings).await;
    take_large_records(&mut settings);
    let place = |line: &str, bytes| RawRecord {
        topic: settings.topic("import-places"),
        key: Some(Bytes::from_static(b"file")),
        value: Some(Bytes::from(line.repeat(bytes))),
        ..RawRecord::default()
    };
    let mut producer = transactional(&settings).await;
    producer.transact(vec![registered("1"), registered("2")], vec![place("2", 1)]).await.unwrap();
    let error = producer.transact(vec![registered("3")], vec![place("3", 3_000_000)]).await.unwrap_err();
    assert!(matches!(error, TransactionError::Aborted(_)), "{error:?}");
    let invalid = FleetEvent::Robot(connected("").into());
    let error = producer.transact(vec![registered("4"), invalid], vec![]).await.unwrap_err();
    assert!(matches!(error, TransactionError::Event(SendError::Invalid { .. })), "{error:?}");
    producer.transact(vec![registered("5")], vec![place("5", 1)]).await.unwrap();
    assert!(producer.until_visible(TIMEOUT).await.unwrap());

    let mut units: Vec<String> = log(&settings, "robot")
        .await
        .iter()
        .map(|record| String::from_utf8(record.key.clone().unwrap().into()).unwrap())
        .collect();
    units.sort();
    assert_eq!(units, ["swerk1.u1", "swerk1.u2", "swerk1.u5"]);
    let places: Vec<_> =
        log(&settings, "import-places").await.into_iter().map(|r| r.value.unwrap()).collect();
    assert_eq!(places, ["2", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_transactional_id_takes_over() {
    let settings = cluster("fence");
    create_topics(&settings).await;
    let mut first = transactional(&settings).await;
    first.transact(vec![registered("1")], vec![]).await.unwrap();
    let mut second = transactional(&settings).await;
    second.transact(vec![registered("2")], vec![]).await.unwrap();
    let error = first.transact(vec![registered("3")], vec![]).await.unwrap_err();
    assert!(matches!(error, TransactionError::Fenced(_)), "{error:?}");
    second.transact(vec![registered("4")], vec![]).await.unwrap();
    assert!(second.until_visible(TIMEOUT).await.unwrap());
    assert_eq!(log(&settings, "robot").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_waited_for_until_readers_reach_it() {
    let settings = cluster("visible");
    create_topics(&settings).await;
    let mut producer = transactional(&settings).await;
    assert!(producer.until_visible(Duration::ZERO).await.unwrap(), "nothing was committed");
    let of_others = settings.clone();
    let open = tokio::task::spawn_blocking(move || open_transaction(&of_others)).await.unwrap();
    producer.transact(vec![registered("1")], vec![]).await.unwrap();
    assert!(!producer.until_visible(Duration::from_millis(200)).await.unwrap(), "behind an open transaction");
    let aborted = tokio::task::spawn_blocking(move || open.abort_transaction(TIMEOUT));
    aborted.await.unwrap().unwrap();
    assert!(producer.until_visible(TIMEOUT).await.unwrap());
    assert_eq!(log(&settings, "robot").await.len(), 1);
}

/// Somebody else's transaction that has written to the partition of unit 1 and is still open, *blocking*.
fn open_transaction(settings: &KafkaSettings) -> BaseProducer {
    let mut config: ClientConfig = settings.producer();
    config.set("transactional.id", settings.topic("other"));
    let other: BaseProducer = config.create().unwrap();
    other.init_transactions(TIMEOUT).unwrap();
    other.begin_transaction().unwrap();
    other.send(BaseRecord::to(&settings.topic("robot")).key("swerk1.u1").payload("open")).unwrap();
    other.flush(TIMEOUT).unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_has_every_event_in_order() {
    const EVENTS: i64 = 3_000;
    let mut server = KafkaServer::start().await.unwrap();
    let settings = server.settings("");
    create_topics(&settings).await;
    let producer = EventProducer::connect(&settings).unwrap();
    let mut deliveries = Vec::new();
    for n in 0..EVENTS {
        if n == 1_000 {
            server.kill();
        }
        let mut event = connected(&format!("{}", n % 20));
        event.meta.source = n.to_string();
        deliveries.push(producer.send(event).await.unwrap());
    }
    let report = producer.flush(Duration::from_millis(50)).await;
    assert!(report.in_flight >= 2_000, "{report:?}");
    server.restart().await.unwrap();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(in_order_per_key(&log(&settings, "robot").await), EVENTS as usize);

    server.kill();
    let lost = connected("1");
    let id = lost.meta.event_id;
    drop(producer.send(lost).await.unwrap());
    let report = producer.close(Duration::from_millis(50)).await;
    assert_eq!((report.delivered, report.in_flight, report.undelivered.len()), (EVENTS as u64, 0, 1));
    assert_eq!(report.undelivered[0].event_id, Some(id));
}

/// How many different events the records hold; `ce_source` holds the number in which each was sent, and each key's
/// events have to lie in that order (first occurrences: a resent event may lie there again).
fn in_order_per_key(records: &[OwnedRecord]) -> usize {
    let (mut seen, mut last) = (HashSet::new(), BTreeMap::new());
    for record in records {
        let n: i64 = header(record, "ce_source").unwrap().parse().unwrap();
        if seen.insert(header(record, "ce_id").unwrap().to_owned()) {
            let before = last.insert(record.key.clone(), n).unwrap_or(-1);
            assert!(before < n, "{n} came after {before}");
        }
    }
    seen.len()
}
