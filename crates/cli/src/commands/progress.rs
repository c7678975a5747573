//! `fleetlog progress show|skip|resume`

mod resume;

use anyhow::Context;
use fleetlog_dead_letters::{orders::SkipRequest, redrive::LaneRef};
use fleetlog_event::{Reason, Reject};
use fleetlog_kafka::{LogReader, PartitionRange};
use fleetlog_projection::{
    Chain, Commit, Headers, LastRecord, Progress, Record, SetAside, Sink, UnitOfWork, inbox_name,
};
use fleetlog_projections::{Described, SinkKind};
use serde::Serialize;

use crate::{
    command_lanes::FleetLanes,
    commands::migrate,
    config::Config,
    exit::{Code, Failure},
    halts::{self, HaltView},
    lanes::{self, Lane},
    orders,
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show where each lane of a projection is, as stored with its data
    #[command(after_help = "Example: fleetlog progress show unit-status")]
    Show {
        /// The projection; without it all
        projection: Vec<String>,
    },
    /// Set exactly one position aside that blocks a projection for good
    #[command(
        after_help = "Example: fleetlog progress skip unit-status --topic robot --partition 3 --offset 1207 --why 'crashes the projector'"
    )]
    Skip(Skip),
    /// Let a projection or handler go on that is halted, or that failed: in every process that runs it, without a restart
    #[command(after_help = "Examples:\n  \
                      fleetlog progress resume unit-status --why 'the registry is back'\n  \
                      fleetlog progress resume unit-status --why 'a bridge sent JSON' --set-asides-max 5000\n  \
                      fleetlog progress resume webhook-orders --why 'the secret is the new one'\n\n\
                      Who, when and why is written down on topic `ops`, for ever. If what halted it is still there, it is \
                      halted again.")]
    Resume(resume::Resume),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Skip {
    /// The projection
    projection: String,
    /// The topic (stem)
    #[arg(long)]
    topic: String,
    /// The partition
    #[arg(long)]
    partition: i32,
    /// The position: must be the next one that the lane would take
    #[arg(long)]
    offset: i64,
    /// Why, for the dead letter and the ledger
    #[arg(long)]
    why: String,
    /// While the projection runs: how long to wait for its answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = orders::WAIT_MS)]
    wait_ms: u64,
}

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    match command {
        Command::Show { projection } => show(projection, config, format).await,
        Command::Skip(skip) => run_skip(skip, config).await,
        Command::Resume(resume) => resume::run(resume, config, format).await,
    }
}

#[derive(Debug, Serialize)]
struct Row {
    lane: String,
    next: Option<i64>,
    inbox: Option<i64>,
    log_begin: i64,
    log_end: i64,
    lag: i64,
    link: Option<String>,
    log_id: Option<String>,
    /// That of the projection, on each of its lanes.
    halt: Option<HaltView>,
}

async fn show(names: &[String], config: &Config, format: Format) -> anyhow::Result<Code> {
    let chosen = lanes::chosen(names)?;
    let all_halts = halts::read(config).await?;
    let (mut rows, mut halted) = (Vec::new(), Vec::new());
    for projection in chosen {
        let halt = halts::view(&all_halts, &wiring::group(config, &projection));
        halted.extend(halt.clone().map(|halt| (projection.id, halt)));
        rows.extend(lanes::read(config, &projection).await?.iter().map(|lane| Row {
            lane: lane.id.to_string(),
            next: lane.stored.progress.map(|progress| progress.main),
            inbox: lane.stored.progress.map(|progress| progress.inbox),
            log_begin: lane.log.low,
            log_end: lane.log.end,
            lag: lane.lag(),
            link: lane.stored.link.map(|link| link.to_string()),
            log_id: lane.stored.progress.map(|progress| progress.log.to_string()),
            halt: halt.clone(),
        }));
    }
    match format {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            output::table(
                ["lane", "next", "log begin", "log end", "lag", "link"],
                rows.into_iter().map(|row| {
                    let (begin, end, lag) =
                        (row.log_begin.to_string(), row.log_end.to_string(), row.lag.to_string());
                    [row.lane, number(row.next), begin, end, lag, row.link.unwrap_or_else(|| "-".into())]
                }),
            );
            halts::tell(halted.iter().map(|(projection, halt)| (*projection, halt)));
        }
    }
    Ok(Code::Done)
}

