//! Instructions an item of each pure part, counted by valgrind, beside those that were committed: a slowdown of a few percent
//! shows on a machine on which the clock is off by tens. Started by `bench/instructions.sh` (`make instructions`).
//!
//! Each workload runs in a process of its own, once to warm up and then so many times while callgrind counts: what a process
//! needs to start and to make its data is left out. (The difference of a short and a long run would leave it out as well,
//! but not what varies in it.)

mod seeds;

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use fleetlog_bench::pure;
use serde::{Deserialize, Serialize};

/// What was committed.
const FILE: &str = "bench/instructions.json";
/// More than this beside what was committed is a slowdown.
const RATIO_MAX: f64 = 1.05;
/// Less than this is worth being kept.
const RATIO_MIN: f64 = 0.95;
/// How often the work is done while it is counted.
const TIMES: u64 = 3;
/// What jemalloc does by the clock or in a thread of its own is off: giving memory back, and tidying a thread's cache (it is
/// tidied by the bytes allocated, as before 5.3.1). Otherwise a buffer that grows is moved in one run and not in the next.
const MALLOC_CONF: &str =
    "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:1,experimental_tcache_gc:false";

#[derive(Debug, Parser)]
struct Args {
    /// Write what was counted, instead of failing where it is more
    #[arg(long)]
    update: bool,
    /// Only workloads whose name holds this text
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    counted: Option<Counted>,
}

#[derive(Debug, clap::Subcommand)]
enum Counted {
    /// What is counted: one workload so many times; says how many items these are
    Run {
        /// Its name
        name: String,
        /// How often
        times: u64,
    },
}

/// One entry of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    instructions_per_item: f64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Counted::Run { name, times }) = args.counted {
        let mut workload = pure::named(&name).with_context(|| format!("there is no workload `{name}`"))?;
        workload.once();
        workload.counted(times);
        println!("{}", times * workload.items());
        return Ok(ExitCode::SUCCESS);
    }
    let known = committed()?;
    let mut is_slower = false;
    let mut entries = Vec::new();
    println!("| instructions an item of | was | is | ratio | |\n|---|---:|---:|---:|---|");
    for name in pure::names() {
        let was = known.get(name).copied();
        if !name.contains(&args.only) {
            // An update of some leaves the others as they were.
            entries.extend(was.map(|was| entry(name, was)));
            continue;
        }
        let is = instructions_per_item(name)?;
        let verdict = Verdict::of(was, is);
        is_slower |= matches!(verdict, Verdict::Slower | Verdict::New);
        println!("{}", line(name, was, is, verdict));
        entries.push(entry(name, is));
    }
    if args.update {
        fs::write(FILE, serde_json::to_string_pretty(&entries)? + "\n").context(FILE)?;
        return Ok(ExitCode::SUCCESS);
    }
    if is_slower {
        eprintln!(
            "more instructions than {FILE} allows; if that is what it has to cost: make instructions UPDATE=1"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn committed() -> Result<BTreeMap<String, f64>> {
    if !fs::exists(FILE)? {
        return Ok(BTreeMap::new());
    }
    let entries: Vec<Entry> = serde_json::from_str(&fs::read_to_string(FILE)?).context(FILE)?;
    Ok(entries.into_iter().map(|entry| (entry.name, entry.instructions_per_item)).collect())
}

fn entry(name: &str, instructions_per_item: f64) -> Entry {
    Entry { name: name.to_owned(), instructions_per_item }
}

/// What a count says beside the committed one.
#[derive(Clone, Copy)]
enum Verdict {
    Slower,
    AsItWas,
    Faster,
    /// Nothing was committed.
    New,
}

impl Verdict {
    fn of(was: Option<f64>, is: f64) -> Self {
        match was.map(|was| is / was) {
            None => Self::New,
            Some(ratio) if ratio > RATIO_MAX => Self::Slower,
            Some(ratio) if ratio < RATIO_MIN => Self::Faster,
            Some(_) => Self::AsItWas,
        }
    }
}

fn line(name: &str, was: Option<f64>, is: f64, verdict: Verdict) -> String {
    let said = match verdict {
        Verdict::Slower => "**slower**",
        Verdict::AsItWas => "",
        Verdict::Faster => "faster",
        Verdict::New => "**new**",
    };
    let (was, ratio) = match was {
        Some(was) => (format!("{was:.1}"), format!("{:.3}", is / was)),
        None => Default::default(),
    };
    format!("| {name} | {was} | {is:.1} | {ratio} | {said} |")
}

/// Counts a workload in a process of its own; to a tenth.
fn instructions_per_item(name: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={}", pure::COUNTED))
        .arg(std::env::current_exe()?)
        .args(["run", name, &TIMES.to_string()])
        .env("MALLOC_CONF", MALLOC_CONF)
        .env_remove("VALGRIND_OPTS")
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` under valgrind ended with {}: {said}", output.status);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    let collected: f64 = collected.with_context(|| format!("no count in what valgrind said: {said}"))?;
    ensure!(collected > 0.0, "callgrind counted nothing in {}", pure::COUNTED);
    let items: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("no number of items")?;
    Ok((collected / items * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_a_slowdown_and_so_is_what_nobody_committed() {
        assert!(matches!(Verdict::of(Some(100.0), 104.9), Verdict::AsItWas));
        assert!(matches!(Verdict::of(Some(100.0), 105.1), Verdict::Slower));
        assert!(matches!(Verdict::of(Some(100.0), 94.9), Verdict::Faster));
        assert!(matches!(Verdict::of(None, 100.0), Verdict::New));
    }
}
