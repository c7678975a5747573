//! Tables over runs, as `make chaos` and `make mutants` print them.

use std::collections::BTreeMap;

use crate::outcome::{Check, Outcome};

/// Runs by family, faults by kind, what was found.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut families: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        families.entry(&outcome.family).or_default().push(outcome);
    }
    let mut lines = vec![row(&HEAD.map(str::to_owned))];
    lines.extend(families.iter().map(|(family, runs)| row(&cells(family, runs))));
    if families.len() > 1 {
        lines.push(row(&cells("all", &outcomes.iter().collect::<Vec<_>>())));
    }
    lines.push("\nfaults that struck:".to_owned());
    let mut struck: BTreeMap<&str, u32> = BTreeMap::new();
    for (fault, times) in outcomes.iter().flat_map(|outcome| &outcome.struck) {
        *struck.entry(fault).or_default() += times;
    }
    lines.extend(struck.iter().map(|(fault, times)| format!("{times:>7}  {fault}")));
    let found: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_clean()).collect();
    lines.push(format!("\n{} of {} runs found something", found.len(), outcomes.len()));
    for outcome in found {
        lines.push(format!("make chaos SEED={} FAMILY={}", outcome.seed, outcome.family));
        for finding in &outcome.findings {
            let first: String = finding.detail.chars().take(400).collect();
            lines.push(format!("  {}: {}", finding.check, first.replace('\n', "\n    ")));
        }
    }
    lines.join("\n")
}

const HEAD: [&str; 15] = [
    "family",
    "runs",
    "faults",
    "events",
    "poison",
    "redriven",
    "restarts",
    "first write, ms: median",
    "max",
    "lost",
    "doubled",
    "differ",
    "aside/dlq wrong",
    "backward (after loss)",
    "reads",
];
const WIDTHS: [usize; 15] = [12, 4, 6, 9, 6, 8, 8, 23, 6, 5, 7, 6, 15, 21, 9];

fn row(cells: &[String; 15]) -> String {
    let cells = cells.iter().zip(WIDTHS).enumerate();
    let padded = cells.map(
        |(at, (cell, width))| {
            if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        },
    );
    padded.collect::<Vec<_>>().join("  ")
}

fn cells(family: &str, runs: &[&Outcome]) -> [String; 15] {
    let sum = |of: &dyn Fn(&Outcome) -> u64| runs.iter().map(|run| of(run)).sum::<u64>().to_string();
    let mut times: Vec<u64> =
        runs.iter().flat_map(|run| &run.first_writes_ms).map(|took| took[0].max(took[1])).collect();
    times.sort_unstable();
    let shown = |time: Option<&u64>| time.map_or_else(|| "-".to_owned(), u64::to_string);
    let backward = format!(
        "{} ({})",
        runs.iter().map(|run| run.reads.backward + run.reads.half_written).sum::<u64>(),
        runs.iter().map(|run| run.reads.backward_after_loss).sum::<u64>()
    );
    [
        family.to_owned(),
        runs.len().to_string(),
        // A line that begins with a space tells more of the one that it belongs to.
        sum(&|run| {
            let faults = run.struck.iter().filter(|(fault, _)| !fault.starts_with(' '));
            faults.map(|(_, times)| u64::from(*times)).sum()
        }),
        sum(&|run| run.events),
        sum(&|run| run.poisons),
        sum(&|run| run.recount.redriven),
        sum(&|run| u64::from(run.restarts)),
        shown(times.get(times.len() / 2)),
        shown(times.last()),
        sum(&|run| run.recount.lost),
        sum(&|run| run.recount.doubled),
        sum(&|run| run.recount.differences),
        sum(&|run| run.recount.set_aside_wrong + run.recount.dead_letters_wrong),
        backward,
        sum(&|run| run.reads.reads),
    ]
}

/// What became of a mutant.
pub(crate) struct Caught {
    pub(crate) mutant: String,
    pub(crate) family: String,
    /// After how many seeds, and which checks found something; none if nothing did.
    pub(crate) by: Option<(u64, Vec<Check>)>,
}

/// One line a mutant.
pub(crate) fn mutants_table(mutants: &[Caught]) -> String {
    let line = |caught: &Caught| {
        let by = caught.by.as_ref().map_or_else(
            || "NOT CAUGHT".to_owned(),
            |(seeds, checks)| {
                let checks: Vec<String> = checks.iter().map(Check::to_string).collect();
                format!("seed {seeds:>2} of 10, by {}", checks.join(", "))
            },
        );
        format!("{:<26}{:<12}{by}", caught.mutant, caught.family)
    };
    let head = format!("{:<26}{:<12}caught", "mutant", "family");
    std::iter::once(head).chain(mutants.iter().map(line)).collect::<Vec<_>>().join("\n")
}
