//! What a redrive would do, or has done, in words.

use std::collections::BTreeMap;

use fleetlog_dead_letters::redrive::{
    Direction, DryRun, Ended, LaneRef, Plan, RedriveError, RedriveRequest, Redriven, Tried, Way,
};
use fleetlog_projection::Fault;
use serde_json::{Value, json};

use crate::{
    config::Config,
    exit::{Code, Failure},
    output::{self, Format},
};

/// The error with its code and hint.
pub(super) fn failure(error: RedriveError) -> Failure {
    let text = error.to_string();
    match error {
        RedriveError::Tool(error) => super::failure(error),
        RedriveError::Request(_) => Failure::new(Code::Usage, text, "fleetlog dlq redrive --help"),
        RedriveError::Held { group, .. } => {
            let hint =
                format!("wait, or ask them; fleetlog events --topic ops tells what the job of {group} does");
            Failure::new(Code::Found, text, hint)
        }
        RedriveError::Port(trouble) => match trouble.fault {
            Fault::Transient => Failure::new(
                Code::Unreachable,
                text,
                "is that server up? (fleetlog doctor); then run it again",
            ),
            Fault::Fenced | Fault::Permanent => Failure { code: Code::Failed, message: text, hint: None },
        },
    }
}

/// A plan and what came of it, for people and machines.
pub(super) struct Report<'a> {
    request: &'a RedriveRequest,
    plan: &'a Plan,
}

impl<'a> Report<'a> {
    pub(super) fn new(request: &'a RedriveRequest, plan: &'a Plan) -> Self {
        Self { request, plan }
    }

    pub(super) fn print_dry(&self, dry: &DryRun, format: Format) -> anyhow::Result<()> {
        let DryRun { first, last, tried } = dry;
        if format == Format::Json {
            let mut all = self.object(false);
            all["first"] = json!(first);
            all["last"] = json!(last);
            all["tried"] = json!(tried);
            return output::json(&all);
        }
        self.print_plan();
        for (name, letter) in [("first", first), ("last", last)] {
            if let Some(Direction { set_aside_at_ms, place, origin }) = letter {
                output::line(&format!(
                    "{name:<5} {} {place} (origin {origin})",
                    output::time(*set_aside_at_ms)
                ));
            }
        }
        print_tried(tried);
        Ok(())
    }

    pub(super) fn print_nothing(&self, format: Format) -> anyhow::Result<()> {
        if format == Format::Json {
            return self.print_done(&Redriven::default(), format);
        }
        let matched = self.plan.matched;
        output::line(&format!("nothing to send back: all {matched} that match stay where they are"));
        self.print_stays();
        Ok(())
    }

    pub(super) fn print_done(&self, done: &Redriven, format: Format) -> anyhow::Result<()> {
        if format == Format::Json {
            let mut all = self.object(true);
            all["outcomes"] = json!(done.outcomes);
            all["rejected_for"] = json!(done.rejected_for);
            all["gone"] = json!(done.gone);
            all["not_emitted"] = json!(done.not_emitted);
            all["written_down"] = json!(done.written_down);
            all["left"] = json!(done.left);
            all["ended"] = json!(name(&done.ended));
            return output::json(&all);
        }
        let outcomes = done.outcomes;
        output::line(&format!(
            "{} taken, {} rejected again{}, {} parked, {} as they were (action {})",
            outcomes.taken,
            outcomes.rejected,
            in_brackets(&done.rejected_for),
            outcomes.parked,
            outcomes.nothing,
            self.request.action_id
        ));
        for (count, what) in [
            (done.written_down, "had been taken before, which is written down now"),
            (done.gone, "could not be sent: retention took the letters away"),
            (done.left, "were not come to, or have not been answered"),
        ] {
            if count > 0 {
                output::line(&format!("{count} {what}"));
            }
        }
        for (why, count) in &done.not_emitted {
            output::line(&format!("{count} were not emitted anew: {why}"));
        }
        self.print_stays();
        Ok(())
    }

    /// Counts for people: what goes, what stays and why.
    pub(super) fn print_plan(&self) {
        output::line(&format!(
            "{} dead letters would go back, of {} that match",
            self.plan.go.len(),
            self.plan.matched
        ));
        let how = |way| match way {
            Way::InPlace => "in its place",
            Way::Anew => "emitted anew under the right key",
            Way::ToHandler => "to its handler, which is called once more",
        };
        let rows = self.plan.rows().into_iter();
        let rows: Vec<[String; 5]> = rows
            .map(|row| {
                [row.group, row.reason, row.event_type, how(row.way).to_owned(), row.letters.to_string()]
            })
            .collect();
        if !rows.is_empty() {
            output::table(["group", "reason", "type", "how", "dead letters"], rows);
        }
        self.print_stays();
    }

