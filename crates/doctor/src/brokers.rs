//! Brokers: how many, how old, and what they do to topics by default.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_kafka::{BrokerFacts, Overview};

use crate::{Check, Finding};

/// The first version that gives topics an id (KIP-516).
const VERSION_MIN: (u32, u32) = (2, 8);
/// Tells the version of the brokers' protocol; gone with 4.0.
const PROTOCOL_VERSION: &str = "inter.broker.protocol.version";
/// Came with 4.0.
const OF_4_0: &str = "group.coordinator.append.linger.ms";
/// Replication of the brokers' own topics.
const INTERNAL: [&str; 2] = ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"];

/// What is known of the brokers, and what is asked of them.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What commands connect to.
    pub bootstrap: String,
    /// The cluster in one look.
    pub overview: Overview,
    /// Each broker's configuration, by its id.
    pub configs: BTreeMap<i32, BTreeMap<String, String>>,
    /// The most replicas that a topic file asks for.
    pub replication_max: i32,
    /// Largest message of our producers, in bytes.
    pub producer_bytes_max: u64,
    /// Largest batch that every source topic's file takes, in bytes.
    pub topic_bytes_max: u64,
}

/// Judges the brokers.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![reachable(&facts.overview), enough(facts), message_size(facts)];
    if !facts.configs.is_empty() {
        findings.extend([
            version(facts),
            auto_create(facts),
            unclean_election(facts),
            internal_topics(facts),
        ]);
    }
    findings
}

fn reachable(overview: &Overview) -> Finding {
    let addresses: Vec<&str> = overview.brokers.iter().map(|broker| broker.address.as_str()).collect();
    let id = overview.cluster_id.as_deref().unwrap_or("without an id");
    Check::KafkaReachable.ok(format!(
        "cluster {id}, {}: {}",
        count(addresses.len(), "broker"),
        addresses.join(", ")
    ))
}

fn enough(facts: &Facts) -> Finding {
    let (up, wanted) = (facts.overview.brokers.len(), facts.replication_max);
    if i32::try_from(up).is_ok_and(|up| up < wanted) {
        return Check::KafkaBrokers
            .error(format!("{} up, and topic files ask for {wanted} replicas", count(up, "broker")))
            .cure(
                "start the missing brokers; on a cluster that has no more, set `kafka.replication` \
                 (FLEETLOG_KAFKA__REPLICATION) to what it has",
            );
    }
    Check::KafkaBrokers.ok(format!("{} up; topic files ask for {wanted} at most", count(up, "broker")))
}

fn version(facts: &Facts) -> Finding {
    let told: BTreeSet<&str> = facts
        .configs
        .values()
        .filter_map(|configs| configs.get(PROTOCOL_VERSION))
        .map(String::as_str)
        .collect();
    let oldest = told.iter().filter_map(|text| Some((parse_version(text)?, *text))).min();
    match oldest {
        Some((oldest, text)) if oldest < VERSION_MIN => Check::KafkaVersion
            .error(format!("the brokers speak the protocol of version {text}"))
            .cure("upgrade the brokers to 2.8 or later, and raise `inter.broker.protocol.version`"),
        Some((_, text)) => {
            Check::KafkaVersion.ok(format!("the brokers speak the protocol of version {text}"))
        }
        None if facts.configs.values().all(|configs| configs.contains_key(OF_4_0)) => {
            Check::KafkaVersion.ok("4.0 or later")
        }
        None => Check::KafkaVersion
            .info("the brokers do not tell their version")
            .cure("make sure that it is 2.8 or later"),
    }
}

/// `2.8` of `2.8-IV1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn auto_create(facts: &Facts) -> Finding {
    let at = with(facts, "auto.create.topics.enable", |value| value == "true");
    if at.is_empty() {
        return Check::KafkaAutoCreate.ok("topics are made by `fleetlog topics apply` alone");
    }
    Check::KafkaAutoCreate
        .warning(format!("auto.create.topics.enable is true at {}", at.join(", ")))
        .cure("set `auto.create.topics.enable=false` in each broker's server.properties and restart them one by one")
}

fn unclean_election(facts: &Facts) -> Finding {
    let at = with(facts, "unclean.leader.election.enable", |value| value == "true");
    if at.is_empty() {
        return Check::KafkaUncleanElection.ok("off by default");
    }
    Check::KafkaUncleanElection
        .warning(format!("unclean.leader.election.enable is true at {}", at.join(", ")))
        .cure("switch it off for the cluster; fleetlog's topics have a setting of their own")
        .by(format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type brokers --entity-default --add-config \
             unclean.leader.election.enable=false",
            facts.bootstrap
        ))
}

