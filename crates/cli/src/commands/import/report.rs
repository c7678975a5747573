//! What an import says at its end: messages by kind and what became of them, events by type.

use std::{collections::BTreeMap, fmt, path::Path};

use fleetlog_event::EventSet;
use fleetlog_vda5050::{Outcome, Verdict};
use serde::Serialize;

use super::{file::Recording, place::Place};

/// The report of an import.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    file: String,
    digest: String,
    lines: u64,
    /// Lines that an earlier import of this content has sent.
    lines_already_imported: u64,
    /// Lines whose events are on the log now, earlier imports included.
    lines_done: u64,
    events_sent: usize,
    dead_letters_sent: usize,
    /// Messages of the whole file by kind, and what became of them.
    messages: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Events of the whole file by type.
    events: BTreeMap<&'static str, u64>,
    /// Messages that could not be mapped, by reason.
    dead: BTreeMap<&'static str, u64>,
    /// Fields left out of events for their values.
    omitted: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn new(path: &Path, recording: &Recording) -> Self {
        let (digest, lines) = (recording.digest.clone(), recording.lines);
        Self { file: path.display().to_string(), digest, lines, ..Self::default() }
    }

    pub(super) fn resumed_from(&mut self, place: Option<Place>) {
        self.lines_already_imported = place.map_or(0, |place| place.line);
        self.lines_done = self.lines_already_imported;
    }

    pub(super) fn count(&mut self, outcome: &Outcome) {
        *self
            .messages
            .entry(outcome.kind.to_string())
            .or_default()
            .entry(outcome.verdict.label())
            .or_default() += 1;
        for event in &outcome.events {
            *self.events.entry(event.event_type().name).or_default() += 1;
        }
        if let Verdict::Dead { reason, .. } = &outcome.verdict {
            *self.dead.entry(reason.as_str()).or_default() += 1;
        }
        for field in &outcome.omitted {
            *self.omitted.entry(field).or_default() += 1;
        }
    }

    pub(super) fn sent(&mut self, events: usize, dead_letters: usize, last_line: u64) {
        self.events_sent += events;
        self.dead_letters_sent += dead_letters;
        self.lines_done = last_line;
    }

    pub(super) fn lines_done(&self) -> u64 {
        self.lines_done
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} lines, {} of them imported before",
            self.file, self.lines, self.lines_already_imported
        )?;
        writeln!(f, "\n{:<18} {:>8}  what became of it", "message", "count")?;
        for (kind, verdicts) in &self.messages {
            let all: u64 = verdicts.values().sum();
            let parts: Vec<String> =
                verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
            writeln!(f, "{kind:<18} {all:>8}  {}", parts.join(", "))?;
        }
        writeln!(f, "\n{:<36} {:>8}", "event", "count")?;
        for (event, count) in &self.events {
            writeln!(f, "{event:<36} {count:>8}")?;
        }
        for (name, counts) in [("could not be mapped", &self.dead), ("left out of events", &self.omitted)] {
            if !counts.is_empty() {
                let parts: Vec<String> =
                    counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
                writeln!(f, "\n{name}: {}", parts.join(", "))?;
            }
        }
        write!(f, "\nsent now: {} events, {} dead letters", self.events_sent, self.dead_letters_sent)
    }
}
