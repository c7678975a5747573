//! Dead letters sent back, entities folded anew, and what live events wait for meanwhile.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fleetlog_bench::telemetry::{SITE, unit_uid};
use fleetlog_codec::{Encoder, SchemaRef, WriterSchema, builtin_schemas, frame};
use fleetlog_event::{Event as _, partition_of, telemetry::Telemetry};
use fleetlog_kafka::SchemaTopic;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use serde_json::Value;

use crate::{
    Bench,
    catch_up::{HISTORY, HOT},
    latency::{Projector, WARM_UP, at_rate, events_at, tell},
    load::Data,
    report::Sample,
    stack::{Stack, once, said},
};

/// One event of so many is set aside: few enough not to be taken for a flood.
const ASIDE_EVERY: u64 = 10;
const UNITS: u64 = 1_000;
/// Letters of one group that go back in one go.
const LETTERS: u64 = 3_000;
/// Events per entity, and how many such entities are folded anew in one go.
const ENTITIES: [(u64, u64); 3] = [(10, 1_000), (1_000, 100), (100_000, 5)];
const RATE: u64 = 1_000;
/// Letters of each group that go back while live events are sent.
const BESIDE: u64 = 20_000;
/// The catalogue's partitions of topic `telemetry`.
const PARTITIONS: i32 = 6;

/// All of it.
pub(crate) fn measure(bench: &mut Bench, latency_s: u64) -> Result<()> {
    measure_redrive(bench)?;
    measure_folding_anew(bench)?;
    measure_live(bench, latency_s)
}

/// Letters of a group back in, each round others: from the start of `dlq redrive` to its end.
fn measure_redrive(bench: &mut Bench) -> Result<()> {
    let rows = [("redrive into history", HISTORY), ("redrive into hot state", HOT)];
    if !rows.iter().any(|(name, _)| bench.report.wants(name)) {
        return Ok(());
    }
    let rounds = bench.rounds as u64;
    let aside = Aside::make(bench, "redrive", rounds * LETTERS * ASIDE_EVERY)?;
    let running = Projector::start(&bench.stack, &aside.data.prefix, &aside.own)?;
    for (name, projection) in rows {
        let mut samples = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let taken = aside.redrive(&bench.stack, projection, LETTERS)?;
            ensure!(taken == LETTERS, "{taken} of {LETTERS} letters were taken by {projection}");
            samples.push(per_second(LETTERS, begun));
        }
        bench.report.floor(name, "events/s", &samples);
    }
    drop(running);
    aside.away(&bench.stack)
}

/// Entities folded anew by `fleetlog repair`, for so many events of each.
fn measure_folding_anew(bench: &mut Bench) -> Result<()> {
    for (events, entities) in ENTITIES {
        let name = format!("folded anew, {events} events each");
        if !bench.report.wants(&name) {
            continue;
        }
        let Bench { stack, runtime, rounds, report } = &mut *bench;
        let data = Data::new(stack, &format!("anew{events}"), events * entities, entities);
        let own = format!("{}_anew{events}", stack.name);
        data.produce(stack, runtime)?;
        stack.database(&own)?;
        once(runtime, stack.fleetlog(&data.prefix, &own), &[HOT])?;
        let running = Projector::start(stack, &data.prefix, &own)?;
        let mut samples = Vec::new();
        for _ in 0..*rounds {
            let mut command = stack.fleetlog(&data.prefix, &own);
            command.args([
                "repair",
                "--site",
                SITE,
                "--projection",
                HOT,
                "--wait-ms",
                "600000",
                "--format",
                "json",
            ]);
            let begun = Instant::now();
            let told: Value = serde_json::from_str(&said(&mut command)?)?;
            let repaired = told.as_array().map_or(0, Vec::len) as u64;
            ensure!(repaired == entities, "{repaired} of {entities} were folded anew");
            samples.push(per_second(entities, begun));
        }
        report.floor(&name, "entities/s", &samples);
        drop(running);
        stack.drop_keys(&own)?;
        stack.drop_database(&own)?;
    }
    Ok(())
}

/// What live events wait for while letters go back into both projections, as fast as that goes.
fn measure_live(bench: &mut Bench, seconds: u64) -> Result<()> {
    let name = format!("latency at {RATE} events/s beside a redrive");
    if !bench.report.wants(&name) {
        return Ok(());
    }
    let aside = Aside::make(bench, "beside", BESIDE * ASIDE_EVERY)?;
    let Bench { stack, runtime, report, .. } = &mut *bench;
    let live = aside.data.followed_by(events_at(RATE, seconds), 10_000);
    let mut running = Projector::start(stack, &live.prefix, &aside.own)?;
    let found = std::thread::scope(|scope| {
        let redriving = [HISTORY, HOT].map(|projection| {
            let (aside, stack, clock) = (&aside, &*stack, runtime.handle().clone());
            scope.spawn(move || {
                clock.block_on(async { tokio::time::sleep(WARM_UP).await });
                let begun = Instant::now();
                let taken = aside.redrive(stack, projection, BESIDE)?;
                ensure!(taken == BESIDE, "{taken} of {BESIDE} letters were taken by {projection}");
                Ok::<_, anyhow::Error>(per_second(BESIDE, begun))
            })
        });
        let found = runtime.block_on(at_rate(stack, &live, &aside.own, RATE, &mut running))?;
        let redriven = redriving
            .into_iter()
            .map(|job| job.join().map_err(|_| anyhow::anyhow!("a redrive panicked"))?)
            .collect::<Result<Vec<Sample>>>()?;
        Ok::<_, anyhow::Error>((found, redriven))
    });
    drop(running);
    let (found, redriven) = found.context(name.clone())?;
    for (projection, sample) in [HISTORY, HOT].iter().zip(redriven) {
        report.floor(&format!("redrive beside live events, {projection}"), "events/s", &[sample]);
    }
    tell(report, &name, found, None);
    aside.away(stack)
}

