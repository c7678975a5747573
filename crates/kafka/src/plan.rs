//! The difference between the topics a cluster has and those it should have, as a value that reads well.

use std::{collections::BTreeMap, fmt};

use fleetlog_event::{LogId, catalogue::TopicSpec};
use serde::Serialize;

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicFacts {
    /// The topic's id (KIP-516).
    pub id: LogId,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas the partition with the fewest has.
    pub replication: i32,
    /// Its configuration, defaults included.
    pub configs: BTreeMap<String, String>,
}

/// One configuration that `apply` sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// Kafka's name, such as `retention.ms`.
    pub name: String,
    /// The value now; none if the broker does not tell.
    pub from: Option<String>,
    /// The value it should have.
    pub to: String,
}

/// Something that `apply` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// Create a topic.
    Create {
        /// Its physical name.
        topic: String,
        /// How many partitions.
        partitions: i32,
        /// How many brokers hold each.
        replication: i32,
        /// Its configuration.
        configs: BTreeMap<String, String>,
    },
    /// Add partitions to a topic whose records have no order to lose.
    AddPartitions {
        /// Its physical name.
        topic: String,
        /// How many there are.
        from: i32,
        /// How many there should be.
        to: i32,
    },
    /// Set configurations; those not named stay as they are.
    SetConfigs {
        /// Its physical name.
        topic: String,
        /// What changes.
        changes: Vec<ConfigChange>,
    },
}

/// What a refused difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The number of partitions.
    Partitions,
    /// The number of replicas.
    Replication,
}

/// A difference that `apply` does not touch, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The topic's physical name.
    pub topic: String,
    /// What it is about.
    pub kind: RefusalKind,
    /// What differs.
    pub difference: String,
    /// What to do.
    pub way_out: String,
}

/// Something that weakens a guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The topic's physical name.
    pub topic: String,
    /// What is weak and what it costs.
    pub text: String,
}

/// The difference between cluster and catalogue. What is not in the catalogue is never deleted, and not mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What `apply` does.
    pub changes: Vec<Change>,
    /// What it does not do, and why.
    pub refusals: Vec<Refusal>,
    /// What to know.
    pub warnings: Vec<Warning>,
    /// Topics that are as they should be.
    pub unchanged: Vec<String>,
}

impl Plan {
    /// Compares what should be with what is (`actual` holds the topics that exist).
    #[must_use]
    pub fn between(desired: &[TopicSpec], actual: &BTreeMap<String, TopicFacts>) -> Self {
        let mut plan = Self::default();
        for spec in desired {
            plan.warn_of_weakness(spec, actual.get(&spec.name));
            match actual.get(&spec.name) {
                None => plan.changes.push(creation(spec)),
                Some(facts) => plan.compare(spec, facts),
            }
        }
        plan
    }

