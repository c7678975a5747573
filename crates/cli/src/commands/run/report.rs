//! What `run --once` says it did.

use fleetlog_engine::Outcome;
use serde_json::json;

use crate::output::{self, Format};

pub(super) fn report(outcomes: &[(&'static str, Outcome)], format: Format) -> anyhow::Result<()> {
    let rate = |outcome: &Outcome| outcome.stats.events as f64 / outcome.stats.seconds.max(0.001);
    match format {
        Format::Json => {
            let row = |(id, outcome): &(&'static str, Outcome)| {
                let stats = &outcome.stats;
                json!({
                    "projection": id, "end": format!("{:?}", outcome.end), "events": stats.events,
                    "duplicates": stats.duplicates, "set_aside": stats.set_aside, "batches": stats.batches,
                    "bytes": stats.bytes, "seconds": stats.seconds, "events_per_s": rate(outcome),
                    "cpu_seconds": stats.cpu_seconds,
                })
            };
            output::json(&outcomes.iter().map(row).collect::<Vec<_>>())
        }
        Format::Table => {
            output::table(
                [
                    "projection",
                    "events",
                    "duplicates",
                    "set aside",
                    "batches",
                    "seconds",
                    "events/s",
                    "CPU s",
                ],
                outcomes.iter().map(|(id, outcome)| {
                    let stats = &outcome.stats;
                    [
                        (*id).to_owned(),
                        stats.events.to_string(),
                        stats.duplicates.to_string(),
                        stats.set_aside.to_string(),
                        stats.batches.to_string(),
                        format!("{:.2}", stats.seconds),
                        format!("{:.0}", rate(outcome)),
                        format!("{:.2}", stats.cpu_seconds),
                    ]
                }),
            );
            Ok(())
        }
    }
}
