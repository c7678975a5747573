//! `fleetlog status`: how far every projection is, read from the stores themselves, and every handler, by what its group has
//! committed; no running process is asked.

mod handlers;

use fleetlog_dead_letters::Halts;
use serde::Serialize;

use crate::{
    config::Config,
    exit::{Code, Failure},
    halts::{self, HaltView},
    lanes::{self, Lane},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog status\n  fleetlog status --watch 2\n  fleetlog status --format json | jq ."
)]
pub(crate) struct Status {
    /// Again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    watch: Option<u64>,
    /// Wait until every projection (not handlers) has caught up, at most so many seconds; exit code 1 if it has not
    #[arg(long, value_name = "SECONDS", conflicts_with = "watch")]
    wait: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    projection: &'static str,
    version: u32,
    topic: String,
    lanes: usize,
    /// Lanes that have not written anything yet.
    unstarted: usize,
    taken_to: i64,
    end: i64,
    lag_events: i64,
    members: usize,
    halt: Option<HaltView>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Projection(Row),
    Handler(handlers::Row),
}

pub(crate) async fn run(status: &Status, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    let deadline = status.wait.map(|s| tokio::time::Instant::now() + std::time::Duration::from_secs(s));
    loop {
        let all_halts = halts::read(config).await?;
        let rows = match rows(config, &all_halts).await {
            Ok(rows) => rows,
            // Stores that are away or not made yet do not hide handlers, which have none.
            Err(error) => {
                if let Ok(handlers) = handlers::rows(config, &all_halts).await
                    && !handlers.is_empty()
                {
                    show(Vec::new(), handlers, format)?;
                }
                return Err(error);
            }
        };
        let lag: i64 = rows.iter().map(|row| row.lag_events).sum();
        if let Some(deadline) = deadline
            && lag > 0
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            continue;
        }
        show(rows, handlers::rows(config, &all_halts).await?, format)?;
        let Some(seconds) = status.watch else {
            return Ok(if deadline.is_some() && lag > 0 { Code::Found } else { Code::Done });
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Code::Done),
            () = tokio::time::sleep(std::time::Duration::from_secs(seconds.max(1))) => {}
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == Code::Found)
}

async fn rows(config: &Config, all_halts: &Halts) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for projection in lanes::chosen(&[])? {
        let halt = halts::view(all_halts, &wiring::group(config, &projection));
        let lanes = match lanes::read(config, &projection).await {
            // One whose topic is missing does not hide the others.
            Err(error) if is_missing(&error) => {
                eprintln!("warning: {error:#}; fleetlog topics apply");
                continue;
            }
            lanes => lanes?,
        };
        let members = wiring::members(config, &projection).await?;
        for stem in projection.topics {
            let topic = format!("{}{stem}", config.kafka.topic_prefix);
            let lanes: Vec<&Lane> = lanes.iter().filter(|lane| lane.id.topic == topic).collect();
            let taken_to = |lane: &Lane| lane.stored.progress.map_or(lane.log.low, |progress| progress.main);
            rows.push(Row {
                projection: projection.id,
                version: projection.version,
                lanes: lanes.len(),
                unstarted: lanes.iter().filter(|lane| lane.stored.progress.is_none()).count(),
                taken_to: lanes.iter().map(|lane| taken_to(lane)).sum(),
                end: lanes.iter().map(|lane| lane.log.end).sum(),
                lag_events: lanes.iter().map(|lane| lane.lag()).sum(),
                members,
                halt: halt.clone(),
                topic,
            });
        }
    }
    Ok(rows)
}

fn show(rows: Vec<Row>, handlers: Vec<handlers::Row>, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let handlers = handlers.into_iter().map(Shown::Handler);
            output::json(&rows.into_iter().map(Shown::Projection).chain(handlers).collect::<Vec<_>>())?;
        }
        Format::Table => {
            print(&rows);
            handlers::print(&handlers);
            halts::tell(rows.iter().filter_map(|row| Some((row.projection, row.halt.as_ref()?))));
        }
    }
    Ok(())
}

/// For people.
fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    output::table(
        ["projection", "topic", "lanes", "taken to", "end", "lag", "processes", "state"],
        rows.iter().map(|row| {
            [
                row.projection.to_owned(),
                row.topic.clone(),
                row.lanes.to_string(),
                row.taken_to.to_string(),
                row.end.to_string(),
                row.lag_events.to_string(),
                row.members.to_string(),
                if row.halt.is_some() { "halted" } else { "" }.to_owned(),
            ]
        }),
    );
}
