//! How far every handler of the settings is: what its group has committed of its sources, what waits, and whether it stands still.

use std::collections::BTreeMap;

use fleetlog_dead_letters::Halts;
use fleetlog_engine::HandlerTopic;
use fleetlog_event::TimestampMs;
use fleetlog_handler::LaneKind;
use fleetlog_kafka::{Admin, GroupOffsets, Offsets, PartitionOffsets};
use serde::Serialize;

use crate::{
    commands::migrate,
    config::{Config, StartAt},
    halts::{self, CircuitView, HaltView},
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
    lag_offsets: i64,
    /// How many of those a tier does not give out yet, by the clock of this machine.
    not_due: i64,
    processes: usize,
    halt: Option<HaltView>,
    /// In which processes its endpoint is left alone.
    open_circuits: Vec<CircuitView>,
}

/// What is the same in all rows of a handler.
struct Stand {
    processes: usize,
    halt: Option<HaltView>,
    open_circuits: Vec<CircuitView>,
}

impl Row {
    fn state(&self) -> &'static str {
        if self.halt.is_some() {
            "halted"
        } else if self.open_circuits.is_empty() {
            ""
        } else {
            "circuit open"
        }
    }
}

/// Every topic of every handler; a topic that is missing is told and left out.
pub(super) async fn rows(config: &Config, halts: &Halts) -> anyhow::Result<Vec<Row>> {
    let handlers = handlers::all(config)?;
    if handlers.is_empty() {
        return Ok(Vec::new());
    }
    let kafka = wiring::kafka_settings(config);
    let (admin, offsets) = (Admin::new(&kafka)?, Offsets::new(&kafka)?);
    let mut rows = Vec::new();
    for handler in &handlers {
        let stand = Stand {
            processes: admin.group(&handler.group).await?.members.len(),
            halt: halts::view(halts, &handler.group),
            open_circuits: halts.open_circuits(&handler.group).map(CircuitView::of).collect(),
        };
        let topics = those_there(&admin, handler, config).await?;
        if topics.is_empty() {
            continue;
        }
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        // What is committed first, or the lag would look larger than it is.
        let committed = offsets.committed(&handler.group, &names).await?;
        let ranges = offsets.ranges(&names).await?;
        for topic in &topics {
            let due_from = due_from(&offsets, topic).await?;
            rows.push(row(handler, topic, &stand, &committed, &ranges, &due_from));
        }
    }
    Ok(rows)
}

async fn those_there(
    admin: &Admin,
    handler: &Described,
    config: &Config,
) -> anyhow::Result<Vec<HandlerTopic>> {
    let mut topics = handler.all_topics(config);
    let there = admin.topics(&topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>()).await?;
    topics.retain(|topic| {
        let is_there = there.contains_key(&*topic.name);
        if !is_there {
            eprintln!(
                "warning: handler `{}`: topic `{}` does not exist; fleetlog topics apply",
                handler.id, topic.name
            );
        }
        is_there
    });
    Ok(topics)
}

/// The first offset of each partition that a tier does not give out yet; nothing of other topics.
async fn due_from(offsets: &Offsets, topic: &HandlerTopic) -> anyhow::Result<BTreeMap<i32, i64>> {
    let LaneKind::Tier(delay) = topic.kind else { return Ok(BTreeMap::new()) };
    let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    let appended = TimestampMs(migrate::now().0.saturating_sub(delay_ms));
    Ok(offsets.at_time(&topic.name, appended).await?)
}

fn row(
    handler: &Described,
    topic: &HandlerTopic,
    stand: &Stand,
    committed: &GroupOffsets,
    ranges: &BTreeMap<(String, i32), PartitionOffsets>,
    due_from: &BTreeMap<i32, i64>,
) -> Row {
    let (mut partitions, mut lag_offsets, mut not_due) = (0, 0, 0);
    for (at, range) in ranges.iter().filter(|((name, _), _)| **name == *topic.name) {
        // Where it goes on, or will begin.
        let begins = topic.kind != LaneKind::Source || handler.start_at == StartAt::Begin;
        let unstarted = if begins { range.low } else { range.end };
        let next = committed.get(at).copied().unwrap_or(unstarted);
        partitions += 1;
        lag_offsets += (range.end - next).max(0);
        not_due += due_from.get(&at.1).map_or(0, |due| (range.end - next.max(*due)).max(0));
    }
    Row {
        handler: handler.id.clone(),
        group: handler.group.clone(),
        topic: topic.name.to_string(),
        kind: match topic.kind {
            LaneKind::Source => "source",
            LaneKind::Tier(_) => "tier",
            LaneKind::Held => "held",
        },
        partitions,
        lag_offsets,
        not_due,
        processes: stand.processes,
        halt: stand.halt.clone(),
        open_circuits: stand.open_circuits.clone(),
    }
}

/// For people.
pub(super) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!();
    output::table(
        ["handler", "topic", "kind", "partitions", "lag", "of it not due", "processes", "state"],
        rows.iter().map(|row| {
            [
                row.handler.clone(),
                row.topic.clone(),
                row.kind.to_owned(),
                row.partitions.to_string(),
                row.lag_offsets.to_string(),
                row.not_due.to_string(),
                row.processes.to_string(),
                row.state().to_owned(),
            ]
        }),
    );
    halts::tell(rows.iter().filter_map(|row| Some((&*row.handler, row.halt.as_ref()?))));
    let mut told = Vec::new();
    for row in rows.iter().filter(|row| !row.open_circuits.is_empty()) {
        if !told.contains(&&row.handler) {
            told.push(&row.handler);
            row.open_circuits.iter().for_each(|circuit| output::line(&circuit.line(&row.handler)));
        }
    }
}
