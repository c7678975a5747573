//! The plan's formulas against the real stack, at a hundredth of a million events a second: 100,000 units at 10,000 events a
//! second, all projections in one `fleetlog run`. What each program took, what lies in the stores, and how late hot state is are
//! set beside what `fleetlog_capacity` says of the same load.
//!
//! First the fleet is brought to what it is after a while: every unit connected, some tasks done. Then telemetry comes at a
//! steady rate, every event at its moment from the start on (as in `latency`); the first turn of all units makes their states and
//! is not measured. What an event costs here holds what comes with a low rate: small batches, small writes.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleetlog_bench::telemetry::{SITE, unit_uid};
use fleetlog_capacity::{Deployment, Figures, Load, Plan};
use fleetlog_event::{catalogue::Catalogue, task::StepStatus};
use fleetlog_producer::{Author, EventProducer};
use serde_json::Value;

use crate::{
    Bench,
    cpu::{Meter, Spent},
    latency::Projector,
    load::Data,
    report::{Goal, Report, Sample, machine, shown},
    sizes::{Counters, Table, kafka_disk_bytes, redis_memory_bytes, roll_up, squeeze, table},
    stack::{Stack, said},
};

const NAME: &str = "capacity at 1/100";
/// How far a prediction may be off.
const GOAL: Goal = Goal::RatioWithin(0.67, 1.5);
/// Tasks done before, five events each, to see what one takes.
const TASKS: u64 = 10_000;
const EVENTS_PER_TASK: u64 = 5;
/// The least time before anything is measured: members join, connections open.
const WARM_UP_S: u64 = 5;
/// How long what was sent may take until it is acknowledged, and until it is taken.
const PATIENCE: Duration = Duration::from_secs(120);
const CATCH_UP_S: &str = "600";
/// A sender that is later than that did not keep its rate: the machine is too slow for this load.
const LATE_MAX: Duration = Duration::from_secs(2);

/// The page whose table is written, and what stands around it.
const PAGE: &str = "docs/capacity.md";
const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// How large the fleet is, and for how long it is watched.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Units of `capacity`, 100,000 at most
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    capacity_units: u64,
    /// Telemetry of `capacity`, events per second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    capacity_rate: u64,
    /// How long `capacity` measures, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    capacity_s: u64,
}

impl Options {
    /// Long enough for every unit to have spoken.
    fn warm_up_s(self) -> u64 {
        self.capacity_units.div_ceil(self.capacity_rate).max(WARM_UP_S)
    }

    fn load(self) -> Load {
        Load {
            units: self.capacity_units as f64,
            hz: self.capacity_rate as f64 / self.capacity_units as f64,
            // While it is measured there is telemetry alone; the stack has one broker, one producer, one `fleetlog run`.
            robot_events_per_day: 0.0,
            tasks_per_day: 0.0,
            replication: 1,
            producers: 1,
            processes_min: 1,
            ..Load::default()
        }
    }
}

/// Measures, and compares with the plan.
pub(crate) fn measure(bench: &mut Bench, options: &Options) -> Result<()> {
    let Bench { stack, runtime, report, .. } = bench;
    if !report.wants(NAME) {
        return Ok(());
    }
    let figures = Figures::builtin();
    let plan = Plan::of(&options.load(), &figures, &Catalogue::builtin())?;
    anyhow::ensure!(plan.deployments <= 1.0, "one deployment does not carry this load: {:?}", plan.limits);
    let own = format!("{}_capacity", stack.name);
    let events = options.capacity_rate * (options.warm_up_s() + options.capacity_s);
    let data = Data::new(stack, "capacity", events, options.capacity_units);
    let seen = runtime.block_on(watch(stack, &data, &own, *options)).context(NAME)?;
    let mut rows = Rows(Vec::new());
    rows.spent(&seen, &plan.each, *options);
    rows.redis(&seen, &figures, options.capacity_units);
    rows.kafka(&seen, &plan.each, data.events)?;
    rows.sql(stack, &own, &figures)?;
    rows.add_to(report, &seen);
    rows.write_into_page(*options)?;
    stack.drop_keys(&own)?;
    stack.drop_database(&own)
}