    /// Whether the cluster is as it should be (there may be warnings).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.refusals.is_empty()
    }

    fn compare(&mut self, spec: &TopicSpec, facts: &TopicFacts) {
        let before = (self.changes.len(), self.refusals.len());
        if facts.partitions != spec.partitions {
            self.compare_partitions(spec, facts.partitions);
        }
        if facts.replication != spec.replication {
            self.refusals.push(Refusal {
                topic: spec.name.clone(),
                kind: RefusalKind::Replication,
                difference: format!(
                    "replication factor is {}, should be {}",
                    facts.replication, spec.replication
                ),
                way_out:
                    "replicas are moved with `kafka-reassign-partitions.sh`, which needs to know your brokers"
                        .to_owned(),
            });
        }
        let changes: Vec<ConfigChange> = spec
            .configs
            .iter()
            .filter(|(name, to)| facts.configs.get(**name) != Some(*to))
            .map(|(name, to)| ConfigChange {
                name: (*name).to_owned(),
                from: facts.configs.get(*name).cloned(),
                to: to.clone(),
            })
            .collect();
        if !changes.is_empty() {
            self.changes.push(Change::SetConfigs { topic: spec.name.clone(), changes });
        }
        if before == (self.changes.len(), self.refusals.len()) {
            self.unchanged.push(spec.name.clone());
        }
    }

    fn compare_partitions(&mut self, spec: &TopicSpec, from: i32) {
        let to = spec.partitions;
        let difference = format!("{from} partitions, should be {to}");
        if spec.keyed {
            self.refusals.push(Refusal {
                topic: spec.name.clone(),
                kind: RefusalKind::Partitions,
                difference,
                way_out: fixed_for_good(spec).to_owned(),
            });
        } else if to < from {
            self.refusals.push(Refusal {
                topic: spec.name.clone(),
                kind: RefusalKind::Partitions,
                difference,
                way_out: "Kafka cannot take partitions away: correct the topic's file, or create a new topic"
                    .to_owned(),
            });
        } else {
            self.changes.push(Change::AddPartitions { topic: spec.name.clone(), from, to });
        }
    }

    fn warn_of_weakness(&mut self, spec: &TopicSpec, facts: Option<&TopicFacts>) {
        let replication = facts.map_or(spec.replication, |facts| facts.replication);
        let mut warn = |text: String| self.warnings.push(Warning { topic: spec.name.clone(), text });
        if replication < 3 {
            warn(format!(
                "replication factor {replication}: acknowledged events can be lost with one broker; use 3 or more"
            ));
        }
        let min_isr = spec.configs.get("min.insync.replicas").and_then(|text| text.parse::<i32>().ok());
        if let Some(min_isr) = min_isr.filter(|min_isr| *min_isr < 2) {
            warn(format!(
                "min.insync.replicas {min_isr}: `acks=all` may be one broker's word alone; use 2 or more"
            ));
        }
        let unclean = facts.and_then(|facts| facts.configs.get("unclean.leader.election.enable"));
        if unclean.is_some_and(|value| value == "true")
            && !spec.configs.contains_key("unclean.leader.election.enable")
        {
            warn("unclean.leader.election.enable is true: a replica that lags may become leader and lose events".into());
        }
    }
}

fn fixed_for_good(spec: &TopicSpec) -> &'static str {
    if spec.name.ends_with("-inbox") {
        "each lane follows the partition of its own number, and a command in another would reach none: correct the \
         number in the topic's file, or, while no command waits, delete the inbox and apply again"
    } else {
        "the topic is keyed, and another number of partitions would break the order per key: \
         create a new topic under another name, send new events there, and rebuild the projections"
    }
}

