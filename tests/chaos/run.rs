//! One run of one seed: load and faults, then quiet, then the checks.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleetlog_testkit::workspace_root;
use fleetlog_tests::{World, until};
use futures_util::FutureExt as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    faults::{Faults, Ground, process},
    fleet::Fleet,
    load::{self, Load},
    outcome::{Check, Finding, Outcome},
    plan::Plan,
    recount::{Expected, recount},
    watcher::{Watched, watch},
};

/// How long the lanes may take to catch up when nothing strikes any more. A member that was killed and not replaced
/// holds its partitions for its session.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
/// How long a run may take before it is given up.
const RUN_LIMIT: Duration = Duration::from_secs(420);
/// Between two looks at how far they are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a seed. A panic or an error of the run itself is a finding of check `harness`.
pub(crate) async fn run(plan: Plan, random: StdRng) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::of(&plan);
    let running = AssertUnwindSafe(prepare_and_run(&plan, random, &mut outcome)).catch_unwind();
    let failed = match tokio::time::timeout(RUN_LIMIT, running).await {
        Ok(Ok(ran)) => ran.err().map(|error| format!("{error:#}")),
        Ok(Err(panic)) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panicked: {}", said.unwrap_or_default()))
        }
        Err(_) => Some(format!("not done within {RUN_LIMIT:?}")),
    };
    outcome.findings.extend(failed.map(|detail| Finding { check: Check::Harness, detail }));
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.judge();
    outcome
}

async fn prepare_and_run(plan: &Plan, mut random: StdRng, outcome: &mut Outcome) -> Result<()> {
    let mut faults = plan.family.set_up(&mut random).await?;
    let ground = faults.ground();
    let label = format!("chaos{}", plan.seed);
    let world = World::with(ground.stack.clone(), &label, &ground.everywhere).await;
    let mut fleet = Fleet::new(world, &ground, plan, faults.restarts_are_timed(), faults.stopped())?;
    faults.begin(&mut fleet, &mut random)?;
    let ran = run_fleet(&mut fleet, &mut *faults, &ground, plan, &mut random, outcome).await;
    outcome.struck = std::mem::take(&mut fleet.struck);
    outcome.restarts = fleet.restarts;
    outcome.poisons = fleet.poisoner.acknowledged();
    outcome.first_writes_ms = std::mem::take(&mut fleet.first_writes_ms);
    outcome.findings = std::mem::take(&mut fleet.findings);
    if ran.is_err() || !outcome.findings.is_empty() || outcome.recount.found() > 0 {
        let folder = workspace_root().join(".stack/chaos");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{}.log", plan.seed)), fleet.said())?;
    }
    ran
}

async fn run_fleet(
    fleet: &mut Fleet,
    faults: &mut dyn Faults,
    ground: &Ground,
    plan: &Plan,
    random: &mut StdRng,
    outcome: &mut Outcome,
) -> Result<()> {
    let stop_watching = CancellationToken::new();
    let watched = Watched {
        redis_url: fleet.world.redis_url.clone(),
        prefix: fleet.world.prefix.clone(),
        store_losses: fleet.store_losses(),
    };
    let watching = tokio::spawn(watch(watched, stop_watching.clone()));
    let sent = load_and_strike(fleet, faults, ground, plan, random).await?;
    outcome.events = sent.acknowledged;
    let is_quiet = catch_up(fleet, faults.stopped()).await?;
    if is_quiet && let Some(fault) = faults.strike_in_quiet(fleet, random).await? {
        fleet.note(fault);
        catch_up(fleet, faults.stopped()).await?;
    }
    fleet.stop_all().await?;
    faults.check(fleet).await.context("what this family checks")?;
    stop_watching.cancel();
    outcome.reads = watching.await?;
    let expected = Expected {
        sent,
        poisons: fleet.poisoner.acknowledged(),
        without: faults.stopped(),
        redriven: faults.redrives(),
        tails_lost: fleet.store_losses().load(Ordering::SeqCst) > 0,
    };
    outcome.recount = recount(&fleet.world, &expected).await?;
    Ok(())
}

/// Load, poison and faults at once, for as long as planned; what was acknowledged.
async fn load_and_strike(
    fleet: &mut Fleet,
    faults: &mut dyn Faults,
    ground: &Ground,
    plan: &Plan,
    random: &mut StdRng,
) -> Result<load::Sent> {
    let load = Load::start(&fleet.world, ground, plan)?;
    let stop_poison = CancellationToken::new();
    let poison_random = StdRng::seed_from_u64(random.random());
    let trickle = fleet.poisoner.clone().trickle(plan.clone(), poison_random, stop_poison.clone());
    let poisoning = tokio::spawn(trickle);
    fleet.fill_up()?;
    until("the fleet's first write", async || {
        fleet.world.nonces().await.is_some_and(|stores| stores.iter().all(|nonces| !nonces.is_empty()))
    })
    .await;
    let begun = Instant::now();
    let mut strikes = 0;
    while strikes < faults.strikes_min() || begun.elapsed() < Duration::from_millis(plan.load_ms) {
        process::pause(random, faults.pause_ms()).await;
        // Every third strike is one at projectors, where the family allows it.
        let fault = if faults.mixes_with_process() && random.random_ratio(1, 3) {
            process::strike(fleet, random).await
        } else {
            faults.strike(fleet, random).await
        };
        fleet.note(fault.with_context(|| format!("strike {strikes}"))?);
        fleet.look_after().await?;
        strikes += 1;
    }
    faults.heal(fleet).await.context("healing")?;
    stop_poison.cancel();
    poisoning.await??;
    let sent = load.stop().await?;
    fleet.look_after().await?;
    Ok(sent)
}

/// Waits until every lane of every projection that goes on has taken everything, and no event of a handler waits; false, and a finding, if not in time.
async fn catch_up(fleet: &mut Fleet, stopped: &[&str]) -> Result<bool> {
    let begun = Instant::now();
    loop {
        fleet.look_after().await?;
        let rows = fleet.world.json(&["status"]).await;
        let behind: Vec<&Value> = rows
            .as_array()
            .context("status is a list")?
            .iter()
            .filter(|row| !stopped.contains(&row["projection"].as_str().unwrap_or_default()))
            // Of a handler: what it has to do, and what waits.
            .filter(|row| {
                ["lag_events", "lag_offsets"].iter().any(|lag| row[lag].as_i64().is_some_and(|lag| lag > 0))
            })
            .collect();
        if behind.is_empty() {
            return Ok(true);
        }
        if begun.elapsed() > CATCH_UP_LIMIT {
            let detail = format!("not after {CATCH_UP_LIMIT:?}: {behind:?}\n{}", fleet.said());
            fleet.found(Check::CaughtUp, detail);
            return Ok(false);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
