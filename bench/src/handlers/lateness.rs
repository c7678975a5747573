//! How late retries are: from the moment at which a record of a retry tier is due until the handler is called for it.
//!
//! The first call for each event fails, so as many records a second become due in the first tier as events are sent. The handler
//! writes down when it was called; when a record was due is read from the tier afterwards: its append, by the broker's clock, and
//! the tier's delay. Broker and handler share a machine, and so a clock.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use fleetlog_codec::frame;
use fleetlog_engine::handler_group;
use fleetlog_event::{EventId, catalogue::retry_name};
use fleetlog_kafka::{LogReader, ReadError};

use super::{Fleet, Running};
use crate::{
    Bench,
    report::{Goal, Report, Sample},
    stack::Stack,
};

const NAME: &str = "lateness of retries at 1,000 due/s";
const RATE: u64 = 1_000;
const SECONDS: u64 = 30;
const UNITS: u64 = 10_000;
const HANDLER: &str = "late";
/// The first tier's delay.
const TIER_MS: u64 = 1_000;
const LATE_MS_MAX: f64 = 100.0;
/// How long the last calls may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Without a kill and with one, each in so many rounds.
pub(super) fn measure(bench: &mut Bench, rounds: usize) -> Result<()> {
    let rounds = |bench: &mut Bench, with_kill| -> Result<Vec<Round>> {
        (0..rounds).map(|round| once(bench, round, with_kill)).collect()
    };
    if bench.report.wants(NAME) {
        let rounds = rounds(bench, false)?;
        tell(&mut bench.report, NAME, &rounds, |_, _| true, true);
    }
    let name = format!("{NAME} with a kill in the middle");
    if bench.report.wants(&name) {
        let rounds = rounds(bench, true)?;
        tell_kills(&mut bench.report, &name, &rounds);
    }
    Ok(())
}

fn tell_kills(report: &mut Report, name: &str, rounds: &[Round]) {
    tell(report, &format!("{name}, all"), rounds, |_, _| true, true);
    let after = format!("{name}, due after the next process' first call");
    tell(report, &after, rounds, |round, retry| !round.is_while_nobody_called(retry) && retry.is_after, true);
    let meanwhile = format!("{name}, due while nobody called");
    tell(report, &meanwhile, rounds, Round::is_while_nobody_called, false);
    let counted = |round: &Round| round.retries.iter().filter(|it| round.is_while_nobody_called(it)).count();
    let of_rounds = |value: &dyn Fn(&Round) -> f64| -> Vec<Sample> {
        rounds.iter().map(|round| Sample { value: value(round), ..Sample::default() }).collect()
    };
    report.floor(&format!("{meanwhile}, records"), "records", &of_rounds(&|round| counted(round) as f64));
    let start = format!("{name}, from the next process' start to its first call");
    report.floor(&start, "ms", &of_rounds(&|round| round.restart_ms.unwrap_or_default()));
    let again = format!("{name}, calls made once more");
    report.floor(&again, "calls", &of_rounds(&|round| round.repeated as f64));
}

/// Rows of those that are counted; the goal is for the 99th percentile.
fn tell(
    report: &mut Report,
    name: &str,
    rounds: &[Round],
    counts: impl Fn(&Round, &Retry) -> bool,
    has_goal: bool,
) {
    let sorted: Vec<Vec<f64>> = rounds
        .iter()
        .map(|round| {
            let counted = round.retries.iter().filter(|retry| counts(round, retry));
            let mut late: Vec<f64> = counted.map(|retry| retry.late_us as f64 / 1_000.0).collect();
            late.sort_by(f64::total_cmp);
            late
        })
        .filter(|late| !late.is_empty())
        .collect();
    for (percentile, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = |late: &Vec<f64>| late[((late.len() - 1) as f64 * share).round() as usize];
        let samples: Vec<Sample> =
            sorted.iter().map(|late| Sample { value: at(late), ..Sample::default() }).collect();
        let goal = (has_goal && percentile == "p99").then_some(Goal::Max(LATE_MS_MAX));
        report.row(&format!("{name}, {percentile}"), "ms", &samples, None, goal);
    }
}

/// What a round found.
struct Round {
    retries: Vec<Retry>,
    /// Calls beyond the two for each event.
    repeated: usize,
    /// When the process that followed called first.
    next_at_us: Option<i64>,
    /// How long that was after its start.
    restart_ms: Option<f64>,
}

/// A record of the tier.
struct Retry {
    due_us: i64,
    late_us: i64,
    /// The process that followed made the call.
    is_after: bool,
}

impl Round {
    /// It became due behind the last call of the one process and before the first of the other.
    fn is_while_nobody_called(&self, retry: &Retry) -> bool {
        retry.is_after && self.next_at_us.is_some_and(|at| retry.due_us < at)
    }
}

