//! Tests of the topic catalogue.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;
use crate::FleetEvent;

#[test]
fn the_files_of_the_project_are_sound_and_hold_every_event() {
    let catalogue = Catalogue::builtin();
    let listed: Vec<&String> = catalogue.topics.iter().flat_map(|topic| &topic.events).collect();
    assert_eq!(listed.len(), FleetEvent::types().count());
    assert_eq!(catalogue.sources().count(), 4);
    assert_eq!(catalogue.topic("telemetry").unwrap().retention, Retention::Millis(7 * 86_400_000));
}

#[test]
fn expand_gives_every_topic_its_physical_form() {
    let specs = Catalogue::builtin().expand("prod-", None);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "prod-robot",
            "prod-robot-dlq",
            "prod-robot-parking",
            "prod-telemetry",
            "prod-telemetry-dlq",
            "prod-telemetry-parking",
            "prod-task",
            "prod-task-dlq",
            "prod-task-parking",
            "prod-ops",
            "prod-ops-dlq",
            "prod-ops-parking",
            "prod-schemas",
            "prod-import-places",
            "prod-vda5050-dlq"
        ]
    );
    let [task, dead, parked] = &specs[6..9] else { unreachable!() };
    assert!(task.keyed && !dead.keyed && !parked.keyed);
    assert_eq!((task.partitions, dead.partitions, parked.partitions), (6, 3, 1));
    assert_eq!(task.configs["retention.ms"], "-1");
    assert_eq!(task.configs["message.timestamp.type"], "CreateTime");
    assert_eq!(task.configs["min.insync.replicas"], "2");
    assert_eq!(dead.configs["retention.ms"], (30 * 86_400_000_i64).to_string());
    assert_eq!(dead.configs["message.timestamp.type"], "LogAppendTime");
    let longer = BTreeMap::from([("retention.ms", (90 * 86_400_000_i64).to_string())]);
    assert_eq!(parked.configs, dead.configs.clone().into_iter().chain(longer).collect());
    assert_eq!((specs[9].partitions, specs[9].configs["retention.ms"].as_str()), (1, "-1"));
    assert_eq!(specs[12].configs["cleanup.policy"], "compact");
}

#[test]
fn an_inbox_has_a_partition_for_each_lane_and_room_for_a_dead_letter() {
    let catalogue = Catalogue::builtin();
    let inbox = catalogue.topic("task").unwrap().inbox("prod-g-task-inbox".into(), None).unwrap();
    let specs = catalogue.expand("prod-", None);
    let spec = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
    let (task, dead) = (spec("prod-task"), spec("prod-task-dlq"));
    assert_eq!((inbox.name.as_str(), inbox.stem.as_str()), ("prod-g-task-inbox", "task"));
    assert_eq!((inbox.partitions, inbox.replication, inbox.keyed), (task.partitions, task.replication, true));
    let larger = BTreeMap::from([("max.message.bytes", "1376256".to_owned())]);
    assert_eq!(inbox.configs, dead.configs.clone().into_iter().chain(larger).collect());
    assert_eq!(catalogue.topic("schemas").unwrap().inbox(String::new(), None), None);
}

#[test]
fn dead_letter_topics_are_known_by_name_and_have_no_window() {
    let catalogue = Catalogue::builtin();
    let names: Vec<String> = catalogue.dead_letter_topics().collect();
    let parked = ["robot", "telemetry", "task", "ops"].map(parking_name);
    let letters = ["robot", "telemetry", "task", "ops", "vda5050"].map(dead_letter_name);
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), letters.iter().chain(&parked).collect());
    for (name, window) in [
        ("robot", Some(10_000)),
        ("robot-dlq", Some(0)),
        ("robot-parking", Some(0)),
        ("schemas", Some(0)),
        ("schemas-dlq", None),
        ("x", None),
    ] {
        assert_eq!(catalogue.dedup_window_offsets(name), window, "{name}");
    }
}

#[test]
fn a_replication_override_lowers_min_insync_replicas_too() {
    for spec in Catalogue::builtin().expand("", Some(1)) {
        assert_eq!(
            (spec.replication, spec.configs["min.insync.replicas"].as_str()),
            (1, "1"),
            "{}",
            spec.name
        );
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let task = r#"
        key = "robot"
        partitions = 0
        min_insync_replicas = 2
        retention = "a week"
        cleanup = "delete"
        timestamp_type = "create_time"
        message_bytes_max = 2000
        retension = "7d"
        events = ["Created", "Created", "Exploded"]
        [dead_letters]
        partitions = 3
        retention = "30d"
        message_bytes_max = 2000
        colour = "red"
    "#;
    let error = Catalogue::parse(&[("task.toml", task), ("broken.toml", "a = ")]).unwrap_err();
    let text = error.to_string();
    for expected in [
        "topics/task.toml: key: is \"robot\", expected one of \"unit\", \"task\"",
        "topics/task.toml: partitions: is 0, expected a whole number from 1 to 1000",
        "topics/task.toml: replication: is missing",
        "topics/task.toml: retention: is \"a week\", expected \"forever\" or a number with a unit",
        "topics/task.toml: retension: unknown field",
        "topics/task.toml: events: there is no event `Exploded` of topic `task`",
        "topics/task.toml: events: `Created` is listed twice",
        "topics/task.toml: events: `Assigned` is not listed",
        "topics/task.toml: dead_letters.message_bytes_max: must be more than the topic's own 2000",
        "topics/task.toml: dead_letters.colour: unknown field",
        "topics/broken.toml: file: not readable as TOML",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
}

#[test]
fn a_source_topic_needs_a_window_and_a_place_for_dead_letters() {
    let text = include_str!("../../../../topics/telemetry.toml");
    let text = text.split("[dead_letters]").next().unwrap().replace("dedup_window_offsets = 10_000", "");
    let fields: Vec<String> = Catalogue::parse(&[("telemetry.toml", &text)])
        .unwrap_err()
        .problems
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(fields, ["dedup_window_offsets", "dead_letters"]);
}

#[test]
fn retention_is_written_as_people_write_it() {
    let of = |ms| Retention::Millis(ms).to_string();
    assert_eq!((of(7 * 86_400_000), of(43_200_000), of(1500)), ("7d".into(), "12h".into(), "1500ms".into()));
}

#[test]
fn a_handler_waits_on_topics_that_have_room_for_every_topic_it_reads() {
    let catalogue = Catalogue::builtin();
    let sources: Vec<&Topic> = ["robot", "task"].iter().map(|stem| catalogue.topic(stem).unwrap()).collect();
    let waiting = Waiting { group: "prod-bell", tiers_ms: &[500, 1_000, 30_000], replication: Some(1) };
    let topics = waiting.topics(&sources).unwrap();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(
        names,
        ["prod-bell-retry-500ms", "prod-bell-retry-1s", "prod-bell-retry-30s", "prod-bell-held"]
    );
    for topic in &topics {
        assert_eq!((topic.partitions, topic.replication, topic.keyed), (6, 1, true));
        assert_eq!(topic.configs["message.timestamp.type"], "LogAppendTime");
        assert_eq!(topic.configs["retention.ms"], (30_i64 * 86_400_000).to_string());
        assert_eq!(topic.configs["max.message.bytes"], "1310720");
        assert!(!is_of_dead_letters(&topic.name));
    }
    // Without a place for dead letters nothing may give up.
    let internal = catalogue.topic("schemas").unwrap();
    assert_eq!(waiting.topics(&[sources[0], internal]), None);
    assert_eq!(waiting.topics(&[]), None);
}
