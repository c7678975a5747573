//! How far every handler of the settings is: what its group has committed of its sources, and what waits.

use fleetlog_event::{
    TimestampMs,
    catalogue::{held_name, retry_name},
};
use fleetlog_kafka::{Admin, GroupOffsets, Offsets, PartitionOffsets};
use serde::Serialize;

use crate::{
    commands::migrate,
    config::Config,
    handlers::{self, Described},
    output, wiring,
};

/// A topic of a handler.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    handler: String,
    group: String,
    topic: String,
    /// `source`, `tier` or `held`
    kind: &'static str,
    partitions: usize,
    /// Offsets between what is committed and the end: what is not done.
    pub(super) lag_offsets: i64,
    /// How many of those a tier does not give out yet, by the clock of this machine.
    not_due: i64,
    processes: usize,
}

struct Topic {
    name: String,
    kind: &'static str,
    delay_ms: Option<u64>,
}

/// Every topic of every handler; a topic that is missing is told and left out.
pub(super) async fn rows(config: &Config) -> anyhow::Result<Vec<Row>> {
    let handlers = handlers::all(config)?;
    if handlers.is_empty() {
        return Ok(Vec::new());
    }
    let kafka = wiring::kafka_settings(config);
    let (admin, offsets) = (Admin::new(&kafka)?, Offsets::new(&kafka)?);
    let mut rows = Vec::new();
    for handler in &handlers {
        let processes = admin.group(&handler.group).await?.members.len();
        for topic in topics(config, handler) {
            let there = admin.topics(&[&topic.name]).await?;
            if !there.contains_key(&topic.name) {
                eprintln!(
                    "warning: handler `{}`: topic `{}` does not exist; fleetlog topics apply",
                    handler.id, topic.name
                );
                continue;
            }
            rows.push(row(&offsets, handler, topic, processes).await?);
        }
    }
    Ok(rows)
}

fn topics(config: &Config, handler: &Described) -> Vec<Topic> {
    let sources = handler.topics.iter().map(|stem| Topic {
        name: format!("{}{stem}", config.kafka.topic_prefix),
        kind: "source",
        delay_ms: None,
    });
    let tiers = handler.retry.delays().iter().map(|delay| {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Topic { name: retry_name(&handler.group, delay_ms), kind: "tier", delay_ms: Some(delay_ms) }
    });
    let held = Topic { name: held_name(&handler.group), kind: "held", delay_ms: None };
    sources.chain(tiers).chain([held]).collect()
}

async fn row(offsets: &Offsets, handler: &Described, topic: Topic, processes: usize) -> anyhow::Result<Row> {
    // What is committed first, or the lag would look larger than it is.
    let committed = offsets.committed(&handler.group, &[&topic.name]).await?;
    let ranges = offsets.ranges(&[&topic.name]).await?;
    let is_tier = topic.delay_ms.is_some();
    let due_from = match topic.delay_ms {
        Some(delay_ms) => {
            let appended = migrate::now().0.saturating_sub(i64::try_from(delay_ms).unwrap_or(i64::MAX));
            offsets.at_time(&topic.name, TimestampMs(appended)).await?
        }
        None => std::collections::BTreeMap::new(),
    };
    let (mut lag_offsets, mut not_due) = (0, 0);
    for ((name, partition), range) in &ranges {
        let next = next(handler, is_tier || topic.kind == "held", &committed, (name, *partition), range);
        lag_offsets += (range.end - next).max(0);
        not_due += due_from.get(partition).map_or(0, |due| (range.end - next.max(*due)).max(0));
    }
    Ok(Row {
        handler: handler.id.clone(),
        group: handler.group.clone(),
        topic: topic.name,
        kind: topic.kind,
        partitions: ranges.len(),
        lag_offsets,
        not_due,
        processes,
    })
}

/// Where a partition goes on, or will begin.
fn next(
    handler: &Described,
    waits: bool,
    committed: &GroupOffsets,
    (topic, partition): (&str, i32),
    range: &PartitionOffsets,
) -> i64 {
    let begins = waits || handler.start_at == crate::config::StartAt::Begin;
    let unstarted = if begins { range.low } else { range.end };
    committed.get(&(topic.to_owned(), partition)).copied().unwrap_or(unstarted)
}

/// For people.
pub(super) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!();
    output::table(
        ["handler", "topic", "kind", "partitions", "lag", "of it not due", "processes"],
        rows.iter().map(|row| {
            [
                row.handler.clone(),
                row.topic.clone(),
                row.kind.to_owned(),
                row.partitions.to_string(),
                row.lag_offsets.to_string(),
                row.not_due.to_string(),
                row.processes.to_string(),
            ]
        }),
    );
}
