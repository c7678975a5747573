//! Data sets: telemetry of so many units on topics of their own, and how fast a bare client and the producer crate send it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fleetlog_bench::telemetry::measurement;
use fleetlog_codec::Encoder;
use fleetlog_event::{EventId, TimestampMs, telemetry::Telemetry};
use fleetlog_kafka::{KafkaSettings, error_code};
use fleetlog_producer::EventProducer;
use rdkafka::{
    ClientConfig, ClientContext,
    error::RDKafkaErrorCode,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use tokio::runtime::Runtime;

use crate::{
    Bench,
    cpu::Meter,
    report::{Goal, Sample},
    stack::{Stack, said},
};

const FLUSH: Duration = Duration::from_secs(120);
/// The catalogue's files.
const TOPICS: &str = "topics";

/// Telemetry of so many units, on topics under a prefix of their own.
#[derive(Clone)]
pub(crate) struct Data {
    pub(crate) prefix: String,
    pub(crate) events: u64,
    pub(crate) units: u64,
    /// What sets it apart from others with as many units; may be empty.
    note: String,
    /// Of topic `telemetry`; none: as the catalogue says.
    partitions: Option<u32>,
    start_ms: i64,
}

impl Data {
    pub(crate) fn new(stack: &Stack, label: &str, events: u64, units: u64) -> Self {
        Self { prefix: format!("{}-{label}-", stack.name), ..Self::sample(events, units) }
    }

    /// On no topics.
    pub(crate) fn sample(events: u64, units: u64) -> Self {
        Self {
            prefix: String::new(),
            events,
            units,
            note: String::new(),
            partitions: None,
            start_ms: now_ms(),
        }
    }

    /// Other events on the same topics, from now on.
    pub(crate) fn followed_by(&self, events: u64, units: u64) -> Self {
        Self { prefix: self.prefix.clone(), ..Self::sample(events, units) }
    }

    /// The same with another number of partitions than the catalogue's.
    pub(crate) fn in_partitions(self, partitions: u32) -> Self {
        let plural = if partitions == 1 { "" } else { "s" };
        Self { partitions: Some(partitions), ..self }.noted(&format!("{partitions} partition{plural}"))
    }

    /// The same, set apart from others with as many units.
    pub(crate) fn noted(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    /// What sets it apart from others, for the name of a row.
    pub(crate) fn told(&self) -> String {
        let comma = if self.note.is_empty() { "" } else { ", " };
        format!("{} units{comma}{}", self.units, self.note)
    }

    /// The same for names of groups, keys and databases.
    pub(crate) fn label(&self) -> String {
        format!("{}{}", self.units, self.note.replace(' ', ""))
    }

    /// Makes the topics.
    pub(crate) fn topics(&self, stack: &Stack) -> Result<()> {
        let mut command = stack.fleetlog(&self.prefix, "none");
        command.args(["topics", "apply"]);
        if let Some(partitions) = self.partitions {
            command.arg("--dir").arg(topic_files(stack, partitions)?);
        }
        said(&mut command).map(drop)
    }

    /// The `n`-th measurement, under an id of its own.
    pub(crate) fn event(&self, n: u64) -> Telemetry {
        measurement(n, self.units, TimestampMs(self.start_ms), EventId::now_v7())
    }

    /// Sends all of it by the producer crate; events a second.
    pub(crate) fn produce(&self, stack: &Stack, runtime: &Runtime) -> Result<Sample> {
        self.topics(stack)?;
        self.send(&stack.kafka(&self.prefix), runtime)
    }

    fn send(&self, kafka: &KafkaSettings, runtime: &Runtime) -> Result<Sample> {
        runtime.block_on(async {
            let producer = EventProducer::connect(kafka)?;
            let (begun, meter) = (Instant::now(), Meter::start());
            for n in 0..self.events {
                // Outcomes are in the report.
                drop(producer.send(self.event(n)).await?);
            }
            let report = producer.close(FLUSH).await;
            if report.delivered != self.events {
                bail!("{} of {} events were acknowledged", report.delivered, self.events);
            }
            Ok(Sample { value: self.events as f64 / begun.elapsed().as_secs_f64(), spent: meter.stop() })
        })
    }

    /// The same bytes by a bare client with the same settings, to `topic`: made and encoded on the way as there, sent, and
    /// counted when acknowledged.
    fn send_bare(&self, kafka: &KafkaSettings) -> Result<Sample> {
        let client: ClientConfig = kafka.producer();
        let producer: BaseProducer<Counting> = client.create_with_context(Counting)?;
        let (topic, encoder) = (kafka.topic("telemetry"), Encoder::single_object());
        let (begun, meter) = (Instant::now(), Meter::start());
        let mut payload = Vec::new();
        for n in 0..self.events {
            let mut event = self.event(n);
            event.meta.recorded_at = TimestampMs(now_ms());
            payload.clear();
            encoder.encode(&event, &mut payload)?;
            let key = format!("s504.u{}", event.meta.unit_uid.as_deref().unwrap_or_default());
            let record = BaseRecord::to(&topic)
                .key(key.as_str())
                .payload(payload.as_slice())
                .timestamp(event.meta.recorded_at.0)
                .headers(headers(&event, &key));
            send_now(&producer, record)?;
        }
        producer.flush(FLUSH)?;
        Ok(Sample { value: self.events as f64 / begun.elapsed().as_secs_f64(), spent: meter.stop() })
    }
}

/// The catalogue's files with another number of partitions of topic `telemetry`, in a folder of this run.
fn topic_files(stack: &Stack, partitions: u32) -> Result<PathBuf> {
    let folder = stack.folder().join(format!("topics-{partitions}"));
    fs::create_dir_all(&folder)?;
    for file in fs::read_dir(TOPICS).context(TOPICS)? {
        let file = file?;
        let mut text = fs::read_to_string(file.path())?;
        if file.file_name() == "telemetry.toml" {
            text = with_partitions(&text, partitions).context("telemetry.toml has no `partitions`")?;
        }
        fs::write(folder.join(file.file_name()), text)?;
    }
    Ok(folder)
}

/// The first `partitions` is the topic's own.
fn with_partitions(text: &str, partitions: u32) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("partitions = "))?;
    Some(text.replacen(line, &format!("partitions = {partitions}"), 1))
}

