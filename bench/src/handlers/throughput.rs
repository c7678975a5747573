//! Events a second that a handler gets through, beside Confluent's Parallel Consumer.

use std::{collections::BTreeMap, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use fleetlog_engine::handler_group;
use fleetlog_kafka::Offsets;
use serde_json::Value;

use super::{Fleet, Running, yardstick::Yardstick};
use crate::{
    Bench,
    cpu::Meter,
    report::{Goal, Sample},
    stack::Stack,
};

/// Milliseconds of work on an event, and how many events: a round takes 3 to 10 s.
const WORK: [(u64, u64); 3] = [(0, 400_000), (1, 300_000), (10, 250_000)];
/// Many more keys than records under way: of one key one is.
const UNITS: u64 = 5_000;

/// Pairs, one after the other, over the same topic.
pub(super) fn measure(bench: &mut Bench) -> Result<()> {
    let mut yardstick = None;
    for (work_ms, events) in WORK {
        let (name, theirs_name) = names(work_ms);
        if !bench.report.wants(&name) && !bench.report.wants(&theirs_name) {
            continue;
        }
        let yardstick = yardstick.get_or_insert_with(Yardstick::fetch);
        let Bench { stack, runtime, rounds, report } = &mut *bench;
        let fleet = Fleet::new(stack, &format!("work{work_ms}"), events, UNITS);
        let handlers: Vec<String> = (0..*rounds).map(|round| format!("round{round}")).collect();
        fleet.topics(stack, &handlers)?;
        runtime.block_on(fleet.send(stack, None))?;
        let threads = yardstick.as_ref().map(|it| it.fastest(stack, &fleet, work_ms)).transpose()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for handler in &handlers {
            if let (Some(yardstick), Some(threads)) = (&yardstick, threads) {
                theirs.push(yardstick.once(stack, &fleet, handler, work_ms, threads)?);
            }
            ours.push(once(stack, &fleet, handler, work_ms)?);
            runtime.block_on(check_committed(stack, &fleet, handler))?;
        }
        let of = threads.map(|threads| {
            report.floor(&theirs_name, "events/s", &theirs);
            let threads = Sample { value: threads.into(), ..Sample::default() };
            report.floor(
                &format!("{theirs_name}: threads, the number that was fastest"),
                "threads",
                &[threads],
            );
            (theirs_name.as_str(), theirs.as_slice())
        });
        report.row(&name, "events/s", &ours, of, of.map(|_| Goal::RatioMin(1.0)));
    }
    Ok(())
}

fn names(work_ms: u64) -> (String, String) {
    (format!("handler throughput, {work_ms} ms of work"), format!("Parallel Consumer, {work_ms} ms of work"))
}

/// One round of a handler: from its start until the last event is handled and committed.
fn once(stack: &Stack, fleet: &Fleet, handler: &str, work_ms: u64) -> Result<Sample> {
    let mut command = fleet.handler(stack, handler)?;
    command.args(["work", "--events", &fleet.events.to_string(), "--work-ms", &work_ms.to_string()]);
    let (begun, meter) = (Instant::now(), Meter::start());
    let mut running = Running::start({
        command.stdout(Stdio::piped());
        command
    })?;
    let told = running.0.stdout.take().context("the handler's output")?;
    let told: Value = serde_json::from_reader(told)
        .with_context(|| format!("the handler told nothing, after {:?}", begun.elapsed()))?;
    running.stop()?;
    let calls = told["calls"].as_u64();
    ensure!(calls == Some(fleet.events), "{calls:?} calls for {} events", fleet.events);
    let seconds = told["seconds"].as_f64().context("seconds")?;
    Ok(Sample { value: fleet.events as f64 / seconds, spent: meter.stop_with_child("handler") })
}

/// It said that all is committed.
async fn check_committed(stack: &Stack, fleet: &Fleet, handler: &str) -> Result<()> {
    let kafka = stack.kafka(&fleet.prefix);
    let (offsets, topic) = (Offsets::new(&kafka)?, kafka.topic("robot"));
    let group = handler_group(&fleet.prefix, &format!("webhook-{handler}"));
    let committed = offsets.committed(&group, &[&topic]).await?;
    let ends: BTreeMap<(String, i32), i64> =
        offsets.ranges(&[&topic]).await?.into_iter().map(|(at, there)| (at, there.end)).collect();
    let of_it: u64 = ends.values().map(|end| end.unsigned_abs()).sum();
    ensure!(of_it == fleet.events, "{of_it} events on the topic");
    let committed: BTreeMap<(String, i32), i64> = committed.into_iter().collect();
    ensure!(committed == ends, "{committed:?} is committed, and the topic ends at {ends:?}");
    Ok(())
}
