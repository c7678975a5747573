//! What came of a run.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{faults::Family, plan::Plan};

/// Which check found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    /// Acknowledged events that are not where they have to be.
    Lost,
    /// Events that count more than once.
    Doubled,
    /// State, rows or versions that are not the fold of the log.
    Differences,
    /// Ledgers that do not name exactly what was to be set aside.
    SetAside,
    /// Dead letters that are missing, too many, or not byte for byte.
    DeadLetters,
    /// A reader saw an entity go back, with no store loss in between.
    Backward,
    /// A reader saw an entity half-written.
    HalfWritten,
    /// A handler was called before a tier allowed it.
    Early,
    /// A handler was called again more often than kills explain.
    Repeated,
    /// The lanes did not take everything in time.
    CaughtUp,
    /// A projection stopped for good that must not, or did not that must.
    Stopped,
    /// A projector did not end as it was told to, or ended by itself.
    Exit,
    /// A zombie pushed out who took over.
    Usurped,
    /// While load went on, a lane did not.
    Stalled,
    /// A restarted projector did not write in time.
    FirstWrite,
    /// A check had nothing to look at, so that what it did not find says nothing.
    Vacuous,
    /// The run itself failed: no verdict.
    Harness,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(serde_json::to_value(self).map_err(|_| fmt::Error)?.as_str().unwrap_or_default())
    }
}

/// Something that must not be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Which check found it.
    pub(crate) check: Check,
    /// What exactly.
    pub(crate) detail: String,
}

/// A run, as it is kept in the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) family: String,
    pub(crate) processes: usize,
    pub(crate) seconds: f64,
    /// Faults that struck, by name.
    pub(crate) struck: BTreeMap<String, u32>,
    /// Events that were acknowledged to the load.
    pub(crate) events: u64,
    /// Poison records and repeats that were acknowledged.
    pub(crate) poisons: u64,
    /// Restarts of projectors.
    pub(crate) restarts: u32,
    /// For each restart that was timed: how long until Redis and PostgreSQL had its first write, in ms.
    pub(crate) first_writes_ms: Vec<[u64; 2]>,
    pub(crate) recount: Recount,
    pub(crate) reads: Reads,
    pub(crate) findings: Vec<Finding>,
}

/// What `recount.py` found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recount {
    /// Acknowledged events that are not on the log, and positions without a row.
    pub(crate) lost: u64,
    /// Rows too many: of one position, or of one event id.
    pub(crate) doubled: u64,
    /// Entities, rows, places in lists or versions that differ.
    pub(crate) differences: u64,
    /// Ledger entries that are missing, too many or wrong.
    pub(crate) set_aside_wrong: u64,
    /// Dead letters that are missing, too many or wrong.
    pub(crate) dead_letters_wrong: u64,
    /// Entities and rows compared.
    pub(crate) compared: u64,
    /// Events that were to be set aside, over all projections.
    pub(crate) set_aside: u64,
    /// Events that were set aside and, redriven, taken, over all projections.
    pub(crate) redriven: u64,
    /// Events that were redriven and rejected again.
    pub(crate) rejected_again: u64,
    /// Repeats dropped.
    pub(crate) duplicates: u64,
    /// Dead letters published more than once: allowed, and counted.
    pub(crate) dead_letters_twice: u64,
    /// The first few of what was found, in words.
    pub(crate) examples: Vec<String>,
}

/// What the reader saw that polled all the while.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reads {
    /// Entities read.
    pub(crate) reads: u64,
    /// Times that one had moved on since the read before.
    pub(crate) moves: u64,
    /// Entities that were older than before, with no store loss in between.
    pub(crate) backward: u64,
    /// The same after a store may have lost its tail.
    pub(crate) backward_after_loss: u64,
    /// Entities whose parts did not belong together.
    pub(crate) half_written: u64,
    /// The first few, in words.
    pub(crate) examples: Vec<String>,
}

impl Recount {
    /// How much was found.
    pub(crate) fn found(&self) -> u64 {
        self.lost + self.doubled + self.differences + self.set_aside_wrong + self.dead_letters_wrong
    }
}

impl Outcome {
    /// Of a run that is about to begin.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            family: plan.family.name(),
            processes: plan.processes,
            seconds: 0.0,
            struck: BTreeMap::new(),
            events: 0,
            poisons: 0,
            restarts: 0,
            first_writes_ms: Vec::new(),
            recount: Recount::default(),
            reads: Reads::default(),
            findings: Vec::new(),
        }
    }

    /// Nothing was found.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Turns counts into findings.
    pub(crate) fn judge(&mut self) {
        let examples = self.recount.examples.join("\n");
        let read_examples = self.reads.examples.join("\n");
        let counts = [
            (Check::Lost, self.recount.lost, &examples),
            (Check::Doubled, self.recount.doubled, &examples),
            (Check::Differences, self.recount.differences, &examples),
            (Check::SetAside, self.recount.set_aside_wrong, &examples),
            (Check::DeadLetters, self.recount.dead_letters_wrong, &examples),
            (Check::Backward, self.reads.backward, &read_examples),
            (Check::HalfWritten, self.reads.half_written, &read_examples),
        ];
        for (check, count, examples) in counts {
            if count > 0 {
                self.findings.push(Finding { check, detail: format!("{count}\n{examples}") });
            }
        }
        // One that failed in its middle has said so.
        if self.findings.iter().any(|finding| finding.check == Check::Harness) {
            return;
        }
        let redrives = self.family == Family::Redrive.name();
        for (what, count) in [
            ("redriven events that were taken", if redrives { self.recount.redriven } else { 1 }),
            (
                "redriven events that were rejected again",
                if redrives { self.recount.rejected_again } else { 1 },
            ),
            ("events", self.events),
            ("poison records", self.poisons),
            ("compared entities and rows", self.recount.compared),
            ("reads of entities", self.reads.reads),
            ("reads that saw one move on", self.reads.moves),
        ] {
            if count == 0 {
                self.findings
                    .push(Finding { check: Check::Vacuous, detail: format!("there were no {what}") });
            }
        }
    }
}