fn internal_topics(facts: &Facts) -> Finding {
    let brokers = facts.overview.brokers.len();
    let few = |value: &str| value.parse::<usize>().is_ok_and(|replicas| replicas < 3);
    let weak: Vec<String> = INTERNAL
        .iter()
        .filter_map(|name| {
            let value = facts.configs.values().filter_map(|configs| configs.get(*name)).find(|v| few(v))?;
            Some(format!("{name} is {value}"))
        })
        .collect();
    if brokers < 3 {
        let with = count(brokers, "broker");
        return Check::KafkaInternalTopics.ok(format!("with {with} they cannot have more replicas"));
    }
    if weak.is_empty() {
        return Check::KafkaInternalTopics.ok("3 replicas or more");
    }
    Check::KafkaInternalTopics.warning(weak.join(", ")).cure(
        "set both to 3 in server.properties; topics that exist keep what they have: move \
         `__consumer_offsets` and `__transaction_state` with kafka-reassign-partitions.sh",
    )
}

fn message_size(facts: &Facts) -> Finding {
    let Facts { producer_bytes_max: producer, topic_bytes_max: topics, .. } = *facts;
    let requests = facts.configs.values().filter_map(|configs| configs.get("socket.request.max.bytes"));
    if let Some(bytes) = requests.filter_map(|value| value.parse::<u64>().ok()).min().filter(|b| *b < topics)
    {
        return Check::KafkaMessageSize
            .error(format!("socket.request.max.bytes is {bytes}, and topics take batches of {topics} bytes"))
            .cure("raise `socket.request.max.bytes` of the brokers (104857600 by default)");
    }
    if producer > topics {
        return Check::KafkaMessageSize
            .warning(format!(
                "producers send messages of up to {producer} bytes (`message.max.bytes`), topics take {topics}"
            ))
            .cure("lower `message.max.bytes` below [kafka.properties], or raise `message_bytes_max` of the topic files");
    }
    Check::KafkaMessageSize.ok(format!("producers send up to {producer} bytes, topics take {topics}"))
}

/// The brokers whose setting is so.
fn with<'f>(facts: &'f Facts, name: &str, so: impl Fn(&str) -> bool) -> Vec<&'f str> {
    let is_so = |broker: &&BrokerFacts| {
        facts.configs.get(&broker.id).and_then(|configs| configs.get(name)).is_some_and(|value| so(value))
    };
    facts.overview.brokers.iter().filter(is_so).map(|broker| broker.address.as_str()).collect()
}

/// `1 broker`, `2 brokers`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    fn facts(brokers: i32, configs: &[(&str, &str)]) -> Facts {
        let configs: BTreeMap<String, String> =
            configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Facts {
            bootstrap: "k1:9092".into(),
            overview: Overview {
                brokers: (1..=brokers).map(|id| BrokerFacts { id, address: format!("k{id}:9092") }).collect(),
                ..Overview::default()
            },
            configs: (1..=brokers).map(|id| (id, configs.clone())).collect(),
            replication_max: 3,
            producer_bytes_max: 1_000_000,
            topic_bytes_max: 1_048_576,
        }
    }

    fn of(check: Check, facts: &Facts) -> Finding {
        judge(facts).into_iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn a_cluster_as_it_should_be_has_nothing_to_say() {
        let healthy = facts(3, &[(OF_4_0, "-1"), ("auto.create.topics.enable", "false")]);
        assert!(
            judge(&healthy).iter().all(|finding| finding.severity == Severity::Ok),
            "{:?}",
            judge(&healthy)
        );
        let older = facts(3, &[(PROTOCOL_VERSION, "3.7-IV4")]);
        assert_eq!(of(Check::KafkaVersion, &older).severity, Severity::Ok);
    }

    #[test]
    fn old_brokers_too_few_brokers_and_dangerous_defaults_are_found() {
        let old = facts(3, &[(PROTOCOL_VERSION, "2.7-IV2")]);
        assert_eq!(of(Check::KafkaVersion, &old).severity, Severity::Error);
        assert_eq!(of(Check::KafkaVersion, &facts(3, &[("x", "y")])).severity, Severity::Info);
        let few = of(Check::KafkaBrokers, &facts(1, &[]));
        assert_eq!(few.severity, Severity::Error);
        assert!(few.found.contains("1 broker up") && few.action.unwrap().contains("kafka.replication"));
        let loose = facts(
            3,
            &[
                ("auto.create.topics.enable", "true"),
                ("unclean.leader.election.enable", "true"),
                ("offsets.topic.replication.factor", "1"),
            ],
        );
        for check in [Check::KafkaAutoCreate, Check::KafkaUncleanElection, Check::KafkaInternalTopics] {
            let finding = of(check, &loose);
            assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
            assert!(finding.action.is_some());
        }
    }

    #[test]
    fn messages_that_only_one_side_takes_are_found() {
        let mut facts = facts(3, &[]);
        facts.producer_bytes_max = 2_000_000;
        assert_eq!(of(Check::KafkaMessageSize, &facts).severity, Severity::Warning);
        facts.configs.insert(1, [("socket.request.max.bytes".to_owned(), "1000".to_owned())].into());
        assert_eq!(of(Check::KafkaMessageSize, &facts).severity, Severity::Error);
    }
}
