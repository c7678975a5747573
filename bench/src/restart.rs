//! From the start of a process in the place of one that was killed until it has written, to Redis and to SQL.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleetlog_producer::EventProducer;

use crate::{
    latency::{Projector, Watch},
    load::Data,
    report::{Goal, Report, Sample},
    stack::Stack,
};

const KILLS: u32 = 10;
/// What the projections have behind them before the first kill.
const EVENTS: u64 = 20_000;
/// How long a process may take to write.
const PATIENCE: Duration = Duration::from_secs(60);
/// The dead member's session is over after 10 s; peers wait for it.
const RESTART_MS_MAX: f64 = 3_000.0;

/// Kills the projector again and again (SIGKILL, by its process id) and starts it once more, with the same topics, stores
/// and folder of slots. Each time an event of a unit that nobody saw before was acknowledged in between, and is looked for in
/// both stores: nobody but the new process can have written it.
pub(crate) async fn measure(stack: &Stack, report: &mut Report) -> Result<()> {
    let name = "restart after kill -9 to first write";
    if !report.wants(name) {
        return Ok(());
    }
    let (data, own) = (Data::new(stack, "restart", EVENTS, 1_000), format!("{}_restart", stack.name));
    data.topics(stack)?;
    stack.database(&own)?;
    let producer = EventProducer::connect(&stack.kafka(&data.prefix))?;
    for n in 0..data.events {
        // Outcomes are in the report.
        drop(producer.send(data.event(n)).await?);
    }
    let watches = [Watch::default(), Watch::default()];
    let looking =
        [watches[0].redis(stack, &own).await?, watches[1].postgres(&stack.database_url(&own)).await?];
    let mut running = Projector::start(stack, &data.prefix, &own)?;
    probe(&producer, &data, "first").await?;
    until_seen(&watches, "first", Instant::now(), &mut running).await?;
    for kill in 0..KILLS {
        running.kill()?;
        let unit = format!("after{kill}");
        probe(&producer, &data, &unit).await?;
        let begun = Instant::now();
        running = Projector::start(stack, &data.prefix, &own)?;
        until_seen(&watches, &unit, begun, &mut running).await.with_context(|| format!("kill {kill}"))?;
    }
    looking.iter().for_each(|looking| looking.abort());
    drop(running);
    let sent = producer.close(PATIENCE).await;
    ensure!(sent.delivered == data.events + u64::from(KILLS) + 1, "{} were acknowledged", sent.delivered);
    for (store, watch) in ["Redis", "SQL"].into_iter().zip(&watches) {
        // The first was no restart.
        let samples: Vec<Sample> =
            watch.found().into_iter().skip(1).map(|value| Sample { value, ..Sample::default() }).collect();
        let row = format!("{name}, in {store}");
        report.row(&row, "ms", &samples, None, Some(Goal::EachMax(RESTART_MS_MAX)));
    }
    stack.drop_keys(&own)?;
    stack.drop_database(&own)
}

/// Sends an event of a unit, and waits until it is acknowledged.
async fn probe(producer: &EventProducer, data: &Data, unit: &str) -> Result<()> {
    let mut event = data.event(0);
    event.meta.unit_uid = Some(unit.to_owned());
    producer.send(event).await?.await?;
    Ok(())
}

/// Waits until a unit is in both stores, since `begun`.
async fn until_seen(watches: &[Watch], unit: &str, begun: Instant, running: &mut Projector) -> Result<()> {
    watches.iter().for_each(|watch| watch.look_for(unit, begun));
    while watches.iter().any(Watch::waits) {
        ensure!(begun.elapsed() < PATIENCE, "unit `{unit}` was not written within {PATIENCE:?}");
        ensure!(running.is_running()?, "the projector ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
