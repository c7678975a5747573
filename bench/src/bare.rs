//! Floors and ceilings: what one would write by hand, without any of the guarantees.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use fleetlog_codec::{Decoder, NoSource, Prepared};
use fleetlog_event::{Decode as _, telemetry::TelemetryEvent};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Message as _,
};
use tokio::runtime::Runtime;

use crate::{cpu::Meter, load::Data, native::Batches, report::Sample, stack::Stack};

/// Hash fields of a state in the pipelined HSET.
const FIELDS: usize = 20;
const PIPELINE_STATES: usize = 1_000;
/// Records of one call of the fastest loop.
const BATCH_RECORDS: usize = 1_000;
/// How long one call may wait.
const WAIT: Duration = Duration::from_secs(1);
/// How long a loop may take in all.
const PATIENCE: Duration = Duration::from_secs(300);

/// A member of a group that polls record by record, decodes and keeps each unit's last value.
pub(crate) fn member(stack: &Stack, runtime: &Runtime, data: &Data, group: &str) -> Result<Sample> {
    let mut hand = ByHand::new(stack, runtime, data, group)?;
    hand.consumer.subscribe(&[&hand.topic])?;
    while hand.kept.events < data.events {
        // None also where the group shares out.
        let Some(polled) = hand.consumer.poll(WAIT) else {
            hand.check_patience()?;
            continue;
        };
        let message = match polled {
            Err(KafkaError::PartitionEOF(_)) => continue,
            polled => polled?,
        };
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        hand.kept.take(key, value)?;
    }
    hand.sample()
}

/// The fastest way to read known to us: partitions assigned by hand, so without a group, and many records a call; decoded
/// and kept as by the member.
pub(crate) fn fastest(stack: &Stack, runtime: &Runtime, data: &Data, group: &str) -> Result<Sample> {
    let mut hand = ByHand::new(stack, runtime, data, group)?;
    let metadata = hand.consumer.fetch_metadata(Some(&hand.topic), PATIENCE)?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(&hand.topic, partition.id(), Offset::Beginning)?;
    }
    hand.consumer.assign(&partitions)?;
    let mut batches = Batches::of(&hand.consumer, BATCH_RECORDS)?;
    while hand.kept.events < data.events {
        // No more than are missing: the call waits for a full batch, and nothing comes after the last one.
        let missing = usize::try_from(data.events - hand.kept.events)?;
        if batches.next(missing, WAIT, |key, value| hand.kept.take(key, value))? == 0 {
            hand.check_patience()?;
        }
    }
    drop(batches);
    hand.sample()
}

/// A client written by hand that is to read a data set once.
struct ByHand<'d> {
    begun: Instant,
    meter: Meter,
    data: &'d Data,
    consumer: BaseConsumer,
    topic: String,
    kept: Kept<'d>,
}

impl<'d> ByHand<'d> {
    fn new(stack: &Stack, runtime: &'d Runtime, data: &'d Data, group: &str) -> Result<Self> {
        let kafka = stack.kafka(&data.prefix);
        let mut client = kafka.consumer(group);
        client.set("auto.offset.reset", "earliest").set("enable.partition.eof", "false");
        let decoder = Decoder::new(Arc::new(NoSource));
        let kept = Kept { runtime, decoder, prepared: None, states: HashMap::new(), events: 0 };
        let (begun, meter) = (Instant::now(), Meter::start());
        Ok(Self { begun, meter, data, consumer: client.create()?, topic: kafka.topic("telemetry"), kept })
    }

    /// Asked only where nothing came: the clock costs as much as a record.
    fn check_patience(&self) -> Result<()> {
        let (came, all) = (self.kept.events, self.data.events);
        ensure!(self.begun.elapsed() < PATIENCE, "{came} of {all} events came within {PATIENCE:?}");
        Ok(())
    }

    fn sample(self) -> Result<Sample> {
        let value = self.kept.events as f64 / self.begun.elapsed().as_secs_f64();
        let units = self.kept.states.len();
        ensure!(units as u64 == self.data.units.min(self.data.events), "{units} units were seen");
        Ok(Sample { value, spent: self.meter.stop() })
    }
}

/// Each unit's last value.
struct Kept<'r> {
    runtime: &'r Runtime,
    decoder: Decoder,
    prepared: Option<Prepared>,
    states: HashMap<Vec<u8>, f64>,
    events: u64,
}

impl Kept<'_> {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let prepared = match &self.prepared {
            Some(prepared) => prepared,
            None => self.prepared.insert(self.runtime.block_on(self.decoder.prepare([Some(value)]))?),
        };
        let TelemetryEvent::Telemetry(telemetry) =
            prepared.decode(Some(value)).map_err(|reject| anyhow!("{reject:?}"))?;
        let x_m = telemetry.x_m.unwrap_or_default();
        match self.states.get_mut(key) {
            Some(state) => *state = x_m,
            None => drop(self.states.insert(key.to_vec(), x_m)),
        }
        self.events += 1;
        Ok(())
    }
}

/// States a second that a pipelined HSET of twenty fields writes, without a guard.
pub(crate) fn hset(stack: &Stack, states: usize) -> Result<Sample> {
    let mut redis = redis::Client::open(stack.redis_url())?.get_connection()?;
    let fields: Vec<(String, String)> =
        (0..FIELDS).map(|n| (format!("field_{n}"), format!("{}", n as f64 * 1.37))).collect();
    let (begun, meter) = (Instant::now(), Meter::start());
    for first in (0..states).step_by(PIPELINE_STATES) {
        let mut pipeline = redis::pipe();
        for n in first..(first + PIPELINE_STATES).min(states) {
            pipeline.hset_multiple(format!("{}-hset:{n}", stack.name), &fields).ignore();
        }
        pipeline.exec(&mut redis)?;
    }
    let sample = Sample { value: states as f64 / begun.elapsed().as_secs_f64(), spent: meter.stop() };
    stack.drop_keys(&format!("{}-hset", stack.name))?;
    Ok(sample)
}

/// `\copy … binary` of a database's telemetry into the same table, emptied: one connection, rows as they came.
pub(crate) fn copy(stack: &Stack, database: &str) -> Result<Sample> {
    let file = format!("/tmp/{}.copy", stack.name);
    let [out, back] =
        ["TO", "FROM"].map(|way| format!("\\copy telemetry {way} '{file}' WITH (FORMAT binary)"));
    // In log order, as a hand-written consumer would have them.
    let out = out.replace("telemetry TO", "(SELECT * FROM telemetry ORDER BY log_offset, log_partition) TO");
    let rows: f64 = stack.psql(Some(database), &["SELECT count(*) FROM telemetry"])?.trim().parse()?;
    stack.psql(Some(database), &[&out, "TRUNCATE telemetry", "CHECKPOINT"])?;
    let (begun, meter) = (Instant::now(), Meter::start());
    stack.psql(Some(database), &[&back])?;
    let sample = Sample { value: rows / begun.elapsed().as_secs_f64(), spent: meter.stop_with_child("psql") };
    std::fs::remove_file(file)?;
    Ok(sample)
}