fn creation(spec: &TopicSpec) -> Change {
    Change::Create {
        topic: spec.name.clone(),
        partitions: spec.partitions,
        replication: spec.replication,
        configs: spec.configs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { topic, partitions, replication, configs } => {
                write!(f, "+ create {topic} ({partitions} partitions, replication {replication})")?;
                for (name, value) in configs {
                    write!(f, "\n    {name} = {value}")?;
                }
                Ok(())
            }
            Self::AddPartitions { topic, from, to } => {
                write!(f, "~ change {topic}: partitions {from} -> {to}")
            }
            Self::SetConfigs { topic, changes } => {
                write!(f, "~ change {topic}")?;
                for ConfigChange { name, from, to } in changes {
                    write!(f, "\n    {name}: {} -> {to}", from.as_deref().unwrap_or("(unknown)"))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for Refusal { topic, difference, way_out, .. } in &self.refusals {
            writeln!(f, "! refused {topic}: {difference}\n    {way_out}")?;
        }
        let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Warning { topic, text } in &self.warnings {
            by_text.entry(text).or_default().push(topic);
        }
        for (text, topics) in by_text {
            writeln!(f, "warning: {text}\n    {}", topics.join(", "))?;
        }
        write!(
            f,
            "{} to change, {} refused, {} as they should be",
            self.changes.len(),
            self.refusals.len(),
            self.unchanged.len()
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn spec(name: &str, partitions: i32, keyed: bool) -> TopicSpec {
        TopicSpec {
            name: name.into(),
            stem: name.into(),
            partitions,
            replication: 3,
            configs: [("min.insync.replicas", "2".to_owned()), ("retention.ms", "-1".to_owned())].into(),
            keyed,
        }
    }

    fn facts(partitions: i32) -> TopicFacts {
        let configs = [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("segment.bytes", "1073741824")];
        TopicFacts {
            id: LogId(uuid::Uuid::nil()),
            partitions,
            replication: 3,
            configs: configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    fn plan(spec: TopicSpec, actual: TopicFacts) -> Plan {
        let name = spec.name.clone();
        Plan::between(&[spec], &[(name, actual)].into())
    }

    #[test]
    fn nothing_differs_and_foreign_topics_are_not_mentioned() {
        let actual = [("task".to_owned(), facts(6)), ("other".to_owned(), facts(1))].into();
        let plan = Plan::between(&[spec("task", 6, true)], &actual);
        assert!(plan.is_empty() && plan.warnings.is_empty(), "{plan}");
        assert_eq!(plan.unchanged, ["task"]);
        assert!(!plan.to_string().contains("other"));
    }

    #[test]
    fn partitions_of_a_keyed_topic_are_refused_with_the_way_out() {
        for partitions in [3, 12] {
            let plan = plan(spec("task", 6, true), facts(partitions));
            assert_eq!(plan.changes, []);
            assert!(plan.refusals[0].way_out.contains("rebuild"), "{plan}");
        }
    }

    #[test]
    fn partitions_of_an_inbox_are_refused_with_a_way_out_of_its_own() {
        let plan = plan(spec("g-task-inbox", 6, true), facts(3));
        assert_eq!((plan.changes.len(), plan.refusals[0].kind), (0, RefusalKind::Partitions));
        assert!(plan.refusals[0].way_out.contains("would reach none"), "{plan}");
    }

    #[test]
    fn an_unkeyed_topic_grows_but_never_shrinks() {
        let grow = plan(spec("task-dlq", 6, false), facts(3));
        assert_eq!(grow.changes, [Change::AddPartitions { topic: "task-dlq".into(), from: 3, to: 6 }]);
        let shrink = plan(spec("task-dlq", 1, false), facts(3));
        assert_eq!(shrink.changes, []);
        assert!(shrink.refusals[0].way_out.contains("cannot take partitions away"));
    }

    #[test]
    fn only_configs_that_differ_are_set() {
        let mut actual = facts(6);
        actual.configs.insert("retention.ms".into(), "604800000".into());
        let plan = plan(spec("task", 6, true), actual);
        let change =
            ConfigChange { name: "retention.ms".into(), from: Some("604800000".into()), to: "-1".into() };
        assert_eq!(plan.changes, [Change::SetConfigs { topic: "task".into(), changes: vec![change] }]);
        assert_eq!(
            plan.to_string(),
            "~ change task\n    retention.ms: 604800000 -> -1\n1 to change, 0 refused, 0 as they should be"
        );
    }

    #[test]
    fn weak_replication_is_warned_of_and_its_difference_told() {
        let mut weak = spec("task", 6, true);
        weak.replication = 1;
        weak.configs.insert("min.insync.replicas", "1".into());
        let created = Plan::between(&[weak], &BTreeMap::new());
        let texts: Vec<_> = created.warnings.iter().map(|w| w.text.as_str()).collect();
        assert!(
            texts[0].contains("replication factor 1") && texts[1].contains("min.insync.replicas 1"),
            "{texts:?}"
        );
        let mut actual = facts(6);
        actual.replication = 1;
        let differs = plan(spec("task", 6, true), actual);
        assert!(differs.refusals[0].difference.contains("is 1, should be 3"), "{differs}");
    }

    #[test]
    fn a_plan_is_told_as_json_too() {
        let plan = plan(spec("task-dlq", 6, false), facts(3));
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["changes"][0]["action"], "add_partitions");
    }
}
