//! Topics against their files ([`Plan`]), and the replicas of their partitions.

use std::collections::BTreeMap;

use fleetlog_event::catalogue::TopicSpec;
use fleetlog_kafka::{
    Change, ConfigChange, Overview, PartitionHealth, Plan, Refusal, RefusalKind, TopicFacts, Warning,
};

use crate::{Check, Finding, Severity, brokers::count};

/// Makes the cluster as the files say.
const APPLY: &str = "fleetlog topics apply";

/// Judges the topics: what should be, what is, who leads and follows; `brokers` is what commands connect to.
#[must_use]
pub fn judge(
    desired: &[TopicSpec],
    actual: &BTreeMap<String, TopicFacts>,
    overview: &Overview,
    brokers: &str,
) -> Vec<Finding> {
    let plan = Plan::between(desired, actual);
    let mut findings: Vec<Finding> = missing(&plan).into_iter().collect();
    findings.extend(plan.refusals.iter().map(refusal));
    findings.extend(plan.changes.iter().flat_map(change));
    findings.extend(weak(&plan, desired.len()));
    findings.extend(dead_letters(actual));
    findings.extend(ids(actual));
    let ours: Vec<(&str, &[PartitionHealth], &TopicFacts)> = actual
        .iter()
        .filter_map(|(name, facts)| Some((name.as_str(), overview.topics.get(name)?.as_slice(), facts)))
        .collect();
    findings.extend(health(&ours, brokers));
    if plan.is_empty() {
        findings.push(
            Check::TopicsAsFiles
                .ok(format!("{} are as their files say", count(plan.unchanged.len(), "topic"))),
        );
    }
    findings
}

fn missing(plan: &Plan) -> Option<Finding> {
    let names: Vec<&str> = plan
        .changes
        .iter()
        .filter_map(
            |change| if let Change::Create { topic, .. } = change { Some(topic.as_str()) } else { None },
        )
        .collect();
    let (it, do_not) = if names.len() == 1 { ("it", "does not exist") } else { ("them", "do not exist") };
    (!names.is_empty()).then(|| {
        Check::TopicsMissing
            .error(format!("{do_not}: {}", names.join(", ")))
            .cure(format!("create {it}"))
            .by(APPLY)
    })
}

fn refusal(refusal: &Refusal) -> Finding {
    let Refusal { topic, kind, difference, way_out } = refusal;
    let finding = match kind {
        RefusalKind::Partitions => Check::TopicsPartitions.error(format!("{topic} has {difference}")),
        RefusalKind::Replication => Check::TopicsReplication.warning(format!("{topic}: {difference}")),
    };
    finding.cure(way_out.clone())
}

fn change(change: &Change) -> Vec<Finding> {
    match change {
        // Told together, by `missing`.
        Change::Create { .. } => Vec::new(),
        Change::AddPartitions { topic, from, to } => vec![
            Check::TopicsPartitions
                .warning(format!("{topic} has {from} partitions, should be {to}"))
                .because("its records have no order to lose, and more partitions carry more")
                .cure("add them")
                .by(APPLY),
        ],
        Change::SetConfigs { topic, changes } => changes.iter().map(|change| config(topic, change)).collect(),
    }
}

fn config(topic: &str, change: &ConfigChange) -> Finding {
    let ConfigChange { name, from, to } = change;
    let (number, wanted) =
        (from.as_deref().and_then(|text| text.parse::<i64>().ok()), to.parse::<i64>().ok());
    let (check, severity) = match name.as_str() {
        "min.insync.replicas" => (Check::TopicsMinIsr, Severity::Error),
        "unclean.leader.election.enable" => (Check::TopicsUncleanElection, Severity::Error),
        "message.timestamp.type" => (Check::TopicsTimestampType, Severity::Error),
        "cleanup.policy" => (Check::TopicsRetention, Severity::Error),
        "retention.ms" | "retention.bytes" if keeps_longer(number, wanted) => {
            (Check::TopicsRetention, Severity::Warning)
        }
        "retention.ms" | "retention.bytes" => (Check::TopicsRetention, Severity::Error),
        "max.message.bytes" if number < wanted => (Check::TopicsMessageSize, Severity::Error),
        "max.message.bytes" => (Check::TopicsMessageSize, Severity::Warning),
        _ => (Check::TopicsAsFiles, Severity::Warning),
    };
    let from = from.as_deref().unwrap_or("not told by the broker");
    check
        .finds(severity, format!("{topic}: {name} is {from}, should be {to}"))
        .cure("set it as the file says")
        .by(APPLY)
}