/// What was seen of a fleet.
struct Seen {
    /// Memory of Redis: empty, with the units' status, with tasks, with telemetry.
    redis_bytes: [f64; 4],
    /// What telemetry cost, and for how long it was measured.
    spent: Spent,
    seconds: f64,
    /// Calls, transactions and WAL meanwhile.
    counted: Counters,
    /// Events that were not taken yet when the last was acknowledged, all projections together.
    lag_events: f64,
    /// Telemetry on disk; none where the broker's folder is not seen from here.
    kafka_bytes: Option<f64>,
}

async fn watch(stack: &Stack, data: &Data, own: &str, options: Options) -> Result<Seen> {
    data.topics(stack)?;
    stack.database(own)?;
    let empty = redis_memory_bytes(stack)?;
    let mut running = Projector(
        stack
            .fleetlog(&data.prefix, own)
            .arg("run")
            .env("FLEETLOG_RUN__HTTP_ADDRESS", "")
            .stdout(Stdio::null())
            .spawn()?,
    );
    let producer = EventProducer::connect(&stack.kafka(&data.prefix))?;
    connect_units(&producer, options.capacity_units).await?;
    settle(stack, data, own, &producer).await?;
    let connected = redis_memory_bytes(stack)?;
    do_tasks(&producer, &stack.name, options.capacity_units).await?;
    settle(stack, data, own, &producer).await?;
    let with_tasks = redis_memory_bytes(stack)?;
    let (spent, seconds, counted) = send_steadily(stack, data, own, &producer, options).await?;
    let report = producer.close(PATIENCE).await;
    let lag_events = lag_events(stack, data, own)?;
    let acknowledged = options.capacity_units + TASKS * EVENTS_PER_TASK + data.events;
    anyhow::ensure!(
        report.delivered == acknowledged,
        "{} of {acknowledged} were acknowledged",
        report.delivered
    );
    caught_up(stack, data, own)?;
    anyhow::ensure!(running.0.try_wait()?.is_none(), "fleetlog run ended");
    let with_telemetry = redis_memory_bytes(stack)?;
    let kafka_bytes = kafka_disk_bytes(&stack.kafka(&data.prefix), "telemetry").await?;
    let redis_bytes = [empty, connected, with_tasks, with_telemetry];
    Ok(Seen { redis_bytes, spent, seconds, counted, lag_events, kafka_bytes })
}

/// Every unit connects: hot state knows it.
async fn connect_units(producer: &EventProducer, units: u64) -> Result<()> {
    let author = Author::new(SITE, "bench", "1");
    for unit in 0..units {
        // Outcomes are in the report.
        drop(producer.send(author.unit(unit_uid(unit)).connected()).await?);
    }
    Ok(())
}

/// Tasks, from their creation to their end.
async fn do_tasks(producer: &EventProducer, run: &str, units: u64) -> Result<()> {
    let author = Author::new(SITE, "bench", "1");
    for number in 0..TASKS {
        let unit = unit_uid(number % units);
        let task = author.task(format!("{run}-{number}")).of_unit(unit.as_str());
        drop(producer.send(task.created("transport")).await?);
        drop(producer.send(task.assigned(&unit)).await?);
        drop(producer.send(task.started()).await?);
        drop(producer.send(task.step_changed("drop", StepStatus::Finished)).await?);
        drop(producer.send(task.completed()).await?);
    }
    Ok(())
}

/// Until all that was sent is acknowledged and taken.
async fn settle(stack: &Stack, data: &Data, own: &str, producer: &EventProducer) -> Result<()> {
    let report = producer.flush(PATIENCE).await;
    let left = report.undelivered.len() + report.in_flight;
    anyhow::ensure!(left == 0, "{left} events were not acknowledged");
    caught_up(stack, data, own)
}

fn caught_up(stack: &Stack, data: &Data, own: &str) -> Result<()> {
    said(stack.fleetlog(&data.prefix, own).args(["status", "--wait", CATCH_UP_S])).map(drop)
}

/// What no projection has taken yet.
fn lag_events(stack: &Stack, data: &Data, own: &str) -> Result<f64> {
    let told = said(stack.fleetlog(&data.prefix, own).args(["status", "--format", "json"]))?;
    let rows: Value = serde_json::from_str(&told)?;
    Ok(rows.as_array().into_iter().flatten().filter_map(|row| row["lag_events"].as_f64()).sum())
}

