//! `fleetlog dlq redrive`

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use fleetlog_dead_letters::{
    Tools,
    redrive::{self, DryRun, KafkaRoad, KafkaRoadParts, Plan, RedriveRequest, Stop, Told},
};
use fleetlog_event::EventId;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    discard::operator,
    redriven::{self, Report, ended},
    select::Select,
    tools,
};
use crate::{
    command_lanes::FleetLanes,
    config::Config,
    engine_parts::kafka_for_commands,
    exit::{Code, Failure},
    output::Format,
    wiring,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    select: Box<Select>,
    /// Only those set aside for these reasons, such as unknown_schema
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// Those that are parked, instead of those that are open
    #[arg(long)]
    parked: bool,
    /// No more than so many, the oldest
    #[arg(long)]
    max: Option<usize>,
    /// Why they are sent back, in words: written down for ever
    #[arg(long, value_name = "TEXT", required_if_eq("execute", "true"))]
    why: Option<String>,
    /// Do it; without it, only say what would come of it
    #[arg(long)]
    execute: bool,
    /// Do not ask
    #[arg(long, requires = "execute")]
    yes: bool,
    /// It is meant that no open letter stays
    #[arg(long)]
    all: bool,
    /// So many of each group first; the others only if 95 % of them were taken
    #[arg(long, value_name = "N")]
    canary: Option<usize>,
    /// No more than so many a second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// No more than so many without an answer
    #[arg(long, value_name = "N", default_value_t = 500)]
    batch: usize,
    /// After how many rejections a letter is parked
    #[arg(long, value_name = "N", default_value_t = 3)]
    replays_max: u32,
    /// How many a dry run tries against today's projector, spread over the selection
    #[arg(long, value_name = "N", default_value_t = 20)]
    sample: usize,
    /// How long to wait without any progress, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    wait_ms: u64,
}

pub(super) async fn run(args: &Redrive, config: &Config, format: Format) -> anyhow::Result<Code> {
    let request = args.request(config)?;
    let tools = tools(config, &args.select.dlq_topic)?;
    let lanes = FleetLanes::new(config)?;
    let mut road = road(config, &tools)?;
    let plan = redrive::plan(&tools, &request, &lanes, &road).await.map_err(redriven::failure)?;
    tell_gaps(&plan);
    let report = Report::new(&request, &plan);
    if !args.execute {
        let dry = DryRun::of(&plan, &request, &lanes, &road).await;
        let dry = dry.map_err(|error| redriven::failure(error.into()))?;
        report.print_dry(&dry, format)?;
        if !plan.go.is_empty() {
            let more = if plan.takes_all && !args.all { " --all (these are all that are open)" } else { "" };
            eprintln!("dry run: nothing was sent back; to do it: --execute --why TEXT{more}");
        }
        return Ok(Code::Done);
    }
    if plan.go.is_empty() && plan.unwritten.is_empty() {
        report.print_nothing(format)?;
        return Ok(Code::Done);
    }
    if !plan.go.is_empty() && !args.yes && !confirmed(&plan, &report, &request)? {
        eprintln!("nothing was sent back");
        return Ok(Code::Found);
    }
    let (stop, bar) = (Stop::default(), bar(plan.go.len()));
    stop_on_interrupt(stop.clone());
    let mut tell = |told: Told<'_>| tell(&bar, told);
    let done = redrive::execute(&plan, &request, &lanes, &mut road, &stop, &mut tell).await;
    bar.finish_and_clear();
    let done = done.map_err(redriven::failure)?;
    report.print_done(&done, format)?;
    ended(&done, config)
}

impl Redrive {
    fn request(&self, config: &Config) -> anyhow::Result<RedriveRequest> {
        let request = RedriveRequest {
            action_id: EventId::now_v7().to_string(),
            selector: self.select.selector(config, &self.reason, self.max)?,
            parked: self.parked,
            canary: self.canary,
            rate_per_s: self.rate,
            replays_max: self.replays_max,
            batch: self.batch,
            sample: self.sample,
            patience: Duration::from_millis(self.wait_ms),
            operator: operator(),
            // Only what is done has to be explained.
            why: self.why.as_deref().map_or("a dry run", str::trim).to_owned(),
            source: concat!("fleetlog-dlq/", env!("CARGO_PKG_VERSION")).to_owned(),
            // A dry run may look at all of them.
            all_is_meant: self.all || !self.execute,
        };
        request.check().map_err(|error| redriven::failure(error.into()))?;
        Ok(request)
    }
}

fn road<'a>(config: &Config, tools: &'a Tools) -> anyhow::Result<KafkaRoad<'a>> {
    let own = config.clone();
    let parts = KafkaRoadParts {
        kafka: kafka_for_commands(config)?,
        decoder: wiring::decoder(config)?,
        events: wiring::producer(config)?,
        schemas: Box::new(move || wiring::producer_schemas(&own).map_err(|error| error.to_string())),
    };
    Ok(KafkaRoad::new(tools, parts)?)
}

fn tell_gaps(plan: &Plan) {
    super::tell_missing(&plan.missing_topics);
    super::tell_unreadable(plan.unreadable_actions);
}

/// Asks at the terminal; where there is none nobody can answer.
fn confirmed(plan: &Plan, report: &Report<'_>, request: &RedriveRequest) -> anyhow::Result<bool> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let message = "--execute asks before it sends anything back, and there is no terminal to answer";
        return Err(Failure::new(Code::Usage, message, "add --yes, after a look at the dry run").into());
    }
    report.print_plan();
    let which = if plan.takes_all { "all open dead letters" } else { "dead letters" };
    write!(stderr, "send these {} {which} back as {}? [y/N] ", plan.go.len(), request.operator)?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Nothing is drawn where stderr is no terminal.
fn bar(letters: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} answered {msg} {per_sec} {eta}");
    // The template is constant; if it were wrong the plain bar would do.
    ProgressBar::new(letters as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell(bar: &ProgressBar, told: Told<'_>) {
    match told {
        Told::NobodyRuns { group } => bar.suspend(|| {
            eprintln!(
                "warning: no process is in group {group}: commands wait in its inbox until one runs \
                 (fleetlog run)"
            );
        }),
        Told::Waits { lanes } => bar.suspend(|| {
            eprintln!(
                "commands of an earlier redrive or repair are not answered yet in {lanes} lanes: waiting"
            );
        }),
        Told::Batch { outcomes } => {
            bar.set_position(outcomes.answered());
            let again = outcomes.rejected + outcomes.parked;
            bar.set_message(format!("({} taken, {again} rejected)", outcomes.taken));
        }
    }
}

/// The first interrupt ends the job after its batch, the second at once.
fn stop_on_interrupt(stop: Stop) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        stop.ask();
        eprintln!("stopping after the batch that is under way; once more to stop at once");
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!(
                "stopped: commands that were sent are carried out all the same; run the same command again to \
                 have that written down, and to go on"
            );
            std::process::exit(Code::Failed as i32);
        }
    });
}