fn per_second(count: u64, begun: Instant) -> Sample {
    Sample { value: count as f64 / begun.elapsed().as_secs_f64(), ..Sample::default() }
}

/// A log of which one event in [`ASIDE_EVERY`] was set aside by both projections, for want of a schema that is there by now.
struct Aside {
    data: Data,
    own: String,
}

impl Aside {
    fn make(bench: &Bench, label: &str, events: u64) -> Result<Self> {
        let Bench { stack, runtime, .. } = bench;
        let (data, own) = (Data::new(stack, label, events, UNITS), format!("{}_{label}", stack.name));
        data.topics(stack)?;
        stack.database(&own)?;
        runtime.block_on(send(stack, &data))?;
        once(runtime, stack.fleetlog(&data.prefix, &own), &[HOT, HISTORY])?;
        let (schemas, newer) = (SchemaTopic::new(&stack.kafka(&data.prefix))?, newer()?);
        runtime.block_on(schemas.publish(&[newer]))?;
        Ok(Self { data, own })
    }

    /// Sends letters of a group back, the oldest; how many were taken.
    fn redrive(&self, stack: &Stack, projection: &str, max: u64) -> Result<u64> {
        let mut command = stack.fleetlog(&self.data.prefix, &self.own);
        command.args(["dlq", "redrive", "--execute", "--yes", "--all", "--why", "a measurement"]);
        command.args(["--group", projection, "--format", "json", "--wait-ms", "120000"]);
        command.args(["--max", &max.to_string()]);
        let told: Value = serde_json::from_str(&said(&mut command)?)?;
        told["outcomes"]["taken"].as_u64().context("the redrive told nothing")
    }

    fn away(&self, stack: &Stack) -> Result<()> {
        stack.drop_keys(&self.own)?;
        stack.drop_database(&self.own)
    }
}

/// A schema of telemetry as a newer fleetlog may have it: one field more.
fn newer() -> Result<Arc<WriterSchema>> {
    let newest = builtin_schemas().iter().rfind(|schema| schema.name() == Telemetry::NAME);
    let mut json: Value = serde_json::from_str(newest.context("a schema of telemetry")?.json())?;
    let field = serde_json::json!({ "name": "later", "type": "string", "default": "" });
    json["fields"].as_array_mut().context("a record")?.push(field);
    Ok(WriterSchema::parse(&json.to_string())?)
}

/// All events of the data set, one in [`ASIDE_EVERY`] as a newer fleetlog writes it.
async fn send(stack: &Stack, data: &Data) -> Result<()> {
    let kafka = stack.kafka(&data.prefix);
    let producer =
        RawProducer::connect(&kafka, &ProducerSettings::default(), ProducerMetrics::unregistered()?)?;
    let (topic, encoder, newer) = (kafka.topic("telemetry"), Encoder::single_object(), newer()?);
    let record = |n: u64| {
        let mut event = data.event(n);
        event.meta.recorded_at = event.meta.occurred_at;
        let mut value = Vec::new();
        encoder.encode(&event, &mut value)?;
        // Round by round others, so that letters come from all units.
        if (n + n / data.units) % ASIDE_EVERY == ASIDE_EVERY / 2 {
            let mut framed = Vec::new();
            frame::write(SchemaRef::Fingerprint(newer.fingerprint()), &mut framed);
            // Both heads are of one length; behind the fields comes an empty text.
            framed.extend_from_slice(&value[framed.len()..]);
            framed.push(0);
            value = framed;
        }
        let key = format!("s{SITE}.u{}", unit_uid(n % data.units));
        Ok(RawRecord {
            topic: topic.clone(),
            partition: Some(partition_of(key.as_bytes(), PARTITIONS)),
            key: Some(Bytes::from(key)),
            value: Some(Bytes::from(value)),
            ..RawRecord::default()
        })
    };
    for from in (0..data.events).step_by(10_000) {
        let records: Vec<RawRecord> =
            (from..data.events.min(from + 10_000)).map(record).collect::<Result<_>>()?;
        producer.send_all(records).await.all().await?;
    }
    Ok(())
}
