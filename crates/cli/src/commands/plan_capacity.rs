//! `fleetlog plan-capacity`: what a fleet needs, by formulas over measured costs (`docs/capacity.md`). Asks no server.

use std::path::PathBuf;

use fleetlog_capacity::{Figures, Load, Plan};
use fleetlog_event::catalogue::Catalogue;
use serde_json::json;

use crate::{
    exit::{Code, Failure},
    output::{self, Format},
    when::Length,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog plan-capacity --units 2000 --hz 1 --retention 90d\n  \
                        fleetlog plan-capacity --units 10000000 --hz 0.1 --retention 30d --format json | jq .deployments\n\
                        What the lines mean, and how far to trust them: docs/capacity.md")]
pub(crate) struct PlanCapacity {
    /// How many robots and stations
    #[arg(long, allow_negative_numbers = true)]
    units: u64,
    /// Telemetry of each, in events per second (0.1: one in ten seconds)
    #[arg(long, allow_negative_numbers = true)]
    hz: f64,
    /// How long telemetry is kept in the database (postgres.telemetry_retention_days); what the topics keep stands in topics/*.toml
    #[arg(long)]
    retention: Length,
    /// When to look at what is kept for ever: robots' and tasks' events, the ledger, telemetry_1m
    #[arg(long, default_value = "365d")]
    horizon: Length,
    /// Events of each robot beside telemetry, per day
    #[arg(long, allow_negative_numbers = true, default_value_t = Load::default().robot_events_per_day)]
    robot_events_per_day: f64,
    /// Tasks of each robot, per day
    #[arg(long, allow_negative_numbers = true, default_value_t = Load::default().tasks_per_day)]
    tasks_per_day: f64,
    /// Kafka's copies of each partition
    #[arg(long, default_value_t = Load::default().replication)]
    replication: u32,
    /// Share of every server that stays free for peaks and for catching up, 0 to 0.9
    #[arg(long, allow_negative_numbers = true, default_value_t = Load::default().headroom)]
    headroom: f64,
    /// How many times this load the fleet may grow to: partitions are fixed, and are made for that
    #[arg(long, allow_negative_numbers = true, default_value_t = Load::default().growth)]
    growth: f64,
    /// How late an event may become visible in Redis
    #[arg(long, default_value = "1s")]
    latency: Length,
    /// Processes that send telemetry to one deployment: the more, the smaller their batches
    #[arg(long, default_value_t = Load::default().producers)]
    producers: u32,
    /// Fewest processes `fleetlog run` of a deployment
    #[arg(long, default_value_t = Load::default().processes_min)]
    processes: u32,
    /// What things cost, measured on servers of yours, in the form of crates/capacity/figures.toml; without it, those compiled in
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

/// Prints the plan.
pub(crate) fn run(command: &PlanCapacity, format: Format) -> anyhow::Result<Code> {
    let figures = figures(command.figures.as_deref())?;
    let plan = Plan::of(&command.load(), &figures, &Catalogue::builtin())
        .map_err(|error| Failure::new(Code::Usage, error.to_string(), "fleetlog plan-capacity --help"))?;
    let lines = plan.lines(&figures);
    match format {
        Format::Json => {
            let mut value = serde_json::to_value(&plan)?;
            value["lines"] = json!(lines);
            value["figures"] = json!(figures);
            output::json(&value)?;
        }
        Format::Table => {
            let row = |line: fleetlog_capacity::Line| {
                [line.area.to_owned(), line.what, line.each, line.all, line.why]
            };
            let head = ["", "what", "a deployment", "in all", "why"];
            output::table(head, lines.into_iter().map(row));
            for warning in &plan.warnings {
                output::line(&format!(
                    "\nwarning: {} ({})\n   hint: {}",
                    warning.text, warning.code, warning.remedy
                ));
            }
        }
    }
    Ok(Code::Done)
}

impl PlanCapacity {
    fn load(&self) -> Load {
        Load {
            units: self.units as f64,
            hz: self.hz,
            robot_events_per_day: self.robot_events_per_day,
            tasks_per_day: self.tasks_per_day,
            retention_s: self.retention.seconds(),
            horizon_s: self.horizon.seconds(),
            replication: self.replication,
            headroom: self.headroom,
            growth: self.growth,
            latency_ms: self.latency.seconds() * 1000.0,
            producers: self.producers,
            processes_min: self.processes,
        }
    }
}

fn figures(file: Option<&std::path::Path>) -> anyhow::Result<Figures> {
    let Some(file) = file else { return Ok(Figures::builtin()) };
    let failed = |error: String| {
        let message = format!("file of figures `{}`: {error}", file.display());
        Failure::new(
            Code::Usage,
            message,
            "crates/capacity/figures.toml has the form; without --figures the compiled-in ones are used",
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Ok(Figures::parse(&text).map_err(|error| failed(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        command: PlanCapacity,
    }

    fn parse(args: &[&str]) -> Result<PlanCapacity, clap::Error> {
        let args = ["plan-capacity", "--units", "1000", "--hz", "1"].iter().chain(args);
        Command::try_parse_from(args).map(|parsed| parsed.command)
    }

    #[test]
    fn the_projections_planned_for_are_those_that_there_are() {
        // What faults and operators make is a few a day, and not planned for.
        let planned = |id: &&str| !id.starts_with("dead-letter");
        let known = fleetlog_projections::all().into_iter().map(|projection| projection.id);
        let known: Vec<&str> = known.filter(planned).collect();
        assert_eq!(fleetlog_capacity::PROJECTIONS.to_vec(), known);
    }

    #[test]
    fn what_is_not_said_is_as_the_crate_has_it() {
        let command = parse(&["--retention", "90d"]).expect("arguments");
        assert_eq!(command.load(), Load::default());
    }

    #[test]
    fn given_values_that_cannot_be_then_it_is_told_which_and_what_is_expected() {
        let command = parse(&["--retention", "30m", "--headroom", "nan"]).expect("arguments");
        let error = run(&command, Format::Table).expect_err("no plan");
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        assert_eq!(failure.code, Code::Usage);
        for words in ["retention is 1800; expected 3600 to", "headroom is NaN; expected 0 to 0.9"] {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
        let command = parse(&["--retention", "30d", "--growth", "-1"]).expect("arguments");
        let error = run(&command, Format::Table).expect_err("no plan").to_string();
        assert!(error.contains("growth is -1; expected 1 to 100"), "{error}");
        let error = parse(&["--retention", "a month"]).expect_err("no duration").to_string();
        assert!(error.contains("90s, 15m, 2h, 3d"), "{error}");
    }

    #[test]
    fn given_a_file_that_holds_no_figures_then_it_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, "hz = 1").expect("written");
        let error = figures(Some(&file)).expect_err("no figures").to_string();
        assert!(error.contains("mine.toml") && error.contains("hz"), "{error}");
    }
}