/// Sends every event when it is due; what was spent after the warm-up, and how long that took.
async fn send_steadily(
    stack: &Stack,
    data: &Data,
    own: &str,
    producer: &EventProducer,
    options: Options,
) -> Result<(Spent, f64, Counters)> {
    let first_measured = options.capacity_rate * options.warm_up_s();
    let begun = Instant::now();
    let mut before = None;
    for n in 0..data.events {
        let due = begun + Duration::from_secs_f64(n as f64 / options.capacity_rate as f64);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        if n == first_measured {
            // The sender is held up for some milliseconds, and makes up for them.
            before = Some((Counters::read(stack, own)?, Instant::now(), Meter::start()));
        }
        drop(producer.send(data.event(n)).await?);
    }
    let late = begun.elapsed().saturating_sub(Duration::from_secs(options.warm_up_s() + options.capacity_s));
    let (counters, since, meter) = before.context("nothing was measured")?;
    let (spent, seconds) = (meter.stop(), since.elapsed().as_secs_f64());
    anyhow::ensure!(
        late < LATE_MAX,
        "the sender was {late:?} late at its end: this machine does not carry the load"
    );
    Ok((spent, seconds, Counters::read(stack, own)?.since(&counters)))
}

/// One comparison.
struct Compared {
    what: &'static str,
    unit: &'static str,
    measured: f64,
    predicted: f64,
    /// Whether the plan says so much, and not: at most so much.
    is_held_to: bool,
}

struct Rows(Vec<Compared>);

impl Rows {
    fn compare(&mut self, what: &'static str, unit: &'static str, measured: f64, predicted: f64) {
        self.0.push(Compared { what, unit, measured, predicted, is_held_to: true });
    }

    /// The plan knows a bound only.
    fn compare_bound(&mut self, what: &'static str, unit: &'static str, measured: f64, predicted: f64) {
        self.0.push(Compared { what, unit, measured, predicted, is_held_to: false });
    }

    /// CPU, and what it was spent for.
    fn spent(&mut self, seen: &Seen, each: &Deployment, options: Options) {
        let cores = |program: &str| seen.spent.cpu_s.get(program).copied().unwrap_or_default() / seen.seconds;
        self.compare("CPU of the producer", "cores", cores("bench"), each.producer_cores);
        self.compare("CPU of Kafka", "cores", cores("kafka"), each.kafka.cores);
        self.compare("CPU of fleetlog run", "cores", cores("fleetlog"), each.fleetlog.cores);
        self.compare("CPU of Redis", "cores", cores("redis"), each.redis.cores);
        self.compare("CPU of PostgreSQL", "cores", cores("postgres"), each.sql.write_cores);
        let calls = seen.counted.redis_calls / seen.seconds;
        self.compare_bound("script calls", "calls/s", calls, each.redis.calls_per_s);
        let commits = seen.counted.commits / seen.seconds;
        self.compare_bound("transactions", "transactions/s", commits, each.sql.writes_per_s);
        // What the plan's latency of a second allows, in both projections of telemetry.
        self.compare_bound("lag at the end", "events", seen.lag_events, 2.0 * options.capacity_rate as f64);
        let rows = seen.seconds * options.capacity_rate as f64;
        let wal_bytes = each.sql.wal_bytes_per_s / each.sql.rows_per_s;
        self.compare("WAL of a row", "bytes", seen.counted.wal_bytes / rows, wal_bytes);
    }

    fn redis(&mut self, seen: &Seen, figures: &Figures, units: u64) {
        let [empty, connected, with_tasks, with_telemetry] = seen.redis_bytes;
        let status = (connected - empty) / units as f64;
        self.compare("a unit's status in Redis", "bytes", status, figures.redis_status_bytes.value);
        let task = (with_tasks - connected) / TASKS as f64;
        self.compare("a task in Redis", "bytes", task, figures.redis_task_bytes.value);
        let unit = (with_telemetry - with_tasks) / units as f64;
        self.compare("a unit's telemetry in Redis", "bytes", unit, figures.redis_unit_bytes.value);
    }

    fn kafka(&mut self, seen: &Seen, each: &Deployment, events: u64) -> Result<()> {
        let Some(bytes) = seen.kafka_bytes else {
            eprintln!("{NAME}: the broker's folder is not on this host, bytes of records are left out");
            return Ok(());
        };
        let predicted = each.kafka.topic("telemetry").context("topic telemetry")?.record_bytes;
        self.compare("a record of telemetry on Kafka", "bytes", bytes / events as f64, predicted);
        Ok(())
    }

