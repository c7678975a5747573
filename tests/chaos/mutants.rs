//! `make mutants`: each guarantee broken on purpose, and which check notices within ten seeds.
//!
//! The family is the one whose faults can bring the break to light; the checks are those of every run.

use std::time::Duration;

use fleetlog_testkit::{Fleetlog, Stack};

use crate::{
    faults::Family,
    fleet::fault_injection_binary,
    outcome::Check,
    plan::Plan,
    report::{Caught, mutants_table},
    run::run,
    seeds::setting,
};

const SEEDS: u64 = 10;

/// Found by the model alone (docs/guarantees.md): a batch with a set-aside has to be projected while a round's first piece is
/// under way, and the process has to be killed after the second piece and before the next round.
const MODEL_ONLY: [&str; 1] = ["set-asides-beyond-left"];

/// Which faults a mutant is given.
fn family(mutant: &str) -> Family {
    match mutant {
        "link-check-off" => Family::Zombie,
        "ownership-not-proved" => Family::Usurper,
        "cache-kept" | "idle-link-not-read" => Family::Tail,
        "at-or-past" | "nonce-reused" | "stale-prefetch" | "dedup-learns-early" => Family::Chain,
        "ledger-skipped" => Family::Redrive,
        "handler-commits-ahead" | "handler-too-early" => Family::Handlers,
        _ => Family::Process,
    }
}

async fn names() -> Vec<String> {
    let listed = Fleetlog::new(&Stack::from_env(), "")
        .program(fault_injection_binary())
        .env("FLEETLOG_TEST_MUTANT", "list")
        .run(&[], Duration::from_secs(10))
        .await
        .and_then(fleetlog_testkit::Output::success);
    listed.expect("scripts/build_fault_injection.sh makes the binary").lines().map(str::to_owned).collect()
}

/// Seeds 1 to 10, until a check finds something.
async fn hunt(mutant: &str) -> Caught {
    let family = family(mutant);
    for seed in 1..=SEEDS {
        let (plan, random) = Plan::of_family(seed, family);
        let outcome = run(Plan { mutant: Some(mutant.to_owned()), ..plan }, random).await;
        println!("{mutant}: {}", serde_json::to_string(&outcome).unwrap());
        let mut checks: Vec<Check> = outcome.findings.iter().map(|finding| finding.check).collect();
        checks.sort_unstable();
        checks.dedup();
        // A run that gave no verdict caught nothing.
        checks.retain(|check| *check != Check::Harness);
        if !checks.is_empty() {
            return Caught { mutant: mutant.to_owned(), family: family.name(), by: Some((seed, checks)) };
        }
    }
    Caught { mutant: mutant.to_owned(), family: family.name(), by: None }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make mutants"]
async fn every_mutant_is_caught() {
    let only = setting("FLEETLOG_CHAOS_MUTANT");
    let mut caught = Vec::new();
    for mutant in names().await {
        if only.as_ref().is_none_or(|only| only.split(',').any(|name| name == mutant)) {
            caught.push(hunt(&mutant).await);
        }
    }
    println!("\n{}", mutants_table(&caught));
    let is_due = |caught: &Caught| caught.by.is_some() || MODEL_ONLY.contains(&caught.mutant.as_str());
    assert!(!caught.is_empty() && caught.iter().all(is_due), "see the table");
}
