//! What becomes of the cost of an event as something grows: units, partitions, batches, the table.

use anyhow::Result;
use fleetlog_kafka::Admin;

use crate::{
    Bench,
    catch_up::{HISTORY, measure_hot_of, took_all},
    load::Data,
    report::{Goal, Sample},
    stack::once,
};

/// Cost per event may grow by half.
const FLAT_RATIO_MIN: f64 = 1.0 / 1.5;
/// The catalogue's first: the others are told as shares of it.
const PARTITIONS: [(&str, u32); 3] = [("6 partitions", 6), ("1 partition", 1), ("24 partitions", 24)];
/// The default first: the others are told as shares of it.
const BATCHES: [(&str, u32); 3] = [("20,000", 20_000), ("5,000", 5_000), ("1,000", 1_000)];
/// Of each of the most units, as after an outage of so many seconds of a fleet that reports once a second.
const EVENTS_OF_A_BACKLOG: u64 = 40;
/// How often a fresh data set goes into the same table.
const SLICES: u64 = 5;

/// Hot catch-up by the number of units: 100,000 beside 100.
pub(crate) fn measure_units(bench: &mut Bench, events: u64, full: bool) -> Result<()> {
    let mut numbers = vec![("12 units", 12), ("100 units", 100), ("100,000 units", 100_000)];
    if full {
        numbers.insert(2, ("1,000 units", 1_000));
    }
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for (label, units) in numbers {
        let name = format!("hot catch-up, {label}");
        if !bench.report.wants(&name) {
            continue;
        }
        let data = Data::new(&bench.stack, &format!("of{units}"), events, units);
        data.produce(&bench.stack, &bench.runtime)?;
        let samples = measure_hot_of(bench, &data, &name)?;
        match units {
            100 => few = samples,
            100_000 => many = samples,
            _ => {}
        }
    }
    measure_backlog(bench)?;
    // Not asked for, one of them or both.
    if !few.is_empty() && !many.is_empty() {
        let of = Some(("hot catch-up, 100 units", &few[..]));
        let name = "hot catch-up, 100,000 units beside 100";
        bench.report.row(name, "events/s", &many, of, Some(Goal::RatioMin(FLAT_RATIO_MIN)));
    }
    Ok(())
}

/// Hot catch-up over the most units with a longer backlog: each of them is written once, however many events that covers.
fn measure_backlog(bench: &mut Bench) -> Result<()> {
    let (units, note) = (100_000, format!("{EVENTS_OF_A_BACKLOG} events each"));
    let name = format!("hot catch-up, 100,000 units, {note}");
    if !bench.report.wants(&name) {
        return Ok(());
    }
    let data = Data::new(&bench.stack, "backlog", EVENTS_OF_A_BACKLOG * units, units).noted(&note);
    data.produce(&bench.stack, &bench.runtime)?;
    measure_hot_of(bench, &data, &name).map(drop)
}

/// Hot catch-up by the number of partitions.
pub(crate) fn measure_partitions(bench: &mut Bench, events: u64) -> Result<()> {
    let mut of_catalogue = None;
    for (label, partitions) in PARTITIONS {
        let name = format!("hot catch-up, {label}");
        if !bench.report.wants(&name) {
            continue;
        }
        let data = Data::new(&bench.stack, &format!("in{partitions}"), events, 10_000);
        let data = data.in_partitions(partitions);
        data.produce(&bench.stack, &bench.runtime)?;
        let samples = measure_hot_of(bench, &data, &name)?;
        match &of_catalogue {
            None => of_catalogue = Some((name, samples)),
            Some((of, reference)) => {
                let name = format!("{name}, beside 6");
                bench.report.row(&name, "events/s", &samples, Some((of, reference)), None);
            }
        }
    }
    Ok(())
}

/// History catch-up by the bound of a batch.
pub(crate) fn measure_batches(bench: &mut Bench, data: &Data) -> Result<()> {
    let Bench { stack, runtime, rounds, report } = bench;
    let title = "history catch-up, batches of";
    if !report.wants(title) {
        return Ok(());
    }
    // Rounds outside: those of a ratio run one after the other.
    let mut samples = [const { Vec::new() }; BATCHES.len()];
    for round in 0..*rounds {
        for ((_, events_max), samples) in BATCHES.into_iter().zip(&mut samples) {
            let own = format!("{}_batch{events_max}_{round}", stack.name);
            stack.database(&own)?;
            stack.psql(None, &["CHECKPOINT"])?;
            let mut command = stack.fleetlog(&data.prefix, &own);
            command.env("FLEETLOG_RUN__BATCH_EVENTS_MAX", events_max.to_string());
            let (sample, told) = once(runtime, command, &[HISTORY])?;
            took_all(&told, HISTORY, data.events)?;
            samples.push(sample);
            stack.drop_database(&own)?;
        }
    }
    let names = BATCHES.map(|(label, _)| format!("{title} {label}"));
    report.floor(&names[0], "events/s", &samples[0]);
    for (name, ours) in names.iter().zip(&samples).skip(1) {
        report.row(name, "events/s", ours, Some((&names[0], &samples[0])), None);
    }
    Ok(())
}

/// History catch-up into a table that grows: fresh data sets, one after the other, into the same database. Each lies on
/// topics of its own, so its lanes begin at the beginning.
pub(crate) fn measure_growth(bench: &mut Bench, events: u64) -> Result<()> {
    let Bench { stack, runtime, report, .. } = bench;
    let name = |rows: u64| format!("history catch-up, rows in the table before: {rows}");
    // All or none: a slice alone would not find its table.
    if !report.wants(&name(0)) {
        return Ok(());
    }
    let own = format!("{}_growth", stack.name);
    stack.database(&own)?;
    let mut first: Option<Sample> = None;
    for slice in 0..SLICES {
        let data = Data::new(stack, &format!("growth{slice}"), events, 10_000);
        data.produce(stack, runtime)?;
        stack.psql(None, &["CHECKPOINT"])?;
        let (sample, told) = once(runtime, stack.fleetlog(&data.prefix, &own), &[HISTORY])?;
        took_all(&told, HISTORY, events)?;
        let of = first.as_ref().map(std::slice::from_ref).map(|first| (name(0), first));
        let of = of.as_ref().map(|(name, first)| (name.as_str(), *first));
        report.row(&name(slice * events), "events/s", std::slice::from_ref(&sample), of, None);
        first.get_or_insert(sample);
        // They are read once, and five of them take gigabytes.
        let topic = stack.kafka(&data.prefix).topic("telemetry");
        runtime.block_on(async { Admin::new(&stack.kafka(""))?.delete_topics(&[&topic]).await })?;
    }
    stack.drop_database(&own)
}
