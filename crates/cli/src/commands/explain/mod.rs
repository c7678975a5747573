//! `fleetlog explain`: which event gave a field of a unit or task its value.
//!
//! The entity's events are folded again from the log, as the projection did (crate `verify`); history is only asked where they
//! begin. What comes out is compared with what the store holds.

mod begin;
mod print;

use std::time::{Duration, Instant};

use fleetlog_event::{EntityKey, EventSet, UnitKey};
use fleetlog_projection::{EntityRow, FoldProjector, HotWrite};
use fleetlog_projections::for_each_projection;
use fleetlog_verify::{
    Begin, Explanation, HistoryStore, HotStore, KafkaLog, Question, Readable, Verdict, explain,
};

use super::{migrate, verify};
use crate::{
    config::Config,
    exit::{Code, Failure},
    output::Format,
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog explain swerk1.uNordFTS%2F0001 connection\n  \
                        fleetlog explain swerk1.uNordFTS%2F0001 battery_percent --all\n  \
                        fleetlog explain swerk1.uNordFTS%2F0001.oORD-0101-0001 finished_at --format json\n\n\
                        Fields are those of unit show and task show, and the columns of t_app_task_ledger2; a wrong one lists \
                        them.\nExit code 1 if nobody knows the unit or task, or if the store does not hold what the log says.")]
pub(crate) struct Explain {
    /// The unit, as `s{site}.u{unit}`, or a task's id
    subject: String,
    /// The field
    field: String,
    /// Of which projection, where several have the field
    #[arg(long, value_name = "ID")]
    projection: Option<String>,
    /// Every change of the field, not only the last one
    #[arg(long)]
    all: bool,
    /// With --all: the newest so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// A projection that has the subject's kind of entity.
struct Candidate {
    id: &'static str,
    topic: &'static str,
    fields: Vec<String>,
}

/// How often a line on stderr says how far the log was read, and when first.
const SAY_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: &Explain, config: &Config, format: Format) -> anyhow::Result<Code> {
    let is_unit = UnitKey::parse(&args.subject).is_ok();
    let candidates = candidates(is_unit);
    let chosen = choose(args, is_unit, &candidates)?;
    let also = candidates.iter().filter(|other| other.id != chosen.id && other.fields.contains(&args.field));
    for other in also.filter(|_| args.projection.is_none()) {
        eprintln!("of {}; --projection {} asks for that of {}", chosen.id, other.id, other.id);
    }
    wiring::admin(config).await?;
    let asked = Asked { args, config, log: verify::log(config)?, topic: chosen.topic };
    let mut explained = None;
    macro_rules! ask {
        (fold, $projector:expr) => {
            if id_of(&$projector) == chosen.id {
                explained = Some(asked.of(&$projector, &verify::hot_store(config).await?).await?);
            }
        };
        (ledger, $projector:expr) => {
            if id_of(&$projector) == chosen.id {
                explained = Some(asked.of(&$projector, &verify::history_store(config).await?).await?);
            }
        };
        (map, $projector:expr) => {};
        (letters, $projector:expr) => {};
    }
    for_each_projection!(ask);
    let Some(explained) = explained else {
        return Err(anyhow::anyhow!("projection `{}` cannot be explained", chosen.id));
    };
    if explained.verdict == Verdict::Unknown {
        let message = format!("neither {} nor the log knows `{}`", explained.projection, args.subject);
        let hint = "units are written `s{site}.u{unit}`: fleetlog unit list, fleetlog task list";
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    print::show(args, &explained, format)?;
    Ok(if matches!(explained.verdict, Verdict::Differs(_)) { Code::Found } else { Code::Done })
}

fn id_of<P: FoldProjector>(_: &P) -> &'static str {
    P::ID
}

/// The projections that fold the subject's kind of entity: units, or tasks.
fn candidates(is_unit: bool) -> Vec<Candidate> {
    fn fold<P: FoldProjector<Write = HotWrite>>(projector: P) -> Candidate {
        candidate::<P>(<HotStore as Readable<P>>::names(&projector))
    }
    fn ledger<P: FoldProjector<Write: EntityRow>>(projector: P) -> Candidate {
        candidate::<P>(<HistoryStore as Readable<P>>::names(&projector))
    }
    fn candidate<P: FoldProjector>(fields: Vec<String>) -> Candidate {
        Candidate { id: P::ID, topic: P::Event::TOPICS[0], fields }
    }
    let mut candidates = Vec::new();
    macro_rules! describe {
        (map, $projector:expr) => {};
        (letters, $projector:expr) => {};
        ($kind:ident, $projector:expr) => {
            candidates.push($kind($projector));
        };
    }
    for_each_projection!(describe);
    // What a unit is now comes before where it is: the later projection is asked for only what the earlier ones lack.
    candidates.sort_by_key(|candidate| candidate.topic == "telemetry");
    candidates.retain(|candidate| (candidate.topic == "task") != is_unit);
    candidates
}

/// The projection that is asked.
fn choose<'a>(args: &Explain, is_unit: bool, candidates: &'a [Candidate]) -> Result<&'a Candidate, Failure> {
    let wanted = |candidate: &&Candidate| args.projection.as_deref().is_none_or(|id| id == candidate.id);
    let kind = if is_unit { "unit" } else { "task" };
    if let Some(id) = &args.projection
        && !candidates.iter().any(|candidate| candidate.id == id)
    {
        let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.id).collect();
        let message = format!("projection `{id}` folds no {kind}s");
        return Err(Failure::new(
            Code::Usage,
            message,
            format!("projections of {kind}s: {}", ids.join(", ")),
        ));
    }
    let mut asked = candidates.iter().filter(wanted);
    asked.find(|candidate| candidate.fields.contains(&args.field)).ok_or_else(|| {
        let fields = |candidate: &Candidate| format!("{}: {}", candidate.id, candidate.fields.join(", "));
        let known: Vec<String> = candidates.iter().filter(wanted).map(fields).collect();
        let message = format!("no {kind} has a field `{}`", args.field);
        Failure::new(Code::Usage, message, format!("fields of {}", known.join("; of ")))
    })
}

struct Asked<'a> {
    args: &'a Explain,
    config: &'a Config,
    log: KafkaLog,
    topic: &'static str,
}

impl Asked<'_> {
    async fn of<P: FoldProjector, S: Readable<P>>(
        &self,
        projector: &P,
        store: &S,
    ) -> anyhow::Result<Explanation> {
        let key = EntityKey::from(self.args.subject.as_str());
        let begin = begin::find(self.config, self.topic, self.args).await.unwrap_or_else(|error| {
            eprintln!(
                "history cannot say where its events begin ({error}): reading the log from its beginning"
            );
            Begin::Log
        });
        let changes_max =
            if self.args.all { usize::try_from(self.args.limit).unwrap_or(usize::MAX) } else { 1 };
        let question =
            Question { key: &key, field: &self.args.field, begin, changes_max, now: migrate::now() };
        let (begun, mut said) = (Instant::now(), Duration::ZERO);
        let (mut first, mut spoke) = (None, false);
        let reached = |at: i64, to: i64| {
            let first = *first.get_or_insert(at);
            if begun.elapsed() - said >= SAY_EVERY {
                (said, spoke) = (begun.elapsed(), true);
                eprintln!(
                    "reading {} of `{}`: {} offsets, {} to go",
                    self.topic,
                    self.args.subject,
                    at - first,
                    to - at
                );
            }
        };
        Ok(explain(projector, &self.log, store, question, reached).await?)
    }
}