/// -1 is for ever.
fn keeps_longer(now: Option<i64>, wanted: Option<i64>) -> bool {
    let for_ever = |limit: Option<i64>| limit.map(|limit| if limit < 0 { i64::MAX } else { limit });
    matches!((for_ever(now), for_ever(wanted)), (Some(now), Some(wanted)) if now > wanted)
}

/// What the plan warns of, the topics of one cause together.
fn weak(plan: &Plan, all: usize) -> Vec<Finding> {
    let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Warning { topic, text } in &plan.warnings {
        by_text.entry(text).or_default().push(topic);
    }
    by_text
        .into_iter()
        .map(|(text, topics)| {
            let which = if topics.len() == all { format!("all {all} topics") } else { topics.join(", ") };
            Check::TopicsDurability.warning(format!("{text} ({which})")).cure(
                "run at least 3 brokers and leave `kafka.replication` at 0, so that the topic files decide; \
                 on a machine to try things out this is as it has to be",
            )
        })
        .collect()
}

/// A dead letter is its record and more headers.
fn dead_letters(actual: &BTreeMap<String, TopicFacts>) -> Vec<Finding> {
    let bytes = |facts: &TopicFacts| facts.configs.get("max.message.bytes")?.parse::<i64>().ok();
    let too_small = |(name, facts): (&String, &TopicFacts)| {
        let dead = format!("{name}-dlq");
        let (source, letters) = (bytes(facts)?, bytes(actual.get(&dead)?)?);
        (letters <= source).then(|| {
            Check::TopicsMessageSize
                .error(format!("{dead} takes {letters} bytes, and {name} takes {source}"))
                .cure("a dead letter is the record and headers: give its topic at least 64 kB more")
                .by(APPLY)
        })
    };
    actual.iter().filter_map(too_small).collect()
}

fn ids(actual: &BTreeMap<String, TopicFacts>) -> Option<Finding> {
    let without: Vec<&str> =
        actual.iter().filter(|(_, facts)| facts.id.0.is_nil()).map(|(name, _)| name.as_str()).collect();
    (!without.is_empty()).then(|| {
        Check::TopicsIds
            .error(format!("the brokers tell no id of {}", without.join(", ")))
            .cure("upgrade the brokers to 2.8 or later, and raise `inter.broker.protocol.version`")
    })
}

fn health(topics: &[(&str, &[PartitionHealth], &TopicFacts)], brokers: &str) -> Vec<Finding> {
    let each =
        || topics.iter().flat_map(|(name, health, facts)| health.iter().map(move |p| (*name, p, *facts)));
    let place = |name: &str, partition: &PartitionHealth| format!("{name}/{}", partition.partition);
    let leaderless: Vec<String> =
        each().filter(|(_, p, _)| p.leader.is_none()).map(|(name, p, _)| place(name, p)).collect();
    let min_isr = |facts: &TopicFacts| facts.configs.get("min.insync.replicas")?.parse::<usize>().ok();
    let (mut stuck, mut behind) = (Vec::new(), Vec::new());
    for (name, p, facts) in each() {
        let shown = format!("{} ({} of {})", place(name, p), p.in_sync, p.replicas);
        if min_isr(facts).is_some_and(|min| p.in_sync < min) {
            stuck.push(shown);
        } else if p.in_sync < p.replicas {
            behind.push(shown);
        }
    }
    let mut findings = Vec::new();
    if leaderless.is_empty() {
        findings.push(Check::TopicsLeaders.ok(format!("{} have one", count(each().count(), "partition"))));
    } else {
        findings.push(
            Check::TopicsLeaders
                .error(format!("nobody leads {}", leaderless.join(", ")))
                .cure("start the brokers that hold them; unclean election would lose events"),
        );
    }
    let cure = "look at the brokers that are down or slow";
    let looks =
        format!("kafka-topics.sh --bootstrap-server {brokers} --describe --under-replicated-partitions");
    if !stuck.is_empty() {
        let found =
            format!("fewer replicas in sync than min.insync.replicas, so no writes: {}", stuck.join(", "));
        findings.push(Check::TopicsInSync.error(found).cure(cure).by(looks.clone()));
    }
    if !behind.is_empty() {
        let found = format!("replicas lag: {}", behind.join(", "));
        findings.push(Check::TopicsInSync.warning(found).cure(cure).by(looks));
    }
    if stuck.is_empty() && behind.is_empty() {
        findings.push(Check::TopicsInSync.ok("all replicas are in sync"));
    }
    findings
}

#[cfg(test)]
#[path = "topics/tests.rs"]
mod tests;
