//! fleetlog beside bare clients on the local stack: the same data, pairs one after the other, the median of several rounds.
//! Started by `bench/run.sh` (`make bench`), which builds what is measured and brings the servers up.

mod bare;
mod capacity;
mod catch_up;
mod codec;
mod cpu;
mod handlers;
mod latency;
mod load;
mod native;
mod redrive;
mod report;
mod restart;
mod scaling;
mod sizes;
mod stack;

use clap::Parser;
use tokio::runtime::Runtime;

use crate::{
    load::Data,
    report::Report,
    stack::{Places, Stack},
};

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    places: Places,
    /// Events of the largest data set
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Rounds of each pair
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only measurements whose name holds this text
    #[arg(long, default_value = "")]
    only: String,
    /// How long latency is measured at each rate, in seconds
    #[arg(long, default_value_t = 15)]
    latency_s: u64,
    #[command(flatten)]
    capacity: capacity::Options,
    /// More numbers of units, and how it scales with partitions, batches and a table that grows
    #[arg(long)]
    full: bool,
}

/// What every measurement is given.
struct Bench {
    stack: Stack,
    runtime: Runtime,
    /// Of each pair.
    rounds: usize,
    report: Report,
}

/// Rows that read what the producers sent.
const OF_WIDE: [&str; 5] = [
    "producer, bare client",
    "producer crate",
    "hot catch-up, 10,000 units",
    "history catch-up, btree (unit, time)",
    "history catch-up, batches of",
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut bench = Bench {
        stack: Stack::at(args.places)?,
        runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
        rounds: args.rounds,
        report: Report::new("bench", &args.only)?,
    };
    codec::measure(&mut bench);
    let wide = Data::new(&bench.stack, "wide", args.events, 10_000);
    if OF_WIDE.iter().any(|name| bench.report.wants(name)) {
        load::measure_producers(&mut bench, &wide)?;
        catch_up::measure_hot(&mut bench, &wide)?;
    }
    catch_up::measure_history(&mut bench, &wide)?;
    catch_up::measure_all(&mut bench, args.events)?;
    scaling::measure_units(&mut bench, args.events / 2, args.full)?;
    if args.full {
        scaling::measure_partitions(&mut bench, args.events / 2)?;
        scaling::measure_batches(&mut bench, &wide)?;
        scaling::measure_growth(&mut bench, args.events)?;
    }
    capacity::measure(&mut bench, &args.capacity)?;
    redrive::measure(&mut bench, args.latency_s)?;
    handlers::measure(&mut bench, args.full)?;
    let Bench { stack, runtime, mut report, .. } = bench;
    runtime.block_on(restart::measure(&stack, &mut report))?;
    runtime.block_on(latency::measure(&stack, args.latency_s, &mut report))?;
    report.write()
}