/// The CloudEvents attributes that the producer crate writes; the time of the source is left a constant.
fn headers(event: &Telemetry, key: &str) -> OwnedHeaders {
    let mut id = [0; 36];
    let id: &str = event.meta.event_id.0.hyphenated().encode_lower(&mut id);
    let all = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", &event.meta.source),
        ("ce_type", "fleetlog.telemetry.Telemetry"),
        ("ce_subject", key),
        ("content-type", "application/avro"),
        ("ce_time", "2026-11-28T00:00:00.000Z"),
    ];
    all.into_iter().fold(OwnedHeaders::new_with_capacity(all.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}

fn send_now(producer: &BaseProducer<Counting>, mut record: BaseRecord<'_, str, [u8]>) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((error, back)) if error_code(&error) == Some(RDKafkaErrorCode::QueueFull) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

/// A delivery that failed ends the run.
struct Counting;

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("the bare producer's record was not delivered: {error}");
            std::process::exit(1);
        }
    }
}

/// Both producers, one after the other. The last round's topics are what the catch-up reads.
pub(crate) fn measure_producers(bench: &mut Bench, data: &Data) -> Result<()> {
    let Bench { stack, runtime, rounds, report } = bench;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..*rounds {
        let aside = Data { prefix: format!("{}bare{round}-", data.prefix), ..data.clone() };
        aside.topics(stack)?;
        bare.push(aside.send_bare(&stack.kafka(&aside.prefix))?);
        let is_last = round + 1 == *rounds;
        let topics = if is_last { data.prefix.clone() } else { format!("{}ours{round}-", data.prefix) };
        let own = Data { prefix: topics, ..data.clone() };
        ours.push(own.produce(stack, runtime)?);
    }
    let (floor, name) = ("producer, bare client", "producer crate");
    report.floor(floor, "events/s", &bare);
    report.row(name, "events/s", &ours, Some((floor, &bare)), Some(Goal::RatioMin(0.8)));
    Ok(())
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