async fn run_skip(skip: &Skip, config: &Config) -> anyhow::Result<Code> {
    let projection = lanes::chosen(std::slice::from_ref(&skip.projection))?.remove(0);
    let lane = next_lane(skip, config, &projection).await?;
    let record = record_at(config, &lane, skip.offset).await?;
    if wiring::members(config, &projection).await? > 0 {
        return by_command(skip, config, &projection, &lane, record).await;
    }
    let reject = Reject::new(Reason::Skipped, skip.why.clone());
    let set_aside = vec![SetAside { record, reject, event_type: None }];
    wiring::publish_dead_letters(config, &projection, &lane, &set_aside).await?;
    let outcome = match projection.sink {
        SinkKind::Hot => wiring::redis_sink(config)?.commit(&unit(&lane, set_aside)).await,
        SinkKind::History => wiring::history_sink(config)?.commit(&unit(&lane, set_aside)).await,
    };
    match outcome.map_err(|error| lanes::unreachable(config, &projection, error))? {
        Commit::Applied | Commit::AlreadyApplied => {}
        Commit::Refused(refused) => anyhow::bail!("the store refused: {refused:?}"),
    }
    tell_skipped(&lane, skip.offset);
    Ok(Code::Done)
}

/// Has the process that owns the lane skip it: no second writer stands beside a live lane.
async fn by_command(
    skip: &Skip,
    config: &Config,
    projection: &Described,
    lane: &Lane,
    record: Record,
) -> anyhow::Result<Code> {
    let (lanes, orders) = (FleetLanes::new(config)?, orders::kafka(config)?);
    let lane_ref = LaneRef {
        group: wiring::group(config, projection),
        topic: lane.id.topic.clone(),
        partition: lane.id.partition,
    };
    let request = SkipRequest {
        inbox: inbox_name(&lane_ref.group, &skip.topic),
        lane: lane_ref,
        log: lane.log_id,
        record,
        why: skip.why.clone(),
    };
    if !orders::commander(&lanes, &orders, skip.wait_ms).skip(request).await.map_err(orders::failed)? {
        let message = format!(
            "{}: the lane did not stand at offset {} any more: nothing is skipped",
            lane.id, skip.offset
        );
        let hint = format!("fleetlog progress show {}", projection.id);
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    tell_skipped(lane, skip.offset);
    Ok(Code::Done)
}

fn tell_skipped(lane: &Lane, offset: i64) {
    let (id, reason) = (&lane.id, Reason::Skipped);
    output::line(&format!("{id}: offset {offset} is set aside ({reason}); next is {}", offset + 1));
}

/// The lane, if the position to be skipped is the one it would take next.
async fn next_lane(skip: &Skip, config: &Config, projection: &Described) -> anyhow::Result<Lane> {
    let topic = format!("{}{}", config.kafka.topic_prefix, skip.topic);
    let lanes = lanes::read(config, projection).await?;
    let found = lanes.into_iter().find(|lane| lane.id.topic == topic && lane.id.partition == skip.partition);
    let Some(lane) = found else {
        let message = format!("projection `{}` has no lane {topic}/{}", projection.id, skip.partition);
        return Err(
            Failure::new(Code::Usage, message, format!("fleetlog progress show {}", projection.id)).into()
        );
    };
    let next = lane.stored.progress.map_or(lane.log.low, |progress| progress.main);
    if next != skip.offset {
        let message = format!("lane {} would take offset {next} next, not {}", lane.id, skip.offset);
        return Err(Failure::new(Code::Usage, message, "only the very next position can be skipped").into());
    }
    Ok(lane)
}

async fn record_at(config: &Config, lane: &Lane, offset: i64) -> anyhow::Result<Record> {
    let (settings, topic) = (wiring::kafka_settings(config), lane.id.topic.clone());
    let range = PartitionRange { partition: lane.id.partition, from: offset, to: Some(offset + 1) };
    let mut found = None;
    let found = tokio::task::spawn_blocking(move || {
        LogReader::open(&settings, &topic, &[range])?.for_each(|record| {
            found = Some(record.to_owned_record());
            Ok::<_, fleetlog_kafka::ReadError>(())
        })?;
        Ok::<_, fleetlog_kafka::ReadError>(found)
    })
    .await??;
    let record = found.with_context(|| {
        format!(
            "{}/{} has no record at offset {offset}: nothing to skip, a lane passes it by itself",
            lane.id.topic, lane.id.partition
        )
    })?;
    let headers = Headers::pack(record.headers.iter().map(|(name, value)| (name, value.as_deref())));
    Ok(Record { offset, timestamp: record.timestamp, key: record.key, value: record.value, headers })
}

/// An ordinary write on the chain: one set-aside, one offset on.
fn unit<W>(lane: &Lane, set_aside: Vec<SetAside>) -> UnitOfWork<W> {
    let (follows, leaves) = Chain::resume(wiring::nonce(), lane.stored.link).next();
    let last =
        set_aside.last().map(|aside| LastRecord { offset: aside.record.offset, hash: aside.record.hash() });
    let inbox = lane.stored.progress.map_or(0, |progress| progress.inbox);
    UnitOfWork {
        lane: lane.id.clone(),
        follows,
        leaves,
        progress: Progress {
            log: lane.log_id,
            main: last.map_or(lane.log.low, |last| last.offset + 1),
            inbox,
            last,
        },
        entities: Vec::new(),
        rows: Vec::new(),
        set_aside,
        entries: Vec::new(),
        made_at: migrate::now(),
    }
}
