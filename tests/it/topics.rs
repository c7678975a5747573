//! Topics and their logs on a real Kafka: plan, apply, topic ids, offsets, reading ranges.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::{
    TimestampMs,
    catalogue::{Catalogue, TopicSpec},
};
use fleetlog_kafka::{
    Admin, Change, ClusterError, ConfigChange, KafkaSettings, LogReader, Offsets, PartitionRange, Plan, Read,
    ReadError,
};
use fleetlog_producer::{ProducerMetrics, RawRecord, Schemas, TransactionalProducer};
use fleetlog_testkit::delete_before;
use fleetlog_tests::until;
use rdkafka::{
    Offset, TopicPartitionList,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::kafka::{cluster, forgetful};

const TIMEOUT: Duration = Duration::from_secs(120);

fn spec(settings: &KafkaSettings, stem: &str, partitions: i32, keyed: bool) -> TopicSpec {
    TopicSpec {
        name: settings.topic(stem),
        stem: stem.into(),
        partitions,
        replication: 1,
        configs: BTreeMap::from([("retention.ms", "3600000".to_owned())]),
        keyed,
    }
}

async fn create(settings: &KafkaSettings, specs: &[TopicSpec]) -> Admin {
    let admin = Admin::new(settings).unwrap();
    let plan = admin.plan(specs).await.unwrap();
    admin.apply(&plan).await.unwrap();
    admin
}

/// `key=value` records, in order, to one partition.
fn produce(settings: &KafkaSettings, topic: &str, partition: i32, values: &[&str]) {
    let producer: BaseProducer = settings.producer().create().unwrap();
    for value in values {
        producer.send(BaseRecord::to(topic).partition(partition).key("k").payload(*value)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// One transaction of records, committed or aborted; leaves a marker behind its last record.
fn transaction(settings: &KafkaSettings, topic: &str, partition: i32, values: &[&str], commit: bool) {
    let producer: BaseProducer = settings.producer().set("transactional.id", topic).create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    for value in values {
        producer.send(BaseRecord::to(topic).partition(partition).key("k").payload(*value)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    if commit { producer.commit_transaction(TIMEOUT) } else { producer.abort_transaction(TIMEOUT) }.unwrap();
}

/// Reads ranges to their end, as `partition/offset=value`.
fn read(settings: &KafkaSettings, topic: &str, ranges: &[PartitionRange]) -> Result<Vec<String>, ReadError> {
    let mut reader = LogReader::open(settings, topic, ranges)?;
    let mut seen = Vec::new();
    reader.for_each(|record| {
        let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
        seen.push(format!("{}/{}={value}", record.partition(), record.offset()));
        Ok::<_, ReadError>(())
    })?;
    seen.sort();
    Ok(seen)
}

#[tokio::test]
async fn apply_creates_the_catalogue_and_then_there_is_nothing_to_do() {
    let settings = cluster("apply");
    let specs = Catalogue::builtin().expand(&settings.topic_prefix, Some(1));
    let admin = Admin::new(&settings).unwrap();
    let plan = admin.plan(&specs).await.unwrap();
    assert_eq!(plan.changes.len(), specs.len());
    assert!(plan.warnings.iter().any(|warning| warning.text.contains("replication factor 1")), "{plan}");
    admin.apply(&plan).await.unwrap();
    let again = admin.plan(&specs).await.unwrap();
    assert!(again.is_empty(), "{again}");
    assert_eq!(again.unchanged.len(), specs.len());
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    admin.delete_topics(&names).await.unwrap();
}

#[tokio::test]
async fn more_replicas_than_there_are_brokers_are_refused_with_their_number() {
    let settings = cluster("replicas");
    let wanted = TopicSpec { replication: 99, ..spec(&settings, "task", 1, true) };
    let admin = Admin::new(&settings).unwrap();
    let plan = admin.plan(&[wanted]).await.unwrap();
    let brokers = admin.cluster(TIMEOUT).await.unwrap().brokers.len();
    let error = admin.apply(&plan).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::TooFewBrokers { replication: 99, brokers: found, .. } if found == brokers),
        "{error}"
    );
    assert!(error.to_string().contains("kafka.replication"), "{error}");
}

#[tokio::test]
async fn a_config_is_set_and_others_stay_as_they_are() {
    let settings = cluster("configs");
    let mut wanted = spec(&settings, "task", 1, true);
    let admin = create(&settings, std::slice::from_ref(&wanted)).await;
    let by_hand = ConfigChange { name: "segment.ms".into(), from: None, to: "7654321".into() };
    let by_hand = Change::SetConfigs { topic: wanted.name.clone(), changes: vec![by_hand] };
    admin.apply(&Plan { changes: vec![by_hand], ..Plan::default() }).await.unwrap();

    wanted.configs.insert("retention.ms", "7200000".into());
    let plan = admin.plan(std::slice::from_ref(&wanted)).await.unwrap();
    assert!(plan.to_string().contains("retention.ms: 3600000 -> 7200000"), "{plan}");
    admin.apply(&plan).await.unwrap();
    let facts = admin.topics(&[&wanted.name]).await.unwrap().remove(&wanted.name).unwrap();
    assert_eq!((&*facts.configs["retention.ms"], &*facts.configs["segment.ms"]), ("7200000", "7654321"));

    wanted.configs.insert("retention.ms", "soon".into());
    let plan = admin.plan(std::slice::from_ref(&wanted)).await.unwrap();
    let error = admin.apply(&plan).await.unwrap_err().to_string();
    assert!(error.contains(&wanted.name) && error.contains("retention.ms"), "{error}");
}

#[tokio::test]
async fn partitions_are_added_where_no_order_hangs_on_them() {
    let settings = cluster("partitions");
    let before = [spec(&settings, "task", 2, true), spec(&settings, "task-dlq", 2, false)];
    let admin = create(&settings, &before).await;
    let after = [spec(&settings, "task", 4, true), spec(&settings, "task-dlq", 4, false)];
    let plan = admin.plan(&after).await.unwrap();
    assert_eq!(plan.refusals.len(), 1, "{plan}");
    admin.apply(&plan).await.unwrap();
    let facts = admin.topics(&[&after[0].name, &after[1].name]).await.unwrap();
    assert_eq!(facts[&after[0].name].partitions, 2, "the keyed topic stays as it is");
    assert_eq!(facts[&after[1].name].partitions, 4);
}

#[tokio::test]
async fn a_topic_made_anew_is_another_log() {
    let settings = cluster("ids");
    let specs = [spec(&settings, "task", 1, true), spec(&settings, "robot", 1, true)];
    let admin = create(&settings, &specs).await;
    let names = [specs[0].name.as_str(), specs[1].name.as_str()];
    let first = admin.topic_ids(&names).await.unwrap();
    assert_ne!(first[names[0]], first[names[1]]);
    assert_eq!(first, admin.topic_ids(&names).await.unwrap());

    admin.delete_topics(&names[..1]).await.unwrap();
    let error = admin.topic_ids(&names).await.unwrap_err();
    assert!(matches!(&error, ClusterError::UnknownTopic(name) if name == names[0]), "{error}");
    let said = format!(
        "topic `{}` does not exist: `fleetlog topics plan` shows what is missing, `apply` creates it",
        names[0]
    );
    assert_eq!(error.to_string(), said);

    create(&settings, &specs).await;
    let second = admin.topic_ids(&names).await.unwrap();
    assert_ne!(second[names[0]], first[names[0]]);
    assert_eq!(second[names[1]], first[names[1]]);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_named() {
    let admin = Admin::new(&KafkaSettings::at("127.0.0.1:1")).unwrap();
    let error = admin.cluster(Duration::from_millis(500)).await.unwrap_err();
    assert!(error.to_string().starts_with("reaching Kafka at 127.0.0.1:1: "), "{error}");
    assert_eq!(error.fault(), fleetlog_kafka::KafkaFault::Transient);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_exactly_also_across_transaction_markers() {
    let settings = cluster("ranges");
    let topic = settings.topic("task");
    create(&settings, &[spec(&settings, "task", 2, true)]).await;
    produce(&settings, &topic, 0, &["a", "b", "c"]);
    produce(&settings, &topic, 1, &["x"]);
    transaction(&settings, &topic, 0, &["d"], true); // 3, marker at 4
    transaction(&settings, &topic, 0, &["e", "f"], false); // 5, 6, marker at 7

    let offsets = Offsets::new(&settings).unwrap();
    let log = offsets.ranges(&[&topic]).await.unwrap();
    assert_eq!((log[&(topic.clone(), 0)].low, log[&(topic.clone(), 0)].end), (0, 8));
    let range = |partition, from, to| PartitionRange { partition, from, to: Some(to) };
    tokio::task::spawn_blocking(move || {
        let read = |ranges: &[PartitionRange]| read(&settings, &topic, ranges).unwrap();
        assert_eq!(read(&[range(0, 0, 8), range(1, 0, 1)]), ["0/0=a", "0/1=b", "0/2=c", "0/3=d", "1/0=x"]);
        assert_eq!(read(&[range(0, 1, 3)]), ["0/1=b", "0/2=c"]);
        assert_eq!(read(&[range(0, 2, 5)]), ["0/2=c", "0/3=d"], "a range that ends behind a marker");
        assert_eq!(read(&[range(0, 4, 8)]), [""; 0], "only markers and aborted records");
        assert_eq!(read(&[range(0, 3, 3), range(1, 1, 0)]), [""; 0], "empty ranges");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_ends_the_stable_log() {
    let settings = cluster("open");
    let topic = settings.topic("task");
    create(&settings, &[spec(&settings, "task", 1, true)]).await;
    produce(&settings, &topic, 0, &["a"]);
    let producer: BaseProducer = settings.producer().set("transactional.id", &topic).create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(&topic).key("k").payload("b")).unwrap();
    producer.flush(TIMEOUT).unwrap();

    let log = Offsets::new(&settings).unwrap().ranges(&[&topic]).await.unwrap();
    assert_eq!(log[&(topic.clone(), 0)].end, 1);
    tokio::task::spawn_blocking(move || {
        let range = |to| [PartitionRange { partition: 0, from: 0, to: Some(to) }];
        assert_eq!(read(&settings, &topic, &range(1)).unwrap(), ["0/0=a"]);
        let error = read(&settings, &topic, &range(2)).unwrap_err();
        assert_eq!(error.to_string(), format!("{topic}/0: offset 2 is past the stable end 1 of the log"));
        producer.abort_transaction(TIMEOUT).unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_named_and_not_skipped() {
    let settings = cluster("lost");
    let topic = settings.topic("task");
    let admin = create(&settings, &[spec(&settings, "task", 1, true)]).await;
    produce(&settings, &topic, 0, &["a", "b", "c"]);
    let mut reader =
        LogReader::open(&settings, &topic, &[PartitionRange { partition: 0, from: 0, to: None }]).unwrap();
    // The reader has not fetched yet or holds all three; the one opened below cannot have them.
    delete_before(&settings, &topic, &BTreeMap::from([(0, 2)])).await.unwrap();
    let error =
        LogReader::open(&settings, &topic, &[PartitionRange { partition: 0, from: 0, to: Some(3) }]).err();
    assert_eq!(
        error.unwrap().to_string(),
        format!(
            "{topic}/0: offset 0 is no longer there, the log has 2 to 3: read from 2 on, or find out where the earlier records went"
        )
    );
    let outcome = tokio::task::spawn_blocking(move || match reader.poll(TIMEOUT) {
        Ok(Read::Record(record)) => Ok(record.offset()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("neither a record nor an error".into()),
    })
    .await
    .unwrap();
    match outcome {
        Ok(offset) => assert_eq!(offset, 0, "what was fetched before is complete"),
        Err(text) => assert!(text.contains("offset 0 is no longer there"), "{text}"),
    }
    drop(admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_and_offsets_by_time_are_told() {
    let settings = cluster("offsets");
    let topic = settings.topic("task");
    create(&settings, &[spec(&settings, "task", 2, true)]).await;
    let producer: BaseProducer = settings.producer().create().unwrap();
    for timestamp in [1_000, 2_000, 3_000] {
        producer
            .send(BaseRecord::to(&topic).partition(0).key("k").payload("v").timestamp(timestamp))
            .unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let offsets = Offsets::new(&settings).unwrap();
    assert_eq!(offsets.at_time(&topic, TimestampMs(1_500)).await.unwrap(), [(0, 1), (1, 0)].into());
    assert_eq!(offsets.at_time(&topic, TimestampMs(9_000)).await.unwrap(), [(0, 3), (1, 0)].into());

    let group = settings.topic("group");
    assert_eq!(offsets.committed(&group, &[&topic]).await.unwrap(), [].into());
    let (config, at) = (settings.consumer(&group), topic.clone());
    tokio::task::spawn_blocking(move || {
        use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&at, 0, Offset::Offset(2)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    assert_eq!(offsets.committed(&group, &[&topic]).await.unwrap(), [((topic.clone(), 0), 2)].into());
    let error = offsets.ranges(&["no-such-topic"]).await.unwrap_err();
    assert!(matches!(error, ClusterError::UnknownTopic(_)), "{error}");
}

/// For longer than a broker of [`forgetful`] is known at a time.
const LOOKS: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lost_its_brokers_makes_topics_all_the_same() {
    let kafka = forgetful().await;
    let settings = kafka.settings("forgets-");
    let admin = create(&settings, &[spec(&settings, "task", 1, true)]).await;
    let plan = admin.plan(&[spec(&settings, "robot", 1, true)]).await.unwrap();
    until("it has lost its brokers", async || admin.overview(LOOK_INTERVAL).await.is_err()).await;
    admin.apply(&plan).await.unwrap();
    assert!(admin.plan(&[spec(&settings, "robot", 1, true)]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lost_its_brokers_is_told_offsets_all_the_same() {
    let kafka = forgetful().await;
    let settings = kafka.settings("forgets-");
    create(&settings, &[spec(&settings, "task", 1, true)]).await;
    let (offsets, topic) = (Offsets::new(&settings).unwrap(), settings.topic("task"));
    let mut beat = tokio::time::interval(LOOK_INTERVAL);
    for _ in 0..LOOKS {
        beat.tick().await;
        offsets.ranges(&[&topic]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_lost_its_brokers_commits_all_the_same() {
    let kafka = forgetful().await;
    let settings = kafka.settings("forgets-");
    create(&settings, &[spec(&settings, "task", 1, true)]).await;
    let schemas = Schemas::on_topic(&settings).unwrap();
    let id = settings.topic("import");
    let mut producer =
        TransactionalProducer::connect(&settings, &id, schemas, ProducerMetrics::default()).await.unwrap();
    let mut beat = tokio::time::interval(LOOK_INTERVAL);
    for _ in 0..LOOKS {
        beat.tick().await;
        let record = RawRecord { topic: settings.topic("task"), ..RawRecord::default() };
        producer.transact(vec![], vec![record]).await.unwrap();
    }
}