fn once(bench: &mut Bench, round: usize, with_kill: bool) -> Result<Round> {
    let Bench { stack, runtime, .. } = bench;
    let label = if with_kill { format!("killed{round}") } else { format!("late{round}") };
    let fleet = Fleet::new(stack, &label, RATE * SECONDS, UNITS);
    fleet.topics(stack, &[HANDLER.to_owned()])?;
    fs::create_dir_all(stack.folder())?;
    let files = ["first", "next"].map(|which| stack.folder().join(format!("calls-{label}-{which}")));
    let started_us = runtime.block_on(load(stack, &fleet, &files, with_kill))?;
    let round = judged(stack, &fleet, &calls(&files)?, started_us);
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file)?;
    }
    round
}

/// Has the handler called for all events; when the process began that followed the one that was killed.
async fn load(stack: &Stack, fleet: &Fleet, files: &[PathBuf; 2], with_kill: bool) -> Result<Option<i64>> {
    let start = |file: &PathBuf| {
        let mut command = fleet.handler(stack, HANDLER)?;
        command.arg("stumble").arg("--calls").arg(file);
        Running::start(command)
    };
    let mut running = start(&files[0])?;
    // It has joined, and knows the broker's time of at least one partition, once it has called for an event twice.
    Fleet { prefix: fleet.prefix.clone(), events: 1, ..*fleet }.send(stack, None).await?;
    until_called_twice(&mut running, files, 1).await?;
    let killing = async {
        if !with_kill {
            return Ok::<_, anyhow::Error>((running, None));
        }
        tokio::time::sleep(Duration::from_secs(SECONDS / 2)).await;
        running.kill()?;
        let started_us = now_us();
        Ok((start(&files[1])?, Some(started_us)))
    };
    let (sent, killed) = tokio::join!(fleet.send(stack, Some(RATE)), killing);
    sent?;
    let (mut running, started_us) = killed?;
    until_called_twice(&mut running, files, fleet.events + 1).await?;
    running.stop()?;
    Ok(started_us)
}

async fn until_called_twice(running: &mut Running, files: &[PathBuf; 2], events: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let calls = calls(files)?;
        let twice = calls.values().filter(|calls| calls.iter().any(|call| call.attempt == 2)).count();
        if twice as u64 == events {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{twice} of {events} events were called for a second time");
        ensure!(running.is_running()?, "the handler ended");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A line of a handler's file.
struct Made {
    attempt: u32,
    at_us: i64,
    is_after: bool,
}

/// All calls until now, by event.
fn calls(files: &[PathBuf; 2]) -> Result<HashMap<EventId, Vec<Made>>> {
    let mut calls: HashMap<EventId, Vec<Made>> = HashMap::new();
    for (file, is_after) in files.iter().zip([false, true]) {
        let text = fs::read_to_string(file).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let mut fields = line.split(' ');
            let mut field = || fields.next().with_context(|| format!("a line `{line}`"));
            let id = EventId(field()?.parse()?);
            let made = Made { attempt: field()?.parse()?, at_us: field()?.parse()?, is_after };
            calls.entry(id).or_default().push(made);
        }
    }
    Ok(calls)
}

/// Compares the second calls with what lies in the tier. An event that lies there twice, as its first call was made once more
/// behind the kill, counts by what comes first of each.
fn judged(
    stack: &Stack,
    fleet: &Fleet,
    calls: &HashMap<EventId, Vec<Made>>,
    started_us: Option<i64>,
) -> Result<Round> {
    let due = due_us(stack, fleet)?;
    let mut retries = Vec::new();
    for (id, calls) in calls {
        let second = calls.iter().filter(|call| call.attempt == 2).min_by_key(|call| call.at_us);
        let second = second.with_context(|| format!("event {id} was not called for a second time"))?;
        let due_us = *due.get(id).with_context(|| format!("event {id} does not lie in the tier"))?;
        let late_us = second.at_us - due_us;
        ensure!(late_us >= 0, "event {id} was called for {} us too early", -late_us);
        retries.push(Retry { due_us, late_us, is_after: second.is_after });
    }
    let made = calls.values().map(Vec::len).sum::<usize>();
    let by_next = calls.values().flatten().filter(|call| call.is_after);
    let next_at_us = by_next.map(|call| call.at_us).min();
    let restart_ms = next_at_us.zip(started_us).map(|(at, started)| (at - started) as f64 / 1_000.0);
    Ok(Round { repeated: made - 2 * calls.len(), retries, next_at_us, restart_ms })
}

/// When each event was due in the first tier.
fn due_us(stack: &Stack, fleet: &Fleet) -> Result<HashMap<EventId, i64>> {
    let group = handler_group(&fleet.prefix, &format!("webhook-{HANDLER}"));
    let mut reader = LogReader::open_all(&stack.kafka(&fleet.prefix), &retry_name(&group, TIER_MS))?;
    let mut due: HashMap<EventId, i64> = HashMap::new();
    reader.for_each_within(PATIENCE, |record| {
        // What has the broker tell its time is no event.
        if let Some(id) = frame::event_id(record.value()) {
            let at_us = (record.timestamp().0 + TIER_MS as i64) * 1_000;
            due.entry(id).and_modify(|first| *first = at_us.min(*first)).or_insert(at_us);
        }
        Ok::<_, ReadError>(())
    })?;
    Ok(due)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
