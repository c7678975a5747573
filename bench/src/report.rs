//! Rows of results, as a table for people and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cpu::Spent;

const JSON: &str = "results.json";

/// What was measured once: in the row's unit, with what it cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) spent: Spent,
}

/// What a row has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At least this share of another row, in the same rounds.
    RatioMin(f64),
    /// Between these shares of what was predicted.
    RatioWithin(f64, f64),
    /// At most this.
    Max(f64),
    /// At most this each time.
    EachMax(f64),
}

/// One row (the fields that readers of `results.json` may rely on, and three more).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    unit: String,
    min: f64,
    median: f64,
    max: f64,
    /// The median of the ratios of each round's pair.
    ratio: Option<f64>,
    /// What the ratio is of.
    of: Option<String>,
    goal: Option<String>,
    met: Option<bool>,
    /// CPU seconds by program, and the peak memory of the process measured (MB of 10^6 bytes), of the median round.
    cpu_s: BTreeMap<String, f64>,
    peak_rss_mb: Option<f64>,
    /// Which run measured it: when, at which revision, on which machine.
    run: String,
}

/// All rows so far.
pub(crate) struct Report {
    folder: &'static str,
    only: String,
    /// This run.
    run: String,
    /// What earlier runs measured; nothing where all is measured anew.
    before: Vec<Row>,
    rows: Vec<Row>,
}

impl Report {
    /// A report for a folder. Where only some rows are asked for, those of the reports that lie there stay.
    pub(crate) fn new(folder: &'static str, only: &str) -> anyhow::Result<Self> {
        let file = format!("{folder}/{JSON}");
        let before = if only.is_empty() {
            Vec::new()
        } else {
            serde_json::from_str(&fs::read_to_string(&file).with_context(|| file.clone())?).context(file)?
        };
        Ok(Self { folder, only: only.to_owned(), run: machine(), before, rows: Vec::new() })
    }

    /// Whether a measurement of that name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// A floor or a ceiling, without a goal.
    pub(crate) fn floor(&mut self, name: &str, unit: &'static str, samples: &[Sample]) {
        self.row(name, unit, samples, None, None);
    }

    /// A row with what it is compared with.
    pub(crate) fn row(
        &mut self,
        name: &str,
        unit: &'static str,
        samples: &[Sample],
        of: Option<(&str, &[Sample])>,
        goal: Option<Goal>,
    ) {
        let mut sorted = samples.to_vec();
        sorted.sort_by(|one, other| one.value.total_cmp(&other.value));
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
        let middle = &sorted[sorted.len() / 2];
        let ratio = of.map(|(_, others)| {
            let mut ratios: Vec<f64> =
                samples.iter().zip(others).map(|(sample, other)| sample.value / other.value).collect();
            ratios.sort_by(f64::total_cmp);
            ratios[ratios.len() / 2]
        });
        let met = goal.map(|goal| match goal {
            Goal::RatioMin(least) => ratio.is_some_and(|ratio| ratio >= least),
            Goal::RatioWithin(least, most) => ratio.is_some_and(|ratio| (least..=most).contains(&ratio)),
            Goal::Max(most) => middle.value <= most,
            Goal::EachMax(bound) => most.value <= bound,
        });
        let row = Row {
            name: name.to_owned(),
            unit: unit.to_owned(),
            min: least.value,
            median: middle.value,
            max: most.value,
            ratio,
            of: of.map(|(name, _)| name.to_owned()),
            goal: goal.map(|goal| match goal {
                Goal::RatioMin(least) => format!("ratio >= {least}"),
                Goal::RatioWithin(least, most) => format!("ratio {least} to {most}"),
                Goal::Max(most) => format!("<= {}", shown(most)),
                Goal::EachMax(most) => format!("max <= {}", shown(most)),
            }),
            met,
            cpu_s: middle.spent.cpu_s.clone(),
            peak_rss_mb: middle.spent.peak_rss_mb,
            run: self.run.clone(),
        };
        println!("{}", line(&row));
        self.rows.push(row);
    }

    /// Writes `RESULTS.md` and `results.json`.
    pub(crate) fn write(self) -> anyhow::Result<()> {
        let rows = merged(self.before, self.rows);
        let mut runs: Vec<&str> = Vec::new();
        for row in &rows {
            if !runs.contains(&row.run.as_str()) {
                runs.push(&row.run);
            }
        }
        let mut text = "# Results\n\nWritten by `make bench`; what each row is: [README.md](README.md). Pairs of a ratio ran one \
             after the other, in one run; the ratio is the median of the rounds' ratios, the CPU seconds and the memory are \
             those of the median round. Rows of several runs (`--only`) say by which they were measured:\n\n"
            .to_owned();
        for (n, run) in runs.iter().enumerate() {
            let _ = writeln!(text, "{}. {run}", n + 1);
        }
        text.push_str(
            "\n| what | unit | min | median | max | ratio | of | goal | met | CPU s | peak RSS, MB | run |\n",
        );
        text.push_str("|---|---|---:|---:|---:|---:|---|---|---|---|---:|---:|\n");
        for row in &rows {
            let run = runs.iter().position(|run| *run == row.run).unwrap_or_default() + 1;
            let _ = writeln!(text, "{} {run} |", line(row));
        }
        fs::write(format!("{}/RESULTS.md", self.folder), text)?;
        fs::write(format!("{}/{JSON}", self.folder), serde_json::to_string_pretty(&rows)? + "\n")?;
        Ok(())
    }
}

/// Rows that were measured before, each in its place where it was measured again; then those that are new.
fn merged(before: Vec<Row>, mut measured: Vec<Row>) -> Vec<Row> {
    let mut rows = Vec::new();
    for old in before {
        let again = measured.iter().position(|row| row.name == old.name);
        rows.push(again.map_or(old, |at| measured.remove(at)));
    }
    rows.extend(measured);
    rows
}

fn line(row: &Row) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let met = match row.met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    };
    let cpu: Vec<String> = row.cpu_s.iter().map(|(name, s)| format!("{name} {s:.1}")).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {met} | {} | {} |",
        row.name,
        row.unit,
        shown(row.min),
        shown(row.median),
        shown(row.max),
        row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        text(&row.of),
        text(&row.goal),
        cpu.join(", "),
        row.peak_rss_mb.map(|mb| format!("{mb:.0}")).unwrap_or_default(),
    )
}

/// Three digits that count, at least.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The machine and the moment.
pub(crate) fn machine() -> String {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map(|(_, model)| model.trim()).unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let mut text = String::new();
    let _ = write!(
        text,
        "{}, revision {}. {cores} cores ({model}), {} GiB, {}; shared with Kafka, Redis and PostgreSQL.",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        said("git", &["describe", "--always", "--dirty"]),
        kib >> 20,
        said("uname", &["-sr"]),
    );
    text
}