    fn print_stays(&self) {
        for (why, count) in &self.plan.stays {
            output::line(&format!("{count} stay: {}", why.text()));
        }
    }

    fn object(&self, executed: bool) -> Value {
        json!({
            "executed": executed,
            "action_id": executed.then_some(&self.request.action_id),
            "selection": self.request.selector,
            "matched": self.plan.matched,
            "letters": self.plan.go.len(),
            "rows": self.plan.rows(),
            "stays": self.plan.stays,
        })
    }
}

fn in_brackets(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let told: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    format!(" ({})", told.join(", "))
}

fn print_tried(tried: &Tried) {
    if tried.letters == 0 {
        return;
    }
    if tried.untried == tried.letters {
        let what = "calls of handlers, events emitted anew and letters that are gone cannot be rehearsed";
        output::line(&format!("none of {} was tried: {what}; --canary N begins with a few", tried.letters));
        return;
    }
    let rejected: u64 = tried.rejected.values().sum();
    output::line(&format!(
        "{} tried against today's projectors: {} would be taken, {rejected} rejected again{}, {} could not be tried",
        tried.letters,
        tried.taken,
        in_brackets(&tried.rejected),
        tried.untried
    ));
    if !tried.also_rejected.is_empty() {
        let told = in_brackets(&tried.also_rejected);
        output::line(&format!("events taken before that would be set aside instead{told}"));
    }
    for example in &tried.examples {
        output::line(&format!("  {}", super::one_line(example)));
    }
}

fn name(ended: &Ended) -> &'static str {
    match ended {
        Ended::Done => "done",
        Ended::Stopped => "stopped",
        Ended::Canary { .. } => "canary",
        Ended::Stalled { .. } => "stalled",
        Ended::Failed(_) => "failed",
    }
}

const WHICH: &str = "which server is away: fleetlog doctor";

/// The exit code of a job that ended, and what to do.
pub(super) fn ended(done: &Redriven, config: &Config) -> anyhow::Result<Code> {
    const AGAIN: &str = "run the same command again: what is redriven already is skipped";
    let failure = match &done.ended {
        Ended::Done => {
            let again = done.outcomes.rejected + done.outcomes.parked;
            return Ok(if again == 0 && done.not_emitted.is_empty() { Code::Done } else { Code::Found });
        }
        Ended::Stopped => {
            Failure::new(Code::Failed, format!("stopped; {} letters are left", done.left), AGAIN)
        }
        Ended::Canary { group, taken, of } => Failure::new(
            Code::Found,
            format!("of the first {of} letters of {group} only {taken} were taken: the others were not sent"),
            "why: fleetlog dlq list shows the newest errors; without --canary all of them go",
        ),
        Ended::Stalled { lanes, behind, unmanned, is_earlier, trouble } => {
            stalled(lanes, *behind, unmanned, *is_earlier, trouble.as_deref(), config)
        }
        Ended::Failed(trouble) => {
            let passes = trouble.fault == Fault::Transient;
            let code = if passes { Code::Unreachable } else { Code::Failed };
            let hint = if passes { format!("{WHICH}; then {AGAIN}") } else { AGAIN.to_owned() };
            Failure::new(code, trouble.to_string(), hint)
        }
    };
    Err(failure.into())
}

fn stalled(
    lanes: &[LaneRef],
    behind: usize,
    unmanned: &[String],
    is_earlier: bool,
    trouble: Option<&str>,
    config: &Config,
) -> Failure {
    const SHOWN: usize = 3;
    let mut shown: Vec<String> = lanes.iter().take(SHOWN).map(ToString::to_string).collect();
    shown.extend((lanes.len() > SHOWN).then(|| format!("{} more", lanes.len() - SHOWN)));
    let whose = if is_earlier { "commands of an earlier job" } else { "commands" };
    let is_away = trouble.is_some();
    let trouble = trouble.map_or_else(String::new, |trouble| format!(" ({trouble})"));
    let message = format!("{whose} are not answered by {}{trouble}", shown.join(", "));
    let sent =
        if is_earlier { "nothing new was sent" } else { "they stay in the inbox and will be carried out" };
    let hint = if !unmanned.is_empty() {
        format!("no process is in {}: start it (fleetlog run); {sent}", unmanned.join(", "))
    } else if is_away {
        format!("{WHICH}; {sent}")
    } else if behind > 0 {
        format!("{behind} of the lanes have not come to the events yet: fleetlog status; {sent}")
    } else {
        format!(
            "is fleetlog run up, and new enough to follow inboxes? One that was killed counts as a member until its \
             session times out ({} s); {sent}",
            config.run.session_timeout_ms / 1000
        )
    };
    Failure::new(Code::Unreachable, message, hint)
}
