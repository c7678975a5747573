use fleetlog_event::{LogId, catalogue::Catalogue};

use super::*;

type Actual = BTreeMap<String, TopicFacts>;

/// The catalogue on three brokers, and a cluster that has it.
fn given() -> (Vec<TopicSpec>, Actual, Overview) {
    let desired = Catalogue::builtin().expand("p-", None);
    let facts = |spec: &TopicSpec| TopicFacts {
        id: LogId(uuid::Uuid::from_bytes([7; 16])),
        partitions: spec.partitions,
        replication: spec.replication,
        configs: spec.configs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    let actual = desired.iter().map(|spec| (spec.name.clone(), facts(spec))).collect();
    let healthy = |partition| PartitionHealth { partition, leader: Some(1), replicas: 3, in_sync: 3 };
    let topics =
        desired.iter().map(|spec| (spec.name.clone(), (0..spec.partitions).map(healthy).collect())).collect();
    (desired, actual, Overview { topics, ..Overview::default() })
}

/// What is not ok after `break_it`.
fn wrong(break_it: impl FnOnce(&mut Actual, &mut Overview)) -> Vec<(Severity, &'static str, String)> {
    let (desired, mut actual, mut overview) = given();
    break_it(&mut actual, &mut overview);
    judge(&desired, &actual, &overview, "k:9092")
        .into_iter()
        .filter(|found| found.severity != Severity::Ok)
        .map(|found| (found.severity, found.check.code(), found.found))
        .collect()
}

fn set(actual: &mut Actual, topic: &str, name: &str, value: &str) {
    actual.get_mut(topic).unwrap().configs.insert(name.to_owned(), value.to_owned());
}

#[test]
fn topics_as_their_files_say_have_nothing_to_say() {
    assert_eq!(wrong(|_, _| {}), []);
}

#[test]
fn each_setting_that_differs_has_its_own_code() {
    for (name, value, code) in [
        ("min.insync.replicas", "1", "topics-min-isr"),
        ("unclean.leader.election.enable", "true", "topics-unclean-election"),
        ("message.timestamp.type", "LogAppendTime", "topics-timestamp-type"),
        ("cleanup.policy", "compact", "topics-retention"),
        ("retention.ms", "604800000", "topics-retention"),
        ("max.message.bytes", "1000", "topics-message-size"),
    ] {
        let found = wrong(|actual, _| set(actual, "p-task", name, value));
        let [(severity, got, text)] = &found[..] else { panic!("{name}: {found:?}") };
        assert_eq!((*severity, *got), (Severity::Error, code));
        assert!(text.contains("p-task") && text.contains(name) && text.contains(value), "{text}");
    }
    let longer = wrong(|actual, _| set(actual, "p-telemetry", "retention.ms", "-1"));
    assert_eq!((longer[0].0, longer[0].1), (Severity::Warning, "topics-retention"), "{longer:?}");
}

#[test]
fn missing_topics_are_told_together_and_partitions_each() {
    let found = wrong(|actual, _| {
        actual.remove("p-task");
        actual.remove("p-task-dlq");
        actual.get_mut("p-robot").unwrap().partitions = 3;
        actual.get_mut("p-robot-dlq").unwrap().partitions = 1;
        actual.get_mut("p-schemas").unwrap().replication = 1;
    });
    let of = |code| found.iter().filter(|(_, got, _)| *got == code).collect::<Vec<_>>();
    assert!(of("topics-missing")[0].2.contains("p-task, p-task-dlq"), "{found:?}");
    let partitions = of("topics-partitions");
    assert_eq!((partitions[0].0, partitions[1].0), (Severity::Error, Severity::Warning));
    assert!(partitions[0].2.contains("p-robot has 3 partitions, should be 6"), "{partitions:?}");
    assert_eq!(of("topics-replication").len(), 1);
    assert!(of("topics-durability")[0].2.contains("p-schemas"), "{found:?}");
}

#[test]
fn a_partition_without_leader_or_with_too_few_in_sync_is_found() {
    let found = wrong(|_, overview| {
        let task = overview.topics.get_mut("p-task").unwrap();
        task[0].leader = None;
        task[1].in_sync = 1;
        task[2].in_sync = 2;
    });
    let told: Vec<_> = found.iter().map(|(severity, code, _)| (*severity, *code)).collect();
    assert_eq!(
        told,
        [
            (Severity::Error, "topics-leaders"),
            (Severity::Error, "topics-in-sync"),
            (Severity::Warning, "topics-in-sync")
        ]
    );
    assert!(found[0].2.contains("p-task/0") && found[1].2.contains("p-task/1 (1 of 3)"), "{found:?}");
}

#[test]
fn a_dead_letter_topic_that_takes_no_dead_letters_and_a_topic_without_id_are_found() {
    let found = wrong(|actual, _| {
        set(actual, "p-task-dlq", "max.message.bytes", "1048576");
        actual.get_mut("p-robot").unwrap().id = LogId(uuid::Uuid::nil());
    });
    assert!(
        found.iter().any(|(_, code, text)| *code == "topics-message-size" && text.contains("p-task takes"))
    );
    assert!(found.iter().any(|(_, code, text)| *code == "topics-ids" && text.contains("p-robot")));
}
