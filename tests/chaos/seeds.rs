//! Which seeds run: a few in `make test`, many in `make chaos`, those that ever failed always.

use crate::{faults::Family, outcome::Outcome, plan::Plan, run::run};

/// Runs a seed and says how to replay it.
async fn run_seed(seed: u64, family: Option<Family>) -> Outcome {
    let (plan, random) = match family {
        Some(family) => Plan::of_family(seed, family),
        None => Plan::of(seed),
    };
    println!("make chaos SEED={seed}    # {plan:?}");
    let outcome = run(plan, random).await;
    println!("{}", serde_json::to_string(&outcome).unwrap());
    outcome
}

async fn is_clean(seed: u64, family: Family) {
    let outcome = run_seed(seed, Some(family)).await;
    assert!(outcome.is_clean(), "seed {seed}: {:#?}", outcome.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_killed_stopped_and_joined() {
    is_clean(1, Family::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_wakes_up_as_a_zombie() {
    is_clean(2, Family::Zombie).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_overtakes_a_stopped_projector() {
    is_clean(3, Family::Retention).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_and_made_again() {
    is_clean(4, Family::Recreated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_cut_refused_half_open_and_slow() {
    is_clean(5, Family::Network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_throws_nobody_out() {
    is_clean(6, Family::Hang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_forgets_and_is_failed_over() {
    is_clean(7, Family::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_dies_is_locked_and_full() {
    is_clean(8, Family::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_freezes() {
    is_clean(9, Family::Broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump() {
    is_clean(10, Family::Clock).await;
}

/// Three brokers on two processors take their time: by `make chaos`, or by hand.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute and more: make chaos FAMILY=cluster"]
async fn three_brokers_of_which_one_is_away() {
    is_clean(11, Family::Cluster).await;
}
