//! `fleetlog dlq` on real topics: counted by what failed, chosen, exported byte for byte, discarded with an audit trail.

use bytes::Bytes;
use fleetlog_dead_letters::RawLetter;
use fleetlog_event::{catalogue::TopicSpec, partition_of};
use fleetlog_kafka::{Admin, HeaderName, OwnedRecord, Plan};
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World};

const PARTITIONS: i32 = 6;
const KEY: &[u8] = b"s504.u7";
pub(crate) const WHY: &str = "a test robot, it never was";

pub(crate) async fn send(world: &World, records: Vec<RawRecord>) {
    let metrics = ProducerMetrics::unregistered().unwrap();
    let producer = RawProducer::connect(&world.kafka(), &ProducerSettings::default(), metrics).unwrap();
    producer.send_all(records).await.all().await.unwrap();
}

/// Every record of `robot-dlq` once more.
pub(crate) async fn doubled(world: &World) {
    let topic = world.kafka().topic("robot-dlq");
    let again = world.records(&topic).await.into_iter().map(|letter| RawRecord {
        topic: letter.topic.to_string(),
        partition: Some(letter.partition),
        key: letter.key,
        value: letter.value,
        timestamp: None,
        headers: letter.headers,
    });
    send(world, again.collect()).await;
}

/// Records of topic `robot` that nobody can take: three of a key that is a unit's, one without key, a tombstone.
fn poison(world: &World) -> Vec<RawRecord> {
    let own = partition_of(KEY, PARTITIONS);
    let record = |key: Option<&'static [u8]>, value: Option<&'static [u8]>| RawRecord {
        topic: world.kafka().topic("robot"),
        partition: Some(own),
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        timestamp: None,
        headers: vec![("kept".into(), Some(Bytes::from_static(b"\xff\x00"))), ("kept".into(), None)],
    };
    vec![
        record(Some(KEY), Some(b"{\"json\": 1}")),
        record(Some(KEY), Some(b"{\"json\": 2}")),
        record(Some(KEY), Some(b"\xff\x00\x01")),
        record(None, Some(b"no key")),
        record(Some(KEY), None),
    ]
}

