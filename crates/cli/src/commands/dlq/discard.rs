//! `fleetlog dlq discard`

use std::io::{IsTerminal, Write};

use fleetlog_dead_letters::{ActionHead, DiscardRequest, Found, Letter, Selector, State, Stats};
use fleetlog_event::{EventId, Reason};
use serde_json::json;

use super::{failure::failure, select::Select, stats, tell_gaps, tools};
use crate::{
    commands::migrate,
    config::Config,
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    select: Box<Select>,
    /// Only those set aside for these reasons, such as unknown_task
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    set_aside_for: Vec<String>,
    /// No more than so many, the oldest
    #[arg(long)]
    max: Option<usize>,
    /// Why they are given up, in words: written down for ever
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do it; without it, only say which it would be
    #[arg(long)]
    execute: bool,
    /// Do not ask
    #[arg(long, requires = "execute")]
    yes: bool,
    /// It is meant that no open letter stays
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(discard: &Discard, config: &Config, format: Format) -> anyhow::Result<Code> {
    let selector = discard.select.selector(config, &discard.set_aside_for, discard.max)?;
    not_a_label(discard.reason.trim())?;
    let tools = tools(config, &discard.select.dlq_topic)?;
    let request = DiscardRequest {
        selector,
        why: discard.reason.trim().to_owned(),
        operator: operator(),
        // A dry run may look at all of them.
        all_is_meant: discard.all || !discard.execute,
    };
    let found = tools.plan_discard(&request).await.map_err(failure)?;
    tell_gaps(&found);
    let done_before = found.in_other_states;
    let all = found.takes_all(&request.selector);
    let letters: Vec<Letter> = found.letters.iter().map(|(letter, _)| letter.clone()).collect();
    let mut outcome =
        Outcome { selector: &request.selector, letters: &letters, done_before, action_id: None };
    if letters.is_empty() || !discard.execute {
        outcome.print(format)?;
        if !letters.is_empty() {
            let more = if all && !discard.all { " --all (these are all that are open)" } else { "" };
            eprintln!("dry run: nothing was discarded; to do it: --execute{more}");
        }
        return Ok(Code::Done);
    }
    if !discard.yes && !confirmed(&found, &request)? {
        eprintln!("nothing was discarded");
        return Ok(Code::Found);
    }
    let head = ActionHead {
        action_id: EventId::now_v7().to_string(),
        now: migrate::now(),
        source: concat!("fleetlog-dlq/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let producer = wiring::producer(config)?;
    tools.discard(&request, &letters, &head, &producer).await.map_err(failure)?;
    outcome.action_id = Some(head.action_id);
    outcome.print(format)?;
    Ok(Code::Done)
}

/// `dlq list --reason` chooses, `dlq discard --reason` explains: who takes the one for the other would discard more than
/// was meant.
fn not_a_label(why: &str) -> anyhow::Result<()> {
    if Reason::parse(why).is_none() {
        return Ok(());
    }
    let message = format!("--reason says why they are given up; `{why}` is why they were set aside");
    let hint = format!("to choose by that: --set-aside-for {why}");
    Err(Failure::new(Code::Usage, message, hint).into())
}

/// Who is at the keyboard, for the audit trail.
pub(crate) fn operator() -> String {
    let host = whoami::fallible::hostname().unwrap_or_else(|_| "unknown".to_owned());
    format!("{}@{host}", whoami::username())
}

/// Asks at the terminal; where there is none nobody can answer.
fn confirmed(found: &Found, request: &DiscardRequest) -> anyhow::Result<bool> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let message = "--execute asks before it discards, and there is no terminal to answer";
        return Err(Failure::new(Code::Usage, message, "add --yes, after a look at the dry run").into());
    }
    let mut counts = Stats::default();
    found.letters.iter().for_each(|(letter, state)| counts.add(letter, state));
    stats::print(&counts);
    let which = if found.takes_all(&request.selector) { "all open dead letters" } else { "dead letters" };
    write!(stderr, "discard these {} {which} as {}? [y/N] ", found.letters.len(), request.operator)?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// What was done, or would be.
struct Outcome<'a> {
    selector: &'a Selector,
    letters: &'a [Letter],
    done_before: usize,
    /// None in a dry run, and where there was nothing to do.
    action_id: Option<String>,
}

impl Outcome<'_> {
    fn print(&self, format: Format) -> anyhow::Result<()> {
        let mut counts = Stats::default();
        self.letters.iter().for_each(|letter| counts.add(letter, &State::Open));
        if format == Format::Json {
            return output::json(&json!({
                "executed": self.action_id.is_some(),
                "action_id": self.action_id,
                "selection": self.selector,
                "letters": self.letters.len(),
                "discarded_before": self.done_before,
                "reasons": counts.reasons,
                "types": counts.types,
                "groups": counts.groups,
                "oldest_ms": counts.oldest_ms,
                "newest_ms": counts.newest_ms,
                "places": self.letters.iter().map(|letter| &letter.place).collect::<Vec<_>>(),
            }));
        }
        let before = self.done_before;
        match &self.action_id {
            Some(action) => {
                output::line(&format!("{} dead letters discarded (action {action})", self.letters.len()));
            }
            None if self.letters.is_empty() => {
                output::line(&format!("nothing to discard: all {before} that match were discarded before"));
            }
            None => stats::print(&counts),
        }
        Ok(())
    }
}
