//! Commands to lanes beside a redrive: sent, and waited for until the lanes have answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use fleetlog_dead_letters::redrive::{
    Answered, LaneRef, Lanes, LogFacts, Message, Trouble, await_answers, send_messages,
};
use fleetlog_kafka::Admin;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer};
use fleetlog_projection::Fault;

use crate::{
    command_lanes::FleetLanes,
    config::Config,
    engine_parts::taking_all_that_topics_take,
    exit::{Code, Failure},
    wiring,
};

/// How long a command waits for answers without any progress, in milliseconds.
pub(crate) const WAIT_MS: u64 = 60_000;

/// Topics as they are now (physical names); all of them are there.
pub(crate) async fn logs<'a>(
    config: &Config,
    topics: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<BTreeMap<String, LogFacts>> {
    // Each once: a broker refuses to describe a topic twice.
    let names: BTreeSet<&str> = topics.into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let facts = Admin::new(&wiring::kafka_settings(config))?.topics(&names).await?;
    if let Some(missing) = names.iter().find(|name| !facts.contains_key(**name)) {
        let message = format!("the cluster has no topic {missing}");
        let hint = "`fleetlog topics plan` shows what is missing, `apply` creates it";
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    let log = |(name, topic): (String, fleetlog_kafka::TopicFacts)| {
        (name, LogFacts { log: topic.id, partitions: topic.partitions })
    };
    Ok(facts.into_iter().map(log).collect())
}

/// Sends commands and returns once all of them are answered.
pub(crate) async fn send_and_wait(
    config: &Config,
    lanes: &FleetLanes,
    messages: &[Message],
    wait_ms: u64,
) -> anyhow::Result<()> {
    logs(config, messages.iter().map(|message| message.inbox.as_str())).await?;
    let mut groups: Vec<&String> = messages.iter().map(|message| &message.lane.group).collect();
    groups.sort();
    groups.dedup();
    for group in groups {
        if lanes.members(group).await.map_err(failed)? == 0 {
            eprintln!(
                "warning: no process is in group {group}: commands wait in its inbox until one runs (fleetlog run)"
            );
        }
    }
    let topics = wiring::topic_specs(config, &wiring::catalogue(None)?);
    let kafka = taking_all_that_topics_take(wiring::kafka_settings(config), &topics);
    let producer =
        RawProducer::connect(&kafka, &ProducerSettings::default(), ProducerMetrics::unregistered()?)
            .context("a producer of commands")?;
    let awaited = send_messages(&producer, messages).await.map_err(failed)?;
    let patience = Duration::from_millis(wait_ms);
    match await_answers(lanes, &awaited, patience, async || Ok(())).await.map_err(failed)? {
        Answered::All => Ok(()),
        Answered::Stalled { lanes, trouble, .. } => {
            let silent: Vec<String> = lanes.iter().map(LaneRef::to_string).collect();
            let trouble = trouble.map_or_else(String::new, |trouble| format!(" ({trouble})"));
            let message = format!("no answer from {}{trouble}", silent.join(", "));
            let hint = "is fleetlog run up, and does it keep up (fleetlog status)? The commands stay in the inbox and \
                        will be carried out";
            Err(Failure::new(Code::Unreachable, message, hint).into())
        }
    }
}

/// A port that failed, with its code.
pub(crate) fn failed(trouble: Trouble) -> anyhow::Error {
    match trouble.fault {
        Fault::Transient => {
            let hint = "is that server up? (fleetlog doctor); running it again does no harm";
            Failure::new(Code::Unreachable, trouble.to_string(), hint).into()
        }
        Fault::Fenced | Fault::Permanent => trouble.into(),
    }
}
