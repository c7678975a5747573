//! `fleetlog simulate`: a fleet to size things with.

use std::time::Duration;

use fleetlog_event::{FleetEvent, TimestampMs};
use fleetlog_simulate::Fleet;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    commands::migrate::now,
    config::Config,
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog simulate --units 200 --rate 500 --events 15000 --seed 1\n  \
                        fleetlog simulate --units 10000 --rate max --events 2000000 --seed 7")]
pub(crate) struct Simulate {
    /// How many robots
    #[arg(long, default_value_t = 100)]
    units: u32,
    /// Events per second, or `max`
    #[arg(long, default_value = "100")]
    rate: Rate,
    /// How many events in all
    #[arg(long)]
    events: u64,
    /// The same seed and start make the same fleet
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// When the simulation begins (RFC 3339) [default: now]
    #[arg(long)]
    start: Option<jiff::Timestamp>,
}

/// Events per second.
#[derive(Clone, Copy, Debug)]
enum Rate {
    PerSecond(f64),
    Max,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::PerSecond(rate)),
            _ => Err("events per second above 0, or `max`".to_owned()),
        }
    }
}

/// How long to wait for the last acknowledgements.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the bar is moved, in events.
const BAR_STEP_EVENTS: u64 = 256;

pub(crate) async fn run(simulate: &Simulate, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    let producer = wiring::producer(config)?;
    let start_ms = simulate.start.map_or_else(|| now().0, jiff::Timestamp::as_millisecond);
    let mut fleet = Fleet::new(simulate.units, simulate.seed, start_ms);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} events {per_sec}");
    let bar =
        ProgressBar::new(simulate.events).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let begun = Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut sent = 0_u64;
    while sent < simulate.events {
        let (_, mut event) = fleet.next_event();
        if let Rate::PerSecond(rate) = simulate.rate {
            let due = begun + Duration::from_secs_f64(sent as f64 / rate);
            tokio::select! {
                _ = &mut interrupted => break,
                () = tokio::time::sleep_until(due) => {}
            }
            // Paced, the simulation happens now; at full speed its own clock runs ahead.
            event.meta_mut().occurred_at = now();
        } else if sent.is_multiple_of(BAR_STEP_EVENTS) && futures_util::poll!(&mut interrupted).is_ready() {
            break;
        }
        send(&producer, event).await?;
        sent += 1;
        if sent.is_multiple_of(BAR_STEP_EVENTS) {
            bar.set_position(sent);
        }
    }
    let report = producer.flush(FLUSH_TIMEOUT).await;
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    let lost = report.undelivered.len() + report.in_flight;
    match format {
        Format::Json => output::json(&json!({
            "units": simulate.units, "seed": simulate.seed, "start_ms": start_ms, "sent": sent,
            "acknowledged": report.delivered, "not_acknowledged": lost, "seconds": seconds,
        }))?,
        Format::Table => output::line(&format!(
            "{} events of {} units acknowledged in {seconds:.1} s ({:.0}/s), {lost} not",
            report.delivered,
            simulate.units,
            report.delivered as f64 / seconds.max(0.001)
        )),
    }
    if let Some(first) = report.undelivered.first() {
        return Err(Failure::new(
            Code::Failed,
            first.to_string(),
            "is the cluster well? (fleetlog topics plan)",
        )
        .into());
    }
    Ok(if lost > 0 { Code::Unreachable } else { Code::Done })
}

async fn send(producer: &fleetlog_producer::EventProducer, mut event: FleetEvent) -> anyhow::Result<()> {
    event.meta_mut().recorded_at = TimestampMs(0);
    // Outcomes are counted by the flush report.
    drop(producer.send_any(event).await?);
    Ok(())
}
