//! Floors and ceilings: what one would write by hand, without any of the guarantees.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use fleetlog_codec::{Decoder, NoSource};
use fleetlog_event::{Decode as _, telemetry::TelemetryEvent};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Message as _,
};
use tokio::runtime::Runtime;

use crate::{cpu::Meter, load::Data, report::Sample, stack::Stack};

/// Hash fields of a state in the pipelined HSET.
const FIELDS: usize = 20;
const PIPELINE_STATES: usize = 1_000;
/// How long the member may take in all.
const PATIENCE: Duration = Duration::from_secs(300);

/// A member of a group that polls record by record, decodes and keeps each unit's last value.
pub(crate) fn member(stack: &Stack, runtime: &Runtime, data: &Data, group: &str) -> Result<Sample> {
    let kafka = stack.kafka(&data.prefix);
    let mut client = kafka.consumer(group);
    client.set("auto.offset.reset", "earliest").set("enable.partition.eof", "false");
    let decoder = Decoder::new(Arc::new(NoSource));
    let (begun, meter) = (Instant::now(), Meter::start());
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[&kafka.topic("telemetry")])?;
    let (mut states, mut events) = (HashMap::<Vec<u8>, f64>::new(), 0);
    let mut decode = None;
    while events < data.events {
        // None also where the group shares out.
        let Some(polled) = consumer.poll(Duration::from_secs(1)) else {
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "{events} of {} events came within {PATIENCE:?}",
                data.events
            );
            continue;
        };
        let message = match polled {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let prepared = match &decode {
            Some(prepared) => prepared,
            None => decode.insert(runtime.block_on(decoder.prepare([message.payload()]))?),
        };
        let TelemetryEvent::Telemetry(telemetry) =
            prepared.decode(message.payload()).map_err(|reject| anyhow::anyhow!("{reject:?}"))?;
        let (key, x_m) = (message.key().unwrap_or_default(), telemetry.x_m.unwrap_or_default());
        match states.get_mut(key) {
            Some(state) => *state = x_m,
            None => drop(states.insert(key.to_vec(), x_m)),
        }
        events += 1;
    }
    let value = events as f64 / begun.elapsed().as_secs_f64();
    anyhow::ensure!(states.len() as u64 == data.units.min(data.events), "{} units were seen", states.len());
    Ok(Sample { value, spent: meter.stop() })
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
