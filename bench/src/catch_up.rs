//! Projections that begin at the beginning of the log, beside what a bare client does with the same data.

use anyhow::Result;
use serde_json::Value;

use crate::{
    Bench, bare,
    load::Data,
    report::{Goal, Sample},
    stack::{once, said},
};

pub(crate) const HOT: &str = "unit-consensus";
pub(crate) const HISTORY: &str = "telemetry-history";
const MEMBER: &str = "bare group member";
const FASTEST: &str = "fastest bare loop";

/// The hot projection over the largest data set.
pub(crate) fn measure_hot(bench: &mut Bench, data: &Data) -> Result<()> {
    let states = usize::try_from(data.units)? * 30;
    let floor: Result<Vec<Sample>> = (0..bench.rounds).map(|_| bare::hset(&bench.stack, states)).collect();
    bench.report.floor("pipelined HSET of 20 fields, unguarded", "states/s", &floor?);
    measure_hot_of(bench, data, "hot catch-up, 10,000 units").map(drop)
}

/// The hot projection over a data set that lies on its topics; none where it was not asked for.
pub(crate) fn measure_hot_of(bench: &mut Bench, data: &Data, name: &str) -> Result<Vec<Sample>> {
    let Bench { stack, runtime, rounds, report } = bench;
    if !report.wants(name) {
        return Ok(Vec::new());
    }
    let (mut members, mut fastest, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..*rounds {
        let own = format!("{}_hot{}_{round}", stack.name, data.label());
        members.push(bare::member(stack, runtime, data, &format!("{own}-bare"))?);
        fastest.push(bare::fastest(stack, runtime, data, &format!("{own}-fastest"))?);
        let (sample, told) = once(runtime, stack.fleetlog(&data.prefix, &own), &[HOT])?;
        took_all(&told, HOT, data.events)?;
        ours.push(sample);
        stack.drop_keys(&own)?;
    }
    let [of_member, of_fastest] = [MEMBER, FASTEST].map(|client| format!("{client}, {}", data.told()));
    report.floor(&of_member, "events/s", &members);
    report.row(&of_fastest, "events/s", &fastest, Some((&of_member, &members)), None);
    report.row(name, "events/s", &ours, Some((&of_member, &members)), Some(Goal::RatioMin(0.8)));
    let beside = format!("{name}, beside the fastest loop");
    report.row(&beside, "events/s", &ours, Some((&of_fastest, &fastest)), Some(Goal::RatioMin(0.6)));
    Ok(ours)
}

/// The history projection, and `\copy` of the rows that it wrote into the same table.
pub(crate) fn measure_history(bench: &mut Bench, data: &Data) -> Result<()> {
    let Bench { stack, runtime, rounds, report } = bench;
    let name = "history catch-up, btree (unit, time)";
    if !report.wants(name) {
        return Ok(());
    }
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for round in 0..*rounds {
        let own = format!("{}_history{round}", stack.name);
        stack.database(&own)?;
        stack.psql(None, &["CHECKPOINT"])?;
        let (sample, told) = once(runtime, stack.fleetlog(&data.prefix, &own), &[HISTORY])?;
        took_all(&told, HISTORY, data.events)?;
        ours.push(sample);
        floor.push(bare::copy(stack, &own)?);
        stack.drop_database(&own)?;
    }
    let of = "\\copy binary, the same rows and table";
    report.floor(of, "rows/s", &floor);
    report.row(name, "events/s", &ours, Some((of, &floor)), Some(Goal::RatioMin(1.5)));
    Ok(())
}

/// All projections at once over a simulated fleet, in one process.
pub(crate) fn measure_all(bench: &mut Bench, events: u64) -> Result<()> {
    let Bench { stack, runtime, report, .. } = bench;
    let name = "all projections at once, simulated fleet";
    if !report.wants(name) {
        return Ok(());
    }
    let (topics, own) = (format!("{}-all-", stack.name), format!("{}_all", stack.name));
    said(stack.fleetlog(&topics, &own).args(["topics", "apply"]))?;
    stack.database(&own)?;
    let (events, units) = ((events / 2).to_string(), "10000");
    let simulate = ["simulate", "--units", units, "--rate", "max", "--events", &events, "--seed", "7"];
    said(stack.fleetlog(&topics, &own).args(simulate))?;
    let (sample, _) = once(runtime, stack.fleetlog(&topics, &own), &[])?;
    let memory = Sample { value: sample.spent.peak_rss_mb.unwrap_or_default(), ..Sample::default() };
    report.floor(name, "events/s", &[sample]);
    report.row("memory of that process", "MB", &[memory], None, Some(Goal::Max(500.0)));
    let verified = said(stack.fleetlog(&topics, &own).arg("verify"))?;
    println!("{}", verified.lines().last().unwrap_or_default());
    stack.drop_keys(&own)?;
    stack.drop_database(&own)
}

/// A projection that took less than all of it was not measured.
pub(crate) fn took_all(told: &Value, projection: &str, events: u64) -> Result<()> {
    let row = told.as_array().into_iter().flatten().find(|row| row["projection"] == projection);
    let taken = row.and_then(|row| row["events"].as_u64());
    anyhow::ensure!(taken == Some(events), "{projection} took {taken:?} of {events} events: {told}");
    Ok(())
}
