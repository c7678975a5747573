//! The schema topic on a real Kafka.

use std::sync::Arc;

use bytes::Bytes;
use fleetlog_codec::{LookupError, SchemaSource, WriterSchema, builtin_schemas};
use fleetlog_kafka::{Admin, KafkaSettings, SchemaTopic};
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};

use crate::kafka::{cluster, create_topics};

fn foreign(field: &str) -> Arc<WriterSchema> {
    let json = format!(
        r#"{{"type":"record","name":"Connected","namespace":"other","fields":[{{"name":"{field}","type":"int"}}]}}"#
    );
    WriterSchema::parse(&json).unwrap()
}

async fn put(settings: &KafkaSettings, key: &[u8], value: Option<&str>) {
    let limits = ProducerSettings::default();
    let producer = RawProducer::connect(settings, &limits, ProducerMetrics::default()).unwrap();
    let record = RawRecord {
        topic: settings.topic("schemas"),
        key: Some(Bytes::copy_from_slice(key)),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        ..RawRecord::default()
    };
    producer.send(record).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_publishes_another_finds() {
    let settings = cluster("schemas");
    create_topics(&settings).await;
    let (writer, reader) = (SchemaTopic::new(&settings).unwrap(), SchemaTopic::new(&settings).unwrap());
    let schema = foreign("a");
    let missing = reader.by_fingerprint(schema.fingerprint()).await.unwrap_err();
    assert_eq!(
        missing,
        LookupError::NotFound(format!(
            "no schema with fingerprint {:016x} is on topic `{}`",
            schema.fingerprint(),
            settings.topic("schemas")
        ))
    );
    assert_eq!(writer.publish(std::slice::from_ref(&schema)).await.unwrap(), 1);
    // The reader has read to the end before, and finds what came after without being told.
    assert_eq!(reader.by_fingerprint(schema.fingerprint()).await.unwrap().json(), schema.json());
    assert_eq!(reader.publish(std::slice::from_ref(&schema)).await.unwrap(), 0, "it is there already");
    assert_eq!(writer.publish(builtin_schemas()).await.unwrap(), builtin_schemas().len());
    assert_eq!(reader.all().await.unwrap().len(), builtin_schemas().len() + 1);
    assert!(
        matches!(reader.by_id(7).await, Err(LookupError::NotFound(text)) if text.contains("schema id 7"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_key_is_not_its_fingerprint_is_passed_over() {
    let settings = cluster("liar");
    create_topics(&settings).await;
    let (lied, honest) = (foreign("b"), foreign("c"));
    put(&settings, &lied.fingerprint().to_le_bytes(), Some(honest.json())).await;
    put(&settings, b"short", Some(honest.json())).await;
    put(&settings, &lied.fingerprint().to_le_bytes(), Some("no schema")).await;
    put(&settings, &lied.fingerprint().to_le_bytes(), None).await;
    let topic = SchemaTopic::new(&settings).unwrap();
    for schema in [&lied, &honest] {
        let found = topic.by_fingerprint(schema.fingerprint()).await;
        assert!(matches!(found, Err(LookupError::NotFound(_))), "{found:?}");
    }
    put(&settings, &honest.fingerprint().to_le_bytes(), Some(honest.json())).await;
    topic.by_fingerprint(honest.fingerprint()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_from_reading_is_unavailable_and_never_absent() {
    let settings = cluster("away");
    let topic = SchemaTopic::new(&settings).unwrap();
    let missing = topic.by_fingerprint(1).await.unwrap_err();
    assert!(
        matches!(&missing, LookupError::Unavailable(text) if text.contains("does not exist")),
        "{missing}"
    );
    let away = SchemaTopic::new(&KafkaSettings::at("127.0.0.1:1")).unwrap();
    let unreachable = away.by_fingerprint(1).await.unwrap_err();
    assert!(matches!(unreachable, LookupError::Unavailable(_)), "{unreachable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_read_from_its_beginning() {
    let settings = cluster("anew");
    create_topics(&settings).await;
    let (old, new) = (foreign("d"), foreign("e"));
    let topic = SchemaTopic::new(&settings).unwrap();
    topic.publish(std::slice::from_ref(&old)).await.unwrap();
    topic.by_fingerprint(old.fingerprint()).await.unwrap();
    Admin::new(&settings).unwrap().delete_topics(&[topic.topic()]).await.unwrap();
    create_topics(&settings).await;
    put(&settings, &new.fingerprint().to_le_bytes(), Some(new.json())).await;
    topic.by_fingerprint(new.fingerprint()).await.unwrap();
}