/// A fleet whose two projections over `robot` have each set aside what [`poison`] holds.
pub(crate) async fn poisoned(label: &str) -> World {
    let world = World::new(label).await;
    send(&world, poison(&world)).await;
    world.ok(&["run", "--once", "--projections", "unit-status,event-history"]).await;
    world
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Places of the letters that `dlq list` shows with these options.
async fn places(world: &World, options: &[&str]) -> Vec<String> {
    let listed = world.json(&[&["dlq", "list"], options].concat()).await;
    listed.as_array().unwrap().iter().map(|row| row["place"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_counted_by_what_failed_and_chosen_by_all_that_is_known() {
    let world = poisoned("dlq-count").await;
    let stats = world.json(&["dlq", "stats"]).await;
    assert_eq!((&stats["letters"], &stats["states"]), (&json!(10), &json!({ "open": 10 })), "{stats:#}");
    let of_each = json!({ "empty_payload": 2, "no_key": 2, "unknown_framing": 6 });
    assert_eq!(stats["reasons"], of_each, "{stats:#}");
    assert_eq!(stats["groups"].as_object().unwrap().len(), 2);
    assert!(stats["oldest_age_ms"].as_i64().unwrap() < 600_000, "{stats:#}");
    let text = world.ok(&["dlq", "stats"]).await;
    assert!(text.contains("10 dead letters (10 open)") && text.contains("oldest 20"), "{text}");

    // A crash between publishing and committing leaves a letter twice: it counts once.
    doubled(&world).await;
    assert_eq!(world.json(&["dlq", "stats"]).await["letters"], 10);

    let all = places(&world, &[]).await;
    assert_eq!(all.len(), 10);
    for (options, count) in [
        (&["--reason", "unknown_framing"][..], 6),
        (&["--reason", "no_key,empty_payload"], 4),
        (&["--group", "unit-status"], 5),
        (&["--class", "reject", "--site", "504"], 8),
        (&["--site", "505"], 0),
        (&["--key", "s504.u7", "--reason", "empty_payload"], 2),
        (&["--topic", "robot", "--since", "1h"], 10),
        (&["--topic", "task"], 0),
        (&["--until", "1h"], 0),
        (&["--id", &all[3]], 1),
    ] {
        assert_eq!(places(&world, options).await.len(), count, "{options:?}");
    }
    let own = partition_of(KEY, PARTITIONS).to_string();
    let range = ["--topic", "robot", "--partition", &own, "--offset-from", "1", "--offset-to", "2"];
    assert_eq!(places(&world, &range).await.len(), 4);
    let cut = world.fleetlog.run(&["dlq", "list", "--limit", "3"], LIMIT).await.unwrap();
    assert!(cut.stderr.contains("3 of 10 shown"), "{}", cut.stderr);

    let shown = world.json(&["dlq", "show", &all[0]]).await;
    assert_eq!((&shown["state"], &shown["dialect"]), (&json!("open"), &json!("fleetlog")), "{shown:#}");
    assert!(shown["headers"].as_array().unwrap().iter().any(|header| header["value"] == "ff00"), "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_every_byte() {
    let world = poisoned("dlq-export").await;
    let on_topic = world.records(&world.kafka().topic("robot-dlq")).await;
    let restored = |text: &str| {
        let mut records: Vec<OwnedRecord> = lines(text)
            .into_iter()
            .map(|line| {
                serde_json::from_value::<RawLetter>(line["record"].clone()).unwrap().restore().unwrap()
            })
            .collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    };
    let mut expected = on_topic.clone();
    expected.sort_by_key(|record| (record.partition, record.offset));
    assert_eq!(restored(&world.ok(&["dlq", "export"]).await), expected);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters.jsonl").display().to_string();
    let export = ["dlq", "export", "--reason", "no_key", "--out", &file];
    assert_eq!(world.ok(&export).await, "", "data go to the file");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines(&text).len(), 2);
    assert!(restored(&text).iter().all(|record| record.key.is_none()));
    let refused = world.fails(2, &export).await.stderr;
    assert!(refused.contains("is there already") && refused.contains("hint:"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "nothing was overwritten");
    assert_eq!(lines(&world.ok(&["dlq", "export", "--max", "1"]).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_is_dry_first_asks_is_written_down_and_happens_once() {
    let world = poisoned("dlq-discard").await;
    let chosen = ["--set-aside-for", "unknown_framing", "--group", "unit-status"];
    let discard = [&["dlq", "discard", "--reason", WHY][..], &chosen].concat();
    let plan = world.json(&discard).await;
    assert_eq!((&plan["executed"], &plan["letters"]), (&json!(false), &json!(3)), "{plan:#}");
    let dry = world.fleetlog.run(&discard, LIMIT).await.unwrap();
    assert!(dry.stderr.contains("dry run: nothing was discarded") && dry.stdout.contains("3 dead letters"));
    assert_eq!(places(&world, &[]).await.len(), 10, "a dry run changes nothing");

    let unasked = world.fails(2, &[&discard[..], &["--execute"]].concat()).await.stderr;
    assert!(unasked.contains("no terminal") && unasked.contains("--yes"), "{unasked}");
    let execute = [&discard[..], &["--execute", "--yes"]].concat();
    let done = world.json(&execute).await;
    assert_eq!((&done["executed"], &done["letters"]), (&json!(true), &json!(3)), "{done:#}");
    let again = world.ok(&execute).await;
    assert!(again.contains("nothing to discard: all 3 that match were discarded before"), "{again}");

    let trail = lines(&world.ok(&["events", "--topic", "ops"]).await);
    assert_eq!(trail.len(), 1, "the second run said nothing: {trail:#?}");
    let event = &trail[0]["event"];
    assert_eq!((&event["why"], &event["action_id"]), (&json!(WHY), &done["action_id"]));
    assert!(event["operator"].as_str().unwrap().contains('@'), "{event:#}");
    assert_eq!(trail[0]["key"], event["group"]);
    assert!(event["selection"].as_str().unwrap().starts_with("reason=unknown_framing group="), "{event:#}");
    assert_eq!(event["letters"].as_array().unwrap().len(), 3);

    assert_eq!(places(&world, &[]).await.len(), 7);
    assert_eq!(places(&world, &["--state", "discarded"]).await.len(), 3);
    assert_eq!(places(&world, &["--state", "any"]).await.len(), 10);
    let stats = world.json(&["dlq", "stats"]).await;
    assert_eq!(stats["states"], json!({ "discarded": 3, "open": 7 }), "{stats:#}");
    let place = places(&world, &["--state", "discarded"]).await.remove(0);
    let shown = world.ok(&["dlq", "show", &place]).await;
    assert!(shown.contains("discarded at") && shown.contains(WHY), "{shown}");

    // The same record failing again is a new matter.
    let topic = world.kafka().topic("robot-dlq");
    let letter = world
        .records(&topic)
        .await
        .into_iter()
        .find(|letter| place == format!("robot-dlq/{}/{}", letter.partition, letter.offset));
    let letter = letter.unwrap();
    let failed_again = RawRecord {
        topic,
        partition: Some(letter.partition),
        key: letter.key,
        value: letter.value,
        timestamp: None,
        headers: letter.headers,
    };
    send(&world, vec![failed_again]).await;
    assert_eq!(places(&world, &[]).await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_has_to_be_meant() {
    let world = poisoned("dlq-all").await;
    let everything = ["dlq", "discard", "--reason", WHY, "--execute", "--yes"];
    for selectors in [&[][..], &["--topic", "robot"], &["--class", "reject"]] {
        let refused = world.fails(2, &[&everything[..], selectors].concat()).await.stderr;
        assert!(refused.contains("10 dead letters match") && refused.contains("--all"), "{refused}");
    }
    assert_eq!(places(&world, &[]).await.len(), 10);
    let dry = world.fleetlog.run(&["dlq", "discard", "--reason", WHY], LIMIT).await.unwrap();
    assert!(dry.stderr.contains("--execute --all"), "{}", dry.stderr);
    let part = world.json(&[&everything[..], &["--max", "4"]].concat()).await;
    assert_eq!(part["letters"], 4, "the oldest so many are not all");
    let rest = world.json(&[&everything[..], &["--all"]].concat()).await;
    assert_eq!((&rest["letters"], &rest["discarded_before"]), (&json!(6), &json!(4)), "{rest:#}");
    assert_eq!(places(&world, &[]).await.len(), 0);
    // Of two groups: an event each.
    assert!(lines(&world.ok(&["events", "--topic", "ops"]).await).len() >= 3);
}

/// A letter as Connect's `DeadLetterQueueReporter` and one as Spring's `DeadLetterPublishingRecoverer` write it.
pub(crate) fn foreign(topic: &str) -> Vec<RawRecord> {
    let header = |name: &str, value: &[u8]| (HeaderName::from(name), Some(Bytes::copy_from_slice(value)));
    let record = |headers| RawRecord {
        topic: topic.to_owned(),
        key: Some(Bytes::from_static(KEY)),
        value: Some(Bytes::from_static(b"\x00\x01")),
        headers,
        ..RawRecord::default()
    };
    let connect = |name: &str, value: &str| header(&format!("__connect.errors.{name}"), value.as_bytes());
    let spring = |name: &str, value: &[u8]| header(&format!("kafka_dlt-{name}"), value);
    vec![
        record(vec![
            connect("topic", "orders"),
            connect("partition", "2"),
            connect("offset", "41"),
            connect("connector.name", "jdbc-sink"),
            connect("task.id", "0"),
            connect("stage", "VALUE_CONVERTER"),
            connect("exception.class.name", "org.apache.kafka.connect.errors.DataException"),
            connect("exception.message", "Failed to deserialize data"),
        ]),
        record(vec![
            spring("original-topic", b"orders"),
            spring("original-partition", &2_i32.to_be_bytes()),
            spring("original-offset", &42_i64.to_be_bytes()),
            spring("original-timestamp", &1_000_i64.to_be_bytes()),
            spring("original-consumer-group", b"billing"),
            spring("exception-cause-fqcn", b"java.lang.IllegalStateException"),
            spring("exception-message", b"no such task"),
        ]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_other_tools_are_read_from_topics_of_their_own() {
    let world = World::new("dlq-foreign").await;
    let topic = format!("other-{}dlt", world.prefix);
    let spec = TopicSpec {
        name: topic.clone(),
        stem: topic.clone(),
        partitions: 2,
        replication: 1,
        configs: [].into(),
        keyed: false,
    };
    let admin = Admin::new(&world.kafka()).unwrap();
    admin.apply(&Plan::between(&[spec], &[].into())).await.unwrap();
    send(&world, foreign(&topic)).await;

    let listed = world.json(&["dlq", "list", "--dlq-topic", &topic]).await;
    let told: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            ["dialect", "group", "origin", "error"].map(|field| row[field].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ["kafka_connect", "jdbc-sink", "orders/2/41", "Failed to deserialize data"],
        ["spring", "billing", "orders/2/42", "no such task"],
    ];
    assert_eq!(told, expected.map(|row| row.map(str::to_owned)));
    let place = listed[1]["place"].as_str().unwrap();
    let shown = world.json(&["dlq", "show", place]).await;
    assert_eq!(shown["recorded_at"], "1970-01-01T00:00:01.000Z", "{shown:#}");
    assert!(shown["headers"].as_array().unwrap().iter().any(|header| header["value"] == 42), "{shown:#}");

    let by_group = ["--dlq-topic", &topic, "--group", "billing", "--reason", WHY];
    let all = [&["dlq", "discard", "--execute", "--yes"], &by_group[..]].concat();
    assert_eq!(world.json(&all).await["letters"], 1);
    assert_eq!(places(&world, &["--dlq-topic", &topic]).await.len(), 1);
    admin.delete_topics(&[&topic]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_or_is_not_there_is_named_with_the_way_out() {
    let world = World::bare("dlq-wrong").await;
    let said = world.fails(1, &["dlq", "list"]).await.stderr;
    assert!(said.contains(&format!("{}robot-dlq", world.prefix)) && said.contains("topics plan"), "{said}");
    world.ok(&["topics", "apply"]).await;
    send(&world, foreign(&world.kafka().topic("robot-dlq"))).await;

    for (code, args, says) in [
        (2, &["list", "--topic", "tusk"][..], "topic `tusk` has no dead-letter topic"),
        (2, &["list", "--partition", "3"], "partitions say nothing without one topic"),
        (2, &["list", "--since", "1h", "--until", "2h"], "the first has to be the earlier"),
        (2, &["list", "--key", "s504.u7", "--site", "505"], "is a unit of site 504"),
        (2, &["list", "--id", "robot-dlq"], "is no place of a dead letter"),
        (2, &["list", "--id", "robot-dlq/0/1", "--reason", "x"], "give no other selector beside them"),
        (2, &["list", "--since", "yesterday"], "not a time"),
        (1, &["stats", "--group", "nobody"], "group `nobody` has none of the dead letters"),
        (1, &["show", "robot-dlq/0/4711"], "no dead letter at robot-dlq/0/4711"),
        (1, &["show", "nowhere-dlq/0/1"], "no topic nowhere-dlq"),
        (1, &["discard", "--key", "T-0", "--reason", WHY], "no dead letter matches key=T-0"),
        (2, &["discard", "--key", "s504.u7", "--reason", ""], "the reason has 0 bytes"),
        (2, &["discard", "--key", "s504.u7", "--reason", "unknown_task"], "--set-aside-for unknown_task"),
        (2, &["discard", "--key", "s504.u7"], "--reason"),
        (2, &["discard", "--key", "s504.u7", "--reason", WHY, "--yes"], "--execute"),
    ] {
        let said = world.fails(code, &[&["dlq"], args].concat()).await;
        assert!(said.stderr.contains(says), "{args:?}: {}", said.stderr);
        assert!(said.stdout.is_empty(), "{args:?}: {}", said.stdout);
    }
    let groups = world.fails(1, &["dlq", "list", "--group", "nobody"]).await.stderr;
    assert!(groups.contains("jdbc-sink") && groups.contains("unit-status"), "{groups}");

    // Neither database nor Redis is asked.
    let alone = world
        .fleetlog
        .clone()
        .env("FLEETLOG_POSTGRES__URL", "postgres://nobody@127.0.0.1:1/none")
        .env("FLEETLOG_REDIS__URL", "redis://127.0.0.1:1/0");
    let listed = alone.run(&["dlq", "list"], LIMIT).await.unwrap().success().unwrap();
    assert!(listed.contains("DataException") && listed.contains("no such task"), "{listed}");

    // Without a place to write it down nothing is discarded, and reading goes on.
    let admin = Admin::new(&world.kafka()).unwrap();
    admin.delete_topics(&[&world.kafka().topic("ops")]).await.unwrap();
    let discard = ["dlq", "discard", "--key", "s504.u7", "--reason", WHY, "--execute", "--yes", "--all"];
    let said = world.fails(1, &discard).await.stderr;
    assert!(said.contains("on which actions are written down") && said.contains("apply"), "{said}");
    assert_eq!(places(&world, &[]).await.len(), 2);
}