    fn sql(&mut self, stack: &Stack, own: &str, figures: &Figures) -> Result<()> {
        let telemetry = table(stack, own, "telemetry")?;
        self.compare(
            "a row of telemetry",
            "bytes",
            telemetry.heap_bytes_per_row(),
            figures.sql_row_bytes.value,
        );
        let entry = telemetry.index_bytes_per_row();
        self.compare("its entry in the index", "bytes", entry, figures.sql_row_index_bytes.value);
        let of_unit = table(stack, own, "unit_event")?.bytes_per_row();
        self.compare("a row of unit_event", "bytes", of_unit, figures.sql_unit_event_bytes.value);
        let of_task = table(stack, own, "task_event")?.bytes_per_row();
        self.compare("a row of task_event", "bytes", of_task, figures.sql_task_event_bytes.value);
        let [ledger, milestones]: [Table; 2] =
            [table(stack, own, "t_app_task_ledger2")?, table(stack, own, "task_milestone")?];
        let task = (ledger.bytes() + milestones.bytes()) / TASKS as f64;
        self.compare("a task in ledger and milestones", "bytes", task, figures.sql_task_bytes.value);
        let (minutes, seconds) = roll_up(stack, own)?;
        let rollup_us = seconds * 1e6 / telemetry.rows;
        self.compare("telemetry_1m, for a row", "us", rollup_us, figures.sql_rollup_us_per_row.value);
        self.compare(
            "a row of telemetry_1m",
            "bytes",
            minutes.bytes_per_row(),
            figures.sql_minute_row_bytes.value,
        );
        // On TimescaleDB only; seldom there where this runs.
        if let Some((compressed, seconds)) = squeeze(stack, own)? {
            let bytes = compressed.bytes() / telemetry.rows;
            self.compare(
                "a row of telemetry, compressed",
                "bytes",
                bytes,
                figures.sql_row_compressed_bytes.value,
            );
            let us = seconds * 1e6 / telemetry.rows;
            self.compare("compression, for a row", "us", us, figures.sql_compress_us_per_row.value);
        }
        Ok(())
    }

    fn add_to(&self, report: &mut Report, seen: &Seen) {
        for (n, row) in self.0.iter().enumerate() {
            let spent = if n == 0 { seen.spent.clone() } else { Spent::default() };
            let measured = [Sample { value: row.measured, spent }];
            let predicted = [Sample { value: row.predicted, ..Sample::default() }];
            let goal = row.goal();
            let of = row.is_held_to.then_some(("the plan", predicted.as_slice()));
            report.row(&format!("{NAME}, {}", row.what), row.unit, &measured, of, Some(goal));
        }
    }

    /// Writes the table into the page, in the place of the one before.
    fn write_into_page(&self, options: Options) -> Result<()> {
        let page = std::fs::read_to_string(PAGE).with_context(|| PAGE.to_owned())?;
        let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no `{BEGIN}`"))?;
        let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no `{END}`"))?;
        let Options { capacity_units, capacity_rate, capacity_s } = options;
        let mut text = format!(
            "{head}{BEGIN}\n{} {capacity_units} units, {capacity_rate} events/s for {capacity_s} s.\n\n\
             | what | unit | measured | predicted | measured / predicted | goal | met |\n\
             |---|---|---:|---:|---:|---|---|\n",
            machine()
        );
        for row in &self.0 {
            let (goal, met) = row.judged();
            let ratio = row.measured / row.predicted;
            text.push_str(&format!(
                "| {} | {} | {} | {} | {ratio:.2} | {goal} | {met} |\n",
                row.what,
                row.unit,
                shown(row.measured),
                shown(row.predicted)
            ));
        }
        std::fs::write(PAGE, format!("{text}{END}{tail}")).with_context(|| PAGE.to_owned())
    }
}

impl Compared {
    fn goal(&self) -> Goal {
        if self.is_held_to { GOAL } else { Goal::Max(self.predicted) }
    }

    fn judged(&self) -> (String, &'static str) {
        let ratio = self.measured / self.predicted;
        let (goal, met) = match self.goal() {
            Goal::RatioWithin(least, most) => (format!("{least} to {most}"), (least..=most).contains(&ratio)),
            _ => ("at most".to_owned(), self.measured <= self.predicted),
        };
        (goal, if met { "yes" } else { "**no**" })
    }
}
