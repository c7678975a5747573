//! `fleetlog events`: the log as it is, decoded, as JSON lines.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use anyhow::Context;
use fleetlog_codec::{AnyEvent, Decoder};
use fleetlog_event::{EventSet, TimestampMs};
use fleetlog_kafka::{KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange, Read, ReadError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    config::Config,
    exit::{Code, Failure},
    output, wiring,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog events --topic task --limit 5\n  \
                        fleetlog events --follow --key swerk1.uNordFTS%2F0001 | jq .event\n  \
                        fleetlog events --from 2026-11-21T09:00:00Z --type FaultRaised")]
pub(crate) struct Events {
    /// Only these topics (stems, separated by commas); without it all that carry events
    #[arg(long, value_delimiter = ',')]
    topic: Vec<String>,
    /// Only this unit or task
    #[arg(long)]
    key: Option<String>,
    /// Only this event type, such as FaultRaised
    #[arg(long = "type", value_name = "EVENT")]
    event_type: Option<String>,
    /// From where: `start`, `end`, or a time (RFC 3339) [default: start; with --follow: end]
    #[arg(long)]
    from: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Stop after so many lines
    #[arg(long)]
    limit: Option<usize>,
}

/// Records read ahead of the decoder.
const READ_AHEAD_RECORDS: usize = 1000;
/// How long the reader waits for a record before it looks whether anybody still listens.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) async fn run(events: &Events, config: &Config) -> anyhow::Result<Code> {
    let settings = wiring::kafka_settings(config);
    wiring::admin(config).await?;
    let decoder = wiring::decoder(config)?;
    let topics = topics(events)?;
    let (sender, mut records) = mpsc::channel(READ_AHEAD_RECORDS);
    for topic in &topics {
        let ranges = ranges(events, &settings, topic).await?;
        read(&settings, topic, ranges, sender.clone());
    }
    drop(sender);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut shown = 0;
    while events.limit.is_none_or(|limit| shown < limit) {
        let record = tokio::select! {
            record = records.recv() => record,
            _ = &mut interrupted => None,
        };
        let Some(record) = record else { break };
        if let Some(line) = line(events, &decoder, &settings.topic_prefix, &record?).await? {
            output::line(&line.to_string());
            shown += 1;
        }
    }
    Ok(Code::Done)
}

fn topics(events: &Events) -> anyhow::Result<Vec<String>> {
    let catalogue = wiring::catalogue(None)?;
    let known: Vec<&str> = catalogue.sources().map(|topic| topic.stem.as_str()).collect();
    if let Some(unknown) = events.topic.iter().find(|topic| !known.contains(&topic.as_str())) {
        let message = format!("topic `{unknown}` carries no events");
        return Err(Failure::new(Code::Usage, message, format!("topics: {}", known.join(", "))).into());
    }
    Ok(if events.topic.is_empty() {
        known.into_iter().map(str::to_owned).collect()
    } else {
        events.topic.clone()
    })
}

async fn ranges(
    events: &Events,
    settings: &KafkaSettings,
    stem: &str,
) -> anyhow::Result<Vec<PartitionRange>> {
    let offsets = Offsets::new(settings)?;
    let topic = settings.topic(stem);
    let there = offsets.ranges(&[&topic]).await?;
    let at_time: Option<BTreeMap<i32, i64>> = match events.from.as_deref() {
        None | Some("start" | "end") => None,
        Some(text) => {
            let time: jiff::Timestamp = text.parse().map_err(|error| {
                let message = format!("--from `{text}`: {error}");
                Failure::new(Code::Usage, message, "`start`, `end`, or a time such as 2026-11-21T09:00:00Z")
            })?;
            Some(offsets.at_time(&topic, TimestampMs(time.as_millisecond())).await?)
        }
    };
    let from_end = events.from.as_deref().map_or(events.follow, |from| from == "end");
    let range = |((_, partition), there): ((String, i32), fleetlog_kafka::PartitionOffsets)| {
        let from = match &at_time {
            Some(at_time) => at_time.get(&partition).copied().unwrap_or(there.end).max(there.low),
            None if from_end => there.end,
            None => there.low,
        };
        PartitionRange { partition, from, to: (!events.follow).then_some(there.end) }
    };
    Ok(there.into_iter().map(range).collect())
}

/// Reads a topic on a thread of its own, until its end or until nobody listens.
fn read(
    settings: &KafkaSettings,
    stem: &str,
    ranges: Vec<PartitionRange>,
    sender: mpsc::Sender<Result<OwnedRecord, ReadError>>,
) {
    let (settings, topic) = (settings.clone(), settings.topic(stem));
    thread::spawn(move || {
        let mut reader = match LogReader::open(&settings, &topic, &ranges) {
            Ok(reader) => reader,
            Err(error) => {
                // Nobody listens any more: nobody to tell.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        };
        while !sender.is_closed() {
            let read = match reader.poll(POLL_TIMEOUT) {
                Ok(Read::Record(record)) => Ok(record.to_owned_record()),
                Ok(Read::Idle) => continue,
                Ok(Read::End) => return,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
}

/// A record as a line, if it is asked for.
async fn line(
    events: &Events,
    decoder: &Arc<Decoder>,
    prefix: &str,
    record: &OwnedRecord,
) -> anyhow::Result<Option<Value>> {
    let key = record.key.as_deref().map(String::from_utf8_lossy);
    if events.key.is_some() && events.key.as_deref() != key.as_deref() {
        return Ok(None);
    }
    let (event_type, event) = describe(decoder, record).await?;
    if let Some(wanted) = &events.event_type
        && !event_type
            .as_deref()
            .is_some_and(|name| name == wanted || name.rsplit('.').next() == Some(wanted))
    {
        return Ok(None);
    }
    Ok(Some(json!({
        "topic": record.topic.strip_prefix(prefix).unwrap_or(&record.topic),
        "partition": record.partition,
        "offset": record.offset,
        "recorded_at": output::time(record.timestamp.0),
        "key": key,
        "type": event_type,
        "event": event,
    })))
}

/// A record's type and its content as JSON; what cannot be decoded says why.
pub(crate) async fn describe(
    decoder: &Decoder,
    record: &OwnedRecord,
) -> anyhow::Result<(Option<String>, Value)> {
    let value = record.value.as_deref();
    let prepared = decoder.prepare([value]).await.context("looking up a schema")?;
    Ok(match prepared.decode_any(value) {
        Ok(AnyEvent::Fleet(event)) => (Some(event.event_type().name.to_owned()), event.to_json()?),
        Ok(AnyEvent::Foreign { name, json }) => (Some(name), json),
        Err(reject) => (None, json!({ "undecodable": reject.to_string() })),
    })
}
